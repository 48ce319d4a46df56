"""Pictures of domains, niches and scales."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from histoweft.plotting import category_colours, new_figure, save, shared_colours, tissue
from histoweft.space.figures import Place

_TITLES = {"consensus": "consensus", "leiden": "floor: Leiden", "smoothed_pca": "floor: smoothed PCs + k-means"}
_COLUMNS = 4


def _grid(panels: int, width: float = 4.4, height: float = 4.0) -> tuple[Any, list[Any]]:
    """Start a figure of up to four panels a row; what is left over stays empty."""
    ncols = min(panels, _COLUMNS)
    fig, axes = new_figure(ncols, -(-panels // ncols), panel=(width, height))
    for ax in axes.flat[panels:]:
        ax.set_axis_off()
    return fig, list(axes.flat[:panels])


def _names(number: int) -> list[str]:
    return [str(one + 1) for one in range(number)]


def matched_colours(table: pd.DataFrame, reference: str, column: str) -> dict[str, str]:
    """Colour the categories of a column like those of the reference column that they share most points with.

    Each colour of the reference is given once; categories without a counterpart get further colours.
    """
    from scipy.optimize import linear_sum_assignment

    counts = pd.crosstab(table[column].astype(str), table[reference].astype(str))
    rows, columns = linear_sum_assignment(-counts.to_numpy())
    own = list(table[reference].cat.categories)
    extra = len(counts)
    palette = category_colours(own + [f"further {i}" for i in range(extra)])
    found = {str(counts.index[r]): palette[str(counts.columns[c])] for r, c in zip(rows, columns)}
    free = (palette[f"further {i}"] for i in range(extra))
    return {str(name): found.get(str(name)) or next(free) for name in counts.index}


def study_colours(tables: Sequence[pd.DataFrame], labels: Iterable[object]) -> dict[str, dict[str, str]]:
    """Choose the colours of every panel of `domains_figure` from all sections, so that they mean the same in each.

    Parameters
    ----------
    tables
        Of `histoweft.space.domains.domain_tables`, one a section.
    labels
        Expert labels of all sections.

    Returns
    -------
    Column to category to colour; ``label`` for expert labels.
    """
    pooled = pd.concat(tables, ignore_index=True)
    found = {name: matched_colours(pooled, "consensus", name) for name in (*_TITLES, "domain") if name in pooled}
    given = pooled["semi"].dropna().unique() if "semi" in pooled else []
    named = shared_colours([*labels, *given])
    return found | {"label": named, "semi": named}


def domain_figure(place: Place, domains: pd.Series, out: str | os.PathLike, colours: Mapping[str, str]) -> None:
    """Show the domains in use on the tissue, alone: the picture to set beside those of other sections."""
    fig, axes = _grid(1, 5.0, 4.4)
    tissue(axes[0], place.xy, domains, colours=colours, **place.options)
    save(fig, out)


def domains_figure(
    place: Place,
    table: pd.DataFrame,
    truth: pd.Series | None,
    out: str | os.PathLike,
    colours: Mapping[str, Mapping[str, str]],
) -> None:
    """Show the domains of each method on the tissue, the confidence of the consensus, and expert labels.

    Parameters
    ----------
    place
        Where the points lie.
    table
        Of `histoweft.space.domains.domain_tables`, with a column ``semi`` where labels were spread.
    truth
        Expert labels in the same order, or None.
    out
        Picture to write.
    colours
        Of `study_colours`.
    """
    methods = [name for name in _TITLES if name in table]
    panels = len(methods) + 1 + (truth is not None) + ("semi" in table)
    fig, axes = _grid(panels)
    queue = iter(axes)
    if truth is not None:
        tissue(next(queue), place.xy, truth, colours=colours["label"], title="expert labels", **place.options)
    for name in methods:
        tissue(next(queue), place.xy, table[name], colours=colours[name], title=_TITLES[name], **place.options)
    if "semi" in table:
        title = "spread from the given labels"
        tissue(next(queue), place.xy, table["semi"], colours=colours["semi"], title=title, **place.options)
    confidence = table["confidence"]
    tissue(next(queue), place.xy, confidence, vmin=0, vmax=1, title="share of votes (consensus)", **place.options)
    save(fig, out)


def niches_figure(
    place: Place, niches: pd.Series, groups: pd.Categorical, out: str | os.PathLike, title: str = "groups"
) -> None:
    """Show niches on the tissue beside the groups they are made of, whose categories are those of all sections."""
    fig, axes = _grid(2)
    tissue(axes[0], place.xy, niches, title="niches", **place.options)
    colours = shared_colours(groups.categories)
    tissue(axes[1], place.xy, pd.Series(groups), colours=colours, title=title, **place.options)
    save(fig, out)


def profiles_figure(profiles: pd.DataFrame, shares: pd.DataFrame, out: str | os.PathLike) -> None:
    """Show what each niche is made of, and how much of each section it takes.

    Parameters
    ----------
    profiles
        niches x groups, mean shares.
    shares
        samples x niches, shares of the sample's points.
    """
    width = 0.35 * profiles.shape[1] + 3
    fig, axes = new_figure(2, 1, panel=(max(4.5, width), max(3.2, 0.4 * len(profiles) + 1.6)))
    heat, bars = axes.flat
    drawn = heat.imshow(profiles.to_numpy(), cmap="viridis", vmin=0, aspect="auto")
    heat.set_xticks(range(profiles.shape[1]), profiles.columns, rotation=60, ha="right", fontsize=8)
    heat.set_yticks(range(len(profiles)), profiles.index, fontsize=8)
    heat.set(ylabel="niche", title="what surrounds a point")
    bar = fig.colorbar(drawn, ax=heat, shrink=0.7)
    bar.set_label("mean share of the surroundings", fontsize=8)
    colours = category_colours(list(shares.columns))
    left = np.zeros(len(shares))
    for niche in shares.columns:
        bars.barh(range(len(shares)), shares[niche], left=left, color=colours[niche], label=niche)
        left += shares[niche].to_numpy()
    bars.set_yticks(range(len(shares)), shares.index, fontsize=8)
    bars.set(xlabel="share of the section's points", xlim=(0, 1), title="niches of each section")
    bars.invert_yaxis()
    bars.spines[["top", "right"]].set_visible(False)
    bars.legend(title="niche", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8, title_fontsize=8)
    save(fig, out)


def scale_colours(tree: pd.DataFrame, persistence: pd.DataFrame) -> dict[int, dict[str, str]]:
    """Colour domains such that one that goes over into a domain of the next scale keeps its colour.

    Parameters
    ----------
    tree, persistence
        Of `histoweft.space.multiscale`.

    Returns
    -------
    Scale to domain to colour.
    """
    from scipy.optimize import linear_sum_assignment

    counts = persistence.groupby("scale").size().to_dict()
    scales = sorted(counts)
    colours = {scales[-1]: category_colours(_names(counts[scales[-1]]))}
    for fine, coarse in reversed(list(pairwise(scales))):
        links = tree[(tree["fine"] == fine) & (tree["coarse"] == coarse)]
        overlap = np.zeros((counts[fine], counts[coarse]))
        overlap[links["fine_domain"].astype(int) - 1, links["coarse_domain"].astype(int) - 1] = links["overlap"]
        rows, columns = linear_sum_assignment(-overlap)
        found = {str(r + 1): colours[coarse][str(c + 1)] for r, c in zip(rows, columns)}
        palette = category_colours(_names(max(counts.values()) + counts[fine])).values()
        free = (colour for colour in palette if colour not in found.values())
        colours[fine] = {name: found.get(name) or next(free) for name in _names(counts[fine])}
    return colours


def scales_figure(
    place: Place, table: pd.DataFrame, colours: Mapping[int, Mapping[str, str]], out: str | os.PathLike
) -> None:
    """Show the domains of each scale on the tissue; columns of `table`: ``scale_<points averaged over>``."""
    fig, axes = _grid(table.shape[1])
    for ax, column in zip(axes, table):
        scale = int(column.removeprefix("scale_"))
        title = f"average over {scale} neighbours"
        tissue(ax, place.xy, table[column], colours=colours[scale], title=title, **place.options)
    save(fig, out)


def tree_figure(
    tree: pd.DataFrame,
    persistence: pd.DataFrame,
    colours: Mapping[int, Mapping[str, str]],
    out: str | os.PathLike,
    unit: str = "µm",
) -> None:
    """Draw domains as bars, one column a scale, and the points that pass between them as bands.

    Parameters
    ----------
    tree, persistence
        Of `histoweft.space.multiscale`.
    colours
        Of `scale_colours`.
    out
        Picture to write.
    unit
        Of the radii.
    """
    scales = sorted(persistence["scale"].unique())
    total = persistence.loc[persistence["scale"] == scales[0], "points"].sum()
    fig, axes = new_figure(1, 1, panel=(2.2 * len(scales) + 1.2, 5.0))
    ax = axes[0, 0]
    order = _stacking(tree, persistence, scales)
    spans = {}
    for x, scale in enumerate(scales):
        rows = persistence[persistence["scale"] == scale].set_index("domain")
        bottom = 0.0
        for name in order[scale]:
            height = rows.loc[name, "points"] / total
            spans[scale, name] = bottom
            ax.bar(x, height, bottom=bottom, width=0.22, color=colours[scale][name], zorder=3)
            label = f"{name} ({rows.loc[name, 'persistence']:.2f})"
            if height > 0.02:
                ax.text(x + 0.13, bottom + height / 2, label, ha="left", va="center", fontsize=7, zorder=4)
            bottom += height + 0.015
    _bands(ax, tree, scales, order, spans, colours, total)
    radius = persistence.groupby("scale")["radius"].first()
    ax.set_xticks(range(len(scales)), [f"{scale} neighbours\n(within {radius[scale]:.0f} {unit})" for scale in scales])
    ax.set(yticks=[], ylabel="points of the study", title="domains over scales; in brackets: persistence")
    ax.spines[["top", "right", "left"]].set_visible(False)
    save(fig, out)


def _stacking(tree: pd.DataFrame, persistence: pd.DataFrame, scales: list[int]) -> dict[int, list[str]]:
    """Order the domains of each scale, the coarsest by size, finer ones beside their parents."""
    coarsest = persistence[persistence["scale"] == scales[-1]]
    order = {scales[-1]: list(coarsest.sort_values("points", ascending=False)["domain"])}
    for fine, coarse in reversed(list(pairwise(scales))):
        place = {name: at for at, name in enumerate(order[coarse])}
        links = tree[(tree["fine"] == fine) & (tree["coarse"] == coarse)]
        height = (links["coarse_domain"].map(place) * links["share_of_fine"]).groupby(links["fine_domain"]).sum()
        order[fine] = list(height.sort_values(kind="stable").index)
    return order


def _bands(ax, tree, scales, order, spans, colours, total) -> None:
    """Draw what passes from each domain to those of the next scale."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    out_of, into = dict(spans), dict(spans)
    for x, (fine, coarse) in enumerate(pairwise(scales)):
        links = tree[(tree["fine"] == fine) & (tree["coarse"] == coarse)].set_index(["fine_domain", "coarse_domain"])
        for name in order[fine]:
            for other in order[coarse]:
                if (name, other) not in links.index:
                    continue
                height = links.loc[(name, other), "points"] / total
                a, b = out_of[fine, name], into[coarse, other]
                out_of[fine, name] += height
                into[coarse, other] += height
                if height < 0.002:
                    continue
                left, right, middle = x + 0.11, x + 0.89, x + 0.5
                points = [
                    (left, a), (middle, a), (middle, b), (right, b),
                    (right, b + height), (middle, b + height), (middle, a + height), (left, a + height), (left, a),
                ]  # fmt: skip
                codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
                ax.add_patch(PathPatch(Path(points, codes), facecolor=colours[fine][name], alpha=0.35, linewidth=0))


