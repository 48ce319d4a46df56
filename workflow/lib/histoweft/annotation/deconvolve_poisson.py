"""Counts of a spot as a mixture of cell types: weighted Poisson regression with what the reference says about noise.

The mean of gene g in spot s is lambda = sum_k W_sk gamma_g mu_kg: counts from each type times the gene's factor
between the platforms (as in RCTD, Cable et al. 2022, Nature Biotechnology 40:517). Its variance is

    lambda + c sum_k W_sk size_k phi_g (gamma_g mu_kg)^2 + sum_k W_sk^2 gamma_g^2 v_kg + psi lambda^2

for counting, for cells of one type that differ (size_k: counts of a cell; c: how many of them the platform catches),
for the reference's limited cells and for what is left of the difference between platforms. c and psi are estimated from
the spots. The weights W are found by Fisher scoring: each step is a weighted non-negative least-squares problem per
spot, and all spots of a block are solved at once through dense products. A step's variances are those of a composition
half-way between the spot's own and the mean of all spots: taken at the spot's own, a gene whose mean happens to be
fitted low gets a large say, which confirms itself (measured on mixed spots; benchmarks/deconvolution.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from histoweft.annotation.deconvolve_signature import Signature
from histoweft.annotation.deconvolve_solve import solve_nonnegative

_BLOCK_VALUES = 1_000_000
"""Dense counts of a block: 8 MB, and a few times that for its working copies."""

_LEARN_SPOTS = 1_000
_STEPS = 30
_TOLERANCE = 1e-3
_ROUNDS = 3
_LARGEST_LOG_FACTOR = 3.0
_OUTLIER = 2.5
_LARGEST_RESIDUAL = 50.0
_START_SPREAD = 0.1
_OWN = 0.5
"""Share of the spot's own composition in the one that a step's variances are taken at."""


@dataclass(frozen=True)
class Platform:
    """How the spots' technology differs from the reference's.

    Attributes
    ----------
    factor
        gamma, (genes,): counts in the spots over what the reference's rates foretell.
    log_sd
        Standard deviation of its logarithm over the genes.
    cell_share
        c: counts of a cell in a spot over those of a cell in the reference.
    spread
        psi: squared relative difference between the platforms that `factor` leaves.
    composition
        Share of the counts that each type gave in the pool of all spots, (types,).
    """

    factor: np.ndarray
    log_sd: float
    cell_share: float
    spread: float
    composition: np.ndarray


class Noise:
    """Mean and variance of spots' counts for given weights.

    Parameters
    ----------
    signature
        Of the genes of `platform`.
    platform
        Differences between the technologies.
    """

    def __init__(self, signature: Signature, platform: Platform):
        self.axes = signature.rates * platform.factor
        self._sampling = signature.variance * platform.factor**2
        self._between = signature.sizes[:, None] * signature.dispersion * self.axes**2
        self.signature, self.platform = signature, platform

    def take(self, genes: np.ndarray) -> Noise:
        """Return the same for some genes."""
        return Noise(self.signature.take(genes), replace(self.platform, factor=self.platform.factor[genes]))

    def mean(self, weights: np.ndarray) -> np.ndarray:
        """Return spots x genes."""
        return weights @ self.axes

    def parts(self, weights: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what is known of the variance, and what `cell_share` and `spread` are to be multiplied with."""
        return mean + weights**2 @ self._sampling, weights @ self._between, mean**2

    def variance(self, weights: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Return spots x genes, positive where the mean is."""
        known, between, squared = self.parts(weights, mean)
        return known + self.platform.cell_share * between + self.platform.spread * squared

    def precision(self, weights: np.ndarray) -> np.ndarray:
        """Return what a step weighs squared residuals with, spots x genes: see the notes of the module."""
        typical = weights.sum(axis=1, keepdims=True) * self.platform.composition
        between = _OWN * weights + (1 - _OWN) * typical
        return _inverse(self.variance(between, self.mean(between)))


def blocks(n: int, n_genes: int) -> Iterator[slice]:
    """Cut spots into consecutive slices whose dense counts stay small."""
    rows = max(1, _BLOCK_VALUES // max(n_genes, 1))
    for start in range(0, n, rows):
        yield slice(start, min(start + rows, n))


def fit_weights(counts: sp.csr_matrix, noise: Noise) -> np.ndarray:
    """Find how many counts each type gave to each spot.

    Parameters
    ----------
    counts
        spots x genes.
    noise
        Over the same genes.

    Returns
    -------
    spots x types, not negative; zero for a spot without counts.
    """
    pairs = _pairs(noise)
    weights = np.zeros((counts.shape[0], len(noise.axes)))
    for rows in blocks(*counts.shape):
        weights[rows] = _fit_block(counts[rows].toarray().astype(np.float64), noise, pairs)
    return weights


def information(weights: np.ndarray, noise: Noise) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the Fisher information of consecutive spots, spots of the slice x types x types."""
    pairs = _pairs(noise)
    for rows in blocks(len(weights), noise.axes.shape[1]):
        yield rows, _symmetric(noise.precision(weights[rows]) @ pairs, len(noise.axes))


def _pairs(noise: Noise) -> np.ndarray:
    """Return the products of every two types' means, genes x pairs: one product with them makes all informations."""
    i, j = np.triu_indices(len(noise.axes))
    return (noise.axes[i] * noise.axes[j]).T


def _fit_block(y: np.ndarray, noise: Noise, pairs: np.ndarray) -> np.ndarray:
    k = len(noise.axes)
    totals = y.sum(axis=1)
    weights = np.repeat(totals[:, None] / max(noise.axes.sum(), 1e-300), k, axis=1)
    free = np.ones(weights.shape, dtype=bool)
    going = np.flatnonzero(totals > 0)
    for _ in range(_STEPS):
        if not len(going):
            break
        old = weights[going]
        precision = noise.precision(old)
        new, free[going] = solve_nonnegative(
            _symmetric(precision @ pairs, k), (precision * y[going]) @ noise.axes.T, free[going]
        )
        weights[going] = new
        change = np.abs(new - old).max(axis=1)
        going = going[change > _TOLERANCE * new.sum(axis=1)]
    return weights


def _inverse(values: np.ndarray) -> np.ndarray:
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)


