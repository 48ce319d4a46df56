"""Where on the image there is tissue, and how far each place is from its edge."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np

from histoweft.errors import InputError
from histoweft.histology.stain import BLACK, GREY, optical_density, white_point

COARSE_UM = 10.0
"""Micrometres per pixel at which tissue is looked for; finer images are shrunk to about this."""

SMOOTH_UM = 20.0
"""Standard deviation of the blur that joins nuclei to tissue and rounds the outline."""

HOLE_UM = 120.0
"""Diameter of a disc; holes of a smaller area are filled."""

SPECK_UM = 200.0
"""Diameter of a disc; pieces of a smaller area are dropped, unless a spot lies on them."""

OPTICAL_DENSITY = (0.05, 0.09)
"""Range the threshold is kept to: below it is tinted glass, above it is stained, whatever Otsu's method says."""

SPOTS_OUTSIDE = 0.25
"""Above this share of spots off the tissue a warning is given."""

_STRIP = 4_000_000
_SPOT_PIXELS = 4_000_000


@dataclass(frozen=True, eq=False)
class Tissue:
    """What was found on an image.

    Attributes
    ----------
    mask
        (h, w) bool.
    spots_outside
        Share of the spots whose centre the image alone would not call tissue; NaN without spots.
    threshold
        Difference between the channels, in optical density, above which a pixel counts as stained.
    """

    mask: np.ndarray
    spots_outside: float
    threshold: float

    @property
    def warnings(self) -> list[str]:
        """What a user should look into."""
        if not self.spots_outside > SPOTS_OUTSIDE:
            return []
        return [f"tissue: {self.spots_outside:.0%} of the spots lie off the tissue; do image and positions fit?"]


