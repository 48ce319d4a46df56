"""Which patients are compared: responders with the others, or one condition with another."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from histoweft.cohort.contrasts import Groups
from histoweft.cohort.features import merge_conditions
from histoweft.cohort.patients import assess


def by_response(
    table: pd.DataFrame, positive: str, negative: str = "", condition: str = ""
) -> tuple[pd.DataFrame, Groups]:
    """Return one row a patient, and who responded.

    Parameters
    ----------
    table
        See `features.by_patient`.
    positive, negative
        See `patients.assess`.
    condition
        See `features.merge_conditions`.
    """
    merged = merge_conditions(table, condition)
    label = assess(merged["response"], positive, negative, "the column of cohort.response")
    against = str(merged.loc[label == 0, "response"].iloc[0])
    return merged, Groups(positive, against, label, pd.Series(merged.index, index=merged.index), merged["cohort"])


def by_condition(table: pd.DataFrame) -> list[Groups]:
    """Return every pair of conditions, the later one of the sheet first; rows are those of the table.

    A single patient with both conditions, who can be paired with nobody, is left out.
    """
    named = table["condition"].astype(str)
    names = [name for name in dict.fromkeys(named) if name]
    found = []
    for second, first in combinations(names, 2):
        label = named.map({first: 1.0, second: 0.0})
        both = label.groupby(table["patient"]).nunique() == 2
        if both.sum() == 1:
            label[table["patient"].isin(both.index[both])] = np.nan
        found.append(Groups(first, second, label, table["patient"], table["cohort"]))
    return found


def compared(table: pd.DataFrame, options: dict) -> list[tuple[pd.DataFrame, Groups]]:
    """Return what a study compares: patients by response where there is one, else conditions.

    Parameters
    ----------
    table
        See `features.by_patient`.
    options
        The config's section cohort: response, positive, negative, baseline.
    """
    if (table["response"].astype(str) != "").any():
        return [by_response(table, options["positive"], options["negative"], options["baseline"])]
    return [(table, groups) for groups in by_condition(table)]
