"""Many small quadratic programs with non-negative unknowns at once."""

from __future__ import annotations

import numpy as np

from histoweft.convergence import tell

_PATIENCE = 3
_ROUNDS = 60
_RIDGE = 1e-9
_TOLERANCE = 1e-10


def solve_nonnegative(
    hessian: np.ndarray, linear: np.ndarray, passive: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise w'Hw / 2 - b'w over w >= 0 for many problems.

    Parameters
    ----------
    hessian
        problems x k x k, positive semi-definite; 1 x k x k where all share one.
    linear
        problems x k.
    passive
        problems x k, bool: which unknowns to try as positive first; all of them when left out.

    Returns
    -------
    w, problems x k, and which unknowns are free, problems x k.

    Notes
    -----
    Block principal pivoting: all unknowns on the wrong side change it at once, and one at a time (the last one) where
    that has stopped to help, which cannot cycle (Kim and Park 2011, SIAM J. Sci. Comput. 33:3261).
    """
    n, k = linear.shape
    scale = np.sqrt(np.maximum(np.diagonal(hessian, axis1=1, axis2=2), 1e-300))
    scaled = hessian / (scale[:, :, None] * scale[:, None, :])
    scaled = scaled + _RIDGE * np.eye(k)
    b = linear / scale
    free = np.ones((n, k), dtype=bool) if passive is None else passive.copy()
    w = np.zeros((n, k))
    waiting = np.arange(n)
    patience = np.full(n, _PATIENCE)
    fewest = np.full(n, k + 1)
    for _ in range(_ROUNDS):
        H = scaled if len(scaled) == 1 else scaled[waiting]
        mask = free[waiting]
        w[waiting] = x = _solve_free(H, b[waiting], mask)
        slope = np.einsum("nij,nj->ni", np.broadcast_to(H, (len(waiting), k, k)), x) - b[waiting]
        size = _TOLERANCE * (1 + np.abs(b[waiting]).max(axis=1, keepdims=True))
        wrong = np.where(mask, x < -size, slope < -size)
        left = wrong.any(axis=1)
        waiting, wrong = waiting[left], wrong[left]
        if not len(waiting):
            break
        number = wrong.sum(axis=1)
        better = number < fewest[waiting]
        fewest[waiting[better]] = number[better]
        patience[waiting] = np.where(better, _PATIENCE, patience[waiting] - 1)
        single = patience[waiting] < 0
        last = k - 1 - wrong[:, ::-1].argmax(axis=1)
        wrong[single] = np.arange(k) == last[single, None]
        free[waiting] ^= wrong
    if len(waiting):
        tell(f"least squares without negative shares: {len(waiting):,} of {n:,} did not settle in {_ROUNDS} rounds")
    return np.maximum(w, 0) / scale, free


def _solve_free(hessian: np.ndarray, b: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Solve each problem with its bound unknowns at zero."""
    k = b.shape[1]
    both = free[:, :, None] & free[:, None, :]
    system = np.where(both, hessian, np.eye(k))
    return np.linalg.solve(system, np.where(free, b, 0.0)[..., None])[..., 0]
