"""The two stains of an H&E section: their colours, how dense they are, and normalisation across sections.

Light through a stained section falls off exponentially (Beer and Lambert): the optical density of a pixel,
``OD = -ln((I + 1) / (background + 1))``, is a sum of stain vectors weighted by the density of each stain. The vectors
of a section are found by the method of Macenko et al. (ISBI 2009): the stains span a plane in optical-density space,
and the most extreme directions in that plane are the pure stains. Densities divided by a section's own maximum (the
99th percentile) compare between sections; multiplied by the target's maximum and vectors they give the normalised
image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STAINS = ("haematoxylin", "eosin")

BLACK = 40
"""Below this in every channel a pixel is no stain but a mask, a slide's rim or the scanner's dark."""

GREY = 0.05
"""Below this range between the channels (in optical density) a section as good as lacks colour."""

_STRIP = 4_000_000
"""Pixels that are worked on at a time."""

_SAMPLE = 200_000
"""Pixels the stains are estimated from."""

_LEAST = 500
"""Fewer stained pixels than this say nothing about two stains."""

_FAINT = 0.15
"""Mean optical density below which a pixel is too pale to show the direction of its stain (Macenko's beta)."""

_EXTREME = 1.0
"""Percentile, from either end, of the angles taken for the pure stains (Macenko's alpha)."""

_ONE_STAIN = 8.0
"""Degrees between the two vectors below which they are one stain and noise; the sections we know have 17 to 27."""

_FAR = 30.0
"""Degrees from the reference beyond which a vector is another dye's; the sections we know have up to 23."""


@dataclass(frozen=True, eq=False)
class Stain:
    """Colours of the stains of one section.

    Attributes
    ----------
    matrix
        2 x 3, unit vectors of optical density over red, green, blue; haematoxylin, then eosin.
    maximum
        Density of each stain (99th percentile over the tissue) that counts as 1; shape (2,).
    background
        Red, green and blue of clear glass, 0 to 255; shape (3,).
    """

    matrix: np.ndarray
    maximum: np.ndarray
    background: np.ndarray

    def __post_init__(self):
        for name, shape in (("matrix", (2, 3)), ("maximum", (2,)), ("background", (3,))):
            value = np.asarray(getattr(self, name), dtype=np.float32)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"stain: {name} must hold finite numbers of shape {shape}, not {value.tolist()}")
            object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, list]:
        """Return the fields as plain lists, ready for `json.dump`."""
        return {name: getattr(self, name).astype(float).round(6).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Stain:
        """Make a stain from what `to_json` returned; other keys are ignored."""
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__})


def _unit(vectors: Any) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


REFERENCE = Stain(
    matrix=_unit([[0.650, 0.704, 0.286], [0.268, 0.905, 0.330]]),
    maximum=np.array([1.6, 1.1]),
    background=np.array([242.0, 242.0, 242.0]),
)
"""What a section falls back to, and what the contact sheets are normalised to.

Haematoxylin as Ruifrok and Johnston (2001) measured it; eosin between their pure dye, more magenta than any scan, and
what sections show.
"""


_HARDLY = 0.25
"""Share of the reference's maximum below which a section's own maximum is not believed."""


def white_point(pixels: np.ndarray, brightest: float = 0.25) -> np.ndarray:
    """Estimate the colour of clear glass.

    Parameters
    ----------
    pixels
        n x 3 uint8; those that are black are left out.
    brightest
        Share of the pixels, the brightest ones, whose median is taken.

    Returns
    -------
    array
        Red, green, blue, float32. Where even the brightest pixels have a colour (the image shows nothing but
        tissue), their strongest channel stands for all three. White (255) where every pixel is black.
    """
    pixels = pixels[pixels.max(axis=1) >= BLACK] if len(pixels) else pixels
    if not len(pixels):
        return np.full(3, 255.0, dtype=np.float32)
    light = pixels.sum(axis=1, dtype=np.int32)
    white = np.median(pixels[light >= np.quantile(light, 1 - brightest)], axis=0).astype(np.float32)
    return white if np.ptp(white) <= 0.15 * white.max() else np.full(3, white.max(), dtype=np.float32)


