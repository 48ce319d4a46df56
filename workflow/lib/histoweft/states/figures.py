"""Pictures of states: on tissue where there are positions, else on the UMAP."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from histoweft.io import CountsFile
from histoweft.plotting import UNLABELLED, category_colours, category_legend, new_figure, save, tissue
from histoweft.states.cycle import PHASES

IMAGE_PX = 2_000
"""Longest side of the image under the spots."""

CALLED, OTHER = "#d55e00", "#7f9bb3"
CALLS = {"may not persist": UNLABELLED, "other": OTHER, "candidate": CALLED}
PHASE_COLOURS = dict(zip(PHASES, ("#c8d3dc", "#0072b2", "#e69f00")))

_MOST_BARS = 12
_COLUMNS = 4
_LEAST_EXPECTED = 0.005


@dataclass(frozen=True)
class Place:
    """Where barcodes are drawn.

    Attributes
    ----------
    xy
        (n, 2) full-resolution pixels, or a UMAP.
    on_tissue
        Which of them.
    options
        For `plotting.tissue`.
    """

    xy: np.ndarray
    on_tissue: bool
    options: dict[str, Any] = field(default_factory=dict)


def read_place(counts: CountsFile, umap: np.ndarray, image_path: str | os.PathLike | None = None) -> Place:
    """Read the positions of a section, and its image if it has one; the UMAP for cells without positions."""
    if "spatial" not in counts.obsm_names():
        return Place(umap, False)
    about = counts.uns.get("histoweft", {})
    options = {"mpp": about.get("mpp"), "spot_diameter_um": about.get("spot_diameter_um")}
    if image_path:
        from histoweft.images import read_image

        image, _, scale = read_image(image_path, max_px=IMAGE_PX)
        options |= {"image": image, "image_scale": scale}
    return Place(np.asarray(counts.obsm("spatial"), dtype=float)[:, :2], True, options)


def _draw(ax: Any, place: Place, values: Any, title: str, **style: Any) -> None:
    if place.on_tissue:
        tissue(ax, place.xy, values, title=title, **place.options, **style)
    else:
        on_umap(ax, place.xy, values, title, **style)


def on_umap(
    ax: Any, xy: np.ndarray, values: pd.Series, title: str, *, colours: Mapping[str, str] | None = None,
    cmap: str = "viridis", vmin: float | None = None, vmax: float | None = None,
) -> None:  # fmt: skip
    """Show numbers or names on a UMAP; the highest, or the names that come last in `colours`, on top."""
    ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    ax.set_title(title, fontsize=10)
    size = float(np.clip(8_000 / max(len(xy), 1), 0.5, 14))
    if colours is None:
        numbers = np.asarray(values, dtype=float)
        order = np.argsort(np.nan_to_num(numbers, nan=-np.inf), kind="stable")
        known = order[np.isfinite(numbers[order])]
        ax.scatter(*xy[~np.isfinite(numbers)].T, s=size, c=UNLABELLED, linewidths=0, rasterized=True)
        drawn = ax.scatter(
            *xy[known].T, s=size, c=numbers[known], cmap=cmap, vmin=vmin, vmax=vmax, linewidths=0, rasterized=True
        )
        if len(known):
            ax.figure.colorbar(drawn, ax=ax, shrink=0.6, pad=0.02, aspect=18).outline.set_visible(False)
        return
    names = np.asarray(values.astype(object).where(values.notna(), "unlabelled"), dtype=str)
    for name in sorted(set(names), key=lambda name: list(colours).index(name) if name in colours else -1):
        at = names == name
        ax.scatter(*xy[at].T, s=size, c=colours.get(name, UNLABELLED), linewidths=0, rasterized=True)
    category_legend(ax, colours)


def _limits(values: pd.Series) -> dict[str, float]:
    finite = values[np.isfinite(values)]
    return dict(zip(("vmin", "vmax"), np.quantile(finite, [0.01, 0.99]))) if len(finite) else {}


def persisters_figure(place: Place, table: pd.DataFrame, facts: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Draw persister score, calls and phase side by side.

    Parameters
    ----------
    place
        See `read_place`.
    table, facts
        See `histoweft.states.sample.analyse`.
    path
        A png or svg.
    """
    fig, axes = new_figure(3, 1, panel=(5.0, 4.4))
    scored = facts["sets"] > 0
    title = "persister score" if scored else "no persister score: too few genes or barcodes"
    _draw(axes[0, 0], place, table["persister_score"], title, **_limits(table["persister_score"]))
    eligible = table["persister_score"].notna()
    called = pd.Series(np.where(table["persister"], "candidate", "other"), index=table.index)
    called = called.where(eligible, "may not persist")
    share = facts["persisters"] / max(facts["eligible"], 1)
    title = f"candidates: {facts['persisters']} of {facts['eligible']} ({share:.1%}) at FDR {facts['fdr']:g}"
    _draw(axes[0, 1], place, called, title, colours={name: CALLS[name] for name in CALLS if (called == name).any()})
    counts = table["phase"].value_counts()
    title = "phase: " + ", ".join(f"{name} {counts.get(name, 0)}" for name in PHASES)
    _draw(axes[0, 2], place, table["phase"], title, colours=PHASE_COLOURS)
    save(fig, path)


