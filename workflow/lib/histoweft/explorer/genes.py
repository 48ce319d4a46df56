"""Expression, gene by gene: a byte a point, several genes a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histoweft.explorer import payload
from histoweft.io import CountsFile

FILE_BYTES = 1 << 20
"""Bytes a file of genes unpacks to, about; it holds one gene at least."""

BAND_BYTES = 1 << 28
"""Bytes of quantised genes held at once; more genes than fit are made in further passes over the matrix."""

MOST_VALUES = 2_000_000_000
"""Points times genes above which `all` means the variable genes: 100,000 cells with 20,000 genes."""

STEPS = 255


def chosen(var: pd.DataFrame, n_points: int, wanted: str, always: list[str]) -> np.ndarray:
    """Return which genes the page offers, as sorted positions in `var`.

    Parameters
    ----------
    var
        Table of the genes; ``highly_variable``.
    n_points
        Number of points.
    wanted
        ``all`` or ``variable``.
    always
        Names offered in any case: those with painted maps.
    """
    everything = np.arange(len(var))
    if wanted == "all" and n_points * len(var) <= MOST_VALUES:
        return everything
    keep = var["highly_variable"].to_numpy(dtype=bool)
    return everything[keep | var.index.isin(always)]


def highest(counts: CountsFile) -> np.ndarray:
    """Return the largest value of each gene, float32; 0 where a gene has none."""
    tops = np.zeros(counts.n_vars, dtype=np.float32)
    for _, chunk in counts.chunks():
        np.maximum.at(tops, chunk.indices, chunk.data.astype(np.float32, copy=False))
    return tops


def bands(counts: CountsFile, genes: np.ndarray, tops: np.ndarray, width: int) -> Any:
    """Go through the genes in groups, each gene as bytes over all points.

    Parameters
    ----------
    counts
        Log-normalised values, points x genes.
    genes
        Positions of the genes, sorted.
    tops
        Largest value of every gene of the file.
    width
        Genes a group holds at most.

    Yields
    ------
    genes of the group x points, uint8: 0 for 0, else 1 to `STEPS` in equal steps up to the gene's largest value, so
    that a value is off by at most ``top / 510``, except that the smallest positive ones are not rounded to 0.
    """
    for start in range(0, len(genes), width):
        group = genes[start : start + width]
        row_of = np.full(counts.n_vars, -1, dtype=np.int32)
        row_of[group] = np.arange(len(group))
        band = np.zeros((len(group), counts.n_obs), dtype=np.uint8)
        for where, chunk in counts.chunks():
            rows = row_of[chunk.indices]
            points = np.repeat(np.arange(where.start, where.stop), np.diff(chunk.indptr))
            inside = (rows >= 0) & (chunk.data > 0)
            steps = np.rint(chunk.data[inside] * (STEPS / tops[chunk.indices[inside]]))
            band[rows[inside], points[inside]] = np.maximum(steps, 1)
        yield band


def write_genes(folder: Path, sample: str, counts: CountsFile, genes: np.ndarray) -> dict[str, Any]:
    """Write the expression of genes and the list that a search goes through.

    Parameters
    ----------
    folder
        Of the sample; gets ``genes.js`` and ``genes-<k>.js``.
    sample
        Its name.
    counts
        Log-normalised values, points x genes.
    genes
        Positions of the genes, sorted.

    Returns
    -------
    dict
        count, of (genes there are), per_file.
    """
    tops = highest(counts)
    per_file = int(np.clip(FILE_BYTES // max(counts.n_obs, 1), 1, 256))
    width = max(per_file, BAND_BYTES // max(counts.n_obs, 1) // per_file * per_file)
    number = 0
    for band in bands(counts, genes, tops, width):
        for start in range(0, len(band), per_file):
            payload.write(folder, f"{sample}/genes-{number}", payload.pack(band[start : start + per_file]))
            number += 1
    names = [str(name) for name in counts.var_names[genes]]
    payload.write(folder, f"{sample}/genes", {"names": payload.pack_text(names), "tops": payload.pack(tops[genes])})
    return {"count": len(genes), "of": counts.n_vars, "per_file": per_file}
