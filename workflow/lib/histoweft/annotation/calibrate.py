"""From logits to probabilities that can be believed, and to sets of types with a stated coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from histoweft.splits import Fold

BINS = 15
SET_CELLS = 50
"""Held-out cells of a type from which its own threshold is read; types with fewer share one."""


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities, cells x types, float32."""
    scaled = (logits - logits.max(axis=1, keepdims=True)) / temperature
    np.exp(scaled, out=scaled)
    return (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32)


def fit_temperature(logits: np.ndarray, codes: np.ndarray) -> float:
    """Find the temperature that makes held-out cells most likely (Guo et al. 2017, ICML, temperature scaling).

    Parameters
    ----------
    logits
        cells x types, of cells that the model was not trained on.
    codes
        Their types.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.astype(np.float64)
    rows = np.arange(len(codes))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        peak = scaled.max(axis=1)
        return float((peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1)) - scaled[rows, codes]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))


def expected_calibration_error(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Return the mean gap between what was claimed and what was true (Naeini et al. 2015), bins of equal width.

    Parameters
    ----------
    probability
        Of the predicted type, (cells,).
    right
        Whether it was the true one, (cells,).
    """
    _, share, claimed, true = reliability(probability, right, bins)
    return float((share * np.abs(claimed - true)).sum())


def reliability(probability: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, ...]:
    """Return of each bin that holds cells: its number, its share of cells, the mean claim, the share that was right."""
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    sizes = np.bincount(bin_of, minlength=bins)
    filled = np.flatnonzero(sizes)
    claimed = np.bincount(bin_of, probability, minlength=bins)[filled] / sizes[filled]
    true = np.bincount(bin_of, right.astype(float), minlength=bins)[filled] / sizes[filled]
    return filled, sizes[filled] / len(probability), claimed, true


def set_thresholds(probability: np.ndarray, codes: np.ndarray, alpha: float) -> np.ndarray:
    """Find the probability from which a type joins a cell's set.

    Parameters
    ----------
    probability
        cells x types, of held-out cells.
    codes
        Their types.
    alpha
        Share of cells whose set may miss their type.

    Returns
    -------
    (types,). Types with fewer than `SET_CELLS` held-out cells share the threshold of all cells.

    Notes
    -----
    Split conformal prediction, score 1 - p(type), one threshold a type (Sadinle, Lei and Wasserman 2019, JASA 114:223,
    least ambiguous sets; Vovk 2012, label-conditional validity). If query and held-out cells are exchangeable, a cell's
    set holds its type with probability 1 - `alpha` at least, in each type with a threshold of its own. The scores come
    from cross-validation instead of one split (cross-conformal prediction, Vovk 2015), for which this holds
    approximately; it does not hold for cells of other technology or of a type that the reference lacks.
    """
    own = 1 - probability[np.arange(len(codes)), codes].astype(np.float64)
    shared = _conformal_quantile(own, alpha)
    sizes = np.bincount(codes, minlength=probability.shape[1])
    limits = [
        _conformal_quantile(own[codes == code], alpha) if size >= SET_CELLS else shared
        for code, size in enumerate(sizes)
    ]
    return 1 - np.array(limits)


def _conformal_quantile(scores: np.ndarray, alpha: float) -> float:
    """Return the ceil((n + 1)(1 - alpha))-th smallest score; 1 (every type conforms) where that is beyond the last."""
    rank = int(np.ceil((len(scores) + 1) * (1 - alpha)))
    return 1.0 if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


@dataclass(frozen=True)
class Doubt:
    """Calibrated predictions.

    Attributes
    ----------
    probability
        cells x types.
    sets
        cells x types, bool: the conformal set of each cell. It may be empty: no type is plausible.
    """

    probability: np.ndarray
    sets: np.ndarray


def apply(logits: np.ndarray, temperature: float, thresholds: np.ndarray) -> Doubt:
    """Turn logits into probabilities and sets."""
    probability = softmax(logits, temperature)
    # What equals a threshold belongs to the set; single precision must not decide.
    return Doubt(probability, probability >= thresholds - 1e-6)


def cross_fitted(logits: np.ndarray, codes: np.ndarray, folds: Sequence[Fold], alpha: float) -> Doubt:
    """Calibrate each fold on the others, so that no cell is judged by a calibration that has seen it.

    Parameters
    ----------
    logits
        cells x types, each row by a model that was not trained on the cell.
    codes
        Types of the cells.
    folds
        Whose test rows are the cells, each once.
    alpha
        See `set_thresholds`.
    """
    probability = np.zeros(logits.shape, dtype=np.float32)
    sets = np.zeros(logits.shape, dtype=bool)
    for fold in folds:
        others = np.setdiff1d(np.arange(len(codes)), fold.test)
        temperature = fit_temperature(logits[others], codes[others])
        thresholds = set_thresholds(softmax(logits[others], temperature), codes[others], alpha)
        found = apply(logits[fold.test], temperature, thresholds)
        probability[fold.test], sets[fold.test] = found.probability, found.sets
    return Doubt(probability, sets)
