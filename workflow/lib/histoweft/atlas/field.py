"""Where a voxel lies, by inverting smooth fields: the place that would have such an expression."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from histoweft.splits import Fold

_log = logging.getLogger(__name__)

FUNCTIONS = 700
"""Smooth functions of position that a field is made of, at most."""
MARGIN = 0.15
"""How much larger than the organ the box of the functions is at each end: cosines are flat at the ends of their box.
This and the lengths are shares of the size of the organ, the geometric mean of its sides."""
LENGTHS = (0.1, 0.15, 0.2, 0.3, 0.4)
"""Lengths of the fields to choose from."""
CLOSE = 1.5
"""Lengths are used whose error on the inner folds is at most so many times that of the best."""
TEMPERATURES = (3.0, 10.0, 30.0)
"""How much the evidence of the components, which are not independent, is tempered; to choose from."""

_NOISE = 1e-4
"""Penalty of the smoothest function, for each training voxel."""
_MOST_PLACES = 70_000
_PROBES = 1_000
"""Held-out training voxels of each inner fold that the choices are made on, at most."""
_ROWS = 500


@dataclass(frozen=True)
class Cosines:
    """Products of cosines along the three axes of a box, those of the lowest frequencies.

    Attributes
    ----------
    low, size
        Corner and sides of the box, voxels.
    waves
        functions x 3: half-waves along each axis.
    frequency
        Of each function, in waves a voxel.
    """

    low: np.ndarray
    size: np.ndarray
    waves: np.ndarray
    frequency: np.ndarray

    @classmethod
    def around(cls, low: np.ndarray, high: np.ndarray, n: int = FUNCTIONS) -> Cosines:
        """Lay a box with a margin around two corners and take the `n` functions of the lowest frequencies."""
        margin = MARGIN * size_of(low, high)
        size = high - low + 2 * margin
        low = low - margin
        # Along one axis no more half-waves than the functions there would be in a cube of that many.
        most = np.maximum(1, np.ceil(2 * size * (n / size.prod()) ** (1 / 3)).astype(int))
        waves = np.array(list(itertools.product(*(range(limit + 1) for limit in most))))
        frequency = np.linalg.norm(waves / (2 * size), axis=1)
        kept = np.argsort(frequency, kind="stable")[:n]
        return cls(low, size, waves[kept], frequency[kept])

    def at(self, position: np.ndarray) -> np.ndarray:
        """Return the functions at positions, positions x functions, float32."""
        found = np.ones((len(position), len(self.waves)), dtype=np.float32)
        for axis in range(3):
            angle = np.pi * (position[:, axis] - self.low[axis]) / self.size[axis]
            table = np.cos(np.outer(angle, np.arange(self.waves[:, axis].max() + 1))).astype(np.float32)
            found *= table[:, self.waves[:, axis]]
        return found

    def penalty(self, length: float) -> np.ndarray:
        """Return the prior precision of each function: the inverse spectrum of a Matern field, up to a factor."""
        return (1 + (2 * np.pi * self.frequency * length) ** 2) ** 2.5


@dataclass(frozen=True)
class Chart:
    """Fields of the components over the organ, ready to be inverted.

    Attributes
    ----------
    basis
        Functions of the folded position.
    maps
        One for each length of the fields that is used.
    places
        candidates x 3, folded.
    mean
        Of the scores, (components,).
    error
        Mean distance of the inner held-out voxels with the best length, voxels.
    """

    basis: Cosines
    maps: list[Map]
    places: np.ndarray
    mean: np.ndarray
    error: float

    def locate(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Find where voxels lie.

        Parameters
        ----------
        scores
            rows x components.

        Returns
        -------
        position
            rows x 3, folded: the posterior mean, averaged over the maps.
        side
            rows, 1 from the midline on, -1 before; None where the halves were not told apart.
        """
        functions = self.basis.at(self.places)
        centred = scores - self.mean
        place, evidence = np.zeros((len(scores), 3)), np.zeros(len(scores))
        for one in self.maps:
            white = centred @ one.whiten
            expected = functions @ (one.weights @ one.whiten)
            found = _locate(white, expected, self.places, [one.temperature])[0]
            place += found / len(self.maps)
            if one.sides is not None:
                evidence += one.side_evidence(white, self.basis.at(found))
        return place.astype(np.float32), None if self.maps[0].sides is None else np.where(evidence >= 0, 1, -1)


@dataclass(frozen=True)
class Map:
    """Fields of one length.

    Attributes
    ----------
    length, error, temperature
        In voxels; the mean distance of inner held-out voxels at the best of `TEMPERATURES`; which that is.
    weights
        functions x components: what both halves share.
    sides
        functions x components: what is added on one side and taken away on the other; None without a midline.
    whiten
        components x components: makes the residual white.
    """

    length: float
    error: float
    temperature: float
    weights: np.ndarray
    sides: np.ndarray | None
    whiten: np.ndarray

    def side_evidence(self, white: np.ndarray, functions: np.ndarray) -> np.ndarray:
        """Return the evidence for the side beyond the midline at places, positive or negative, rows."""
        shared, added = functions @ (self.weights @ self.whiten), functions @ (self.sides @ self.whiten)
        return np.einsum("ij,ij->i", white - shared, added)


def size_of(low: np.ndarray, high: np.ndarray) -> float:
    """Return the geometric mean of the sides of a box, a flat side counting as one voxel."""
    return float(np.prod(np.maximum(high - low, 1.0)) ** (1 / 3))


def spacing_of(low: np.ndarray, high: np.ndarray) -> float:
    """Return the distance between candidate places: a voxel, or what keeps their number in bounds."""
    return max(1.0, size_of(low, high) / _MOST_PLACES ** (1 / 3))


