"""Pictures of trajectories: order, states and fates on UMAP and tissue, genes along fates, stability."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from histoweft.io import CountsFile
from histoweft.plotting import (
    UNLABELLED,
    category_colours,
    category_legend,
    new_figure,
    save,
    shared_colours,
    tissue,
)
from histoweft.trajectory import stability
from histoweft.trajectory.results import fates_of

IMAGE_PX = 2_000
"""Longest side of the image under the spots."""

NO_DRIVERS = "no gene goes with a fate"

_COLUMNS = 3
_HEAT_GENES = 20
_TREND_GENES = 4
_WORDS = {"seed": "other seeds", "subsample": f"{stability.SHARE:.0%} of the cells"}


def read_place(
    counts: CountsFile, image_path: str | os.PathLike | None = None
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Read where spots lie and the options of `plotting.tissue`; None for a sample without coordinates."""
    if "spatial" not in counts.obsm_names():
        return None
    about = counts.uns.get("histoweft", {})
    options = {"mpp": about.get("mpp"), "spot_diameter_um": about.get("spot_diameter_um")}
    if image_path:
        from histoweft.images import read_image

        image, _, scale = read_image(image_path, max_px=IMAGE_PX)
        options |= {"image": image, "image_scale": scale}
    return np.asarray(counts.obsm("spatial"), dtype=float)[:, :2], options


def _grid(n: int, panel: tuple[float, float]) -> tuple[Any, list[Any]]:
    columns = min(_COLUMNS, n)
    fig, axes = new_figure(columns, math.ceil(n / columns), panel=panel)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    return fig, list(axes.flat[:n])


def _on_umap(ax: Any, xy: np.ndarray, values: np.ndarray, title: str, **limits: Any) -> None:
    """Show numbers on a UMAP; cells without one lie below, in grey."""
    size = float(np.clip(12_000 / max(len(xy), 1), 0.3, 12))
    there = np.isfinite(values)
    ax.scatter(*xy[~there].T, s=size, c=UNLABELLED, linewidths=0, rasterized=True)
    drawn = ax.scatter(*xy[there].T, s=size, c=values[there], linewidths=0, rasterized=True, **limits)
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    ax.spines[["top", "right"]].set_visible(False)
    ax.figure.colorbar(drawn, ax=ax, shrink=0.6).outline.set_visible(False)


def _names_on_umap(
    ax: Any, xy: np.ndarray, names: np.ndarray, title: str, colours: dict[str, str] | None = None
) -> None:
    """Show names on a UMAP; cells without one lie below, in grey."""
    size = float(np.clip(12_000 / max(len(xy), 1), 0.3, 12))
    present = sorted(set(names) - {""}, key=lambda name: (len(name), name) if name.isdigit() else (99, name))
    known = colours or category_colours(present)
    colours = {name: known.get(name, UNLABELLED) for name in present}
    blank = names == ""
    ax.scatter(*xy[blank].T, s=size, c=UNLABELLED, linewidths=0, rasterized=True)
    ax.scatter(*xy[~blank].T, s=2 * size, c=[colours[name] for name in names[~blank]], linewidths=0, rasterized=True)
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    ax.spines[["top", "right"]].set_visible(False)
    category_legend(ax, colours)


def _message(text: str, out: str | os.PathLike) -> None:
    fig, axes = new_figure(1, 1, panel=(5.0, 2.0))
    axes[0, 0].set_axis_off()
    axes[0, 0].text(0.5, 0.5, text, ha="center", va="center", color="#666666")
    save(fig, out)


