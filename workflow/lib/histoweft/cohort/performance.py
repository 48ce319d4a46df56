"""How good a score of response is: discrimination, calibration, intervals over patients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from histoweft.metrics import area_under_curve, percentile_interval

BINS = 5


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Return the area under precision against recall (average precision); ties share their mean precision step.

    Parameters
    ----------
    positive
        (patients,), bool.
    score
        Larger for positive ones.

    Returns
    -------
    The share of positive ones for a score that knows nothing (all equal); NaN without positive ones.
    """
    positive = np.asarray(positive, dtype=bool)
    if not positive.any():
        return np.nan
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(positive[order])[ends]
    gained = np.diff(np.concatenate([[0], hits])) / positive.sum()
    return float((gained * hits / (ends + 1)).sum())


def within(measure: Callable, positive: np.ndarray, score: np.ndarray, groups: np.ndarray) -> float:
    """Return the mean over groups of a measure inside each; groups with one answer only are left out.

    A pooled score would also reward a model for knowing which cohort a patient is from.
    """
    values = [
        measure(positive[groups == group], score[groups == group])
        for group in np.unique(groups)
        if 0 < positive[groups == group].sum() < (groups == group).sum()
    ]
    return float(np.mean(values)) if values else np.nan


def auroc(positive: np.ndarray, score: np.ndarray, groups: np.ndarray) -> float:
    """Return the mean AUROC within groups."""
    return within(area_under_curve, positive, score, groups)


def auprc(positive: np.ndarray, score: np.ndarray, groups: np.ndarray) -> float:
    """Return the mean average precision within groups."""
    return within(average_precision, positive, score, groups)


def resamples(positive: np.ndarray, groups: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Draw patients with replacement, inside each group and answer; (n, patients) row numbers."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((n, len(positive)), dtype=np.intp)
    strata = np.unique(groups, return_inverse=True)[1] * 2 + positive
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        drawn[:, rows] = rng.choice(rows, size=(n, len(rows)))
    return drawn


def interval(
    measure: Callable, positive: np.ndarray, score: np.ndarray, groups: np.ndarray, drawn: np.ndarray
) -> tuple[float, float, float]:
    """Return a measure and its 95 % bootstrap interval over patients.

    Parameters
    ----------
    measure
        Of (positive, score, groups).
    drawn
        See `resamples`.
    """
    value = measure(positive, score, groups)
    if not np.isfinite(value):
        return np.nan, np.nan, np.nan
    replicates = np.array([measure(positive[rows], score[rows], groups[rows]) for rows in drawn])
    return (value, *percentile_interval(value, replicates))


def difference(
    positive: np.ndarray, one: np.ndarray, other: np.ndarray, groups: np.ndarray, drawn: np.ndarray
) -> tuple[float, float, float]:
    """Return how much larger one score's AUROC is than another's on the same patients, with its 95 % interval."""
    value = auroc(positive, one, groups) - auroc(positive, other, groups)
    replicates = np.array(
        [
            auroc(positive[rows], one[rows], groups[rows]) - auroc(positive[rows], other[rows], groups[rows])
            for rows in drawn
        ]
    )
    return (value, *percentile_interval(value, replicates))


def brier(positive: np.ndarray, probability: np.ndarray) -> float:
    """Return the mean squared error of probabilities (Brier 1950)."""
    return float(((probability - positive) ** 2).mean())


def expected_calibration_error(positive: np.ndarray, probability: np.ndarray, bins: int = BINS) -> float:
    """Return the mean distance of predicted and observed share over bins of equally many patients."""
    parts = np.array_split(np.argsort(probability, kind="stable"), min(bins, len(probability)))
    gaps = [len(part) * abs(probability[part].mean() - positive[part].mean()) for part in parts]
    return float(sum(gaps) / len(probability))


def calibration_slope(positive: np.ndarray, probability: np.ndarray, groups: np.ndarray) -> float:
    """Return the slope of the response on the predicted log odds: 1 when right, below 1 when too sure (Cox 1958).

    Each group has its own intercept: cohorts differ in how many respond, which no held-out patient could have told.

    Returns
    -------
    NaN where all predictions inside each group are equal or the slope is not finite (answers separated without error).
    """
    kept = np.clip(probability, 1e-6, 1 - 1e-6)
    logit = np.log(kept / (1 - kept))
    own = (np.asarray(groups)[:, None] == np.unique(groups)).astype(float)
    inside = logit - own @ ((own.T @ logit) / own.sum(axis=0))
    if np.abs(inside).max() < 1e-9:
        return np.nan
    X, beta = np.column_stack([own, logit]), np.zeros(own.shape[1] + 1)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-X @ beta))
        information = X.T @ (X * (chance * (1 - chance))[:, None]) + 1e-9 * np.eye(X.shape[1])
        move = np.linalg.solve(information, X.T @ (positive - chance))
        beta = beta + np.clip(move, -5, 5)
        if abs(move).max() < 1e-8:
            return float(beta[-1])
    return np.nan


def reliability(positive: np.ndarray, probability: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Return (mean prediction, observed share, patients) of bins of equally many patients, for the calibration plot."""
    parts = np.array_split(np.argsort(probability, kind="stable"), min(bins, len(probability)))
    return [(float(probability[part].mean()), float(positive[part].mean()), len(part)) for part in parts]


def permutation_p(seen: float, permuted: Sequence[float]) -> float:
    """Return the share of permutations, the one seen among them, that do at least as well."""
    permuted = np.asarray(permuted, dtype=float)
    permuted = permuted[np.isfinite(permuted)]
    return float((1 + (permuted >= seen - 1e-12).sum()) / (1 + len(permuted)))