def shrink(array: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of pixels, strip by strip.

    Parameters
    ----------
    array
        (h, w) or (h, w, 3), uint8 or bool; True counts as 255.
    factor
        Side of a block in pixels; the last block of a row or column may be smaller.

    Returns
    -------
    array
        uint8, sides ``ceil(h / factor)`` and ``ceil(w / factor)``.
    """
    from PIL import Image

    rows = factor * max(1, _STRIP // (factor * array.shape[1]))
    parts = []
    for start in range(0, len(array), rows):
        strip = array[start : start + rows]
        strip = strip.astype(np.uint8) * 255 if strip.dtype == bool else strip
        image = Image.fromarray(np.ascontiguousarray(strip))
        parts.append(np.asarray(image.reduce(factor) if factor > 1 else image))
    return np.concatenate(parts)


def check_scale(um_per_px: float) -> float:
    """Return the pixel size if it is one.

    Raises
    ------
    InputError
        It is unknown, or not a positive number.
    """
    if not (math.isfinite(um_per_px) and um_per_px > 0):
        hint = "Give the micrometres per pixel in column mpp of the sample sheet; sizes on tissue are in micrometres."
        raise InputError.one("image: um per pixel", um_per_px, "a positive number", hint)
    return float(um_per_px)


def find_tissue(
    rgb: np.ndarray, um_per_px: float, spots_px: np.ndarray | None = None, spot_px: float | None = None
) -> Tissue:
    """Tell tissue from glass, black surroundings, shadows, bubbles, fiducials and whatever else lies on a slide.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8.
    um_per_px
        Micrometres per pixel.
    spots_px
        n x 2, x and y of the spots' centres in pixels of `rgb`. Pieces that hold no spot are then dropped.
    spot_px
        Diameter of a spot in pixels of `rgb`. Its disc always counts as tissue; where the diameter is unknown
        (None, NaN), the pixel under its centre does.

    Returns
    -------
    Tissue
        Mask and what goes with it.

    Raises
    ------
    InputError
        The pixel size is unknown, nothing on the image is tissue, or no spot lies on the image.

    Notes
    -----
    Stain takes some colours more than others, shadow takes all alike: a pixel is stained when its optical densities
    differ between the channels by more than a threshold (Otsu 1979, kept within `OPTICAL_DENSITY`). Where the image
    has no colour, the mean density takes the place of the difference.
    """
    factor = max(1, round(COARSE_UM / check_scale(um_per_px)))
    um = um_per_px * factor
    small = shrink(rgb, factor)
    spots = np.empty((0, 2)) if spots_px is None else _on_image(spots_px, rgb.shape)
    diameter = spot_px if spot_px and math.isfinite(spot_px) else 0.0
    stained, threshold = _stained(small, SMOOTH_UM / um)
    discs = np.zeros(small.shape[:2], dtype=bool)
    outside = math.nan
    if len(spots):
        draw_discs(discs, spots / factor, diameter / factor)
        stained = _with_spots(_fill_holes(stained, um), discs)
        column, row = (spots / factor).astype(np.int64).T
        outside = 1 - np.count_nonzero(stained[row, column]) / len(spots_px)
    stained = _without_specks(_fill_holes(stained | discs, um), um, keep=discs)
    if not stained.any():
        hint = "Is it an H&E section in colour? Is the right image given in the sample sheet?"
        raise InputError.one("image", "no tissue on it", "a stained section on a clear or black background", hint)
    mask = _enlarged(_smooth(stained, SMOOTH_UM / um / 2), rgb.shape[:2], factor)
    draw_discs(mask, spots, diameter)
    return Tissue(mask, outside, threshold)


def tissue_mask(
    rgb: np.ndarray, um_per_px: float, spots_px: np.ndarray | None = None, spot_px: float | None = None
) -> np.ndarray:
    """Return only the mask of `find_tissue`; (h, w) bool."""
    return find_tissue(rgb, um_per_px, spots_px, spot_px).mask


def _on_image(spots_px: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the spots whose centre lies on the image, or say that none does."""
    spots = np.asarray(spots_px, dtype=np.float64)[:, :2]
    there = ((spots >= 0) & (spots < (shape[1], shape[0]))).all(axis=1)
    if len(spots) and not there.any():
        hint = "Are image and positions of the same section, and is the image's scale right?"
        expected = f"positions within {shape[1]} x {shape[0]} pixels"
        raise InputError.one("positions", f"none of {len(spots):,} spots on the image", expected, hint)
    return spots[there]


def _stained(rgb: np.ndarray, sigma: float) -> tuple[np.ndarray, float]:
    """Return which pixels of a coarse image are stained, and the threshold."""
    from scipy.ndimage import gaussian_filter

    there = rgb.max(axis=2) >= BLACK
    density = optical_density(rgb, white_point(rgb.reshape(-1, 3)))
    colour = np.ptp(density, axis=2)
    if there.any() and np.quantile(colour[there], 0.99) < GREY:
        colour = density.mean(axis=2)
    colour = gaussian_filter(np.where(there, colour, 0), sigma)
    # Beyond the cut everything is stained; a few deeply stained pieces would else drag the threshold up.
    values = np.minimum(colour[there], 0.5)
    threshold = float(np.clip(otsu(values), *OPTICAL_DENSITY)) if len(values) else OPTICAL_DENSITY[1]
    return (colour > threshold) & there, threshold


def otsu(values: np.ndarray, bins: int = 256) -> float:
    """Return the threshold that separates values into two classes best (Otsu 1979); n numbers, n at least 1."""
    counts, edges = np.histogram(values, bins)
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[::-1][1:]
    sums = np.cumsum(counts * middles)
    lower, upper = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below.astype(float) * above * (lower - upper) ** 2
    # Empty bins between two classes all separate them equally well: take the middle one.
    best = np.flatnonzero(between == between.max())
    return float(edges[1:][best[len(best) // 2]])


def _area(diameter_um: float, um: float) -> float:
    """Area of a disc in pixels of `um` micrometres."""
    return math.pi * (diameter_um / 2 / um) ** 2


def _fill_holes(mask: np.ndarray, um: float) -> np.ndarray:
    """Fill holes smaller than a disc of `HOLE_UM`; what touches the image's border is no hole."""
    from scipy.ndimage import label

    holes, n = label(~mask)
    size = np.bincount(holes.ravel(), minlength=n + 1)
    border = np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    fill = size < _area(HOLE_UM, um)
    fill[border] = False
    return mask | fill[holes]


def _with_spots(mask: np.ndarray, discs: np.ndarray) -> np.ndarray:
    """Keep the pieces that touch a spot; (h, w) bool both."""
    from scipy.ndimage import label

    pieces, n = label(mask)
    keep = np.zeros(n + 1, dtype=bool)
    keep[pieces[discs & mask]] = True
    return keep[pieces]


def _without_specks(mask: np.ndarray, um: float, keep: np.ndarray) -> np.ndarray:
    """Drop pieces smaller than a disc of `SPECK_UM` that do not touch `keep`."""
    from scipy.ndimage import label

    pieces, n = label(mask)
    large = np.bincount(pieces.ravel(), minlength=n + 1) >= _area(SPECK_UM, um)
    large[pieces[keep & mask]] = True
    large[0] = False
    return large[pieces]


def _smooth(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Return how much of each pixel's surroundings is tissue, 0 to 1; half is the new outline."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(mask.astype(np.float32), sigma, mode="nearest")


def _enlarged(share: np.ndarray, shape: tuple[int, int], factor: int) -> np.ndarray:
    """Enlarge a coarse map bilinearly and cut it at a half; strip by strip."""

    def between(length: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.clip((np.arange(length) + 0.5) / factor - 0.5, 0, n - 1).astype(np.float32)
        low = at.astype(np.int64)
        return low, np.minimum(low + 1, n - 1), at - low

    mask = np.empty(shape, dtype=bool)
    left, right, x = between(shape[1], share.shape[1])
    top, bottom, y = between(shape[0], share.shape[0])
    rows = max(1, _STRIP // shape[1])
    for start in range(0, shape[0], rows):
        part = slice(start, start + rows)
        weight = y[part, None]
        lines = share[top[part]] * (1 - weight) + share[bottom[part]] * weight
        mask[part] = lines[:, left] * (1 - x) + lines[:, right] * x >= 0.5
    return mask


def draw_discs(mask: np.ndarray, centres: np.ndarray, diameter: float) -> None:
    """Add a disc for every spot to a mask, in place.

    Parameters
    ----------
    mask
        (h, w) bool.
    centres
        n x 2, x and y in pixels; a pixel's centre is half a pixel from its corner.
    diameter
        In pixels. The pixel under the centre is always part of the disc.
    """
    height, width = mask.shape
    radius = diameter / 2
    reach = math.ceil(radius)
    steps = np.arange(-reach, reach + 1)
    dy, dx = (grid.ravel() for grid in np.meshgrid(steps, steps, indexing="ij"))
    some = max(1, _SPOT_PIXELS // len(dx))
    for start in range(0, len(centres), some):
        x, y = np.asarray(centres[start : start + some], dtype=np.float64).T[:, :, None]
        column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        inside = (column + dx + 0.5 - x) ** 2 + (row + dy + 0.5 - y) ** 2 <= radius**2
        inside |= (dx == 0) & (dy == 0)
        row, column = (row + dy)[inside], (column + dx)[inside]
        there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        mask[row[there], column[there]] = True


def edge_distance(mask: np.ndarray, um_per_px: float) -> np.ndarray:
    """Return how far each pixel is from the edge of the tissue.

    Parameters
    ----------
    mask
        (h, w) bool. Takes some 30 bytes a pixel: shrink a large mask first.
    um_per_px
        Micrometres per pixel.

    Returns
    -------
    array
        (h, w) float32, micrometres from a pixel's centre to the outline: positive inside, negative outside. The
        image's border is no edge, unless tissue fills the whole image.

    Raises
    ------
    ValueError
        The mask is empty.
    """
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        raise ValueError("no tissue: there is no edge to measure from")
    if mask.all():
        inside = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        return ((inside - 0.5) * um_per_px).astype(np.float32)
    signed = distance_transform_edt(mask).astype(np.float32)
    signed[mask] -= 0.5
    signed -= np.maximum(distance_transform_edt(~mask).astype(np.float32) - 0.5, 0)
    return signed * np.float32(um_per_px)


def write_mask(path: str | os.PathLike, mask: np.ndarray, um_per_px: float) -> None:
    """Write a mask, eight pixels a byte, with its pixel size."""
    from histoweft.io import atomic

    with atomic(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, mask=np.packbits(mask, axis=1), shape=mask.shape, um_per_px=float(um_per_px))


def read_mask(path: str | os.PathLike) -> tuple[np.ndarray, float]:
    """Read what `write_mask` wrote: the mask, (h, w) bool, and its micrometres per pixel.

    Raises
    ------
    InputError
        The file is no mask.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            width = int(file["shape"][1])
            return np.unpackbits(file["mask"], axis=1, count=width).view(bool), float(file["um_per_px"])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, IndexError) as error:
        hint = "Delete it and run again."
        raise InputError.one(path, f"no tissue mask ({error})", "a mask written by the tile rule", hint) from error
