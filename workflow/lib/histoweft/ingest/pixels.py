"""Opening an image of any kind, refusing what is no H&E, and reading its pixels in bands of rows.

A TIFF is read from its most suitable pyramid level, one row of tiles or one strip at a time; png and jpg are decoded
whole by Pillow, up to `MAX_PIXELS`. What a pixel's numbers mean is decided by what the file says (`colours`).
"""

from __future__ import annotations

import gzip
import io
import logging
import math
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from histoweft.errors import InputError
from histoweft.ingest import diagnose, ome
from histoweft.ingest.colours import ASSOCIATED, COLOURS, UNASSOCIATED, Colours, divisor, to_rgb
from histoweft.ingest.embedded import EmbeddedImage, EmbeddedSource

log = logging.getLogger(__name__)

MAX_PIXELS = 500_000_000
"""Largest image that is decoded in one piece (1.5 GB as RGB). Larger ones: save them as tiled TIFF."""
TILE = 512
BUFFER = 1 << 24
"""Bytes read ahead from a TIFF, and of source pixels gathered before they are shrunk."""
AT_ONCE = 1 << 22
"""Pixels whose colours are converted at a time."""

TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GREY = ("MINISBLACK", "MINISWHITE")
_APERIO_YCBCR = 33003
_LEFT = "Export the H&E alone, as one RGB image."
FLUORESCENCE = "Fluorescence is no H&E: give the brightfield image of the section, or none."


def refuse(path: Any, found: str, expected: str = "an image that can be decoded", hint: str = "") -> InputError:
    """Return the error of one image."""
    return InputError.one(path, found, expected, hint)


# ------------------------------------------------------------------------------------------------------- opening


def _opened(path: Path):
    return gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb")


def _start(path: Path, n: int = 512) -> bytes:
    """Return the first bytes of a file; those unpacked of a gzipped one."""
    try:
        with _opened(path) as handle:
            return handle.read(n)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return b""


def is_tiff(path: str | Path) -> bool:
    """Return whether a file begins as TIFF files do, whatever its name."""
    return _start(Path(path), 4) in TIFF_MARKS


def unreadable(path: Path, error: BaseException | None = None) -> InputError:
    """Return the error of an image that no decoder takes, with its cause where the bytes show one."""
    try:
        why, hint = _diagnosed(path)
    except OSError:
        why, hint = "", ""
    if not why:
        log.info("reading %s: %s: %s", path, type(error).__name__, error)
        why = "a format that is not known here, or damaged; the log says more"
        hint = "Open it in an image viewer: is it whole, and an image? Save it there as TIFF or PNG."
    return refuse(path, f"an unreadable image ({why})", hint=hint)


