"""Principal components of a sparse matrix that passes by in chunks of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

_BLOCK = 2_048
"""Rows made dense at a time while products are summed."""


@dataclass(frozen=True)
class Components:
    """Principal axes and what is needed to project onto them.

    Attributes
    ----------
    axes
        features x k, orthonormal columns, by falling variance; the entry of largest size in each is positive.
    mean
        Mean of each feature.
    variance
        Variance along each axis (n - 1 in the denominator).
    variance_ratio
        The same as a share of the total variance.
    """

    axes: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    variance_ratio: np.ndarray

    def project(self, chunk: sp.csr_matrix | np.ndarray) -> np.ndarray:
        """Return the coordinates of rows, rows x k float32; a sparse chunk stays sparse."""
        return (np.asarray(chunk @ self.axes) - self.mean @ self.axes).astype(np.float32)


class Covariance:
    """Sums rows up to their exact covariance; memory grows with features squared, not with rows.

    Parameters
    ----------
    n_features
        Columns of every chunk.
    """

    def __init__(self, n_features: int):
        self.n = 0
        self._sum = np.zeros(n_features)
        self._products = np.zeros((n_features, n_features))

    def add(self, chunk: sp.csr_matrix) -> None:
        """Take in rows x features."""
        for start in range(0, chunk.shape[0], _BLOCK):
            block = chunk[start : start + _BLOCK].toarray().astype(np.float64, copy=False)
            self._sum += block.sum(axis=0)
            self._products += block.T @ block
        self.n += chunk.shape[0]

    def components(self, k: int) -> Components:
        """Decompose the covariance of all rows so far.

        Parameters
        ----------
        k
            Axes wanted; at most the number of features and one less than the rows.

        Returns
        -------
        Components

        Raises
        ------
        ValueError
            `k` is larger than that, or there are fewer than two rows.

        Notes
        -----
        Pearson (1901), Hotelling (1933): eigenvectors of the covariance. Exact and without a seed, unlike randomised
        or Lanczos solvers.
        """
        from scipy.linalg import eigh

        limit = min(len(self._sum), self.n - 1)
        if not 1 <= k <= limit:
            raise ValueError(f"{k} components of {self.n} rows x {len(self._sum)} features: 1 to {limit} can be had")
        mean = self._sum / self.n
        covariance = (self._products - self.n * np.outer(mean, mean)) / (self.n - 1)
        total = float(np.trace(covariance))
        m = len(mean)
        variance, axes = eigh(covariance, subset_by_index=(m - k, m - 1))
        variance, axes = np.clip(variance[::-1], 0, None), axes[:, ::-1]
        sign = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(k)])
        return Components(axes * sign, mean, variance, variance / total if total > 0 else np.zeros(k))


def pca(chunks: Iterable[sp.csr_matrix], n_features: int, k: int) -> Components:
    """Find the principal axes of rows that come in chunks; see `Covariance`."""
    covariance = Covariance(n_features)
    for chunk in chunks:
        covariance.add(chunk)
    return covariance.components(k)
