"""The two models of response: elastic-net logistic regression and gradient boosting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ELASTIC_NET = "elastic_net"
BOOSTING = "boosting"
MODELS = (ELASTIC_NET, BOOSTING)

GRID = tuple((mix, ratio) for mix in (0.1, 0.5) for ratio in (0.7, 0.35, 0.15))
"""Elastic net: share of the absolute penalty, and penalty over the smallest one that leaves no coefficient."""

TREES = ((15, 40), (40, 80))
"""Boosting: features that enter, trees."""

_ITERATIONS = 400
_TOLERANCE = 2e-4


def balanced(labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return weights by which both answers count the same, summing to one per column; (rows, columns).

    Parameters
    ----------
    labels
        (rows, columns), 1 or 0.
    weights
        Same shape, 0 for a row that is not used; all ones when left out.

    Returns
    -------
    A column with one answer only has weights of nought.
    """
    weights = np.ones_like(labels, dtype=np.float64) if weights is None else weights
    sums = [(weights * (labels == answer)).sum(axis=0) for answer in (1, 0)]
    both = (sums[0] > 0) & (sums[1] > 0)
    scale = [np.divide(0.5, s, out=np.zeros_like(s), where=both) for s in sums]
    return weights * np.where(labels == 1, scale[0], scale[1])


def elastic_net(
    X: np.ndarray, labels: np.ndarray, weights: np.ndarray, mix: np.ndarray, ratio: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit many elastic-net logistic regressions on the same rows at once.

    Parameters
    ----------
    X
        (rows, features), scaled.
    labels, weights
        (rows, fits): 1 or 0, and weights that sum to one per fit (`balanced`).
    mix, ratio
        (fits,); see `GRID`.

    Returns
    -------
    coefficients
        (features, fits), float32.
    intercepts
        (fits,).

    Notes
    -----
    Minimises sum w log(1 + exp(-y f)) + penalty (mix |b| + (1 - mix) b^2 / 2) (Zou and Hastie 2005, J R Stat Soc B
    67:301) by accelerated proximal gradient steps (Beck and Teboulle 2009, SIAM J Imaging Sci 2:183) with restarts
    (O'Donoghue and Candes 2015, Found Comput Math 15:715). All fits share each matrix product, so that permuted labels,
    grids and subsamples cost little.
    """
    X = np.ascontiguousarray(X, dtype=np.float32)
    y, w = labels.astype(np.float32), weights.astype(np.float32)
    # Balanced classes: at the start the predicted chance is one half.
    gradient = np.abs((w * (0.5 - y)).T @ X).max(axis=1, initial=1e-12)
    penalty = (gradient * ratio / mix).astype(np.float32)
    lasso, ridge = penalty * mix.astype(np.float32), penalty * (1 - mix).astype(np.float32)
    step = 1.0 / (0.25 * _curvature(X, w) + ridge)
    shape = (X.shape[1], y.shape[1])
    beta = ahead = np.zeros(shape, dtype=np.float32)
    bias = ahead_bias = np.zeros(shape[1], dtype=np.float32)
    momentum = np.ones(shape[1], dtype=np.float32)
    for _ in range(_ITERATIONS):
        residual = w * (_sigmoid(X @ ahead + ahead_bias) - y)
        new = ahead - step * (X.T @ residual + ridge * ahead)
        new = np.sign(new) * np.maximum(np.abs(new) - step * lasso, 0)
        new_bias = ahead_bias - step * residual.sum(axis=0)
        moved = new - beta
        uphill = ((ahead - new) * moved).sum(axis=0) > 0
        momentum = np.where(uphill, np.float32(1), momentum)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        push = np.where(uphill, np.float32(0), (momentum - 1) / following).astype(np.float32)
        ahead, ahead_bias = new + push * moved, new_bias + push * (new_bias - bias)
        beta, bias, momentum = new, new_bias, following.astype(np.float32)
        if np.abs(moved).max(initial=0.0) < _TOLERANCE * max(np.abs(beta).max(initial=0.0), 1e-6):
            break
    return beta, bias


def _curvature(X: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Bound the largest eigenvalue of X' diag(w) X with the intercept, per fit."""
    ones = np.ones((len(X), 1), dtype=np.float32)
    largest = np.linalg.norm(np.hstack([X, ones]), 2) ** 2
    return np.maximum(largest * w.max(axis=0), 1e-12)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(x)


class Scaler:
    """Scales features by the training rows: missing values filled, variance 1, every block of features of equal weight.

    Parameters
    ----------
    blocks
        Of each feature. A block of 2,000 genes would else drown one of 40 shares of cell types (multiple factor
        analysis weighs in the same way; Escofier and Pages 1994, Comput Stat Data Anal 18:121).
    """

    def __init__(self, blocks: Sequence[str]):
        names, codes = np.unique(np.asarray(blocks, dtype=object).astype(str), return_inverse=True)
        self.weight = 1.0 / np.sqrt(np.bincount(codes, minlength=len(names)))[codes]

    def fit(self, X: np.ndarray) -> Scaler:
        """Learn centres and spreads; (rows, features), NaN where missing."""
        known = np.isfinite(X)
        n = np.maximum(known.sum(axis=0), 1)
        self.centre = np.where(known, X, 0).sum(axis=0) / n
        spread = np.sqrt((np.where(known, X - self.centre, 0) ** 2).sum(axis=0) / n)
        self.scale = np.where(spread > 1e-9, self.weight / np.where(spread > 1e-9, spread, 1), 0.0)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Scale; a missing value becomes the training mean."""
        return np.where(np.isfinite(X), X - self.centre, 0.0) * self.scale


def class_difference(X: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return |t| of each feature between the answers (Welch), the filter in front of the boosting."""
    a, b = X[labels == 1], X[labels == 0]
    variance = a.var(axis=0) / max(len(a), 1) + b.var(axis=0) / max(len(b), 1)
    return np.abs(a.mean(axis=0) - b.mean(axis=0)) / np.sqrt(variance + 1e-12)


def boost(
    X: np.ndarray, labels: np.ndarray, X_test: np.ndarray, features: int, trees: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit gradient boosting (Friedman 2001, Ann Stat 29:1189) on the features that differ most, and predict.

    Returns
    -------
    decision
        (test rows,), log odds with both answers of equal weight.
    used
        Columns that entered.
    """
    from sklearn.ensemble import GradientBoostingClassifier

    used = np.argsort(-class_difference(X, labels), kind="stable")[:features]
    model = GradientBoostingClassifier(
        n_estimators=trees, max_depth=2, learning_rate=0.08, subsample=0.7, min_samples_leaf=3, random_state=seed
    )
    model.fit(X[:, used], labels, sample_weight=balanced(labels[:, None])[:, 0] * len(labels))
    return model.decision_function(X_test[:, used]), used
