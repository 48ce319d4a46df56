"""Scaling counts to a common total, and ranking genes by dispersion: what several stages need alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp


def row_sums(chunk: sp.csr_matrix, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum each row, its columns weighted by `weights` (columns,) if given; float64 (rows,)."""
    return chunk @ (np.ones(chunk.shape[1]) if weights is None else weights.astype(np.float64))


def size_factors(totals: np.ndarray, target_sum: float) -> np.ndarray:
    """Say what each cell's counts are multiplied by; zero for a cell without counts. (cells,) float64."""
    return np.divide(target_sum, totals, out=np.zeros(len(totals)), where=totals > 0)


def normalise(chunk: sp.csr_matrix, target_sum: float = 10_000, totals: np.ndarray | None = None) -> sp.csr_matrix:
    """Scale each row to a total and take log(1 + x).

    Parameters
    ----------
    chunk
        cells x genes, counts.
    target_sum
        The total.
    totals
        Counts of each cell over all genes, (cells,); the chunk's own sums when left out.

    Returns
    -------
    cells x genes, float32, sharing the chunk's structure.
    """
    totals = row_sums(chunk) if totals is None else totals
    # In double precision, so that equal shares stay equal values: 1 of 33 and 3 of 99 are ties in a rank test.
    values = np.repeat(size_factors(totals, target_sum), np.diff(chunk.indptr))
    values *= chunk.data
    values = values.astype(np.float32)
    np.log1p(values, out=values)
    normalised = sp.csr_matrix(chunk.shape, dtype=np.float32)
    normalised.data, normalised.indices, normalised.indptr = values, chunk.indices, chunk.indptr
    return normalised


def dispersion_table(mean: np.ndarray, variance: np.ndarray, n_bins: int = 20) -> pd.DataFrame:
    """Compare each gene's dispersion with that of genes of similar mean [1]_, [2]_.

    Parameters
    ----------
    mean, variance
        Of the normalised, not log-transformed values; (genes,).
    n_bins
        Equal-width bins of log(1 + mean).

    Returns
    -------
    means (log(1 + mean)), dispersions (log of variance / mean), dispersions_norm (standardised within the bin; a gene
    alone in its bin gets 1, a gene without spread NaN).

    References
    ----------
    .. [1] Satija et al. 2015, Nature Biotechnology 33:495 (Seurat).
    .. [2] Wolf et al. 2018, Genome Biology 19:15; scanpy's flavour "seurat" with default bins.
    """
    mean = np.where(mean == 0, 1e-12, mean)
    ratio = variance / mean
    with np.errstate(divide="ignore"):
        dispersion = np.where(ratio > 0, np.log(ratio), np.nan)
    table = pd.DataFrame({"means": np.log1p(mean), "dispersions": dispersion})
    bins = pd.cut(table["means"], bins=n_bins)
    grouped = table.groupby(bins, observed=True)["dispersions"]
    centre, spread = grouped.transform("mean"), grouped.transform("std")
    alone = spread.isna()
    spread = spread.where(~alone, centre)
    centre = centre.where(~alone, 0.0)
    table["dispersions_norm"] = (table["dispersions"] - centre) / spread
    return table
