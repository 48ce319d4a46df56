"""The H&E: sizes, the working-resolution pyramid, and reading it back.

Sources are png, jpg (gzipped or not), tif, ome.tif and svs. A TIFF is read band by band from its most suitable
pyramid level and averaged over areas, so memory does not grow with the image; png and jpg are decoded whole by
Pillow, up to `MAX_PIXELS`.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoweft.errors import InputError
from histoweft.ingest.embedded import EmbeddedImage, EmbeddedSource, parse
from histoweft.io import atomic

__all__ = ["EmbeddedImage", "WorkingImage", "image_mpp", "image_size", "parse", "write_working_image"]

TIFF = (".tif", ".tiff", ".svs", ".btf", ".ndpi")
MAX_PIXELS = 500_000_000
"""Largest png or jpg that is decoded (1.5 GB as RGB). Larger images: save them as tiled TIFF."""
TILE = 512
BUFFER = 1 << 24
"""Bytes read ahead from a TIFF, and of source pixels gathered before they are shrunk."""
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


def is_tiff(path: Path) -> bool:
    """Return whether a file is called like a TIFF."""
    return Path(path).suffix.lower() in TIFF


def _refuse(path: Path, found: str, expected: str = "an image that can be decoded", hint: str = "") -> InputError:
    return InputError.one(path, found, expected, hint)


def _unreadable(path: Path, error: BaseException) -> InputError:
    text = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
    cut = any(
        word in text.lower() for word in ("truncated", "eof", "broken", "incomplete", "premature", "unexpected end")
    )
    hint = "The file is cut short: copy or download it again." if cut else "Open it in an image viewer: is it an image?"
    return _refuse(path, f"an unreadable image ({text.replace(str(path), path.name)})", hint=hint)


# ------------------------------------------------------------------------------------------------------ looking


def _open_pillow(path: Path):
    """Open with Pillow, its decompression-bomb limit replaced by our own, stated one."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow's own limit guards web servers; slides are larger, and MAX_PIXELS guards memory below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                if path.suffix.lower() == ".gz":
                    with gzip.open(path) as handle:
                        return Image.open(io.BytesIO(handle.read()))
                return Image.open(path)
            finally:
                Image.MAX_IMAGE_PIXELS = before
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def image_size(path: str | Path | EmbeddedImage) -> tuple[int, int]:
    """Return width and height in pixels, from the header alone.

    Raises
    ------
    InputError
        The file is no image.
    """
    path = parse(path)
    if isinstance(path, EmbeddedImage):
        source = EmbeddedSource(path)
        with source.file:
            return source.width, source.height
    if not is_tiff(path):
        with _open_pillow(path) as image:
            return image.size
    with _open_tiff(path) as tif:
        source = _TiffSource(path, tif, 0)
        return source.width, source.height


def image_mpp(path: str | Path) -> float:
    """Return micrometres per pixel as the image's own metadata say (OME, Aperio, resolution tag); NaN if silent."""
    import re

    path = Path(path)
    if not is_tiff(path):
        return math.nan
    with _open_tiff(path) as tif:
        page = tif.pages[0]
        text = page.description or ""
        ome = re.search(r'PhysicalSizeX="([\d.eE+-]+)"', text)
        unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', text)
        if ome:
            factor = {"nm": 1e-3, "mm": 1e3}.get(unit.group(1) if unit else "µm", 1.0)
            return float(ome.group(1)) * factor
        if aperio := re.search(r"\bMPP\s*=\s*([\d.]+)", text):
            return float(aperio.group(1))
        resolution, unit_tag = page.tags.get("XResolution"), page.tags.get("ResolutionUnit")
        if resolution and unit_tag and int(unit_tag.value) == 3 and resolution.value[0]:
            mpp = 1e4 * resolution.value[1] / resolution.value[0]
            return mpp if 0.05 < mpp < 50 else math.nan  # 72 dpi and the like are no microscope's word
    return math.nan


def _open_tiff(path: Path):
    import tifffile

    try:
        tif = tifffile.TiffFile(path)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    if not tif.pages:
        tif.close()
        raise _refuse(path, "a TIFF without pages")
    return tif


# --------------------------------------------------------------------------------------------- reading in bands


