"""What a pixel looks like and what lies around it: colour, texture and stain at many scales, as a pyramid of maps.

Each map is averaged onto a grid of a sixteenth of a spot's diameter, and from there onto coarser and coarser grids,
tissue only, so that a pixel's context reaches from a nucleus to the whole section at the cost of one small image.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from histoweft.errors import InputError
from histoweft.histology.stain import Stain, densities, optical_density

if TYPE_CHECKING:
    from histoweft.histology.encoders import Encoder

PER_SPOT = 16
"""Grid pixels across a spot's diameter, where the image is that fine."""

LEVELS = 8
"""Grids, each twice as coarse as the one before; the coarsest pixel is eight spots wide."""

POINTS = 24
"""Points that stand for the area of a spot's footprint."""

FINEST_TEXTURE_UM = 3.0
"""Textures are measured at this scale, twice and four times it; at the image's pixel where that is coarser."""

MOST_PIXELS = 12_000_000
"""Of the finest grid; the grid of a larger image is coarser, which keeps its features within 2 GB."""

CLIP = 8.0
"""Standard deviations that a feature may lie from its section's mean."""

_STRIP = 4_000_000
"""Image pixels worked on at a time."""
_REACH_UM = (300.0, 1000.0, 3000.0)
"""Distances from the tissue's edge up to which it is told apart."""

BASE = (
    "od_red", "od_green", "od_blue", "saturation", "haematoxylin", "eosin",
    *(f"{kind}_{scale}" for scale in (1, 2, 4) for kind in ("gradient", "dark_blob", "bright_blob")),
    "contrast", "nuclei",
)  # fmt: skip
"""The maps that every section has: optical densities, saturation, stain densities; at three scales the size of the
gradient and the two signs of the Laplacian (blobs darker and brighter than their surroundings); local contrast; share
of strongly haematoxylin-stained pixels."""


@dataclass(frozen=True)
class Level:
    """One grid of the pyramid.

    Attributes
    ----------
    maps
        channels x height x width, float16: averages over tissue around each grid pixel.
    tissue
        height x width, float32: share of tissue there.
    factor
        Working-image pixels per grid pixel.
    """

    maps: np.ndarray
    tissue: np.ndarray
    factor: int


