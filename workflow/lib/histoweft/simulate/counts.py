"""From cells to counts: what each spot (or single cell) is expected to hold, and a draw from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from histoweft.simulate.draws import stream
from histoweft.simulate.genes import CELL_SIZE, CELL_TYPES, INTERACTIONS, Genes

#: Gamma shape of the gene-wise overdispersion; the counts are negative binomial with this size.
DISPERSION = 8.0
PROLIFERATION_LOG2 = 2.6
TUMOUR = CELL_TYPES.index("tumour")


@dataclass(frozen=True)
class Effects:
    """Sizes of the planted effects; 0 plants nothing.

    Parameters
    ----------
    persister
        log2 fold change of the persister programme in a persister cell; at 0 no cell persists.
    interaction
        log2 fold change of ligand and receptor where a pair is active.
    gradient
        log2 range of the differentiation genes along the pseudotime.
    batch
        Standard deviation of the gene-wise natural-log batch factor; depth differs by 0.7 times that.
    """

    persister: float
    interaction: float
    gradient: float
    batch: float


def tumour_folds(
    effects: Effects,
    pseudotime: np.ndarray,
    secretory: np.ndarray,
    cycling: np.ndarray,
    persister: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return by programme the fold by which each tumour cell exceeds the resting level.

    Progenitor genes fall along the pseudotime, mature genes rise, and past its middle one of two branches rises.
    """
    late = 1 / (1 + np.exp(-(pseudotime - 0.55) / 0.07))
    return {
        "progenitor": 2 ** (effects.gradient * (1 - 1.6 * pseudotime)),
        "mature": 2 ** (effects.gradient * (1.4 * pseudotime - 0.5)),
        "absorptive": 2 ** (effects.gradient * (1.5 * late * ~secretory - 0.5)),
        "secretory": 2 ** (effects.gradient * (1.5 * late * secretory - 0.5)),
        "proliferation": 2.0 ** (PROLIFERATION_LOG2 * cycling),
        "persister": 2.0 ** (effects.persister * persister),
    }


def expected(
    genes: Genes,
    effects: Effects,
    n_cells: np.ndarray,
    folds: dict[str, np.ndarray],
    active: dict[str, np.ndarray],
) -> np.ndarray:
    """Return the expected composition of each spot in arbitrary units, n x n_genes.

    Parameters
    ----------
    n_cells
        Cells of each type in each spot, n x n_types.
    folds
        By programme, the mean fold of the spot's tumour cells (n).
    active
        By place (`INTERACTIONS`), the degree 0-1 to which the pair is raised there (n).
    """
    mass = n_cells * CELL_SIZE
    mean = mass @ genes.profile
    tumour = mass[:, TUMOUR, None] * genes.profile[TUMOUR]
    for programme, fold in folds.items():
        own = genes.members(programme)
        mean[:, own] += tumour[:, own] * (fold[:, None] - 1)
    for ligand, receptor, sender, receiver, place in INTERACTIONS:
        if place not in active:
            continue
        gain = (2.0**effects.interaction - 1) * active[place]
        for gene, kind in ((ligand, sender), (receptor, receiver)):
            i, column = CELL_TYPES.index(kind), genes.where(gene)[0]
            mean[:, column] += gain * mass[:, i] * genes.profile[i, column]
    return mean


def batch_factors(seed: int, effects: Effects, batches: Sequence[str], n_genes: int) -> dict[str, np.ndarray]:
    """Draw each batch's gene-wise factor (n_genes); all 1 when the effect is 0."""
    return {name: np.exp(effects.batch * stream(seed, "batch", name).standard_normal(n_genes)) for name in batches}


def batch_depths(effects: Effects, batches: Sequence[str]) -> dict[str, float]:
    """Return each batch's factor of sequencing depth, spread evenly; all 1 when the effect is 0."""
    spread = np.linspace(0.7, -0.7, len(batches)) if len(batches) > 1 else np.zeros(1)
    return {name: float(np.exp(effects.batch * z)) for name, z in zip(batches, spread)}


def draw_counts(rng: np.random.Generator, mean: np.ndarray, depth: np.ndarray):
    """Draw negative-binomial counts with the given composition and depth.

    Parameters
    ----------
    mean
        Expected composition, n x n_genes, any scale.
    depth
        Expected total counts of each row.

    Returns
    -------
    scipy.sparse.csr_matrix
        int32, n x n_genes.
    """
    from scipy.sparse import csr_matrix

    rate = mean * (depth / mean.sum(1))[:, None]
    rate *= rng.standard_gamma(DISPERSION, rate.shape) / DISPERSION
    return csr_matrix(rng.poisson(rate).astype(np.int32))
