"""Painted expression maps: a model run window by window over a section, kept as a multiscale image of genes.

One store is two things at once: a SpatialData object (``spatialdata.read_zarr``) and, in ``images/expression``, an
OME-Zarr 0.5 image that napari and other viewers open. It is written with zarr alone.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from histoweft.errors import Faults, HistoweftError, InputError, nearest

CHUNK = 512
"""Side of a chunk, in pixels; a chunk holds one gene."""

FLOAT16_MAX = float(np.finfo(np.float16).max)

COORDINATES = "global"
"""SpatialData's name for the micrometre frame of the section."""

_IMAGE, _TISSUE, _HE = "images/expression", "labels/tissue", "images/he"
_TILE = 2 * CHUNK
_SAMPLES = 50_000
_VISIBLE = 3
# Additive colours, bright on black: the first ones share as little as they can, so that overlaps show.
_CHANNEL_COLOURS = ("FF3BA7", "3BFF6B", "4D7CFF", "FFD23B", "FF6A3B", "B07CFF", "FFFFFF", "3BFFE0")

# What spatialdata 0.7 reads: its container 0.2 with rasters 0.3, which are OME-Zarr 0.5 with named coordinate systems.
_CONTAINER = {"version": "0.2", "spatialdata_software_version": "0.7.3"}
_RASTER = {"version": "0.3"}
_NGFF_VERSION = "0.5-dev-spatialdata"

_log = logging.getLogger("histoweft")

Predict = Callable[[slice, slice], np.ndarray]


