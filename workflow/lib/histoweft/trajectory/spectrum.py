"""Macrostates of a random walk: the slow subspace of its transition matrix, made into fuzzy sets of cells."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from histoweft.convergence import or_dense
from histoweft.errors import HistoweftError, NotComputed

DENSE_CELLS = 2_000
"""Up to so many cells all eigenvectors are computed, where an iteration did not converge."""

SLOW = 0.93
"""A state counts where the walk forgets it slower than this eigenvalue: in more than 14 steps."""

FEWEST, MOST = 4, 20
_CORNERS = 4_000
_PAIR = 1e-10
_INDEPENDENT = 1e-7


_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subspace:
    """The slowest invariant subspace of a transition matrix.

    Attributes
    ----------
    values
        (k,) eigenvalues, complex, by falling real part; a conjugate pair is never torn.
    vectors
        cells x k real Schur vectors; mean of squares one, the first constant.
    """

    values: np.ndarray
    vectors: np.ndarray

    def whole(self, m: int) -> int:
        """Return the number of states nearest to m, from above, that tears no conjugate pair."""
        m = min(m, len(self.values))
        first_of_pair = self.values[m - 1].imag > _PAIR
        return m + 1 if first_of_pair else m


def slow_subspace(transitions: sp.csr_matrix, k: int, seed: int = 0, notes: list[str] | None = None) -> Subspace:
    """Find the real invariant subspace of the k eigenvalues of largest real part, by sparse iteration.

    Parameters
    ----------
    transitions
        cells x cells, rows sum to one.
    k
        Dimensions; one more where a conjugate pair would be torn.
    seed
        Of the iteration's start.
    notes
        Gains a sentence where the iteration did not converge and all eigenvectors were computed instead.

    Raises
    ------
    HistoweftError
        The iteration does not converge, and there are more than `DENSE_CELLS` cells.

    Notes
    -----
    Arnoldi iteration (ARPACK) gives eigenvectors; orthogonalised in the order of their eigenvalues, real and imaginary
    parts side by side, they are Schur vectors, and the space they span is all that GPCCA reads (Reuter et al. 2018,
    JCTC 14:3579, section 3). No dense matrix, no PETSc.
    """
    from scipy.sparse.linalg import eigs

    n = transitions.shape[0]
    asked = min(k + 2, n - 2)
    start = np.random.default_rng(seed).random(n)
    if asked < 2:
        raise NotComputed(f"macrostates: {n} cells are too few for a trajectory", "trajectory.samples")
    if n <= 3 * asked:
        values, vectors = np.linalg.eig(transitions.toarray())
    else:
        values, vectors = or_dense(
            lambda: eigs(
                transitions.astype(float), k=asked, which="LR", v0=start, ncv=min(n, max(4 * asked, 60)), maxiter=20 * n
            ),
            lambda: np.linalg.eig(transitions.toarray()),
            n <= DENSE_CELLS,
            f"macrostates: the slow movements of the walk over {n:,} cells did not converge. Many groups of "
            "cells hold the walk alike: give connectivity a larger weight in trajectory.kernels, raise "
            "trajectory.neighbours, or name the groups that belong together in trajectory.groups.",
            f"the iteration for the macrostates of {n:,} cells did not converge, so all eigenvectors were computed",
            None if notes is None else notes.append,
        )
    order = np.lexsort((-values.imag, -values.real.round(12)))
    values, vectors = values[order], vectors[:, order]
    columns, kept = [], []
    for value, vector in zip(values, vectors.T):
        if value.imag < -_PAIR:
            continue
        if len(kept) >= k:
            break
        columns += [vector.real] if abs(value.imag) <= _PAIR else [vector.real, vector.imag]
        kept += [value] if abs(value.imag) <= _PAIR else [value, value.conjugate()]
    vectors = _orthonormal([np.ones(n), *columns]) * np.sqrt(n)
    return Subspace(np.array(kept)[: vectors.shape[1]], vectors[:, : len(kept)])


def _orthonormal(columns: list[np.ndarray]) -> np.ndarray:
    """Orthonormalise columns in their order, leaving out those that add nothing to the ones before them.

    The constant comes first and is found again among the eigenvectors: what is left of that one is rounding error, and
    would turn all that follow it.
    """
    basis = np.zeros((len(columns[0]), 0))
    for column in columns:
        size = np.linalg.norm(column)
        # Twice is enough (Giraud et al. 2005).
        for _ in range(2):
            column = column - basis @ (basis.T @ column)
        left = np.linalg.norm(column)
        if left > _INDEPENDENT * size:
            basis = np.column_stack([basis, column / left])
    return basis


def count_slow(values: np.ndarray, slow: float = SLOW) -> int:
    """Count the eigenvalues slower than `slow`: `FEWEST` at least, as many as there are at most."""
    return min(max(int((values.real > slow).sum()), FEWEST), len(values))


@dataclass(frozen=True)
class Macrostates:
    """Fuzzy sets of cells between which the walk seldom changes.

    Attributes
    ----------
    memberships
        cells x states, rows sum to one.
    coarse
        states x states: the walk between states.
    crispness
        1 for sharp sets.
    """

    memberships: np.ndarray
    coarse: np.ndarray
    crispness: float

    @property
    def stability(self) -> np.ndarray:
        """Return how likely the walk stays in each state."""
        return np.diag(self.coarse)


def corner_cells(vectors: np.ndarray) -> np.ndarray:
    """Pick the cells that span the simplex best, one a state (inner simplex algorithm, Weber and Galliat 2002)."""
    points = vectors.astype(float)
    first = int((points**2).sum(axis=1).argmax())
    chosen, points = [first], points - points[first]
    for _ in range(points.shape[1] - 1):
        sizes = (points**2).sum(axis=1)
        best = int(sizes.argmax())
        chosen.append(best)
        if sizes[best] <= 0:
            break
        axis = points[best] / np.sqrt(sizes[best])
        points = points - np.outer(points @ axis, axis)
    return np.array(chosen)


def _feasible(rotation: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Complete a rotation so that memberships are not negative and sum to one (Röblitz and Weber 2013, eq. 12)."""
    full = rotation.copy()
    full[1:, 0] = -full[1:, 1:].sum(axis=1)
    full[0] = -(vectors[:, 1:] @ full[1:]).min(axis=0)
    total = full[0].sum()
    return full / total if total > 0 else full


