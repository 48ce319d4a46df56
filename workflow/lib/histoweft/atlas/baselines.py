"""What a model has to beat: for expression PCA of the same latent, for the place ridge and nearest neighbours on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from histoweft.floors import Ridge
from histoweft.splits import Fold

NEIGHBOURS = (1, 5, 15, 50)
"""Numbers of neighbours to choose from."""

_PROBES = 1_000
"""Held-out training voxels of each inner fold that the number of neighbours is chosen on, at most."""
_ROWS = 500


def ridge_place(scores: np.ndarray, position: np.ndarray, inner: Sequence[Fold], asked: np.ndarray) -> np.ndarray:
    """Predict positions by ridge regression on component scores.

    Parameters
    ----------
    scores, position
        training voxels x components, and x 3.
    inner
        Folds of the training voxels for the penalty, chosen by squared error.
    asked
        voxels x components.

    Returns
    -------
    voxels x 3.
    """
    return Ridge(inner, criterion="mse").fit(scores, position.astype(np.float64)).predict(asked)


def nearest_place(scores: np.ndarray, position: np.ndarray, inner: Sequence[Fold], asked: np.ndarray) -> np.ndarray:
    """Predict the mean position of the training voxels nearest in component scores.

    The number of neighbours, of `NEIGHBOURS`, is chosen by the mean distance on the inner folds. For the arguments see
    `ridge_place`.
    """
    errors = np.zeros(len(NEIGHBOURS))
    for fold in inner:
        probes = fold.test[:: max(1, len(fold.test) // _PROBES)]
        guesses = _neighbour_means(scores[fold.train], position[fold.train], scores[probes], NEIGHBOURS)
        errors += [np.linalg.norm(guess - position[probes], axis=1).mean() for guess in guesses]
    k = NEIGHBOURS[int(errors.argmin())]
    return _neighbour_means(scores, position, asked, (k,))[0]


def has_twins(scores: np.ndarray, inner: Sequence[Fold], asked: np.ndarray, seed: int = 0) -> bool:
    """Return whether voxels have twins among the training voxels, by expression alone.

    Their median distance to the nearest training voxel is compared, as a ratio, with that of training voxels to one
    another (twins: neighbours, the mirrored half) and with that of inner folds to the rest (regions of which nothing
    was seen). No place is looked at.

    Parameters
    ----------
    scores, asked
        training and asked voxels x components.
    inner
        Folds of the training voxels that hold out whole regions.
    seed
        Of the sample.
    """
    rng = np.random.default_rng(seed)

    def sampled(n, most=_PROBES):
        return np.sort(rng.choice(n, min(n, most), replace=False))

    # The nearest of a training voxel is itself.
    close = _nearest_distance(scores, scores[sampled(len(scores))], 1)
    each = max(1, _PROBES // max(1, len(inner)))
    regions = [(fold.train, fold.test[sampled(len(fold.test), each)]) for fold in inner]
    far = np.concatenate([_nearest_distance(scores[train], scores[test]) for train, test in regions])
    found = _nearest_distance(scores, asked[sampled(len(asked))])
    near, away, here = (np.log(max(float(np.median(one)), 1e-12)) for one in (close, far, found))
    return here - near < away - here


def _nearest_distance(known: np.ndarray, asked: np.ndarray, rank: int = 0) -> np.ndarray:
    """Return the distance of each row to the nearest known one, or to that after the first `rank`."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=rank + 1, algorithm="brute").fit(known)
    return search.kneighbors(asked)[0][:, rank]


def _neighbour_means(known, position, asked, numbers) -> list[np.ndarray]:
    """Return the mean position of the k nearest known rows, for each k; exact, by matrix products."""
    known, asked = known.astype(np.float32), asked.astype(np.float32)
    half = 0.5 * np.einsum("ij,ij->i", known, known)
    most = min(max(numbers), len(known))
    found = [np.empty((len(asked), position.shape[1]), dtype=np.float32) for _ in numbers]
    for start in range(0, len(asked), _ROWS):
        nearness = asked[start : start + _ROWS] @ known.T - half
        near = np.argpartition(-nearness, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(nearness, near, axis=1), axis=1)
        near = np.take_along_axis(near, order, axis=1)
        for guesses, k in zip(found, numbers, strict=True):
            guesses[start : start + len(near)] = position[near[:, :k]].mean(axis=1)
    return found


def classify(latent: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Tell classes by linear discriminant analysis on a latent.

    Parameters
    ----------
    latent
        training voxels x dimensions.
    labels
        Class of each training voxel.
    asked
        voxels x dimensions.

    Returns
    -------
    Class of each voxel asked about. Only classes of the training voxels can be told.
    """
    classes, directions, offset = discriminant(latent, labels)
    return classes[(asked @ directions + offset).argmax(axis=1)]


def discriminant(latent: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit linear discriminants with one common covariance (Fisher 1936).

    Returns
    -------
    classes
        (classes,).
    directions, offset
        dimensions x classes, and (classes,): ``latent @ directions + offset`` is the log odds of the classes, up to a
        number of each voxel.
    """
    classes, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes).astype(float)
    latent = latent.astype(np.float64)
    means = np.zeros((len(classes), latent.shape[1]))
    np.add.at(means, codes, latent)
    means /= counts[:, None]
    within = latent - means[codes]
    covariance = within.T @ within / len(latent)
    covariance[np.diag_indices_from(covariance)] += 1e-3 * np.trace(covariance) / len(covariance) + 1e-12
    directions = np.linalg.solve(covariance, means.T)
    offset = np.log(counts / counts.sum()) - 0.5 * np.einsum("ij,ji->i", means, directions)
    return classes, directions, offset
