"""Who lives in a tumour and who touches whom: immune, stromal and malignant compartments."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import Faults, InputError

OTHER = "other"

_NOT_TYPES = ("low:", "high:", "p:")
_FACTS = ("misfit", "missing_type", "total")


def read_compartments(path: str | os.PathLike) -> list[tuple[re.Pattern, str]]:
    """Read which names of cell types mean which compartment.

    Parameters
    ----------
    path
        Tab-separated: pattern (a regular expression over the name in words), compartment. Lines that start with ``#``
        are comments.

    Raises
    ------
    InputError
        A column is missing, or a pattern is no regular expression.
    """
    try:
        table = pd.read_csv(path, sep="\t", comment="#", keep_default_na=False, dtype=str)
    except (OSError, ValueError) as error:
        raise InputError.one("config: cohort.compartments", error, "a table of compartments") from error
    faults = Faults()
    for name in ("pattern", "compartment"):
        if name not in table:
            faults.add(f"{path}, header", f"columns {', '.join(table.columns)}", f"a column {name!r}")
    faults.raise_if_any()
    found = []
    for row in table.itertuples():
        try:
            found.append((re.compile(row.pattern), row.compartment))
        except re.error as error:
            faults.add(f"{path}, pattern {row.pattern!r}", error, "a regular expression")
    faults.raise_if_any()
    return found


def compartment_of(name: str, patterns: Sequence[tuple[re.Pattern, str]]) -> str:
    """Return the compartment of a cell type: that of the first pattern found in its name, else ``other``."""
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
    return next((compartment for pattern, compartment in patterns if pattern.search(words)), OTHER)


def cell_types(proportions: pd.DataFrame | None, annotation: pd.DataFrame | None) -> pd.DataFrame:
    """Return how much of each barcode belongs to each cell type.

    Parameters
    ----------
    proportions
        The deconvolution's table, for spots that hold several cells.
    annotation
        The table of labels, for cells; barcodes of unknown type count for none.

    Returns
    -------
    barcodes x types, rows of sum 1 (or 0 for an unknown cell).
    """
    if proportions is not None:
        named = [c for c in proportions if not c.startswith(_NOT_TYPES) and c not in _FACTS]
        return proportions[named].astype(np.float32)
    types = sorted(c.removeprefix("p:") for c in annotation if c.startswith("p:"))
    label = annotation["label"].astype(str)
    return pd.DataFrame({name: (label == name).astype(np.float32) for name in types}, index=annotation.index)


def compartments(types: pd.DataFrame, patterns: Sequence[tuple[re.Pattern, str]]) -> pd.DataFrame:
    """Add the types of each compartment up; barcodes x compartments."""
    names = [compartment_of(name, patterns) for name in types]
    return types.T.groupby(names, sort=True).sum().T


def contacts(shares: pd.DataFrame, graph: sp.csr_matrix) -> dict[str, float]:
    """Measure how often compartments are neighbours.

    Parameters
    ----------
    shares
        barcodes x compartments.
    graph
        barcodes x barcodes, symmetric, neighbours on the tissue; weights are ignored.

    Returns
    -------
    ``a|b`` to log2 of the share of neighbouring pairs of a and b over what their abundance alone would give. NaN where
    a compartment takes less than a thousandth of the tissue or no barcode has a neighbour.
    """
    adjacent = sp.csr_matrix(graph, copy=True)
    adjacent.setdiag(0)
    adjacent.eliminate_zeros()
    adjacent.data = np.ones_like(adjacent.data, dtype=np.float64)
    values = shares.to_numpy(dtype=np.float64)
    degree = np.asarray(adjacent.sum(axis=1)).ravel()
    found: dict[str, float] = {}
    if not degree.sum():
        return found
    met = values.T @ (adjacent @ values) / degree.sum()
    # Abundance as neighbours see it: a barcode at the rim of the tissue has fewer of them.
    share = degree @ values / degree.sum()
    for i, a in enumerate(shares.columns):
        for j, b in enumerate(shares.columns[i:], i):
            expected = share[i] * share[j]
            known = min(share[i], share[j]) >= 1e-3
            ratio = (met[i, j] + 1e-9) / (expected + 1e-9)
            found[f"{a}|{b}"] = float(np.log2(ratio)) if known else np.nan
    return found