def _roughness(rotation: np.ndarray) -> float:
    """Return m minus the trace that crispness is made of (Röblitz and Weber 2013, eq. 16)."""
    tops = np.maximum(rotation[0], np.finfo(float).tiny)
    return float(len(tops) - ((rotation**2).sum(axis=0) / tops).sum())


def _outline(vectors: np.ndarray, corners: np.ndarray, seed: int) -> np.ndarray:
    """Return the cells that lie outermost in many directions: only they bound what is feasible."""
    if len(vectors) <= _CORNERS:
        return vectors
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((vectors.shape[1] - 1, _CORNERS))
    outer = {int(i) for i in corners}
    for start in range(0, _CORNERS, 100):
        outer.update((vectors[:, 1:] @ directions[:, start : start + 100]).argmax(axis=0).tolist())
    return vectors[sorted(outer)]


def memberships(vectors: np.ndarray, seed: int = 0) -> tuple[np.ndarray, float]:
    """Turn Schur vectors into memberships as crisp as can be.

    Parameters
    ----------
    vectors
        cells x m, the first column constant.

    Returns
    -------
    memberships
        cells x m.
    crispness

    Notes
    -----
    Robust Perron cluster analysis (Röblitz and Weber 2013, ADAC 7:147), as GPCCA optimises Schur vectors (Reuter 2018).
    """
    from scipy.optimize import minimize

    m = vectors.shape[1]
    corners = corner_cells(vectors)
    rotation = np.linalg.pinv(vectors[corners])
    outline = _outline(vectors, corners, seed)

    def complete(inner: np.ndarray, points: np.ndarray) -> np.ndarray:
        full = np.zeros((m, m))
        full[1:, 1:] = inner.reshape(m - 1, m - 1)
        return _feasible(full, points)

    found = minimize(
        lambda inner: _roughness(complete(inner, outline)), rotation[1:, 1:].ravel(), method="Nelder-Mead",
        options={"maxiter": 2_000, "adaptive": True, "xatol": 1e-4, "fatol": 1e-4},
    )  # fmt: skip
    if not found.success:
        # Every stop gives memberships that are sound, only less crisp than they could be.
        _log.info("the search for the crispest %d macrostates stopped after %d steps", m, found.nit)
    best = complete(found.x, vectors)
    result = np.clip(vectors @ best, 0, 1)
    return result / result.sum(axis=1, keepdims=True), (m - _roughness(best)) / m


def macrostates(transitions: sp.csr_matrix, subspace: Subspace, m: int, seed: int = 0) -> Macrostates:
    """Group cells into m macrostates and say how the walk goes between them.

    Notes
    -----
    The coarse walk is (X' D X)^-1 X' D T X with memberships X and equal weights D (Reuter et al. 2018, eq. 10).
    """
    found, crispness = memberships(subspace.vectors[:, :m], seed)
    between = found.T @ found
    if not np.linalg.cond(between) < 1 / np.finfo(float).eps:
        raise HistoweftError(
            f"macrostates: {m} states cannot be told apart among {len(found):,} cells. Give a smaller "
            "trajectory.states.number."
        )
    coarse = np.linalg.solve(between, found.T @ (transitions @ found))
    return Macrostates(found, coarse, crispness)
