"""Published expression signatures of response, as scores that need no training."""

from __future__ import annotations

import os

import pandas as pd

from histoweft.errors import Faults, InputError

COLUMNS = ("signature", "gene", "weight", "alias", "source")

SIGNATURE = "response_signature:"
"""Features of this kind are scores of published signatures."""


def read(path: str | os.PathLike) -> pd.DataFrame:
    """Read a table of signatures.

    Parameters
    ----------
    path
        Tab-separated: signature, gene, weight (its sign: higher or lower with response), alias (older symbol, may be
        empty), source. Lines that start with ``#`` are comments.

    Raises
    ------
    InputError
        A column is missing, a weight is no number or 0, or a gene stands twice in a signature.
    """
    try:
        table = pd.read_csv(path, sep="\t", comment="#", keep_default_na=False, dtype=str)
    except (OSError, ValueError) as error:
        raise InputError.one("config: cohort.signatures", error, "a table of signatures") from error
    faults = Faults()
    for name in COLUMNS:
        if name not in table:
            faults.add(f"{path}, header", f"columns {', '.join(table.columns)}", f"a column {name!r}")
    faults.raise_if_any()
    weight = pd.to_numeric(table["weight"], errors="coerce")
    for row in table[weight.isna() | (weight == 0)].itertuples():
        faults.add(f"{path}, {row.signature}, gene {row.gene}", f"weight {row.weight!r}", "a number other than 0")
    for row in table[table.duplicated(["signature", "gene"])].itertuples():
        faults.add(f"{path}, {row.signature}", f"gene {row.gene} twice", "each gene once")
    faults.raise_if_any()
    return table.assign(weight=weight)[list(COLUMNS)]


def score(standardised: pd.DataFrame, table: pd.DataFrame, min_share: float = 0.5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score signatures: the weighted mean of standardised genes.

    Parameters
    ----------
    standardised
        patients x genes, each gene of mean 0 and variance 1 (`bulk.standardise`).
    table
        See `read`.
    min_share
        A signature with a smaller share of its genes measured is left out.

    Returns
    -------
    scores
        patients x signatures, larger where a response is expected.
    coverage
        Per signature: genes, found, missing (named), scored.
    """
    scores, coverage = {}, []
    for name, rows in table.groupby("signature", sort=False):
        symbols = rows["gene"].where(rows["gene"].isin(standardised.columns), rows["alias"])
        found = symbols.isin(standardised.columns)
        scored = found.sum() > 0 and found.mean() >= min_share
        if scored:
            weight = rows.loc[found, "weight"].to_numpy()
            scores[name] = standardised[symbols[found]].to_numpy() @ weight / abs(weight).sum()
        missing = ", ".join(rows.loc[~found, "gene"])
        coverage.append((name, len(rows), int(found.sum()), missing, bool(scored)))
    columns = ["signature", "genes", "found", "missing", "scored"]
    return pd.DataFrame(scores, index=standardised.index), pd.DataFrame(coverage, columns=columns)
