"""Pictures of the histology stage: painted genes, composites, reconstructions, scores, training."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from histoweft import plotting

GENES_PER_PAGE = 8
"""Rows of a gene figure; more would not be legible on one page."""

UNIT = "log-normalised expression"

_CMAP = "viridis"
_COMPOSITE = ("#ff3ba7", "#3bff6b", "#4d7cff", "#ffd23b")
_FLOOR, _BAR, _CEILING = "#b8b8b8", "#e69f00", "#333333"
_PROTOCOLS = {
    "section": "whole sections held out",
    "patient": "whole patients held out",
    "block": "blocks held out",
    "random": "random spots held out",
    "cohort": "cohorts held out",
}


# -------------------------------------------------------------------------------------------------------- painted genes


def gene_figure(
    rgb: np.ndarray | None,
    rgb_um_per_px: float,
    maps: np.ndarray,
    um_per_px: float,
    genes: Sequence[str],
    xy_um: np.ndarray,
    measured: np.ndarray,
    held_out: np.ndarray | None,
    mask: np.ndarray | None,
    spot_diameter_um: float | None,
    path: str | os.PathLike,
    note: str = "",
    origin_um: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Show each gene as measured in the spots and, on the same colour scale, as painted on the tissue.

    Parameters
    ----------
    rgb
        The H&E, (height, width, 3) uint8, its upper left corner at 0, 0 um; None where there is none.
    rgb_um_per_px
        Micrometres per pixel of it.
    maps
        (genes, height, width), log-normalised; `um_per_px` a pixel, the upper left corner at `origin_um` (x, y).
    genes
        Names; at most `GENES_PER_PAGE`.
    xy_um
        Spot centres, spots x 2 (x, y), um.
    measured
        spots x genes, log-normalised.
    held_out
        (genes,), Pearson r of models with spots they had not seen, for the titles; NaN where it is not known. None: no
        r is shown, since one over spots the model was trained on would mislead.
    mask
        (height, width) bool, tissue; off it the map is transparent. None: all is tissue.
    spot_diameter_um
        None where unknown.
    path
        A png, svg or pdf.
    note
        Line under the figure.

    Raises
    ------
    ValueError
        Too many genes, or the shapes do not fit together.
    """
    _check_genes(maps, genes, measured, xy_um, held_out)
    shown = _transparent(maps, mask)
    height, width = maps.shape[1:]
    x0, y0 = origin_um
    extent = (x0, x0 + width * um_per_px, y0 + height * um_per_px, y0)
    # The height of a row follows the shape of the section, so that no paper is wasted above and below it.
    spread = np.ptp(xy_um, axis=0)
    ratio = float(np.clip(spread[1] / max(spread[0], 1e-9), 0.4, 1.6))
    fig, axes = plotting.new_figure(2, len(genes), panel=(4.2, 3.7 * ratio + 0.55))
    place = {
        "image": None if rgb is None else _faded(rgb), "image_scale": 1 / rgb_um_per_px, "mpp": 1.0,
        "spot_diameter_um": spot_diameter_um, "legend": False, "alpha": 1.0,
    }  # fmt: skip
    for row, gene in enumerate(genes):
        left, right = axes[row]
        low, high = _limits(measured[:, row])
        scale = {"cmap": _CMAP, "vmin": low, "vmax": high}
        spots = plotting.tissue(left, xy_um, measured[:, row], title="measured in spots", **scale, **place)
        # The same call sets limits and image of the right panel; its spots give way to the map.
        plotting.tissue(right, xy_um, np.zeros(len(xy_um)), **place).remove()
        right.set_autoscale_on(False)  # the image would else set limits of its own
        right.imshow(shown[row], extent=extent, interpolation="antialiased", alpha=0.88, zorder=1, **scale)
        right.set_title("painted" + _held_out_words(held_out, row), fontsize=10)
        left.set_ylabel(gene, fontsize=13, fontstyle="italic")
        bar = fig.colorbar(spots, ax=[left, right], shrink=0.75, pad=0.02, aspect=22, extend="both")
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8, length=2)
        bar.set_label(UNIT, fontsize=8)
    _write_below(fig, note)
    plotting.save(fig, path)


