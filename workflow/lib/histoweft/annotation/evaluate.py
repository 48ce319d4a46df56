"""Training, and scoring on held-out cells: their types and, types being left out, the flag for unknown ones."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histoweft.annotation import calibrate, models
from histoweft.annotation.folds import Plan
from histoweft.annotation.genes import Expression
from histoweft.annotation.models import Model, Options
from histoweft.annotation.names import LOGISTIC
from histoweft.annotation.reference import Cells, Reference
from histoweft.annotation.space import Distance, Space, learn_distance, learn_space
from histoweft.metrics import area_under_curve
from histoweft.splits import Fold

_log = logging.getLogger(__name__)

LEFT_OUT_FOLDS = 2
"""Folds on which each type is left out."""
LEFT_OUT_CELLS = 10
"""Held-out cells of a type, at least, for it to be left out."""
DISTANCE, PROBABILITY = "distance", "floor:probability"
"""What flags unknown cells: the distance to the nearest type; as its floor, a small largest probability."""


@dataclass(frozen=True)
class Fitted:
    """A model and the space it lives in.

    Attributes
    ----------
    space, distance, model
        All learned on the same cells.
    """

    space: Space
    distance: Distance
    model: Model


def cells_of(reference: Reference, space: Space) -> Cells:
    """Return reference cells as a model sees them."""
    return Cells(space.project(reference.features), Expression(reference.expression), reference.xy, reference.sections)


def train(reference: Reference, name: str, n_top: int, n_components: int, options: Options) -> Fitted:
    """Learn space, distance and model on the cells of a reference.

    Parameters
    ----------
    reference
        Training cells.
    name
        Of the model.
    n_top, n_components
        See `space.learn_space`.
    options
        Of the model.
    """
    space = learn_space(reference.features, reference.codes, n_top, n_components, options.seed)
    cells = cells_of(reference, space)
    model = models.build(name, reference.genes, options)
    model.fit(cells, reference.codes, reference.groups, len(reference.types), space)
    return Fitted(space, learn_distance(cells.scores, reference.codes), model)


@dataclass(frozen=True)
class OutOfFold:
    """What models say of reference cells that they were not trained on.

    Attributes
    ----------
    logits
        cells x types.
    distance
        To the nearest type of the training cells, (cells,).
    seconds
        Mean time of training and predicting a fold.
    peak_mb
        Most memory that the process has held so far.
    """

    logits: np.ndarray
    distance: np.ndarray
    seconds: float
    peak_mb: float


def out_of_fold(
    reference: Reference, plan: Plan, name: str, n_top: int, n_components: int, options: Options
) -> OutOfFold:
    """Predict each reference cell by a model that was trained without its fold; genes are chosen there too."""
    logits = np.zeros((len(reference), len(reference.types)), dtype=np.float32)
    distance = np.zeros(len(reference))
    start = time.perf_counter()
    for number, fold in enumerate(plan.folds, 1):
        fitted = train(reference.rows(fold.train), name, n_top, n_components, options)
        cells = cells_of(reference.rows(fold.test), fitted.space)
        logits[fold.test], distance[fold.test] = fitted.model.logits(cells), fitted.distance(cells.scores)
        right = float((logits[fold.test].argmax(axis=1) == reference.codes[fold.test]).mean())
        _log.info("%s, fold %d of %d (%s): accuracy %.3f", name, number, len(plan.folds), fold.name, right)
    seconds = (time.perf_counter() - start) / len(plan.folds)
    return OutOfFold(logits, distance, seconds, peak_memory())


def peak_memory() -> float:
    """Return the most memory that this process has held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def leave_types_out(
    reference: Reference, folds: Sequence[Fold], groups: dict[str, str], n_top: int, n_components: int, options: Options
) -> pd.DataFrame:
    """Leave one type (or group of types) out of training and look whether its held-out cells stand out.

    Parameters
    ----------
    reference
        All cells.
    folds
        Of the reference; the first `LEFT_OUT_FOLDS` are used. The cells left out and the known cells they are compared
        with are of the same held-out fold: a donor that training never saw must not stand out as a type.
    groups
        Type to what is left out together.
    n_top, n_components, options
        See `train`.

    Returns
    -------
    pandas.DataFrame
        ``left_out``, ``score`` (`DISTANCE` or `PROBABILITY`), ``fold``, ``auroc``, ``n`` (cells left out),
        ``distance`` (their median distance).
    """
    member = np.array([groups[name] for name in reference.types])[reference.codes]
    rows = []
    for left_out in sorted(set(member)):
        for fold in folds[:LEFT_OUT_FOLDS]:
            known = fold.train[member[fold.train] != left_out]
            unknown = member[fold.test] == left_out
            enough = min(unknown.sum(), (~unknown).sum()) >= LEFT_OUT_CELLS
            if not enough or len(np.unique(reference.codes[known])) < 2:
                continue
            fitted = train(reference.rows(known), LOGISTIC, n_top, n_components, options)
            cells = cells_of(reference.rows(fold.test), fitted.space)
            distance = fitted.distance(cells.scores)
            doubt = 1 - calibrate.softmax(fitted.model.logits(cells)).max(axis=1)
            for score, values in ((DISTANCE, distance), (PROBABILITY, doubt)):
                rows.append({
                    "left_out": left_out, "score": score, "fold": fold.name, "n": int(unknown.sum()),
                    "auroc": area_under_curve(unknown, values), "distance": float(np.median(distance[unknown])),
                })  # fmt: skip
    columns = ["left_out", "score", "fold", "n", "auroc", "distance"]
    return pd.DataFrame(rows, columns=columns)
