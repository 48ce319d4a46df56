"""Spots that no mixture of the reference's types explains, found by what such spots leave in common.

One cell of a type that the reference lacks changes many genes a little: the sum of squared residuals hardly grows, as
noise of all genes is in it, and the other types take part of its counts. But all spots with that type are left with the
same residual. So the leading principal directions of the residuals are learned on one half of the spots and looked for
in the other half. How large such a score is by chance alone is known from spots mixed of reference cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from histoweft.annotation.deconvolve_poisson import Noise, blocks

DIRECTIONS = 5
_CLIP = 5.0
_MOST_SPOTS = 600
_MORE_GENES = 500
_LEAST_COUNTS = 10
_SURELY = 3.0
_CLEAR_TAIL = 1.0


@dataclass(frozen=True)
class Directions:
    """Shared residuals of two halves of the spots.

    Attributes
    ----------
    genes
        Genes looked at, numbers.
    axes
        2 x genes x directions, of unit length, pointing to the spots that the types do not explain.
    """

    genes: np.ndarray
    axes: np.ndarray


def residuals(counts: sp.csr_matrix, weights: np.ndarray, noise: Noise) -> np.ndarray:
    """Return standardised residuals, cut at 5 standard deviations, spots x genes."""
    mean = noise.mean(weights)
    variance = noise.variance(weights, mean)
    scale = np.sqrt(np.where(variance > 0, variance, np.inf))
    return np.clip((counts.toarray() - mean) / scale, -_CLIP, _CLIP)


def learn_directions(
    counts: sp.csr_matrix, weights: np.ndarray, noise: Noise, informative: np.ndarray, seed: int
) -> Directions:
    """Learn which residuals spots have in common.

    Parameters
    ----------
    counts
        spots x shared genes.
    weights
        Counts of each type, spots x types.
    noise
        Over the shared genes.
    informative
        Genes that the weights were found with. The 500 others whose residuals vary most join them: a missing type's
        own markers tell no known types apart.
    seed
        Of the choice of spots where there are many.
    """
    rng = np.random.default_rng(seed)
    seen = np.flatnonzero(np.asarray(counts.sum(axis=0)).ravel() >= _LEAST_COUNTS)
    halves = [_some(np.arange(half, len(weights), 2), rng) for half in (0, 1)]
    rows = np.sort(np.concatenate(halves))
    varies, there = np.zeros(len(seen)), noise.take(seen)
    for part in blocks(len(rows), len(seen)):
        some = rows[part]
        varies += (residuals(counts[some][:, seen], weights[some], there) ** 2).sum(axis=0)
    varies[np.isin(seen, informative)] = np.inf
    genes = np.sort(seen[np.argsort(-varies, kind="stable")[: np.isinf(varies).sum() + _MORE_GENES]])
    chosen = noise.take(genes)
    deviation = np.log(chosen.platform.factor) / max(chosen.platform.log_sd, 1e-6)
    axes = [_axes(residuals(counts[half][:, genes], weights[half], chosen), deviation) for half in halves]
    return Directions(genes, np.stack(axes))


def _some(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= _MOST_SPOTS else np.sort(rng.choice(rows, _MOST_SPOTS, replace=False))


def _axes(left: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return the leading right singular vectors, genes x directions; zeros where there are fewer.

    They point to the longer tail of the scores: spots that are not explained are the fewer ones. Where no tail is
    clearly longer, the missing type is common, its genes exceed in the pool of all spots what the types foretell, and
    their factors between the platforms (`deviation`, in standard deviations) tell the side.
    """
    axes = np.zeros((left.shape[1], DIRECTIONS))
    k = min(DIRECTIONS, *left.shape)
    if k == 0:
        return axes
    axes[:, :k] = np.linalg.svd(left, full_matrices=False)[2][:k].T
    scores = left @ axes
    spread = np.maximum(scores.std(axis=0), 1e-12)
    tail = (((scores - np.median(scores, axis=0)) / spread) ** 3).mean(axis=0)
    pooled = deviation @ axes
    side = np.where((np.abs(tail) < _CLEAR_TAIL) & (np.abs(pooled) > _SURELY), pooled, tail)
    return axes * np.where(side < 0, -1.0, 1.0)


def score(counts: sp.csr_matrix, weights: np.ndarray, noise: Noise, directions: Directions) -> np.ndarray:
    """Project residuals on the directions of both halves, 2 x spots x directions."""
    found = np.zeros((2, len(weights), directions.axes.shape[2]))
    chosen = noise.take(directions.genes)
    for rows in blocks(len(weights), len(directions.genes)):
        left = residuals(counts[rows][:, directions.genes], weights[rows], chosen)
        found[:, rows] = left @ directions.axes
    return found


def misfit(spots: np.ndarray, known: np.ndarray, rate: float) -> tuple[np.ndarray, float]:
    """Compare spots' scores with those of spots that hold known types only.

    Parameters
    ----------
    spots
        Scores of the spots, from `score`.
    known
        Scores of spots mixed of reference cells, on the same directions.
    rate
        Share of such spots that may be flagged.

    Returns
    -------
    misfit
        (spots,), not negative: mean of the positive standardised scores on the directions of the half that a spot does
        not belong to. Each direction weighs by what its variance among the spots of its own half exceeds chance.
    threshold
        What `rate` of the mixed spots exceed.

    Notes
    -----
    The centre is that of the mixed spots. The scale is theirs too, or the root mean square of the spots' scores below
    the centre where that is larger: a missing type pushes spots to one side only, whereas a reference that fits tissue
    a little worse than its own cells scatters them to both.
    """
    centre = np.median(known, axis=1, keepdims=True)
    own = np.maximum(np.sqrt(((known - centre) ** 2).mean(axis=1, keepdims=True)), 1e-12)
    below = np.minimum(spots - centre, 0)
    number = np.maximum((below < 0).sum(axis=1, keepdims=True), 1)
    scale = np.maximum(own, np.sqrt((below**2).sum(axis=1, keepdims=True) / number))
    standard, chance = (spots - centre) / scale, (known - centre) / own
    half = np.arange(spots.shape[1]) % 2
    found, null = np.zeros(spots.shape[1]), []
    for learned in (0, 1):
        weight = np.clip((standard[learned, half == learned] ** 2).mean(axis=0) - 1, 1e-9, None)
        weight /= weight.sum()
        found[half != learned] = np.clip(standard[learned, half != learned], 0, None) @ weight
        null.append(np.clip(chance[learned], 0, None) @ weight)
    return found, float(np.quantile(np.concatenate(null), 1 - rate))
