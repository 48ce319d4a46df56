"""A sample's spots and the reference's cells over the genes that both have, as raw counts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.annotation.genes import Genes, share_genes
from histoweft.annotation.reference import choose_cells
from histoweft.io import CountsFile

_MITOCHONDRIAL = r"^mt[-:]"


@dataclass(frozen=True)
class Inputs:
    """Raw counts of one sample and of the reference, over the same genes.

    Attributes
    ----------
    spots
        spots x genes.
    barcodes
        Of the spots.
    cells
        reference cells x genes.
    codes
        Type of each cell, a number into `types`.
    types
        Names, sorted.
    groups
        Batch of each cell; None where none is known.
    genes
        Names, as the reference calls them.
    notes
        What was left out, in words.
    matched
        How genes were matched: a sentence.
    cautions
        What to check in that.
    """

    spots: sp.csr_matrix
    barcodes: np.ndarray
    cells: sp.csr_matrix
    codes: np.ndarray
    types: list[str]
    groups: np.ndarray | None
    genes: np.ndarray
    notes: list[str] = field(default_factory=list)
    matched: str = ""
    cautions: list[str] = field(default_factory=list)


def read_inputs(
    reference: str | os.PathLike, filtered: str | os.PathLike, sample: str, options: dict[str, Any], seed: int
) -> Inputs:
    """Read both over their shared genes.

    Parameters
    ----------
    reference
        ``reference.h5ad``: obs ``label`` and, where known, ``batch``.
    filtered
        Counts of the sample.
    sample
        Its name, for messages.
    options
        ``min_genes``, ``orthologs``, ``same_species``, ``min_cells``, ``cells_per_type`` of the annotation.
    seed
        Of the draw of cells from large types.

    Raises
    ------
    InputError
        Too few genes are shared, or fewer than two types are left.

    Notes
    -----
    Mitochondrial genes are left out: their share tells damage and dissociation, which differ between cells and tissue
    whatever the types. Other samples do not matter here, so a small panel elsewhere costs this sample no gene.
    """
    with CountsFile(reference) as cells, CountsFile(filtered) as spots:
        shared = share_genes(Genes.of(cells), {sample: Genes.of(spots)}, options)
        nuclear = ~pd.Index(shared.names.astype(str)).str.contains(_MITOCHONDRIAL, case=False)
        own, others = shared.reference[nuclear], shared.samples[sample][nuclear]
        obs = cells.obs()
        keep, notes = choose_cells(obs, options["min_cells"], options["cells_per_type"], seed, reference)
        known = _read(cells, own, keep)
        tissue = _read(spots, others, np.ones(spots.n_obs, dtype=bool))
        barcodes = spots.obs_names.to_numpy()
    seen = np.diff(known.indptr) > 0
    obs, known = obs[keep][seen], known[seen]
    labels = obs["label"].astype(str).to_numpy()
    types = sorted(set(labels))
    groups = obs["batch"].astype(str).to_numpy() if "batch" in obs else None
    genes = shared.names[nuclear].astype(str)
    return Inputs(
        tissue, barcodes, known, np.searchsorted(types, labels), types, groups, genes, notes,
        shared.told, list(shared.cautions),
    )  # fmt: skip


def _read(counts: CountsFile, columns: np.ndarray, keep: np.ndarray) -> sp.csr_matrix:
    """Read some rows and columns in chunks; whole numbers, as the mixing of cells draws from them."""
    chunks = [chunk[keep[rows]][:, columns] for rows, chunk in counts.chunks() if keep[rows].any()]
    matrix = sp.vstack(chunks, format="csr") if chunks else sp.csr_matrix((0, len(columns)))
    matrix.data = np.rint(matrix.data).astype(np.int64)
    matrix.eliminate_zeros()
    return matrix
