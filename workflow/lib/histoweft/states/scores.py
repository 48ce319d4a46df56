"""Scores of gene sets in every barcode, as products of sparse matrices: thousands of sets cost one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from histoweft.io import CountsFile
from histoweft.normalise import normalise, row_sums

TOP_SHARE = 0.05
"""Share of the genes whose ranks AUCell looks at."""

_TINY = 2.2e-16


@dataclass(frozen=True)
class Moments:
    """What one pass over the counts says.

    Attributes
    ----------
    totals
        Counts of each barcode.
    mean, variance
        Of each gene's log-normalised values.
    """

    totals: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def moments(counts: CountsFile, target_sum: float) -> Moments:
    """Go through the counts once for totals, and the mean and variance of log-normalised genes."""
    totals = np.zeros(counts.n_obs)
    first, second = np.zeros(counts.n_vars), np.zeros(counts.n_vars)
    for where, chunk in counts.chunks():
        totals[where] = row_sums(chunk)
        values = normalise(chunk, target_sum, totals[where])
        first += np.asarray(values.sum(axis=0), dtype=float).ravel()
        second += np.bincount(values.indices, weights=values.data.astype(float) ** 2, minlength=counts.n_vars)
    mean = first / counts.n_obs
    return Moments(totals, mean, np.maximum(second / counts.n_obs - mean**2, 0))


def normalised(counts: CountsFile, totals: np.ndarray, target_sum: float) -> Iterator[tuple[slice, sp.csr_matrix]]:
    """Go through the log-normalised values in chunks of rows."""
    for where, chunk in counts.chunks():
        yield where, normalise(chunk, target_sum, totals[where])


def score(values: sp.csr_matrix, weights: sp.spmatrix, method: str) -> np.ndarray:
    """Score sets by the method that the config selects: `ulm` or `aucell`; barcodes x sets, float32."""
    return (ulm if method == "ulm" else aucell)(values, weights).astype(np.float32)


def ulm(values: sp.csr_matrix, weights: sp.spmatrix) -> np.ndarray:
    """Score sets by a univariate linear model: the t-value of the slope of expression on the genes' weights.

    Parameters
    ----------
    values
        barcodes x genes, log-normalised.
    weights
        genes x sets; 0 for genes outside of a set.

    Returns
    -------
    barcodes x sets; 0 where a barcode's genes, or a set's weights, are all equal.

    Notes
    -----
    Badia-i-Mompel et al. 2022, Bioinformatics Advances 2:vbac016 (decoupler). Written as a correlation, so that nothing
    dense of barcodes x genes is made.
    """
    n = values.shape[1]
    weights = sp.csc_matrix(weights, dtype=np.float64)
    w_sum, w_square = (np.asarray(m.sum(axis=0)).ravel() for m in (weights, weights.multiply(weights)))
    y_sum = np.asarray(values.sum(axis=1), dtype=np.float64).ravel()
    y_square = np.bincount(_rows(values), weights=values.data.astype(np.float64) ** 2, minlength=values.shape[0])
    products = (values.astype(np.float64) @ weights).toarray()
    shared = products - np.outer(y_sum, w_sum / n)
    size = np.sqrt(np.outer(np.maximum(y_square - y_sum**2 / n, 0), w_square - w_sum**2 / n))
    r = np.divide(shared, size, out=np.zeros_like(shared), where=size > 0)
    return r * np.sqrt((n - 2) / ((1 - r + _TINY) * (1 + r + _TINY)))


def aucell(values: sp.csr_matrix, weights: sp.spmatrix) -> np.ndarray:
    """Score sets by how early their genes come in each barcode's ranking (AUCell).

    Parameters
    ----------
    values
        barcodes x genes, log-normalised.
    weights
        genes x sets; genes of positive weight are ranked from the top, genes of negative weight, whose direction the
        method does not know, are left out.

    Returns
    -------
    barcodes x sets, 0 to 1.

    Notes
    -----
    Aibar et al. 2017, Nature Methods 14:1083. The area under the recovery curve is a sum over genes of how far each
    stands above the last rank that counts (5 % of the genes), so that it is a product of matrices too. Genes without
    counts never count, where other implementations rank them by their place in the matrix.
    """
    last = int(np.clip(math.ceil(TOP_SHARE * values.shape[1]), 2, values.shape[1]))
    members = (sp.csc_matrix(weights) > 0).astype(np.float64)
    sizes = np.minimum(np.asarray(members.sum(axis=0)).ravel(), last - 1)
    largest = last * sizes - sizes * (sizes + 1) / 2
    areas = (_above(values, last) @ members).toarray()
    return areas / np.where(largest > 0, largest, 1)


def _above(values: sp.csr_matrix, last: int) -> sp.csr_matrix:
    """Return by how many ranks each value stands above rank `last`; ties by the order of the genes."""
    rows = _rows(values)
    order = np.lexsort((values.indices, -values.data, rows))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(values.indptr[:-1], np.diff(values.indptr)) + 1
    above = np.where(values.data > 0, np.maximum(last - rank, 0), 0).astype(np.float64)
    found = sp.csr_matrix((above, values.indices, values.indptr), shape=values.shape)
    found = found.copy()
    found.eliminate_zeros()
    return found


def _rows(values: sp.csr_matrix) -> np.ndarray:
    return np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))