def _write_below(fig, note: str) -> None:
    """Put a line under the whole figure, clear of its scale bars; saving cuts the page to fit."""
    if note:
        fig.text(0.5, -0.05 / fig.get_figheight(), note, ha="center", va="top", fontsize=8, color="#555555")


def _check_genes(maps, genes, measured, xy_um, held_out) -> None:
    if not 1 <= len(genes) <= GENES_PER_PAGE:
        raise ValueError(f"{len(genes)} genes on one figure; 1 to {GENES_PER_PAGE} fit, make one figure for each page")
    wanted = {
        "maps": (np.shape(maps)[0], len(genes)),
        "measured": (np.shape(measured), (len(xy_um), len(genes))),
        "held_out": (np.shape(held_out), (len(genes),)),
    }
    for name, (found, expected) in wanted.items():
        if found != expected and not (name == "held_out" and held_out is None):
            raise ValueError(f"{name}: {found} where {expected} is needed ({len(genes)} genes, {len(xy_um)} spots)")


def _faded(rgb: np.ndarray) -> np.ndarray:
    """Return the H&E in pale grey: its own hues would pass for expression."""
    grey = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.repeat((255 - 0.7 * (255 - grey)).astype(np.uint8)[..., None], 3, axis=2)


def _transparent(maps: np.ndarray, mask: np.ndarray | None) -> np.ma.MaskedArray:
    outside = np.zeros(maps.shape[1:], dtype=bool) if mask is None else ~np.asarray(mask, dtype=bool)
    if outside.shape != maps.shape[1:]:
        raise ValueError(f"a mask of {outside.shape} for maps of {maps.shape[1:]}")
    return np.ma.array(maps, mask=np.broadcast_to(outside, maps.shape))


def _limits(values: np.ndarray, percentiles: tuple[float, float] = (1, 99)) -> tuple[float, float]:
    """Return the limits of a colour scale that a few outlying values do not stretch."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, percentiles))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low, low + 1.0)


def _held_out_words(held_out: np.ndarray | None, column: int) -> str:
    if held_out is None:
        return ""
    return f"; held-out r = {held_out[column]:.2f}" if np.isfinite(held_out[column]) else "; no held-out r"


# ----------------------------------------------------------------------------------------------------------- composites


def composite(
    maps: np.ndarray,
    genes: Sequence[str],
    um_per_px: float,
    path: str | os.PathLike,
    *,
    colours: Sequence[str] | None = None,
    mask: np.ndarray | None = None,
    rgb: np.ndarray | None = None,
    rgb_um_per_px: float = math.nan,
    origin_um: tuple[float, float] = (0.0, 0.0),
    note: str = "",
) -> np.ndarray:
    """Lay two to four painted genes over one another as light of different colours, like immunofluorescence.

    Each gene runs from black at its median to full colour at its 99.5th percentile on the tissue; colours add, and keep
    their hue where they would become too bright.

    Parameters
    ----------
    maps
        (genes, height, width), log-normalised.
    genes
        Their names.
    um_per_px
        Micrometres per pixel.
    path
        A png, svg or pdf.
    colours
        One for each gene; magenta, green, blue and yellow if left out.
    mask
        (height, width) bool, tissue; black elsewhere. None: all is tissue.
    rgb, rgb_um_per_px, origin_um
        The H&E for the panel beside it, and where the map lies on it, as in `gene_figure`.
    note
        Line under the figure.

    Returns
    -------
    The composite, (height, width, 3) float in 0 to 1.

    Raises
    ------
    ValueError
        Not one map, one name and one colour for each of two to four genes.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D

    colours = list(colours or _COMPOSITE[: len(genes)])
    if not 2 <= len(genes) <= 4 or len(colours) != len(genes) or len(maps) != len(genes):
        found = f"{len(maps)} maps, {len(genes)} names and {len(colours)} colours"
        raise ValueError(f"a composite shows 2 to 4 genes, one map, name and colour each, not {found}")
    light = np.zeros((*maps.shape[1:], 3))
    inside = np.ones(maps.shape[1:], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    for values, colour in zip(maps, colours):
        low, high = _limits(values[inside], (50, 99.5))
        light += np.clip((values - low) / (high - low), 0, 1)[..., None] * np.array(to_rgb(colour))
    light[~inside] = 0
    light /= np.maximum(light.max(axis=2, keepdims=True), 1)

    rows, cols = _tissue_box(inside)
    height, width = rows.stop - rows.start, cols.stop - cols.start
    fig, axes = plotting.new_figure(2 if rgb is not None else 1, 1, panel=(4.4, 4.4 * min(height / width, 1.6) + 0.8))
    extent = (
        origin_um[0] + cols.start * um_per_px, origin_um[0] + cols.stop * um_per_px,
        origin_um[1] + rows.stop * um_per_px, origin_um[1] + rows.start * um_per_px,
    )  # fmt: skip
    if rgb is not None:
        _bare(axes[0, 0], "H&E")
        step = math.ceil(max(rgb.shape[:2]) / plotting.MAX_IMAGE_SIDE)
        thinned = rgb[::step, ::step]
        full = (0, thinned.shape[1] * step * rgb_um_per_px, thinned.shape[0] * step * rgb_um_per_px, 0)
        axes[0, 0].imshow(thinned, extent=full, interpolation="antialiased")
        axes[0, 0].set(xlim=extent[:2], ylim=extent[2:])
        plotting.scale_bar(axes[0, 0], 1.0)
    ax = axes[0, -1]
    _bare(ax, "")
    ax.imshow(light[rows, cols], extent=extent, interpolation="antialiased")
    plotting.scale_bar(ax, 1.0)
    handles = [Line2D([], [], color=colour, linewidth=4, label=gene) for gene, colour in zip(genes, colours)]
    ncols = len(genes) if sum(map(len, genes)) <= 36 else 1
    legend = ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.01, 1, 0.1), mode="expand", ncols=ncols, fontsize=10,
        facecolor="black", framealpha=1, edgecolor="black", fancybox=False, handlelength=1.0, borderaxespad=0,
    )  # fmt: skip
    for text, colour in zip(legend.get_texts(), colours):
        text.set(color=colour, fontstyle="italic")
    _write_below(fig, note)
    plotting.save(fig, path)
    return light


