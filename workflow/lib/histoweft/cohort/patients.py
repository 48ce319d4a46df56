"""Who the patients are, which of them responded, and the refusal of sheets that would leak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from histoweft.errors import Faults, InputError, nearest

MISSING = ("", "na", "nan", "n/a", "none", "ne", "unknown", "not assessable", "not evaluable")
"""Words for a response that could not be assessed, whatever their case."""

META = ("patient", "cohort", "condition", "sections", "spots", "response")
"""Columns of a features table that are no features; clinical columns begin with `CLINICAL`."""

CLINICAL = "clinical:"

_IDENTICAL = 0.9999


def is_missing(values: pd.Series) -> np.ndarray:
    """Say which cells hold no answer (`MISSING`, or empty)."""
    return values.isna().to_numpy() | values.astype(str).str.strip().str.casefold().isin(MISSING).to_numpy()


def assess(values: pd.Series, positive: str, negative: str = "", where: str = "response") -> pd.Series:
    """Read who responded.

    Parameters
    ----------
    values
        As they stand in the sheet or in the clinical table; index: patients.
    positive, negative
        The two answers. Without `negative` it is the one other answer there is.
    where
        What messages call the column.

    Returns
    -------
    1 for `positive`, 0 for `negative`, NaN where the response could not be assessed.

    Raises
    ------
    InputError
        `positive` is not among the answers, or others are left besides the two.
    """
    missing = is_missing(values)
    text = values.astype(str).str.strip()
    answers = sorted(set(text[~missing]))
    if positive not in answers:
        hint = nearest(positive, answers) or "Set cohort.positive to the answer that counts as a response."
        raise InputError.one(where, f"answers {', '.join(answers) or 'none'}", f"{positive!r} among them", hint)
    others = [answer for answer in answers if answer != positive]
    if not negative and len(others) > 1:
        hint = "Set cohort.negative; patients with any other answer are left out."
        raise InputError.one(where, f"answers {', '.join(answers)}", f"{positive!r} and one other", hint)
    against = negative or (others[0] if others else "")
    if against not in others:
        raise InputError.one(where, f"answers {', '.join(answers)}", f"{against or 'a second one'!r} among them")
    response = pd.Series(np.nan, index=values.index)
    response[(text == positive).to_numpy() & ~missing] = 1.0
    response[(text == against).to_numpy() & ~missing] = 0.0
    return response


def table_of_samples(rows: Mapping[str, dict], options: dict, study: str) -> pd.DataFrame:
    """Gather what the sheet says of each sample, and refuse a sheet that contradicts itself.

    Parameters
    ----------
    rows
        Sample to its row of the sheet; clinical columns under ``clinical``.
    options
        The config's section cohort: response, clinical, group.
    study
        Name of the cohort where `group` names no column.

    Returns
    -------
    Index: samples. Columns patient, cohort, condition, response (as written) and the clinical ones (`CLINICAL`); what
    is said of one section of a patient stands at all of them.

    Raises
    ------
    InputError
        A column is not in the sheet; one patient with two responses, cohorts or values of a clinical column. All such
        faults together.
    """
    faults = Faults()
    names = [options["response"], options["group"], *options["clinical"]]
    known = sorted({column for row in rows.values() for column in (*row["clinical"], "condition", "batch", "patient")})
    for name in filter(None, names):
        if rows and name not in known:
            faults.add("config: cohort", f"the column {name!r}", "a column of the sample sheet", nearest(name, known))
    faults.raise_if_any()
    table = pd.DataFrame(
        {
            "patient": {sample: row["patient"] for sample, row in rows.items()},
            "cohort": {sample: _cell(row, options["group"]) or study for sample, row in rows.items()},
            "condition": {sample: row["condition"] for sample, row in rows.items()},
            "response": {sample: _cell(row, options["response"]) for sample, row in rows.items()},
            **{
                f"{CLINICAL}{name}": {sample: _cell(row, name) for sample, row in rows.items()}
                for name in options["clinical"]
            },
        },
        dtype=object,
    ).rename_axis(index="sample")
    told = [name for name in table if name not in ("patient", "condition")]
    contradictions(table, told).raise_if_any()
    for name in told:
        # What is said of one section holds for the patient's others, where nothing is said.
        said = table[name].where(~is_missing(table[name])).groupby(table["patient"]).transform("first")
        table[name] = said.where(said.notna(), table[name])
    return table


def _cell(row: dict, name: str) -> str:
    return str(row["clinical"].get(name, row.get(name, ""))) if name else ""


def contradictions(table: pd.DataFrame, columns: Sequence[str]) -> Faults:
    """Find patients of whom the sheet says two things.

    Parameters
    ----------
    table
        One row a sample, with the column patient.
    columns
        In which all samples of a patient must agree.
    """
    faults = Faults()
    for patient, rows in table.groupby("patient", sort=True):
        for column in columns:
            said = rows[column][~is_missing(rows[column])]
            if said.nunique() > 1:
                shown = ", ".join(f"{sample}: {value}" for sample, value in said.items())
                faults.add(
                    f"sample sheet: patient {patient}, column {column.removeprefix(CLINICAL)}",
                    f"different values ({shown})",
                    "one value a patient",
                    "Two patients under one name, or a slip: what is predicted of a patient must be the same in all "
                    "sections.",
                )
    return faults


def same_profiles(expression: pd.DataFrame, patients: Sequence[str]) -> Faults:
    """Find patients whose expression is the same: one patient under two names is on both sides of a fold.

    Parameters
    ----------
    expression
        rows x genes, log scale.
    patients
        Of each row; rows of one patient are not compared with each other.

    Notes
    -----
    Profiles of one tissue are alike, so genes are centred over the rows as well: two rows are the same when they
    correlate above 0.9999 before and above 0.999 after centring. Fewer than ten genes or three rows say nothing.
    """
    faults = Faults()
    n, genes = expression.shape
    if n < 3 or genes < 10:
        return faults
    values = expression.to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        raw, centred = np.corrcoef(values), np.corrcoef(values - values.mean(axis=0))
    names = np.asarray(patients, dtype=object)
    for a, b in np.argwhere(np.triu((raw > _IDENTICAL) & (centred > 0.999), 1)):
        if names[a] != names[b]:
            faults.add(
                f"patients {names[a]} and {names[b]}",
                f"the same expression profile (correlation {raw[a, b]:.6f} over {genes:,} genes)",
                "different patients",
                "Give both rows one patient name, or take one out: a model tested on a patient it has learned knows "
                "the answer.",
            )
    return faults


def disguised(clinical: pd.DataFrame, response: pd.Series) -> Faults:
    """Find clinical columns that are the response under another name.

    Parameters
    ----------
    clinical
        patients x columns, as read.
    response
        1, 0, NaN; see `assess`.

    Notes
    -----
    A column of numbers that correlates above 0.9999 with the response; a column of words in which no word occurs with
    both responses although its words occur three times or more on average.
    """
    faults = Faults()
    known = response.notna()
    answer = response[known].to_numpy()
    for name in clinical:
        values = clinical.loc[known, name]
        present = ~is_missing(values)
        if present.sum() < 6 or len(np.unique(answer[present])) < 2:
            continue
        if _gives_away(values[present], answer[present]):
            faults.add(
                f"config: cohort.clinical, {name.removeprefix(CLINICAL)}",
                "the response under another name: each of its values goes with one response only",
                "a column that is known before treatment",
                "Take it out of cohort.clinical.",
            )
    return faults


def _gives_away(values: pd.Series, answer: np.ndarray) -> bool:
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all() and numbers.nunique() > 1 and abs(np.corrcoef(numbers, answer)[0, 1]) > _IDENTICAL:
        return True
    words = values.astype(str)
    frequent = len(words) >= 3 * words.nunique()
    return bool(frequent and (pd.Series(answer).groupby(words.to_numpy()).nunique() == 1).all())
