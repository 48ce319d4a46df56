"""The H&E: sizes, the working-resolution pyramid, and reading it back.

Sources are png, jpg, tif, ome.tif and svs (gzipped or not) and arrays in HDF5 files. They come in bands of rows
(`pixels`) and are averaged over areas, so memory does not grow with the image.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoweft.ingest import pixels
from histoweft.ingest.embedded import EmbeddedImage, parse
from histoweft.io import atomic

__all__ = [
    "EmbeddedImage", "WorkingImage", "image_mpp", "image_size", "orientation", "parse", "write_working_image",
]  # fmt: skip

SQUARE = 0.01
"""Width and height of a pixel may differ by so much."""

IN_MEMORY = 256_000_000
"""Bytes of working image kept in memory while the pyramid is made; larger ones go through a temporary file."""


@dataclass(frozen=True)
class WorkingImage:
    """What was written.

    Parameters
    ----------
    width, height
        Size of page 0 in pixels.
    um_per_px
        Micrometres per working pixel; NaN where the scale is unknown.
    scale
        Working pixels per full-resolution pixel.
    levels
        Number of resolutions in the file.
    """

    width: int
    height: int
    um_per_px: float
    scale: float
    levels: int


def image_size(path: str | Path | EmbeddedImage, turned: bool = True) -> tuple[int, int]:
    """Return width and height in pixels, from the header alone.

    Parameters
    ----------
    path
        The image.
    turned
        As its orientation tag says and viewers show it; False: as its rows are stored.

    Raises
    ------
    InputError
        The file is no image, or one that is no H&E.
    """
    source, handle, (width, height) = pixels.open_source(parse(path))
    with handle:
        return (height, width) if turned and source.orientation >= 5 else (width, height)


def image_mpp(path: str | Path | EmbeddedImage) -> float:
    """Return micrometres per pixel by the image's metadata (OME, ImageJ, Aperio, resolution tags); NaN if silent.

    Raises
    ------
    InputError
        Its pixels are not square.
    """
    source, handle, _ = pixels.open_source(parse(path))
    with handle:
        x, y = source.said_mpp
    if math.isfinite(x) and math.isfinite(y) and abs(x / y - 1) > SQUARE:
        raise pixels.refuse(
            path,
            f"pixels of {x:g} x {y:g} um",
            "square pixels",
            "Save it with square pixels, or give their size in the column mpp where these are wrong.",
        )
    return x if math.isfinite(x) else y


def orientation(path: str | Path | EmbeddedImage) -> int:
    """Return the orientation tag: 1 where the rows are stored as they are to be seen, or nothing is said."""
    source, handle, _ = pixels.open_source(parse(path))
    with handle:
        return source.orientation if 1 <= source.orientation <= 8 else 1


def turned(array: np.ndarray, tag: int) -> np.ndarray:
    """Return a view of the picture as an orientation tag wants it shown."""
    if tag >= 5:
        array = array.swapaxes(0, 1)
    rows = -1 if tag in (3, 4, 7, 8) else 1
    columns = -1 if tag in (2, 3, 6, 7) else 1
    return array[::rows, ::columns]


def _resampled(source, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield bands of the image shrunk to width x height by area averaging (any factor, nothing skipped)."""
    from PIL import Image

    factor = source.height / height
    held: list[np.ndarray] = []
    held_top, done = 0, 0  # first source row held; output rows written

    def emit(until: int) -> np.ndarray:
        nonlocal held, held_top, done
        block = np.concatenate(held) if len(held) > 1 else held[0]
        box = (0, done * factor - held_top, source.width, min(until * factor - held_top, block.shape[0]))
        small = Image.fromarray(block).resize((width, until - done), Image.Resampling.BOX, box=box)
        done = until
        cut = max(0, min(int(until * factor) - held_top - 1, block.shape[0]))  # the next row of pixels may need it
        held, held_top = [block[cut:]], held_top + cut
        return np.asarray(small)

    rows = 0
    for band in pixels.rgb_bands(source):
        held.append(np.ascontiguousarray(band))
        rows += band.shape[0]
        ready = min(height, int(rows / factor)) if rows < source.height else height
        gathered = sum(part.nbytes for part in held)
        if ready > done and (gathered >= pixels.BUFFER or rows >= source.height):
            yield emit(ready)
    if done < height:
        raise pixels.refuse(
            source.path, f"only {rows} of {source.height} rows of pixels", hint="The file is cut short."
        )


# ------------------------------------------------------------------------------------------------------ writing