def _diagnosed(path: Path) -> tuple[str, str]:
    """Return what is wrong with a file by its bytes, and what to do; empty where they show nothing."""
    again = "Copy or download it again."
    with open(path, "rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
    if path.suffix.lower() == ".gz" and not packed:
        return "not gzipped", "Rename it without .gz, or download it again."
    try:
        with _opened(path) as handle:
            data = handle.read()
    except EOFError:
        return "gzipped, and cut short", again
    except (gzip.BadGzipFile, zlib.error):
        return "gzipped, and damaged: its checksum does not fit, or foreign bytes follow", again
    if not data:
        return "an empty file", again
    kind = diagnose.describe(data[:4096])
    if data[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml version")):
        return "a web page or XML under the name of an image", "Download the image itself."
    if data.startswith(diagnose.LFS):
        return "a placeholder of Git LFS", "Fetch the image itself: git lfs pull"
    if kind.endswith(("-compressed data", "archive")):
        return f"{kind} under the name of an image", "Unpack it."
    if kind not in ("binary data of another kind", "a PNG image", "a JPEG image", "a TIFF image"):
        return f"{kind} under the name of an image", "Give the image itself, as TIFF, PNG or JPEG."
    if (data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-64:]) or _png_ends_early(data):
        return "cut short", again
    return "", ""


def _png_ends_early(data: bytes) -> bool:
    """Return whether a PNG's last part is announced longer than the file, or missing."""
    at = 8
    while data.startswith(b"\x89PNG\r\n\x1a\n") and at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if not (kind.isalpha() and kind[2:3].isupper()) or kind == b"IEND":
            return False
        at += 12 + length
    return data.startswith(b"\x89PNG\r\n\x1a\n")


def open_pillow(path: Path):
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
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def open_tiff(path: Path):
    """Open with tifffile; other files that its metadata name stay closed."""
    import tifffile

    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as handle:
                tif = tifffile.TiffFile(io.BytesIO(handle.read()), _multifile=False)
        else:
            tif = tifffile.TiffFile(path, _multifile=False)
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except Exception as error:
        raise unreadable(path, error) from error
    if not tif.pages:
        tif.close()
        raise refuse(path, "a TIFF without pages")
    return tif


# ------------------------------------------------------------------------------------------- what a TIFF is


def said_by(tif) -> ome.Said:
    """Return what a TIFF's description says of planes, channels and pixel size."""
    page = tif.pages[0]
    text = page.description or ""
    if ome.is_ome(text):
        return ome.read_ome(text) or ome.Said()
    if tif.is_imagej:
        return ome.read_imagej(tif.imagej_metadata or {}, _resolution(page))
    if aperio := re.search(r"\bMPP\s*=\s*(\d+(?:[.,]\d+)?)", text):
        value = float(aperio.group(1).replace(",", ".")) or math.nan
        return ome.Said(mpp_x=value, mpp_y=value)
    unit = page.tags.get("ResolutionUnit")
    factor = {2: 25400.0, 3: 1e4}.get(int(unit.value) if unit else 0, math.nan)
    x, y = (factor / r if r > 0 else math.nan for r in _resolution(page))
    return ome.Said(mpp_x=x, mpp_y=y)


def _resolution(page) -> tuple[float, float]:
    found = []
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        value = tag.value if tag is not None else (0, 1)
        found.append(value[0] / value[1] if value[0] and value[1] else math.nan)
    return found[0], found[1]


def _series(path: Path, tif):
    """Return the first image with its levels; without the metadata's help where that is inconsistent."""
    import tifffile

    try:
        return tif.series[0]
    except MemoryError:
        raise
    except Exception:
        try:
            plain = tifffile.TiffFile(tif.filehandle, is_ome=False, _multifile=False)
            return plain.series[0]
        except Exception as error:
            raise unreadable(path, error) from error


def _check_single(path: Path, tif, series) -> None:
    """Refuse an OME-TIFF that holds several pictures of about one size, such as the scenes of a slide."""
    if getattr(series, "kind", "") != "ome":
        return
    area = math.prod(series.shape)
    alike = [s for s in tif.series if s.kind == "ome" and math.prod(s.shape) >= area / 2]
    if len(alike) > 1:
        listed = ", ".join(f"{s.name or 'without a name'} ({' x '.join(map(str, s.shape))})" for s in alike[:6])
        hint = "Export the one of this section."
        raise refuse(path, f"{len(alike)} pictures in one file: {listed}", "one picture", hint)


def _check_set(path: Path, said: ome.Said, photometric: str) -> None:
    """Refuse a file whose metadata, or other planes, lie in other files."""
    names = ", ".join(said.named)
    if said.companion:
        raise refuse(
            path,
            f"one file of an OME-TIFF set, whose channels are described in {said.companion}",
            "one RGB image of the H&E in one file",
            _LEFT,
        )
    several = len(said.channels) > 1 or said.sizes
    if said.files and (photometric in _GREY or several):
        listed = f" with the channels {names}" if names else f" with {len(said.channels)} channels"
        kind = "fluorescence image" if len(said.channels) > 1 else "image"
        raise refuse(
            path,
            f"one of {len(said.files)} files that are one {kind} together{listed} "
            f"({', '.join(said.files[:4])}{' ...' if len(said.files) > 4 else ''})",
            "one RGB image of the H&E in one file",
            FLUORESCENCE if kind.startswith("fluor") else _LEFT,
        )


def _check_planes(path: Path, said: ome.Said, planes: dict[str, int], grey: int, colours: bool, told_rgb: bool) -> None:
    """Refuse stacks and channels.

    Parameters
    ----------
    planes
        Axis -> size, of what lies beside one another as pages.
    grey
        Grey components of a pixel, over all planes and samples.
    colours
        Whether each page holds colours.
    told_rgb
        Whether the description calls the components red, green and blue.
    """
    stacked = {axis: n for axis, n in planes.items() if axis != "C"} if (colours or said.sizes) else {}
    stacked = said.sizes or stacked
    if stacked:
        listed = ", ".join(f"{axis}={n}" for axis, n in {**planes, **stacked}.items())
        words = f" with the channels {', '.join(said.named)}" if said.named else ""
        raise refuse(path, f"a stack of planes ({listed}){words}", "one plane", _LEFT)
    if colours:
        if planes:
            raise refuse(path, f"{planes['C']} coloured images in one", "one RGB image", _LEFT)
        return
    if grey > 1 and not (told_rgb and grey in (3, 4)):
        listed = ", ".join(f"{axis}={n}" for axis, n in planes.items()) or f"{grey} samples a pixel"
        named = (
            f": {', '.join(said.named[:12])}" if said.named else ", which the file does not call red, green and blue"
        )
        raise refuse(
            path,
            f"{grey} channels ({listed}){named}",
            "one RGB image of the H&E",
            FLUORESCENCE if said.stain else f"Channels of fluorescence are no H&E. {_LEFT}",
        )
    if grey == 1 and said.stain:
        raise refuse(path, f"one grey channel: {said.stain}", "one RGB image of the H&E", FLUORESCENCE)


class TiffSource:
    """One resolution of a TIFF, read as bands of rows."""

    def __init__(self, path: Path, tif, level: int = 0):
        self.path = path
        self.said = said_by(tif)
        first = tif.pages[0]
        _check_set(path, self.said, _photometric(first))
        series = _series(path, tif)
        _check_single(path, tif, series)
        self.levels = list(getattr(series, "levels", [series])) or [series]
        chosen = self.levels[level]
        axes, shape = chosen.axes.upper(), chosen.shape
        if "Y" not in axes or "X" not in axes:
            raise refuse(path, f"axes {axes}", "a two-dimensional RGB or grey image")
        self.height, self.width = int(shape[axes.index("Y")]), int(shape[axes.index("X")])
        # later planes come as light frames without tags of their own
        self.pages = [p if hasattr(p, "planarconfig") else p.aspage() for p in chosen.pages if p is not None]
        page = self.pages[0]
        self.samples = int(page.samplesperpixel)
        self.photometric = _photometric(page)
        self._check(axes, shape)
        self.dtype = np.dtype(chosen.dtype)
        self.orientation = _tag_of(first, "Orientation", 1)
        # 72, 300 or 1200 dots per inch are a printer's word, no microscope's; converters hand them on
        x, y = (size if 0.05 < size < 20 else math.nan for size in (self.said.mpp_x, self.said.mpp_y))
        self.said_mpp = (x, y)
        self.colours = self._colours(page)
        self._check_length(tif.filehandle.size)

    def _check(self, axes: str, shape: tuple[int, ...]) -> None:
        """Refuse what is no single picture."""
        if self.photometric not in COLOURS:
            raise refuse(
                self.path,
                f"the photometric interpretation {self.photometric}",
                "RGB, grey, a palette, YCbCr, CMYK or Lab",
                "Save it as RGB.",
            )
        planes = {a: int(n) for a, n in zip(axes, shape) if a not in "YXS" and n > 1}
        count = math.prod(planes.values())
        page = self.pages[0]
        if self.samples > 1 and count == self.samples and len(self.pages) == 1:
            count = 1  # the planes of one page
        alpha = sum(int(extra) in (ASSOCIATED, UNASSOCIATED) for extra in page.extrasamples)
        colours = self.photometric not in _GREY
        said = self.said
        if colours and self.samples == 1 and count > 1 and self.photometric == "RGB":
            raise refuse(self.path, f"{count} planes of one sample each that are called RGB", "RGB", _LEFT)
        if colours and (self.samples < COLOURS[self.photometric] or self.samples > COLOURS[self.photometric] + 2):
            raise refuse(
                self.path,
                f"{self.samples} samples a pixel that are called {self.photometric}",
                f"{COLOURS[self.photometric]}, and an opacity",
                _LEFT,
            )
        grey = 0 if colours else count * max(1, self.samples - alpha)
        # some writers call any planes of one page the samples of one channel
        told = said.is_rgb and not (len(said.channels) == 1 and (said.stain or int(page.planarconfig) == 2))
        _check_planes(self.path, said, {a: n for a, n in planes.items() if count > 1}, grey, colours, told)
        self.by_planes = grey in (3, 4) and count > 1
        if self.by_planes and len(self.pages) != count:
            raise refuse(self.path, f"{count} planes in {len(self.pages)} pages", "one RGB image", _LEFT)
        if grey in (3, 4):
            self.photometric = "RGB"
        self.channels = count * self.samples if self.by_planes else self.samples

    def _colours(self, page) -> Colours:
        """Return what the samples mean."""
        n = COLOURS[self.photometric]
        extras = [] if self.by_planes else list(map(int, page.extrasamples))
        # samples that are said to be nothing are no opacity
        alpha = next((n + i for i, kind in enumerate(extras[-(self.samples - n) :] if self.samples > n else [])
                      if kind in (ASSOCIATED, UNASSOCIATED)), None)  # fmt: skip
        photometric, compression = self.photometric, int(page.compression)
        decoded = self._decoded_to_rgb(page)
        if photometric == "YCBCR" and decoded:
            photometric = "RGB"
        elif photometric == "RGB" and compression == _APERIO_YCBCR:
            photometric = "YCBCR"
        if photometric == "SEPARATED" and _tag_of(page, "InkSet", 1) != 1:
            inks = str(_tag_of(page, "InkNames", "") or "").replace("\0", ", ").strip(", ")
            raise refuse(self.path, f"inks that are not cyan, magenta, yellow and black ({inks or 'no names'})",
                         "RGB or CMYK", "Save it as RGB.")  # fmt: skip
        bits = int(page.bitspersample)
        dots = _tag_of(page, "DotRange", (0, 1))
        return Colours(
            photometric,
            bits if bits not in (8, 16, 32, 64) or photometric in ("SEPARATED", "YCBCR") else None,
            alpha,
            alpha is not None and extras[alpha - self.samples] == ASSOCIATED,
            _colormap(self.path, page) if photometric == "PALETTE" else None,
            *_ycbcr_tags(page, bits),
            inverted_inks=isinstance(dots, tuple) and dots[0] > dots[1],
        )

    def _decoded_to_rgb(self, page) -> bool:
        """Return whether the decoder gives red, green and blue by itself."""
        import tifffile

        compression = int(page.compression)
        jpeg = compression in (6, 7, 33007, 34892)
        contiguous = int(page.planarconfig) == 1
        return (
            compression in tifffile.TIFF.IMAGE_COMPRESSIONS
            and compression != _APERIO_YCBCR
            and contiguous
            and not (jpeg and page.extrasamples)
        )

    def _check_length(self, size: int) -> None:
        if min(self.width, self.height) < 1:
            raise refuse(
                self.path, f"an image of {self.width} x {self.height} pixels", "at least one", "It is damaged."
            )
        for number, page in enumerate(self.pages):
            wide, high = (page.tilewidth, page.tilelength) if page.is_tiled else (self.width, page.rowsperstrip)
            needed = math.ceil(self.width / max(1, wide)) * math.ceil(self.height / max(1, high))
            if len(page.dataoffsets) < needed and not page.is_final:
                found = f"{len(page.dataoffsets)} of {needed} pieces of the image"
                raise refuse(self.path, found, "a complete file", "It is damaged: copy or download it again.")
            ends = [o + c for o, c in zip(page.dataoffsets, page.databytecounts)]
            if ends and max(ends) > size:
                raise refuse(
                    self.path,
                    f"a truncated image (page {number} ends at byte {max(ends)}, the file at {size})",
                    "a complete file",
                    "The file is cut short: copy or download it again.",
                )

    def bands(self) -> Iterator[np.ndarray]:
        """Yield (rows, width, samples) arrays from top to bottom, one row of tiles or one strip at a time."""
        try:
            if not self.by_planes:
                yield from self._page_bands(self.pages[0])
            else:
                for parts in zip(*(self._page_bands(p) for p in self.pages), strict=True):
                    yield np.concatenate(parts, axis=2)
        except (InputError, MemoryError):
            raise
        except Exception as error:
            raise unreadable(self.path, error) from error

    def _page_bands(self, page) -> Iterator[np.ndarray]:
        planar = int(page.planarconfig) == 2 and page.samplesperpixel > 1
        if _photometric(page) == "YCBCR" and not self._decoded_to_rgb(page):
            shared = _subsampling(page)
            if shared != (1, 1):
                yield from self._subsampled_bands(page, shared)
                return
            page.subsampling = shared  # tifffile takes the default of the missing tag for granted, and gives up
        if page.is_memmappable and not page.is_tiled and not page.is_subsampled:
            # uncompressed and contiguous: the system pages in what is touched, whatever the strip size
            kind = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
            whole = np.memmap(self.path, dtype=kind, mode="r", offset=page.dataoffsets[0], shape=page.shape)
        elif planar:  # planes lie one after the other in the file; such images are rare and small
            guard(self.path, self.width, self.height)
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
            guard(self.path, self.width, rows)
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

    def _subsampled_bands(self, page, shared: tuple[int, int]) -> Iterator[np.ndarray]:
        """Yield bands of YCbCr whose colours are stored once for several pixels, in any codec but JPEG."""
        import tifffile

        if int(page.planarconfig) == 2 or int(page.predictor) != 1 or int(page.bitspersample) != 8:
            raise refuse(self.path, "YCbCr of a rare layout", "YCbCr of 8 bits, not in planes", "Save it as RGB.")
        wide = page.tilewidth if page.is_tiled else self.width
        rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, self.height)
        guard(self.path, self.width, rows)
        across = math.ceil(self.width / wide)
        unpack = tifffile.TIFF.DECOMPRESSORS[int(page.compression)]
        size = _padded(rows, wide, shared)
        for line in range(math.ceil(self.height / rows)):
            high = rows if page.is_tiled else min(rows, self.height - line * rows)
            band = np.zeros((high, self.width, 3), np.uint8)
            for column in range(across):
                number = line * across + column
                page.parent.filehandle.seek(page.dataoffsets[number])
                raw = page.parent.filehandle.read(page.databytecounts[number])
                data = raw if int(page.compression) == 1 else unpack(raw, out=size)
                left = column * wide
                band[:, left : left + wide] = spread(data, high, wide, shared)[:, : self.width - left]
            yield band[: self.height - line * rows]


