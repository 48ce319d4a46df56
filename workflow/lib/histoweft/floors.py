"""The baselines a model has to beat, and predictions of all genes that never become one dense matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp

from histoweft.errors import HistoweftError
from histoweft.metrics import column_pearson
from histoweft.splits import Fold

NEIGHBOURS = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of neighbours that `nearest` chooses from."""

PENALTIES = tuple(10.0 ** (i / 2) for i in range(-8, 9))
"""Ridge penalties to choose from, for each training row: from next to none to more than the largest eigenvalue of
thousands of standardised features."""

N_COMPONENTS = 50
"""Components of the training target that hyper-parameters are chosen on."""

CRITERIA = ("pearson", "mse")
"""What hyper-parameters are chosen by, on the target's components: the correlation, weighted by the variance of each
component over the training spots, or the squared error. Squared error chooses so many neighbours and so large a penalty
that the floors lose much of the correlation they could have (olfactory bulb, blocks: coordinates .15, not .34)."""


@dataclass
class Factored:
    """Predictions of many genes as a product: ``left @ right + offset``.

    Attributes
    ----------
    left
        spots x r, dense or sparse.
    right
        r x genes, dense or sparse (by columns, where genes are read often).
    offset
        (genes,).
    """

    left: np.ndarray | sp.spmatrix
    right: np.ndarray | sp.spmatrix
    offset: np.ndarray

    def __post_init__(self):
        if self.left.shape[1] != self.right.shape[0] or self.right.shape[1] != len(self.offset):
            shapes = f"{self.left.shape}, {self.right.shape} and {np.shape(self.offset)}"
            raise ValueError(f"factors of shapes {shapes} do not fit together")

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of spots and genes."""
        return self.left.shape[0], self.right.shape[1]

    def genes(self, which: slice | np.ndarray) -> np.ndarray:
        """Return the predictions of some genes, spots x those genes, float32, dense."""
        product = self.left @ self.right[:, which]
        product = product.toarray() if sp.issparse(product) else np.asarray(product)
        return (product + self.offset[which]).astype(np.float32)

    def rows(self, which: np.ndarray) -> Factored:
        """Return the predictions of some spots."""
        return Factored(self.left[which], self.right, self.offset)


def average(predictions: Sequence[Factored]) -> Factored:
    """Average predictions of the same spots and genes without multiplying them out.

    Parameters
    ----------
    predictions
        At least one.

    Raises
    ------
    ValueError
        Their shapes differ.
    """
    if len({one.shape for one in predictions}) != 1:
        raise ValueError(f"predictions of shapes {[one.shape for one in predictions]} have no average")
    n = len(predictions)
    offset = sum(one.offset for one in predictions) / n
    first = predictions[0].right
    if all(one.right is first for one in predictions):
        return Factored(sum(one.left for one in predictions) / n, first, offset)
    if any(sp.issparse(one.left) or sp.issparse(one.right) for one in predictions):
        left = sp.hstack([sp.csr_matrix(one.left) for one in predictions], format="csr") / n
        return Factored(left, sp.vstack([sp.csc_matrix(one.right) for one in predictions], format="csc"), offset)
    left = np.hstack([one.left for one in predictions]) / n
    return Factored(left, np.vstack([one.right for one in predictions]), offset)


@dataclass(frozen=True)
class TargetComponents:
    """Principal components of a sparse training target.

    Attributes
    ----------
    mean
        Mean of each gene over the training spots, (genes,).
    axes
        k x genes, float32, orthonormal rows by falling variance; the entry of largest size in each is positive.
    scores
        training spots x k, float32.
    """

    mean: np.ndarray
    axes: np.ndarray
    scores: np.ndarray

    def compress(self, Y: sp.csr_matrix) -> np.ndarray:
        """Project spots x genes onto the axes, spots x k float32; a sparse matrix stays sparse."""
        return (np.asarray(Y @ self.axes.T) - self.mean @ self.axes.T).astype(np.float32)

    def decompress(self, scores: np.ndarray) -> Factored:
        """Turn predicted scores, spots x k, into predictions of all genes."""
        return Factored(np.asarray(scores), self.axes, self.mean)


def components(Y_train: sp.csr_matrix, k: int = N_COMPONENTS, seed: int = 0) -> TargetComponents:
    """Find the principal components of a sparse matrix without making it dense.

    Parameters
    ----------
    Y_train
        training spots x genes, log-normalised.
    k
        Components wanted; fewer where there are fewer spots or genes.
    seed
        Of the vector that the iteration starts from; it changes the last digits only.

    Returns
    -------
    TargetComponents

    Raises
    ------
    ValueError
        Fewer than two spots.

    Notes
    -----
    Lanczos iterations (ARPACK) on the matrix minus its column means, which enter each product as a rank-one term.
    Small matrices are decomposed directly.
    """
    n, genes = Y_train.shape
    if n < 2:
        raise ValueError(f"components of {n} spots: at least two are needed")
    k = min(k, n - 1, genes)
    mean = _column_means(Y_train)
    if n * genes <= 500_000 or k >= min(n, genes) - 1:
        dense = Y_train.toarray() if sp.issparse(Y_train) else np.asarray(Y_train)
        left, size, axes = np.linalg.svd(dense.astype(np.float64) - mean, full_matrices=False)
        left, size, axes = left[:, :k], size[:k], axes[:k]
    else:
        left, size, axes = _lanczos(Y_train, mean, k, seed)
    sign = np.sign(axes[np.arange(k), np.abs(axes).argmax(axis=1)])
    sign[sign == 0] = 1.0
    axes = (axes * sign[:, None]).astype(np.float32)
    return TargetComponents(mean, axes, (left * (size * sign)).astype(np.float32))


def _lanczos(Y: sp.csr_matrix, mean: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from scipy.sparse.linalg import LinearOperator

    from histoweft.convergence import singular_vectors

    n = Y.shape[0]
    # Once here: products of two types would copy the values in each of hundreds of iterations.
    Y = sp.csr_matrix(Y, dtype=np.float64)
    T = Y.T.tocsr()
    operator = LinearOperator(
        Y.shape,
        matvec=lambda v: Y @ v.ravel() - mean @ v.ravel(),
        rmatvec=lambda u: T @ u.ravel() - mean * u.sum(),
        matmat=lambda V: Y @ V - mean @ V,
        rmatmat=lambda U: T @ U - np.outer(mean, U.sum(axis=0)),
        dtype=np.float64,
    )
    start = np.random.default_rng(seed).standard_normal(min(n, Y.shape[1]))
    return singular_vectors(operator, k, start, lambda: Y.toarray() - mean, "components of the genes")


def mean_floor(Y_train: sp.csr_matrix, n_test: int) -> Factored:
    """Predict each gene's training mean everywhere.

    Parameters
    ----------
    Y_train
        training spots x genes.
    n_test
        Number of test spots.
    """
    genes = Y_train.shape[1]
    return Factored(np.zeros((n_test, 0), np.float32), np.zeros((0, genes), np.float32), _column_means(Y_train))


def library_size(log_total_train: np.ndarray, Y_train: sp.csr_matrix, log_total_test: np.ndarray) -> Factored:
    """Predict each gene from the log total count of the spot, by linear regression.

    An oracle: it is told the total of the test spots, which no image gives. It shows how much of a score sequencing
    depth alone explains.

    Parameters
    ----------
    log_total_train, log_total_test
        Logarithm of each spot's total count, (spots,).
    Y_train
        training spots x genes.
    """
    centre = log_total_train.mean()
    x = log_total_train - centre
    spread = x @ x
    slope = (Y_train.T @ x) / spread if spread > 0 else np.zeros(Y_train.shape[1])
    left = (log_total_test - centre)[:, None]
    return Factored(left, slope[None, :].astype(np.float32), _column_means(Y_train))


def nearest(
    xy_train: np.ndarray,
    Y_train: sp.csr_matrix,
    xy_test: np.ndarray,
    k: int | None = None,
    inner: Sequence[Fold] = (),
    criterion: str = "pearson",
    scores: np.ndarray | None = None,
) -> Factored:
    """Predict the mean of the nearest training spots by position alone.

    Parameters
    ----------
    xy_train, xy_test
        spots x dimensions (two, or three), um; sections must share a frame.
    Y_train
        training spots x genes.
    k
        Number of neighbours; chosen from `NEIGHBOURS` on the inner folds when left out.
    inner
        Folds of the training rows.
    criterion
        Of `CRITERIA`.
    scores
        ``components(Y_train).scores`` where they are there already: what `k` is chosen on.

    Raises
    ------
    HistoweftError
        Positions are missing, or neither `k` nor inner folds are given.
    """
    from scipy.spatial import cKDTree

    xy_train, xy_test = _finite(xy_train, "positions"), _finite(xy_test, "positions")
    if k is None:
        k = _choose_neighbours(xy_train, _target(Y_train, scores), inner, criterion)
    k = min(k, len(xy_train))
    near = cKDTree(xy_train).query(xy_test, k=[*range(1, k + 1)])[1]
    n = len(xy_test)
    weights = np.full(n * k, 1 / k, dtype=np.float32)
    left = sp.csr_matrix((weights, near.ravel(), np.arange(0, n * k + 1, k)), shape=(n, len(xy_train)))
    return Factored(left, sp.csc_matrix(Y_train), np.zeros(Y_train.shape[1], np.float32))


def _choose_neighbours(xy: np.ndarray, target: np.ndarray, inner: Sequence[Fold], criterion: str) -> int:
    from scipy.spatial import cKDTree

    _need_folds(inner, "the number of neighbours")
    loss = _Loss(target, criterion)
    least = min(len(fold.train) for fold in inner)
    choices = [k for k in NEIGHBOURS if k <= least]
    losses = np.zeros(len(choices))
    for fold in inner:
        near = cKDTree(xy[fold.train]).query(xy[fold.test], k=[*range(1, choices[-1] + 1)])[1]
        total = np.zeros((len(fold.test), target.shape[1]))
        for j in range(choices[-1]):
            total += target[fold.train[near[:, j]]]
            if j + 1 in choices:
                losses[choices.index(j + 1)] += loss(target[fold.test], total / (j + 1))
    return choices[int(losses.argmin())]


class _Loss:
    """What a hyper-parameter costs on held-out rows of the compressed target."""

    def __init__(self, target: np.ndarray, criterion: str):
        if criterion not in CRITERIA:
            raise HistoweftError(f"criterion {criterion!r} is not one of {', '.join(CRITERIA)}")
        self._criterion = criterion
        variance = target.var(axis=0, dtype=np.float64)
        self._weight = variance / max(variance.sum(), np.finfo(float).tiny)

    def __call__(self, truth: np.ndarray, predicted: np.ndarray) -> float:
        if self._criterion == "mse":
            return float(((truth - predicted) ** 2).mean(axis=0).sum())
        return float(1 - self._weight @ column_pearson(truth, predicted))


def _target(Y: Any, scores: np.ndarray | None) -> np.ndarray:
    """Return what hyper-parameters are chosen on: the components of sparse genes, a dense target as it is."""
    if scores is None:
        scores = components(Y).scores if sp.issparse(Y) else Y
    if len(scores) != Y.shape[0]:
        raise ValueError(f"{len(scores)} rows of component scores for {Y.shape[0]} training rows")
    return np.asarray(scores, dtype=np.float64)


@dataclass
class Ridge:
    """Ridge regression of many targets, its penalty chosen on inner folds.

    Parameters
    ----------
    inner
        Folds of the training rows, grouped or in blocks: random ones choose too small a penalty.
    penalties
        To choose from; multiplied by the number of training rows.
    criterion
        Of `CRITERIA`.

    Attributes
    ----------
    penalty
        The one chosen.
    losses
        Mean over the inner folds at each penalty: 1 - correlation, or the squared error.

    Notes
    -----
    Hoerl and Kennard 1970. Features are standardised on the training rows. One eigendecomposition a fold, of the
    smaller of the two Gram matrices, serves all penalties. A sparse target is compressed to principal components for
    the choice only.
    """

    inner: Sequence[Fold]
    penalties: Sequence[float] = PENALTIES
    criterion: str = "pearson"
    penalty: float = field(init=False, default=float("nan"))
    losses: np.ndarray = field(init=False, repr=False, default=None)

    def fit(self, X: np.ndarray, Y: sp.csr_matrix | np.ndarray, scores: np.ndarray | None = None) -> Ridge:
        """Choose the penalty and fit.

        Parameters
        ----------
        X
            training rows x features.
        Y
            training rows x targets: sparse genes, or dense components.
        scores
            ``components(Y).scores`` where they are there already: what the penalty is chosen on.

        Raises
        ------
        HistoweftError
            Features are missing (NaN), or there are no inner folds.
        """
        X = _finite(X, "features")
        if X.shape[0] != Y.shape[0]:
            raise ValueError(f"{X.shape[0]} rows of features for {Y.shape[0]} rows of targets")
        self._choose(X, _target(Y, scores))
        self._basis = _Basis(X)
        self._mean = _column_means(Y)
        self._right = self._basis.coefficients(Y, self.penalty).astype(np.float32)
        return self

    def _choose(self, X: np.ndarray, target: np.ndarray) -> None:
        _need_folds(self.inner, "the penalty of the ridge")
        loss = _Loss(target, self.criterion)
        losses = np.zeros(len(self.penalties))
        for fold in self.inner:
            basis = _Basis(X[fold.train])
            mean = target[fold.train].mean(axis=0)
            left, products = basis.project(X[fold.test]), basis.products(target[fold.train])
            for i, penalty in enumerate(self.penalties):
                losses[i] += loss(target[fold.test], left @ (products * basis.shrinkage(penalty)) + mean)
        self.losses = losses / len(self.inner)
        self.penalty = float(self.penalties[int(losses.argmin())])

    def predict_factored(self, X_test: np.ndarray) -> Factored:
        """Predict all targets of rows x features."""
        left = self._basis.project(_finite(X_test, "features")).astype(np.float32)
        return Factored(left, self._right, self._mean)

    def predict(self, X_test: np.ndarray) -> np.ndarray:
        """Predict all targets, dense, float32, rows x targets: for few of them, such as components."""
        return self.predict_factored(X_test).genes(slice(None))


class _Basis:
    """Standardised training features on their principal axes."""

    def __init__(self, X: np.ndarray):
        from scipy.linalg import eigh

        self._centre = X.mean(axis=0)
        scale = X.std(axis=0)
        # What does not vary in training tells nothing, also where it varies in the test rows.
        constant = scale <= 1e-9 * np.maximum(1.0, np.abs(self._centre))
        self._weight = np.where(constant, 0.0, 1 / np.where(constant, 1.0, scale))
        Z = self._standardise(X)
        self._n = len(Z)
        wide = Z.shape[1] > Z.shape[0]
        size, vectors = eigh(Z @ Z.T if wide else Z.T @ Z)
        kept = size > max(size[-1], 0.0) * 1e-10 if len(size) else np.zeros(0, bool)
        size, vectors = size[kept][::-1], vectors[:, kept][:, ::-1]
        self._size = size
        self._axes = Z.T @ (vectors / np.sqrt(size)) if wide else vectors
        self._Z_on_axes = Z @ self._axes

    def _standardise(self, X: np.ndarray) -> np.ndarray:
        return (X - self._centre) * self._weight

    def project(self, X: np.ndarray) -> np.ndarray:
        return self._standardise(X) @ self._axes

    def products(self, Y: Any) -> np.ndarray:
        """Axes x targets; the axes' scores have mean zero, so Y need not be centred, and a sparse Y stays sparse."""
        return np.asarray(Y.T @ self._Z_on_axes).T

    def shrinkage(self, penalty: float) -> np.ndarray:
        return 1 / (self._size + penalty * self._n)[:, None]

    def coefficients(self, Y: Any, penalty: float) -> np.ndarray:
        return self.products(Y) * self.shrinkage(penalty)


def _column_means(Y: Any) -> np.ndarray:
    return np.asarray(Y.mean(axis=0, dtype=np.float64)).ravel()


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        first = np.flatnonzero(bad)[0]
        raise HistoweftError(
            f"{what} are missing or infinite in {bad.sum()} of {len(values)} rows (first: row {first}); "
            "leave these rows out before fitting"
        )
    return values


def _need_folds(inner: Sequence[Fold], what: str) -> None:
    if not inner:
        raise HistoweftError(f"{what} is chosen on inner folds, and there are none: make some of the training rows")