def _bare(ax, title: str) -> None:
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
    ax.spines[:].set_visible(False)


def _tissue_box(inside: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns that hold tissue, with a margin of 2 %; all where there is none."""
    sides = []
    for axis in (1, 0):
        there = np.flatnonzero(inside.any(axis=axis))
        size = inside.shape[1 - axis]
        first, last = (there[0], there[-1] + 1) if len(there) else (0, size)
        margin = math.ceil(0.02 * (last - first))
        sides.append(slice(max(0, first - margin), min(size, last + margin)))
    return sides[0], sides[1]


# ------------------------------------------------------------------------------------------------------- reconstruction


def reconstruction_figure(
    original: np.ndarray,
    reconstructed: np.ndarray,
    um_per_px: float,
    ssim: np.ndarray,
    path: str | os.PathLike,
    *,
    mask: np.ndarray | None = None,
    zoom: tuple[int, int, int] | None = None,
    note: str = "",
) -> None:
    """Show a tissue beside what an autoencoder makes of it, a detail of both, and where they differ.

    Parameters
    ----------
    original, reconstructed
        (height, width, 3) uint8.
    um_per_px
        Micrometres per pixel.
    ssim
        (height, width) structural similarity around each pixel; NaN where it is not defined.
    path
        A png, svg or pdf.
    mask
        (height, width) bool, tissue: the mean similarity is taken there. None: everywhere.
    zoom
        Row and column of the upper left corner and side of the detail, pixels; by default the richest square on the
        tissue, a sixth of the shorter side wide.
    note
        Line under the figure.

    Raises
    ------
    ValueError
        The images differ in size.
    """
    if original.shape != reconstructed.shape or ssim.shape != original.shape[:2]:
        raise ValueError(f"sizes differ: {original.shape}, {reconstructed.shape}, similarity {ssim.shape}")
    inside = np.ones(ssim.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    on_tissue = ssim[inside & np.isfinite(ssim)]
    mean = float(on_tissue.mean()) if len(on_tissue) else math.nan
    top, left, side = zoom or _richest_square(original, inside & np.isfinite(ssim))
    detail = slice(top, top + side), slice(left, left + side)
    rows, cols = _tissue_box(inside)
    tall = (rows.stop - rows.start) / (cols.stop - cols.start)
    fig, _ = plotting.new_figure(panel=(10.5, 3.3 * min(tall, 1.6) + 3.9))
    fig.clear()
    axes = fig.subplots(2, 3, height_ratios=(min(tall, 1.6), 1), squeeze=False)
    shown = np.where(inside, ssim, np.nan)
    panels = (("H&E", original), ("reconstructed", reconstructed), (f"SSIM, mean on tissue {mean:.2f}", shown))
    for column, (title, image) in enumerate(panels):
        for row, (area, words) in enumerate((((rows, cols), title), (detail, "detail"))):
            ax = axes[row, column]
            _bare(ax, words if row == 0 else "")
            style = {"cmap": "magma", "vmin": 0, "vmax": 1} if column == 2 else {}
            extent = (area[1].start, area[1].stop, area[0].stop, area[0].start)
            drawn = ax.imshow(
                image[area], extent=extent, interpolation="antialiased" if row == 0 else "nearest", **style
            )
            plotting.scale_bar(ax, um_per_px)
            if row == 0:
                frame = [left, left + side, left + side, left, left], [top, top, top + side, top + side, top]
                ax.plot(*frame, color="white", linewidth=2.4, scalex=False, scaley=False)
                ax.plot(*frame, color="black", linewidth=1.1, scalex=False, scaley=False)
    bar = fig.colorbar(drawn, ax=axes[:, 2], shrink=0.6, pad=0.02, aspect=25)
    bar.set_label("SSIM", fontsize=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2)
    _write_below(fig, note)
    plotting.save(fig, path)


def _richest_square(image: np.ndarray, inside: np.ndarray) -> tuple[int, int, int]:
    """Find the square of most contrast among those that lie (nearly) all on tissue; corner and side."""
    side = max(8, min(image.shape[:2]) // 6)
    grey = image.mean(axis=2)
    corners = itertools.product(*(range(0, max(1, size - side + 1), max(1, side // 2)) for size in grey.shape))

    def richness(corner: tuple[int, int]) -> tuple[bool, float]:
        area = tuple(slice(start, start + side) for start in corner)
        return bool(inside[area].mean() >= 0.98), float(grey[area].std())

    where = max(corners, key=richness)
    return *where, side


# --------------------------------------------------------------------------------------------------------------- scores


def score_figure(rows: pd.DataFrame, path: str | os.PathLike, panel: str = "top50") -> None:
    """Show the held-out Pearson r of every method, one panel for each protocol and group of sections.

    Floors are grey, the bar orange, models coloured (each with the same colour in every panel), the ceiling a dashed
    line; the default carries a star. Best on top; whiskers are 95 % intervals.

    Parameters
    ----------
    rows
        Rows of the metrics table (`histoweft.metrics`). Methods named ``floor:``, ``bar:``, ``ceiling:`` are drawn as
        such; ``default`` in the note marks the default, ``oracle`` what is told something of the test spots.
        Means over sections (sample ``all``) are shown where there are any, else each sample.
    path
        A png, svg or pdf.
    panel
        Gene panel: rows of the metric ``pearson_<panel>``.

    Raises
    ------
    ValueError
        There is no such row.
    """
    metric = f"pearson_{panel}"
    found = rows[(rows["metric"] == metric) & rows["value"].notna()]
    groups = _groups(found)
    if not groups:
        known = sorted({name for name in rows["metric"] if str(name).startswith("pearson")})
        raise ValueError(f"no rows of {metric} over all folds; there are {', '.join(known) or 'none of any Pearson r'}")
    models = sorted(
        {m for _, table in groups for m in table["method"] if not m.startswith(("floor:", "bar", "ceiling"))}
    )
    # The first two hues of the palette are left to others: orange is the bar.
    colours = dict(zip(models, [c for c in plotting.category_colours(map(str, range(len(models) + 1))).values()
                                if c != _BAR]))  # fmt: skip
    ncols = min(2, len(groups))
    tallest = max(len(table) for _, table in groups)
    fig, axes = plotting.new_figure(ncols, math.ceil(len(groups) / ncols), panel=(5.2, 0.27 * tallest + 1.1))
    bars = found[~found["method"].str.startswith("ceiling")]
    right = max(1.16 * float(bars[["value", "high"]].max().max()), 1.03 * float(found["value"].max()))
    left = min(0.0, 1.05 * float(bars[["value", "low"]].min().min()))
    for ax, (title, table) in zip(axes.flat, groups):
        _score_panel(ax, table, colours, title)
        ax.set_xlim(left, right)
        ax.set_xlabel(f"held-out Pearson r, mean over genes: {table['panel'].iloc[0] or panel}", fontsize=8)
    for ax in axes.flat[len(groups) :]:
        ax.set_axis_off()
    plotting.save(fig, path)


def _groups(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Split rows by study, protocol and, where no mean over samples is given, sample; with a title each."""
    groups = []
    for (study, protocol), table in rows.groupby(["study", "protocol"], sort=False):
        whole = table[table["fold"].astype(str) == "all"]
        together = whole[whole["sample"] == "all"]
        words = f"{study}: {_PROTOCOLS.get(protocol, protocol)}"
        if len(together):
            n = table.loc[table["sample"] != "all", "sample"].nunique()
            groups.append((f"{words}\nmean of {n} sections" if n > 1 else words, together))
            continue
        groups += [(f"{words}\n{sample}", part) for sample, part in whole.groupby("sample", sort=False)]
    return groups


def _score_panel(ax, table: pd.DataFrame, colours: Mapping[str, str], title: str) -> None:
    is_ceiling = table["method"].str.startswith("ceiling")
    ranked = table[~is_ceiling].sort_values("value", kind="stable").reset_index(drop=True)
    for at, row in ranked.iterrows():
        ax.barh(at, row["value"], height=0.72, color=_method_colour(row["method"], colours))
        if np.isfinite(row["low"]) and np.isfinite(row["high"]):
            ax.plot([row["low"], row["high"]], [at, at], color="#333333", linewidth=1.1, solid_capstyle="butt")
        end = max(row["value"], row["high"] if np.isfinite(row["high"]) else row["value"], 0)
        ax.annotate(
            f"{row['value']:.2f}", (end, at), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8
        )
    ax.set_yticks(range(len(ranked)), [_method_words(row) for _, row in ranked.iterrows()], fontsize=8)
    for label, (_, row) in zip(ax.get_yticklabels(), ranked.iterrows()):
        label.set_fontweight("bold" if _is_default(row) else "normal")
    for value in table.loc[is_ceiling, "value"]:
        ax.axvline(value, color=_CEILING, linewidth=1.2, linestyle="--")
        ax.annotate(f"ceiling {value:.2f}", (value, 1), xycoords=("data", "axes fraction"), xytext=(-3, -1),
                    textcoords="offset points", ha="right", va="top", fontsize=8, rotation=0)  # fmt: skip
    if is_ceiling.any():  # room for its words above the bars
        ax.set_ylim(-0.6, len(ranked) + 0.3)
    ax.axvline(0, color="#333333", linewidth=0.8)
    ax.set_title(title, fontsize=10)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8)


