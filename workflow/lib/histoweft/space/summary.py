"""What the sections of a study say together: interactions and variable genes that recur."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from histoweft.significance import adjust, upper_tail

LEVEL = 0.05

INTERACTION_COLUMNS = (
    "ligand_complex", "receptor_complex", "sections", "found_in", "score", "z", "p", "q", "z_lowest", "z_highest",
)  # fmt: skip
GENE_COLUMNS = ("gene", "sections", "found_in", "moran", "moran_lowest", "rank")


def combine_interactions(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Combine the spatial scores of all sections.

    Parameters
    ----------
    tables
        Sample to the table of `histoweft.space.colocation.colocate`.

    Returns
    -------
    `INTERACTION_COLUMNS`, by p: sections in which the pair was tested, in how many q is below 0.05, mean score, z
    (sum of the sections' z over the root of their number; Stouffer 1949), p, q over all pairs, lowest and highest z.
    """
    parts = [table.assign(sample=sample) for sample, table in tables.items() if len(table)]
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype=float) for name in INTERACTION_COLUMNS})
    joined = pd.concat(parts, ignore_index=True)
    joined["found"] = joined["q"] < LEVEL
    grouped = joined.groupby(["ligand_complex", "receptor_complex"], sort=True, observed=True)
    table = grouped.agg(
        sections=("z", "size"),
        found_in=("found", "sum"),
        score=("score", "mean"),
        total=("z", "sum"),
        z_lowest=("z", "min"),
        z_highest=("z", "max"),
    ).reset_index()
    table["z"] = table["total"] / np.sqrt(table["sections"])
    table["p"] = upper_tail(table["z"].to_numpy())
    table["q"] = adjust(table["p"].to_numpy())
    return table.sort_values("p", kind="stable", ignore_index=True)[list(INTERACTION_COLUMNS)]


def combine_genes(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Combine the variable genes of all sections.

    Parameters
    ----------
    tables
        Sample to the table of `histoweft.space.svg.variable_genes`.

    Returns
    -------
    `GENE_COLUMNS`, by rank: sections in which the gene was tested, in how many q is below 0.05, mean and lowest
    Moran's I, and the rank of the mean among genes tested in most sections.
    """
    joined = pd.concat([table.dropna(subset=["moran"]) for table in tables.values()], ignore_index=True)
    joined["found"] = joined["q"] < LEVEL
    grouped = joined.groupby("gene", sort=True)
    table = grouped.agg(
        sections=("moran", "size"),
        found_in=("found", "sum"),
        moran=("moran", "mean"),
        moran_lowest=("moran", "min"),
    ).reset_index()
    table = table[2 * table["sections"] > len(tables)]
    table = table.sort_values("moran", ascending=False, kind="stable", ignore_index=True)
    table["rank"] = np.arange(1, len(table) + 1)
    return table[list(GENE_COLUMNS)]


def in_words(interactions: pd.DataFrame, genes: pd.DataFrame, sections: int) -> dict[str, list[str]]:
    """Say what was found, for the report.

    Returns
    -------
    texts, warnings: lists of sentences.
    """
    everywhere = int((genes["found_in"] == sections).sum())
    where = "the section" if sections == 1 else f"all {sections} sections"
    texts = [f"{everywhere:,} of {len(genes):,} genes are spatially variable (Moran's I, q < {LEVEL}) in {where}."]
    warnings = []
    if interactions.empty:
        warnings.append("No ligand-receptor pair could be tested for co-location: too few of their genes are measured.")
        return {"texts": texts, "warnings": warnings}
    found = interactions[interactions["q"] < LEVEL]
    lead = (
        f"{len(found)} of {len(interactions)} ligand-receptor pairs lie closer together than the make-up of the tissue"
    )
    named = ", ".join(
        f"{row.ligand_complex} and {row.receptor_complex} (z {row.z:.1f})" for row in found.head(3).itertuples()
    )
    texts.append(f"{lead} explains (q < {LEVEL}{f'; first {named}' if named else ''}).")
    if len(interactions) < 20:
        warnings.append(f"Only {len(interactions)} ligand-receptor pairs have all their genes in this study.")
    return {"texts": texts, "warnings": warnings}
