"""Pictures of the integration: UMAPs, the batch effect before and after, the scores."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from histoweft import plotting
from histoweft.integration.score import BATCH_METRICS, BIO_METRICS, FLOOR, TOTALS, method_name

_TITLES = {
    "ilisi": "iLISI",
    "kbet": "kBET",
    "silhouette_batch": "batch\nsilhouette",
    "graph_connectivity": "graph\nconnect.",
    "pcr_comparison": "PCR\ncompar.",
    "nmi": "NMI",
    "ari": "ARI",
    "silhouette_label": "label\nsilhouette",
    "clisi": "cLISI",
    "scib_batch": "mixing\n(mean)",
    "scib_bio": "conserv.\n(mean)",
    "scib_total": "total",
}


def _order(methods: Sequence[str]) -> list[str]:
    """Put the floor first, the others as they come; names as in the metrics table."""
    names = list(dict.fromkeys(method_name(method) for method in methods))
    return sorted(names, key=lambda name: name != FLOOR)


def _say(method: str) -> str:
    return "before (none)" if method == FLOOR else f"after {method}"


def umap_figure(
    layouts: Mapping[str, pd.DataFrame], section: Sequence[str], path: str | os.PathLike, section_title: str = "section"
) -> None:
    """Draw the UMAP of each embedding, coloured by section (above) and by joint cluster (below).

    Parameters
    ----------
    layouts
        Method to its table of `embed.cluster` (umap_1, umap_2, leiden), all with the same rows.
    section
        Section of each row.
    path
        A png or svg.
    section_title
        Heading of the upper legends.
    """
    by_name = {method_name(method): table for method, table in layouts.items()}
    order = _order(list(layouts))
    section = np.asarray(section).astype(str)
    fig, axes = plotting.new_figure(ncols=len(order), nrows=2, panel=(4.6, 3.8))
    for column, method in enumerate(order):
        table = by_name[method]
        xy = table[["umap_1", "umap_2"]].to_numpy(float)
        clusters = table["leiden"].astype(str).to_numpy()
        names = sorted(set(clusters), key=lambda name: (len(name), name))
        _scatter(axes[0, column], xy, section, list(dict.fromkeys(section)), _say(method), section_title)
        _scatter(axes[1, column], xy, clusters, names, f"{len(names)} joint clusters", "cluster")
    plotting.save(fig, path)


def _scatter(ax, xy: np.ndarray, names: np.ndarray, order: Sequence[str], title: str, heading: str) -> None:
    colours = plotting.category_colours(order)
    # Drawn in random order: otherwise the last section hides the others and looks unmixed.
    shuffled = np.random.default_rng(0).permutation(len(xy))
    size = float(np.clip(12_000 / max(len(xy), 1), 0.3, 12))
    ax.scatter(
        *xy[shuffled].T, s=size, c=[colours[name] for name in names[shuffled]], linewidths=0, alpha=0.8,
        rasterized=len(xy) > 5_000,
    )  # fmt: skip
    ax.set_title(title, fontsize=10)
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    ax.spines[["top", "right"]].set_visible(False)
    plotting.category_legend(ax, colours, title=heading)


def effect_figure(effect: pd.DataFrame, path: str | os.PathLike) -> None:
    """Draw how much sections differ before and after.

    Parameters
    ----------
    effect
        `score.Scores.effect`: method x variance_share, neighbour_purity, purity_by_chance.
    path
        A png or svg.
    """
    order = _order(list(effect.index))
    effect = effect.loc[order]
    fig, axes = plotting.new_figure(ncols=2, panel=(3.4, 3.2))
    colours = plotting.category_colours(order)
    for ax, column, title, per_cent in (
        (axes[0, 0], "variance_share", "variance between sections (%)", effect["variance_share"]),
        (axes[0, 1], "neighbour_purity", "neighbours from the own section (%)", effect["neighbour_purity"]),
    ):
        values = 100 * per_cent.to_numpy(float)
        bars = ax.bar(range(len(order)), values, color=[colours[name] for name in order], width=0.65)
        ax.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=8, padding=2)
        ax.set_xticks(range(len(order)), [_say(name) for name in order], fontsize=8)
        ax.set_title(title, fontsize=10)
        ax.set_xlim(-0.6, len(order) - 0.4)
        ax.set_ylim(0, 100 if column == "neighbour_purity" else max(1.0, 1.2 * values.max()))
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8)
    # In the title: beside the line it would lie on a bar, since good methods end near it.
    chance = 100 * float(effect["purity_by_chance"].iloc[0])
    axes[0, 1].axhline(chance, color="black", linewidth=1, linestyle="--")
    axes[0, 1].set_title(f"neighbours from the own section (%)\ndashed: fully mixed ({chance:.0f})", fontsize=10)
    plotting.save(fig, path)


def score_figure(rows: pd.DataFrame, path: str | os.PathLike) -> None:
    """Draw all scores of all methods, the floor first, metrics of mixing and of conservation apart.

    Parameters
    ----------
    rows
        `score.Scores.rows`; rows of other metrics (seconds) are left out.
    path
        A png or svg.
    """
    table = rows.pivot_table(index="method", columns="metric", values="value", aggfunc="first")
    order = _order(list(dict.fromkeys(rows["method"])))
    colours = plotting.category_colours(order)
    groups = [
        (title, [m for m in names if m in table and table[m].notna().any()])
        for title, names in (("batch mixing", BATCH_METRICS), ("conservation", BIO_METRICS), ("summary", TOTALS))
    ]
    groups = [(title, names) for title, names in groups if names]
    fig, _ = plotting.new_figure(panel=(10.5, 3.4))
    fig.clear()
    axes = fig.subplots(1, len(groups), sharey=True, width_ratios=[len(names) for _, names in groups], squeeze=False)[0]
    width = 0.8 / len(order)
    for ax, (title, names) in zip(axes, groups, strict=True):
        for i, method in enumerate(order):
            at = np.arange(len(names)) + (i - (len(order) - 1) / 2) * width
            values = table.loc[method, names].to_numpy(float)
            bars = ax.bar(at, values, width=0.92 * width, color=colours[method], label=_say(method))
            ax.bar_label(bars, [f"{v:.2f}" if np.isfinite(v) else "" for v in values], fontsize=6.5, padding=1)
        ax.set_xticks(range(len(names)), [_TITLES[name] for name in names], fontsize=8)
        ax.set_title(title, fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(axis="y", labelsize=8)
    low = float(np.nanmin(table[[m for _, names in groups for m in names]].to_numpy(float)))
    axes[0].set_ylim(min(0.0, 1.1 * low), 1.08)
    axes[0].set_ylabel("score (larger is better)", fontsize=9)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    plotting.save(fig, path)
