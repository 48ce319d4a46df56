"""How well the best of all predictions could correlate, given that counts are a sample of the molecules."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.normalise import row_sums, size_factors


def thinning_ceiling(
    counts_test: sp.csr_matrix,
    total_test: np.ndarray,
    median_total: float,
    genes: np.ndarray,
    seed: int = 0,
    repeats: int = 3,
) -> np.ndarray:
    """Estimate the highest correlation with the measured expression that any prediction can expect.

    Parameters
    ----------
    counts_test
        test spots x genes, whole counts; all genes that were measured, for the totals of the halves.
    total_test
        Total count of each test spot, (spots,); what it has beyond the row's sum is thinned along.
    median_total
        What the target is scaled to.
    genes
        Column numbers wanted.
    seed
        Of the thinning.
    repeats
        Times the counts are split; the correlations are averaged.

    Returns
    -------
    numpy.ndarray
        (genes,), 0 to 1; NaN for a gene that is constant in these spots.

    Raises
    ------
    InputError
        Counts are not whole numbers, or exceed the totals.

    Notes
    -----
    Each count is split in two by a fair binomial draw; halves of Poisson counts are independent measurements of the
    same tissue. Both are scaled by their own total and log-transformed like the target. Their correlation r is the
    reliability of half the depth; 2 r / (1 + r) that of the full depth (Spearman 1910, Brown 1910), and its square
    root bounds the correlation with anything that does not know the noise (Spearman 1904). Correlations below 0 become
    0, so in few spots genes without any signal have a ceiling somewhat above 0.
    """
    counts = sp.csr_matrix(counts_test)
    beyond = _beyond(counts, total_test)
    wanted = np.full(counts.shape[1], -1)
    wanted[genes] = np.arange(len(genes))
    column = wanted[counts.indices]
    kept = column >= 0
    spot = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    row, column = spot[kept], column[kept]
    whole = counts.data.astype(np.int64)
    rng = np.random.default_rng(seed)
    r = np.zeros(len(genes))
    for _ in range(repeats):
        half = rng.binomial(whole, 0.5)
        total = np.bincount(spot, half, counts.shape[0]) + rng.binomial(beyond, 0.5)
        first = _normalised(half[kept], total, row, median_total)
        second = _normalised((whole - half)[kept], total_test - total, row, median_total)
        r += _correlation(first, second, column, len(genes), counts.shape[0]) / repeats
    r = np.clip(r, 0, 1)
    ceiling = np.sqrt(2 * r / (1 + r))
    values = _normalised(whole[kept], np.asarray(total_test, dtype=float), row, median_total)
    ceiling[_constant(values, column, len(genes), counts.shape[0])] = np.nan
    return ceiling


def _beyond(counts: sp.csr_matrix, totals: np.ndarray) -> np.ndarray:
    if (counts.data != np.floor(counts.data)).any():
        raise InputError.one(
            "count-thinning ceiling", "counts that are not whole numbers", "raw counts",
            "Give the section's raw counts, or leave the ceiling out.",
        )  # fmt: skip
    beyond = np.rint(totals - row_sums(counts)).astype(np.int64)
    if (beyond < 0).any():
        at = int(np.flatnonzero(beyond < 0)[0])
        found = f"a total of {totals[at]:g} for counts that sum to {totals[at] - beyond[at]:g} (test spot {at})"
        raise InputError.one("count-thinning ceiling", found, "totals over all genes")
    return beyond


def _normalised(values: np.ndarray, totals: np.ndarray, row: np.ndarray, median_total: float) -> np.ndarray:
    return np.log1p(values * size_factors(totals, median_total)[row])


def _correlation(x: np.ndarray, y: np.ndarray, column: np.ndarray, genes: int, n: int) -> np.ndarray:
    """Pearson of two sparse matrices of the same structure, gene by gene; 0 where one of them is constant."""

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(column, values, genes) / n

    mean_x, mean_y = mean(x), mean(y)
    covariance = mean(x * y) - mean_x * mean_y
    spread = np.sqrt(np.maximum(mean(x * x) - mean_x**2, 0) * np.maximum(mean(y * y) - mean_y**2, 0))
    return np.divide(covariance, spread, out=np.zeros(genes), where=spread > 1e-12)


def _constant(values: np.ndarray, column: np.ndarray, genes: int, n: int) -> np.ndarray:
    mean = np.bincount(column, values, genes) / n
    return np.bincount(column, values * values, genes) / n - mean**2 <= 1e-12