def order_figure(
    umap: np.ndarray, table: pd.DataFrame, labels: np.ndarray, out: str | os.PathLike, groups: Iterable[str] = ()
) -> None:
    """Draw groups, pseudotime, the cores of macrostates and of terminal states, and fate entropy on the UMAP.

    Parameters
    ----------
    umap
        barcodes x 2.
    table
        `fit.fate_table`.
    labels
        Group of each barcode, "" where none.
    out
        Picture to write.
    groups
        Groups of all samples where they mean the same in each, so that a colour does too.
    """
    fig, axes = _grid(5, (4.6, 3.7))
    colours = shared_colours([*groups, *labels])
    _names_on_umap(axes[0], umap, labels, "groups (not used to find states)", colours)
    _on_umap(axes[1], umap, table["pseudotime"].to_numpy(float), "pseudotime", cmap="viridis", vmin=0, vmax=1)
    states = table["macrostate"].to_numpy(object)
    colours = category_colours(sorted(set(states) - {""}))
    _names_on_umap(axes[2], umap, states, "cores of macrostates", colours)
    _names_on_umap(axes[3], umap, table["terminal"].to_numpy(object), "cores of terminal states", colours)
    _on_umap(
        axes[4],
        umap,
        table["fate_entropy"].to_numpy(float),
        "fate entropy (1: undecided)",
        cmap="magma",
        vmin=0,
        vmax=1,
    )
    save(fig, out)


def fates_figure(
    xy: np.ndarray, table: pd.DataFrame, out: str | os.PathLike, place: dict[str, Any] | None = None
) -> None:
    """Paint each fate's probability, where cells lie on the tissue or on the UMAP.

    Parameters
    ----------
    xy
        barcodes x 2.
    table
        `fit.fate_table`.
    out
        Picture to write.
    place
        Options of `plotting.tissue` where `xy` lie on a tissue; None for a UMAP.
    """
    fates = fates_of(table)
    panels = [("pseudotime", table["pseudotime"].to_numpy(float), {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0})]
    for name in fates:
        # The fates of core cells are given, and would use up the colours.
        low, high = _limits(fates.loc[table["terminal"] == "", name])
        panels.append((f"fate {name}", fates[name].to_numpy(float), {"cmap": "cividis", "vmin": low, "vmax": high}))
    fig, axes = _grid(len(panels), (4.4, 3.9))
    for ax, (title, values, style) in zip(axes, panels):
        if place is None:
            _on_umap(ax, xy, values, title, **style)
        else:
            tissue(ax, xy, values, title=title, **style, **place)
    save(fig, out)


def _limits(values: pd.Series) -> tuple[float, float]:
    """Return limits of a colour scale that hold 98 % of the values."""
    known = values.dropna()
    low, high = np.quantile(known, [0.01, 0.99]) if len(known) else (0.0, 1.0)
    return (float(low), float(high)) if high > low else (0.0, 1.0)


def drivers_figure(drivers: pd.DataFrame, trends: pd.DataFrame, out: str | os.PathLike) -> None:
    """Draw the first drivers of each fate as a heat map along its pseudotime, each gene scaled to its own range.

    Parameters
    ----------
    drivers, trends
        `drivers.driver_genes` and `drivers.trend_table`.
    out
        Picture to write.
    """
    names = list(dict.fromkeys(trends["fate"]))
    if not names:
        _message(NO_DRIVERS, out)
        return
    fig, axes = _grid(len(names), (4.2, 4.6))
    drawn = None
    for ax, fate in zip(axes, names):
        part = trends[trends["fate"] == fate]
        first = [
            gene for gene in drivers.loc[drivers["fate"] == fate, "gene"].head(_HEAT_GENES) if gene in set(part["gene"])
        ]
        if not first:
            ax.set_axis_off()
            continue
        table = part.pivot(index="gene", columns="pseudotime", values="mean").loc[first].to_numpy()
        low, high = table.min(axis=1, keepdims=True), table.max(axis=1, keepdims=True)
        scaled = (table - low) / np.where(high > low, high - low, 1)
        order = np.argsort(scaled.argmax(axis=1), kind="stable")
        end = part["pseudotime"].max()
        drawn = ax.imshow(scaled[order], aspect="auto", cmap="viridis", extent=(0, end, len(first), 0), vmin=0, vmax=1)
        ax.set_yticks(np.arange(len(first)) + 0.5, np.array(first)[order], fontsize=7, style="italic")
        ax.set_title(f"fate {fate}", fontsize=10)
        ax.set_xlabel("pseudotime", fontsize=9)
        ax.tick_params(length=0)
    if drawn is not None:
        bar = fig.colorbar(drawn, ax=axes, shrink=0.5, label="smoothed expression (gene's range)")
        bar.outline.set_visible(False)
    save(fig, out)


