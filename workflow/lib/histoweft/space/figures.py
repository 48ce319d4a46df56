"""Pictures of the space stage's statistics."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.io import CountsFile
from histoweft.plotting import new_figure, save, shared_colours, tissue

IMAGE_PX = 2_000
"""Longest side of the image under the spots."""

_LIMIT = 0.995
_MOST_GROUPS = 12
_MOST_PAIRS = 24


@dataclass(frozen=True)
class Place:
    """Where a sample's spots lie, and what `plotting.tissue` needs to draw them.

    Attributes
    ----------
    xy
        (n, 2), full-resolution pixels.
    options
        mpp, spot_diameter_um, and image and image_scale where there is one.
    """

    xy: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)


def read_place(counts: CountsFile, image_path: str | os.PathLike | None = None) -> Place:
    """Read the positions of a section, and its image if it has one."""
    about = counts.uns.get("histoweft", {})
    options = {"mpp": about.get("mpp"), "spot_diameter_um": about.get("spot_diameter_um")}
    if image_path:
        from histoweft.images import read_image

        image, _, scale = read_image(image_path, max_px=IMAGE_PX)
        options |= {"image": image, "image_scale": scale}
    return Place(np.asarray(counts.obsm("spatial"), dtype=float)[:, :2], options)


def _plain(ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def _message(text: str, out: str | os.PathLike) -> None:
    fig, axes = new_figure(1, 1, panel=(5.0, 2.0))
    axes[0, 0].set_axis_off()
    axes[0, 0].text(0.5, 0.5, text, ha="center", va="center", color="#666666", wrap=True)
    save(fig, out)


def genes_figure(place: Place, values: sp.csc_matrix, table: pd.DataFrame, out: str | os.PathLike) -> None:
    """Show the genes of largest Moran's I on the tissue.

    Parameters
    ----------
    place
        The section.
    values
        (n, genes) log-normalised.
    table
        Their rows of `svg.variable_genes`, in the same order.
    out
        Picture to write.
    """
    if table.empty:
        _message("no gene was tested", out)
        return
    columns = min(3, len(table))
    fig, axes = new_figure(columns, math.ceil(len(table) / columns), panel=(4.0, 3.7))
    for ax in axes.flat[len(table) :]:
        ax.set_axis_off()
    for ax, (column, row) in zip(axes.flat, enumerate(table.itertuples())):
        shown = values[:, [column]].toarray().ravel()
        top = float(np.quantile(shown, _LIMIT))
        tissue(
            ax, place.xy, shown, title=f"{row.gene}   I = {row.moran:.2f}", vmin=0, vmax=top or None, **place.options
        )
    save(fig, out)


def _matrix(table: pd.DataFrame, value: str) -> tuple[list[str], np.ndarray]:
    names = list(dict.fromkeys(table["a"]))
    return names, table.pivot(index="a", columns="b", values=value).loc[names, names].to_numpy()


def enrichment_figure(table: pd.DataFrame, out: str | os.PathLike) -> None:
    """Draw how often groups are neighbours against random labels: log2 of observed over expected, stars where q < 0.05.

    Parameters
    ----------
    table
        See `neighbourhood.enrichment`.
    out
        Picture to write.
    """
    names, count = _matrix(table, "count")
    _, expected = _matrix(table, "expected")
    _, q = _matrix(table, "q")
    with np.errstate(divide="ignore", invalid="ignore"):
        fold = np.log2(count / expected)
    seen = fold[np.isfinite(fold)]
    limit = float(np.clip(np.abs(seen).max() if len(seen) else 1.0, 1.0, 4.0))
    side = 2.6 + 0.32 * len(names)
    fig, axes = new_figure(1, 1, panel=(side + 0.9, side))
    ax = axes[0, 0]
    drawn = ax.imshow(np.clip(np.where(count > 0, fold, -limit), -limit, limit), cmap="PuOr_r", vmin=-limit, vmax=limit)
    for i, j in zip(*np.nonzero(q < 0.05)):
        dark = abs(fold[i, j]) > 0.6 * limit
        ax.text(j, i, "*", ha="center", va="center_baseline", fontsize=11, color="white" if dark else "black")
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="neighbour", ylabel="group", title="Neighbours against random labels")
    ax.title.set_fontsize(10)
    bar = fig.colorbar(drawn, ax=ax, shrink=0.6, aspect=18)
    bar.set_label("log2 (observed / expected)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    save(fig, out)


def cooccurrence_figure(
    table: pd.DataFrame, out: str | os.PathLike, in_um: bool = True, groups: Iterable[str] = ()
) -> None:
    """Draw, for each group, how much more often every group is met at some distance from it.

    Parameters
    ----------
    table
        See `neighbourhood.cooccurrence`.
    out
        Picture to write.
    in_um
        Whether distances are in um.
    groups
        Groups of all sections where they mean the same in each, so that a colour does too.
    """
    sizes = table.drop_duplicates("a").set_index("a")["n_a"]
    shown = [name for name in sizes.index if name in set(sizes.nlargest(_MOST_GROUPS).index)]
    colours = shared_colours([*sizes.index, *groups])
    columns = min(4, len(shown))
    fig, axes = new_figure(columns, math.ceil(len(shown) / columns), panel=(3.2, 2.6))
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, shown):
        own = table[table["a"] == name]
        for other in shown:
            line = own[own["b"] == other]
            middle = (line["from_um"] + line["to_um"]) / 2
            width = 2.2 if other == name else 1.1
            ax.plot(middle, line["ratio"], color=colours[other], linewidth=width, label=other)
        ax.axhline(1, color="#999999", linewidth=0.8, linestyle="--", zorder=0)
        ax.set_title(f"around {name} ({sizes[name]:,})", fontsize=9)
        ax.set_ylim(bottom=0)
        ax.tick_params(labelsize=8)
        _plain(ax)
    for ax in axes[:, 0]:
        ax.set_ylabel("met / expected", fontsize=8)
    for ax in axes.flat[max(len(shown) - columns, 0) : len(shown)]:
        ax.set_xlabel("distance (µm)" if in_um else "distance (units of the file)", fontsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8, title="group", title_fontsize=8)
    save(fig, out)


def interactions_figure(table: pd.DataFrame, out: str | os.PathLike) -> None:
    """Draw the strongest pairs between groups: colour, the mean expression; size, how unlikely it is by chance.

    Parameters
    ----------
    table
        See `interactions.score`.
    out
        Picture to write.
    """
    found = table[table["q"] < 0.05]
    if found.empty:
        _message("no ligand-receptor pair stands out\nbetween groups (q < 0.05)", out)
        return
    pair = found["ligand_complex"].astype(str) + " → " + found["receptor_complex"].astype(str)
    best = pair.drop_duplicates().head(_MOST_PAIRS).tolist()
    chosen = found.assign(pair=pair)[pair.isin(best)]
    way = chosen["source"].astype(str) + " → " + chosen["target"].astype(str)
    chosen = chosen.assign(way=way)
    # Of many ways only those on which some shown pair is strongest.
    strongest = chosen.sort_values("z", ascending=False).groupby("pair", sort=False).head(3)
    ways = sorted(strongest["way"].unique())
    chosen = chosen[chosen["way"].isin(ways)]
    at = {name: i for i, name in enumerate(best)}
    across = {name: i for i, name in enumerate(ways)}
    fig, axes = new_figure(1, 1, panel=(3.4 + 0.24 * len(ways), 2.2 + 0.24 * len(best)))
    ax = axes[0, 0]
    certain = np.clip(-np.log10(chosen["pvals"].to_numpy(dtype=float)), 0, 10)
    drawn = ax.scatter(
        chosen["way"].map(across), chosen["pair"].map(at), s=6 + 9 * certain, c=chosen["lr_means"], cmap="viridis",
        edgecolors="#555555", linewidths=0.3,
    )  # fmt: skip
    ax.set_xticks(range(len(ways)), ways, rotation=90, fontsize=7)
    ax.set_yticks(range(len(best)), best, fontsize=7)
    ax.set(xlim=(-0.7, len(ways) - 0.3), ylim=(len(best) - 0.3, -0.7), xlabel="source → target")
    ax.grid(color="#eeeeee", linewidth=0.6)
    ax.set_axisbelow(True)
    bar = fig.colorbar(drawn, ax=ax, shrink=0.4, aspect=12, anchor=(0, 1.0), pad=0.02)
    bar.set_label("mean of ligand and receptor", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    for power in (2, 5, 10):
        label = f"10$^{{-{power}}}$" + (" or less" if power == 10 else "")
        ax.scatter([], [], s=6 + 9 * power, c="#bbbbbb", edgecolors="#555555", linewidths=0.3, label=label)
    ax.legend(title="p", title_fontsize=7, fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(1.01, 0.0))
    _plain(ax)
    save(fig, out)


def colocation_figure(place: Place, local: pd.DataFrame, table: pd.DataFrame, out: str | os.PathLike) -> None:
    """Show where the pairs of smallest p lie side by side: what each spot adds to the score.

    Without the image: a scale with white in its middle cannot be read on a stain.

    Parameters
    ----------
    place
        The section.
    local
        (n, pairs); see `colocation.Colocation`.
    table
        The pairs' rows come first in it.
    out
        Picture to write.
    """
    if local.shape[1] == 0:
        _message("no ligand-receptor pair could be tested:\ntoo few of their genes are measured", out)
        return
    columns = min(3, local.shape[1])
    options = {name: value for name, value in place.options.items() if not name.startswith("image")}
    fig, axes = new_figure(columns, math.ceil(local.shape[1] / columns), panel=(4.0, 3.7))
    for ax in axes.flat[local.shape[1] :]:
        ax.set_axis_off()
    for ax, name, row in zip(axes.flat, local.columns, table.itertuples()):
        shown = local[name].to_numpy(dtype=float)
        limit = float(np.quantile(np.abs(shown), _LIMIT)) or 1.0
        title = f"{row.ligand_complex} → {row.receptor_complex}\nz = {row.z:.1f}, q = {row.q:.2g}"
        tissue(ax, place.xy, shown, title=title, cmap="PuOr_r", vmin=-limit, vmax=limit, alpha=1, **options)
        ax.set_facecolor("#ececec")
    save(fig, out)
