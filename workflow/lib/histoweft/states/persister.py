"""Persister candidates: barcodes in which the persister programmes are raised together, beyond random gene sets.

Every programme stands beside gene sets of the same size drawn from genes of like expression. Programmes and drawn sets
are treated alike: scored, corrected for cell cycle, sequencing depth and composition, combined. The drawn sets say what
a combination without meaning reaches, barcode by barcode (Zhang et al. 2022, Nature Genetics 54:1572, scDRS).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.significance import adjust
from histoweft.states.scores import Moments, ulm

ALIKE = 40
"""Genes nearest to a programme's gene in mean and variance, from which its stand-ins are drawn."""

MOST_VALUES = 200_000_000
"""Scores of drawn sets that are held at most (float32: 800 MB); there are fewer sets for more barcodes."""

FEWEST_SETS, FEWEST_BARCODES = 50, 50

FEWEST_CALLED = 3
"""Fewer calls are dropped: where nothing persists, a false discovery rate lets one or two barcodes through."""

_VARIANCE_WEIGHT = 0.5
_LOWER = 0.1587
_PASSES = 6
_MOST_CALLED = 0.5


@dataclass(frozen=True)
class Found:
    """Persister candidates of one sample.

    Attributes
    ----------
    score
        Joint score, in lower-half standard deviations above the sample's median; NaN for barcodes that may not persist.
    p
        Share of the drawn sets' scores, over all barcodes, that are at least as large.
    called
        Whether the false discovery rate at that score is within the one asked for.
    threshold
        Score from which barcodes are called; NaN where none is.
    false_positive_rate
        Share of the drawn sets' scores at or above the threshold; 0 where none is called.
    sets
        Sets drawn.
    """

    score: np.ndarray
    p: np.ndarray
    called: np.ndarray
    threshold: float
    false_positive_rate: float
    sets: int


