"""Which genes the reference and every sample share, and their counts, normalised over these genes alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft import normalise
from histoweft.errors import Faults, InputError
from histoweft.io import CountsFile
from histoweft.species import Species, species_of

_SEPARATED = "A .tsv is separated by tabs, a .csv by commas."
ANY_CASE = "symbol in any case"

TARGET_SUM = 10_000
"""Counts that each cell's shared genes are scaled to before log(1 + x)."""


@dataclass(frozen=True)
class Genes:
    """The genes of one file.

    Attributes
    ----------
    table
        Index: symbols; ``gene_id`` where known.
    species
        As far as the file tells.
    """

    table: pd.DataFrame
    species: Species

    @classmethod
    def of(cls, counts: CountsFile) -> Genes:
        """Return the genes of an open file of counts."""
        return cls(counts.var(), species_of(counts))


@dataclass(frozen=True)
class SharedGenes:
    """Genes found in the reference and in every sample.

    Attributes
    ----------
    names
        As the reference calls them, (genes,).
    by
        What they were matched by: ``symbol``, ``symbol in any case``, ``gene_id`` or ``ortholog table``.
    reference
        Column of each gene in the reference, (genes,).
    samples
        Sample to the column of each gene in it, (genes,).
    told
        How many genes were matched, by what, and of which species: a sentence.
    cautions
        What a reader should check, without a full stop.
    """

    names: np.ndarray
    by: str
    reference: np.ndarray
    samples: dict[str, np.ndarray]
    told: str = ""
    cautions: tuple[str, ...] = ()


def share_genes(reference: Genes, samples: Mapping[str, Genes], options: Mapping[str, Any]) -> SharedGenes:
    """Match the genes of the reference and the samples, and say how.

    Parameters
    ----------
    reference, samples
        Their genes.
    options
        ``min_genes``, ``orthologs`` and ``same_species`` of the config's section ``annotation``.

    Raises
    ------
    InputError
        Species differ and no orthologs are given, or too few genes are shared.
    """
    tables = {name: one.table for name, one in samples.items()}
    orthologs, cautions = None, []
    if options["orthologs"]:
        orthologs, notes = read_orthologs(options["orthologs"], reference.table, tables.values())
        cautions += notes
    elif not options.get("same_species"):
        _check_species(reference.species, {name: one.species for name, one in samples.items()})
    shared = match_genes(reference.table, tables, options["min_genes"], orthologs)
    kinds = sorted({str(one.species) for one in samples.values()})
    told = (
        f"{len(shared.names):,} of the reference's {len(reference.table):,} genes are found in "
        f"{'every sample' if len(samples) > 1 else next(iter(samples))}, matched by {shared.by} (reference: "
        f"{reference.species}; {'samples' if len(samples) > 1 else 'sample'}: {', '.join(kinds)})."
    )
    if shared.by == ANY_CASE:
        cautions += _doubt_of_case(reference.species, {name: one.species for name, one in samples.items()})
    return replace(shared, told=told, cautions=tuple(cautions))


def _check_species(own: Species, others: Mapping[str, Species]) -> None:
    """Refuse samples of another species than the reference."""
    faults = Faults()
    for sample, species in others.items():
        if own.contradicts(species):
            faults.add(
                f"species of the reference and of sample {sample!r}",
                f"a reference of {own} and a sample of {species}",
                "one species, or a table of orthologs",
                "Give annotation.orthologs, a table of the genes of both species. If both are of one species and only "
                "write their genes differently, set annotation.same_species: true.",
            )
    faults.raise_if_any()


def _doubt_of_case(own: Species, others: Mapping[str, Species]) -> list[str]:
    """Say where matching symbols in any case may have joined genes of two species."""
    unlike = [name for name, one in others.items() if own.contradicts(one)]
    if unlike:
        return [
            f"genes are matched by symbol in any case, as annotation.same_species asks, though the reference looks "
            f"like {own} and {', '.join(unlike)} like {others[unlike[0]]}"
        ]
    unknown = [name for name, one in {"the reference": own, **others}.items() if not one.name]
    if unknown:
        return [
            f"genes are matched by symbol in any case, and the species of {', '.join(unknown)} is not known: make sure "
            "that the reference and the samples are of one species"
        ]
    return []