@dataclass(frozen=True)
class Context:
    """The pyramid of one section.

    Attributes
    ----------
    levels
        From fine to coarse.
    edge
        Distance of each pixel of the finest grid to the tissue's edge, um; 0 off the tissue.
    um_per_px
        Of the working image.
    names
        Of the channels.
    """

    levels: Sequence[Level]
    edge: np.ndarray
    um_per_px: float
    names: tuple[str, ...]

    @property
    def grid_um(self) -> float:
        """Um per pixel of the finest grid."""
        return self.um_per_px * self.levels[0].factor

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the finest grid."""
        return self.edge.shape

    @property
    def features(self) -> list[str]:
        """Names of the features, in the order of `sample` and `window`."""
        per_level = [f"{name}@{2**k}" for k in range(len(self.levels)) for name in (*self.names, "tissue")]
        return [*per_level, "edge_log", *(f"edge_{reach:g}" for reach in _REACH_UM)]

    def sample(self, xy: np.ndarray) -> np.ndarray:
        """Read the features of points, by bilinear interpolation.

        Parameters
        ----------
        xy
            points x 2, x and y in pixels of the working image.

        Returns
        -------
        points x features, float32.
        """
        from scipy.ndimage import map_coordinates

        def read(image: np.ndarray, factor: int) -> np.ndarray:
            at = (xy[:, ::-1].T + 0.5) / factor - 0.5
            return map_coordinates(np.asarray(image, dtype=np.float32), at, order=1, mode="nearest")

        columns = [read(image, level.factor) for level in self.levels for image in (*level.maps, level.tissue)]
        return np.stack(columns + _edge_features(read(self.edge, self.levels[0].factor)), axis=1)

    def window(self, rows: slice, cols: slice) -> np.ndarray:
        """Read the features of a window of the finest grid.

        Parameters
        ----------
        rows, cols
            Of the finest grid.

        Returns
        -------
        features x height x width, float32: what `sample` gives at the centres of these pixels.
        """
        finest = self.levels[0].factor
        parts = []
        for level in self.levels:
            step = level.factor // finest
            at = [_interpolation(where, step, size) for where, size in zip((rows, cols), level.tissue.shape)]
            (low_y, along_y), (low_x, along_x) = at
            box = (slice(low_y, low_y + along_y.shape[1]), slice(low_x, low_x + along_x.shape[1]))
            maps = np.concatenate([level.maps[(slice(None), *box)], level.tissue[box][None]]).astype(np.float32)
            parts.append(along_y @ maps @ along_x.T)
        edge = np.asarray(self.edge[rows, cols], dtype=np.float32)
        return np.concatenate([*parts, np.stack(_edge_features(edge))])


def _edge_features(edge: np.ndarray) -> list[np.ndarray]:
    return [np.log1p(edge / 100), *(np.minimum(edge, reach) / reach for reach in _REACH_UM)]


def _interpolation(where: slice, step: int, size: int) -> tuple[int, np.ndarray]:
    """Return the first coarse pixel needed and the weights, fine x coarse, of linear interpolation between them."""
    at = np.clip((np.arange(where.start, where.stop) + 0.5) / step - 0.5, 0, size - 1)
    low = np.minimum(at.astype(int), max(size - 2, 0))
    share = (at - low).astype(np.float32)
    first = int(low.min())
    weights = np.zeros((len(at), min(int(low.max()) + 2, size) - first), dtype=np.float32)
    weights[np.arange(len(at)), low - first] = 1 - share
    if size > 1:
        weights[np.arange(len(at)), low - first + 1] += share
    return first, weights


def grid_factor(shape: tuple[int, ...], um_per_px: float, spot_um: float) -> int:
    """Return the working-image pixels that make one pixel of the finest grid.

    Parameters
    ----------
    shape
        Height and width of the working image.
    um_per_px
        Of it.
    spot_um
        Diameter of a spot or side of a bin, um.
    """
    wanted = max(1, round(spot_um / PER_SPOT / um_per_px))
    return max(wanted, math.ceil(math.sqrt(shape[0] * shape[1] / MOST_PIXELS)))


def build(
    rgb: np.ndarray,
    um_per_px: float,
    mask: np.ndarray,
    stain: Stain,
    spot_um: float,
    *,
    levels: int = LEVELS,
    encoder: Encoder | None = None,
) -> Context:
    """Build the pyramid of one section.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8, working image.
    um_per_px
        Of it.
    mask
        (h, w) bool, tissue.
    stain
        Of this section.
    spot_um
        Diameter of a spot or side of a bin, um.
    levels
        Number of grids.
    encoder
        Gives further dense maps.

    Returns
    -------
    Context

    Raises
    ------
    InputError
        No tissue on the image.

    Notes
    -----
    Maps are standardised over the section's tissue, which removes what differs between stainings and scanners. A
    coarser grid is the mean over the tissue pixels of 2 x 2 finer ones; a map is smoothed by one pixel of its grid
    (normalised convolution; Knutsson and Westin 1993), so that context stops at the tissue's edge.
    """
    if not mask.any():
        raise InputError.one("tissue mask", "no tissue", "at least some", "Look at the sample's contact sheet.")
    factor = grid_factor(rgb.shape, um_per_px, spot_um)
    maps = _base_maps(rgb, um_per_px, mask, stain, factor)
    if encoder is not None:
        maps = np.concatenate([maps, _encoded(rgb, mask, factor, encoder)])
    tissue = mean_over(mask, factor)
    _standardise(maps, tissue)
    edge = _edge_um(tissue, um_per_px * factor)
    found = list(_levels(maps, tissue, factor, levels))
    return Context(found, edge, um_per_px, (*BASE, *(encoder.names if encoder is not None else ())))


def _base_maps(rgb: np.ndarray, um_per_px: float, mask: np.ndarray, stain: Stain, factor: int) -> np.ndarray:
    """Compute the maps strip by strip, with a margin for the filters, and average them onto the finest grid."""
    sigma = max(FINEST_TEXTURE_UM / um_per_px, 1.0)
    # Gaussian filters reach four sigma.
    margin = math.ceil(4 * sigma * 4 + 1)
    maps = np.empty((len(BASE), *(size // factor for size in rgb.shape[:2])), dtype=np.float32)
    for strip, inner, to in _strips(rgb.shape, factor, margin):
        for channel, image in enumerate(_channels(np.ascontiguousarray(rgb[strip]), mask[strip], stain, sigma)):
            maps[channel, to] = mean_over(image[inner], factor)
    return maps


def _encoded(rgb: np.ndarray, mask: np.ndarray, factor: int, encoder: Encoder) -> np.ndarray:
    maps = np.empty((len(encoder.names), *(size // factor for size in rgb.shape[:2])), dtype=np.float32)
    for strip, inner, to in _strips(rgb.shape, factor, encoder.margin):
        found = encoder.encode(np.ascontiguousarray(rgb[strip]), strip.start, mask[strip])
        maps[:, to] = mean_over(found[:, inner], factor)
    return maps


def _strips(shape: tuple[int, ...], factor: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield the rows of the image to read, those of them that count, and the rows of the grid that they make."""
    end = shape[0] // factor * factor
    rows = max(1, _STRIP // (shape[1] * factor)) * factor
    for start in range(0, end, rows):
        stop = min(start + rows, end)
        top, bottom = max(0, start - margin), min(shape[0], stop + margin)
        yield slice(top, bottom), slice(start - top, stop - top), slice(start // factor, stop // factor)


def _channels(rgb: np.ndarray, mask: np.ndarray, stain: Stain, sigma: float) -> Iterator[np.ndarray]:
    """Yield the maps of `BASE` for a strip; `sigma` is the finest texture, px."""
    from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude, gaussian_laplace

    density = optical_density(rgb, stain.background).astype(np.float32)
    yield from np.moveaxis(density, -1, 0)
    highest, lowest = rgb.max(axis=2).astype(np.float32), rgb.min(axis=2)
    yield (highest - lowest) / 255
    haematoxylin, eosin = np.moveaxis(densities(rgb, stain, mask), -1, 0)
    yield haematoxylin
    yield eosin
    grey = density.mean(axis=-1)
    for scale in (1, 2, 4):
        yield np.log(gaussian_gradient_magnitude(grey, sigma * scale) + 1e-3)
        blob = gaussian_laplace(grey, sigma * scale) * (sigma * scale) ** 2
        yield np.maximum(-blob, 0)
        yield np.maximum(blob, 0)
    mean = gaussian_filter(grey, 3 * sigma)
    yield np.sqrt(np.maximum(gaussian_filter(grey**2, 3 * sigma) - mean**2, 0))
    yield (haematoxylin > 0.6).astype(np.float32)


def mean_over(image: np.ndarray, factor: int) -> np.ndarray:
    """Average blocks of factor x factor pixels of the last two axes; what is left at the end is dropped."""
    height, width = (size // factor for size in image.shape[-2:])
    found = np.empty((*image.shape[:-2], height, width), dtype=np.float32)
    # A band at a time: to reshape is to copy where an image is not contiguous.
    rows = max(1, _STRIP // max(1, width * factor**2))
    for start in range(0, height, rows):
        band = image[..., start * factor : min(start + rows, height) * factor, : width * factor]
        blocks = band.reshape(*image.shape[:-2], -1, factor, width, factor)
        blocks.mean(axis=(-3, -1), dtype=np.float32, out=found[..., start : start + rows, :])
    return found


def _standardise(maps: np.ndarray, tissue: np.ndarray) -> None:
    """Give each map mean 0 and spread 1 over the tissue, and 0 off it; in place."""
    inside = tissue > 0.5
    inside = inside if inside.any() else tissue > 0
    for image in maps:
        values = image[inside]
        image -= values.mean()
        image /= values.std() + 1e-6
        np.clip(image, -6, 6, out=image)
        image *= tissue


def _edge_um(tissue: np.ndarray, grid_um: float) -> np.ndarray:
    """Return the distance of each grid pixel to the tissue's edge, um; far inside where no edge is on the image."""
    from scipy.ndimage import distance_transform_edt

    inside = tissue > 0.5
    if inside.all():
        return np.full(tissue.shape, max(_REACH_UM), dtype=np.float32)
    return (distance_transform_edt(inside) * grid_um).astype(np.float32)


def _levels(maps: np.ndarray, tissue: np.ndarray, factor: int, n: int) -> Iterator[Level]:
    """Yield the grids from fine to coarse; `maps` are already multiplied by `tissue`."""
    from scipy.ndimage import gaussian_filter

    for number in range(n):
        if number:
            maps, tissue = _halve(maps), _halve(tissue)
        around = gaussian_filter(tissue, 1.0, mode="constant")
        smooth = np.empty(maps.shape, dtype=np.float16)
        for channel, image in enumerate(maps):
            smooth[channel] = gaussian_filter(image, 1.0, mode="constant") / np.maximum(around, 1e-3)
        yield Level(smooth, around, factor * 2**number)


def _halve(maps: np.ndarray) -> np.ndarray:
    odd = [(0, 0)] * (maps.ndim - 2) + [(0, size % 2) for size in maps.shape[-2:]]
    return mean_over(np.pad(maps, odd), 2)


def save(context: Context, path: str | os.PathLike) -> None:
    """Write a pyramid as a folder of arrays that can be read piece by piece."""
    path = Path(path)
    path.mkdir(parents=True)
    for number, level in enumerate(context.levels):
        np.save(path / f"maps_{number}.npy", level.maps)
        np.save(path / f"tissue_{number}.npy", level.tissue)
    np.save(path / "edge.npy", context.edge)
    facts = {
        "um_per_px": context.um_per_px,
        "names": list(context.names),
        "factors": [level.factor for level in context.levels],
    }
    (path / "context.json").write_text(json.dumps(facts), encoding="utf-8")


def load(path: str | os.PathLike) -> Context:
    """Open a pyramid written by `save`; its arrays stay on disk until they are read.

    Raises
    ------
    InputError
        The folder is not one.
    """
    path = Path(path)
    try:
        facts = json.loads((path / "context.json").read_text(encoding="utf-8"))
        levels = [
            Level(
                np.load(path / f"maps_{i}.npy", mmap_mode="r", allow_pickle=False),
                np.load(path / f"tissue_{i}.npy", allow_pickle=False),
                factor,
            )
            for i, factor in enumerate(facts["factors"])
        ]
        edge = np.load(path / "edge.npy", mmap_mode="r", allow_pickle=False)
        return Context(levels, edge, facts["um_per_px"], tuple(facts["names"]))
    except (OSError, EOFError, ValueError, KeyError) as error:
        hint = "Delete the folder and run again: Snakemake makes it anew."
        raise InputError.one(path, error, "the image features of a sample", hint) from error


def footprints(xy: np.ndarray, size: float, square: bool = False, points: int = POINTS) -> np.ndarray:
    """Lay points over the footprint of each spot, evenly by area.

    Parameters
    ----------
    xy
        spots x 2, x and y of the centres in pixels.
    size
        Diameter of a disc or side of a square, px.
    square
        Bins are squares, spots are discs.
    points
        Number of points; for squares the nearest square number.

    Returns
    -------
    spots x points x 2.

    Notes
    -----
    Discs: a sunflower spiral (Vogel 1979), whose points stand for equal areas; the mean over them is the mean over the
    footprint.
    """
    if square:
        side = round(math.sqrt(points))
        line = ((np.arange(side) + 0.5) / side - 0.5) * size
        offsets = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    else:
        number = np.arange(points)
        radius, angle = np.sqrt((number + 0.5) / points) * size / 2, number * math.pi * (3 - math.sqrt(5))
        offsets = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return xy[:, None, :] + offsets[None]