def sets_for(n_barcodes: int, n_programmes: int, wanted: int) -> int:
    """Return how many sets can be drawn for each programme within `MOST_VALUES`."""
    return max(min(wanted, MOST_VALUES // max(n_barcodes * n_programmes, 1)), min(wanted, FEWEST_SETS))


def stand_ins(moments: Moments, weights: sp.csc_matrix, barred: np.ndarray) -> np.ndarray:
    """Return the genes that can stand in for the programmes': expressed, in no programme, and not barred."""
    free = moments.mean > 0
    free[np.concatenate([weights.indices, np.asarray(barred, dtype=int)])] = False
    return np.flatnonzero(free)


def matched_sets(
    moments: Moments, weights: sp.csc_matrix, barred: np.ndarray, n_sets: int, seed: int = 0
) -> sp.csc_matrix:
    """Draw gene sets that stand in for the programmes.

    Parameters
    ----------
    moments
        Of the sample.
    weights
        genes x programmes.
    barred
        Genes that must not be drawn beside the programmes' own: the cell cycle's, which scores are corrected for.
    n_sets
        For each programme.
    seed
        Of the draws.

    Returns
    -------
    genes x (programmes * n_sets), all sets of the first programme first. Each gene of a programme is replaced, with
    its weight, by one of the `ALIKE` genes nearest in the ranks of mean and variance, never twice in a set.
    """
    from scipy.spatial import cKDTree
    from scipy.stats import rankdata

    rng = np.random.default_rng(seed)
    weights = sp.csc_matrix(weights)
    n_genes, n_programmes = weights.shape
    free = stand_ins(moments, weights, barred)
    dispersion = np.divide(moments.variance, moments.mean, out=np.zeros(n_genes), where=moments.mean > 0)
    places = np.column_stack([rankdata(moments.mean), _VARIANCE_WEIGHT * rankdata(dispersion)])
    tree = cKDTree(places[free])
    parts = []
    for programme in range(n_programmes):
        own = slice(weights.indptr[programme], weights.indptr[programme + 1])
        genes, sizes = weights.indices[own], weights.data[own]
        reach = min(max(ALIKE, 2 * len(genes)), len(free))
        near = free[tree.query(places[genes], k=reach)[1].reshape(len(genes), reach)]
        drawn = _draw(near, n_sets, rng)
        columns = np.repeat(np.arange(n_sets), len(genes))
        parts.append(sp.csc_matrix((np.tile(sizes, n_sets), (drawn.ravel(), columns)), shape=(n_genes, n_sets)))
    return sp.hstack(parts, format="csc")


def _draw(near: np.ndarray, n_sets: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one candidate for each gene, none twice in a set; sets x genes."""
    n_genes, reach = near.shape
    drawn = near[np.arange(n_genes), rng.integers(0, reach, (n_sets, n_genes))]
    for row in drawn:
        taken: set[int] = set()
        for place in rng.permutation(n_genes):
            if row[place] in taken:
                left = [gene for gene in near[place] if gene not in taken]
                row[place] = left[rng.integers(len(left))] if left else row[place]
            taken.add(row[place])
    return drawn


def design(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return an orthonormal basis of what scores are corrected for, the constant included.

    Parameters
    ----------
    columns
        Arrays (n,) or (n, m), finite; constant or dependent columns add nothing.
    """
    n = len(columns[0])
    table = np.column_stack([np.ones(n), *columns]).astype(float)
    table[:, 1:] -= table[:, 1:].mean(axis=0)
    size = np.sqrt((table**2).sum(axis=0))
    table = table[:, size > 1e-9 * np.sqrt(n)] / size[size > 1e-9 * np.sqrt(n)]
    left, values, _ = np.linalg.svd(table, full_matrices=False)
    return left[:, values > 1e-6 * values[0]]


def residuals(scores: np.ndarray, basis: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Take out of scores (n, sets) what the corrections explain, by least squares over the `usual` barcodes."""
    inner = basis[usual]
    coefficients = np.linalg.lstsq(inner, scores[usual], rcond=None)[0]
    return scores - (basis @ coefficients).astype(scores.dtype)


def standardise(values: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Scale columns by median and lower-half spread, which barcodes that stand out upwards hardly move."""
    middle = np.median(values[usual], axis=0)
    spread = middle - np.quantile(values[usual], _LOWER, axis=0)
    return (values - middle) / np.where(spread > 0, spread, 1)


def joint(
    scores: np.ndarray, drawn: np.ndarray, sizes: Sequence[int], basis: np.ndarray, usual: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Combine the programmes of each barcode, and the drawn sets in the same way.

    Parameters
    ----------
    scores
        (n, programmes).
    drawn
        (n, programmes * sets), as `matched_sets` orders them.
    sizes
        Genes of each programme.
    basis
        See `design`.
    usual
        (n,) barcodes that corrections, centre and spread are learned from.

    Returns
    -------
    score
        (n,)
    null
        (n, sets)

    Notes
    -----
    Each programme is centred and scaled by its drawn sets in the same barcode, which takes away what any set of such
    genes does there; programmes are added with weights that grow with the root of their genes, so that a programme of
    five genes is not heard as loudly as one of twenty (Stouffer 1949; Lipták 1958).
    """
    n, n_programmes = scores.shape
    n_sets = drawn.shape[1] // n_programmes
    weights = np.sqrt(np.asarray(sizes, dtype=np.float32) / np.sum(sizes))
    real, null = np.zeros(n, np.float32), np.zeros((n, n_sets), np.float32)
    for programme, weight in enumerate(weights):
        block = residuals(drawn[:, programme * n_sets : (programme + 1) * n_sets], basis, usual)
        own = residuals(scores[:, [programme]], basis, usual)[:, 0]
        middle, spread = block.mean(axis=1), block.std(axis=1)
        spread = np.where(spread > 0, spread, 1)
        real += weight * (own - middle) / spread
        block -= middle[:, None]
        block *= (weight / spread)[:, None]
        null += block
    return standardise(real[:, None], usual)[:, 0], standardise(null, usual)


def call(score: np.ndarray, null: np.ndarray, eligible: np.ndarray, fdr: float) -> Found:
    """Call barcodes whose score random sets hardly reach.

    Parameters
    ----------
    score, null
        See `joint`.
    eligible
        (n,) whether a barcode may be called; the drawn sets' scores of the others count as well.
    fdr
        False discovery rate (Benjamini and Hochberg) at which barcodes are called.
    """
    ordered = np.sort(null, axis=None)
    beyond = len(ordered) - np.searchsorted(ordered, score, side="left")
    p = np.where(eligible, (beyond + 1) / (len(ordered) + 1), np.nan)
    called = np.nan_to_num(adjust(p), nan=1.0) <= fdr
    called &= called.sum() >= FEWEST_CALLED
    threshold = float(score[called].min()) if called.any() else np.nan
    rate = float((ordered >= threshold).mean()) if called.any() else 0.0
    return Found(np.where(eligible, score, np.nan), p, called, threshold, rate, null.shape[1])


def find(
    chunks: Iterable[tuple[slice, sp.csr_matrix]],
    moments: Moments,
    weights: sp.csc_matrix,
    barred: np.ndarray,
    corrections: Sequence[np.ndarray],
    eligible: np.ndarray,
    *,
    n_sets: int,
    fdr: float,
    seed: int = 0,
) -> Found:
    """Find the persister candidates of one sample.

    Parameters
    ----------
    chunks
        Log-normalised values of all barcodes, see `histoweft.states.scores.normalised`.
    moments
        Of the sample.
    weights
        genes x programmes.
    barred
        See `matched_sets`.
    corrections
        What scores are corrected for beside the logarithm of total counts: arrays (n,) or (n, m).
    eligible
        (n,) whether a barcode may persist; corrections are learned from the others too, but they are not called.
    n_sets
        Sets drawn for each programme; see `sets_for`.
    fdr
        See `call`.
    seed
        Of the drawn sets.

    Returns
    -------
    Found, over all barcodes. With fewer than `FEWEST_BARCODES` eligible ones, or fewer than `ALIKE`
    genes (or twice a programme's) to draw sets from, nothing is scored.

    Notes
    -----
    Always by the univariate linear model: AUCell's scores of small sets are mostly nought and so skewed that a nominal
    false discovery rate of 5 % came out as 13 to 35 % on simulated cells.
    """
    n, n_programmes = len(eligible), weights.shape[1]
    too_few = n_programmes == 0 or eligible.sum() < FEWEST_BARCODES
    if too_few or len(stand_ins(moments, weights, barred)) < max(ALIKE, 2 * np.diff(weights.indptr).max()):
        blank = np.full(n, np.nan)
        return Found(blank, blank, np.zeros(n, dtype=bool), np.nan, 0.0, 0)
    n_sets = sets_for(n, n_programmes, n_sets)
    sets = sp.hstack([weights, matched_sets(moments, weights, barred, n_sets, seed)], format="csc")
    scores = np.concatenate([ulm(values, sets).astype(np.float32) for _, values in chunks])
    depth = np.log(np.maximum(moments.totals, 1))
    # The square, because scores of few counts level off.
    basis = design([depth, (depth - depth.mean()) ** 2, *corrections])
    sizes = np.diff(weights.indptr)
    return _settle(scores[:, :n_programmes], scores[:, n_programmes:], sizes, basis, eligible, fdr)


def _settle(
    scores: np.ndarray, drawn: np.ndarray, sizes: np.ndarray, basis: np.ndarray, eligible: np.ndarray, fdr: float
) -> Found:
    """Call barcodes, learn the corrections without them, and call again, until the calls stay.

    Where many persist they pull the sample's centre and its regression towards themselves. Where none is called, the
    first pass is the last.
    """
    called = np.zeros(len(scores), dtype=bool)
    for _ in range(_PASSES):
        found = call(*joint(scores, drawn, sizes, basis, ~called), eligible, fdr)
        if np.array_equal(found.called, called) or found.called.mean() > _MOST_CALLED:
            break
        called = found.called
    return found


def composition(shares: pd.DataFrame | None, labels: pd.Series | None, clusters: pd.Series) -> tuple[np.ndarray, str]:
    """Return what stands for the cells of each barcode: proportions, else cell types, else clusters.

    Parameters
    ----------
    shares
        Share of each cell type in each spot, (n, types).
    labels
        Cell type of each barcode.
    clusters
        Leiden clusters at the coarsest resolution.

    Returns
    -------
    columns
        (n, m)
    name
        ``proportions``, ``annotation`` or ``clusters``.
    """
    if shares is not None and shares.shape[1] > 1:
        return shares.to_numpy(dtype=float), "proportions"
    source, name = (labels, "annotation") if labels is not None else (clusters, "clusters")
    codes, names = pd.factorize(source.astype(object).where(source.notna(), ""))
    return np.eye(len(names))[codes], name
