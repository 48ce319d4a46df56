"""Spots of known composition, mixed from real labelled cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Spots:
    """Simulated spots.

    Attributes
    ----------
    counts
        spots x genes, integers.
    proportions
        Share of each type among the cells of a spot, spots x types; it counts cells of a missing type too.
    """

    counts: sp.csr_matrix
    proportions: np.ndarray


def simulate_spots(
    counts: sp.csr_matrix,
    codes: np.ndarray,
    n_types: int,
    n_spots: int,
    *,
    cells_per_spot: tuple[int, int] = (2, 15),
    depth: float | np.ndarray = 1.0,
    platform_sd: float = 0.0,
    concentration: float = 0.3,
    seed: int = 0,
) -> Spots:
    """Mix cells into spots.

    Parameters
    ----------
    counts
        cells x genes, raw integer counts. No cell of the reference may be among them.
    codes
        Type of each cell.
    n_types
        Number of types; one without a cell here occurs in no spot.
    n_spots
        Spots wanted.
    cells_per_spot
        Fewest and most cells of a spot, each number alike often.
    depth
        Share of the counts that is kept; or the total wanted of each spot, (n_spots,), of which a spot keeps all that
        it has where it has less.
    platform_sd
        Standard deviation of each gene's log factor, the same in all spots: another chemistry. The share kept of a
        gene is `depth` times the factor, one at most.
    concentration
        Of the Dirichlet distribution that a spot's composition is drawn from: 0.3 leaves two or three types with most
        cells.
    seed
        Of all draws.
    """
    rng = np.random.default_rng(seed)
    present = np.unique(codes)
    cells = rng.integers(cells_per_spot[0], cells_per_spot[1] + 1, n_spots)
    wanted = rng.dirichlet(np.full(len(present), concentration), n_spots)
    drawn = rng.multinomial(cells, wanted / wanted.sum(axis=1, keepdims=True))
    proportions = np.zeros((n_spots, n_types))
    proportions[:, present] = drawn / cells[:, None]
    picked = []
    spot = []
    for column, code in enumerate(present):
        rows = np.flatnonzero(codes == code)
        picked.append(rng.choice(rows, drawn[:, column].sum()))
        spot.append(np.repeat(np.arange(n_spots), drawn[:, column]))
    picked, spot = np.concatenate(picked), np.concatenate(spot)
    mixer = sp.csr_matrix((np.ones(len(spot), dtype=np.int64), (spot, picked)), shape=(n_spots, len(codes)))
    mixed = sp.csr_matrix(mixer @ counts.astype(np.int64))
    factor = np.exp(platform_sd * rng.standard_normal(counts.shape[1]) - platform_sd**2 / 2)
    if np.ndim(depth):
        weighted = mixed @ factor
        depth = np.divide(depth, weighted, out=np.ones(n_spots), where=weighted > 0)
    kept = np.repeat(np.broadcast_to(depth, n_spots), np.diff(mixed.indptr)) * factor[mixed.indices]
    mixed.data = rng.binomial(mixed.data, np.clip(kept, 0, 1))
    mixed.eliminate_zeros()
    return Spots(mixed, proportions)
