"""A small labelled single-cell reference of the same tissue from other donors, without the rare type and persisters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from histoweft.simulate.counts import Effects, batch_factors, draw_counts, expected, tumour_folds
from histoweft.simulate.draws import stream
from histoweft.simulate.genes import CELL_SIZE, CELL_TYPES, RARE_TYPE, Genes

DONORS = ("D1", "D2", "D3")


@dataclass(frozen=True)
class Reference:
    """Counts (int32 CSR, cells x genes), `obs` for the file and `truth` beside it, one array a column."""

    counts: object
    obs: Mapping[str, np.ndarray]
    truth: Mapping[str, np.ndarray]


def draw_reference(seed: int, genes: Genes, effects: Effects, n_cells: int) -> Reference:
    """Draw the reference: three donors, each with its own gene-wise factor two thirds as strong as between batches."""
    rng = stream(seed, "reference")
    known = [i for i, name in enumerate(CELL_TYPES) if name != RARE_TYPE]
    weight = np.array([2.5 if CELL_TYPES[i] == "tumour" else 1.0 for i in known])
    kind = np.sort(rng.choice(known, n_cells, p=weight / weight.sum()))
    kind[: len(known)] = known  # every type is there, however few the cells
    rng.shuffle(kind)
    donor = rng.choice(DONORS, n_cells, p=[0.4, 0.35, 0.25])
    tumour = kind == CELL_TYPES.index("tumour")
    pseudotime, secretory = rng.uniform(0, 1, n_cells), rng.random(n_cells) < 0.5
    cycling = tumour & (rng.random(n_cells) < 0.45 - 0.38 * pseudotime)
    never = np.zeros(n_cells, bool)
    mean = expected(
        genes,
        effects,
        np.eye(len(CELL_TYPES))[kind],
        tumour_folds(effects, pseudotime, secretory, cycling, never),
        {},
    )
    weaker = Effects(effects.persister, effects.interaction, effects.gradient, 0.65 * effects.batch)
    factor = batch_factors(seed, weaker, DONORS, len(genes))
    mean *= np.stack([factor[name] for name in donor])
    mean *= np.exp(0.15 * rng.standard_normal((n_cells, 1)) * (genes.role == "mitochondrial"))
    depth = 2000 * CELL_SIZE[kind] ** 0.8 * np.exp(0.35 * rng.standard_normal(n_cells))
    obs = {
        "barcode": np.array([f"{name}_cell{i:04d}" for i, name in enumerate(donor)]),
        "cell_type": np.array(CELL_TYPES)[kind],
        "donor": donor,
    }
    truth = {
        **obs,
        "pseudotime": np.where(tumour, pseudotime, np.nan),
        "branch": np.where(
            ~tumour, "", np.where(pseudotime < 0.55, "trunk", np.where(secretory, "secretory", "absorptive"))
        ),
        "cycling": cycling,
    }
    return Reference(draw_counts(rng, mean, depth), obs, truth)