class _TiffSource:
    """One resolution of a TIFF, read as bands of rows."""

    def __init__(self, path: Path, tif, level: int):
        series = tif.series[0]
        self.path = path
        self.levels = list(getattr(series, "levels", [series])) or [series]
        chosen = self.levels[level]
        axes, shape = chosen.axes.upper(), chosen.shape
        if "Y" not in axes or "X" not in axes:
            raise _refuse(path, f"axes {axes}", "a two-dimensional RGB or grey image")
        self.height, self.width = int(shape[axes.index("Y")]), int(shape[axes.index("X")])
        extra = {a: int(n) for a, n in zip(axes, shape) if a not in "YXS" and n > 1}
        samples = int(shape[axes.index("S")]) if "S" in axes else 1
        planes = int(np.prod(list(extra.values()))) if extra else 1
        if planes > 1 and (samples > 1 or planes not in (3, 4) or len(chosen.pages) not in (1, planes)):
            listed = ", ".join(f"{a}={n}" for a, n in extra.items())
            hint = "Export the H&E alone; stacks and multiplexed fluorescence are not H&E."
            raise _refuse(path, f"an image with {listed}", "one RGB or grey plane", hint)
        if samples not in (1, 3, 4):
            raise _refuse(path, f"{samples} samples a pixel", "grey (1), RGB (3) or RGBA (4)")
        # later planes come as light frames without tags of their own
        self.pages = [p if hasattr(p, "planarconfig") else p.aspage() for p in chosen.pages][:planes]
        self.channels = max(samples, planes)
        self.dtype = np.dtype(chosen.dtype)
        page = self.pages[0]
        self.photometric = getattr(page.photometric, "name", str(page.photometric))
        self.colormap = page.colormap if self.photometric == "PALETTE" else None
        size = path.stat().st_size
        for number, p in enumerate(self.pages):
            ends = [o + c for o, c in zip(p.dataoffsets, p.databytecounts)]
            if ends and max(ends) > size:
                raise _refuse(
                    path,
                    f"a truncated image (page {number} ends at byte {max(ends)}, the file at {size})",
                    "a complete file",
                    "The file is cut short: copy or download it again.",
                )

    def bands(self) -> Iterator[np.ndarray]:
        """Yield (rows, width, channels) arrays from top to bottom, one row of tiles or one strip at a time."""
        try:
            if len(self.pages) == 1:
                yield from self._page_bands(self.pages[0])
            else:
                for parts in zip(*(self._page_bands(p) for p in self.pages), strict=True):
                    yield np.concatenate(parts, axis=2)
        except InputError:
            raise
        except MemoryError:
            raise
        except Exception as error:
            raise _unreadable(self.path, error) from error

    def _page_bands(self, page) -> Iterator[np.ndarray]:
        planar = int(page.planarconfig) == 2 and page.samplesperpixel > 1
        if page.is_memmappable and not page.is_tiled:
            # uncompressed and contiguous: the system pages in what is touched, whatever the strip size
            kind = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
            whole = np.memmap(self.path, dtype=kind, mode="r", offset=page.dataoffsets[0], shape=page.shape)
        elif planar:  # planes lie one after the other in the file; such images are rare and small
            _guard(self.path, self.width, self.height)
            whole = page.asarray()
        else:
            yield from self._segment_bands(page)
            return
        shape = (self.height, self.width, page.samplesperpixel)
        whole = np.moveaxis(whole, 0, -1) if planar else whole.reshape(shape)
        for start in range(0, self.height, TILE):
            yield np.asarray(whole[start : start + TILE], dtype=self.dtype)

    def _segment_bands(self, page) -> Iterator[np.ndarray]:
        """Yield one row of tiles, or one strip, at a time."""
        rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, self.height)
        if rows * self.width > MAX_PIXELS:
            _guard(self.path, self.width, rows)
        band, top = None, 0
        for data, index, _ in page.segments(maxworkers=1, buffersize=BUFFER):
            y, x = index[-3], index[-2]
            if band is None or y != top:
                if band is not None:
                    yield band
                top = y
                band = np.zeros((min(rows, self.height - y), self.width, page.samplesperpixel), self.dtype)
            if data is None:
                continue  # a tile left out of the file is empty
            piece = data.reshape(data.shape[-3:])
            h, w = min(band.shape[0], piece.shape[0]), min(self.width - x, piece.shape[1])
            band[:h, x : x + w] = piece[:h, :w]
        if band is not None:
            yield band