def match_genes(
    reference: pd.DataFrame,
    samples: Mapping[str, pd.DataFrame],
    least: int,
    orthologs: Mapping[str, str] | None = None,
) -> SharedGenes:
    """Find the genes that the reference and every sample share.

    Parameters
    ----------
    reference
        Table of genes; index: symbols; ``gene_id`` where known.
    samples
        Sample to its table of genes.
    least
        Shared genes that are enough for any panel; half of the smaller panel is enough too.
    orthologs
        Name of a gene in the reference to its name in the samples, where they are of two species.

    Returns
    -------
    SharedGenes
        Matched by symbol; by symbol in any case or by gene_id where that finds more than a tenth more genes.

    Raises
    ------
    InputError
        Too few genes are shared; the message names the sample that shares least.
    """
    ways = _ways(reference, samples, orthologs)
    found = {by: _intersect(*keys) for by, keys in ways.items()}
    first = next(iter(found))
    most = max(found, key=lambda by: len(found[by].names))
    best = most if len(found[most].names) > 1.1 * len(found[first].names) else first
    shared = found[best]
    _check_number(len(shared.names), reference, samples, least, ways[best])
    return SharedGenes(reference.index.to_numpy()[shared.reference], best, shared.reference, shared.samples)


def _ways(reference: pd.DataFrame, samples: Mapping[str, pd.DataFrame], orthologs: Mapping[str, str] | None) -> dict:
    """Return each way of matching, with the keys of the reference's genes and those of each sample's."""
    symbols = {name: pd.Index(table.index.astype(str)) for name, table in samples.items()}
    own = pd.Index(reference.index.astype(str))
    if orthologs is not None:
        by_id = [] if "gene_id" not in reference else reference["gene_id"].astype(str)
        known = pd.Series([orthologs.get(name, "") for name in own])
        if len(by_id):
            known = known.where(known != "", [orthologs.get(name, "") for name in by_id])
        ids = {
            name: table["gene_id"].astype(str) if "gene_id" in table else symbols[name]
            for name, table in samples.items()
        }
        return {
            "ortholog table": (pd.Index(known), symbols),
            "ortholog table, gene_id": (pd.Index(known), {name: pd.Index(key) for name, key in ids.items()}),
        }
    ways = {
        "symbol": (own, symbols),
        ANY_CASE: (own.str.casefold(), {name: key.str.casefold() for name, key in symbols.items()}),
    }
    if all("gene_id" in table for table in (reference, *samples.values())):
        ids = {name: pd.Index(table["gene_id"].astype(str)) for name, table in samples.items()}
        ways["gene_id"] = (pd.Index(reference["gene_id"].astype(str)), ids)
    return ways


def _intersect(own: pd.Index, samples: Mapping[str, pd.Index]) -> SharedGenes:
    """Match names that stand once on every side; a name that stands twice could be either gene."""
    keep = (own != "") & ~own.duplicated(keep=False)
    for names in samples.values():
        keep &= own.isin(names[~names.duplicated(keep=False)])
    columns = np.flatnonzero(keep)
    return SharedGenes(
        own[columns].to_numpy(), "", columns, {name: key.get_indexer_for(own[columns]) for name, key in samples.items()}
    )


