"""Random streams and smooth random fields that every other module of the simulator draws from."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np


def stream(seed: int, *names: str) -> np.random.Generator:
    """Return the generator that belongs to `names`.

    Each part of the simulation has a stream of its own, so switching one effect off leaves the others' draws alone.
    """
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


@dataclass(frozen=True)
class Field:
    """A smooth random function of the plane with mean 0 and variance 1: a sum of plane waves.

    Parameters
    ----------
    vectors
        Wave vectors in radians per micrometre, n_waves x 2.
    phases
        One phase a wave, in radians.
    """

    vectors: np.ndarray
    phases: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, wavelength_um: float, waves: int = 16) -> Field:
        """Draw a field whose features are about half of `wavelength_um` wide."""
        angle = rng.uniform(0, 2 * np.pi, waves)
        length = 2 * np.pi / wavelength_um * rng.uniform(0.5, 1.3, waves)
        vectors = np.column_stack([np.cos(angle), np.sin(angle)]) * length[:, None]
        return cls(vectors, rng.uniform(0, 2 * np.pi, waves))

    def __call__(self, xy: np.ndarray) -> np.ndarray:
        """Return the value at each point of `xy` (n x 2, micrometres)."""
        # single precision is plenty for a texture and several times faster
        angle = xy.astype(np.float32) @ self.vectors.T.astype(np.float32) + self.phases.astype(np.float32)
        return np.cos(angle).sum(1).astype(float) * np.sqrt(2 / len(self.phases))
