"""Single cells with planted persisters and a planted rare population: harder than the demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

CYCLING = {False: 0.30, True: 0.05}
"""Share of cycling cells, by whether they persist."""

PERSISTER_DEPTH = 0.7
"""Counts of a persister cell by those of others."""

_CYCLE_LOG2 = 2.0
_CYCLING_PROGRAMME = 0.85
_TYPE_SPREAD = 0.3
_SHARED_SPREAD = 0.1
_DISPERSION = 8.0
_RARE_GENES, _RARE_LOG2 = 15, 4.0
_TYPES = 4


@dataclass(frozen=True)
class Cells:
    """Simulated cells.

    Attributes
    ----------
    counts
        cells x genes, int32.
    genes
        Symbols: those of the signatures, then background.
    truth
        One row a cell: cell_type, cycling, persister, rare.
    """

    counts: sp.csr_matrix
    genes: pd.Index
    truth: pd.DataFrame


def draw_cells(
    signatures: pd.DataFrame,
    programmes: Sequence[str],
    cycle: Sequence[str],
    *,
    n: int = 2_000,
    share: float = 0.03,
    effect: float = 1.5,
    rare_share: float = 0.0,
    n_genes: int = 2_000,
    depth: float = 4_000,
    seed: int = 0,
) -> Cells:
    """Draw one patient's cells.

    Parameters
    ----------
    signatures
        See `histoweft.states.signatures.read_signatures`.
    programmes, cycle
        Signatures that persisters raise, and those that cycling cells raise.
    n, n_genes
        Size of the table; all genes of the signatures are in it.
    share
        Share of the cells that persist.
    effect
        Mean log2 fold change of the programmes' genes in a persister; each gene has half to one and a half of it. At 0
        no programme is raised, but the persisters still cycle less and hold fewer counts.
    rare_share
        Share of the cells that make up a rare population with 15 genes of its own.
    depth
        Median counts of a cell.
    seed
        Of everything; the panel is the same for all seeds.

    Notes
    -----
    Negative binomial counts around: four cell types that differ in a third of the genes, the programmes' included; cell
    cycle; a factor that each programme's genes share in a cell whatever its state; and programmes that dividing cells
    lower by 15 %. So neither co-expression, nor cell type, nor rest, nor low depth makes a persister.
    """
    genes, weight = _panel(signatures, n_genes)
    base = np.random.default_rng(0)
    mean = base.lognormal(0.0, 1.1, n_genes)
    by_type = np.exp(_TYPE_SPREAD * base.standard_normal((_TYPES, n_genes)) * (base.random(n_genes) < 0.33))
    rare_genes = base.choice(np.arange(len(weight), n_genes), _RARE_GENES, replace=False)
    mean[rare_genes] = 0.3
    fold = effect * base.uniform(0.5, 1.5, n_genes)

    rng = np.random.default_rng([seed, 1])
    kind = rng.choice(_TYPES, n, p=[0.4, 0.3, 0.2, 0.1])
    persister = rng.random(n) < share
    rare = (rng.random(n) < rare_share) & ~persister
    cycling = rng.random(n) < np.where(persister, CYCLING[True], CYCLING[False])
    log2 = np.zeros((n, n_genes))
    for name in cycle:
        log2[np.ix_(cycling, _members(weight, name))] = _CYCLE_LOG2
    for name in programmes:
        own = _members(weight, name)
        shared = _SHARED_SPREAD * rng.standard_normal(n) / np.log(2) + np.log2(_CYCLING_PROGRAMME) * cycling
        log2[:, own] += shared[:, None]
        log2[np.ix_(persister, own)] += fold[own] * np.sign(weight.loc[genes[own], name].to_numpy())
    log2[np.ix_(rare, rare_genes)] = _RARE_LOG2
    rate = mean * by_type[kind] * 2.0**log2
    total = depth * rng.lognormal(0.0, 0.4, n) * np.where(persister, PERSISTER_DEPTH, 1.0)
    rate *= (total / rate.sum(axis=1))[:, None]
    counts = rng.poisson(rate * rng.standard_gamma(_DISPERSION, rate.shape) / _DISPERSION)
    truth = pd.DataFrame({"cell_type": kind.astype(str), "cycling": cycling, "persister": persister, "rare": rare})
    truth.index = pd.Index([f"c{number}" for number in range(n)], name="barcode")
    return Cells(sp.csr_matrix(counts.astype(np.int32)), genes, truth)


def _panel(signatures: pd.DataFrame, n_genes: int) -> tuple[pd.Index, pd.DataFrame]:
    """Return the genes, and the weight of each signature's genes (index: genes; 0 outside)."""
    weight = signatures.pivot(index="gene", columns="signature", values="weight").fillna(0.0)
    if n_genes < len(weight) + 10 * _RARE_GENES:
        raise ValueError(f"{n_genes} genes cannot hold the {len(weight)} genes of the signatures and a background")
    background = [f"SIM{number:04d}" for number in range(1, n_genes - len(weight) + 1)]
    return pd.Index([*weight.index, *background]), weight


def _members(weight: pd.DataFrame, name: str) -> np.ndarray:
    return np.flatnonzero(weight[name].to_numpy())


def write(cells: Cells, path: str) -> None:
    """Write the counts as the workflow's own h5ad."""
    from histoweft.io import CsrWriter, atomic

    with atomic(path) as partial, CsrWriter(partial, len(cells.genes), np.int32) as writer:
        writer.append(cells.counts)
        writer.finish(cells.truth, pd.DataFrame(index=cells.genes), uns={"histoweft": {"sample": "simulated"}})
