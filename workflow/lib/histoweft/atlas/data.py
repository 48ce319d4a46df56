"""What one fold works on: standardised expression of all voxels, positions, and principal components that know gaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from histoweft.atlas.folds import Split
from histoweft.atlas.scaling import ZSCORE, Scaling, chunks, fit_scaling
from histoweft.atlas.voxels import Voxels

if TYPE_CHECKING:
    import torch

_ROWS = 2_000
_FILLS = 2
"""Rounds of filling gaps with what the components say: the error falls by the share of gaps with each round."""


@dataclass(frozen=True)
class Prepared:
    """An atlas as one fold sees it.

    Attributes
    ----------
    voxels, split, scaling
        Where it comes from.
    values
        float16, voxels x chosen genes, standardised; NaN where there is no data. Half precision keeps three digits,
        more than the assay has, in half the memory.
    least, span
        float32, voxels x 1: see `scaling.voxel_limits`.
    """

    voxels: Voxels
    split: Split
    scaling: Scaling
    values: np.ndarray
    least: np.ndarray
    span: np.ndarray

    @property
    def position(self) -> np.ndarray:
        """Positions, voxels x 3, float32."""
        return self.voxels.position

    @property
    def genes(self) -> np.ndarray:
        """Names of the chosen genes."""
        return self.voxels.genes[self.scaling.genes]

    def rows(self, which: np.ndarray) -> np.ndarray:
        """Return standardised rows x genes, float32, NaN where there is no data."""
        return self.values[which].astype(np.float32)


def prepare(voxels: Voxels, split: Split, n_genes: int, clip: float, kind: str = ZSCORE) -> Prepared:
    """Choose genes and scale on the training voxels of a fold, and standardise all voxels.

    See `scaling.fit_scaling`. Memory: two bytes a value beside the file that is read.
    """
    scaling = fit_scaling(voxels.expression, split.train, n_genes, clip, kind)
    values = np.empty((voxels.n, len(scaling.genes)), dtype=np.float16)
    least, span = np.empty((voxels.n, 1), dtype=np.float32), np.empty((voxels.n, 1), dtype=np.float32)
    for place, piece in chunks(voxels.expression, np.arange(voxels.n)):
        values[place], least[place], span[place] = scaling.apply(piece)
    return Prepared(voxels, split, scaling, values, least, span)


class Batches:
    """Rows of tensors in batches by whole-tensor lookup: no loader, no dictionary a voxel.

    Parameters
    ----------
    arrays
        Of equal length.
    rows
        Rows to draw from.
    size
        Of a batch.
    shuffle
        Whether each pass comes in another order, drawn from torch's global generator; the last, incomplete batch is
        then left out (batch norm wants batches of equal weight) unless it is the only one.
    """

    def __init__(self, arrays: Sequence[np.ndarray], rows: np.ndarray, size: int, shuffle: bool = True):
        import torch

        self._tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        self._rows = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        self._size, self._shuffle = size, shuffle

    def __len__(self) -> int:
        n = len(self._rows)
        return max(1, n // self._size) if self._shuffle else -(-n // self._size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        import torch

        rows = self._rows[torch.randperm(len(self._rows))] if self._shuffle else self._rows
        for at in range(len(self)):
            piece = rows[at * self._size : (at + 1) * self._size]
            yield tuple(tensor.index_select(0, piece) for tensor in self._tensors)


@dataclass(frozen=True)
class Axes:
    """Principal axes of standardised expression.

    Attributes
    ----------
    axes
        genes x k, float32, orthonormal columns by falling variance.
    mean
        (genes,), of the training voxels: near 0.
    variance
        Along each axis, (k,).
    total
        Variance over all axes.
    """

    axes: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    total: float

    def first(self, k: int) -> Axes:
        """Return the leading axes."""
        return Axes(np.ascontiguousarray(self.axes[:, :k]), self.mean, self.variance[:k], self.total)

    def project(self, values: np.ndarray) -> np.ndarray:
        """Return the scores of rows on the axes, rows x k, float32.

        Parameters
        ----------
        values
            rows x genes, standardised; gaps (NaN) are filled with what the scores so far reconstruct, a few times over:
            alternating least squares, as in imputation by iterated principal components (Kiers 1997).
        """
        gaps = np.isnan(values)
        centred = np.where(gaps, np.float32(0), values - self.mean)
        scores = centred @ self.axes
        if gaps.any():
            for _ in range(_FILLS):
                np.copyto(centred, scores @ self.axes.T, where=gaps)
                scores = centred @ self.axes
        return scores

    def project_all(self, prepared: Prepared, rows: np.ndarray | None = None) -> np.ndarray:
        """Return the scores of voxels, in pieces; see `project`."""
        rows = np.arange(prepared.voxels.n) if rows is None else rows
        found = np.empty((len(rows), self.axes.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), _ROWS):
            piece = rows[start : start + _ROWS]
            found[start : start + len(piece)] = self.project(prepared.rows(piece))
        return found

    def reconstruct(self, scores: np.ndarray) -> np.ndarray:
        """Return standardised expression from scores on the leading axes, rows x genes."""
        return scores @ self.axes[:, : scores.shape[1]].T + self.mean


def principal_axes(prepared: Prepared, k: int, rows: np.ndarray | None = None) -> Axes:
    """Find the principal axes of the training voxels.

    Parameters
    ----------
    prepared
        The fold.
    k
        Axes wanted; fewer where there are fewer genes or voxels.
    rows
        Voxels to learn from; all training voxels when left out.

    Notes
    -----
    Gaps count as the mean; each covariance is divided by the share of voxels in which both genes were
    measured, estimated as the product of their shares (gaps of different genes are independent: each has its own
    series of sections).
    """
    from scipy.linalg import eigh
    from scipy.linalg.blas import ssyrk

    rows = prepared.split.train if rows is None else rows
    n, g = len(rows), prepared.values.shape[1]
    products = np.zeros((g, g), dtype=np.float32, order="F")
    count, total = np.zeros(g), np.zeros(g)
    for start in range(0, n, _ROWS):
        values = prepared.rows(rows[start : start + _ROWS])
        there = ~np.isnan(values)
        np.copyto(values, np.float32(0), where=~there)
        count += there.sum(axis=0)
        total += values.sum(axis=0, dtype=np.float64)
        products = ssyrk(1.0, values.T, beta=1.0, c=products, overwrite_c=True)
    mean = total / np.maximum(count, 1)
    share = count / n
    covariance = np.triu(products).astype(np.float64) / n
    covariance += np.triu(covariance, 1).T
    both = np.outer(share, share)
    np.fill_diagonal(both, share)
    covariance = np.divide(covariance, both, out=np.zeros_like(covariance), where=both > 0) - np.outer(mean, mean)
    k = min(k, g, n - 1)
    variance, axes = eigh(covariance, subset_by_index=(g - k, g - 1), overwrite_a=True)
    trace = float(np.divide(np.diag(products) / n, share, out=np.zeros(g), where=share > 0).sum() - mean @ mean)
    variance, axes = np.clip(variance[::-1], 0, None), axes[:, ::-1]
    sign = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(k)])
    return Axes(np.ascontiguousarray(axes * sign, dtype=np.float32), mean.astype(np.float32), variance, trace)
