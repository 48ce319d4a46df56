"""Clusters of the neighbour graph, and how stable they are."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.metrics import adjusted_rand_index

RESOLUTIONS = (0.4, 0.6, 0.8, 1.0, 1.4)


def column_name(resolution: float) -> str:
    """Name the column of a resolution: ``leiden_0.8``."""
    return f"leiden_{float(resolution):g}"


def as_igraph(connectivities: sp.csr_matrix) -> Any:
    """Make an undirected igraph graph of a symmetric weighted graph; each edge once.

    Parameters
    ----------
    connectivities
        cells x cells, symmetric.
    """
    import igraph

    upper = sp.triu(connectivities, k=1, format="coo")
    edges = np.column_stack([upper.row, upper.col])
    return igraph.Graph(n=connectivities.shape[0], edges=edges, edge_attrs={"weight": upper.data.astype(np.float64)})


def by_size(labels: np.ndarray) -> np.ndarray:
    """Renumber clusters, the largest first (0); of equal sizes, the one with the earliest cell first."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    number = np.empty(len(order), dtype=np.int32)
    number[order] = np.arange(len(order))
    return number[inverse]


def leiden(graph: Any, resolution: float = 1.0, n_iterations: int = 2, seed: int = 0) -> np.ndarray:
    """Cluster a graph by the Leiden algorithm (Traag, Waltman and van Eck 2019), maximising modularity.

    Parameters
    ----------
    graph
        igraph graph with edge weights, see `as_igraph`.
    resolution
        Larger gives more clusters.
    n_iterations
        Rounds; -1: until nothing improves.
    seed
        Of the order in which cells are visited.

    Returns
    -------
    (cells,) integers, 0 the largest cluster.
    """
    import random

    import igraph

    generator = random.Random(seed)
    igraph.set_random_number_generator(generator)
    try:
        found = graph.community_leiden(
            objective_function="modularity", weights="weight", resolution=resolution, n_iterations=n_iterations
        )
    finally:
        igraph.set_random_number_generator(random)
    return by_size(np.asarray(found.membership))


_shared_graph: Any = None


def _hold(connectivities: sp.csr_matrix) -> None:
    global _shared_graph
    _shared_graph = as_igraph(connectivities)


def _run(job: tuple[float, int, int]) -> np.ndarray:
    return leiden(_shared_graph, *job)


def _all_runs(connectivities: sp.csr_matrix, jobs: list[tuple[float, int, int]], threads: int) -> list[np.ndarray]:
    """Run Leiden for each (resolution, n_iterations, seed), in order; each is independent of all others."""
    global _shared_graph
    if threads <= 1 or len(jobs) <= 1 or connectivities.nnz < 1_000_000:
        graph = as_igraph(connectivities)
        return [leiden(graph, *job) for job in jobs]
    import multiprocessing

    _hold(connectivities)
    try:
        # Forked: the workers share the graph's memory with this process.
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(min(threads, len(jobs)), mp_context=context) as pool:
            return list(pool.map(_run, jobs))
    finally:
        _shared_graph = None


def cluster(
    connectivities: sp.csr_matrix,
    barcodes: Sequence[str] | pd.Index,
    resolutions: Sequence[float] = RESOLUTIONS,
    chosen: float | None = None,
    n_iterations: int = 2,
    seed: int = 0,
    threads: int = 1,
) -> pd.DataFrame:
    """Cluster at several resolutions.

    Parameters
    ----------
    connectivities
        cells x cells, symmetric.
    barcodes
        (cells,).
    resolutions
        Of modularity.
    chosen
        The resolution that goes into the column ``leiden``; the one nearest to 1 when left out.
    n_iterations, seed
        As `leiden`.
    threads
        Resolutions clustered at the same time (large graphs only); the result does not depend on it.

    Returns
    -------
    Index: barcodes. A column ``leiden_<resolution>`` each and ``leiden``; strings "0", "1", ..., largest cluster first.

    Raises
    ------
    ValueError
        `chosen` is not one of the resolutions.
    """
    chosen = min(resolutions, key=lambda r: abs(r - 1)) if chosen is None else chosen
    if chosen not in resolutions:
        raise ValueError(f"the chosen resolution {chosen} is not one of {list(resolutions)}")
    runs = _all_runs(connectivities, [(r, n_iterations, seed) for r in resolutions], threads)
    table = {column_name(r): labels.astype(str).astype(object) for r, labels in zip(resolutions, runs)}
    table["leiden"] = table[column_name(chosen)]
    return pd.DataFrame(table, index=pd.Index(barcodes, name="barcode"))


def stability(
    connectivities: sp.csr_matrix,
    resolutions: Sequence[float] = RESOLUTIONS,
    seeds: Sequence[int] = tuple(range(5)),
    n_iterations: int = 2,
    threads: int = 1,
    first: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Cluster with several seeds and compare all pairs of results.

    Parameters
    ----------
    connectivities
        cells x cells, symmetric.
    resolutions, n_iterations, threads
        As `cluster`.
    seeds
        Two or more.
    first
        What `cluster` found with the first of the seeds and the same settings, so that it is not found again.

    Returns
    -------
    One row for each resolution: resolution, ari_mean, ari_min (over all pairs of seeds), clusters_median, clusters_min,
    clusters_max, seeds (their number).
    """
    to_run = seeds if first is None else seeds[1:]
    jobs = [(resolution, n_iterations, seed) for resolution in resolutions for seed in to_run]
    runs = iter(_all_runs(connectivities, jobs, threads)) if jobs else iter(())
    rows = []
    for resolution in resolutions:
        labels = [] if first is None else [first[column_name(resolution)].to_numpy().astype(int)]
        labels += [next(runs) for _ in to_run]
        agreement = [adjusted_rand_index(a, b) for a, b in combinations(labels, 2)]
        sizes = [int(found.max()) + 1 for found in labels]
        rows.append(
            {
                "resolution": float(resolution),
                "ari_mean": float(np.mean(agreement)) if agreement else np.nan,
                "ari_min": float(np.min(agreement)) if agreement else np.nan,
                "clusters_median": float(np.median(sizes)),
                "clusters_min": min(sizes),
                "clusters_max": max(sizes),
                "seeds": len(seeds),
            }
        )
    return pd.DataFrame(rows)