def optical_density(rgb: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return the optical density (natural logarithm) of each channel.

    Parameters
    ----------
    rgb
        (..., 3) uint8.
    background
        Red, green, blue of clear glass.

    Returns
    -------
    array
        (..., 3) float32; 0 for what is as bright as glass or brighter.
    """
    grey = np.arange(256, dtype=np.float32)[:, None]
    table = np.maximum(np.log(np.asarray(background, dtype=np.float32) + 1) - np.log(grey + 1), 0)
    return np.stack([table[:, channel][rgb[..., channel]] for channel in range(3)], axis=-1)


# -------------------------------------------------------------------------------------------------------- estimation


def estimate(rgb: np.ndarray, mask: np.ndarray, seed: int) -> tuple[Stain, list[str]]:
    """Find the stains of a section (Macenko et al. 2009).

    Parameters
    ----------
    rgb
        (h, w, 3) uint8.
    mask
        (h, w) bool, tissue.
    seed
        For the choice of the pixels looked at.

    Returns
    -------
    stain
        Vectors, maxima and background of this section.
    warnings
        Why the reference vectors were used instead of the section's own; empty when they were not.

    Notes
    -----
    Two departures from the paper: a pixel is too pale by its mean density, not by any one channel (blue often
    saturates), and the background is the section's own glass instead of a fixed white.
    """
    random = np.random.default_rng(seed)
    glass = _sample(rgb, ~mask, _SAMPLE // 4, random)
    tissue = _sample(rgb, mask, _SAMPLE, random)
    tissue = tissue[tissue.max(axis=1) >= BLACK]
    background = _background(glass, tissue)
    density = optical_density(tissue, background)
    matrix, problem = _vectors(density[density.mean(axis=1) >= _FAINT])
    warnings = [f"stain: {problem}; reference stain vectors are used"] if problem else []
    maximum = _maximum(density, matrix) if len(density) >= _LEAST else REFERENCE.maximum
    return Stain(matrix, maximum, background), warnings


def _sample(rgb: np.ndarray, mask: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """Draw up to n pixels of the mask, with replacement; strip by strip, as an index of all would outgrow the image."""
    spans = list(_strips(mask.shape))
    inside = np.array([np.count_nonzero(mask[rows]) for rows in spans], dtype=np.int64)
    if not inside.sum():
        return np.empty((0, 3), dtype=np.uint8)
    drawn = random.multinomial(min(n, inside.sum()), inside / inside.sum())
    parts = []
    for rows, count in zip(spans, drawn):
        if count:
            places = np.flatnonzero(mask[rows])
            at = places[random.integers(len(places), size=count)]
            parts.append(rgb[rows].reshape(-1, 3)[at])
    return np.concatenate(parts)


def _background(glass: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Take the colour of the glass around the tissue, or of the brightest tissue where there is no glass."""
    glass = glass[glass.max(axis=1) >= BLACK]
    of_tissue = white_point(tissue, brightest=0.02)
    if len(glass) < _LEAST:
        return of_tissue
    return np.maximum(white_point(glass, brightest=0.5), 1)


def _vectors(density: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the stain vectors (2 x 3) of stained pixels (n x 3), or the reference's and what is wrong."""
    if len(density) < _LEAST:
        return REFERENCE.matrix, f"only {len(density):,} pixels of tissue are stained"
    if np.median(np.ptp(density, axis=1)) < GREY:
        return REFERENCE.matrix, "the image is grey"
    _, vectors = np.linalg.eigh(np.cov(density, rowvar=False))
    # Both directions point into the tissue, so that angles are around 0 and do not wrap.
    plane = vectors[:, [2, 1]] * np.where(density.mean(axis=0) @ vectors[:, [2, 1]] < 0, -1, 1)
    projected = density @ plane
    angles = np.arctan2(projected[:, 1], projected[:, 0])
    ends = np.percentile(angles, [_EXTREME, 100 - _EXTREME])
    pure = _unit(np.maximum(np.stack([np.cos(ends), np.sin(ends)], axis=1) @ plane.T, 0))
    # Haematoxylin takes more red light than eosin does.
    pure = pure[np.argsort(-pure[:, 0])]
    apart = _degrees(pure[0], pure[1])
    if apart < _ONE_STAIN:
        return REFERENCE.matrix, f"one stain only (the extreme colours are {apart:.0f} degrees apart)"
    for name, found, expected in zip(STAINS, pure, REFERENCE.matrix):
        if (off := _degrees(found, expected)) > _FAR:
            return REFERENCE.matrix, f"no {name} (the nearest colour is {off:.0f} degrees off)"
    return pure.astype(np.float32), ""


def _degrees(one: np.ndarray, other: np.ndarray) -> float:
    return math.degrees(math.acos(min(1.0, float(one @ other))))


def _maximum(density: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return the 99th percentile of each stain; a stain that is hardly there is not blown up to a full one."""
    return np.maximum(np.percentile(_unmix(density, matrix), 99, axis=0), _HARDLY * REFERENCE.maximum)


def target(stains: Sequence[Stain]) -> Stain:
    """Return the stain that sections are normalised to: the median over the sections.

    Parameters
    ----------
    stains
        One for each section. To normalise to one section, give only that one.

    Raises
    ------
    ValueError
        There is none.
    """
    if not stains:
        raise ValueError("no stain to normalise to")

    def median(name: str) -> np.ndarray:
        return np.median([getattr(stain, name) for stain in stains], axis=0)

    return Stain(_unit(median("matrix")), median("maximum"), median("background"))


# ------------------------------------------------------------------------------------------------------- application


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Go through the rows of an image, a bounded number of pixels at a time."""
    rows = max(1, _STRIP // max(1, shape[1]))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def _unmix(density: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Split optical densities (..., 3) into the two stains (..., 2), by least squares; negative counts as none."""
    inverse = np.linalg.pinv(np.asarray(matrix, dtype=np.float64)).astype(np.float32)
    return np.maximum(density @ inverse, 0)


def densities(rgb: np.ndarray, stain: Stain, mask: np.ndarray | None = None) -> np.ndarray:
    """Return how dense each stain is, on a scale that sections share.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8.
    stain
        Of this section.
    mask
        (h, w) bool; what lies outside becomes 0. None: the whole image is tissue.

    Returns
    -------
    array
        (h, w, 2) float32: haematoxylin and eosin, 1 at the section's maximum; not cut off above.
    """
    found = np.empty((*rgb.shape[:2], 2), dtype=np.float32)
    for rows in _strips(rgb.shape):
        found[rows] = _unmix(optical_density(rgb[rows], stain.background), stain.matrix) / stain.maximum
        if mask is not None:
            found[rows][~mask[rows]] = 0
    return found


def normalise(rgb: np.ndarray, stain: Stain, target: Stain, mask: np.ndarray | None = None) -> np.ndarray:
    """Show a section as if it had been stained and scanned like the target.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8.
    stain
        Of this section.
    target
        See `target`.
    mask
        (h, w) bool; what lies outside (glass, black surroundings) becomes the target's background. None: the
        whole image is tissue.

    Returns
    -------
    array
        (h, w, 3) uint8. Colours that neither stain explains (ink, pigment) do not survive.
    """
    shown = np.empty_like(rgb)
    for rows in _strips(rgb.shape):
        found = densities(rgb[rows], stain, None if mask is None else mask[rows]) * target.maximum
        light = np.exp(-(found @ target.matrix)) * (target.background + 1) - 1
        shown[rows] = np.clip(np.rint(light), 0, 255)
    return shown
