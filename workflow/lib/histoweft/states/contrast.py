"""Treated against untreated at the level of patients: cells of one tumour are no independent observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from histoweft.errors import InputError, nearest
from histoweft.significance import LEVEL, adjust, design, rearranged

COLUMNS = (
    "measure", "first", "second", "mean_first", "mean_second", "effect", "low", "high", "p", "q", "smallest_p",
    "design", "n_first", "n_second", "note",
)  # fmt: skip


def arms(rows: Mapping[str, Mapping[str, Any]], option: Mapping[str, Sequence[str]]) -> tuple[str, list[str]]:
    """Return the column of the sheet and the two levels that are compared; no levels where there is nothing to compare.

    Parameters
    ----------
    rows
        Sample to its row of the sheet.
    option
        ``{column: [first, second]}``; empty: the column condition, if it names just two levels, in the sheet's order.

    Raises
    ------
    InputError
        The sheet has no such column, or no sample of a level.
    """
    if not option:
        levels = [level for level in dict.fromkeys(row.get("condition") for row in rows.values()) if level]
        return "condition", levels if len(levels) == 2 else []
    (column, levels), where = next(iter(option.items())), "config: states.contrast"
    known = {name for row in rows.values() for name in row}
    if column not in known:
        raise InputError.one(where, repr(column), "a column of the sample sheet", nearest(column, known))
    found = {str(row.get(column, "")) for row in rows.values()}
    for level in levels:
        if level not in found:
            expected = f"one of {', '.join(sorted(found - {''})) or 'none'}, the values of column {column}"
            raise InputError.one(f"{where}.{column}", repr(level), expected, nearest(level, found))
    return column, list(levels)


def compare(
    values: pd.Series, patients: Mapping[str, str], conditions: Mapping[str, str], levels: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Compare one measure between two conditions, patient by patient.

    Parameters
    ----------
    values
        Index: samples; NaN where a sample has no value.
    patients, conditions
        Of each sample.
    levels
        The two conditions.
    seed
        Of the arrangements drawn where there are too many to count.

    Returns
    -------
    `COLUMNS` without measure and q. effect is second minus first, low and high its 95 % interval by Student's (paired)
    or Welch's t; p, two-sided, is that of `significance.rearranged`, and NaN where even the clearest difference could
    not reach 0.05.

    Notes
    -----
    Samples of one patient and condition are averaged. Where patients have both conditions the signs of their
    differences are turned, else conditions are dealt to patients (Fisher 1935; Pitman 1937); of the two designs, the
    one that can give the smaller p-value is taken.
    """
    first, second = levels
    frame = pd.DataFrame({"value": values, "patient": pd.Series(patients), "condition": pd.Series(conditions)})
    means = frame.dropna().groupby(["condition", "patient"])["value"].mean()
    one, other = (_arm(means, level) for level in (first, second))
    paired = one.index.intersection(other.index)
    apart = one.drop(index=paired), other.drop(index=paired)
    both, smallest = design(len(paired), *map(len, apart))
    chosen = "paired" if both else "unpaired"
    a, b = (one.loc[paired], other.loc[paired]) if both else apart
    found = {
        "first": first,
        "second": second,
        "mean_first": one.mean(),
        "mean_second": other.mean(),
        "effect": float(b.mean() - a.mean()) if len(a) and len(b) else np.nan,
        "smallest_p": smallest,
        "design": chosen,
        "n_first": len(a),
        "n_second": len(b),
    }
    found["low"], found["high"] = _interval(a.to_numpy(), b.to_numpy(), chosen)
    testable = smallest <= LEVEL
    found["p"] = rearranged(a.to_numpy(), b.to_numpy(), both, seed) if testable else np.nan
    found["note"] = "" if testable else f"no test possible: the smallest p so few patients can give is {smallest:.2g}"
    return found


def _arm(means: pd.Series, level: str) -> pd.Series:
    return (
        means.xs(level, level="condition")
        if level in means.index.get_level_values("condition")
        else means.iloc[:0].droplevel("condition")
    )


def _interval(a: np.ndarray, b: np.ndarray, design: str) -> tuple[float, float]:
    """Return the 95 % interval of the difference of means; NaN where a variance cannot be known."""
    from scipy.stats import t

    if design == "paired":
        gaps = b - a
        if len(gaps) < 2:
            return np.nan, np.nan
        error, df, effect = gaps.std(ddof=1) / np.sqrt(len(gaps)), len(gaps) - 1, gaps.mean()
    else:
        if len(a) < 2 or len(b) < 2:
            return np.nan, np.nan
        u, v = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
        error, effect = np.sqrt(u + v), b.mean() - a.mean()
        df = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1)) if u + v > 0 else 1.0
    reach = float(t.ppf(0.975, df) * error)
    return float(effect - reach), float(effect + reach)


def contrast_table(
    measures: pd.DataFrame,
    patients: Mapping[str, str],
    conditions: Mapping[str, str],
    levels: Sequence[str],
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every measure between two conditions.

    Parameters
    ----------
    measures
        Index: samples; a column each.
    patients, conditions, levels, seed
        See `compare`; without levels the table is empty.

    Returns
    -------
    `COLUMNS`; q is Benjamini's and Hochberg's over the measures.
    """
    if len(levels) != 2:
        return pd.DataFrame(columns=list(COLUMNS))
    rows = [{"measure": name, **compare(measures[name], patients, conditions, levels, seed)} for name in measures]
    table = pd.DataFrame(rows)
    table["q"] = adjust(table["p"].to_numpy(dtype=float))
    return table[list(COLUMNS)]