def trends_figure(drivers: pd.DataFrame, trends: pd.DataFrame, out: str | os.PathLike) -> None:
    """Draw the first drivers of each fate along all fates, with 95 % bands; one row of panels a fate.

    Parameters
    ----------
    drivers, trends, out
        As `drivers_figure`.
    """
    names = list(dict.fromkeys(trends["fate"]))
    if not names:
        _message(NO_DRIVERS, out)
        return
    colours = category_colours(names)
    fig, axes = new_figure(_TREND_GENES, len(names), panel=(2.9, 2.3))
    for row, fate in enumerate(names):
        ranked = drivers[drivers["fate"] == fate].set_index("gene")
        first = [gene for gene in ranked.index if gene in set(trends["gene"])][:_TREND_GENES]
        for ax in axes[row, len(first) :]:
            ax.set_axis_off()
        for ax, gene in zip(axes[row], first):
            for other in names:
                line = trends[(trends["fate"] == other) & (trends["gene"] == gene)]
                wide = 2.2 if other == fate else 1.0
                ax.plot(line["pseudotime"], line["mean"], color=colours[other], linewidth=wide)
                ax.fill_between(
                    line["pseudotime"], line["low"], line["high"], color=colours[other], alpha=0.2, linewidth=0
                )
            ax.set_title(f"{gene}  r = {ranked.loc[gene, 'correlation']:.2f}", fontsize=9, style="italic")
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize=7)
            ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        axes[row, 0].set_ylabel(f"{fate}\nlog expression", fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("pseudotime", fontsize=8)
    category_legend(axes[0, -1], {f"along {name}": colour for name, colour in colours.items()})
    save(fig, out)


def stability_figure(replicates: pd.DataFrame, out: str | os.PathLike) -> None:
    """Draw how often each terminal state comes again, and how its fate probabilities agree.

    Parameters
    ----------
    replicates
        `stability.replicates`.
    out
        Picture to write.
    """
    fig, axes = new_figure(2, 1, panel=(4.4, 3.2))
    names = list(dict.fromkeys(replicates["fate"]))
    kinds = list(dict.fromkeys(replicates["run"]))
    colours = category_colours(kinds)
    again = stability.summary(replicates).set_index(["run", "fate"])
    rng = np.random.default_rng(0)
    width = 0.8 / max(len(kinds), 1)
    for number, kind in enumerate(kinds):
        at = np.arange(len(names)) + (number - (len(kinds) - 1) / 2) * width
        found = [again.loc[(kind, name), "found"] for name in names]
        axes[0, 0].bar(at, found, width=0.92 * width, color=colours[kind], label=_WORDS[kind])
        for x, name in zip(at, names):
            values = replicates.loc[(replicates["run"] == kind) & (replicates["fate"] == name), "correlation"].dropna()
            spread = x + rng.uniform(-0.3, 0.3, len(values)) * width
            axes[0, 1].scatter(spread, values, s=14, color=colours[kind], linewidths=0, alpha=0.8)
    axes[0, 0].set_ylim(0, 1.05)
    axes[0, 0].set_ylabel("share of runs that find it again", fontsize=9)
    axes[0, 1].set_ylabel("correlation of fate probabilities", fontsize=9)
    axes[0, 1].set_ylim(top=1.01)
    for ax in axes.flat:
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", labelsize=8)
    if kinds:
        axes[0, 1].legend(*axes[0, 0].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1, 0.5),
                          frameon=False, fontsize=8)  # fmt: skip
    else:
        axes[0, 0].set_title("no runs were asked for", fontsize=10)
    save(fig, out)