def _guard(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _refuse(
            path,
            f"{width} x {height} pixels that can only be decoded in one piece",
            f"at most {MAX_PIXELS:,} pixels in one piece",
            "Save it as a tiled TIFF (vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg).",
        )


class _PillowSource:
    """A png or jpg, decoded whole (a jpg as small as its decoder can make it without going below the target)."""

    def __init__(self, path: Path, factor: float = 1.0):
        self.path = path
        self.image = _open_pillow(path)
        self.full_width, self.full_height = self.image.size
        if self.image.format == "JPEG" and factor >= 2:
            self.image.draft("RGB", (max(1, int(self.full_width / factor)), max(1, int(self.full_height / factor))))
        self.width, self.height = self.image.size
        _guard(path, self.width, self.height)
        self.channels, self.dtype, self.colormap, self.photometric = 3, np.dtype(np.uint8), None, "RGB"

    def bands(self) -> Iterator[np.ndarray]:
        """Yield (rows, width, channels) arrays from top to bottom."""
        try:
            self.image.load()
        except MemoryError:
            raise
        except Exception as error:
            raise _unreadable(self.path, error) from error
        deep = self.image.mode in ("I", "I;16", "I;16B", "I;16L", "F")
        for top in range(0, self.height, TILE):
            part = self.image.crop((0, top, self.width, min(top + TILE, self.height)))
            if deep:
                yield np.asarray(part)[:, :, None].astype(np.uint16)
            elif part.mode in ("RGBA", "LA", "PA", "P") or "transparency" in self.image.info:
                yield np.asarray(part.convert("RGBA"))
            else:
                yield np.asarray(part.convert("RGB"))


def _shift(source) -> float:
    """Return the divisor of deep values: the brightest pixel tells whether 8, 10, 12, 14 or 16 bits are used."""
    brightest = max((int(band.max()) for band in source.bands()), default=0)
    bits = max(8, math.ceil(math.log2(brightest + 1))) if brightest else 8
    return float((2 ** (bits + bits % 2 if bits > 8 else 8) - 1) / 255)


def _float_divisor(peak: float) -> float:
    """Return the divisor of fractional values: 0 to 1, 0 to 255 or 0 to 65535, whichever holds the brightest pixel."""
    return next((top / 255 for top in (1.0, 255.0, 65535.0) if peak <= top), peak / 255)


def to_rgb(
    band: np.ndarray, divide: float = 1.0, colormap: np.ndarray | None = None, inverted: bool = False
) -> np.ndarray:
    """Return (rows, width, 3) uint8 from grey, RGB or RGBA (alpha onto white) of any depth."""
    if colormap is not None:
        return (colormap[:, band[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0)
    if band.dtype == bool:
        band = band.astype(np.uint8) * 255
    elif band.dtype.kind == "f":
        band = np.clip(np.nan_to_num(band) / divide + 0.5, 0, 255).astype(np.uint8)
    elif band.dtype != np.uint8:
        band = np.clip(band / divide + 0.5, 0, 255).astype(np.uint8)
    if inverted:
        band = 255 - band
    if band.shape[2] == 1:
        return np.repeat(band, 3, axis=2)
    if band.shape[2] == 4:
        alpha = band[..., 3:].astype(np.uint16)
        return ((band[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return band[..., :3]


def _rgb_bands(source) -> Iterator[np.ndarray]:
    divide, first = 1.0, None
    stream = source.bands()
    for band in stream:
        if first is None:
            first = band.dtype
            if first.kind in "ui" and first.itemsize > 1 and getattr(source, "colormap", None) is None:
                divide = _shift(source)
            elif first.kind == "f":
                divide = _float_divisor(max(float(np.nanmax(b)) for b in source.bands()))
        yield to_rgb(
            band, divide, getattr(source, "colormap", None), getattr(source, "photometric", "") == "MINISWHITE"
        )


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
    for band in _rgb_bands(source):
        held.append(np.ascontiguousarray(band))
        rows += band.shape[0]
        ready = min(height, int(rows / factor)) if rows < source.height else height
        gathered = sum(part.nbytes for part in held)
        if ready > done and (gathered >= BUFFER or rows >= source.height):
            yield emit(ready)
    if done < height:
        raise _refuse(source.path, f"only {rows} of {source.height} rows of pixels", hint="The file is cut short.")


def _source_for(path: Path | EmbeddedImage, factor: float):
    """Open the resolution of an image that is just finer than wanted; returns (source, context to close)."""
    if isinstance(path, EmbeddedImage):
        source = EmbeddedSource(path)
        return source, source.file, (source.width, source.height)
    if not is_tiff(path):
        source = _PillowSource(path, factor)
        return source, source.image, (source.full_width, source.full_height)
    tif = _open_tiff(path)
    try:
        base = _TiffSource(path, tif, 0)
        size = (base.width, base.height)
        best = base
        for number in range(1, len(base.levels)):
            level = _TiffSource(path, tif, number)
            if base.width / level.width <= factor * 1.001 and level.channels == base.channels:
                best = level
        return best, tif, size
    except BaseException:
        tif.close()
        raise


# ------------------------------------------------------------------------------------------------------ writing


def write_working_image(
    source: str | Path | EmbeddedImage,
    out_tif: str | Path,
    mpp_fullres: float,
    image_to_fullres_scale: float,
    working_mpp: float,
    max_px: int | None = None,
    compression: str = "deflate",
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
        raise _refuse(Path("config: ingest.image_compression"), repr(compression), "deflate | jpeg")
    if not image_to_fullres_scale > 0:
        raise _refuse(source, f"a scale of {image_to_fullres_scale}", "image pixels per full-resolution pixel above 0")
    width, height = image_size(source)
    mpp_source = mpp_fullres / image_to_fullres_scale
    factor = max(1.0, working_mpp / mpp_source) if math.isfinite(mpp_source) and mpp_source > 0 else 1.0
    if max_px:
        factor = max(factor, max(width, height) / max_px)
    target = (max(1, round(width / factor)), max(1, round(height / factor)))
    shrink = target[0] / width
    um_per_px = mpp_source / shrink
    scale = image_to_fullres_scale * shrink
    picked, handle, _ = _source_for(source, factor)
    with handle, tempfile.TemporaryDirectory(dir=_folder(out_tif), prefix=".image-") as scratch:
        store = _Store(Path(scratch), target)
        for band in _resampled(picked, *target):
            store.append(band)
        sizes = _level_sizes(target)
        with atomic(out_tif) as partial:
            _write_levels(partial, store.array, sizes, um_per_px, scale, source.name, compression)
    return WorkingImage(target[0], target[1], um_per_px, scale, len(sizes))


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
    while max(sizes[-1]) > TILE:
        sizes.append((max(1, sizes[-1][0] // 2), max(1, sizes[-1][1] // 2)))
    return sizes


def _tiles(array: np.ndarray, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield tiles of `array` shrunk to width x height, row by row, each averaged over areas."""
    from PIL import Image

    fy, fx = array.shape[0] / height, array.shape[1] / width
    for top in range(0, height, TILE):
        bottom = min(top + TILE, height)
        y0, y1 = int(top * fy), min(array.shape[0], math.ceil(bottom * fy))
        band = np.asarray(array[y0:y1])
        if (fx, fy) != (1.0, 1.0):
            box = (0, top * fy - y0, array.shape[1], min(bottom * fy - y0, band.shape[0]))
            band = np.asarray(Image.fromarray(band).resize((width, bottom - top), Image.Resampling.BOX, box=box))
        for left in range(0, width, TILE):
            yield np.ascontiguousarray(band[:, left : left + TILE])


def _write_levels(path, array, sizes, um_per_px, scale, source: str, compression: str) -> None:
    import tifffile

    known = math.isfinite(um_per_px)
    description = json.dumps({"um_per_px": um_per_px if known else None, "scale": scale, "source": source})
    options = {
        "dtype": np.uint8,
        "photometric": "rgb",
        "tile": (TILE, TILE),
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
