"""Tiles of a section, in micrometres: where they lie, which of them are fit to learn from, and a sheet to look at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from histoweft.errors import Faults
from histoweft.histology.stain import REFERENCE, Stain, normalise
from histoweft.histology.tissue import check_scale, shrink

MIN_TISSUE = 0.25
"""Share of a tile that must be tissue."""

BLUR = 0.15
"""A tile counts as blurred when its focus is under this share of the section's median."""

FOCUS_UM = 2.0
"""Micrometres per pixel at which focus is measured: the edges of nuclei."""

FOCUS_LIMIT_UM = 6.0
"""Coarser images show no nuclei, and whether they are in focus cannot be told."""

EXAMPLES = 24
"""Most tiles that a contact sheet shows."""

_LEAST_PX = 8
_FEW = 64

_COLOURS = {"kept": "#0072b2", "blurred": "#d55e00", "blank": "#9a9a9a"}
_OUTLINE = "#009e73"
_SHEET_COLUMNS = 8
_EXAMPLE_PX = 160


def grid(shape: tuple[int, ...], um_per_px: float, tile_um: float, overlap_um: float) -> pd.DataFrame:
    """Cover an image with square tiles.

    Parameters
    ----------
    shape
        Height and width of the image in pixels.
    um_per_px
        Micrometres per pixel.
    tile_um
        Side of a tile in micrometres.
    overlap_um
        How far neighbouring tiles overlap, in micrometres.

    Returns
    -------
    DataFrame
        One row a tile, index ``0003x0012`` (row x column): ``row``, ``col``; ``y0``, ``y1``, ``x0``, ``x1`` in
        pixels, the ends exclusive; ``x_um``, ``y_um``, the centre. The last tiles of a row and a column are shifted
        inwards; an image smaller than a tile is one tile of its own size.

    Raises
    ------
    InputError
        A tile is smaller than 8 pixels, or the overlap leaves no step between tiles.
    """
    side, step = _side_and_step(um_per_px, tile_um, overlap_um)
    y0, x0 = (_starts(length, side, step) for length in shape[:2])
    rows, columns = (at.ravel() for at in np.meshgrid(np.arange(len(y0)), np.arange(len(x0)), indexing="ij"))
    tiles = pd.DataFrame({"row": rows, "col": columns, "y0": y0[rows], "x0": x0[columns]})
    tiles["y1"] = np.minimum(tiles["y0"] + side, shape[0])
    tiles["x1"] = np.minimum(tiles["x0"] + side, shape[1])
    for axis in "xy":
        tiles[f"{axis}_um"] = (tiles[f"{axis}0"] + tiles[f"{axis}1"]) / 2 * um_per_px
    tiles.index = pd.Index([f"{row:04d}x{column:04d}" for row, column in zip(rows, columns)], name="tile")
    return tiles[["row", "col", "y0", "y1", "x0", "x1", "x_um", "y_um"]]


def _side_and_step(um_per_px: float, tile_um: float, overlap_um: float) -> tuple[int, int]:
    """Return side and step of the tiles in pixels, or say which option does not fit the image."""
    um_per_px = check_scale(um_per_px)
    side, step = round(tile_um / um_per_px), round((tile_um - overlap_um) / um_per_px)
    faults = Faults()
    if side < _LEAST_PX:
        least = math.ceil(_LEAST_PX * um_per_px)
        hint = f"The image has {um_per_px:.3g} um per pixel: set it to {least} or more, or give a finer image."
        faults.add("histology: tile_um", f"{tile_um:g} um ({side} pixels)", f"at least {_LEAST_PX} pixels", hint)
    if overlap_um < 0 or step < 1:
        faults.add("histology: overlap_um", f"{overlap_um:g} um", f"from 0 to less than tile_um ({tile_um:g} um)")
    faults.raise_if_any()
    return side, step


def _starts(length: int, side: int, step: int) -> np.ndarray:
    last = max(0, length - side)
    return np.unique(np.minimum(np.arange(0, last + step, step), last))


# ----------------------------------------------------------------------------------------------------------- quality


