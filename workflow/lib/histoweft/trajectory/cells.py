"""The cells that a trajectory runs over, and what is known of each."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.copies import fingerprints, first_of
from histoweft.errors import InputError, NotComputed, nearest
from histoweft.io import CountsFile, group_names
from histoweft.linalg import pca

FEWEST_CELLS = 50


@dataclass(frozen=True)
class Cells:
    """What a trajectory is made from.

    Attributes
    ----------
    barcodes
        Of the cells.
    rows
        Their rows among all barcodes of the sample.
    points
        cells x components.
    values
        cells x variable genes, log-normalised.
    genes
        Names of the variable genes.
    n_genes
        Genes detected in each cell.
    labels
        Group of each cell, "" where none; only shown, except where a root is asked for by label.
    spliced, unspliced
        cells x genes counts, where a velocity is wanted.
    """

    barcodes: pd.Index
    rows: np.ndarray
    points: np.ndarray
    values: sp.csc_matrix
    genes: pd.Index
    n_genes: np.ndarray
    labels: np.ndarray
    spliced: sp.csr_matrix | None = None
    unspliced: sp.csr_matrix | None = None

    def __len__(self) -> int:
        return len(self.barcodes)

    def firsts(self) -> np.ndarray:
        """Return, for each cell, the first that is its exact copy (same genes, same point), or itself."""
        first = first_of(fingerprints(self.values))
        # Points of copies may differ in their last digit; those of cells that share no variable gene differ in more.
        near = np.abs(self.points - self.points[first]).max(axis=1) <= 1e-4 * max(np.abs(self.points).max(), 1e-30)
        return np.where(near & (self.n_genes == self.n_genes[first]), first, np.arange(len(self)))

    def take(self, chosen: np.ndarray) -> Cells:
        """Return some of the cells."""
        return replace(
            self,
            barcodes=self.barcodes[chosen],
            rows=self.rows[chosen],
            points=self.points[chosen],
            values=self.values.tocsr()[chosen].tocsc(),
            n_genes=self.n_genes[chosen],
            labels=self.labels[chosen],
            spliced=None if self.spliced is None else self.spliced[chosen],
            unspliced=None if self.unspliced is None else self.unspliced[chosen],
        )


def read_labels(kind: str, counts: CountsFile, table: str | os.PathLike | None) -> np.ndarray:
    """Read the groups of all barcodes of a sample.

    Parameters
    ----------
    kind
        ``clusters`` (column leiden of `table`), ``annotation`` (its column label) or ``labels`` (the expert labels).
    counts
        The sample.
    table
        Barcode-indexed parquet; not read for ``labels``.

    Returns
    -------
    (barcodes,) text, "" where there is none.

    Raises
    ------
    InputError
        There is no such column.
    """
    return group_names(kind, counts, table, "trajectory.labels").to_numpy(object)


def choose(labels: np.ndarray, groups: list[str], where: str = "config: trajectory.groups") -> np.ndarray:
    """Say which barcodes belong to one of the groups; all where none is named.

    Raises
    ------
    InputError
        There is no such group, or too few cells are left.
    """
    present = sorted(set(labels) - {""})
    for group in groups:
        if group not in present:
            hint = nearest(group, present) or "Groups are those of trajectory.labels."
            raise InputError.one(where, repr(group), f"one of {', '.join(present[:12]) or 'none'}", hint)
    chosen = np.isin(labels, groups) if groups else np.ones(len(labels), dtype=bool)
    n = int(chosen.sum())
    if n < FEWEST_CELLS and groups:
        raise InputError.one(where, f"{n} cells in {', '.join(groups)}", f"{FEWEST_CELLS} or more")
    if n < FEWEST_CELLS:
        raise NotComputed(f"{n} cells in the sample; a trajectory needs {FEWEST_CELLS} or more", "trajectory.samples")
    return chosen


def read_cells(
    filtered: str | os.PathLike,
    features: str | os.PathLike,
    labels: np.ndarray,
    groups: list[str],
    n_components: int | None = None,
    raw: str | os.PathLike | None = None,
) -> Cells:
    """Read the cells of some groups.

    Parameters
    ----------
    filtered, features
        h5ad files of the expression stage.
    labels
        `read_labels`.
    groups
        Groups that enter; all barcodes where none is named.
    n_components
        Principal components that are used, the first ones; all where None.
    raw
        h5ad with layers spliced and unspliced (or unspliced beside X), where velocity is wanted.

    Notes
    -----
    Where groups are left out, principal components are found anew among the cells that stay: those of the whole sample
    mostly tell the groups apart.

    Raises
    ------
    InputError
        As `choose` and `read_layers`.
    """
    chosen = choose(labels, groups)
    with CountsFile(filtered) as counts:
        n_genes = counts.obs()["n_genes"].to_numpy(dtype=float)
        barcodes, all_genes = counts.obs_names, counts.var_names
    with CountsFile(features) as file:
        points = file.obsm("X_pca")
        values = sp.vstack([chunk[chosen[rows]] for rows, chunk in file.chunks()], format="csr")
        genes = file.var_names
    if chosen.all():
        points = points[chosen]
    else:
        k = min(points.shape[1], values.shape[1], values.shape[0] - 1)
        points = pca([values], values.shape[1], k).project(values)
    spliced, unspliced = read_layers(raw, barcodes[chosen], all_genes) if raw else (None, None)
    return Cells(
        barcodes[chosen], np.flatnonzero(chosen), points[:, :n_components], values.tocsc(), genes, n_genes[chosen],
        labels[chosen], spliced, unspliced,
    )  # fmt: skip


def read_layers(path: str | os.PathLike, barcodes: pd.Index, genes: pd.Index) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Read spliced and unspliced counts of some barcodes and genes.

    Raises
    ------
    InputError
        There are no unspliced counts.
    """
    with CountsFile(path) as counts:
        names = counts.layer_names()
        if "unspliced" not in names:
            raise InputError.one(
                f"{path}: layers",
                ", ".join(names) or "none",
                "spliced and unspliced counts",
                "Set the weight of velocity in trajectory.kernels to 0, or give an h5ad or loom file that has them.",
            )
        rows, columns = counts.obs_names.get_indexer(barcodes), counts.var_names.get_indexer(genes)
        # Where X holds the spliced counts there is no layer of that name.
        spliced = counts.layer("spliced") if "spliced" in names else counts.matrix()
        return spliced[rows][:, columns], counts.layer("unspliced")[rows][:, columns]
