"""Pictures of the annotation: labels and doubt on the tissue, markers of predicted types, scores of the models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from histoweft import plotting
from histoweft.annotation import calibrate
from histoweft.annotation.annotator import UNKNOWN
from histoweft.annotation.explain import HIGHER
from histoweft.annotation.genes import TARGET_SUM
from histoweft.annotation.score import Judged
from histoweft.io import CountsFile
from histoweft.normalise import row_sums, size_factors

MOST_GENES = 60


def label_colours(types: Sequence[str]) -> dict[str, str]:
    """Give each type a colour, the same in every sample; `UNKNOWN` is grey."""
    return plotting.shared_colours([*types, UNKNOWN])


def sample_figure(
    table: pd.DataFrame,
    xy: np.ndarray,
    path: str | os.PathLike,
    *,
    on_tissue: bool,
    sample: str,
    mpp: float | None = None,
    spot_diameter_um: float | None = None,
) -> None:
    """Draw labels, probabilities and the unknown score of a sample's cells side by side.

    Parameters
    ----------
    table
        `annotator.annotate`.
    xy
        cells x 2: positions, or a UMAP.
    path
        A png or svg.
    on_tissue
        Whether `xy` are positions.
    sample
        For the title.
    mpp, spot_diameter_um
        See `plotting.tissue`.
    """
    types = list(table["best"].cat.categories)
    colours = label_colours(types)
    fig, axes = plotting.new_figure(ncols=3, panel=(5.2, 4.4))
    refused = int(table["unknown"].sum())
    panels = (
        (table["label"], f"{sample}: type ({refused} of {len(table)} {UNKNOWN})", {"colours": colours}),
        (table["probability"], "probability of the best type", {"vmin": 0.0, "vmax": 1.0, "cmap": "viridis"}),
        (table["unknown_score"], "distance to the nearest type", {"cmap": "magma_r"}),
    )
    for ax, (values, title, style) in zip(axes[0], panels, strict=True):
        if on_tissue:
            plotting.tissue(ax, xy, values, mpp=mpp, spot_diameter_um=spot_diameter_um, title=title, **style)
        else:
            _on_umap(ax, xy, values, title, style)
    plotting.save(fig, path)


def _on_umap(ax, xy: np.ndarray, values: pd.Series, title: str, style: dict) -> None:
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    ax.set_title(title, fontsize=10)
    size = float(np.clip(12_000 / max(len(xy), 1), 0.3, 12))
    if "colours" in style:
        names = values.astype(str).to_numpy()
        colours = {name: colour for name, colour in style["colours"].items() if (names == name).any()}
        ax.scatter(*xy.T, s=size, c=[colours[name] for name in names], linewidths=0, rasterized=True)
        plotting.category_legend(ax, colours)
        return
    drawn = ax.scatter(*xy.T, s=size, c=values, linewidths=0, rasterized=True, cmap=style["cmap"],
                       vmin=style.get("vmin"), vmax=style.get("vmax"))  # fmt: skip
    ax.figure.colorbar(drawn, ax=ax, shrink=0.6).outline.set_visible(False)


def marker_summary(
    path: str | os.PathLike, labels: pd.Series, genes: Mapping[str, int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summarise genes over the cells of each label, reading the counts in blocks.

    Parameters
    ----------
    path
        Counts of a sample.
    labels
        Of its cells, categorical.
    genes
        Name to column of the counts.

    Returns
    -------
    mean
        labels x genes: mean log-normalised value (all genes of the cell as its total).
    share
        labels x genes: share of the cells that express the gene.
    """
    names = [name for name in labels.cat.categories if (labels == name).any()]
    codes = labels.cat.set_categories(names).cat.codes.to_numpy()
    with CountsFile(path) as counts:
        at = np.array(list(genes.values()), dtype=int)
        mean, share = np.zeros((len(names), len(at))), np.zeros((len(names), len(at)))
        for rows, chunk in counts.chunks():
            part = chunk[:, at].toarray() * size_factors(row_sums(chunk), TARGET_SUM)[:, None]
            member = np.eye(len(names))[codes[rows]]
            mean += member.T @ np.log1p(part)
            share += member.T @ (part > 0)
    sizes = np.bincount(codes, minlength=len(names))[:, None]
    return pd.DataFrame(mean / sizes, names, list(genes)), pd.DataFrame(share / sizes, names, list(genes))