def signatures_figure(place: Place, table: pd.DataFrame, facts: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Draw every signature's score; see `persisters_figure`."""
    used = [row for row in facts["coverage"] if row["used"]]
    if not used:
        _message("No signature has enough genes in this panel.", path)
        return
    columns = min(_COLUMNS, len(used))
    fig, axes = new_figure(columns, math.ceil(len(used) / columns), panel=(4.0, 3.6))
    for ax, row in zip(axes.flat, used):
        values = table[f"signature_{row['signature']}"]
        title = f"{row['signature'].replace('_', ' ')} ({row['found']} of {row['listed']} genes)"
        _draw(ax, place, values, title, cmap="magma", **_limits(values))
    for ax in list(axes.flat)[len(used) :]:
        ax.set_axis_off()
    save(fig, path)


def rare_figure(
    place: Place, umap: np.ndarray, table: pd.DataFrame, facts: Mapping[str, Any], path: str | os.PathLike
) -> None:
    """Draw rare populations and transition scores; see `persisters_figure`.

    Parameters
    ----------
    umap
        (n, 2)
    """
    fig, axes = new_figure(2, 1 + place.on_tissue, panel=(5.6, 4.6))
    names = [f"{group['group']}: {', '.join(group['markers'][:3])}" for group in facts["rare"]]
    known = {group["group"]: name for group, name in zip(facts["rare"], names)}
    groups = table["rare_group"].map(known).fillna("other")
    colours = {"other": OTHER} | category_colours(names)
    n = facts["transitional"]
    found = f"{len(names)} rare populations" if len(names) != 1 else "1 rare population"
    on_umap(axes[0, 0], umap, groups, found, colours=colours)
    title = f"between states ({facts['transitional_by']}): {n} called"
    on_umap(axes[0, 1], umap, table["transition_score"], title)
    if place.on_tissue:
        tissue(axes[1, 0], place.xy, groups, colours=colours, **place.options)
        tissue(axes[1, 1], place.xy, table["transition_score"], **place.options)
    save(fig, path)


def study_figure(
    shares: pd.DataFrame, contrast: pd.DataFrame, around: pd.DataFrame, partners: pd.DataFrame, path: str | os.PathLike
) -> None:
    """Draw persister shares by condition and patient, and what lies around persisters.

    Parameters
    ----------
    shares, contrast, around, partners
        The study's tables, see `histoweft.states.score`, `contrast` and `niches`.
    path
        A png or svg.
    """
    fig, axes = new_figure(3, 1, panel=(5.4, 4.4))
    _shares(axes[0, 0], shares[(shares["level"] == "sample") & shares["share"].notna()], contrast)
    whole = around[around["sample"] == "all"].assign(label=lambda t: t["kind"] + " " + t["name"].astype(str))
    _ratios(axes[0, 1], whole, "what persisters lie on and beside")
    whole = partners[partners["sample"] == "all"].assign(
        label=lambda t: t["ligand_complex"] + " to " + t["receptor_complex"] + ", " + t["direction"]
    )
    _ratios(axes[0, 2], whole, "ligands to receptors around persisters")
    save(fig, path)


def _shares(ax: Any, table: pd.DataFrame, contrast: pd.DataFrame) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    if table.empty:
        _note(ax, "no sample could be scored")
        return
    test = contrast[contrast["measure"] == "persister_share"]
    order = [test.iloc[0]["first"], test.iloc[0]["second"]] if len(test) else []
    conditions = [name for name in order if name in set(table["condition"])]
    conditions += [name for name in dict.fromkeys(table["condition"]) if name not in conditions]
    colours = category_colours(list(dict.fromkeys(table["patient"])))
    for number, (patient, own) in enumerate(table.groupby("patient", sort=False)):
        shift = 0.3 * ((number + 0.5) / len(colours) - 0.5)
        x = [conditions.index(name) + shift for name in own["condition"]]
        order = np.argsort(x, kind="stable")
        share, low, high = (100 * own[name].to_numpy() for name in ("share", "low", "high"))
        ax.plot(np.array(x)[order], share[order], color=colours[patient], linewidth=1, alpha=0.6)
        style = {"fmt": "o", "color": colours[patient], "capsize": 2, "label": patient}
        ax.errorbar(x, share, yerr=[share - low, high - share], **style)
    ax.set_xticks(range(len(conditions)), [name or "all samples" for name in conditions])
    ax.set_xlim(-0.5, len(conditions) - 0.5)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("persister candidates (%)")
    title = "persister share"
    if len(test):
        title += ": no test possible" if test.iloc[0]["note"] else f": p = {test.iloc[0]['p']:.2g}, patients permuted"
    ax.set_title(title, fontsize=10)
    if len(colours) <= _MOST_BARS:
        ax.legend(title="patient", frameon=False, fontsize=8, title_fontsize=8)


def _ratios(ax: Any, table: pd.DataFrame, title: str) -> None:
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    table = table[table["expected"] >= _LEAST_EXPECTED].head(_MOST_BARS).iloc[::-1]
    if table.empty:
        _note(ax, "too few persisters on tissue")
        return
    filled = np.where(table["q"] <= 0.05, CALLED, "white")
    ax.barh(range(len(table)), table["log2_ratio"], color=filled, edgecolor=CALLED, height=0.7)
    ax.set_yticks(range(len(table)), table["label"], fontsize=8)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("log2 of observed over expected (filled: q at most 0.05)", fontsize=8)


def _note(ax: Any, text: str) -> None:
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color="#666666")


def _message(text: str, path: str | os.PathLike) -> None:
    fig, axes = new_figure(1, 1, panel=(5.0, 2.0))
    axes[0, 0].set_axis_off()
    _note(axes[0, 0], text)
    save(fig, path)
