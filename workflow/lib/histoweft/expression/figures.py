"""Pictures of the expression stage. Samples without positions (plain single cells) get the panels that need none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from histoweft.expression.features import FeatureResult
from histoweft.io import CountsFile
from histoweft.plotting import MAX_DISCS, category_colours, new_figure, save, tissue

IMAGE_PX = 2_000
"""Longest side of the image under the spots."""

KEPT = "kept"
_KEPT_COLOUR = "#b4c2cc"


@dataclass(frozen=True)
class _Place:
    """Where a sample's spots lie, and what `plotting.tissue` needs to draw them."""

    xy: np.ndarray
    options: dict[str, Any]


def _place(path: str | os.PathLike, image_path: str | os.PathLike | None) -> tuple[pd.Index, _Place | None]:
    """Read barcodes, and positions and image where the sample has them."""
    with CountsFile(path) as counts:
        barcodes = counts.obs_names
        if "spatial" not in counts.obsm_names():
            return barcodes, None
        xy = np.asarray(counts.obsm("spatial"), dtype=float)[:, :2]
        about = counts.uns.get("histoweft", {})
    options = {"mpp": about.get("mpp"), "spot_diameter_um": about.get("spot_diameter_um")}
    if image_path:
        from histoweft.images import read_image

        image, _, scale = read_image(image_path, max_px=IMAGE_PX)
        options |= {"image": image, "image_scale": scale}
    return barcodes, _Place(xy, options)