def genes_to_show(explanations: pd.DataFrame, markers: Mapping[str, Sequence[str]] | None, each: int = 4) -> list[str]:
    """Choose genes: known markers of each type where there are some, else the leading genes of its explanation."""
    chosen: list[str] = []
    genes = explanations[(explanations["kind"] == "gene") & (explanations["expressed"] == HIGHER)]
    types = list(dict.fromkeys(genes["type"])) or list(markers or {})
    for name in types:
        known = sorted((markers or {}).get(name, ()))
        leading = genes.loc[genes["type"] == name, "name"].tolist()
        # Known markers that carried the decision come first.
        ranked = [gene for gene in leading if gene in known] + [gene for gene in known if gene not in leading]
        chosen += [gene for gene in (ranked or leading) if gene not in chosen][:each]
    return chosen[:MOST_GENES]


def dot_figure(mean: pd.DataFrame, share: pd.DataFrame, sizes: Mapping[str, int], path: str | os.PathLike) -> None:
    """Draw a dot for each label and gene: size, the share of cells that express it; colour, the mean, largest = 1."""
    if mean.shape[1] == 0:
        _say("no genes to show: the model names none; give annotation.markers", path)
        return
    scaled = mean / np.maximum(mean.max(axis=0), 1e-9)
    width, height = 1.8 + 0.24 * mean.shape[1], 1.3 + 0.3 * len(mean)
    fig, axes = plotting.new_figure(panel=(width + 1.2, height))
    ax = axes[0, 0]
    x, y = np.meshgrid(np.arange(mean.shape[1]), np.arange(len(mean)))
    drawn = ax.scatter(x.ravel(), y.ravel(), s=110 * share.to_numpy().ravel(), c=scaled.to_numpy().ravel(),
                       cmap="viridis_r", vmin=0, vmax=1, linewidths=0.3, edgecolors="grey")  # fmt: skip
    ax.set_xticks(range(mean.shape[1]), mean.columns, rotation=90, fontsize=8)
    ax.set_yticks(range(len(mean)), [f"{name} ({sizes.get(name, 0)})" for name in mean.index], fontsize=8)
    ax.set(xlim=(-0.7, mean.shape[1] - 0.3), ylim=(len(mean) - 0.4, -0.6))
    ax.set_title("dot: share of cells that express the gene; colour: mean", fontsize=9)
    bar = fig.colorbar(drawn, ax=ax, shrink=0.8, pad=0.01, aspect=12)
    bar.set_label("mean, largest = 1", fontsize=8)
    bar.outline.set_visible(False)
    plotting.save(fig, path)


def _say(text: str, path: str | os.PathLike) -> None:
    """Draw a sentence in the place of a picture."""
    fig, axes = plotting.new_figure(panel=(5.6, 1.2))
    axes[0, 0].axis("off")
    axes[0, 0].text(0.5, 0.5, text, ha="center", va="center", fontsize=10)
    plotting.save(fig, path)


