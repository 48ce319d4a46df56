"""What the samples' deconvolutions come to: one table of compositions, and sentences for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from histoweft.annotation.deconvolve import NNLS, POISSON
from histoweft.annotation.deconvolve_score import MIXED, NAMES

MANY_FLAGGED = 0.3
"""Share of flagged spots from which on the reference as a whole is in doubt."""


def composition(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the mean share of each type in each sample, and the share of flagged spots.

    Parameters
    ----------
    tables
        Sample to its ``proportions.parquet``.

    Returns
    -------
    sample, n_spots, missing_type (share of spots), then one column for each type of any sample.
    """
    rows = []
    for sample, table in tables.items():
        shares = table[types_of(table)].mean()
        rows.append({
            "sample": sample, "n_spots": len(table), "missing_type": float(table["missing_type"].mean()), **shares
        })  # fmt: skip
    return pd.DataFrame(rows)


def types_of(table: pd.DataFrame) -> list[str]:
    """Return the names of the types of a table of proportions."""
    return [name.removeprefix("low:") for name in table.columns if name.startswith("low:")]


def verdict(metrics: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]], shares: pd.DataFrame) -> dict[str, Any]:
    """Say in words what was found.

    Parameters
    ----------
    metrics
        Rows of all samples.
    facts
        Sample to what its deconvolution wrote.
    shares
        From `composition`.

    Returns
    -------
    ``texts``, ``warnings`` and ``default``, the method that most samples were deconvolved with.
    """
    used = pd.Series({sample: fact["method"] for sample, fact in facts.items()})
    default = used.mode().iloc[0]
    texts = [_against_floor(metrics, len(facts)), _doubt(metrics, default), _missing(metrics, shares)]
    warnings = _warnings(metrics, used, shares)
    for sample, fact in facts.items():
        texts.append(f"{sample}: {fact['matched']}" if fact.get("matched") else "")
        warnings += [f"{sample}: {caution}." for caution in fact.get("cautions", [])]
    return {"texts": [text for text in texts if text], "warnings": warnings, "default": default}


def _mean(metrics: pd.DataFrame, metric: str, method: str, column: str = "value", panel: str = "") -> float:
    rows = metrics[(metrics["metric"] == metric) & (metrics["method"] == method)]
    rows = rows[rows["panel"].str.startswith(panel)] if panel else rows
    return float(rows[column].mean()) if len(rows) else np.nan


def _against_floor(metrics: pd.DataFrame, n: int) -> str:
    r2 = {name: _mean(metrics, "r2", NAMES[name]) for name in (POISSON, NNLS)}
    rmse = {name: _mean(metrics, "rmse", NAMES[name]) for name in (POISSON, NNLS)}
    gain = [_mean(metrics, "rmse_gain", NAMES[POISSON], column) for column in ("value", "low", "high")]
    wins = "errs less than" if gain[1] > 0 else "errs more than" if gain[2] < 0 else "cannot be told from"
    note = metrics["note"].iloc[0].removeprefix("default; ").removeprefix(f"{MIXED}; ")
    return (
        f"Deconvolution, tried on spots mixed from reference cells ({note}), as deep as the study's own (mean of {n} "
        f"sample{'s' if n != 1 else ''}): the Poisson model {wins} least squares: R2 {r2[POISSON]:.3f} against "
        f"{r2[NNLS]:.3f}, root mean squared error {rmse[POISSON]:.3f} against {rmse[NNLS]:.3f} (difference "
        f"{gain[0]:.3f}, 95 % interval of a sample {gain[1]:.3f} to {gain[2]:.3f}). Tissue differs from its "
        "reference in more than these spots do: expect less there."
    )


def _doubt(metrics: pd.DataFrame, default: str) -> str:
    held = _mean(metrics, "coverage", NAMES[default])
    return f"{held:.1%} of the 95 % intervals of mixed spots hold the true proportion." if np.isfinite(held) else ""


def _missing(metrics: pd.DataFrame, shares: pd.DataFrame) -> str:
    flagged = np.average(shares["missing_type"], weights=shares["n_spots"])
    text = f"{flagged:.1%} of the spots are flagged: no mixture of the reference's types explains them."
    auroc = _mean(metrics, "unknown_auroc", "misfit", panel="mean of")
    if np.isfinite(auroc):
        found, falsely = (
            _mean(metrics, name, "misfit", panel="mean of") for name in ("unknown_found", "unknown_false")
        )
        text += (
            f" With a type left out of the reference, spots with a fifth or more of their cells of it stand out with "
            f"an AUROC of {auroc:.2f}; {found:.0%} of them and {falsely:.1%} of the spots without it are flagged. "
            "A type of single cells in few spots is not found this way."
        )
    return text


def _warnings(metrics: pd.DataFrame, used: pd.Series, shares: pd.DataFrame) -> list[str]:
    found = []
    for row in shares[shares["missing_type"] > MANY_FLAGGED].itertuples():
        found.append(
            f"{row.missing_type:.0%} of the spots of {row.sample} are not explained by the reference: it lacks types, "
            "or its cells differ from this tissue. Read the proportions with care."
        )
    if (used == NNLS).any():
        which = ", ".join(used.index[used == NNLS])
        found.append(f"Deconvolution of {which} is by least squares, the floor; its intervals come from mixed spots.")
    low = _mean(metrics, "rmse_gain", NAMES[POISSON], "low")
    if low <= 0 and (used == POISSON).any():
        found.append("On mixed spots the Poisson model does not beat least squares beyond doubt.")
    return found
