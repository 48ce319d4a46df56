"""Compositions on the tissue."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import numpy as np
import pandas as pd

from histoweft import plotting
from histoweft.annotation.deconvolve_summary import types_of

MOST_TYPES = 14
"""Types with a map of their own: those with the largest mean share."""

_COLUMNS = 4
_LIMIT = 0.995
_EXPLAINED, _FLAGGED = "explained", "not explained"


def proportions_figure(
    table: pd.DataFrame,
    xy: np.ndarray,
    path: str | os.PathLike,
    *,
    sample: str,
    mpp: float | None = None,
    spot_diameter_um: float | None = None,
) -> None:
    """Draw the commonest type of each spot, the spots that no mixture explains, and the share of each type.

    Parameters
    ----------
    table
        ``proportions.parquet``.
    xy
        spots x 2, full-resolution pixels.
    path
        A png or svg.
    sample
        For the title.
    mpp, spot_diameter_um
        See `plotting.tissue`.
    """
    types = types_of(table)
    shares = table[types].mean().sort_values(ascending=False, kind="stable")
    shown = list(shares.index[:MOST_TYPES])
    columns = min(_COLUMNS, 2 + len(shown))
    fig, axes = plotting.new_figure(columns, math.ceil((2 + len(shown)) / columns), panel=(4.0, 3.6))
    place = {"mpp": mpp, "spot_diameter_um": spot_diameter_um}
    for ax in axes.flat[2 + len(shown) :]:
        ax.set_axis_off()
    first = commonest(table)
    colours = plotting.shared_colours(types)
    plotting.tissue(axes.flat[0], xy, first, title=f"{sample}: commonest type", colours=colours, legend=False, **place)
    _legend_below(axes.flat[0], {name: colours[name] for name in shown if (first == name).any()})
    flagged = np.where(table["missing_type"], _FLAGGED, _EXPLAINED)
    colours = {_EXPLAINED: plotting.UNLABELLED, _FLAGGED: "#d55e00"}
    title = f"{int(table['missing_type'].sum())} of {len(table)} spots not explained"
    plotting.tissue(axes.flat[1], xy, flagged, title=title, colours=colours, legend=False, **place)
    _legend_below(axes.flat[1], colours)
    for ax, name in zip(axes.flat[2:], shown, strict=False):
        values = table[name].to_numpy(dtype=float)
        top = float(np.nanquantile(values, _LIMIT)) if np.isfinite(values).any() else 0.0
        title = f"{name}   mean {shares[name]:.1%}"
        plotting.tissue(ax, xy, values, title=title, vmin=0, vmax=top or 1.0, **place)
    plotting.save(fig, path)


def _legend_below(ax, colours: Mapping[str, str]) -> None:
    """Put a legend under the scale bar; beside the map it would push the colour bars of its column away."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, markersize=6, label=name)
        for name, colour in colours.items()
    ]
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False, fontsize=8, ncols=3,
        handletextpad=0.2, columnspacing=0.8,
    )  # fmt: skip


def commonest(table: pd.DataFrame) -> pd.Series:
    """Return the type of largest share of each spot, missing where nothing is known."""
    types = types_of(table)
    values = table[types].to_numpy(dtype=float)
    known = np.isfinite(values).all(axis=1)
    codes = np.where(known, np.where(np.isfinite(values), values, -1).argmax(axis=1), -1)
    return pd.Series(pd.Categorical.from_codes(codes, types), index=table.index)