def _check_number(n: int, reference: pd.DataFrame, samples: Mapping[str, pd.DataFrame], least: int, keys) -> None:
    own, others = keys
    shares = {name: int(own.isin(key).sum()) for name, key in others.items()}
    worst = min(shares, key=shares.get)
    wanted = min(least, len(reference) // 2, min(len(table) for table in samples.values()) // 2)
    if n >= max(wanted, 2):
        return
    raise InputError.one(
        "genes of the reference and the samples",
        f"{n} genes shared by the reference ({len(reference)} genes, e.g. {', '.join(reference.index[:3])}) and all "
        f"samples; {worst!r} shares least: {shares[worst]} of its {len(samples[worst])} "
        f"(e.g. {', '.join(samples[worst].index[:3])})",
        f"at least {max(wanted, 2)} (annotation.min_genes, or half of the smaller panel)",
        "Two species? Give annotation.orthologs. One names genes by symbol, the other by Ensembl id? Give the "
        "reference both.",
    )


def read_orthologs(
    path: str | os.PathLike, reference: pd.DataFrame, samples: Iterable[pd.DataFrame]
) -> tuple[dict[str, str], list[str]]:
    """Read which gene of the reference is which gene of the samples.

    Parameters
    ----------
    path
        Table of genes of two species, separated by tabs (``.csv``: commas), also compressed. Of several columns, those
        are taken that hold most of the reference's and of the samples' names or identifiers; of equals, the first is
        the reference's and the second the samples'. A header is not needed.
    reference, samples
        Their tables of genes.

    Returns
    -------
    orthologs
        Gene of the reference to gene of the samples. A gene with several partners is left out, and all of these.
    notes
        Which columns were taken and how many pairs were left out, without a full stop.

    Raises
    ------
    InputError
        The file cannot be read, has fewer than two columns, or names no gene of one side.
    """
    table = _read_table(path, "gene of the reference, gene of the samples", header=None)
    if table.shape[1] < 2:
        raise InputError.one(path, "1 column", "two columns: genes of the reference, genes of the samples", _SEPARATED)
    own, other = _names_of([reference]), _names_of(samples)
    in_own, in_other = (table.isin(names).sum() for names in (own, other))
    # Both at once: two species often share a few names, which alone would draw both choices to one column.
    sums = {(a, b): in_own[a] + in_other[b] for a in table.columns for b in table.columns if a != b}
    from_, to = max(sums, key=sums.get)
    faults = Faults()
    for column, found, whose in ((from_, in_own[from_], "the reference"), (to, in_other[to], "the samples")):
        if not found:
            shown = ", ".join(table[column].head(3))
            hint = f"Each line names a gene of the reference's species and one of the samples'; see {path}."
            faults.add("annotation.orthologs", f"no gene of {whose} in it (it has {shown})", f"genes of {whose}", hint)
    faults.raise_if_any()
    pairs = table[(table[from_] != "") & (table[to] != "")][[from_, to]].drop_duplicates()
    once = ~pairs[from_].duplicated(keep=False) & ~pairs[to].duplicated(keep=False)
    notes = []
    if (~once).any():
        notes.append(
            f"{int((~once).sum()):,} of {len(pairs):,} pairs of annotation.orthologs are left out: one of their genes "
            "has several partners"
        )
    return dict(zip(pairs[from_][once], pairs[to][once], strict=True)), notes


def _names_of(tables: Iterable[pd.DataFrame]) -> set[str]:
    """Return the symbols and identifiers of genes."""
    names: set[str] = set()
    for table in tables:
        names |= set(table.index.astype(str))
        if "gene_id" in table:
            names |= set(table["gene_id"].astype(str))
    return names


def read_pairs(path: str | os.PathLike, columns: str) -> pd.DataFrame:
    """Read a tab-separated table (comma-separated if it ends in ``.csv``) of two columns with a header.

    Parameters
    ----------
    path
        The table; lines that start with ``#`` are comments.
    columns
        What the two columns are, for messages.

    Raises
    ------
    InputError
        It cannot be read, or has fewer or more columns.
    """
    table = _read_table(path, columns)
    if table.shape[1] != 2:
        found = f"{table.shape[1]} columns ({', '.join(map(str, table.columns[:5]))})"
        raise InputError.one(path, found, f"two columns: {columns}", _SEPARATED)
    return table


def _read_table(path: str | os.PathLike, columns: str, header: int | None = 0) -> pd.DataFrame:
    """Read a table of text, compressed or not, without the spaces around values."""
    try:
        separator = "," if ".csv" in Path(path).suffixes else "\t"
        table = pd.read_csv(path, sep=separator, dtype=str, comment="#", keep_default_na=False, header=header)
    except (OSError, ValueError) as error:
        raise InputError.one(path, error, f"a table with a header and two columns: {columns}") from error
    return table.apply(lambda column: column.str.strip())


class Expression:
    """Log-normalised shared genes of cells in memory.

    Parameters
    ----------
    matrix
        cells x genes, log-normalised.
    """

    _ROWS = 4_096

    def __init__(self, matrix: sp.csr_matrix):
        self.matrix = matrix

    def __len__(self) -> int:
        return self.matrix.shape[0]

    def blocks(self) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """Yield consecutive rows, and their slice."""
        for start in range(0, len(self), self._ROWS):
            rows = slice(start, min(start + self._ROWS, len(self)))
            yield rows, self.matrix[rows]


class ExpressionOnDisk:
    """Log-normalised shared genes of a file, read in blocks.

    Parameters
    ----------
    counts
        An open file of counts.
    columns
        Column of each shared gene in it, (genes,).
    """

    def __init__(self, counts: CountsFile, columns: np.ndarray):
        self._counts, self._columns = counts, columns

    def __len__(self) -> int:
        return self._counts.n_obs

    def blocks(self) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """Yield consecutive rows, and their slice."""
        for rows, chunk in self._counts.chunks():
            yield rows, shared_expression(chunk, self._columns)


def shared_expression(chunk: sp.csr_matrix, columns: np.ndarray) -> sp.csr_matrix:
    """Take the shared genes and normalise them by their own sum: other genes must not matter.

    Parameters
    ----------
    chunk
        cells x genes, counts.
    columns
        Columns of the shared genes.

    Returns
    -------
    cells x shared genes, log(1 + share x `TARGET_SUM`), float32; a cell without any of them is zero.
    """
    return normalise.normalise(chunk[:, columns].tocsr(), TARGET_SUM)
