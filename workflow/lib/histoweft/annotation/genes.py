"""Which genes the reference and every sample share, and their counts, normalised over these genes alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft import normalise
from histoweft.errors import InputError
from histoweft.io import CountsFile

TARGET_SUM = 10_000
"""Counts that each cell's shared genes are scaled to before log(1 + x)."""


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
    """

    names: np.ndarray
    by: str
    reference: np.ndarray
    samples: dict[str, np.ndarray]


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
        "symbol in any case": (own.str.casefold(), {name: key.str.casefold() for name, key in symbols.items()}),
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


def read_orthologs(path: str | os.PathLike) -> dict[str, str]:
    """Read a table of two columns: gene of the reference, gene of the samples. A gene named twice is left out.

    Raises
    ------
    InputError
        The file cannot be read or has another number of columns.
    """
    table = read_pairs(path, "gene of the reference, gene of the samples")
    once = ~table.iloc[:, 0].duplicated(keep=False) & ~table.iloc[:, 1].duplicated(keep=False)
    return dict(zip(table.iloc[:, 0][once], table.iloc[:, 1][once], strict=True))


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
    try:
        separator = "," if Path(path).suffix == ".csv" else "\t"
        table = pd.read_csv(path, sep=separator, dtype=str, comment="#", keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError.one(path, error, f"a table with a header and two columns: {columns}") from error
    if table.shape[1] != 2:
        found = f"{table.shape[1]} columns ({', '.join(map(str, table.columns[:5]))})"
        raise InputError.one(path, found, f"two columns: {columns}", "A .tsv is separated by tabs, a .csv by commas.")
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
