"""Nearest neighbours in the space of principal components, and the weighted graph that clustering reads.

The graph is the fuzzy union of McInnes, Healy and Melville 2018, arXiv:1802.03426, section 3.1: each cell's distances
are turned into memberships on a scale of its own, such that they sum to log2(k).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from histoweft.graph import EXACT_CELLS

_PLAIN_CELLS = 15_000
"""Up to so many cells numpy is done before scikit-learn, several times faster, is imported."""

_TOLERANCE = 1e-5
_SMALLEST_SCALE = 1e-3
_STEPS = 64
_BLOCK_VALUES = 16_000_000


def exact_neighbours(points: np.ndarray, n_neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest neighbours of each point by computing all distances, a block of points at a time.

    Parameters
    ----------
    points
        cells x components.
    n_neighbours
        How many, the point itself included; at most as many as there are points.

    Returns
    -------
    indices
        cells x n_neighbours, nearest first, each row beginning with the point itself; of equal distances, the lower
        index first.
    distances
        Euclidean, float32.
    """
    points = np.ascontiguousarray(points, dtype=np.float32)
    # Distances stay as they are when all points move, and rounding is least when they sit around zero.
    points = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
    n, k = len(points), n_neighbours
    # A few more than asked for: single precision settles who is near, exact differences settle their order.
    near = _candidates(points, min(n, k + 8))
    indices = np.empty((n, k), dtype=np.int32)
    distances = np.empty((n, k), dtype=np.float32)
    block = max(1, _BLOCK_VALUES // (near.shape[1] * max(points.shape[1], 1)))
    for start in range(0, n, block):
        rows = np.arange(start, min(start + block, n))
        gaps = points[near[rows]].astype(np.float64) - points[rows, None, :]
        exact = np.einsum("ijk,ijk->ij", gaps, gaps)
        exact[near[rows] == rows[:, None]] = -1
        order = np.lexsort((near[rows], exact), axis=1)[:, :k]
        indices[rows] = np.take_along_axis(near[rows], order, axis=1)
        distances[rows] = np.sqrt(np.maximum(np.take_along_axis(exact, order, axis=1), 0))
    own = np.arange(n, dtype=np.int32)
    # More points at one place than asked for may have crowded out the point itself.
    crowded = indices[:, 0] != own
    indices[crowded, 0] = own[crowded]
    return indices, distances


def _candidates(points: np.ndarray, n_wanted: int) -> np.ndarray:
    """Find the nearest points in single precision, in no order; indices, cells x n_wanted, int32."""
    n = len(points)
    if n_wanted >= n:
        return np.tile(np.arange(n, dtype=np.int32), (n, 1))
    if n > _PLAIN_CELLS:
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=n_wanted, algorithm="brute").fit(points)
        return search.kneighbors(points, return_distance=False).astype(np.int32)
    squares = np.einsum("ij,ij->i", points, points)
    across = np.ascontiguousarray(-2 * points.T)
    near = np.empty((n, n_wanted), dtype=np.int32)
    block = max(1, _BLOCK_VALUES // n)
    for start in range(0, n, block):
        rough = points[start : start + block] @ across
        rough += squares
        near[start : start + block] = np.argpartition(rough, n_wanted - 1, axis=1)[:, :n_wanted]
    return near


def approximate_neighbours(points: np.ndarray, n_neighbours: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Find most of the nearest neighbours of each point by neighbour descent (Dong et al. 2011; pynndescent).

    Parameters and returns as `exact_neighbours`; `seed` fixes the random start.
    """
    from pynndescent import NNDescent

    points = np.ascontiguousarray(points, dtype=np.float32)
    n = len(points)
    search = NNDescent(
        points,
        n_neighbors=n_neighbours,
        metric="euclidean",
        random_state=np.random.RandomState(seed),
        n_trees=min(64, 5 + round(n**0.5 / 20)),
        n_iters=max(5, round(np.log2(n))),
        max_candidates=60,
        # One thread: with more, the neighbours found depend on how many there are.
        n_jobs=1,
        compressed=False,
    )
    indices, distances = search.neighbor_graph
    return _self_first(indices.astype(np.int32), distances.astype(np.float32))


def _self_first(indices: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put each point first in its own row, pushing the others back; the farthest goes where it was not there."""
    own = np.arange(len(indices))
    here = indices == own[:, None]
    place = np.where(here.any(axis=1), here.argmax(axis=1), indices.shape[1] - 1)
    for row in np.flatnonzero(place > 0):
        at = place[row]
        indices[row, 1 : at + 1], distances[row, 1 : at + 1] = indices[row, :at].copy(), distances[row, :at].copy()
        indices[row, 0] = row
    distances[:, 0] = 0
    return indices, distances


def nearest_neighbours(
    points: np.ndarray, n_neighbours: int = 15, seed: int = 0, exact_cells: int = EXACT_CELLS
) -> tuple[np.ndarray, np.ndarray]:
    """Find nearest neighbours: exactly for up to `exact_cells` points, by neighbour descent above.

    Parameters
    ----------
    points
        cells x components.
    n_neighbours
        How many, the point itself included; fewer where there are not so many points.

    Returns
    -------
    indices, distances
        cells x n_neighbours; see `exact_neighbours`.
    """
    n_neighbours = min(n_neighbours, len(points))
    if len(points) <= exact_cells:
        return exact_neighbours(points, n_neighbours)
    return approximate_neighbours(points, n_neighbours, seed)


def membership_scales(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each cell, the distance from which membership falls and the scale on which it falls.

    Parameters
    ----------
    distances
        cells x k, nearest first, the cell itself included.

    Returns
    -------
    nearest
        Distance to the nearest neighbour that is not at the same place, (cells,); 0 where there is none.
    scale
        sigma such that the memberships exp(-(distance - nearest) / sigma) sum to log2(k), (cells,).
    """
    k = distances.shape[1]
    target = np.log2(k)
    apart = distances > 0
    nearest = np.where(apart.any(axis=1), np.where(apart, distances, np.inf).min(axis=1, initial=np.inf), 0.0)
    beyond = np.maximum(distances[:, 1:] - nearest[:, None], 0).astype(np.float64)
    low, high = np.zeros(len(distances)), np.full(len(distances), np.inf)
    scale = np.ones(len(distances))
    open_rows = np.arange(len(distances))
    for _ in range(_STEPS):
        gaps = beyond[open_rows]
        total = np.exp(-gaps / scale[open_rows, None]).sum(axis=1)
        unsettled = np.abs(total - target) >= _TOLERANCE
        open_rows, total = open_rows[unsettled], total[unsettled]
        if len(open_rows) == 0:
            break
        above = open_rows[total > target]
        below = open_rows[total <= target]
        high[above], low[below] = scale[above], scale[below]
        ends = high[open_rows]
        scale[open_rows] = np.where(
            np.isinf(ends), 2 * scale[open_rows], (low[open_rows] + np.where(np.isinf(ends), 0, ends)) / 2
        )
    floor = np.where(nearest > 0, distances.mean(axis=1), distances.mean())
    return nearest, np.maximum(scale, _SMALLEST_SCALE * floor)


def fuzzy_union(indices: np.ndarray, distances: np.ndarray) -> sp.csr_matrix:
    """Turn nearest neighbours into the symmetric weighted graph of UMAP.

    Parameters
    ----------
    indices, distances
        cells x k; see `exact_neighbours`.

    Returns
    -------
    cells x cells, float32, symmetric, sorted, no diagonal: w_ij + w_ji - w_ij w_ji of the directed memberships.
    """
    n, k = indices.shape
    nearest, scale = membership_scales(distances)
    beyond = distances - nearest[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        falling = np.exp(-np.maximum(beyond, 0) / scale[:, None])
    weights = np.where((beyond <= 0) | (scale[:, None] == 0), 1.0, falling)
    weights[indices == np.arange(n)[:, None]] = 0
    # A copy: removing zeros moves the column numbers about in place.
    columns = indices.astype(np.int32).ravel()
    directed = sp.csr_matrix(
        (weights.ravel().astype(np.float32), columns, np.arange(0, n * k + 1, k, dtype=np.int32)), shape=(n, n)
    )
    directed.eliminate_zeros()
    other = directed.T.tocsr()
    union = (directed + other - directed.multiply(other)).tocsr()
    union.eliminate_zeros()
    union.sort_indices()
    return union


def distance_matrix(indices: np.ndarray, distances: np.ndarray) -> sp.csr_matrix:
    """Store nearest neighbours as a sparse matrix: cells x cells, float32, each row its neighbours without the cell."""
    n, k = indices.shape
    indptr = np.arange(0, n * (k - 1) + 1, max(k - 1, 1), dtype=np.int32) if k > 1 else np.zeros(n + 1, dtype=np.int32)
    matrix = sp.csr_matrix(
        (distances[:, 1:].ravel().astype(np.float32), indices[:, 1:].ravel().astype(np.int32), indptr), shape=(n, n)
    )
    matrix.sort_indices()
    return matrix


def neighbour_graph(
    points: np.ndarray, n_neighbours: int = 15, seed: int = 0, exact_cells: int = EXACT_CELLS
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Build the neighbour graph of cells.

    Parameters
    ----------
    points
        cells x components, e.g. principal components.
    n_neighbours
        Neighbours of each cell, itself included (as scanpy and umap count).
    seed
        For the approximate search above `exact_cells` cells.

    Returns
    -------
    connectivities, distances
        See `fuzzy_union` and `distance_matrix`.
    """
    indices, distances = nearest_neighbours(points, n_neighbours, seed, exact_cells)
    return fuzzy_union(indices, distances), distance_matrix(indices, distances)
