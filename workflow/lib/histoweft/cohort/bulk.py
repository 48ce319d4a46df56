"""Bulk expression tables (genes x patients) as a further source of patients."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoweft.cohort.patients import CLINICAL
from histoweft.errors import Faults, InputError, nearest

_LARGEST_LOG = 40.0
"""A log2 value above this is none: it stands for a million million."""

_NAMED = 4
_GAPS = ("", "na", "nan", "n/a", "null")
_MOST_GAPS = 0.2


@dataclass(frozen=True)
class Bulk:
    """One cohort.

    Attributes
    ----------
    patients
        Index ``cohort:patient``; columns patient, cohort, response (as written) and clinical ones.
    expression
        patients x genes, log2(1 + x), float32.
    source
        The expression table.
    """

    patients: pd.DataFrame
    expression: pd.DataFrame
    source: str


def read(entry: dict, response: str, clinical: Sequence[str]) -> Bulk:
    """Read one cohort.

    Parameters
    ----------
    entry
        cohort, expression, clinical, id and response of the config's ``cohort.bulk``.
    response, clinical
        Columns of the clinical table; the entry's own response column goes first.

    Returns
    -------
    Patients of the expression table in its order. A gene with gaps in more than a fifth of the patients is left out;
    other gaps take the gene's mean.

    Raises
    ------
    InputError
        A file is missing, a value is no number, genes or patients stand twice, values are not on a log scale, a patient
        is not in the clinical table, or a column is not. All faults of the cohort together.
    """
    faults = Faults()
    expression = _expression(Path(entry["expression"]), faults)
    about = _clinical(Path(entry["clinical"]), entry["id"], faults)
    faults.raise_if_any()
    wanted = list(filter(None, [entry["response"] or response, *clinical]))
    for name in wanted:
        if name not in about:
            faults.add(f"{entry['clinical']}, header", f"no column {name!r}", "it", nearest(name, about.columns))
    absent = expression.columns.difference(about.index)
    if len(absent):
        found = f"no line for {len(absent)} of {expression.shape[1]} patients (e.g. {', '.join(absent[:_NAMED])})"
        faults.add(entry["clinical"], found, f"the patients of {entry['expression']}", "Does cohort.bulk.id name them?")
    faults.raise_if_any()
    about = about.loc[expression.columns]
    names = pd.Index([f"{entry['cohort']}:{patient}" for patient in expression.columns], name="patient_id")
    patients = pd.DataFrame({"patient": names, "cohort": entry["cohort"]}, index=names, dtype=object)
    patients["response"] = about[wanted[0]].to_numpy() if entry["response"] or response else ""
    for name in clinical:
        patients[f"{CLINICAL}{name}"] = about[name].to_numpy()
    values = to_log1p(expression.to_numpy(dtype=np.float64).T).astype(np.float32)
    return Bulk(patients, pd.DataFrame(values, index=names, columns=expression.index), str(entry["expression"]))


def to_log1p(values: np.ndarray) -> np.ndarray:
    """Bring log2 values with any offset to log2(1 + x).

    Parameters
    ----------
    values
        log2(x + offset). Where some are negative the smallest one is taken for log2(offset): tables of log2 TPM write
        -9.97 for nought. Without negative values the offset is 1 and nothing changes.

    Notes
    -----
    With a small offset the gap between nought and one read is the largest difference there is.
    """
    lowest = float(values.min()) if values.size else 0.0
    return values if lowest >= 0 else np.log2(1 + np.maximum(2.0**values - 2.0**lowest, 0))


def _read(path: Path, faults: Faults) -> pd.DataFrame | None:
    separator = "," if ".csv" in path.name else "\t"
    try:
        return pd.read_csv(path, sep=separator, index_col=0, keep_default_na=False, dtype=str)
    except FileNotFoundError:
        near = nearest(path.name, os.listdir(path.parent) if path.parent.is_dir() else [])
        faults.add("config: cohort.bulk", f"{path}, which does not exist", "a table", near)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        faults.add(str(path), error, "a table, .csv or .tsv, gzipped or not")
    return None


def _expression(path: Path, faults: Faults) -> pd.DataFrame:
    text = _read(path, faults)
    if text is None:
        return pd.DataFrame()
    gap = text.map(lambda cell: cell.strip().casefold() in _GAPS)
    numbers = text.where(~gap).apply(pd.to_numeric, errors="coerce")
    wrong = np.argwhere(~np.isfinite(numbers.to_numpy(dtype=float)) & ~gap.to_numpy(dtype=bool))
    if len(wrong):
        row, column = wrong[0]
        cell = f"gene {numbers.index[row]}, patient {numbers.columns[column]}"
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        faults.add(f"{path}, {cell}", f"{text.iloc[row, column]!r}{more}", "a finite number")
    elif numbers.size == 0:
        faults.add(str(path), "no values", "a table of genes x patients")
    elif np.nanmax(numbers.to_numpy(dtype=float), initial=0) > _LARGEST_LOG:
        found = f"values up to {np.nanmax(numbers.to_numpy(dtype=float)):g}"
        faults.add(str(path), found, "log2 values", "Take log2(1 + TPM) first.")
    for axis, index in (("gene", numbers.index), ("patient", numbers.columns)):
        twice = index[index.duplicated()]
        if len(twice):
            faults.add(str(path), f"the {axis} {twice[0]!r} twice", f"each {axis} once")
    # A gene measured in most patients takes its mean in the others; one with more gaps is left out.
    kept = numbers.loc[(numbers.isna().mean(axis=1) <= _MOST_GAPS).to_numpy()]
    return kept.T.fillna(kept.mean(axis=1)).T


def _clinical(path: Path, name: str, faults: Faults) -> pd.DataFrame:
    table = _read(path, faults)
    if table is None:
        return pd.DataFrame()
    if name:
        if name not in table:
            faults.add(f"{path}, header", f"no column {name!r}", "the column of cohort.bulk.id", nearest(name, table))
            return table
        table = table.set_index(name)
    twice = table.index[table.index.duplicated()]
    if len(twice):
        faults.add(str(path), f"the patient {twice[0]!r} twice", "one line a patient")
    return table


def join(parts: Sequence[Bulk]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Put cohorts under one another.

    Parameters
    ----------
    parts
        At least one.

    Returns
    -------
    patients
        All of them.
    expression
        patients x genes that all cohorts have, in the order of the first.

    Raises
    ------
    InputError
        Two cohorts of one name, or fewer than ten genes in common.
    """
    names = [part.patients["cohort"].iloc[0] for part in parts]
    twice = pd.Index(names)[pd.Index(names).duplicated()]
    if len(twice):
        raise InputError.one("config: cohort.bulk", f"the cohort {twice[0]!r} twice", "a name used once")
    common = parts[0].expression.columns
    for part in parts[1:]:
        common = common[common.isin(part.expression.columns)]
    if len(common) < 10:
        sizes = ", ".join(f"{name} {part.expression.shape[1]:,}" for name, part in zip(names, parts))
        hint = "Are genes named in the same way (symbols, not Ensembl ids) in all tables?"
        raise InputError.one("config: cohort.bulk", f"{len(common)} genes in common ({sizes})", "at least 10", hint)
    patients = pd.concat([part.patients for part in parts])
    return patients, pd.concat([part.expression[common] for part in parts])


def standardise(expression: pd.DataFrame, cohorts: Sequence[str]) -> pd.DataFrame:
    """Give each gene mean 0 and variance 1 inside each cohort.

    Parameters
    ----------
    expression
        patients x genes, log scale.
    cohorts
        Of each patient.

    Returns
    -------
    The same shape; 0 for a gene that is constant in a cohort.

    Notes
    -----
    Each cohort is scaled by its own patients, the held-out cohort too: no response enters, but a whole new cohort must
    be at hand before a patient of it can be scored (transductive). It takes out what laboratories differ by.
    """
    grouped = expression.groupby(np.asarray(cohorts, dtype=object))
    centred = expression - grouped.transform("mean")
    spread = grouped.transform("std", ddof=0)
    return centred.div(spread.where(spread > 1e-6)).fillna(0.0)
