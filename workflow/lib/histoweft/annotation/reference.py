"""The labelled reference, and cells as the models see them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.annotation.genes import Expression, ExpressionOnDisk, read_pairs, shared_expression
from histoweft.errors import Faults, InputError
from histoweft.io import CountsFile


@dataclass
class Reference:
    """Labelled cells.

    Attributes
    ----------
    barcodes
        (cells,).
    expression
        cells x shared genes, log-normalised.
    genes
        Names of the shared genes.
    types
        Cell types, sorted.
    codes
        Type of each cell, a number into `types`.
    groups
        Donor or batch of each cell; None where none is known.
    embedding
        cells x dimensions, which takes the place of the principal components; None without one.
    xy
        Positions, cells x 2; None without.
    notes
        What was left out, in words.
    matched
        How its genes were matched with the samples': a sentence.
    """

    barcodes: np.ndarray
    expression: sp.csr_matrix
    genes: np.ndarray
    types: list[str]
    codes: np.ndarray
    groups: np.ndarray | None = None
    embedding: np.ndarray | None = None
    xy: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    matched: str = ""

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def features(self) -> sp.csr_matrix | np.ndarray:
        """What the space of the models is made from: the embedding where there is one, else the genes."""
        return self.expression if self.embedding is None else self.embedding

    @property
    def sections(self) -> np.ndarray:
        """Name of each cell's section: neighbours on tissue are looked for inside it."""
        return np.full(len(self), "reference") if self.groups is None else self.groups.astype(str)

    def rows(self, which: np.ndarray) -> Reference:
        """Return some cells; the types stay, also those without a cell."""

        def cut(values):
            return None if values is None else values[which]

        return Reference(
            self.barcodes[which], self.expression[which], self.genes, self.types, self.codes[which], cut(self.groups),
            cut(self.embedding), cut(self.xy),
        )  # fmt: skip


@dataclass
class Cells:
    """Cells to be learned from or annotated.

    Attributes
    ----------
    scores
        cells x components of the space.
    expression
        Their log-normalised shared genes, in blocks.
    xy
        Positions, cells x 2; None without.
    sections
        Name of each cell's section; None for one section of its own.
    """

    scores: np.ndarray
    expression: Expression | ExpressionOnDisk
    xy: np.ndarray | None = None
    sections: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)


def read_reference(
    path: str | os.PathLike,
    columns: np.ndarray,
    *,
    min_cells: int,
    cells_per_type: int,
    seed: int,
) -> Reference:
    """Read the reference that the ingest stage wrote.

    Parameters
    ----------
    path
        ``reference.h5ad``: obs ``label`` and, where known, ``batch``.
    columns
        Columns of the shared genes.
    min_cells
        Types with fewer cells are left out.
    cells_per_type
        Of a type with more cells, so many are drawn, alike from each batch where there are batches.
    seed
        Of that draw.

    Raises
    ------
    InputError
        Fewer than two types are left.
    """
    with CountsFile(path) as counts:
        obs = counts.obs()
        keep, notes = choose_cells(obs, min_cells, cells_per_type, seed, path)
        names = counts.var_names.to_numpy()[columns]
        blocks = [shared_expression(chunk[keep[rows]], columns) for rows, chunk in counts.chunks() if keep[rows].any()]
        xy = counts.obsm("spatial")[keep] if "spatial" in counts.obsm_names() else None
    expression = sp.vstack(blocks, format="csr")
    empty = np.diff(expression.indptr) == 0
    if empty.any():
        notes.append(f"{int(empty.sum())} reference cells have no count in a shared gene: left out")
        expression, keep[np.flatnonzero(keep)[empty]] = expression[~empty], False
        xy = None if xy is None else xy[~empty]
    obs = obs[keep]
    labels = obs["label"].astype(str).to_numpy()
    types = sorted(set(labels))
    groups = obs["batch"].astype(str).to_numpy() if "batch" in obs else None
    return Reference(
        obs.index.to_numpy(), expression, names, types, np.searchsorted(types, labels), groups, None, xy, notes
    )


def choose_cells(
    obs: pd.DataFrame, min_cells: int, cells_per_type: int, seed: int, path
) -> tuple[np.ndarray, list[str]]:
    """Say which cells of a reference are used, and in words which are not.

    Parameters
    ----------
    obs
        Its table of cells: ``label`` and, where known, ``batch``.
    min_cells, cells_per_type, seed
        See `read_reference`.
    path
        For messages.

    Returns
    -------
    Mask of the cells, and notes.

    Raises
    ------
    InputError
        Fewer than two types are left.
    """
    notes = []
    labelled = obs["label"].notna().to_numpy()
    if not labelled.all():
        notes.append(f"{int((~labelled).sum())} of {len(obs)} reference cells have no label: left out")
    sizes = obs["label"][labelled].astype(str).value_counts()
    few = sizes[sizes < min_cells].sort_index()
    if len(few):
        listed = ", ".join(f"{name} ({n})" for name, n in few.items())
        notes.append(f"types with fewer than {min_cells} cells are left out of the reference: {listed}")
    if len(sizes) - len(few) < 2:
        found = ", ".join(f"{name} ({n})" for name, n in sizes.items()) or "no labelled cell"
        hint = "Is annotation.labels the right column? A subset may have left too little."
        raise InputError.one(f"{path}: labels", found, f"at least two types of {min_cells} cells or more", hint)
    keep = labelled & ~obs["label"].astype(str).isin(few.index).to_numpy()
    many = sizes[sizes > cells_per_type].sort_index()
    if len(many):
        rng = np.random.default_rng(seed)
        for name in many.index:
            rows = np.flatnonzero(keep & (obs["label"].astype(str) == name).to_numpy())
            keep[rows] = False
            keep[_draw(rows, obs, cells_per_type, rng)] = True
        notes.append(
            f"{cells_per_type} cells are drawn of each of: {', '.join(many.index)} (annotation.cells_per_type)"
        )
    return keep, notes


def _draw(rows: np.ndarray, obs: pd.DataFrame, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n of the rows, going round the batches so that none is lost."""
    rows = rng.permutation(rows)
    if "batch" not in obs:
        return rows[:n]
    turn = pd.Series(obs["batch"].astype(str).to_numpy()[rows]).groupby(obs["batch"].astype(str).to_numpy()[rows])
    return rows[np.argsort(turn.cumcount().to_numpy(), kind="stable")[:n]]


def read_hierarchy(path: str | os.PathLike, types: list[str]) -> dict[str, str]:
    """Read which group each type belongs to.

    Parameters
    ----------
    path
        A table of two columns: type, group.
    types
        Types of the reference: each must have a group.

    Raises
    ------
    InputError
        A type has no group or two, or fewer than two groups are left.
    """
    table = read_pairs(path, "type, group")
    faults = Faults()
    twice = table.iloc[:, 0][table.iloc[:, 0].duplicated()]
    for name in twice.unique():
        faults.add(str(path), f"the type {name!r} more than once", "each type once")
    groups = dict(zip(table.iloc[:, 0], table.iloc[:, 1], strict=True))
    for name in types:
        if name not in groups:
            faults.add(str(path), f"no line for the type {name!r}", "a group for each type of the reference")
    if not faults and len({groups[name] for name in types}) < 2:
        faults.add(str(path), "one group for all types", "at least two groups")
    faults.raise_if_any()
    return {name: groups[name] for name in types}