def scores_figure(rows: pd.DataFrame, numbers: pd.DataFrame, out: str | os.PathLike) -> None:
    """Show the scores of domains and of spread labels beside their floors, and how the number of domains was found.

    Parameters
    ----------
    rows
        The stage's metrics.
    numbers
        Of `histoweft.space.domains.estimate_number`.
    """
    found = rows[rows["metric"] == "ari"]
    parts = []
    whole, spread = found[found["task"] == "domains"], found[found["task"] == "domains_semi"]
    spread = spread[spread["sample"] == "all"]
    if len(whole):
        parts.append(("domains, all labels hidden", whole, "sample"))
    if len(spread):
        parts.append(("labels spread, hidden ones", spread, "panel"))
    fig, axes = _grid(len(parts) + 1, 4.8, 3.6)
    for ax, (title, table, by) in zip(axes, parts):
        _score_bars(ax, table, by, title)
    ax = axes[-1]
    ax.plot(numbers["n"], numbers["criterion"], color="#0072b2", marker="o", markersize=4)
    chosen = numbers[numbers["chosen"]]
    ax.plot(chosen["n"], chosen["criterion"], "o", color="#d55e00", markersize=8, label="chosen")
    ax.set(xlabel="number of domains", ylabel="criterion (BIC)", title="how many domains")
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    save(fig, out)


def _score_bars(ax, table: pd.DataFrame, by: str, title: str) -> None:
    groups, methods = list(dict.fromkeys(table[by])), list(dict.fromkeys(table["method"]))
    colours = dict(zip(methods, ["#0072b2", "#999999", "#cccccc"]))
    means = table.groupby(["method", by])[["value", "low", "high"]].mean()
    for at, method in enumerate(methods):
        x = np.arange(len(groups)) + (at - (len(methods) - 1) / 2) * 0.26
        bars = means.loc[method].reindex(groups)
        reach = [bars["value"] - bars["low"], bars["high"] - bars["value"]]
        reach = [side.fillna(0).clip(lower=0) for side in reach]
        ax.bar(x, bars["value"], 0.24, yerr=reach, color=colours[method], label=method, capsize=2)
    ax.set_xticks(range(len(groups)), groups, rotation=30 if len(groups) > 3 else 0, fontsize=8)
    ax.set(ylabel="adjusted Rand index", title=title)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(methods))
    ax.spines[["top", "right"]].set_visible(False)