def _plain(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def _empty(ax: Any, message: str) -> None:
    ax.set_axis_off()
    ax.text(0.5, 0.5, message, ha="center", va="center", color="#666666", transform=ax.transAxes, wrap=True)


# --------------------------------------------------------------------------------------------------------------- QC


def qc_figure(
    counts_path: str | os.PathLike,
    decided: pd.DataFrame,
    table: pd.DataFrame,
    out: str | os.PathLike,
    image_path: str | os.PathLike | None = None,
) -> None:
    """Show which barcodes were removed and why: on the tissue, and in the histogram of each measure.

    Parameters
    ----------
    counts_path
        h5ad before QC; gives the positions.
    decided
        Index: barcodes; the measures and the reason for removal (see `histoweft.expression.qc.QcResult`).
    table
        The filters, of the same.
    out
        Picture to write.
    image_path
        Working image, if the sample has one.
    """
    barcodes, place = _place(counts_path, image_path)
    found = decided.loc[barcodes]
    labels = {"n_genes": "genes a barcode", "n_counts": "counts a barcode", "pct_mito": "mitochondrial counts (%)"}
    measures = [(name, label) for name, label in labels.items() if found[name].notna().any()]
    n_panels = len(measures) + (place is not None)
    fig, axes = new_figure(n_panels, 1)
    axes = list(axes.flat)
    if place is not None:
        _removed_on_tissue(axes.pop(0), place, found["reason"])
    for ax, (name, label) in zip(axes, measures):
        _histogram(ax, found, table, name, label)
    save(fig, out)


def _reason_colours(reason: pd.Series) -> dict[str, str]:
    """Colour of kept barcodes (grey) and of each reason, the most frequent first."""
    reasons = [why for why in reason.value_counts().index if why != ""]
    # The first colour of the palette is left out: blue spots would read as the good ones.
    colours = category_colours([KEPT, *reasons])
    return {**colours, KEPT: _KEPT_COLOUR}


def _removed_on_tissue(ax: Any, place: _Place, reason: pd.Series) -> None:
    counts = reason.replace("", KEPT).value_counts()
    named = {why: f"{why} ({counts.get(why, 0):,})" for why in _reason_colours(reason)}
    colours = {named[why]: colour for why, colour in _reason_colours(reason).items()}
    shown = pd.Categorical(reason.replace("", KEPT).map(named), categories=list(named.values()))
    title = f"{int((reason != '').sum()):,} of {len(reason):,} barcodes removed"
    tissue(ax, place.xy, pd.Series(shown), colours=colours, title=title, alpha=0.9, **place.options)


def _histogram(ax: Any, found: pd.DataFrame, table: pd.DataFrame, name: str, label: str) -> None:
    found = found[found[name].notna()]
    values = found[name].to_numpy(dtype=float)
    logarithmic = name != "pct_mito" and values.max() > 50 * max(np.median(values), 1)
    bins = np.linspace(values.min(), max(values.max(), values.min() + 1), 60)
    if logarithmic:
        bins = np.geomspace(max(values.min(), 1), values.max(), 60)
        ax.set_xscale("log")
    colours = _reason_colours(found["reason"])
    why = found["reason"].replace("", KEPT).to_numpy()
    stacks = [np.clip(values[why == name], bins[0], None) for name in colours]
    ax.hist(stacks, bins=bins, stacked=True, color=list(colours.values()), label=list(colours))
    drawn = 0
    for _, row in table[table["axis"] == "barcodes"].iterrows():
        of = {"min_genes": "n_genes", "max_genes": "n_genes", "min_counts": "n_counts", "max_counts": "n_counts"}
        of |= {"max_pct_mito": "pct_mito"}
        # Thresholds far beyond the data would squeeze the histogram into a corner.
        if of.get(row["filter"], row["filter"].removeprefix("mads:")) == name and row["threshold"] <= 1.3 * bins[-1]:
            ax.axvline(row["threshold"], color="#333333", linestyle="--", linewidth=1)
            # Two thresholds may lie close together: every other number goes a line higher.
            height, place = 1.0 + 0.045 * (drawn % 2), ax.get_xaxis_transform()
            words = {"va": "bottom", "ha": "center", "fontsize": 7, "color": "#333333"}
            ax.text(row["threshold"], height, f"{row['threshold']:,.4g}", transform=place, **words)
            drawn += 1
    ax.axvline(np.median(values), color="#0072b2", linewidth=1, label=f"median {np.median(values):,.4g}")
    ax.set(xlabel=label, ylabel="barcodes")
    ax.legend(framealpha=0.85, edgecolor="none", fontsize=8)
    _plain(ax)


# --------------------------------------------------------------------------------------------------------- features


def features_figure(result: FeatureResult, out: str | os.PathLike) -> None:
    """Show how variable genes were chosen, and how much variance the principal components hold.

    Parameters
    ----------
    result
        See `histoweft.expression.features.extract_features`.
    out
        Picture to write.
    """
    fig, axes = new_figure(2, 1, panel=(4.8, 4.0))
    left, right = axes.flat
    table = result.genes
    score = next(name for name in ("dispersions_norm", "variances_norm", "residual_variances") if name in table)
    labels = {
        "dispersions_norm": ("mean of normalised counts, log(1 + x)", "dispersion, standardised within mean bins"),
        "variances_norm": ("mean count", "standardised variance"),
        "residual_variances": ("mean count", "variance of Pearson residuals"),
    }[score]
    for chosen, colour, word in ((False, "#bbbbbb", "others"), (True, "#0072b2", "variable")):
        part = table[table["variable"] == chosen]
        left.scatter(
            part["means"], part[score], s=5, c=colour, linewidths=0, label=f"{word} ({len(part):,})",
            rasterized=len(part) > MAX_DISCS,
        )  # fmt: skip
    if score != "dispersions_norm":
        left.set_xscale("log")
        left.set_yscale("log")
    _name_best(left, table.nsmallest(6, "rank"), score)
    left.set(xlabel=labels[0], ylabel=labels[1], title="Variable genes")
    left.legend(frameon=False, fontsize=8, markerscale=2)
    share = 100 * result.variance_ratio
    number = np.arange(1, len(share) + 1)
    right.bar(number, share, color="#0072b2")
    right.set(xlabel="principal component", ylabel="variance explained (%)", title="Principal components")
    total = right.twinx()
    total.plot(number, np.cumsum(share), color="#d55e00", marker=".", markersize=3, linewidth=1)
    total.set_ylim(0, max(1.05 * share.sum(), 1e-9))
    total.set_ylabel("cumulative (%)", color="#d55e00")
    total.spines["top"].set_visible(False)
    _plain(left)
    right.spines["top"].set_visible(False)
    save(fig, out)


def _name_best(ax: Any, best: pd.DataFrame, score: str) -> None:
    """Write the names of a few genes beside their points, those that would sit on one another pushed apart."""
    height = np.ptp(ax.get_ylim()) / 28 if ax.get_yscale() == "linear" else 0
    last = np.inf
    for gene, row in best.sort_values(score, ascending=False).iterrows():
        y = min(row[score], last - height) if height else row[score]
        last = y
        ax.annotate(
            f" {gene}", (row["means"], row[score]), (row["means"], y), fontsize=7, va="center",
        )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- stability


def stability_figure(stable: pd.DataFrame, out: str | os.PathLike, chosen: float | None = None) -> None:
    """Show how well clusters agree between seeds, and how many there are, at each resolution.

    Parameters
    ----------
    stable
        See `histoweft.graph.leiden.stability`.
    out
        Picture to write.
    chosen
        The resolution used downstream; marked.
    """
    fig, axes = new_figure(2, 1, panel=(4.2, 3.4))
    left, right = axes.flat
    stable = stable.sort_values("resolution")
    at = stable["resolution"]
    if stable["ari_mean"].isna().all():
        _empty(left, "one seed only:\nno agreement to show")
    else:
        left.fill_between(at, stable["ari_min"], stable["ari_mean"], color="#0072b2", alpha=0.15, linewidth=0)
        left.plot(at, stable["ari_mean"], marker="o", color="#0072b2", label="mean over pairs of seeds")
        left.plot(at, stable["ari_min"], marker="v", color="#56b4e9", linestyle=":", label="least alike pair")
        left.set_ylim(min(0.0, float(stable["ari_min"].min())) - 0.02, 1.03)
        title = f"Agreement of {int(stable['seeds'].max())} seeds"
        left.set(xlabel="resolution", ylabel="adjusted Rand index", title=title)
        left.legend(frameon=False, fontsize=8, loc="lower left")
        _plain(left)
    spread = [stable["clusters_median"] - stable["clusters_min"], stable["clusters_max"] - stable["clusters_median"]]
    right.errorbar(at, stable["clusters_median"], yerr=spread, marker="o", color="#009e73", capsize=3)
    right.set_ylim(0, 1.1 * stable["clusters_max"].max() + 1)
    right.yaxis.get_major_locator().set_params(integer=True)
    right.set(xlabel="resolution", ylabel="clusters", title="Number of clusters")
    _plain(right)
    if chosen is not None:
        for ax in (left, right):
            if ax.axison:
                ax.axvline(chosen, color="#999999", linestyle="--", linewidth=1, zorder=0)
                place = ax.get_xaxis_transform()
                ax.text(chosen, 0.98, " chosen", transform=place, va="top", fontsize=7, color="#666666")
    save(fig, out)


# --------------------------------------------------------------------------------------------------------- clusters


def clusters_figure(
    path: str | os.PathLike,
    clusters: pd.Series,
    umap: pd.DataFrame,
    out: str | os.PathLike,
    image_path: str | os.PathLike | None = None,
) -> None:
    """Show clusters on the tissue and on the UMAP, in the same colours.

    Parameters
    ----------
    path
        h5ad after QC; gives the positions.
    clusters
        Index: barcodes.
    umap
        Index: barcodes; umap_1, umap_2.
    out
        Picture to write.
    image_path
        Working image, if the sample has one.
    """
    barcodes, place = _place(path, image_path)
    labels = clusters.loc[barcodes].astype(str)
    order = sorted(labels.unique(), key=lambda name: (0, int(name)) if name.isdigit() else (1, name))
    colours = category_colours(order)
    values = pd.Series(pd.Categorical(labels, categories=order))
    fig, axes = new_figure(1 if place is None else 2, 1, panel=(5.0, 4.6))
    axes = list(axes.flat)
    if place is not None:
        tissue(axes[0], place.xy, values, colours=colours, title="Clusters on the tissue", **place.options)
    _umap_panel(axes[-1], umap.loc[barcodes], labels.to_numpy(), colours, legend=place is None)
    save(fig, out)


def _umap_panel(ax: Any, umap: pd.DataFrame, labels: np.ndarray, colours: dict[str, str], legend: bool) -> None:
    points = umap[["umap_1", "umap_2"]].to_numpy()
    # In one draw and in random order, so that no cluster hides another.
    order = np.random.default_rng(0).permutation(len(points))
    size = float(np.clip(12_000 / max(len(points), 1), 0.5, 22))
    ax.scatter(
        *points[order].T, s=size, c=[colours[label] for label in labels[order]], linewidths=0,
        rasterized=len(points) > MAX_DISCS,
    )  # fmt: skip
    for name in colours:
        middle = np.median(points[labels == name], axis=0)
        text = ax.text(*middle, name, fontsize=9, ha="center", va="center", fontweight="bold")
        text.set_bbox({"boxstyle": "circle,pad=0.12", "facecolor": "white", "alpha": 0.7, "linewidth": 0})
    if legend:
        counts = pd.Series(labels).value_counts()
        for name, colour in colours.items():
            ax.scatter([], [], c=colour, s=30, label=f"{name} ({counts[name]:,})")
        ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2", title=f"UMAP of {len(points):,} barcodes")
    _plain(ax)


# ---------------------------------------------------------------------------------------------------------- markers


def markers_figure(summary: pd.DataFrame, top: pd.DataFrame, out: str | os.PathLike) -> None:
    """Draw a dot plot: size, the share of barcodes that show a gene; colour, its mean scaled to 0..1 over clusters.

    Parameters
    ----------
    summary
        Of the genes in `top`; see `histoweft.expression.markers.marker_summary`.
    top
        See `histoweft.expression.markers.top_markers`.
    out
        Picture to write.
    """
    genes = list(dict.fromkeys(top["gene"]))
    if not genes:
        fig, axes = new_figure(1, 1)
        _empty(axes[0, 0], "no gene tells one cluster\nfrom the rest")
        save(fig, out)
        return
    shown = list(dict.fromkeys(summary["cluster"]))
    mean = summary.pivot(index="cluster", columns="gene", values="mean").loc[shown, genes].to_numpy()
    share = summary.pivot(index="cluster", columns="gene", values="pct").loc[shown, genes].to_numpy()
    span = np.ptp(mean, axis=0)
    scaled = (mean - mean.min(axis=0)) / np.where(span > 0, span, 1)
    width, height = 2.4 + 0.24 * len(genes), 1.7 + 0.27 * len(shown)
    fig, axes = new_figure(1, 1, panel=(max(width, 4.5), max(height, 3.0)))
    ax = axes[0, 0]
    columns, rows = np.meshgrid(np.arange(len(genes)), np.arange(len(shown)))
    dots = ax.scatter(
        columns.ravel(), rows.ravel(), s=1.3 * share.ravel(), c=scaled.ravel(), cmap="Reds", vmin=0, vmax=1,
        edgecolors="#777777", linewidths=0.3,
    )  # fmt: skip
    ax.set_xticks(range(len(genes)), genes, rotation=90, fontsize=7, fontstyle="italic")
    ax.set_yticks(range(len(shown)), shown, fontsize=8)
    ax.set(ylabel="cluster", xlim=(-0.7, len(genes) - 0.3), ylim=(len(shown) - 0.4, -0.6))
    _divide(ax, top, genes)
    for percent in (20, 50, 100):
        ax.scatter([], [], s=1.3 * percent, c="#bbbbbb", edgecolors="#777777", linewidths=0.3, label=f"{percent} %")
    ax.legend(
        title="barcodes that\nshow the gene", title_fontsize=7, fontsize=7, frameon=False, loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
    )  # fmt: skip
    bar = fig.colorbar(dots, ax=ax, shrink=0.35, aspect=10, anchor=(0, 0.0), pad=0.02)
    bar.set_label("mean, scaled", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    _plain(ax)
    save(fig, out)


def _divide(ax: Any, top: pd.DataFrame, genes: list[str]) -> None:
    """Draw a faint line between the markers of one cluster and those of the next."""
    first = top.drop_duplicates("gene").set_index("gene")["cluster"].loc[genes].to_numpy()
    for at in np.flatnonzero(first[1:] != first[:-1]):
        ax.axvline(at + 0.5, color="#dddddd", linewidth=0.6, zorder=0)
