"""What the study's page shows of the patients."""

from __future__ import annotations

import pandas as pd

from histoweft.cohort.contrasts import COLUMNS
from histoweft.cohort.groups import by_response
from histoweft.cohort.signatures import SIGNATURE

VIEWS = (
    ("compartment", "immune, stromal and malignant share"),
    ("composition", "share of cell types"),
    ("niche", "share of niches"),
    (SIGNATURE.rstrip(":"), "published signatures of immune response"),
)
"""Kinds of features that say what a tissue is made of, the best one first."""


def best_view(table: pd.DataFrame) -> tuple[str, str]:
    """Return the kind of features that the comparison page is drawn of, and its title; empty without any."""
    for prefix, title in VIEWS:
        columns = [c for c in table if c.startswith(f"{prefix}:")]
        if columns and table[columns].notna().any(axis=1).sum() >= 2:
            return prefix, title
    return "", ""


def named_rows(table: pd.DataFrame, options: dict) -> tuple[pd.DataFrame, pd.Series]:
    """Return rows and the name of the group of each: patients by response, else patients by condition."""
    if (table["response"].astype(str) != "").any():
        rows, groups = by_response(table, options["positive"], options["negative"], options["baseline"])
        named = groups.label.map({1.0: groups.first, 0.0: groups.second})
        order = named.map({groups.first: 0, groups.second: 1}).fillna(2).sort_values(kind="stable").index
        return rows.loc[order], named.loc[order]
    return table, table["condition"]


def panels(differences: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return title and table of each pair of groups that was compared."""
    found = []
    for (first, second), rows in differences.groupby(["first", "second"], sort=False):
        n = f"{rows['n_first'].iloc[0]} and {rows['n_second'].iloc[0]} patients"
        paired = ", each with itself" if rows["paired"].iloc[0] else ""
        found.append((f"{first} less {second} ({n}{paired})", rows[list(COLUMNS)]))
    return found


def join_verdicts(parts: list[dict]) -> dict:
    """Join what the rules of the stage say; the default is that of the prediction."""
    said = {name: [text for part in parts for text in part[name]] for name in ("texts", "warnings")}
    return said | {"default": next((part["default"] for part in parts if part.get("default")), "")}