def write_working_image(
    source: str | Path | EmbeddedImage,
    out_tif: str | Path,
    mpp_fullres: float,
    image_to_fullres_scale: float,
    working_mpp: float,
    max_px: int | None = None,
    compression: str = "deflate",
    orientation: int | None = None,
) -> WorkingImage:
    """Write the H&E as RGB uint8 tiled pyramidal TIFF at working resolution.

    Parameters
    ----------
    source
        png, jpg, tif, ome.tif or svs, or an array in an HDF5 file (`EmbeddedImage`, or ``file::dataset``); grey, RGB,
        RGBA (alpha onto white), 8 or 16 bits.
    out_tif
        Written under a temporary name and renamed when complete.
    mpp_fullres
        Micrometres per full-resolution pixel; NaN unknown (then only `max_px` shrinks the image).
    image_to_fullres_scale
        Pixels of `source` per full-resolution pixel (0.15 for a hires image shrunk to 15 %).
    working_mpp
        Wanted micrometres per pixel. An image coarser than that is kept as it is, never enlarged.
    max_px
        Longest side at most.
    compression
        ``deflate`` (lossless) or ``jpeg`` (quality 90, a tenth of the size).
    orientation
        Orientation tag to turn the picture by; None: its own.

    Returns
    -------
    WorkingImage

    Raises
    ------
    InputError
        The image is truncated, too large to decode, or of a kind that is no H&E.
    """
    source, out_tif = parse(source), Path(out_tif)
    if compression not in ("deflate", "jpeg"):
        raise pixels.refuse(Path("config: ingest.image_compression"), repr(compression), "deflate | jpeg")
    if not image_to_fullres_scale > 0:
        raise pixels.refuse(
            source, f"a scale of {image_to_fullres_scale}", "image pixels per full-resolution pixel above 0"
        )
    width, height = image_size(source, turned=False)
    mpp_source = mpp_fullres / image_to_fullres_scale
    factor = max(1.0, working_mpp / mpp_source) if math.isfinite(mpp_source) and mpp_source > 0 else 1.0
    if max_px:
        factor = max(factor, max(width, height) / max_px)
    target = (max(1, round(width / factor)), max(1, round(height / factor)))
    shrink = target[0] / width
    um_per_px = mpp_source / shrink
    scale = image_to_fullres_scale * shrink
    picked, handle, _ = pixels.open_source(source, factor)
    with handle, tempfile.TemporaryDirectory(dir=_folder(out_tif), prefix=".image-") as scratch:
        store = _Store(Path(scratch), target)
        for band in _resampled(picked, *target):
            store.append(band)
        picture = turned(store.array, picked.orientation if orientation is None else orientation)
        sizes = _level_sizes((picture.shape[1], picture.shape[0]))
        with atomic(out_tif) as partial:
            _write_levels(partial, picture, sizes, um_per_px, scale, source.name, compression)
    return WorkingImage(*sizes[0], um_per_px, scale, len(sizes))


def _folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent


class _Store:
    """The working image while its pyramid is made: in memory, or in a temporary file when large."""

    def __init__(self, scratch: Path, size: tuple[int, int]):
        shape = (size[1], size[0], 3)
        if math.prod(shape) <= IN_MEMORY:
            self.array = np.empty(shape, np.uint8)
        else:
            self.array = np.memmap(scratch / "level0", np.uint8, "w+", shape=shape)
        self.filled = 0

    def append(self, band: np.ndarray) -> None:
        self.array[self.filled : self.filled + len(band)] = band
        self.filled += len(band)


def _level_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (width, height) of each level: halves until the longest side fits one tile."""
    sizes = [size]
    while max(sizes[-1]) > pixels.TILE:
        sizes.append((max(1, sizes[-1][0] // 2), max(1, sizes[-1][1] // 2)))
    return sizes


def _tiles(array: np.ndarray, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield tiles of `array` shrunk to width x height, row by row, each averaged over areas."""
    from PIL import Image

    fy, fx = array.shape[0] / height, array.shape[1] / width
    for top in range(0, height, pixels.TILE):
        bottom = min(top + pixels.TILE, height)
        y0, y1 = int(top * fy), min(array.shape[0], math.ceil(bottom * fy))
        band = np.asarray(array[y0:y1])
        if (fx, fy) != (1.0, 1.0):
            box = (0, top * fy - y0, array.shape[1], min(bottom * fy - y0, band.shape[0]))
            band = np.asarray(Image.fromarray(band).resize((width, bottom - top), Image.Resampling.BOX, box=box))
        for left in range(0, width, pixels.TILE):
            yield np.ascontiguousarray(band[:, left : left + pixels.TILE])


def _write_levels(path, array, sizes, um_per_px, scale, source: str, compression: str) -> None:
    import tifffile

    known = math.isfinite(um_per_px)
    description = json.dumps({"um_per_px": um_per_px if known else None, "scale": scale, "source": source})
    options = {
        "dtype": np.uint8,
        "photometric": "rgb",
        "tile": (pixels.TILE, pixels.TILE),
        "metadata": None,
        "compression": "zlib" if compression == "deflate" else "jpeg",
        "compressionargs": {"level": 6} if compression == "deflate" else {"level": 90},
        "predictor": compression == "deflate",
    }
    large = sum(3 * w * h for w, h in sizes) > 3_500_000_000
    with tifffile.TiffWriter(path, bigtiff=large) as writer:
        for number, (width, height) in enumerate(sizes):
            resolution = {}
            if known:
                per_cm = 1e4 / (um_per_px * sizes[0][0] / width)
                resolution = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
            writer.write(
                _tiles(array, width, height),
                shape=(height, width, 3),
                description=description if number == 0 else None,
                subifds=len(sizes) - 1 if number == 0 else None,
                subfiletype=0 if number == 0 else 1,
                **resolution,
                **options,
            )
