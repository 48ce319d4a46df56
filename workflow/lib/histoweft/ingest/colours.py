"""What the numbers of a pixel mean, and the red, green and blue they stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

COLOURS = {
    "MINISBLACK": 1, "MINISWHITE": 1, "PALETTE": 1, "RGB": 3, "YCBCR": 3, "CIELAB": 3, "ICCLAB": 3, "SEPARATED": 4,
}  # fmt: skip
"""Samples that hold the colour, by photometric interpretation; further ones are alpha or something else."""

_D50_TO_SRGB = np.array(
    [
        [3.1338561, -1.6168667, -0.4906146],
        [-0.9787684, 1.9161415, 0.0334540],
        [0.0719453, -0.2289914, 1.4052427],
    ],
    np.float32,
)
"""From XYZ under D50, the white of Lab images, to linear sRGB (Bradford adaptation)."""
_D50 = np.array([0.96422, 1.0, 0.82521], np.float32)

ASSOCIATED, UNASSOCIATED = 1, 2


@dataclass(frozen=True)
class Colours:
    """How the samples of a pixel are to be taken.

    Parameters
    ----------
    photometric
        One of `COLOURS`.
    bits
        Bits a sample; None: the brightest pixel tells.
    alpha
        Which sample is the opacity; None without one.
    associated
        Whether the colours have been multiplied with it already.
    colormap
        (3, n) uint16, of a palette.
    luma
        Shares of red, green and blue in Y (YCbCr).
    reference
        Codes of black and white of Y, Cb and Cr at 8 bits.
    inverted_inks
        Whether the highest code stands for no ink.
    """

    photometric: str = "RGB"
    bits: int | None = None
    alpha: int | None = None
    associated: bool = False
    colormap: np.ndarray | None = None
    luma: tuple[float, ...] = (0.299, 0.587, 0.114)
    reference: tuple[float, ...] = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
    inverted_inks: bool = False

    @property
    def needs_peak(self) -> bool:
        """Whether the brightest pixel says how many bits are used (instruments write 12 bits into 16)."""
        return self.photometric in ("RGB", "MINISBLACK", "MINISWHITE") and self.bits is None


def divisor(peak: float, kind: np.dtype) -> float:
    """Return by what values are divided to lie between 0 and 255, from the brightest one."""
    if kind.kind == "f":
        # 0 to 1, 0 to 255 or 0 to 65535, whichever holds it
        return next((top / 255 for top in (1.0, 255.0, 65535.0) if peak <= top), peak / 255)
    bits = max(8, math.ceil(math.log2(peak + 1))) if peak > 0 else 8
    return float((2 ** (bits + bits % 2 if bits > 8 else 8) - 1) / 255)


def to_rgb(band: np.ndarray, colours: Colours, divide: float | None = None) -> np.ndarray:
    """Return (rows, width, 3) uint8, transparent pixels on white.

    Parameters
    ----------
    band
        (rows, width, samples) of any number type.
    colours
        What the samples are.
    divide
        From `divisor`; None: by the bits a sample has.
    """
    if divide is None:
        bits = colours.bits or (1 if band.dtype == bool else 8 * band.dtype.itemsize)
        divide = (2**bits - 1) / 255 if band.dtype.kind != "f" else 1 / 255
    n = COLOURS[colours.photometric]
    if colours.photometric == "PALETTE":
        rgb = _palette(band[..., 0], colours.colormap)
    elif colours.photometric in ("CIELAB", "ICCLAB"):
        rgb = _lab(band[..., :3], colours.photometric == "ICCLAB")
    else:
        codes = eight_bits(band[..., :n], divide)
        rgb = _FROM_CODES[colours.photometric](codes, colours)
    if colours.alpha is None:
        return rgb
    return _on_white(rgb, eight_bits(band[..., colours.alpha : colours.alpha + 1], divide), colours)


def eight_bits(values: np.ndarray, divide: float) -> np.ndarray:
    """Return values divided, rounded and cut to 0 to 255."""
    if values.dtype == np.uint8 and divide == 1.0:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
    return np.clip(values / divide + 0.5, 0, 255).astype(np.uint8)


def _on_white(rgb: np.ndarray, alpha: np.ndarray, colours: Colours) -> np.ndarray:
    opacity = alpha.astype(np.uint16)
    if not colours.associated:
        return ((rgb * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
    if colours.photometric == "MINISWHITE":  # darkness was multiplied: no darkness is white already
        return rgb
    return np.minimum(rgb + (255 - opacity), 255).astype(np.uint8)


def _palette(index: np.ndarray, colormap: np.ndarray) -> np.ndarray:
    deep = int(colormap.max()) > 255  # some writers fill the 16 bits of a colour map with 8
    table = (colormap >> 8 if deep else colormap).astype(np.uint8)
    return np.ascontiguousarray(table[:, np.minimum(index, table.shape[1] - 1)].transpose(1, 2, 0))


def _grey(codes: np.ndarray, colours: Colours) -> np.ndarray:
    return np.repeat(255 - codes if colours.photometric == "MINISWHITE" else codes, 3, axis=2)


def _inks(codes: np.ndarray, colours: Colours) -> np.ndarray:
    """Mix cyan, magenta, yellow and black as light that each lets through."""
    light = (codes if colours.inverted_inks else 255 - codes).astype(np.uint16)
    return ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)


def _ycbcr(codes: np.ndarray, colours: Colours) -> np.ndarray:
    red, green, blue = colours.luma
    black_y, white_y, black_b, white_b, black_r, white_r = colours.reference
    part = codes.astype(np.float32)
    y = (part[..., 0] - black_y) * (255 / (white_y - black_y))
    cb = (part[..., 1] - black_b) * (127 / (white_b - black_b))
    cr = (part[..., 2] - black_r) * (127 / (white_r - black_r))
    r = cr * (2 - 2 * red) + y
    b = cb * (2 - 2 * blue) + y
    g = (y - blue * b - red * r) / green
    return np.clip(np.stack([r, g, b], axis=2) + 0.5, 0, 255).astype(np.uint8)


def _lab(band: np.ndarray, icc: bool) -> np.ndarray:
    """Convert CIE L*a*b*; a and b are signed in CIELAB and shifted by half in ICCLAB."""
    bits = 8 * band.dtype.itemsize
    if band.dtype.kind == "f":
        lightness, ab = band[..., 0].astype(np.float32), band[..., 1:].astype(np.float32)
    else:
        unsigned = band.view(f"u{band.dtype.itemsize}") if band.dtype.kind == "i" else band
        top = 65280.0 if icc and bits == 16 else 2.0**bits - 1
        lightness = unsigned[..., 0].astype(np.float32) * (100 / top)
        ab = unsigned[..., 1:].astype(np.float32)
        half = 2.0 ** (bits - 1)
        ab = (ab - half if icc else np.where(ab >= half, ab - 2 * half, ab)) / 2.0 ** (bits - 8)
    f = np.empty((*band.shape[:2], 3), np.float32)
    f[..., 1] = (lightness + 16) / 116
    f[..., 0], f[..., 2] = f[..., 1] + ab[..., 0] / 500, f[..., 1] - ab[..., 1] / 200
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * (3 * (6 / 29) ** 2)) * _D50
    linear = np.clip(xyz @ _D50_TO_SRGB.T, 0, 1)
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (shown * 255 + 0.5).astype(np.uint8)


_FROM_CODES = {
    "RGB": lambda codes, colours: codes,
    "MINISBLACK": _grey,
    "MINISWHITE": _grey,
    "SEPARATED": _inks,
    "YCBCR": _ycbcr,
}
