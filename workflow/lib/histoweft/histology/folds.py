"""Which spots are held out of which fit, and the models and baselines fitted on the rest."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from histoweft import floors, splits
from histoweft.floors import Factored, TargetComponents
from histoweft.histology.spots import Spots
from histoweft.metrics import column_pearson
from histoweft.places import spacing
from histoweft.splits import Fold

if TYPE_CHECKING:
    from histoweft.histology.network import Model, Options
    from histoweft.training import Run

COMPONENTS = 40
"""Components of expression that models predict."""

MEMBER_PARTS = 8
"""Inner parts; each member of the ensemble leaves one out."""

NEIGHBOURS = (4, 8, 16, 32)
EXTRA = 12
"""Leading components of the neighbours' expression that the network sees beside the image."""

PATCH_LEVELS = 4
"""Grids that belong to the patch under the spot; the coarser ones are its context."""

_TREES = 12
"""Leading components that the boosted trees of the bar are fitted to."""


def across(spots: Spots, groups: dict[str, str], held_out: Sequence[str]) -> Fold:
    """Hold out whole sections, and with each of them all sections of its group.

    Parameters
    ----------
    spots
        All sections.
    groups
        Sample to what must not lie on both sides: its patient, or the sample itself.
    held_out
        Groups that are tested.

    Raises
    ------
    HistoweftError
        Nothing is left on one side.
    """
    names = np.array([groups[sample] for sample in spots.samples], dtype=object)[spots.section]
    tested = np.isin(names, list(held_out))
    fold = Fold("+".join(held_out), np.flatnonzero(~tested), np.flatnonzero(tested))
    splits.audit([fold], len(names), groups=names)
    return fold


def within(spots: Spots, protocol: str, n_folds: int, buffer_spots: float, seed: int) -> list[Fold]:
    """Cut one section into contiguous blocks, or at random.

    Parameters
    ----------
    spots
        Of one section.
    protocol
        ``block`` or ``random``.
    n_folds
        Number of folds.
    buffer_spots
        Width of the buffer around a block, in distances between neighbouring spots.
    seed
        Of the random folds.
    """
    if protocol == "random":
        return splits.random_folds(len(spots.xy), n_folds, seed)
    buffer = buffer_spots * spacing(spots.xy)
    folds = splits.blocks(spots.xy, n_folds, buffer)
    splits.audit(folds, len(spots.xy), xy=spots.xy, buffer_um=buffer)
    return folds


@dataclass(frozen=True)
class Target:
    """What is learned in one fold: everything here comes from the training spots.

    Attributes
    ----------
    fold
        Rows.
    median_total
        Median total count of the training spots.
    expression
        training spots x genes, log-normalised.
    components
        Of `expression`.
    scores
        Component scores with each section's mean taken out, training spots x components: what differs between
        sections is no matter of the image.
    inner
        Folds of the training rows for hyper-parameters.
    parts
        Contiguous inner part of each training spot.
    """

    fold: Fold
    median_total: float
    expression: sp.csr_matrix
    components: TargetComponents
    scores: np.ndarray
    inner: list[Fold]
    parts: np.ndarray

    def decompress(self, scores: np.ndarray) -> Factored:
        """Turn scores, spots x components, into predictions of all genes."""
        return self.components.decompress(scores)


def target(spots: Spots, fold: Fold, n_components: int = COMPONENTS, seed: int = 0) -> Target:
    """Prepare what is learned in a fold."""
    train = fold.train
    section = spots.section[train]
    median = float(np.median(spots.totals[train]))
    expression = spots.normalised(median, train)
    parts = floors.components(expression, n_components, seed)
    scores = parts.scores.copy()
    for number in np.unique(section):
        scores[section == number] -= scores[section == number].mean(axis=0)
    inner = splits.inner_folds(spots.xy[train], section)
    return Target(fold, median, expression, parts, scores, inner, _parts(spots.xy[train], section))


def _parts(xy: np.ndarray, section: np.ndarray) -> np.ndarray:
    found = np.zeros(len(xy), dtype=int)
    for number in np.unique(section):
        rows = np.flatnonzero(section == number)
        found[rows] = splits.partition(xy[rows], min(MEMBER_PARTS, len(rows)))
    return found


# ----------------------------------------------------------------------------------- neighbours in serial sections


@dataclass(frozen=True)
class Neighbours:
    """Expression of the training spots nearest in registered position.

    Attributes
    ----------
    k
        Neighbours, chosen on the training sections.
    train, test
        Mean component scores over them, spots x components. A training spot is given neighbours of the other training
        sections of its frame; of its own section, without itself, where there is no other.
    gain
        What each component's neighbourhood mean counts as the spot's own, (components,), 0 to 1: the square root of the
        slope of one on the other, which noise in the neighbours flattens.
    """

    k: int
    train: np.ndarray
    test: np.ndarray
    gain: np.ndarray


