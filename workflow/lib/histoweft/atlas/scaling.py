"""Genes and scale of a fold, from its training voxels alone; NaN stays NaN."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from histoweft.errors import InputError

ZSCORE, MINMAX = "zscore", "voxel_minmax"

_ROWS = 2_000
"""Voxels of one step of a pass over the expression."""
_SAMPLED = 20_000
"""Training voxels that medians are taken over, at most."""
_NARROW = 3.0
"""A gene whose median absolute deviation is this many times smaller than its SD is a marker of few voxels: the SD
counts."""


@dataclass(frozen=True)
class Scaling:
    """Genes of a fold, the limits of their values, and the scale that every method is scored on.

    Attributes
    ----------
    kind
        ``zscore``, or ``voxel_minmax``: values are first scaled to 0..1 within each voxel.
    genes
        Column numbers of the chosen genes, sorted.
    low, high
        Limits of each gene's expression: what lies beyond is an artefact and is moved to the limit, (genes,).
    mean, sd
        Of the limited values over the training voxels, (genes,); `sd` is 1 for a gene that does not vary.

    Notes
    -----
    The one scale of all scores: ``(value - mean) / sd``, gene by gene.
    """

    kind: str
    genes: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    sd: np.ndarray

    def apply(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Standardise rows x all genes.

        Returns
        -------
        values
            rows x chosen genes, float32, standardised.
        least, span
            rows x 1, of the limited expression: see `voxel_limits`.
        """
        values = np.clip(raw[:, self.genes], self.low, self.high)
        least, span = voxel_limits(values)
        if self.kind == MINMAX:
            values = (values - least) / span
        return ((values - self.mean) / self.sd).astype(np.float32), least, span

    def affine(self, least: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return factor and offset that turn standardised values of voxels into 0..1 within the voxel.

        Parameters
        ----------
        least, span
            rows x 1, from `apply`.

        Returns
        -------
        factor, offset
            Broadcast to rows x genes.
        """
        if self.kind == MINMAX:
            return np.float32(self.sd)[None], np.float32(self.mean)[None]
        return np.float32(self.sd) / span, (np.float32(self.mean) - least) / span


def voxel_limits(expression: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest value of each voxel, and the distance from it to the largest.

    Parameters
    ----------
    expression
        voxels x genes; NaN where there is no data.

    Returns
    -------
    low, span
        voxels x 1. A voxel that does not vary, or has no data, has span 1.

    Notes
    -----
    The scale of Spatial-VAE (Ahmed 2024): values between 0 and 1 within each voxel.
    """
    low = np.min(expression, axis=1, initial=np.inf, where=~np.isnan(expression), keepdims=True)
    high = np.max(expression, axis=1, initial=-np.inf, where=~np.isnan(expression), keepdims=True)
    span = high - low
    usable = np.isfinite(span) & (span > 0)
    return np.where(np.isfinite(low), low, 0).astype(np.float32), np.where(usable, span, 1).astype(np.float32)


def chunks(expression: np.ndarray, rows: np.ndarray, size: int = _ROWS) -> Iterator[tuple[slice, np.ndarray]]:
    """Read rows of a matrix that may be memory-mapped, a few at a time.

    Yields
    ------
    place
        Where in `rows` the piece belongs.
    values
        float32, up to `size` rows x genes. Pages read from the file are given back at once: they would otherwise count
        as memory of the process.
    """
    for start in range(0, len(rows), size):
        place = slice(start, min(start + size, len(rows)))
        yield place, np.asarray(expression[rows[place]], dtype=np.float32)
        mapped = getattr(expression, "_mmap", None)
        if mapped is not None:
            mapped.madvise(mmap.MADV_DONTNEED)


def fit_scaling(
    expression: np.ndarray, train: np.ndarray, n_genes: int, clip: float = 10.0, kind: str = ZSCORE
) -> Scaling:
    """Choose the most variable genes of the training voxels, and their scale.

    Parameters
    ----------
    expression
        voxels x genes; NaN where there is no data.
    train
        Row numbers of the training voxels.
    n_genes
        Genes to choose, by the variance of what was measured; all that vary where there are fewer.
    clip
        Limits of a gene, in robust standard deviations (1.4826 times the median absolute deviation) from its median.
    kind
        ``zscore`` or ``voxel_minmax``.

    Raises
    ------
    InputError
        No gene varies over the training voxels.
    """
    count, mean, square = _moments(expression, train, lambda raw: raw, expression.shape[1])
    variance = np.divide(square, count, out=np.zeros_like(square), where=count > 1)
    order = np.argsort(-variance, kind="stable")[:n_genes]
    genes = np.sort(order[variance[order] > 0])
    if len(genes) == 0:
        raise InputError.one(
            "atlas: expression of the training voxels",
            "no gene that varies",
            "at least one",
            "Look at atlas.missing and at the background: perhaps everything was taken for missing.",
        )
    low, high = _limits(expression, train, genes, np.sqrt(variance[genes]), clip)
    unit = Scaling(kind, genes, low, high, np.zeros(len(genes)), np.ones(len(genes)))
    count, mean, square = _moments(expression, train, lambda raw: unit.apply(raw)[0], len(genes))
    sd = np.sqrt(np.divide(square, count, out=np.zeros_like(square), where=count > 0))
    return Scaling(kind, genes, low, high, mean, np.where(sd > 1e-12, sd, 1.0))


def _moments(expression, rows, transform, n_genes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return count, mean and summed squared deviation of each gene, merged over pieces (Chan and others 1979)."""
    count, mean, square = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes)
    for _, raw in chunks(expression, rows):
        values = transform(raw)
        there = ~np.isnan(values)
        n = there.sum(axis=0)
        filled = np.where(there, values, np.float32(0))
        m = filled.sum(axis=0, dtype=np.float64) / np.maximum(n, 1)
        deviation = np.where(there, filled - m.astype(np.float32), np.float32(0))
        s = np.einsum("ij,ij->j", deviation, deviation, dtype=np.float64)
        total = count + n
        shift = m - mean
        share = np.divide(n, total, out=np.zeros_like(mean), where=total > 0)
        square += s + shift**2 * count * share
        mean += shift * share
        count = total
    return count, mean, square


def _limits(expression, train, genes, sd, clip) -> tuple[np.ndarray, np.ndarray]:
    sampled = train[np.linspace(0, len(train) - 1, min(len(train), _SAMPLED)).astype(np.intp)]
    values = np.empty((len(genes), len(sampled)), dtype=np.float32)
    for place, piece in chunks(expression, sampled):
        values[:, place] = piece[:, genes].T
    median, spread = np.empty(len(genes)), np.empty(len(genes))
    for gene, row in enumerate(values):
        row = row[~np.isnan(row)]
        median[gene] = np.median(row) if len(row) else 0.0
        spread[gene] = 1.4826 * np.median(np.abs(row - median[gene])) if len(row) else 0.0
    spread = np.where(spread * _NARROW > sd, spread, sd)
    return (median - clip * spread).astype(np.float32), (median + clip * spread).astype(np.float32)