def _method_colour(method: str, colours: Mapping[str, str]) -> str:
    if method.startswith("floor:"):
        return _FLOOR
    return _BAR if method.startswith("bar") else colours[method]


def _is_default(row: pd.Series) -> bool:
    return "default" in str(row["note"]).replace(",", " ").replace(";", " ").split()


def _method_words(row: pd.Series) -> str:
    kind, _, name = row["method"].partition(":")
    words = {"floor": f"{name} (floor)", "bar": f"{name} (bar)"}.get(kind, row["method"]).replace("_", " ")
    if "oracle" in str(row["note"]):
        words = words.replace("(floor)", "(floor, oracle)")
    return f"★ {words}" if _is_default(row) else words


def overfit_figure(rows: pd.DataFrame, path: str | os.PathLike) -> None:
    """Show each model's score on its own training spots beside its score on held-out spots.

    Parameters
    ----------
    rows
        ``sample`` (or group of samples), ``method``, ``training``, ``held_out``: Pearson r, mean over genes.
    path
        A png, svg or pdf.

    Raises
    ------
    ValueError
        A column is missing, or there is no row.
    """
    missing = {"sample", "method", "training", "held_out"} - set(rows.columns)
    if missing or rows.empty:
        raise ValueError(f"no {', '.join(sorted(missing)) or 'row'} in the table of training and held-out scores")
    groups = list(rows.groupby("sample", sort=False))
    most = max(len(table) for _, table in groups)
    fig, axes = plotting.new_figure(len(groups), 1, panel=(max(2.8, 1.0 * most + 0.8), 3.6))
    top = float(np.nanmax(rows[["training", "held_out"]].to_numpy(float)))
    bottom = min(0.0, float(np.nanmin(rows[["training", "held_out"]].to_numpy(float))))
    for ax, (sample, table) in zip(axes.flat, groups):
        table = table.sort_values("held_out", kind="stable")
        at = np.arange(len(table))
        for shift, column, colour, words in (
            (-0.19, "training", "#cfcfcf", "on its training spots"),
            (0.19, "held_out", "#0072b2", "on held-out spots"),
        ):
            values = table[column].to_numpy(float)
            bars = ax.bar(at + shift, values, width=0.36, color=colour, label=words)
            texts = [f"{value:.2f}" if np.isfinite(value) else "" for value in values]
            ax.bar_label(bars, texts, fontsize=8, padding=2)
        ax.set_xticks(at, [_kept_words(row) for _, row in table.iterrows()], fontsize=8)
        ax.axhline(0, color="#333333", linewidth=0.8)
        ax.set_ylim(bottom - (0.1 * top if bottom < 0 else 0), 1.12 * top)
        ax.set_title(sample, fontsize=10)
        ax.tick_params(axis="y", labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("Pearson r, mean over genes", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    plotting.save(fig, path)


def _kept_words(row: pd.Series) -> str:
    """Name of a model, and how much of its training score is left on held-out spots."""
    name = row["method"].replace("_", " ").replace(" ", "\n")
    if not (np.isfinite(row["training"]) and np.isfinite(row["held_out"]) and row["training"] > 0):
        return name
    return f"{name}\nkeeps {max(0.0, row['held_out'] / row['training']):.0%}"


# ------------------------------------------------------------------------------------------------------------- training


def training_figure(history: pd.DataFrame, path: str | os.PathLike, *, label: str = "loss") -> None:
    """Show the loss on training and on held-out spots by epoch, the best epoch marked.

    Parameters
    ----------
    history
        ``epoch``, ``train`` and ``held_out`` (NaN in epochs without validation, or throughout).
    path
        A png, svg or pdf.
    label
        Name of the loss, with its unit.

    Raises
    ------
    ValueError
        A column is missing, or there is no epoch.
    """
    missing = {"epoch", "train", "held_out"} - set(history.columns)
    if missing or history.empty:
        raise ValueError(f"no {', '.join(sorted(missing)) or 'epoch'} in the training history")
    fig, axes = plotting.new_figure(panel=(5.6, 3.4))
    ax = axes[0, 0]
    dots = "." if len(history) <= 60 else None
    for column, colour, words in (("train", "#8c8c8c", "training"), ("held_out", "#0072b2", "held out")):
        there = history[history[column].notna()]
        if len(there):
            ax.plot(there["epoch"], there[column], color=colour, marker=dots, linewidth=1.5, label=words)
    held_out = history[history["held_out"].notna()]
    if len(held_out):
        best = held_out.loc[held_out["held_out"].idxmin()]
        ax.axvline(best["epoch"], color="#333333", linestyle="--", linewidth=1)
        ax.plot(best["epoch"], best["held_out"], marker="o", color="#d55e00", markersize=7, linestyle="",
                label=f"best: epoch {int(best['epoch'])}, {best['held_out']:.4g}")  # fmt: skip
    values = history[["train", "held_out"]].to_numpy(float)
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 20 * values.min():
        ax.set_yscale("log")
    ax.set_xlabel("epoch", fontsize=9)
    ax.set_ylabel(label, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    plotting.save(fig, path)
