"""Which genes and gene sets carried the decision for a type, and whether known markers are among them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from histoweft.annotation.evaluate import Fitted, cells_of
from histoweft.annotation.genes import read_pairs
from histoweft.annotation.models import mean_difference
from histoweft.annotation.reference import Reference
from histoweft.errors import InputError, nearest
from histoweft.metrics import area_under_curve

GENE, GENE_SET = "gene", "gene set"
HIGHER, LOWER = "higher", "lower"
TOP_GENES, TOP_SETS = 30, 10
COLUMNS = ["type", "kind", "rank", "name", "weight", "expressed"]


def read_markers(path: str, types: list[str]) -> dict[str, set[str]]:
    """Read known markers: a table of type and gene.

    Parameters
    ----------
    path
        The table.
    types
        Types of the reference; lines of other types are left out.

    Raises
    ------
    InputError
        It cannot be read, or no type is one of the reference's.
    """
    table = read_pairs(path, "type, gene")
    found: dict[str, set[str]] = {}
    for name, gene in table.itertuples(index=False):
        if name in types:
            found.setdefault(name, set()).add(gene)
    if not found:
        first = str(table.iloc[0, 0]) if len(table) else "none"
        raise InputError.one(path, f"types such as {first!r}", f"types of the reference: {', '.join(types[:8])}",
                             nearest(first, types))  # fmt: skip
    return found


def explain(
    fitted: Fitted, reference: Reference, markers: Mapping[str, set[str]] | None = None
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Rank genes and gene sets for each type.

    Parameters
    ----------
    fitted
        A model fitted on the reference.
    reference
        What it was fitted on.
    markers
        Type to its known markers.

    Returns
    -------
    table
        `COLUMNS`: the leading genes of each type, and the sets a transformer attends to more than for other types.
        ``expressed`` says whether the type expresses a gene more or less than the mean of types: absence speaks too.
        Empty for models that name no genes, and where an embedding took the place of genes.
    recovered
        Type to the AUROC of its markers among all used genes, ranked by weight.
    """
    empty = pd.DataFrame(columns=COLUMNS)
    cells = cells_of(reference, fitted.space)
    if reference.embedding is not None:
        return empty, {}
    weights = fitted.model.gene_weights(cells, reference.codes)
    if weights is None:
        return empty, {}
    names = reference.genes[fitted.space.columns].astype(str)
    difference = mean_difference(cells, reference.codes, len(reference.types), fitted.space)
    expressed = np.where(difference > 0, HIGHER, LOWER)
    parts = [_leading(weights, names, reference.types, GENE, TOP_GENES, expressed)]
    if hasattr(fitted.model, "attention"):
        attention = fitted.model.attention(cells, reference.codes)
        parts.append(
            _leading(attention - attention.mean(axis=0), fitted.model.tokens.names, reference.types, GENE_SET, TOP_SETS)
        )
    recovered = {
        name: area_under_curve(np.isin(names, list(known)), weights[reference.types.index(name)])
        for name, known in (markers or {}).items()
    }
    return pd.concat(parts, ignore_index=True), {name: value for name, value in recovered.items() if value == value}


def _leading(
    weights: np.ndarray, names, types: list[str], kind: str, n: int, expressed: np.ndarray | None = None
) -> pd.DataFrame:
    names = np.asarray(names, dtype=object)
    rows = []
    for code, name in enumerate(types):
        order = np.argsort(-weights[code], kind="stable")[:n]
        rows += [
            (name, kind, rank, names[at], float(weights[code, at]), "" if expressed is None else expressed[code, at])
            for rank, at in enumerate(order, 1)
        ]
    return pd.DataFrame(rows, columns=COLUMNS)
