"""Pictures of the atlas stage: scores, a slice, places, errors, latent clusters, errors along z."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from histoweft import places, plotting
from histoweft.atlas import score
from histoweft.atlas.folds import BLOCK, HEMISPHERE, RANDOM
from histoweft.atlas.plan import FRONT
from histoweft.atlas.results import KNN, MEAN, MULTISCALE, PCA, RIDGE, FoldResult, Result
from histoweft.atlas.voxels import Voxels

_PROTOCOLS = {RANDOM: "random voxels held out", BLOCK: "blocks held out", HEMISPHERE: "one half held out"}
_NAMES = {
    MEAN: "mean", PCA: "PCA, same latent", RIDGE: "ridge on PCs", KNN: "nearest neighbours on PCs",
    MULTISCALE: "several scales\n(shared with neighbours)", "residual": "residual network",
    "reference": "Spatial-VAE", FRONT: "Spatial-VAE,\nown validation",
}  # fmt: skip
_COLOURS = {
    "residual": "#0072b2", MULTISCALE: "#009e73", "reference": "#d55e00", FRONT: "#cc79a7",
    RIDGE: "#8c8c8c", KNN: "#b8b8b8", PCA: "#6e6e6e",
}  # fmt: skip
_FLOOR = "#b8b8b8"
_POINTS = 4_000
_PANELS = (
    ("voxel_reconstruction", "r2", "reconstruction, R² (more is better)"),
    ("voxel_position", "euclid_folded_voxels", "place, mean distance in voxels,\nhalves folded (less is better)"),
)


def name_of(method: str) -> str:
    """Return how a figure calls a method."""
    return _NAMES.get(method, method)


def _one_line(method: str) -> str:
    return name_of(method).replace("\n", " ")


def _colour(method: str) -> str:
    return _COLOURS.get(method, _FLOOR)


# --------------------------------------------------------------------------------------------------------------- scores


def score_figure(rows: pd.DataFrame, path: str | os.PathLike) -> None:
    """Draw the mean score of every method beside the floors, a column for each way of holding out.

    Parameters
    ----------
    rows
        Metrics; see `summary.summarise`.
    path
        A ``.png``.
    """
    protocols = [name for name in (BLOCK, HEMISPHERE, RANDOM) if (rows["protocol"] == name).any()]
    fig, axes = plotting.new_figure(len(protocols), len(_PANELS), panel=(4.6, 3.0))
    for line, (task, metric, label) in zip(axes, _PANELS, strict=True):
        for ax, protocol in zip(line, protocols, strict=True):
            part = rows[(rows["task"] == task) & (rows["metric"] == metric) & (rows["protocol"] == protocol)]
            _bars(ax, part[part["method"] != MEAN], task == "voxel_position")
            ax.set_title(_PROTOCOLS[protocol], fontsize=10)
            ax.set_xlabel(label, fontsize=9)
    plotting.save(fig, path)


def _bars(ax, part: pd.DataFrame, less_is_better: bool) -> None:
    means = part[part["fold"] == "all"].sort_values("value", ascending=not less_is_better)
    for at, row in enumerate(means.itertuples()):
        ax.barh(at, row.value, color=_FLOOR if row.method.startswith("floor:") else _colour(row.method), height=0.65)
        single = part[(part["method"] == row.method) & (part["fold"] != "all")]["value"]
        ax.plot(single, np.full(len(single), at), "|", color="black", markersize=7, alpha=0.6)
        inside = f"{row.value:.3f}" if not less_is_better else f"{row.value:.2f}"
        end = max(row.value, float(np.nan_to_num(single.max())), 0.0)
        ax.annotate(inside, (end, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(means)), [name_of(method) for method in means["method"]], fontsize=8)
    ax.margins(x=0.16)
    if not less_is_better:
        # A model far worse than the training mean would hide all differences between the others.
        ax.set_xlim(left=max(ax.get_xlim()[0], -0.3), right=1.15)
    ax.tick_params(axis="x", labelsize=8)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


# ---------------------------------------------------------------------------------------------------------------- slice


def joined(found: Sequence[FoldResult], protocol: str, method: str, field: str, voxels: Voxels) -> np.ndarray:
    """Put the held-out values of all folds of a protocol back where they belong.

    Returns
    -------
    ndarray
        voxels x whatever the field has; NaN where a voxel was never held out. For ``truth``, any method serves.
    """
    whole: np.ndarray | None = None
    for one in found:
        result = _result(one, method)
        if one.protocol != protocol or result is None:
            continue
        values = np.asarray(one.truth if field == "truth" else getattr(result, field), dtype=np.float32)
        if len(values) != len(one.test):
            continue
        if whole is None:
            whole = np.full((voxels.n, *values.shape[1:]), np.nan, dtype=np.float32)
        whole[one.test] = values
    return np.full(voxels.n, np.nan, np.float32) if whole is None else whole


def _result(one: FoldResult, method: str) -> Result | None:
    return next((result for result in one.results if result.method == method), None)


def section_of(voxels: Voxels, values: np.ndarray | None = None) -> np.ndarray:
    """Choose the voxels of one section, across z, for a picture.

    Parameters
    ----------
    voxels
        The atlas.
    values
        Of each voxel, NaN where unknown: the section in which they vary most, of those at least half as large as the
        largest; the largest section when left out.

    Returns
    -------
    ndarray
        bool, voxels. A plane of the grid; without a grid, a slab of a tenth of the length.
    """
    z = voxels.position[:, 0]
    values = np.zeros(voxels.n) if values is None else values
    known = np.isfinite(values)
    if not known.any():
        known, values = np.ones(voxels.n, bool), np.zeros(voxels.n)
    if voxels.shape is None:
        return np.abs(z - np.median(z[known])) <= np.ptp(z) / 20
    by_plane = pd.Series(values[known].astype(float)).groupby(z[known])
    sizes = by_plane.size()
    order = pd.DataFrame({"spread": by_plane.var(ddof=0).round(6), "size": sizes})[sizes >= sizes.max() / 2]
    return z == order.sort_values(["spread", "size"], kind="stable").index[-1]


def slice_figure(
    found: Sequence[FoldResult], voxels: Voxels, protocol: str, method: str, path: str | os.PathLike
) -> None:
    """Show genes in one section: as measured, as reconstructed while held out, and the difference.

    Parameters
    ----------
    found, voxels
        Results and the atlas.
    protocol, method
        Which held-out voxels, reconstructed by what.
    path
        A ``.png``.
    """
    jobs = [one for one in found if one.protocol == protocol and _result(one, method) is not None]
    genes = list(dict.fromkeys(str(gene) for one in jobs for gene in one.shown_genes))[:3]
    fig, axes = plotting.new_figure(3, len(genes), panel=(3.9, 3.4))
    for line, gene in zip(axes, genes, strict=True):
        truth, guess = (_gene(jobs, gene, method, field, voxels) for field in ("truth", "shown"))
        here = section_of(voxels, np.where(np.isfinite(guess), truth, np.nan))
        low, high = np.nanpercentile(truth[here], [1, 99])
        span = float(np.nanpercentile(np.abs((guess - truth)[here]), 98)) or 1.0
        for ax, values, title, style in (
            (line[0], truth, f"{gene}, measured", {"vmin": low, "vmax": high}),
            (line[1], guess, "reconstructed while held out", {"vmin": low, "vmax": high}),
            (line[2], guess - truth, "difference", {"cmap": "RdBu_r", "vmin": -span, "vmax": span}),
        ):
            _section(ax, voxels, here, values, title, **style)
    fig.suptitle(f"{_one_line(method)}, {_PROTOCOLS[protocol]} (training standard deviations)",
                 fontsize=10)  # fmt: skip
    plotting.save(fig, path)


def _gene(jobs, gene: str, method: str, field: str, voxels: Voxels) -> np.ndarray:
    whole = np.full(voxels.n, np.nan, dtype=np.float32)
    for one in jobs:
        column = np.flatnonzero(one.shown_genes == gene)
        if len(column):
            values = one.truth if field == "truth" else getattr(_result(one, method), field)
            whole[one.test] = values[:, column[0]]
    return whole


def _section(ax, voxels: Voxels, here: np.ndarray, values: np.ndarray, title: str, **style) -> None:
    xy = voxels.position[here][:, [2, 1]]
    plotting.tissue(ax, xy, values[here], mpp=voxels.voxel_um, spot_diameter_um=_diameter(voxels), title=title,
                    alpha=1.0, **style)  # fmt: skip


def _diameter(voxels: Voxels) -> float:
    """Squares cannot be drawn: discs a little larger than a voxel leave no gaps."""
    return 1.15 * voxels.voxel_um * (1.0 if voxels.shape is not None else places.spacing(voxels.position))


# ---------------------------------------------------------------------------------------------------------------- place


def place_figure(
    found: Sequence[FoldResult], voxels: Voxels, protocol: str, methods: Sequence[str], path: str | os.PathLike
) -> None:
    """Draw predicted against true coordinates of held-out voxels, a row for each method.

    Parameters
    ----------
    found, voxels
        Results and the atlas.
    protocol
        Which held-out voxels.
    methods
        Names; those without places are left out.
    path
        A ``.png``.
    """
    places = {method: joined(found, protocol, method, "place", voxels) for method in methods}
    places = {method: place for method, place in places.items() if place.ndim == 2}
    fig, axes = plotting.new_figure(3, max(1, len(places)), panel=(3.2, 3.0))
    for line, (method, place) in zip(axes, places.items(), strict=False):
        rows = np.flatnonzero(np.isfinite(place).all(axis=1))
        rows = rows[:: max(1, len(rows) // _POINTS)]
        for axis, (ax, name) in enumerate(zip(line, "zyx", strict=True)):
            truth, guess = voxels.position[rows, axis], place[rows, axis]
            ax.plot(truth, guess, ".", markersize=1.6, alpha=0.35, color=_colour(method), rasterized=True)
            ends = [truth.min(), truth.max()]
            ax.plot(ends, ends, color="black", linewidth=0.8)
            spread = max(float(((truth - truth.mean()) ** 2).sum()), 1e-12)
            ax.set_title(f"{name_of(method)}, {name}: R² {1 - ((guess - truth) ** 2).sum() / spread:.2f}", fontsize=9)
            ax.set_xlabel(f"true {name}, voxels", fontsize=8)
            ax.set_ylabel(f"predicted {name}, voxels", fontsize=8)
            ax.tick_params(labelsize=8)
    fig.suptitle(_PROTOCOLS[protocol], fontsize=10)
    plotting.save(fig, path)


def error_figure(
    found: Sequence[FoldResult], voxels: Voxels, protocol: str, method: str, place: str, path: str | os.PathLike
) -> None:
    """Map the errors of held-out voxels in one section: of the reconstruction, and of the place.

    Parameters
    ----------
    found, voxels
        Results and the atlas.
    protocol
        Which held-out voxels.
    method, place
        Whose reconstruction, and whose place.
    path
        A ``.png``.
    """
    error = joined(found, protocol, method, "voxel_error", voxels)
    guess = joined(found, protocol, place, "place", voxels)
    distance = np.linalg.norm(score.fold(guess, voxels.midline) - voxels.folded(), axis=1) if guess.ndim == 2 else guess
    here = section_of(voxels, np.where(np.isfinite(error), 0.0, np.nan))
    fig, axes = plotting.new_figure(2, 1, panel=(4.6, 3.9))
    for ax, values, title in (
        (axes[0, 0], error, f"reconstruction, {_one_line(method)}\nmean squared error, training variances"),
        (axes[0, 1], distance, f"place, {_one_line(place)}\ndistance in voxels, halves folded"),
    ):
        top = float(np.nanpercentile(values[here], 98)) if np.isfinite(values[here]).any() else 1.0
        _section(ax, voxels, here, values, title, cmap="magma", vmin=0, vmax=top)
    fig.suptitle(_PROTOCOLS[protocol], fontsize=10)
    plotting.save(fig, path)


# ------------------------------------------------------------------------------------------------------------- clusters


def cluster_figure(
    labels: dict[str, tuple[np.ndarray, np.ndarray]], scores: dict[str, float], voxels: Voxels, path: str | os.PathLike
) -> None:
    """Show latent clusters of held-out voxels beside the annotated structures, in one thick section.

    Parameters
    ----------
    labels, scores
        See `summary.latent_clusters`.
    voxels
        The atlas.
    path
        A ``.png``.
    """
    fig, axes = plotting.new_figure(len(labels) + 1, 1, panel=(3.9, 3.6))
    z = voxels.position[:, 0]
    middle, half = np.median(z), max(1.0 if voxels.shape is not None else 0.0, np.ptp(z) / 24)
    depths = [depth for depth in score.depths_of(voxels) if len(np.unique(voxels.ancestors(depth))) <= 60]
    held_out = next(iter(labels.values()))[0]
    here = held_out[np.abs(z[held_out] - middle) <= half]
    if depths:
        names = voxels.structures.set_index("id")["acronym"]
        truth = pd.Series(voxels.ancestors(depths[-1])[here]).map(names).fillna("none")
    else:
        truth = pd.Series(["not annotated"] * len(here))
    mask = np.zeros(voxels.n, bool)
    mask[here] = True
    values = np.full(voxels.n, None, dtype=object)
    values[here] = truth.to_numpy()
    _categories(axes[0, 0], voxels, mask, values, "annotated structures")
    for ax, (method, (rows, clusters)) in zip(axes[0, 1:], labels.items(), strict=True):
        values = np.full(voxels.n, None, dtype=object)
        values[rows] = clusters.astype(str)
        said = f", ARI {scores[method]:.2f}" if method in scores else ""
        _categories(ax, voxels, mask, values, f"{name_of(method)}{said}")
    plotting.save(fig, path)


def _categories(ax, voxels: Voxels, mask: np.ndarray, values: np.ndarray, title: str) -> None:
    xy = voxels.position[mask][:, [2, 1]]
    few = len(set(values[mask])) <= 14
    plotting.tissue(ax, xy, values[mask], mpp=voxels.voxel_um, spot_diameter_um=_diameter(voxels), title=title,
                    legend=few, alpha=1.0)  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- along z


def along_z_figure(table: pd.DataFrame, history: pd.DataFrame, path: str | os.PathLike) -> None:
    """Draw the error of the place along z, and the losses of the reference with either validation.

    Parameters
    ----------
    table, history
        See `summary.Summary`.
    path
        A ``.png``.
    """
    protocols = [name for name in (RANDOM, BLOCK, HEMISPHERE) if (table["protocol"] == name).any()]
    curves = [name for name in ("reference", FRONT, "residual") if (history["method"] == name).any()][:2]
    fig, axes = plotting.new_figure(len(protocols) + len(curves), 1, panel=(4.3, 3.4))
    for ax, protocol in zip(axes[0], protocols, strict=False):
        part = table[table["protocol"] == protocol]
        for method, rows in part.groupby("method", sort=False):
            weighted = rows.assign(total=rows["euclid_voxels"] * rows["n"]).groupby("z")[["total", "n"]].sum()
            ax.plot(weighted.index, weighted["total"] / weighted["n"], color=_colour(method), linewidth=1.6,
                    linestyle="--" if method.startswith("floor:") else "-",
                    label=_one_line(method))  # fmt: skip
        ax.set(xlabel="z, voxels", ylabel="distance in voxels, halves folded", ylim=(0, None))
        ax.set_title(_PROTOCOLS[protocol], fontsize=10)
        ax.legend(fontsize=7, frameon=False)
    for ax, method in zip(axes[0, len(protocols) :], curves, strict=True):
        first = history[history["method"] == method]
        first = first[(first["protocol"] == first["protocol"].iloc[0]) & (first["fold"] == first["fold"].iloc[0])]
        for column, colour, label in (("loss", "#0072b2", "training"), ("val_loss", "#d55e00", "validation")):
            ax.plot(first["epoch"], first[column], color=colour, linewidth=1.6, label=label)
        ax.set(xlabel="epoch", ylabel="loss", yscale="log")
        ax.set_title(_one_line(method), fontsize=10)
        ax.legend(fontsize=8, frameon=False)
    for ax in axes.flat:
        ax.tick_params(labelsize=8)
    plotting.save(fig, path)


def explain_figure(genes: pd.DataFrame, agreement: pd.DataFrame, path: str | os.PathLike, top: int = 10) -> None:
    """Draw the genes with the largest attributions for each target.

    Parameters
    ----------
    genes, agreement
        See `explain.explain`.
    path
        A ``.png``.
    top
        Genes a panel.
    """
    targets = agreement.to_dict("records")[:9]
    columns = min(3, len(targets))
    lines = -(-len(targets) // columns)
    fig, axes = plotting.new_figure(columns, lines, panel=(3.6, 2.9))
    for ax in axes.flat[len(targets) :]:
        ax.set_visible(False)
    for ax, target in zip(axes.flat, targets, strict=False):
        part = genes[(genes["target"] == target["target"]) & (genes["kind"] == target["kind"])].nsmallest(top, "rank")
        ax.barh(range(len(part)), part["attribution"], color="#0072b2" if target["kind"] == "axis" else "#009e73")
        ax.set_yticks(range(len(part)), part["gene"], fontsize=8)
        ax.invert_yaxis()
        ax.set_title(f"{target['target']} (agreement {target['auroc']:.2f})", fontsize=9)
        ax.set_xlabel("attribution, voxels" if target["kind"] == "axis" else "attribution, log odds", fontsize=8)
        ax.tick_params(axis="x", labelsize=7)
    plotting.save(fig, path)