def fit_chart(
    scores: np.ndarray,
    folded: np.ndarray,
    inner: Sequence[Fold],
    low: np.ndarray,
    high: np.ndarray,
    spacing: float = 1.0,
    side: np.ndarray | None = None,
) -> Chart:
    """Fit smooth fields to component scores, and choose their lengths and temperature on inner folds.

    Parameters
    ----------
    scores
        training voxels x components.
    folded
        Their positions with the two halves laid onto one another, training voxels x 3, voxels.
    inner
        Folds of the training voxels, cut as the tested fold is cut: what is to be bridged there must be bridged here.
    low, high
        Corners of the atlas, folded. Candidate places fill this box: its size is told (the grid of an atlas is known,
        and the classes of Spatial-VAE tell it as well), the outline of the organ in it is not.
    spacing
        Distance between candidate places, voxels.
    side
        1 for training voxels beyond the midline, -1 for the others; None for an organ without halves.

    Returns
    -------
    Chart

    Notes
    -----
    Each component is a Gaussian process over the organ in a basis of cosines (Solin and Sarkka 2020),
    fitted by ridge regression with the inverse spectrum as penalty. A voxel's place then follows by Bayes' rule with
    a flat prior and a normal residual. Its covariance is taken from inner held-out voxels, and so contains what the
    field fails to carry over into parts it has not seen: components that cannot be bridged (a structure of its own)
    count for little.

    Places are averaged over all lengths that do about as well as the best (`CLOSE`): inner folds cannot tell how far a
    field can be trusted beyond all that was seen, and the lengths err in different ways there.
    """
    basis = Cosines.around(low, high)
    mean = scores.mean(axis=0)
    centred = (scores - mean).astype(np.float32)
    functions = basis.at(folded)
    whole = _products(functions, centred)
    parts = [_products(functions[fold.train], centred[fold.train]) for fold in inner]
    places = _places(low, high, 2 * spacing)
    coarse = places, basis.at(places)
    opposite = None if side is None else (functions.T @ (centred * side[:, None])).astype(np.float64)
    maps = []
    for length in np.multiply(LENGTHS, size_of(low, high)).tolist():
        penalty = basis.penalty(length)
        weights = [_solve(*part, penalty, len(fold.train)) for part, fold in zip(parts, inner, strict=True)]
        errors, whiten = _try(functions, centred, folded, inner, weights, coarse)
        at = int(errors.argmin())
        fitted = _solve(*whole, penalty, len(scores))
        sides = None if side is None else _solve(whole[0], opposite, penalty, len(scores))
        maps.append(Map(length, float(errors[at]), TEMPERATURES[at], fitted, sides, whiten))
        _log.info("fields of length %.3g: %.2f voxels on inner folds", length, errors[at])
    error = min(one.error for one in maps)
    kept = [one for one in maps if one.error <= CLOSE * error]
    return Chart(basis, kept, _places(low, high, spacing), mean, error)


def _try(functions, centred, folded, inner, weights, coarse) -> tuple[np.ndarray, np.ndarray]:
    """Locate inner held-out voxels; return the mean error at each temperature, and the whitening of all residuals."""
    places, outer = coarse
    residuals = [
        centred[fold.test] - functions[fold.test] @ weight for fold, weight in zip(inner, weights, strict=True)
    ]
    errors = np.zeros(len(TEMPERATURES))
    for number, (fold, weight) in enumerate(zip(inner, weights, strict=True)):
        # What a part's own residuals look like is not known where a part is unseen.
        whiten = _whitening(np.concatenate(residuals[:number] + residuals[number + 1 :]))
        probes = fold.test[:: max(1, len(fold.test) // _PROBES)]
        guesses = _locate(centred[probes] @ whiten, outer @ (weight @ whiten), places, TEMPERATURES)
        errors += [np.linalg.norm(guess - folded[probes], axis=1).mean() for guess in guesses]
    return errors / len(inner), _whitening(np.concatenate(residuals))


def _products(functions: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (functions.T @ functions).astype(np.float64), (functions.T @ values).astype(np.float64)


def _solve(gram: np.ndarray, products: np.ndarray, penalty: np.ndarray, n: int) -> np.ndarray:
    from scipy.linalg import solve

    return solve(gram + np.diag(_NOISE * n * penalty), products, assume_a="pos").astype(np.float32)


def _whitening(residual: np.ndarray) -> np.ndarray:
    """Return what makes a residual white: the inverse square root of its covariance, slightly shrunk."""
    covariance = np.cov(residual.T.astype(np.float64))
    covariance = np.atleast_2d(covariance)
    size, axes = np.linalg.eigh(covariance)
    size = size + 1e-3 * size.mean()
    return (axes / np.sqrt(size)).astype(np.float32)


def _places(low: np.ndarray, high: np.ndarray, spacing: float) -> np.ndarray:
    axes = [np.arange(low[axis], high[axis] + spacing, spacing) for axis in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)


def _locate(points, expected, places, temperatures) -> list[np.ndarray]:
    """Return the posterior mean position of whitened points at each temperature."""
    found = [np.empty((len(points), 3), dtype=np.float32) for _ in temperatures]
    half = 0.5 * np.einsum("ij,ij->i", expected, expected)
    for start in range(0, len(points), _ROWS):
        evidence = points[start : start + _ROWS] @ expected.T
        evidence -= half
        evidence -= evidence.max(axis=1, keepdims=True)
        for guesses, temperature in zip(found, temperatures, strict=True):
            weight = np.exp(evidence / temperature)
            guesses[start : start + len(weight)] = (weight @ places) / weight.sum(axis=1, keepdims=True)
    return found
