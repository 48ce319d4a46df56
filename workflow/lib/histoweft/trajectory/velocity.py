"""RNA velocity from spliced and unspliced counts: the steady-state and the stochastic model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

MODES = ("stochastic", "deterministic")
UPPER = 95
"""Slopes are fitted to the cells above this percentile of a gene, where it is nearest to its steady state."""

_MIN_R2 = 0.01
_MIN_SLOPE = 0.01
_BLOCK = 200


@dataclass(frozen=True)
class Velocity:
    """Change of expression of the genes whose splicing carries a signal.

    Attributes
    ----------
    genes
        Columns of the layers.
    state
        cells x genes, float32: spliced counts averaged over neighbours.
    velocity
        cells x genes, float32: unspliced minus slope times spliced.
    slope, r2
        (genes,): degradation over splicing rate; variance explained by the steady-state line.
    """

    genes: np.ndarray
    state: np.ndarray
    velocity: np.ndarray
    slope: np.ndarray
    r2: np.ndarray


def scale_to_median(layer: sp.csr_matrix) -> sp.csr_matrix:
    """Scale each cell's counts to the median total."""
    layer = sp.csr_matrix(layer, dtype=np.float32)
    totals = np.asarray(layer.sum(axis=1)).ravel()
    middle = np.median(totals[totals > 0]) if (totals > 0).any() else 1.0
    return (sp.diags(np.divide(middle, totals, out=np.zeros(len(totals)), where=totals > 0)) @ layer).tocsr()


def estimate(
    spliced: sp.csr_matrix, unspliced: sp.csr_matrix, weights: sp.csr_matrix, mode: str = "stochastic"
) -> Velocity:
    """Estimate velocities.

    Parameters
    ----------
    spliced, unspliced
        cells x genes counts; each is scaled to its median total.
    weights
        cells x cells, rows sum to one: see `pseudotime.neighbour_weights`.
    mode
        ``deterministic``: unspliced against spliced by least squares over extreme cells (La Manno et al. 2018,
        Nature 560:494). ``stochastic``: their second moments as further observations, both scaled by their residuals
        (Bergen et al. 2020, Nature Biotechnology 38:1408, section "stochastic model").

    Notes
    -----
    Genes stay when the line through all extreme cells explains more than one per cent of the variance and rises by more
    than 0.01. Works through blocks of genes: memory is cells x genes kept.
    """
    s, u = (scale_to_median(layer).tocsc() for layer in (spliced, unspliced))
    kept: list[np.ndarray] = []
    states, changes, slopes, shares = [], [], [], []
    for start in range(0, s.shape[1], _BLOCK):
        block = slice(start, min(start + _BLOCK, s.shape[1]))
        ms, mu = _mean(weights, s[:, block]), _mean(weights, u[:, block])
        slope = _slope(ms, mu, _upper(ms, mu))
        residual = mu - slope * ms
        r2 = 1 - (residual**2).sum(axis=0) / np.maximum(((mu - mu.mean(axis=0)) ** 2).sum(axis=0), 1e-12)
        good = (r2 > _MIN_R2) & (slope > _MIN_SLOPE) & (ms.max(axis=0) > 0) & (mu.max(axis=0) > 0)
        if not good.any():
            continue
        ms, mu, residual, slope = ms[:, good], mu[:, good], residual[:, good], slope[good]
        if mode == "stochastic":
            sb, ub = s[:, block][:, np.flatnonzero(good)], u[:, block][:, np.flatnonzero(good)]
            variance = 2 * _mean(weights, sb.multiply(sb)) - ms
            covariance = 2 * _mean(weights, sb.multiply(ub)) + mu
            slope = _generalised_slope(ms, mu, variance, covariance, residual)
        kept.append(start + np.flatnonzero(good))
        states.append(ms)
        changes.append(mu - slope * ms)
        slopes.append(slope)
        shares.append(r2[good])
    if not kept:
        none = np.zeros((s.shape[0], 0), dtype=np.float32)
        return Velocity(np.zeros(0, dtype=int), none, none, np.zeros(0), np.zeros(0))
    return Velocity(
        np.concatenate(kept),
        np.concatenate(states, axis=1).astype(np.float32),
        np.concatenate(changes, axis=1).astype(np.float32),
        np.concatenate(slopes),
        np.concatenate(shares),
    )


def _mean(weights: sp.csr_matrix, values: sp.csc_matrix) -> np.ndarray:
    return np.asarray((weights @ values).todense())


def _upper(s: np.ndarray, u: np.ndarray | None = None) -> np.ndarray:
    """Say which cells lie above the percentile of each gene, in spliced (and unspliced) counts of their maximum."""
    size = s if u is None else s / np.maximum(s.max(axis=0), 1e-3) + u / np.maximum(u.max(axis=0), 1e-3)
    return size >= np.percentile(size, UPPER, axis=0)


def _slope(s: np.ndarray, u: np.ndarray, used: np.ndarray) -> np.ndarray:
    below = (s * s * used).sum(axis=0)
    return np.divide((s * u * used).sum(axis=0), below, out=np.zeros(len(below)), where=below > 0)


def _generalised_slope(
    s: np.ndarray, u: np.ndarray, variance: np.ndarray, covariance: np.ndarray, residual: np.ndarray
) -> np.ndarray:
    """Fit first and second moments by one slope, each in units of its residual's standard deviation."""
    used = _upper(s, u) | _upper(s)
    second = _slope(variance, covariance, np.ones_like(used))
    first_sd = np.maximum(residual.std(axis=0), 1e-12)
    second_sd = np.maximum((covariance - second * variance).std(axis=0), 1e-12)
    above = (s * u * used).sum(axis=0) / first_sd**2 + (variance * covariance).sum(axis=0) / second_sd**2
    below = (s * s * used).sum(axis=0) / first_sd**2 + (variance * variance).sum(axis=0) / second_sd**2
    return np.divide(above, below, out=np.zeros(len(below)), where=below > 0)