def quality(
    rgb: np.ndarray, mask: np.ndarray, tiles: pd.DataFrame, um_per_px: float,
    min_tissue: float = MIN_TISSUE, blur: float = BLUR,
) -> pd.DataFrame:  # fmt: skip
    """Tell which tiles show tissue, and show it in focus.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8.
    mask
        (h, w) bool, tissue.
    tiles
        See `grid`.
    um_per_px
        Micrometres per pixel.
    min_tissue
        Share of a tile, 0 to 1, that must be tissue.
    blur
        Share of the section's median focus, 0 to 1, under which a tile counts as blurred; 0: none does.

    Returns
    -------
    DataFrame
        `tiles` with ``tissue`` (share), ``blank``, ``focus`` (1: the section's median; NaN where it cannot be told),
        ``blurred`` (never where blank) and ``kept`` (neither).

    Notes
    -----
    Focus is the variance of the Laplacian over the tissue of a tile (Pech-Pacheco et al. 2000), at `FOCUS_UM` whatever
    the image's pixel size, divided by the variance of the intensities themselves, as pale tissue in focus is not
    blurred. It is judged against its own section, and not at all in images coarser than `FOCUS_LIMIT_UM`.
    """
    factor = max(1, round(FOCUS_UM / check_scale(um_per_px)))
    judged = um_per_px * factor <= FOCUS_LIMIT_UM
    tissue, focus = np.empty(len(tiles)), np.full(len(tiles), np.nan)
    # Tile by tile: the whole image's Laplacian in floating point would take several times the image's memory.
    for at, tile in enumerate(tiles[["y0", "y1", "x0", "x1"]].itertuples(index=False)):
        window = (slice(tile.y0, tile.y1), slice(tile.x0, tile.x1))
        tissue[at] = mask[window].mean()
        if judged and tissue[at] >= min_tissue:
            focus[at] = _focus(shrink(rgb[window], factor), shrink(mask[window], factor) > 127)
    blank = tissue < min_tissue
    median = np.nanmedian(focus) if np.isfinite(focus).any() else np.nan
    focus = focus / median if median > 0 else np.full(len(tiles), np.nan)
    blurred = ~blank & (focus < blur)
    return tiles.assign(tissue=tissue, blank=blank, focus=focus, blurred=blurred, kept=~blank & ~blurred)


def _focus(rgb: np.ndarray, mask: np.ndarray) -> float:
    """Return the variance of the Laplacian over that of the intensities, within the mask; NaN where little is left."""
    if min(mask.shape) < 3:
        return math.nan
    light = rgb.mean(axis=2, dtype=np.float32)
    middle = light[1:-1, 1:-1]
    laplacian = light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:] - 4 * middle
    inside = mask[1:-1, 1:-1]
    if np.count_nonzero(inside) < _FEW:
        return math.nan
    # One grey value squared: an even patch has nothing to be sharp.
    return float(laplacian[inside].var() / (middle[inside].var() + 1))


def rates(tiles: pd.DataFrame) -> dict[str, Any]:
    """Count the tiles of a section.

    Parameters
    ----------
    tiles
        See `quality`.

    Returns
    -------
    dict
        ``n_tiles``, ``n_kept``; ``blank_rate``, of all tiles; ``blurred_rate``, of those that are not blank, None
        where focus could not be told.
    """
    with_tissue = tiles[~tiles["blank"]]
    judged = with_tissue["focus"].notna()
    return {
        "n_tiles": len(tiles),
        "n_kept": int(tiles["kept"].sum()),
        "blank_rate": float(tiles["blank"].mean()),
        "blurred_rate": float(with_tissue["blurred"][judged].mean()) if judged.any() else None,
    }


# ----------------------------------------------------------------------------------------------------- contact sheet