@dataclass(frozen=True)
class _Grid:
    """Pixels of a map, where they lie, and the levels below."""

    shape: tuple[int, int]
    um_per_px: float
    origin_um: tuple[float, float]
    levels: int

    def at(self, level: int) -> tuple[int, int]:
        return tuple(-(-side // 2**level) for side in self.shape)


def default_levels(shape: tuple[int, int]) -> int:
    """Return how many levels, each half the last, bring a (height, width) map down to a single chunk."""
    return 1 + max(0, math.ceil(math.log2(max(shape) / CHUNK)))


# ------------------------------------------------------------------------------------------------------------ painting


def paint(
    path: str | os.PathLike,
    predict: Predict,
    *,
    genes: Sequence[str],
    shape: tuple[int, int],
    um_per_px: float,
    origin_um: tuple[float, float] = (0.0, 0.0),
    window: int = CHUNK,
    overlap: int = 0,
    mask: Any = None,
    he: Any = None,
    levels: int | None = None,
    attributes: dict[str, Any] | None = None,
) -> None:
    """Run a model over a section window by window and write the maps.

    Memory holds one window of all genes, the `overlap` rows below it over the whole width, and a sample of pixels for
    the contrast limits; it does not grow with the height. Where windows overlap, their values are averaged with
    raised-cosine weights that sum to one, so that no seam shows. Windows without tissue are never predicted.

    Parameters
    ----------
    path
        Directory store to write; what is there is replaced. Stage it: a run that dies leaves half a store.
    predict
        ``predict(rows, cols)`` returns the expression in these pixels, float (genes, rows, cols).
    genes
        Their names, no two alike.
    shape
        Height and width of the map, pixels.
    um_per_px
        Side of a pixel in micrometres.
    origin_um
        x and y of the map's upper left corner in the section's micrometres.
    window
        Step from one window to the next, pixels: at most `CHUNK`, or a multiple of it.
    overlap
        Pixels that neighbouring windows share, at most `window`; `predict` is asked for up to ``window + overlap`` a
        side. 0 for no blending.
    mask
        (height, width) bool, True on tissue; elsewhere the map is 0. Anything that is sliced like an array. Written as
        ``labels/tissue``.
    he
        (height, width, 3) uint8, the H&E in the pixels of the map, written as ``images/he``; sliced likewise.
    levels
        Levels of the pyramid, the full one included; by default `default_levels`.
    attributes
        What else to keep in the store (JSON), under ``histoweft`` in its root attributes.

    Raises
    ------
    InputError
        The options do not go together.
    HistoweftError
        The model returned another shape or values that are not finite, or the store that was written is not whole.

    Notes
    -----
    Lower levels are 2 x 2 means over the tissue pixels among the four; a coarse pixel is tissue when at least two of
    its four are, so that the border neither darkens nor grows.
    """
    genes = [str(gene) for gene in genes]
    _check_options(genes, shape, um_per_px, window, overlap, mask, he, levels)
    grid = _Grid(
        tuple(map(int, shape)), float(um_per_px), tuple(map(float, origin_um)), levels or default_levels(shape)
    )
    root = _start(path, genes, grid, attributes or {})
    if mask is not None:
        tissue = _pyramid(root, _TISSUE, grid, None, np.uint8, min(window, CHUNK))
        _fill(tissue[0], lambda rows, cols: np.asarray(mask[rows, cols]) != 0)
        _reduce_mask(tissue)
    if he is not None:
        picture = _pyramid(root, _HE, grid, 3, np.uint8, min(window, CHUNK))
        _fill(picture[0], lambda rows, cols: np.moveaxis(np.asarray(he[rows, cols]), -1, 0))
        _reduce_image(picture, None)
        _describe(root, _HE, grid, _rgb_channels())
    maps = _pyramid(root, _IMAGE, grid, len(genes), np.float16, min(window, CHUNK))
    windows = _paint_windows(maps[0], _guarded(predict, genes, mask), mask, window, overlap, genes)
    _describe(root, _IMAGE, grid, _gene_channels(genes, windows))
    _reduce_image(maps, tissue if mask is not None else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr warns that consolidated metadata is not in its specification yet
        _zarr().consolidate_metadata(root.store)
    check_store(path, shape=grid.shape, genes=genes, levels=grid.levels)


def _zarr() -> Any:
    import zarr

    return zarr


def _check_options(genes, shape, um_per_px, window, overlap, mask, he, levels) -> None:
    faults = Faults()
    if not genes:
        faults.add("paint: genes", "no gene", "at least one")
    if len(set(genes)) < len(genes):
        twice = next(gene for gene in genes if genes.count(gene) > 1)
        faults.add("paint: genes", f"{twice!r} more than once", "names that differ")
    if len(shape) != 2 or min(shape) < 1:
        faults.add("paint: shape", shape, "a height and a width of at least 1 pixel")
    if not (math.isfinite(um_per_px) and um_per_px > 0):
        faults.add("paint: um_per_px", um_per_px, "a positive number of micrometres")
    if window < 1 or (window > CHUNK and window % CHUNK):
        faults.add("paint: window", window, f"1 to {CHUNK} pixels, or a multiple of {CHUNK}")
    if not 0 <= overlap <= window:
        faults.add("paint: overlap", overlap, f"0 to the window's {window} pixels")
    if mask is not None and tuple(mask.shape) != tuple(shape):
        faults.add("paint: mask", f"shape {tuple(mask.shape)}", f"the map's {tuple(shape)}")
    if he is not None and tuple(he.shape) != (*shape, 3):
        faults.add("paint: he", f"shape {tuple(he.shape)}", f"the map's {(*shape, 3)}")
    if levels is not None and levels < 1:
        faults.add("paint: levels", levels, "at least 1")
    faults.raise_if_any()


def _guarded(predict: Predict, genes: list[str], mask: Any) -> Predict:
    """Wrap a model so that what it returns has the right shape, is finite on the tissue and 0 off it."""

    def checked(rows: slice, cols: slice) -> np.ndarray:
        expected = (len(genes), rows.stop - rows.start, cols.stop - cols.start)
        block = np.array(predict(rows, cols), dtype=np.float32)
        if block.shape != expected:
            raise HistoweftError(f"painting: the model returned {block.shape} where {expected} was asked for")
        if mask is not None:
            block[:, ~(np.asarray(mask[rows, cols]) != 0)] = 0
        if not np.isfinite(block).all():
            gene, row, column = np.argwhere(~np.isfinite(block))[0]
            raise HistoweftError(
                f"painting: the model gave {block[gene, row, column]} for gene {genes[gene]} at pixel row "
                f"{rows.start + row}, column {cols.start + column}; look at the features there (blank or cut-off "
                "image?) and at the training log (a loss that is not finite?)."
            )
        return block

    return checked


def _paint_windows(array, predict: Predict, mask, window: int, overlap: int, genes: list[str]) -> np.ndarray:
    """Fill the finest level; return a sample of its tissue pixels, genes x pixels.

    A window reaches `overlap` pixels into its right and lower neighbours. Its right margin is kept for the next window,
    its lower margin for the next row of windows: what is written is finished, and lies on whole chunks.
    """
    n_genes, height, width = array.shape
    below = np.zeros((n_genes, overlap, width), dtype=np.float32) if overlap else None
    every = max(1, math.ceil(math.sqrt(height * width / _SAMPLES)))
    samples, clipped, starts = [], np.zeros(n_genes, dtype=bool), range(0, height, window)
    for n_done, top in enumerate(starts):
        rows = slice(top, min(top + window + overlap, height))
        right = None
        for left in range(0, width, window):
            cols = slice(left, min(left + window + overlap, width))
            block = _weighted(predict, mask, rows, cols, window, overlap, n_genes)
            if overlap:
                block, right = _merge(block, right, below, left, window, overlap)
            area = slice(top, top + block.shape[1]), slice(left, left + block.shape[2])
            clipped |= (np.abs(block) > FLOAT16_MAX).any(axis=(1, 2))
            block = np.clip(block, -FLOAT16_MAX, FLOAT16_MAX).astype(np.float16)
            array[:, area[0], area[1]] = block
            samples.append(_sample(block, mask, area, every))
        _progress(n_done + 1, len(starts))
    if clipped.any():
        names = ", ".join(np.array(genes)[clipped][:5])
        _log.warning("painted values beyond %g were cut to it (float16): %s", FLOAT16_MAX, names)
    return np.concatenate(samples, axis=1)


def _weighted(predict, mask, rows: slice, cols: slice, window: int, overlap: int, n_genes: int) -> np.ndarray:
    size = rows.stop - rows.start, cols.stop - cols.start
    if mask is not None and not np.any(mask[rows, cols]):
        return np.zeros((n_genes, *size), dtype=np.float32)
    block = predict(rows, cols)
    if overlap:
        block *= _ramp(size[0], rows.start == 0, window, overlap)[:, None]
        block *= _ramp(size[1], cols.start == 0, window, overlap)
    return block


def _ramp(size: int, first: bool, window: int, overlap: int) -> np.ndarray:
    """Weights of a window along one axis: rising where it overlaps the one before, falling where the next begins."""
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(overlap) + 0.5) / overlap)
    weights = np.ones(window + overlap, dtype=np.float32)
    if not first:
        weights[:overlap] *= rise
    weights[window:] *= 1 - rise
    return weights[:size]


def _merge(block, right, below, left: int, window: int, overlap: int) -> tuple[np.ndarray, np.ndarray]:
    """Add the margins of the windows before; return the finished part and the margin for the window to the right."""
    if right is not None:
        block[:, :, : right.shape[2]] += right
    margin = block[:, :, window:].copy()
    block = block[:, :, :window]
    above = below[:, :, left : left + block.shape[2]]
    shared = min(overlap, block.shape[1])
    block[:, :shared] += above[:, :shared]
    carried = block[:, window:]
    above[:, : carried.shape[1]] = carried
    return block[:, :window], margin


def _sample(block: np.ndarray, mask, area: tuple[slice, slice], every: int) -> np.ndarray:
    """Take the pixels of a block that lie on a coarse grid over the whole map, tissue only."""
    first = [-one.start % every for one in area]
    taken = block[:, first[0] :: every, first[1] :: every]
    if mask is None:
        return taken.reshape(len(block), -1)
    on_tissue = np.asarray(mask[area])[first[0] :: every, first[1] :: every] != 0
    return taken[:, on_tissue]


def _progress(done: int, total: int) -> None:
    if done == total or done * 10 // total > (done - 1) * 10 // total:
        _log.info("painted %d of %d rows of windows", done, total)


# ------------------------------------------------------------------------------------------------------------- levels


def _tiles(shape: tuple[int, ...], step: int = _TILE) -> Iterator[tuple[slice, slice]]:
    for top in range(0, shape[-2], step):
        for left in range(0, shape[-1], step):
            yield slice(top, min(top + step, shape[-2])), slice(left, min(left + step, shape[-1]))


def _fill(array, source: Predict) -> None:
    for rows, cols in _tiles(array.shape):
        array[..., rows, cols] = source(rows, cols).astype(array.dtype)


def _finer(area: tuple[slice, slice]) -> tuple[slice, slice]:
    """Return the pixels of the level above that a part of a level is made from (zarr cuts them at the border)."""
    return tuple(slice(2 * one.start, 2 * one.stop) for one in area)


def _sum_of_four(values: np.ndarray) -> np.ndarray:
    """Sum 2 x 2 pixels over the last two axes, the last row or column twice where their number is odd."""
    odd = [(0, 0)] * (values.ndim - 2) + [(0, side % 2) for side in values.shape[-2:]]
    values = np.pad(values, odd, mode="edge")
    # Pairs of rows first: adding whole strided planes is several times faster than a mean over a reshaped block.
    rows = values[..., ::2, :] + values[..., 1::2, :]
    return rows[..., ::2] + rows[..., 1::2]


def _halve(values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Average 2 x 2 pixels, float32; with a mask over the tissue pixels, 0 where they are fewer than two."""
    total = _sum_of_four(values.astype(np.float32))
    if mask is None:
        return total / 4
    count = _sum_of_four((mask != 0).astype(np.float32))
    return np.divide(total, count, out=np.zeros_like(total), where=np.broadcast_to(count >= 2, total.shape))


def _reduce_mask(levels: list) -> None:
    for finer, coarser in pairwise(levels):
        _fill(coarser, lambda rows, cols, finer=finer: _sum_of_four(finer[_finer((rows, cols))]) >= 2)


def _reduce_image(levels: list, tissue: list | None) -> None:
    """Compute each level from the one before, a gene and a tile at a time; `tissue` holds the masks of the levels."""
    for level, (finer, coarser) in enumerate(pairwise(levels)):
        for rows, cols in _tiles(coarser.shape):
            above = _finer((rows, cols))
            mask = None if tissue is None else tissue[level][above]
            for gene in range(coarser.shape[0]):
                small = _halve(finer[(gene, *above)], mask)
                small = np.rint(small) if coarser.dtype == np.uint8 else small
                coarser[gene, rows, cols] = small.astype(coarser.dtype)


# --------------------------------------------------------------------------------------------------------------- store


def _start(path: str | os.PathLike, genes: list[str], grid: _Grid, attributes: dict[str, Any]) -> Any:
    about = {"um_per_px": grid.um_per_px, "origin_um": list(grid.origin_um), "n_genes": len(genes)}
    root = _zarr().open_group(str(path), mode="w", zarr_format=3)
    root.attrs.update({"spatialdata_attrs": _CONTAINER, "histoweft": about | attributes})
    root.create_group("images")
    return root


def _pyramid(root, name: str, grid: _Grid, channels: int | None, dtype: type, chunk: int) -> list:
    """Make the empty arrays of an image (`channels` first) or of labels (None), finest first."""
    from zarr.codecs import BloscCodec

    if name == _TISSUE:
        root.create_group("labels").attrs["ome"] = {"labels": [name.split("/")[1]]}
    group = root.create_group(name)
    axes = "yx" if channels is None else "cyx"
    in_chunk = () if channels is None else (3 if name == _HE else 1,)
    arrays = [
        group.create_array(
            f"s{level}",
            shape=(() if channels is None else (channels,)) + grid.at(level),
            chunks=(*in_chunk, chunk, chunk),
            dtype=dtype,
            compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
            fill_value=0,
            dimension_names=list(axes),
            # Else a chunk of zeros would look like one that was never written.
            config={"write_empty_chunks": True},
        )
        for level in range(grid.levels)
    ]
    _describe(root, name, grid, None)
    return arrays


def _describe(root, name: str, grid: _Grid, channels: list[dict] | None) -> None:
    """Write the multiscale metadata of an image or of labels.

    Two readers, two places. OME-Zarr viewers take pixel size and origin from each level, counting from the centre of
    the first pixel. spatialdata counts from its corner and takes one map from pixels of the finest level into a named
    frame, written beside the levels; as a sequence, which no OME-Zarr 0.5 viewer would apply on top of the first.
    """
    group = root[name]
    n_channels = group["s0"].ndim - 2
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    axes = [{"name": "c", "type": "channel"}] * n_channels + space
    levels = []
    for level in range(grid.levels):
        side = grid.um_per_px * 2**level
        scale = [1.0] * n_channels + [side, side]
        centre = [0.0] * n_channels + [corner + side / 2 for corner in reversed(grid.origin_um)]
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": centre}]
        levels.append({"path": f"s{level}", "coordinateTransformations": steps})
    frames = {
        "input": {"name": "".join(axis["name"] for axis in axes), "axes": axes},
        "output": {"name": COORDINATES, "axes": axes},
    }
    scale = {"type": "scale", "scale": [1.0] * n_channels + [grid.um_per_px] * 2}
    corner = {"type": "translation", "translation": [0.0] * n_channels + list(reversed(grid.origin_um))}
    into_frame = {"type": "sequence", "transformations": [scale | frames, corner | frames], **frames}
    multiscale = {
        "name": name.split("/")[1],
        "axes": axes,
        "datasets": levels,
        "coordinateTransformations": [into_frame],
    }
    ome: dict[str, Any] = {"version": _NGFF_VERSION, "multiscales": [multiscale]}
    if channels is not None:
        ome["omero"] = {"channels": channels}
    group.attrs.update({"ome": ome, "spatialdata_attrs": _RASTER})


def _gene_channels(genes: list[str], sample: np.ndarray) -> list[dict[str, Any]]:
    """Describe each gene to viewers: name, colour, and contrast from the 2nd to the 99.5th percentile on tissue."""
    if sample.shape[1] == 0:
        sample = np.zeros((len(genes), 1), dtype=np.float16)
    channels = []
    for index, (gene, values) in enumerate(zip(genes, sample)):
        values = values.astype(np.float32)
        start, end = (float(value) for value in np.percentile(values, (2, 99.5)))
        window = {"min": min(0.0, float(values.min())), "max": float(values.max()), "start": start}
        window["end"] = end if end > start else start + 1.0
        window["max"] = max(window["max"], window["end"])
        colour = _CHANNEL_COLOURS[index % len(_CHANNEL_COLOURS)]
        channels.append({"label": gene, "color": colour, "window": window, "active": index < _VISIBLE})
    return channels


def _rgb_channels() -> list[dict[str, Any]]:
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    colours = {"r": "FF0000", "g": "00FF00", "b": "0000FF"}
    return [{"label": name, "color": colour, "window": window, "active": True} for name, colour in colours.items()]


# ------------------------------------------------------------------------------------------------------------- reading


def check_store(
    path: str | os.PathLike,
    *,
    shape: tuple[int, int] | None = None,
    genes: Sequence[str] | None = None,
    levels: int | None = None,
) -> None:
    """Open a painted store anew and see that it is whole.

    Parameters
    ----------
    path
        The store.
    shape, genes, levels
        What it should hold: height and width, names in order, number of levels. Left out, the store only has to agree
        with itself.

    Raises
    ------
    HistoweftError
        A level is missing or of another size, the genes are others, a chunk was never written, or a value is not
        finite.
    """
    root = _open(path)
    found_genes, arrays = _genes_of(path, root), _levels_of(path, root, _IMAGE)
    faults = Faults()
    if genes is not None and list(genes) != found_genes:
        faults.add(path, f"{len(found_genes)} genes ({', '.join(found_genes[:3])} ...)", f"the {len(genes)} painted")
    if levels is not None and levels != len(arrays):
        faults.add(path, f"{len(arrays)} levels", levels)
    height, width = shape or arrays[0].shape[1:]
    for name in (_IMAGE, _TISSUE, _HE):
        if name in root:
            first = {_IMAGE: (len(found_genes),), _TISSUE: (), _HE: (3,)}[name]
            for level, array in enumerate(_levels_of(path, root, name)):
                expected = (*first, -(-height // 2**level), -(-width // 2**level))
                _check_array(faults, f"{path}/{name}/s{level}", array, expected)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults.items)
        raise HistoweftError(f"a painted store is not whole; delete it and run again:\n{listed}")


def _check_array(faults: Faults, where: str, array, expected: tuple[int, ...]) -> None:
    if tuple(array.shape) != expected:
        faults.add(where, f"shape {tuple(array.shape)}", expected)
        return
    written = array.nchunks_initialized
    if written != array.nchunks:
        faults.add(where, f"{written} chunks", f"{array.nchunks}")
        return
    if array.dtype == np.float16:
        for rows, cols in _tiles(array.shape):
            for gene in range(array.shape[0]):
                # The largest exponent marks infinities and NaN: a test on integers, many times faster on float16.
                bits = array[gene, rows, cols].view(np.uint16)
                if ((bits & 0x7C00) == 0x7C00).any():
                    faults.add(where, f"values that are not finite in channel {gene}", "numbers")
                    return


def painted_by(path: str | os.PathLike) -> str:
    """Return the method whose maps a store holds.

    Raises
    ------
    InputError
        There is no such store.
    """
    return str(_open(path).attrs["histoweft"].get("model", ""))


def read_painted(
    path: str | os.PathLike, genes: Sequence[str] | None = None, level: int = 0, max_px: int | None = None
) -> tuple[np.ndarray, list[str], float]:
    """Read painted maps.

    Parameters
    ----------
    path
        Store written by `paint`.
    genes
        Which, in the order wanted; by default all. Only these are read from disk.
    level
        0 is the finest; each next one is half as large.
    max_px
        Instead of `level`: the finest level whose longest side is at most this, halved further if none is.

    Returns
    -------
    array
        (genes, height, width) float32, 0 off the tissue.
    genes
        Their names.
    um_per_px
        Micrometres per pixel of `array`.

    Raises
    ------
    InputError
        There is no such store, gene or level.
    """
    root = _open(path)
    known, arrays = _genes_of(path, root), _levels_of(path, root, _IMAGE)
    wanted = known if genes is None else [str(gene) for gene in genes]
    faults = Faults()
    for gene in wanted:
        if gene not in known:
            expected = f"one of the {len(known)} painted genes"
            faults.add(f"{path}: genes", repr(gene), expected, nearest(gene, known) or f"Painted: {_some(known)}")
    faults.raise_if_any()
    level = _choose(path, [array.shape[1:] for array in arrays], level, max_px)
    array = arrays[level]
    maps = np.empty((len(wanted), *array.shape[1:]), dtype=np.float32)
    for index, gene in enumerate(wanted):
        maps[index] = _values(path, array, known.index(gene))
    mask = None
    if max_px is not None and max(maps.shape[1:]) > max_px:
        mask = read_mask(path, level=level)
    while max_px is not None and max(maps.shape[1:]) > max_px:
        maps = _halve(maps, mask)
        mask = None if mask is None else _sum_of_four(mask.astype(np.uint8)) >= 2
        level += 1
    return maps, wanted, float(root.attrs["histoweft"]["um_per_px"]) * 2**level


def _values(path: str | os.PathLike, array, key) -> np.ndarray:
    """Return part of an array of the store at `path`; a damaged chunk is reported with the store's name."""
    try:
        return array[key]
    except Exception as error:  # each codec has errors of its own
        found = f"a part that cannot be read ({type(error).__name__}: {error})"
        hint = "The store is damaged: delete the folder and start again."
        raise InputError.one(f"{path}/{array.name.strip('/')}", found, "a whole painted store", hint) from error


def read_mask(path: str | os.PathLike, level: int = 0, max_px: int | None = None) -> np.ndarray | None:
    """Read the tissue mask of a painted store, (height, width) bool; None where it was painted without one.

    Parameters and errors are those of `read_painted`, and so is the size of what is returned.
    """
    root = _open(path)
    if _TISSUE not in root:
        return None
    arrays = _levels_of(path, root, _TISSUE)
    mask = _values(path, arrays[_choose(path, [array.shape for array in arrays], level, max_px)], slice(None)) != 0
    while max_px is not None and max(mask.shape) > max_px:
        mask = _sum_of_four(mask.astype(np.uint8)) >= 2
    return mask


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _choose(path, shapes: list[tuple[int, int]], level: int, max_px: int | None) -> int:
    if max_px is not None:
        if max_px < 1:
            raise InputError.one(f"{path}: max_px", max_px, "at least 1")
        return next((i for i, shape in enumerate(shapes) if max(shape) <= max_px), len(shapes) - 1)
    if not 0 <= level < len(shapes):
        raise InputError.one(path, f"level {level}", f"0 to {len(shapes) - 1}")
    return level


def _open(path: str | os.PathLike) -> Any:
    # The consolidated copy of the metadata may be older than the arrays; what counts is what lies there.
    try:
        root = _zarr().open_group(str(path), mode="r", use_consolidated=False)
        missing = "histoweft" not in root.attrs or _IMAGE not in root
    except (OSError, ValueError) as error:
        raise _no_store(path, error) from error
    if missing:
        raise _no_store(path, f"no {_IMAGE}")
    return root


def _no_store(path: str | os.PathLike, found: object) -> InputError:
    found = found if Path(path).exists() else "nothing there"
    return InputError.one(path, found, "a store of painted maps", "The rule paint writes it: run it (again).")


def _genes_of(path: str | os.PathLike, root) -> list[str]:
    try:
        return [channel["label"] for channel in root[_IMAGE].attrs["ome"]["omero"]["channels"]]
    except KeyError as error:
        raise _no_store(path, f"no {error} in the metadata of {_IMAGE}") from error


def _levels_of(path: str | os.PathLike, root, name: str) -> list:
    try:
        datasets = root[name].attrs["ome"]["multiscales"][0]["datasets"]
        return [root[f"{name}/{dataset['path']}"] for dataset in datasets]
    except (KeyError, IndexError) as error:
        raise _no_store(path, f"no {error} in {name}") from error
