"""Tables of gene signatures: reading and checking them, and finding their genes in a sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import Faults, nearest

COLUMNS = ("signature", "gene", "weight", "source")
OPTIONAL = {"note": "", "aliases": ""}

S_PHASE, G2M_PHASE, PROLIFERATION = "s_phase", "g2m_phase", "proliferation"
CYCLE = (S_PHASE, G2M_PHASE, PROLIFERATION)
"""Signatures of the cell cycle: their genes serve no rare population, and persisters are corrected for them."""


def read_signatures(paths: Sequence[str | os.PathLike]) -> pd.DataFrame:
    """Read tables of signatures and put them under one another; all faults are said at once.

    Parameters
    ----------
    paths
        Tab-separated text with columns signature, gene, weight (positive: raised, negative: lowered) and source (the
        paper the row rests on); note and aliases (older symbols, separated by spaces) may be left out.

    Returns
    -------
    signature, gene, weight, source, note, aliases.

    Raises
    ------
    InputError
        A table cannot be read, a column or a cell is missing, a weight is no number or nought, or a gene stands
        twice in a signature.
    """
    faults, tables = Faults(), []
    for path in paths:
        try:
            table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            faults.add(str(path), error, "a tab-separated table of signatures")
            continue
        before = len(faults.items)
        _check(table, str(path), faults)
        if len(faults.items) == before:
            tables.append(table.assign(weight=table["weight"].astype(float), file=str(path)))
    faults.raise_if_any()
    joined = pd.concat(tables, ignore_index=True)
    repeated = joined.duplicated(["signature", "gene"])
    for row in joined[repeated].itertuples():
        hint = "Take one of the rows away, or give the signature another name."
        faults.add(f"{row.file}: {row.signature}", f"{row.gene} twice", "each gene once in a signature", hint)
    faults.raise_if_any()
    return joined[[*COLUMNS, *OPTIONAL]]


def _check(table: pd.DataFrame, path: str, faults: Faults) -> None:
    for column in COLUMNS:
        if column not in table:
            hint = nearest(column, table.columns) or "Columns are separated by tabs."
            faults.add(path, f"no column {column!r}", ", ".join(COLUMNS), hint)
    if not set(COLUMNS) <= set(table.columns):
        return
    if table.empty:
        faults.add(path, "no rows", "at least one gene")
    for column, text in OPTIONAL.items():
        if column not in table:
            table[column] = text
    for column in COLUMNS:
        table[column] = table[column].str.strip()
        for line in np.flatnonzero(table[column] == ""):
            faults.add(f"{path}, line {line + 2}, column {column}", "an empty cell", "a value in every row")
    weight = pd.to_numeric(table["weight"], errors="coerce")
    for line in np.flatnonzero((weight.isna() & (table["weight"] != "")) | (weight == 0) | np.isinf(weight)):
        where = f"{path}, line {line + 2}, column weight"
        faults.add(where, repr(table["weight"][line]), "a number other than 0", "Use 1 for raised, -1 for lowered.")


@dataclass(frozen=True)
class Panel:
    """Signatures over the genes of one sample.

    Attributes
    ----------
    names
        Signatures that are scored.
    weights
        genes x signatures.
    coverage
        One row a signature of the tables: signature, listed, found, used (bool), missing (genes, by comma).
    """

    names: list[str]
    weights: sp.csc_matrix
    coverage: pd.DataFrame

    def pick(self, names: Sequence[str]) -> Panel:
        """Return the panel of some of its signatures, in the order given; unknown names are left out."""
        kept = [name for name in names if name in self.names]
        columns = [self.names.index(name) for name in kept]
        return Panel(kept, self.weights[:, columns], self.coverage)

    def members(self, name: str) -> np.ndarray:
        """Return the columns of the counts that a signature lists; none where it is not scored."""
        return self.weights[:, self.names.index(name)].indices if name in self.names else np.zeros(0, dtype=np.int64)

    def warnings(self) -> list[str]:
        """Say which signatures are left out, and why."""
        left = self.coverage[~self.coverage["used"]]
        return [
            f"Signature {row.signature} is left out: {row.found} of its {row.listed} genes are in the panel."
            for row in left.itertuples()
        ]


def match(signatures: pd.DataFrame, genes: Sequence[str] | pd.Index, min_genes: int) -> Panel:
    """Find the genes of signatures among those of a sample.

    Parameters
    ----------
    signatures
        See `read_signatures`.
    genes
        Symbols of the sample.
    min_genes
        Signatures with fewer genes found are left out.

    Notes
    -----
    Symbols are compared without regard to case: the mouse ortholog of a human gene mostly has the same symbol, written
    Gpx4 for GPX4. Genes whose orthologs are named otherwise are not found and count as missing.
    """
    place: dict[str, int] = {}
    for at, gene in enumerate(genes):
        place.setdefault(str(gene).upper(), at)
    table = signatures.assign(at=[_look_up(place, row) for row in signatures[["gene", "aliases"]].itertuples()])
    found = table[table["at"] >= 0].drop_duplicates(["signature", "at"])
    rows = []
    for name, group in table.groupby("signature", sort=False):
        n = int((found["signature"] == name).sum())
        missing = ",".join(group["gene"][group["at"] < 0])
        rows.append({"signature": name, "listed": len(group), "found": n, "used": n >= min_genes, "missing": missing})
    coverage = pd.DataFrame(rows)
    names = list(coverage["signature"][coverage["used"]])
    found = found[found["signature"].isin(names)]
    entries = (found["weight"], (found["at"], [names.index(name) for name in found["signature"]]))
    return Panel(names, sp.csc_matrix(entries, shape=(len(genes), len(names))), coverage)


def _look_up(place: dict[str, int], row: tuple) -> int:
    for symbol in (row.gene, *row.aliases.split()):
        if symbol.upper() in place:
            return place[symbol.upper()]
    return -1


def check_programmes(programmes: Sequence[str], known: Sequence[str]) -> None:
    """Refuse persister programmes that no table of signatures has.

    Raises
    ------
    InputError
        Naming each of them.
    """
    faults = Faults()
    for name in programmes:
        if name not in set(known):
            hint = nearest(name, known)
            faults.add("config: states.persister.programmes", repr(name), f"one of {', '.join(known)}", hint)
    faults.raise_if_any()
