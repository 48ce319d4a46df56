"""Tails and corrections of tests that come in thousands."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb, prod

import numpy as np

SMALLEST = 1e-300
"""P-values below this are given as this, so that their logarithm stays finite."""

MOST_ARRANGEMENTS = 20_000
"""Above this many ways to arrange patients, as many random ones are tried."""

LEVEL = 0.05
"""No test is made where even the clearest difference could not give a p-value as small as this."""

_NORMAL_SKEW = 1e-4


def adjust(p_values: np.ndarray) -> np.ndarray:
    """Adjust p-values for the false discovery rate (Benjamini and Hochberg 1995).

    Parameters
    ----------
    p_values
        Any shape; NaN where nothing was tested.

    Returns
    -------
    The same shape; NaN stays NaN and does not count as a test.
    """
    p_values = np.asarray(p_values, dtype=float)
    tested = np.isfinite(p_values)
    p = p_values[tested]
    order = np.argsort(p)[::-1]
    scaled = p[order] * len(p) / np.arange(len(p), 0, -1)
    q = np.empty(len(p))
    q[order] = np.minimum(np.minimum.accumulate(scaled), 1)
    adjusted = np.full(p_values.shape, np.nan)
    adjusted[tested] = q
    return adjusted


def upper_tail(z: np.ndarray, skew: np.ndarray | float = 0.0) -> np.ndarray:
    """Return the chance of a value of at least `z` under a Pearson type III distribution.

    Parameters
    ----------
    z
        Standardised statistics.
    skew
        Their skewness under the null hypothesis; at 0 the tail is the normal one. Broadcasts against `z`.

    Returns
    -------
    At least `SMALLEST`; NaN where `z` is.

    Notes
    -----
    A gamma distribution shifted and scaled to three given moments: the usual approximation of a permutation
    distribution whose moments are known (Mielke and Berry 2007, Permutation Methods, section 2.3).
    """
    from scipy.special import gammainc, gammaincc, ndtr

    z, skew = np.broadcast_arrays(np.asarray(z, dtype=float), np.asarray(skew, dtype=float))
    tail = ndtr(-z)
    bent = np.isfinite(z) & (np.abs(skew) > _NORMAL_SKEW)
    if bent.any():
        s, x = skew[bent], z[bent]
        shape = 4 / s**2
        # For a negative skewness the distribution is the mirror image, and the tail asked for is its lower one.
        at = np.maximum(shape + np.sign(s) * x * np.sqrt(shape), 0)
        tail[bent] = np.where(s > 0, gammaincc(shape, at), gammainc(shape, at))
    return np.maximum(tail, SMALLEST, where=np.isfinite(tail), out=tail)


def two_sided(z: np.ndarray, skew: np.ndarray | float = 0.0) -> np.ndarray:
    """Return twice the smaller tail of a Pearson type III distribution, 1 at most; see `upper_tail`."""
    above = upper_tail(z, skew)
    below = upper_tail(-np.asarray(z, dtype=float), -np.asarray(skew, dtype=float))
    return np.minimum(2 * np.minimum(above, below), 1)


def cauchy(p_values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Combine p-values of dependent tests (Liu and Xie 2020, JASA 115:393).

    Parameters
    ----------
    p_values
        Tests along `axis`.

    Returns
    -------
    The chance that a standard Cauchy variable exceeds the mean of tan((1/2 - p) pi).
    """
    p = np.clip(p_values, SMALLEST, 1 - 1e-15)
    # tan((1/2 - p) pi) is 1 / (p pi) to double precision where p is tiny.
    with np.errstate(over="ignore"):
        scores = np.where(p < 1e-15, 1 / (p * np.pi), np.tan((0.5 - p) * np.pi))
    mean = scores.mean(axis=axis)
    combined = np.where(mean > 1e15, 1 / (np.maximum(mean, 1) * np.pi), 0.5 - np.arctan(mean) / np.pi)
    return np.clip(combined, SMALLEST, 1)


def design(n_paired: int, n_first: int, n_second: int) -> tuple[bool, float]:
    """Choose how two groups of patients are compared; every stage asks here, so that their p-values agree.

    Parameters
    ----------
    n_paired
        Patients in both groups.
    n_first, n_second
        Patients in one group only.

    Returns
    -------
    paired
        Whether those in both groups are compared with themselves, and the others left out; else these are compared.
        Of the two, the one that can give the smaller p-value.
    smallest
        That smallest p-value, two-sided; 1 where nothing can be compared.
    """
    turned = 2 / 2**n_paired if n_paired > 1 else 1.0
    dealt = smallest_dealt([(n_first, n_second)])
    return (True, turned) if n_paired > 1 and turned <= dealt else (False, dealt)


def smallest_dealt(strata: Sequence[tuple[int, int]]) -> float:
    """Return the smallest two-sided p-value of groups dealt to patients anew inside strata, of these sizes each."""
    if not (sum(n for n, _ in strata) and sum(m for _, m in strata)):
        return 1.0
    # The mirror image of groups of equal size is as large a difference; that of unequal ones is none of the ways.
    mirrored = all(n == m for n, m in strata)
    return min(1.0, (2 if mirrored else 1) / prod(comb(n + m, n) for n, m in strata))


def rearranged(a: np.ndarray, b: np.ndarray, paired: bool, seed: int) -> float:
    """Return the p-value of a difference of means, two-sided, by arranging the observations anew.

    Parameters
    ----------
    a, b
        Values of two groups, such as a number of each patient; the same length where paired.
    paired
        Whether the two values of a patient are swapped (the signs of the differences turned), or patients dealt to the
        groups anew.
    seed
        Of the draw, where there are more than `MOST_ARRANGEMENTS` ways.

    Returns
    -------
    Share of all arrangements whose difference is at least as large as the one seen, that one among them.
    """
    if paired:
        gaps = b - a
        drawn, seen = np.abs(all_signs(len(gaps), seed) @ gaps) / len(gaps), abs(gaps.mean())
    else:
        pooled = np.concatenate([a, b])
        sums = pooled[all_deals(len(pooled), len(a), seed)].sum(axis=1)
        drawn = np.abs((pooled.sum() - sums) / len(b) - sums / len(a))
        seen = abs(b.mean() - a.mean())
    return float((drawn >= seen - 1e-12 * max(seen, 1)).mean())


def all_signs(n: int, seed: int, most: int = MOST_ARRANGEMENTS) -> np.ndarray:
    """Return all ways to turn n signs, or `most` random ones with the one seen among them; ways x n."""
    if 2**n <= most:
        return 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    drawn = np.random.default_rng(seed).choice([-1.0, 1.0], size=(most, n))
    drawn[0] = 1.0
    return drawn


def all_deals(total: int, n: int, seed: int) -> np.ndarray:
    """Return all ways to choose n of `total`, or random ones with the one seen among them; ways x n."""
    if comb(total, n) <= MOST_ARRANGEMENTS:
        return np.array(list(combinations(range(total), n)))
    rng = np.random.default_rng(seed)
    drawn = np.argsort(rng.random((MOST_ARRANGEMENTS, total)), axis=1)[:, :n]
    drawn[0] = np.arange(n)
    return drawn
