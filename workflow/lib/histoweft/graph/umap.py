"""A picture of the neighbour graph in two dimensions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

FEWEST_CELLS = 5
"""With fewer cells there is no layout to find, and the first two components are shown instead."""


def umap(
    connectivities: sp.csr_matrix,
    points: np.ndarray,
    *,
    min_dist: float = 0.5,
    spread: float = 1.0,
    n_epochs: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Lay out the neighbour graph by UMAP (McInnes, Healy and Melville 2018), without searching neighbours again.

    Parameters
    ----------
    connectivities
        cells x cells, see `histoweft.graph.neighbours.fuzzy_union`.
    points
        cells x components from which the graph was made; places the graph's unconnected parts, and stands in where
        the spectral start fails.
    min_dist, spread
        How close, and on what scale, cells lie in the picture.
    n_epochs
        None: 500 for up to 10,000 cells, else 200.
    seed
        Of the start and the sampling.

    Returns
    -------
    cells x 2, float32. For fewer than `FEWEST_CELLS` cells, the first two columns of `points`.
    """
    n = connectivities.shape[0]
    flat = np.zeros((n, 2), dtype=np.float32)
    flat[:, : min(2, points.shape[1])] = points[:, :2]
    if n < FEWEST_CELLS or connectivities.nnz == 0:
        return flat
    # The layout only moves cells along the graph: these are the two functions of umap-learn it takes.
    from umap.umap_ import find_ab_params, simplicial_set_embedding

    a, b = find_ab_params(spread, min_dist)
    graph = sp.csr_matrix(connectivities, dtype=np.float32)

    def lay_out(start: str | np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            placed, _ = simplicial_set_embedding(
                data=np.ascontiguousarray(points, dtype=np.float32),
                graph=graph.tocoo(),
                n_components=2,
                initial_alpha=1.0,
                a=a,
                b=b,
                gamma=1.0,
                negative_sample_rate=5,
                n_epochs=n_epochs,
                init=start,
                random_state=np.random.RandomState(seed),
                metric="euclidean",
                metric_kwds={},
                densmap=False,
                densmap_kwds={},
                output_dens=False,
                parallel=False,
            )
        return placed

    try:
        placed = lay_out("spectral")
    except (ValueError, TypeError, ArithmeticError, RuntimeError):
        # Too few cells for the eigensolver, or it did not converge.
        placed = None
    if placed is None or not np.isfinite(placed).all():
        noise = np.random.default_rng(seed).normal(scale=1e-4, size=flat.shape)
        span = np.maximum(np.ptp(flat, axis=0), np.finfo(np.float32).tiny)
        placed = lay_out((10 * (flat - flat.min(axis=0)) / span + noise).astype(np.float32))
    return np.asarray(placed, dtype=np.float32)


def embedding_table(
    connectivities: sp.csr_matrix, points: np.ndarray, barcodes: Sequence[str] | pd.Index, **options: float | int | None
) -> pd.DataFrame:
    """Lay out the graph as `umap` and name the result; index: barcodes, columns umap_1 and umap_2."""
    placed = umap(connectivities, points, **options)
    return pd.DataFrame(placed, index=pd.Index(barcodes, name="barcode"), columns=["umap_1", "umap_2"])
