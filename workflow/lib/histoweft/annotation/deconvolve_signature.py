"""What each cell type expresses, how sure that is, and which genes tell the types apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

AMBIENT = 0.02
"""Share of the mean of all types mixed into each type: no rate is zero, as a stray count proves no cell."""

_PRIOR_CELLS = 20
_LARGEST_DISPERSION = 20.0
_BEST_OF_TYPE = 30


@dataclass(frozen=True)
class Signature:
    """Mean expression of cell types, learned from labelled cells.

    Attributes
    ----------
    rates
        types x genes, share of a cell's counts; a row adds up to 1 over the genes that it was learned on.
    variance
        Of `rates`, types x genes: a reference has a limited number of cells and counts.
    dispersion
        Variance between cells of one type beyond Poisson, as a share of the squared mean, (genes,).
    sizes
        Mean counts of a cell of each type, (types,).
    size_variation
        Squared coefficient of variation of a cell's counts, (types,).
    """

    rates: np.ndarray
    variance: np.ndarray
    dispersion: np.ndarray
    sizes: np.ndarray
    size_variation: np.ndarray

    def take(self, genes: np.ndarray) -> Signature:
        """Return the same for some genes; rates stay shares of all counts."""
        return replace(
            self, rates=self.rates[:, genes], variance=self.variance[:, genes], dispersion=self.dispersion[genes]
        )


def learn_signature(counts: sp.csr_matrix, codes: np.ndarray, n_types: int) -> Signature:
    """Sum up the cells of each type.

    Parameters
    ----------
    counts
        cells x genes, raw counts.
    codes
        Type of each cell, a number below `n_types`; each type has a cell.
    n_types
        Number of types.

    Notes
    -----
    The rate of a gene is the type's counts of it over the type's total. Its dispersion is a moment estimate pooled over
    types, sum((y - mu)^2 - y) / sum(mu^2) with mu the cell's total times the rate, drawn towards that of all genes with
    the weight of a few cells; nothing cells x genes is made dense.
    """
    totals = np.asarray(counts.sum(axis=1)).ravel().astype(np.float64)
    member = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(n_types, len(codes)))
    of_type = np.asarray(member @ totals)
    if (of_type <= 0).any():
        raise ValueError(f"type {int(np.argmin(of_type))} has no counts")
    sums = (member @ counts).toarray().astype(np.float64)
    raw = sums / of_type[:, None]
    rates = (1 - AMBIENT) * raw + AMBIENT * raw.mean(axis=0)
    dispersion = _dispersion(counts, member, totals, sums, raw)
    squares = np.asarray(member @ totals**2)
    variance = rates / of_type[:, None] + dispersion * rates**2 * (squares / of_type**2)[:, None]
    sizes = of_type / np.bincount(codes, minlength=n_types)
    size_variation = np.maximum(squares / (of_type * sizes) - 1, 0)
    return Signature(rates, variance, dispersion, sizes, size_variation)


def _dispersion(
    counts: sp.csr_matrix, member: sp.csr_matrix, totals: np.ndarray, sums: np.ndarray, raw: np.ndarray
) -> np.ndarray:
    """Return the pooled dispersion; `member` types x cells, `sums` counts and `raw` rates, types x genes."""
    squared = counts.copy()
    squared.data = squared.data.astype(np.float64) ** 2
    crossed = (member @ sp.diags(totals) @ counts).toarray()
    means = raw**2 * np.asarray(member @ totals**2)[:, None]
    beyond = (member @ squared).toarray() - 2 * raw * crossed + means - sums
    beyond, means = beyond.sum(axis=0), means.sum(axis=0)
    overall = max(beyond.sum() / max(means.sum(), 1e-300), 0.0)
    # As many cells as stated with this gene's mean square; and one squared count, for a gene that is hardly seen.
    prior = means * _PRIOR_CELLS / counts.shape[0] + 1.0
    return np.clip((beyond + prior * overall) / (means + prior), 0.0, _LARGEST_DISPERSION)


def informative_genes(signature: Signature, n_genes: int, depth: float) -> np.ndarray:
    """Choose the genes whose counts in a spot tell the types apart.

    Parameters
    ----------
    signature
        Of all shared genes.
    n_genes
        Genes wanted.
    depth
        Counts of a typical spot.

    Returns
    -------
    Sorted numbers of the genes.

    Notes
    -----
    A gene's information is the variance of its rate between types over that of its rate in a spot of all types alike:
    mean / depth for counting, (dispersion + 0.1) mean^2 / types for cells that differ, and the rates' own variance.
    Each type keeps the 30 genes in which it stands out most from the next type, by the same measure, so that a large
    group of types does not take all.
    """
    rates = signature.rates
    mean = rates.mean(axis=0)
    noise = mean / depth + (signature.dispersion + 0.1) * mean**2 / len(rates) + signature.variance.mean(axis=0)
    information = np.divide(rates.var(axis=0), noise, out=np.zeros(len(mean)), where=noise > 0)
    chosen = np.zeros(len(mean), dtype=bool)
    if len(mean) <= n_genes:
        return np.flatnonzero(mean > 0)
    chosen[np.argsort(-information, kind="stable")[:n_genes]] = True
    for k in range(len(rates)):
        rest = np.delete(rates, k, axis=0).max(axis=0)
        margin = np.divide(np.clip(rates[k] - rest, 0, None) ** 2, noise, out=np.zeros(len(mean)), where=noise > 0)
        chosen[np.argsort(-margin, kind="stable")[:_BEST_OF_TYPE]] = True
    return np.flatnonzero(chosen & (mean > 0))
