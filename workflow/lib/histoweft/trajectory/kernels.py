"""Transition matrices of a random walk over cells, sparse, each row summing to one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp

from histoweft.errors import InputError

KEPT_PAST = 0.3
_MOST_KEPT = 30


def row_normalise(weights: sp.csr_matrix) -> sp.csr_matrix:
    """Return a transition matrix: rows divided by their sums; a cell without weights stays where it is."""
    weights = sp.csr_matrix(weights, dtype=np.float64)
    totals = np.asarray(weights.sum(axis=1)).ravel()
    lost = totals <= 0
    scaled = sp.diags(np.divide(1.0, totals, out=np.zeros(len(totals)), where=~lost)) @ weights
    matrix = (scaled + sp.diags(lost.astype(float))).tocsr() if lost.any() else scaled.tocsr()
    matrix.sort_indices()
    return matrix


def connectivity_kernel(connectivities: sp.csr_matrix) -> sp.csr_matrix:
    """Walk along the neighbour graph in any direction, weights divided by the density at both ends (Coifman 2005)."""
    weights = sp.csr_matrix(connectivities, dtype=np.float64)
    totals = np.asarray(weights.sum(axis=0)).ravel()
    inverse = sp.diags(np.divide(1.0, totals, out=np.zeros(len(totals)), where=totals > 0))
    return row_normalise(inverse @ weights @ inverse)


def pseudotime_kernel(
    connectivities: sp.csr_matrix, pseudotime: np.ndarray, kept_past: float = KEPT_PAST
) -> sp.csr_matrix:
    """Walk along the neighbour graph, only forwards in pseudotime except to the nearest neighbours.

    Parameters
    ----------
    connectivities
        cells x cells.
    pseudotime
        (cells,); what is not finite counts as latest.
    kept_past
        Share of each cell's neighbours, the nearest ones, that stay even where they lie in its past, so that the
        graph holds together (30 at most).

    Notes
    -----
    The hard threshold of Palantir (Setty et al. 2019, Nature Biotechnology 37:451) as CellRank uses it (Lange et al.
    2022, Nature Methods 19:159).
    """
    weights = sp.csr_matrix(connectivities, dtype=np.float64)
    time = np.where(np.isfinite(pseudotime), pseudotime, np.inf)
    lengths = np.diff(weights.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    # Place of each entry in its row, nearest (heaviest) first.
    order = np.lexsort((-weights.data, rows))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(weights.indptr[:-1], lengths)
    near = place < np.minimum(np.floor(lengths * kept_past), _MOST_KEPT)[rows]
    kept = near | (time[weights.indices] >= time[rows])
    # A cell with few neighbours, all in its past, keeps the nearest.
    bare = np.bincount(rows[kept], minlength=len(lengths)) == 0
    kept |= bare[rows] & (place == 0)
    return row_normalise(sp.csr_matrix((weights.data[kept], (rows[kept], weights.indices[kept])), shape=weights.shape))


def velocity_kernel(
    connectivities: sp.csr_matrix, state: np.ndarray, velocity: np.ndarray, block: int = 256
) -> sp.csr_matrix:
    """Walk to the neighbours that lie where the cell's velocity points.

    Parameters
    ----------
    connectivities
        cells x cells; only which cells are neighbours is read.
    state, velocity
        cells x genes: smoothed expression and its change, over the genes whose velocity is trusted.
    block
        Cells whose neighbours are looked at together: memory is block x neighbours x genes.

    Returns
    -------
    Softmax of the Pearson correlation between velocity and the way to each neighbour. Its scale is the inverse of
    the median absolute correlation (CellRank's deterministic model, Lange et al. 2022). A cell without velocity goes
    to all neighbours alike.
    """
    matrix = sp.csr_matrix(connectivities, dtype=np.float64)
    state = (state - state.mean(axis=1, keepdims=True)).astype(np.float32)
    velocity = (velocity - velocity.mean(axis=1, keepdims=True)).astype(np.float32)
    speed = np.linalg.norm(velocity, axis=1)
    correlation = np.zeros(matrix.nnz)
    for start in range(0, matrix.shape[0], block):
        stop = min(start + block, matrix.shape[0])
        edges = slice(matrix.indptr[start], matrix.indptr[stop])
        rows = np.repeat(np.arange(start, stop), np.diff(matrix.indptr[start : stop + 1]))
        ways = state[matrix.indices[edges]] - state[rows]
        size = np.linalg.norm(ways, axis=1) * speed[rows]
        along = np.einsum("ij,ij->i", ways, velocity[rows])
        correlation[edges] = np.divide(along, size, out=np.zeros(len(along)), where=size > 0)
    lengths = np.diff(matrix.indptr)
    moving = np.repeat(speed > 0, lengths)
    middle = np.median(np.abs(correlation[moving])) if moving.any() else 1.0
    matrix.data = np.exp((correlation - 1) / (middle if middle > 0 else 1.0))
    return row_normalise(matrix)


def combine(matrices: Mapping[str, sp.csr_matrix], weights: Mapping[str, float]) -> sp.csr_matrix:
    """Mix transition matrices by weights, which are scaled to sum to one.

    Raises
    ------
    InputError
        No kernel has a weight above zero.
    """
    used = {name: float(weight) for name, weight in weights.items() if weight > 0}
    if not used:
        hint = "Give one kernel a weight, e.g. pseudotime: 0.8."
        raise InputError.one("config: trajectory.kernels", dict(weights), "a weight above 0", hint)
    total = sum(used.values())
    mixed = sum((weight / total) * matrices[name] for name, weight in used.items())
    return row_normalise(mixed)