def serial(spots: Spots, goal: Target) -> Neighbours | None:
    """Look up the neighbours of every spot in the training sections it was registered with.

    Returns
    -------
    Neighbours, or None where a test spot has no training spot in its frame.
    """
    train, test = goal.fold.train, goal.fold.test
    frames = set(spots.frame[test])
    if "" in frames or not frames <= set(spots.frame[train]):
        return None
    given = [_leave_section_out(spots, train, goal.scores, k) for k in NEIGHBOURS]
    fits = [agreement(goal.scores, one) for one in given]
    best = int(np.argmax(fits))
    known = given[best]
    products, squares = (goal.scores * known).sum(axis=0), (known**2).sum(axis=0)
    gain = np.sqrt(np.clip(np.divide(products, squares, out=np.zeros_like(products), where=squares > 0), 0, 1))
    k = NEIGHBOURS[best]
    near = np.zeros((len(test), goal.scores.shape[1]), dtype=np.float32)
    for frame in frames:
        to, of = spots.frame[test] == frame, spots.frame[train] == frame
        near[to] = _mean_of(spots.registered[train[of]], goal.scores[of], spots.registered[test[to]], k)
    return Neighbours(k, known, near, gain)


def _leave_section_out(spots: Spots, train: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    found = np.zeros_like(scores)
    section, frame = spots.section[train], spots.frame[train]
    for number in np.unique(section):
        own = section == number
        if frame[own][0] == "":
            continue
        others = (frame == frame[own][0]) & ~own
        xy = spots.registered[train[own]]
        if others.any():
            # As dense as what a test spot will see: all training sections of the frame, one fewer here.
            fewer = max(1, round(k * others.sum() / (others.sum() + own.sum())))
            found[own] = _mean_of(spots.registered[train[others]], scores[others], xy, fewer)
        else:
            found[own] = _mean_of(xy, scores[own], xy, k, without_self=True)
    return found


def _mean_of(known_xy, known, xy, k: int, without_self: bool = False) -> np.ndarray:
    from scipy.spatial import cKDTree

    k = min(k, len(known_xy) - without_self)
    near = cKDTree(known_xy).query(xy, [*range(1 + without_self, k + 1 + without_self)])[1]
    return known[near].mean(axis=1)


def agreement(truth: np.ndarray, given: np.ndarray) -> float:
    """Correlation of components, weighted by their variance."""
    variance = truth.var(axis=0)
    return float((column_pearson(truth, given) * variance).sum() / variance.sum())


# ------------------------------------------------------------------------------------------------- models and floors


def fit_context(
    spots: Spots,
    goal: Target,
    options: Options,
    *,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    neighbours: Neighbours | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> tuple[Model, Run]:
    """Fit the default model on the training spots of a fold.

    Parameters
    ----------
    spots, goal
        Spots, and what is learned.
    options
        `network.Options`.
    seed, device, threads, checkpoint
        See `training.fit`.
    neighbours
        Serial sections' expression at the registered position: the network then starts from it and learns the rest.

    Returns
    -------
    model
        `network.Model`; with `neighbours` its network also wants their leading components.
    run
        `training.Run`.
    """
    from histoweft.histology import network

    train = goal.fold.train
    pixels, means = spots.pixels[train], spots.means[train]
    extra, wanted = np.zeros((len(train), 0), dtype=np.float32), goal.scores
    share = options.ridge_share
    if neighbours is not None:
        extra, wanted, share = _extra(neighbours.train, goal), goal.scores - neighbours.gain * neighbours.train, 0.0
    data = network.Data(pixels, extra, wanted.astype(np.float32), goal.parts)
    facts = f"{goal.fold.name}:{len(train)}:{float(np.abs(wanted).sum()):.6g}"
    net, run = network.train(
        data, options, seed=seed, device=device, threads=threads, checkpoint=checkpoint, fingerprint=facts
    )
    coefficients, offset = _linear(means, goal, share)
    model = network.Model(
        net, data.scale, coefficients, offset, share, goal.components.axes, goal.components.mean,
        list(map(str, spots.genes)), list(spots.features),
    )  # fmt: skip
    return model, run


def _extra(given: np.ndarray, goal: Target) -> np.ndarray:
    return (given / (goal.scores.std(axis=0) + 1e-6))[:, :EXTRA].astype(np.float32)


def _linear(means: np.ndarray, goal: Target, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the ridge's coefficients and offset on standardised features; zeros where it has no share."""
    d, outputs = means.shape[1], goal.scores.shape[1]
    if share == 0:
        return np.zeros((d, outputs), dtype=np.float32), np.zeros(outputs, dtype=np.float32)
    ridge = floors.Ridge(goal.inner).fit(means, goal.scores)
    offset = ridge.predict(np.zeros((1, d)))[0]
    return ridge.predict(np.eye(d)) - offset, offset


def predict_context(
    model: Model, pixels: np.ndarray, device: str = "cpu", neighbours: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Predict component scores of spots: the mean over the points of their footprints.

    Parameters
    ----------
    model
        Of `fit_context`.
    pixels
        spots x points x features.
    device
        Of the networks.
    neighbours
        (extra columns, starting scores) of the spots, for a model that was fitted with neighbours.

    Returns
    -------
    spots x components, float32.
    """
    from histoweft.histology import network

    n, points, _ = pixels.shape
    found = []
    for rows in np.array_split(np.arange(n), max(1, math.ceil(n * points / 100_000))):
        x = pixels[rows].astype(np.float32).reshape(len(rows) * points, -1)
        if neighbours is None:
            scores = model.scores(x, device)
        else:
            x = np.concatenate([x, np.repeat(neighbours[0][rows], points, axis=0)], axis=1)
            scores = network.predict(model.network, x, device) * model.scale
        found.append(scores.reshape(len(rows), points, -1).mean(axis=1))
    scores = np.concatenate(found)
    return scores if neighbours is None else scores + neighbours[1]


def predict_fold(
    spots: Spots, goal: Target, model: Model, neighbours: Neighbours | None = None, device: str = "cpu"
) -> list[np.ndarray]:
    """Predict the component scores of a fold's test spots and of its training spots."""
    found = []
    for rows, side in ((goal.fold.test, "test"), (goal.fold.train, "train")):
        given = None
        if neighbours is not None:
            near = getattr(neighbours, side)
            given = (_extra(near, goal), neighbours.gain * near)
        found.append(predict_context(model, spots.pixels[rows], device, given))
    return found


def floor_predictions(
    spots: Spots, goal: Target, neighbours: Neighbours | None = None, coordinates: bool = True, seed: int = 0
) -> dict[str, Factored]:
    """Fit the floors and the bar on a fold's training spots, and predict its test spots.

    Parameters
    ----------
    spots, goal
        Spots, and what is learned.
    neighbours
        Of serial sections: their mean is then the floor of coordinates.
    coordinates
        Whether positions inside the section mean something to the test spots (blocks and random folds of a section).
    seed
        Of the bar's learners.

    Returns
    -------
    dict
        ``floor:mean``, ``floor:library_size``, ``floor:coordinates`` (where positions can be compared),
        ``floor:ridge_patch``, ``floor:ridge_context``, ``bar:ensemble``.
    """
    train, test = goal.fold.train, goal.fold.test
    Y, scores, means = goal.expression, goal.components.scores, spots.means
    log_total = np.log(np.maximum(spots.totals, 1))
    found = {
        "floor:mean": floors.mean_floor(Y, len(test)),
        "floor:library_size": floors.library_size(log_total[train], Y, log_total[test]),
    }
    if neighbours is not None:
        found["floor:coordinates"] = goal.decompress(neighbours.test)
    elif coordinates:
        found["floor:coordinates"] = floors.nearest(spots.xy[train], Y, spots.xy[test], inner=goal.inner, scores=scores)
    patch = [i for i, name in enumerate(spots.features) if _is_patch(name)]
    X, X_test = means[train], means[test]
    found["floor:ridge_patch"] = _ridge(X[:, patch], X_test[:, patch], goal)
    found["floor:ridge_context"] = _ridge(X, X_test, goal)
    return found | {"bar:ensemble": _bar(X, X_test, goal, found["floor:ridge_context"], seed)}


def _is_patch(name: str) -> bool:
    scale = name.rpartition("@")[2]
    return scale.isdigit() and int(scale) < 2**PATCH_LEVELS


def _ridge(X: np.ndarray, X_test: np.ndarray, goal: Target) -> Factored:
    return goal.decompress(floors.Ridge(goal.inner).fit(X, goal.scores).predict(X_test))


def _bar(X: np.ndarray, X_test: np.ndarray, goal: Target, ridge: Factored, seed: int) -> Factored:
    """Average the ridge, a multilayer perceptron and boosted trees on the same features: a strong plain ensemble."""
    import warnings

    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    scale = float(goal.scores[:, 0].std()) or 1.0
    centre, spread = X.mean(axis=0), X.std(axis=0) + 1e-6
    Z, Z_test = (X - centre) / spread, (X_test - centre) / spread
    perceptron = np.zeros((len(X_test), goal.scores.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for number in range(3):
            learner = MLPRegressor(
                hidden_layer_sizes=(128,), alpha=3.0, early_stopping=True, max_iter=200, learning_rate_init=2e-3,
                random_state=seed + number,
            )  # fmt: skip
            perceptron += learner.fit(Z, goal.scores / scale).predict(Z_test).reshape(perceptron.shape) * scale / 3
    trees = np.zeros_like(perceptron)
    for column in range(min(_TREES, goal.scores.shape[1])):
        learner = HistGradientBoostingRegressor(
            max_iter=80, learning_rate=0.06, max_leaf_nodes=8, min_samples_leaf=15, l2_regularization=1.0,
            max_features=0.2, random_state=seed,
        )  # fmt: skip
        trees[:, column] = learner.fit(X, goal.scores[:, column]).predict(X_test)
    return goal.decompress((np.asarray(ridge.left) + perceptron + trees) / 3)