def _symmetric(upper: np.ndarray, k: int) -> np.ndarray:
    i, j = np.triu_indices(k)
    full = np.empty((len(upper), k, k))
    full[:, i, j] = upper
    full[:, j, i] = upper
    return full


def learn_platform(counts: sp.csr_matrix, signature: Signature, seed: int) -> Platform:
    """Estimate the differences between the technologies from some of the spots.

    Parameters
    ----------
    counts
        spots x genes.
    signature
        Of these genes.
    seed
        Of the choice of spots where there are many.

    Notes
    -----
    In turns: weights of the spots for the factors at hand; then each gene's log factor, log(observed / foretold) over
    all these spots, drawn towards 0 by its sampling variance over that plus the variance of true factors (by moments);
    then c and psi by weighted non-negative regression of squared residuals.
    """
    totals = np.asarray(counts.sum(axis=1)).ravel()
    rows = np.flatnonzero(totals > 0)
    if len(rows) > _LEARN_SPOTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _LEARN_SPOTS, replace=False))
    some = counts[rows]
    n_types = len(signature.sizes)
    platform = Platform(np.ones(counts.shape[1]), 0.0, 1.0, _START_SPREAD, np.full(n_types, 1 / n_types))
    for _ in range(_ROUNDS if len(rows) else 0):
        weights = fit_weights(some, Noise(signature, platform))
        platform = replace(platform, composition=weights.sum(axis=0) / weights.sum())
        platform = update_factor(some, weights, signature, platform)
        platform = _update_noise(some, weights, Noise(signature, platform))
    return platform


def update_factor(counts: sp.csr_matrix, weights: np.ndarray, signature: Signature, platform: Platform) -> Platform:
    """Estimate each gene's factor for given weights; see `learn_platform`.

    Parameters
    ----------
    counts
        spots x genes.
    weights
        spots x types.
    signature
        Of these genes.
    platform
        What stays as it is besides `factor` and `log_sd`.
    """
    observed = np.asarray(counts.sum(axis=0)).ravel()
    pooled = weights.sum(axis=0)
    foretold = pooled @ signature.rates
    ratio = (observed + 0.5) / (foretold + 0.5)
    log = np.clip(np.log(ratio), -_LARGEST_LOG_FACTOR, _LARGEST_LOG_FACTOR)
    log -= np.average(log, weights=foretold)
    sampling = 1 / (observed + 0.5) + (pooled**2 @ signature.variance) / (foretold + 0.5) ** 2
    # Quarters of a normal distribution: a missing type's genes are outliers and must not widen it.
    seen = sampling < 0.05 if (sampling < 0.05).sum() >= 20 else np.ones(len(log), dtype=bool)
    spread = (np.diff(np.quantile(log[seen], [0.25, 0.75]))[0] / 1.349) ** 2
    true = max(spread - float(np.median(sampling[seen])), 1e-6)
    log_sd = float(np.sqrt(true))
    # A gene beyond the others' reach is more likely one of a missing type than one of an odd chemistry.
    log = np.clip(log * true / (true + sampling), -_OUTLIER * log_sd, _OUTLIER * log_sd)
    return replace(platform, factor=np.exp(log), log_sd=log_sd)


def _update_noise(counts: sp.csr_matrix, weights: np.ndarray, noise: Noise) -> Platform:
    """Regress what squared residuals exceed the known variance by on its two unknown parts."""
    gram, right = np.zeros((1, 2, 2)), np.zeros((1, 2))
    for rows in blocks(*counts.shape):
        w = weights[rows]
        mean = noise.mean(w)
        known, between, squared = noise.parts(w, mean)
        now = noise.variance(w, mean)
        excess = np.minimum((counts[rows].toarray() - mean) ** 2, _LARGEST_RESIDUAL * now) - known
        importance = _inverse(now) ** 2
        gram[0, 0, 0] += (importance * between**2).sum()
        gram[0, 0, 1] += (importance * between * squared).sum()
        gram[0, 1, 1] += (importance * squared**2).sum()
        right[0] += (importance * between * excess).sum(), (importance * squared * excess).sum()
    gram[0, 1, 0] = gram[0, 0, 1]
    (share, spread), _ = (part[0] for part in solve_nonnegative(gram, right))
    return replace(noise.platform, cell_share=float(share), spread=float(spread))