def contact_sheet(
    rgb: np.ndarray, mask: np.ndarray, tiles: pd.DataFrame, um_per_px: float, title: str,
    stain: Stain, target: Stain = REFERENCE,
):  # fmt: skip
    """Show the section with its tiles, and examples of them before and after stain normalisation.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8.
    mask
        (h, w) bool, tissue.
    tiles
        See `quality`.
    um_per_px
        Micrometres per pixel.
    title
        Usually the sample.
    stain
        Of this section.
    target
        What the examples are normalised to.

    Returns
    -------
    matplotlib.figure.Figure
        For `histoweft.plotting.save`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fig = Figure(figsize=(13.5, 6.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(fig)
    axes = fig.subplot_mosaic([["section", "before"], ["section", "after"]], width_ratios=(1.0, 1.25))
    _draw_section(axes["section"], rgb, mask, tiles, um_per_px)
    chosen = _examples(tiles)
    before = [rgb[y0:y1, x0:x1] for y0, y1, x0, x1 in chosen]
    after = [normalise(picture, stain, target, mask[y0:y1, x0:x1]) for picture, (y0, y1, x0, x1) in zip(before, chosen)]
    side = um_per_px * int((tiles["x1"] - tiles["x0"]).iloc[0])
    _draw_sheet(axes["before"], before, f"{len(chosen)} of the tiles kept, {side:,.0f} µm wide: as scanned")
    _draw_sheet(axes["after"], after, "the same tiles after stain normalisation")
    fig.suptitle(f"{title}: {in_words(tiles)}", fontsize=12)
    return fig


def in_words(tiles: pd.DataFrame) -> str:
    """Say the rates of a section in one line; `tiles` as `quality` returns them."""
    found = rates(tiles)
    text = f"{found['n_kept']:,} of {found['n_tiles']:,} tiles kept, {found['blank_rate']:.0%} blank"
    if found["blurred_rate"] is None:
        return f"{text}, focus not judged (image too coarse)"
    return f"{text}, {found['blurred_rate']:.1%} of the rest blurred"


def _draw_section(ax: Any, rgb: np.ndarray, mask: np.ndarray, tiles: pd.DataFrame, um_per_px: float) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from histoweft.plotting import MAX_IMAGE_SIDE, scale_bar

    height, width = rgb.shape[:2]
    factor = math.ceil(max(height, width) / MAX_IMAGE_SIDE)
    extent = (0, width, height, 0)
    # The image steps back a little, so that the grid is seen on dark stain too.
    ax.imshow(shrink(rgb, factor), extent=extent, alpha=0.85, interpolation="antialiased")
    state = np.select([tiles["blank"], tiles["blurred"]], ["blank", "blurred"], "kept")
    fill = {"kept": 0.08, "blurred": 0.45, "blank": 0.0}
    handles = []
    for name, colour in _COLOURS.items():
        cells = _cells(tiles)[state == name]
        edge = {"edgecolor": (colour, 0.35 if name == "blank" else 0.9), "linewidth": 0.4 if name == "blank" else 0.7}
        ax.add_collection(PolyCollection(cells, facecolor=(colour, fill[name]), **edge), autolim=False)
        handles.append(Patch(facecolor=(colour, max(fill[name], 0.02)), edgecolor=colour, label=_count(name, cells)))
    small = shrink(mask, factor)
    if small.min() < small.max():
        ax.contour(small, [127.5], extent=(0, width, 0, height), colors=_OUTLINE, linewidths=1.1)
    handles.append(Line2D([], [], color=_OUTLINE, linewidth=1.5, label=f"tissue, {mask.mean():.0%} of the image"))
    ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.spines[:].set_visible(False)
    scale_bar(ax, um_per_px)
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=4, frameon=False, fontsize=9,
        handlelength=1.4, columnspacing=1.4,
    )  # fmt: skip


def _count(name: str, cells: np.ndarray) -> str:
    return f"{name} ({len(cells):,})"


def _cells(tiles: pd.DataFrame) -> np.ndarray:
    """Cut the overlaps, so that drawn squares do not hide each other; tiles x 4 corners x (x, y)."""
    sides = {}
    for axis, number in (("x", "col"), ("y", "row")):
        first, last = tiles[f"{axis}0"].to_numpy(float), tiles[f"{axis}1"].to_numpy(float)
        span = tiles.groupby(number)[[f"{axis}0", f"{axis}1"]].first().sort_index().to_numpy(float)
        cuts = np.concatenate([[span[0, 0]], (span[1:, 0] + span[:-1, 1]) / 2, [span[-1, 1]]])
        at = tiles[number].to_numpy() - tiles[number].min()
        sides[axis] = (np.maximum(first, cuts[at]), np.minimum(last, cuts[at + 1]))
    (left, right), (top, bottom) = sides["x"], sides["y"]
    return np.stack(
        [np.stack(xy, axis=1) for xy in ((left, top), (right, top), (right, bottom), (left, bottom))], axis=1
    )


def _examples(tiles: pd.DataFrame) -> list[tuple[int, int, int, int]]:
    """Choose kept tiles spread evenly over the section, those full of tissue before the others."""
    kept = tiles[tiles["kept"]]
    full = kept[kept["tissue"] >= 0.9]
    pool = full if len(full) >= EXAMPLES else kept
    at = np.unique(np.linspace(0, len(pool) - 1, EXAMPLES).round().astype(int)) if len(pool) else []
    return [tuple(box) for box in pool.iloc[at][["y0", "y1", "x0", "x1"]].to_numpy()]


def _draw_sheet(ax: Any, pictures: list[np.ndarray], title: str) -> None:
    """Paste pictures side by side into one image, white between them."""
    from PIL import Image

    ax.set_axis_off()
    if not pictures:
        ax.text(0.5, 0.5, "no tile is fit to be shown", ha="center", va="center", color="#666666")
        return
    ax.set_title(title, fontsize=10, loc="left")
    gap, pitch = _EXAMPLE_PX // 25, _EXAMPLE_PX + _EXAMPLE_PX // 25
    rows = math.ceil(len(pictures) / _SHEET_COLUMNS)
    sheet = np.full((rows * pitch - gap, min(len(pictures), _SHEET_COLUMNS) * pitch - gap, 3), 255, dtype=np.uint8)
    for at, picture in enumerate(pictures):
        y, x = (place * pitch for place in divmod(at, _SHEET_COLUMNS))
        ratio = _EXAMPLE_PX / max(picture.shape[:2])
        size = [max(1, round(side * ratio)) for side in picture.shape[1::-1]]
        small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
        sheet[y : y + size[1], x : x + size[0]] = small
    ax.imshow(sheet, interpolation="antialiased")
    ax.set_anchor("NW")
