"""Normalised values by blocks of genes, and the groups that barcodes belong to."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.io import CountsFile, group_names
from histoweft.normalise import normalise, row_sums

BLOCK_NNZ = 60_000_000
"""Stored values that are held at a time: about 1 GB with the working copy."""

LABELS = ("clusters", "annotation", "labels")


def totals_and_found(counts: CountsFile) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts of each barcode, and in how many barcodes each gene was found."""
    totals, found = np.zeros(counts.n_obs), np.zeros(counts.n_vars, dtype=np.int64)
    for where, chunk in counts.chunks():
        totals[where] = row_sums(chunk)
        found += np.bincount(chunk.indices[chunk.data > 0], minlength=counts.n_vars)
    return totals, found


def read_genes(counts: CountsFile, genes: np.ndarray, totals: np.ndarray, target_sum: float) -> sp.csc_matrix:
    """Read log-normalised values of some genes.

    Parameters
    ----------
    genes
        Columns, (g,).
    totals
        Counts of each barcode over all genes.
    target_sum
        Total that each barcode is scaled to before log1p.

    Returns
    -------
    (barcodes, g) float32.
    """
    parts = []
    for where, chunk in counts.chunks():
        part = chunk if len(genes) == counts.n_vars else chunk[:, genes]
        parts.append(normalise(part, target_sum, totals[where]))
    return sp.vstack(parts, format="csc") if len(parts) > 1 else parts[0].tocsc()


def rescale(values: sp.csc_matrix, totals: np.ndarray, target_sum: float) -> sp.csc_matrix:
    """Scale log-normalised values to the median total instead, which blows the noise of single counts up less.

    Parameters
    ----------
    values
        (barcodes, genes) log1p of counts scaled to `target_sum`.
    totals
        Counts of each barcode.
    """
    scaled = values.copy()
    scaled.data = np.log1p(np.expm1(values.data) * np.float32(np.median(totals) / target_sum))
    return scaled


def gene_blocks(
    counts: CountsFile, totals: np.ndarray, found: np.ndarray, target_sum: float, nnz: int = BLOCK_NNZ
) -> Iterator[tuple[np.ndarray, sp.csc_matrix]]:
    """Go through all genes in blocks of about `nnz` stored values; see `read_genes`.

    Yields
    ------
    Columns of the block, and its values.
    """
    block = (np.cumsum(found) - found) // nnz
    for number in np.unique(block):
        genes = np.flatnonzero(block == number)
        yield genes, read_genes(counts, genes, totals, target_sum)


def read_labels(kind: str, counts: CountsFile, table: str | os.PathLike | None) -> pd.Categorical:
    """Read the groups that neighbourhoods and interactions speak of.

    Parameters
    ----------
    kind
        ``clusters``, ``annotation`` or ``labels`` (the expert labels of the counts' obs).
    counts
        The sample.
    table
        Barcode-indexed parquet of clusters (column leiden) or annotation (column label); not read for ``labels``.

    Returns
    -------
    One entry a barcode, missing where there is no label; categories in natural order.

    Raises
    ------
    InputError
        There is no such column, or fewer than two groups.
    """
    text = group_names(kind, counts, table, "space.labels")
    names = sorted(set(text) - {""}, key=_natural)
    if len(names) < 2:
        raise InputError.one(
            "config: space.labels", f"{kind}, with {len(names)} group(s) in {counts.path}", "at least two groups"
        )
    return pd.Categorical(text.where(text != "", None), categories=names)


def _natural(name: str) -> tuple:
    return (0, int(name), "") if name.isdigit() else (1, 0, name)


def one_hot(codes: np.ndarray, n_groups: int) -> sp.csr_matrix:
    """Return barcodes x groups with a one where a barcode belongs to a group; codes below 0 belong to none."""
    rows = np.flatnonzero(codes >= 0)
    ones = np.ones(len(rows))
    return sp.csr_matrix((ones, (rows, codes[rows])), shape=(len(codes), n_groups))
