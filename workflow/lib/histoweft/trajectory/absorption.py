"""Fate probabilities: where a random walk over cells ends, without a dense matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order

from histoweft.errors import HistoweftError

DIRECT_CELLS = 4_000
"""Up to so many cells the factorisation of a neighbour graph stays small; above, its fill grows too fast."""

TOLERANCE = 1e-9
LARGEST_ERROR = 1e-6
"""Of fate probabilities that may be shown."""

_APART = (
    "Some cells hardly ever leave their own group: cells that are nearly the same, or a group apart from the rest. "
    "Name the groups that belong together in trajectory.groups, raise trajectory.neighbours, or give connectivity a "
    "larger weight in trajectory.kernels."
)
_RESTART = 60
_MOST_ITERATIONS = 2_000


@dataclass(frozen=True)
class Fates:
    """Where cells end.

    Attributes
    ----------
    probabilities
        cells x fates, rows sum to one; NaN for cells that reach no terminal state.
    solver
        ``direct`` or ``iterative``.
    error
        Of the solution, before rows were scaled: the larger of the residual, relative to the right-hand side, and the
        largest distance of a row's sum from one.
    iterations
        Of the iterative solver, over all fates; 0 for the direct one.
    """

    probabilities: np.ndarray
    solver: str
    error: float
    iterations: int


def fate_probabilities(
    transitions: sp.csr_matrix,
    terminal: np.ndarray,
    n_fates: int,
    order: np.ndarray | None = None,
    solver: str = "auto",
    tolerance: float = TOLERANCE,
) -> Fates:
    """Compute how likely the walk from each cell ends in each terminal state.

    Parameters
    ----------
    transitions
        cells x cells, rows sum to one.
    terminal
        (cells,) number of the terminal state whose cell this is, -1 for none.
    n_fates
        Terminal states.
    order
        (cells,) a number that mostly grows along the walk, such as pseudotime: makes the iteration short.
    solver
        ``direct`` (one sparse LU), ``iterative`` (GMRES, each fate a right-hand side, one preconditioner), or ``auto``
        by the number of cells.
    tolerance
        Of the iteration's residual, relative to the right-hand side.

    Raises
    ------
    HistoweftError
        The iteration does not converge, or the solution's error is above `LARGEST_ERROR`.

    Notes
    -----
    With Q between transient cells and R into terminal ones, F solves (I - Q) F = R (Kemeny and Snell 1976, Finite
    Markov Chains, chapter 3). With cells in the order of pseudotime, I - Q is nearly upper triangular, so its upper
    triangle preconditions the iteration (Gauss-Seidel backwards in time); factors have no fill.
    """
    n = transitions.shape[0]
    found = np.full((n, n_fates), np.nan)
    ends = terminal >= 0
    found[ends] = np.eye(n_fates)[terminal[ends]]
    inner = np.flatnonzero(_leading_to(transitions, ends) & ~ends)
    if len(inner) == 0:
        return Fates(found, "direct", 0.0, 0)
    time = np.zeros(n) if order is None else np.where(np.isfinite(order), order, np.inf)
    inner = inner[np.argsort(time[inner], kind="stable")]
    rows = sp.csr_matrix(transitions)[inner]
    into = np.column_stack([np.asarray(rows[:, np.flatnonzero(terminal == k)].sum(axis=1)) for k in range(n_fates)])
    system = (sp.identity(len(inner)) - rows[:, inner]).tocsc()
    chosen = ("direct" if len(inner) <= DIRECT_CELLS else "iterative") if solver == "auto" else solver
    solved, iterations = _direct(system, into) if chosen == "direct" else _iterate(system, into, tolerance)
    if chosen == "iterative" and _errors(system, into, solved).max() > LARGEST_ERROR:
        # A small residual is a small error only where the walk ends soon: once more, to the last digits.
        solved, again = _iterate(system, into, tolerance / 1_000)
        iterations += again
    error = judge(_errors(system, into, solved))
    solved = np.clip(solved, 0, None)
    found[inner] = solved / solved.sum(axis=1, keepdims=True)
    return Fates(found, chosen, error, iterations)


def _errors(system: sp.csc_matrix, into: np.ndarray, solved: np.ndarray) -> np.ndarray:
    """Return the error of each cell's fates; infinite where they are no numbers."""
    with np.errstate(invalid="ignore", over="ignore"):
        residual = np.abs(system @ solved - into).max(axis=1) / np.abs(into).max()
        found = np.maximum(residual, np.abs(solved.sum(axis=1) - 1))
    return np.where(np.isfinite(found), found, np.inf)


def judge(errors: np.ndarray) -> float:
    """Return the largest error of cells' fates, if it may be shown.

    Raises
    ------
    HistoweftError
        It is above `LARGEST_ERROR`.
    """
    errors = np.where(np.isnan(errors), np.inf, errors)
    largest = float(errors.max(initial=0))
    if largest <= LARGEST_ERROR:
        return largest
    raise HistoweftError(
        f"fate probabilities: the solution for {len(errors):,} cells is wrong by {largest:.1g} "
        f"(at most {LARGEST_ERROR:g} is shown; {int((errors > LARGEST_ERROR).sum()):,} cells are beyond it). {_APART}"
    )


def _leading_to(transitions: sp.csr_matrix, ends: np.ndarray) -> np.ndarray:
    """Say from which cells a terminal one can be reached."""
    n = transitions.shape[0]
    # One more node, from which the walk runs backwards into all terminal cells.
    back = sp.bmat([[transitions.T, None], [sp.csr_matrix(ends.astype(float)), sp.csr_matrix((1, 1))]], format="csr")
    reached = np.zeros(n + 1, dtype=bool)
    reached[breadth_first_order(back, n, directed=True, return_predecessors=False)] = True
    return reached[:n]


def _direct(system: sp.csc_matrix, into: np.ndarray) -> tuple[np.ndarray, int]:
    from scipy.sparse.linalg import splu

    try:
        return splu(system, permc_spec="COLAMD").solve(into), 0
    except RuntimeError as error:
        raise _singular(system) from error


def _singular(system: sp.spmatrix) -> HistoweftError:
    return HistoweftError(f"fate probabilities: the equations for {system.shape[0]:,} cells have no solution. {_APART}")


def _iterate(system: sp.csc_matrix, into: np.ndarray, tolerance: float) -> tuple[np.ndarray, int]:
    from scipy.sparse.linalg import LinearOperator, gmres, splu

    try:
        upper = splu(sp.triu(system, format="csc"), permc_spec="NATURAL", diag_pivot_thresh=0.0)
    except RuntimeError as error:
        raise _singular(system) from error
    preconditioner = LinearOperator(system.shape, matvec=upper.solve)
    system = system.tocsr()
    solved, steps = np.zeros_like(into), 0

    def count(_: float) -> None:
        nonlocal steps
        steps += 1

    for k in range(into.shape[1]):
        solved[:, k], failed = gmres(
            system, into[:, k], rtol=tolerance, restart=_RESTART, maxiter=_MOST_ITERATIONS // _RESTART,
            M=preconditioner, callback=count, callback_type="pr_norm",
        )  # fmt: skip
        if failed:
            raise HistoweftError(
                f"fate probabilities: the iteration did not converge in {_MOST_ITERATIONS} steps "
                f"({len(system.indptr) - 1:,} cells, fate {k + 1}). Give connectivity a larger weight in "
                "trajectory.kernels, or choose trajectory.solver: direct."
            )
    return solved, steps
