"""CellRank's own macrostates and fate probabilities, for small data and to check ours against."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from histoweft.errors import InputError


def check_size(n_cells: int, most: int) -> None:
    """Refuse data too large for dense matrices.

    Raises
    ------
    InputError
        There are more than `most` cells.
    """
    if n_cells > most:
        gigabytes = 8 * n_cells**2 / 1e9
        found = (
            f"cellrank for {n_cells:,} cells: its Schur decomposition holds dense matrices of {gigabytes:.1f} GB each"
        )
        hint = "Use auto, which needs none, or raise trajectory.max_dense_cells."
        raise InputError.one("config: trajectory.solver", found, f"at most {most:,} cells", hint)


def _estimator(transitions: sp.csr_matrix):
    import anndata
    import cellrank

    n = transitions.shape[0]
    frame = anndata.AnnData(sp.csr_matrix((n, 1), dtype=np.float32))
    return cellrank.estimators.GPCCA(cellrank.kernels.PrecomputedKernel(transitions, adata=frame))


def cellrank_macrostates(transitions: sp.csr_matrix, m: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return memberships, the coarse walk and crispness as CellRank's GPCCA finds them with a dense Schur form."""
    estimator = _estimator(transitions)
    estimator.compute_schur(n_components=m + 1, method="brandts")
    estimator.compute_macrostates(n_states=m, n_cells=min(30, transitions.shape[0] // m))
    memberships = np.asarray(estimator.macrostates_memberships)
    return memberships, estimator.coarse_T.to_numpy(), float(estimator._gpcca.optimal_crispness)


def cellrank_fates(
    transitions: sp.csr_matrix, core: np.ndarray, solver: str = "gmres", tolerance: float = 1e-9
) -> np.ndarray:
    """Return fate probabilities as CellRank finds them without PETSc, cells x fates.

    Parameters
    ----------
    transitions
        cells x cells.
    core
        (cells,) number of the terminal state whose cell this is, -1 for none.
    solver
        ``gmres`` or ``direct``.
    tolerance
        Of the iteration.
    """
    import pandas as pd

    estimator = _estimator(transitions)
    names = [str(number) for number in range(core.max() + 1)]
    codes = pd.Categorical.from_codes(core, names)
    estimator.set_terminal_states(pd.Series(codes, index=estimator.adata.obs_names), cluster_key=None)
    estimator.compute_fate_probabilities(
        solver=solver, use_petsc=False, tol=tolerance, n_jobs=1, show_progress_bar=False, backend="threading"
    )
    found = estimator.fate_probabilities
    return np.asarray(found[names])