def _photometric(page) -> str:
    return getattr(page.photometric, "name", str(page.photometric))


def _tag_of(page, name: str, default: Any) -> Any:
    tag = page.tags.get(name)
    value = default if tag is None else tag.value
    return int(value) if isinstance(default, int) and not isinstance(value, tuple) else value


def _colormap(path: Path, page) -> np.ndarray:
    if page.colormap is None:
        raise refuse(path, "a palette image without its colour map", "RGB", "Save it as RGB.")
    return np.asarray(page.colormap)


def _ycbcr_tags(page, bits: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the shares of the colours in Y, and the codes of black and white at 8 bits."""
    luma, reference = Colours().luma, Colours().reference
    for name, n in (("YCbCrCoefficients", 3), ("ReferenceBlackWhite", 6)):
        tag = page.tags.get(name)
        if tag is None or len(np.ravel(tag.value)) != 2 * n:
            continue
        pairs = np.asarray(tag.value, float).reshape(n, 2)
        if not (pairs[:, 1] > 0).all():
            continue
        values = tuple((pairs[:, 0] / pairs[:, 1]).tolist())
        if n == 3 and min(values) > 0:
            luma = values
        elif n == 6 and all(values[i] < values[i + 1] for i in (0, 2, 4)):
            reference = tuple(v * 255 / (2**bits - 1) for v in values)
    return luma, reference


def _subsampling(page) -> tuple[int, int]:
    """Return how many pixels across and down share one colour; the default is 2 x 2, which few writers mean."""
    tag = page.tags.get("YCbCrSubSampling")
    if tag is not None:
        return int(tag.value[0]), int(tag.value[1])
    if int(page.planarconfig) == 2:
        return 1, 1
    import tifffile

    page.parent.filehandle.seek(page.dataoffsets[0])
    raw = page.parent.filehandle.read(page.databytecounts[0])
    wide = page.tilewidth if page.is_tiled else page.imagewidth
    rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
    full = rows * wide * 3 * (int(page.bitspersample) // 8)
    plain = int(page.compression) == 1
    data = raw if plain else tifffile.TIFF.DECOMPRESSORS[int(page.compression)](raw, out=full)
    return (1, 1) if len(data) >= full else (2, 2)


def _padded(rows: int, wide: int, shared: tuple[int, int]) -> int:
    across, down = shared
    return math.ceil(rows / down) * math.ceil(wide / across) * (across * down + 2)


def spread(data: bytes, rows: int, wide: int, shared: tuple[int, int]) -> np.ndarray:
    """Return (rows, wide, 3) from units of several Y, one Cb and one Cr."""
    across, down = shared
    n_down, n_across = math.ceil(rows / down), math.ceil(wide / across)
    needed = _padded(rows, wide, shared)
    codes = np.frombuffer(data, np.uint8, count=min(len(data), needed))
    if len(codes) < needed:
        codes = np.pad(codes, (0, needed - len(codes)), constant_values=128)
    units = codes.reshape(n_down, n_across, across * down + 2)
    y = units[..., : across * down].reshape(n_down, n_across, down, across).transpose(0, 2, 1, 3)
    full = np.empty((n_down * down, n_across * across, 3), np.uint8)
    full[..., 0] = y.reshape(n_down * down, n_across * across)
    for sample in (0, 1):
        colour = units[..., across * down + sample]
        full[..., 1 + sample] = np.repeat(np.repeat(colour, down, axis=0), across, axis=1)
    return full[:rows, :wide]


def guard(path: Path, width: int, height: int) -> None:
    """Refuse to decode more than `MAX_PIXELS` in one piece."""
    if width * height > MAX_PIXELS:
        raise refuse(
            path,
            f"{width} x {height} pixels that can only be decoded in one piece",
            f"at most {MAX_PIXELS:,} pixels in one piece",
            "Save it as a tiled TIFF (vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg).",
        )


# -------------------------------------------------------------------------------------------- other sources


class PillowSource:
    """A png or jpg, decoded whole (a jpg as small as its decoder can make it without going below the target)."""

    said_mpp = (math.nan, math.nan)

    def __init__(self, path: Path, factor: float = 1.0):
        self.path = path
        self.image = open_pillow(path)
        self.full_width, self.full_height = self.image.size
        self.orientation = self._orientation()
        if self.image.format == "JPEG" and factor >= 2:
            self.image.draft("RGB", (max(1, int(self.full_width / factor)), max(1, int(self.full_height / factor))))
        self.width, self.height = self.image.size
        self.deep = self.image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
        self.colours = Colours("MINISBLACK" if self.deep else "RGB", None if self.deep else 8)
        self.dtype = np.dtype(np.float32 if self.image.mode == "F" else np.int32 if self.deep else np.uint8)

    def _orientation(self) -> int:
        try:
            return int(self.image.getexif().get(274, 1) or 1)
        except Exception:  # damaged EXIF says nothing
            return 1

    def bands(self) -> Iterator[np.ndarray]:
        """Yield (rows, width, channels) arrays from top to bottom."""
        guard(self.path, self.width, self.height)
        try:
            self.image.load()
        except MemoryError:
            raise
        except Exception as error:
            raise unreadable(self.path, error) from error
        opaque = not (self.image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in self.image.info)
        self.colours = self.colours if self.deep else Colours("RGB", 8, None if opaque else 3)
        for top in range(0, self.height, TILE):
            part = self.image.crop((0, top, self.width, min(top + TILE, self.height)))
            if self.deep:
                yield np.asarray(part)[:, :, None].astype(self.dtype)
            elif opaque:
                yield np.asarray(part.convert("RGB"))
            else:
                part = part.convert({"La": "LA", "RGBa": "RGBA"}.get(part.mode, part.mode))
                yield np.asarray(part.convert("RGBA"))


class _Embedded(EmbeddedSource):
    """An array in an HDF5 file: grey, RGB or RGBA."""

    said_mpp = (math.nan, math.nan)
    orientation = 1

    def __init__(self, image: EmbeddedImage):
        super().__init__(image)
        grey = self.channels == 1
        self.colours = Colours("MINISBLACK" if grey else "RGB", alpha=3 if self.channels == 4 else None)


def open_source(path: Path | EmbeddedImage, factor: float = 1.0):
    """Open the resolution of an image that is just finer than wanted.

    Returns
    -------
    source
        With ``width``, ``height``, ``bands()``, ``colours``, ``orientation`` and ``said_mpp``.
    handle
        What to close.
    size
        Width and height of the whole image, not turned.
    """
    if isinstance(path, EmbeddedImage):
        source = _Embedded(path)
        return source, source.file, (source.width, source.height)
    if not is_tiff(path):
        source = PillowSource(path, factor)
        return source, source.image, (source.full_width, source.full_height)
    tif = open_tiff(path)
    try:
        return _tiff_level(path, tif, factor)
    except (InputError, MemoryError):
        tif.close()
        raise
    except Exception as error:  # of tags that contradict one another
        tif.close()
        raise unreadable(path, error) from error


def _tiff_level(path: Path, tif, factor: float):
    """Choose the level of a TIFF; returns what `open_source` does."""
    base = best = TiffSource(path, tif, 0)
    for number in range(1, len(base.levels) if factor > 1 else 1):
        width = int(base.levels[number].shape[base.levels[number].axes.upper().index("X")])
        if base.width / width <= factor * 1.001:
            level = TiffSource(path, tif, number)
            best = level if level.channels == base.channels else best
    best.orientation = base.orientation
    return best, tif, (base.width, base.height)


def rgb_bands(source) -> Iterator[np.ndarray]:
    """Yield (rows, width, 3) uint8 from top to bottom."""
    divide, first = None, True
    for band in source.bands():
        if first and source.colours.needs_peak and band.dtype.kind != "b" and band.dtype != np.uint8:
            peak = max((float(np.nanmax(b)) for b in source.bands()), default=0.0)
            divide = divisor(peak, band.dtype)
        first = False
        step = max(1, AT_ONCE // max(1, band.shape[1]))
        for top in range(0, band.shape[0], step):
            yield to_rgb(band[top : top + step], source.colours, divide)