def confusion_figure(judged: Judged, path: str | os.PathLike, method: str) -> None:
    """Draw the share of each type's held-out cells that were given each type."""
    n = len(judged.names)
    counts = np.zeros((n, n))
    np.add.at(counts, (judged.truth, judged.predicted), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(3.4, 0.42 * n + 1.6)
    fig, axes = plotting.new_figure(panel=(side + 1.2, side))
    ax = axes[0, 0]
    drawn = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
        colour = "white" if share[row, column] > 0.55 else "black"
        ax.text(column, row, f"{100 * share[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    totals = counts.sum(axis=1).astype(int)
    ax.set_xticks(range(n), judged.names, rotation=90, fontsize=8)
    ax.set_yticks(range(n), [f"{name} ({total})" for name, total in zip(judged.names, totals)], fontsize=8)
    ax.set(xlabel="predicted type", ylabel="true type (cells)")
    ax.set_title(f"{method}, held-out reference cells: per cent of each type", fontsize=10)
    bar = fig.colorbar(drawn, ax=ax, shrink=0.6, pad=0.02)
    bar.outline.set_visible(False)
    plotting.save(fig, path)


def reliability_figure(judged: Mapping[str, Judged], path: str | os.PathLike) -> None:
    """Draw for each model how often it was right against what it claimed."""
    colours = plotting.category_colours(list(judged))
    fig, axes = plotting.new_figure(panel=(5.6, 4.2))
    ax = axes[0, 0]
    ax.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    for method, one in judged.items():
        _, share, claimed, true = calibrate.reliability(one.probability, one.right)
        error = calibrate.expected_calibration_error(one.probability, one.right)
        ax.plot(claimed, true, color=colours[method], linewidth=1.2, label=f"{method} (ECE {error:.3f})")
        ax.scatter(claimed, true, s=8 + 140 * share, color=colours[method], linewidths=0, zorder=3)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability claimed", ylabel="share that was right")
    ax.set_title("calibration on held-out reference cells", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    plotting.save(fig, path)


def recall_figure(rows: pd.DataFrame, path: str | os.PathLike) -> None:
    """Draw the recall of each type by each model on held-out reference cells, with intervals; small types last.

    Parameters
    ----------
    rows
        Rows of the metric ``recall``: ``method``, ``panel`` (type), ``value``, ``low``, ``high``, ``n``.
    path
        A png or svg.
    """
    methods = list(dict.fromkeys(rows["method"]))
    sizes = rows.drop_duplicates("panel").set_index("panel")["n"].sort_values(ascending=False, kind="stable")
    colours = plotting.category_colours(methods)
    fig, axes = plotting.new_figure(panel=(max(5.0, 1.5 + 0.16 * len(sizes) * (len(methods) + 1)), 3.8))
    ax = axes[0, 0]
    width = 0.8 / len(methods)
    for i, method in enumerate(methods):
        part = rows[rows["method"] == method].set_index("panel").loc[sizes.index]
        at = np.arange(len(sizes)) + (i - (len(methods) - 1) / 2) * width
        error = np.clip(np.stack([part["value"] - part["low"], part["high"] - part["value"]]), 0, None)
        ax.bar(at, part["value"], 0.92 * width, color=colours[method], label=method, yerr=error,
               error_kw={"elinewidth": 0.7})  # fmt: skip
    ax.set_xticks(range(len(sizes)), [f"{name}\n({int(n)})" for name, n in sizes.items()], rotation=60, ha="right",
                  rotation_mode="anchor", fontsize=8)  # fmt: skip
    ax.set(ylim=(0, 1.05), ylabel="recall")
    ax.set_title("share of each type's held-out cells found (cells; 95 % interval)", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    plotting.save(fig, path)


def explanation_figure(explanations: pd.DataFrame, path: str | os.PathLike, method: str, each: int = 5) -> None:
    """Draw the leading genes of each type and what they add to the decision for every type they lead in.

    Genes whose absence speaks for a type are left to the table.

    Parameters
    ----------
    explanations
        `explain.COLUMNS` of one model; may be empty.
    path
        A png or svg.
    method
        Its name.
    each
        Genes of a type.
    """
    genes = explanations[(explanations["kind"] == "gene") & (explanations["expressed"] == HIGHER)]
    if genes.empty:
        _say(f"{method} names no genes here", path)
        return
    chosen = list(dict.fromkeys(genes.groupby("type", sort=False).head(each)["name"]))
    table = genes.pivot(index="type", columns="name", values="weight").reindex(columns=chosen)
    table = table.reindex(list(dict.fromkeys(genes["type"])))
    share = table.div(table.max(axis=1), axis=0)
    fig, axes = plotting.new_figure(panel=(2.2 + 0.2 * len(chosen), 1.4 + 0.28 * len(table)))
    ax = axes[0, 0]
    drawn = ax.imshow(np.ma.masked_invalid(share.to_numpy(float)), cmap="viridis_r", vmin=0, vmax=1, aspect="auto")
    ax.set_facecolor("#f2f2f2")
    ax.set_xticks(range(len(chosen)), chosen, rotation=90, fontsize=7)
    ax.set_yticks(range(len(table)), table.index, fontsize=8)
    ax.set_title(f"{method}: genes that carry the decision (leading gene of a type = 1; grey: not among its leading)",
                 fontsize=9)  # fmt: skip
    bar = fig.colorbar(drawn, ax=ax, shrink=0.8, pad=0.01, aspect=12)
    bar.outline.set_visible(False)
    plotting.save(fig, path)
