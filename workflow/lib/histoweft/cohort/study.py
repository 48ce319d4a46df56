"""Samples and bulk cohorts of a study put into one table of patients."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import pandas as pd

from histoweft import gaps
from histoweft.cohort import bulk, contrasts, microenvironment, patients, pseudobulk, signatures
from histoweft.cohort.features import COLUMN_TABLE, feature_columns
from histoweft.cohort.gather import Gathered, gather
from histoweft.cohort.groups import compared
from histoweft.errors import InputError


def there(files: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Leave out tables that could not be computed, and samples without counts or states.

    Parameters
    ----------
    files
        Sample to its tables by name.

    Returns
    -------
    files
        Those that are there.
    words
        What is missing of which sample.
    """
    found, words = {}, []
    for sample, tables in files.items():
        missing = {name: gap for name, path in tables.items() if (gap := gaps.of(path))}
        words += [f"{sample}: no {name.replace('_', ' ')}. {gap.words}" for name, gap in missing.items() if gap.failed]
        if not missing.keys() & {"filtered", "states"}:
            found[sample] = {name: path for name, path in tables.items() if name not in missing}
    return found, words


def gather_study(
    files: Mapping[str, Mapping[str, str]], rows: Mapping[str, dict], options: dict, study: str, comparable: bool
) -> tuple[Gathered, pd.DataFrame, list[str]]:
    """Gather everything that is known of the patients of a study.

    Parameters
    ----------
    files
        See `gather.gather`.
    rows
        Rows of the sample sheet.
    options
        The config's section cohort.
    study
        Name of the cohort of the samples, unless the sheet names cohorts.
    comparable
        See `features.of_section`.

    Returns
    -------
    gathered
        Samples and bulk cohorts, with published signatures among the features.
    expression
        Rows x genes that all sources have, log2(1 + x).
    notes
        Sentences for the report.

    Raises
    ------
    InputError
        The sheet or a bulk table cannot be used.
    """
    about = patients.table_of_samples(rows, options, study)
    cohorts = [bulk.read(entry, options["response"], options["clinical"]) for entry in options["bulk"]]
    expression = pd.DataFrame()
    if files:
        patterns = microenvironment.read_compartments(options["compartments"])
        gathered = gather(files, about, patterns, comparable)
        expression = pseudobulk.log_cpm(gathered.counts)
    else:
        gathered = Gathered(*(pd.DataFrame(columns=list(names)) for names in _EMPTY))
    if cohorts:
        people, own = bulk.join(cohorts)
        gathered.table = pd.concat([gathered.table.astype(object), _rows_of(people)])
        expression = _join(expression, own)
    gathered.table.index.name = "row"
    gathered.table = _typed(gathered.table)
    return add_signatures(gathered, expression, options["signatures"])


_EMPTY = (patients.META, COLUMN_TABLE, (), pseudobulk.PLACE_COLUMNS)


def _rows_of(people: pd.DataFrame) -> pd.DataFrame:
    return people.assign(condition="", sections=0, spots=0)


def _join(samples: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Put bulk patients under pseudobulk ones, over the genes that both have."""
    if samples.empty:
        return own
    common = samples.columns[samples.columns.isin(own.columns)]
    if len(common) < 10:
        found = f"{len(common)} genes that samples and bulk tables share"
        raise InputError.one("config: cohort.bulk", found, "at least 10", "Are genes named in the same way in both?")
    return pd.concat([samples[common], own[common]])


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Give columns their types again after rows of several sources were put together."""
    features = feature_columns(table)
    told = [c for c in table if c not in features and c not in ("sections", "spots")]
    table = table.astype({c: float for c in features} | {"sections": int, "spots": int})
    table[told] = table[told].fillna("").astype(str)
    return table[[*patients.META, *(c for c in table if c not in patients.META)]]


def add_signatures(
    gathered: Gathered, expression: pd.DataFrame, path: str | os.PathLike
) -> tuple[Gathered, pd.DataFrame, list[str]]:
    """Score published signatures of response, genes standardised inside each cohort, as further features."""
    table = gathered.table
    standard = bulk.standardise(expression.loc[table.index], table["cohort"])
    scores, coverage = signatures.score(standard, signatures.read(path))
    scores = scores.add_prefix(signatures.SIGNATURE)
    gathered.table = pd.concat([table, scores], axis=1)
    how = coverage.set_index("signature")
    sources = {
        column: ("cohort", "expression.parquet", f"mean of {how.loc[name, 'found']} standardised genes")
        for column, name in ((c, c.removeprefix(signatures.SIGNATURE)) for c in scores)
    }
    lines = [(c, *sources[c], int(scores[c].notna().sum()), int(scores[c].isna().sum())) for c in scores]
    more = pd.DataFrame(lines, columns=list(COLUMN_TABLE))
    gathered.columns = pd.concat([part for part in (gathered.columns, more) if len(part)], ignore_index=True)
    lost = [f"{row.signature} ({row.found} of {row.genes})" for row in coverage[~coverage["scored"]].itertuples()]
    notes = [f"Signatures of which too few genes are measured are not scored: {', '.join(lost)}."] if lost else []
    return gathered, expression, notes


def differences(table: pd.DataFrame, options: dict, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """Compare all features between responders and others, or between conditions.

    Parameters
    ----------
    table
        See `gather_study`.
    options
        The config's section cohort.
    seed
        Of permutations.

    Returns
    -------
    table
        `contrasts.COLUMNS` with the names of the groups in front.
    notes
        What is missing for a test.
    """
    parts, notes = [], []
    pairs = compared(table, options)
    for rows, groups in pairs:
        found = contrasts.compare(rows[feature_columns(rows)], groups, seed)
        parts.append(found.assign(first=groups.first, second=groups.second))
        missing = contrasts.advice(groups)
        notes += [missing] if missing else []
    if not pairs:
        notes.append(
            "Nothing is compared: the sheet names fewer than two conditions, and no response (cohort.response)."
        )
    columns = ["first", "second", *contrasts.COLUMNS]
    joined = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return joined[columns], notes


def in_words(found: pd.DataFrame, table: pd.DataFrame, min_patients: int) -> list[str]:
    """Say who is in the study, what of it can be predicted, and which features differ."""
    n, sections = table["patient"].nunique(), int(table["sections"].sum())
    known = feature_columns(table)
    texts = [f"{n} patients" + (f" with {sections} sections" if sections else "") + f", {len(known)} features."]
    if not (table["response"].astype(str) != "").any():
        few = f", of at least {min_patients} patients; there are {n}" if n < min_patients else ""
        texts.append(f"Nothing is predicted: that would need a response (cohort.response){few}.")
    for (first, second), rows in found.groupby(["first", "second"], sort=False):
        tested = rows[np.isfinite(rows["p"].astype(float))]
        if tested.empty:
            continue
        sure = tested[tested["q"] < contrasts.LEVEL]
        named = ", ".join(f"{row.feature} ({row.effect:+.3g}, q {row.q:.2g})" for row in sure.head(3).itertuples())
        size = f"{tested['n_first'].iloc[0]} and {tested['n_second'].iloc[0]} patients"
        texts.append(
            f"{first} against {second} ({size}): {len(sure)} of {len(tested)} features differ (permutation of "
            f"patients, q < {contrasts.LEVEL} over these {len(tested)}{f'; first {named}' if named else ''})."
        )
    return texts
