"""The tidy table of every evaluation, and the scores that more than one stage needs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histoweft.errors import Faults, InputError, nearest

COLUMNS = (
    "study", "stage", "task", "method", "sample", "protocol", "fold",
    "metric", "value", "low", "high", "n", "panel", "note",
)  # fmt: skip
NUMBERS = ("value", "low", "high")
STAGES = (
    "ingest", "expression", "integration", "histology", "atlas", "annotation", "space", "trajectory", "states",
    "cohort", "report",
)  # fmt: skip
PROTOCOLS = ("random", "block", "hemisphere", "section", "patient", "cohort", "truth")
TASKS = (
    "expression_from_histology", "voxel_reconstruction", "voxel_position", "cell_type", "deconvolution", "domains",
    "domains_semi", "integration", "trajectory", "persister", "rare", "response", "speed",
)  # fmt: skip
METRICS = (
    "pearson_top50", "pearson_markers", "pearson_all", "pearson_top50_depth", "pearson_markers_depth",
    "pearson_all_depth", "mse_ratio_top50", "mse_ratio_markers", "mse_ratio_all", "share_better_top50",
    "share_better_markers", "share_better_all", "gain_top50", "leakage_gap", "mse", "r2", "euclid_voxels", "ari",
    "macro_f1", "accuracy", "ece", "coverage", "unknown_auroc", "auroc", "rmse", "scib_total", "seconds", "peak_mb",
    "speedup", "auprc", "brier", "calibration_slope", "permutation_p",
)  # fmt: skip
"""The metrics named so far; others are allowed (a metric names what it measures), written in the same way."""

SUBMISSION = "submission"
"""First word of the note on a method that was submitted to the study."""

SCHEMA_VERSION = "1.0"
"""Of the table: the first number changes when a reader of the old table would misread the new one."""

SCHEMA_FILE = "metrics.schema.json"
"""Describes the study's table, beside it."""

_MEANING = {
    "study": "name of the study",
    "stage": "part of the workflow that wrote the row",
    "task": "what was to be predicted or recovered",
    "method": "what was scored; floors begin with `floor:`",
    "sample": "section; `all` for a mean over sections",
    "protocol": "what was held out; `truth` where nothing was learned",
    "fold": "fold; `all` for a mean over folds",
    "metric": "what was measured",
    "value": "the score, in the metric's unit",
    "low": "lower end of its 95 % interval; empty where there is none",
    "high": "upper end of its 95 % interval; empty where there is none",
    "n": "number of things it was measured on; empty where not counted",
    "panel": "name and size of the gene panel; empty where there is none",
    "note": "`default` where the config selects the method; device and what else a reader needs",
}

_NAMES = ("study", "method", "sample", "metric")
_VOCABULARY = {"stage": STAGES, "protocol": PROTOCOLS, "task": TASKS}


def adjusted_rand_index(first: Iterable[Any], second: Iterable[Any]) -> float:
    """Agreement of two partitions of the same things, corrected for chance (Hubert and Arabie 1985).

    Parameters
    ----------
    first, second
        A label for each thing. Things without a label (None, NaN) in either are left out.

    Returns
    -------
    1 for equal partitions, around 0 for unrelated ones; NaN when fewer than two things have both labels.
    """
    a, _ = pd.factorize(pd.Series(list(first), dtype=object))
    b, _ = pd.factorize(pd.Series(list(second), dtype=object))
    if len(a) != len(b):
        raise ValueError(f"partitions of {len(a)} and {len(b)} things cannot be compared")
    both = (a >= 0) & (b >= 0)
    a, b = a[both].astype(np.int64), b[both].astype(np.int64)
    n = len(a)
    if n < 2:
        return math.nan

    def pairs(labels: np.ndarray) -> float:
        _, counts = np.unique(labels, return_counts=True)
        return float((counts * (counts - 1.0)).sum() / 2)

    together = pairs(a * (b.max() + 1) + b)
    in_a, in_b = pairs(a), pairs(b)
    expected = in_a * in_b / (n * (n - 1.0) / 2)
    largest = (in_a + in_b) / 2
    # Both all in one cluster, or both all singletons: the same partition.
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def column_pearson(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Correlate each column with its prediction.

    Parameters
    ----------
    truth, predicted
        rows x columns.

    Returns
    -------
    (columns,), 0 where either side is constant.
    """
    a, b = truth - truth.mean(axis=0), predicted - predicted.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), size, out=np.zeros(size.shape), where=size > 1e-12)


def area_under_curve(positive: np.ndarray, score: np.ndarray) -> float:
    """Return the chance that a positive thing scores higher than a negative one, ties counting half (AUROC).

    Parameters
    ----------
    positive
        (things,), bool.
    score
        (things,), larger for positive ones.

    Returns
    -------
    NaN where there are no positive or no negative things.
    """
    from scipy.stats import rankdata

    positive = np.asarray(positive, dtype=bool)
    n, others = int(positive.sum()), int((~positive).sum())
    if n == 0 or others == 0:
        return math.nan
    ranks = rankdata(score)[positive].sum()
    return float((ranks - n * (n + 1) / 2) / (n * others))


def percentile_interval(value: float, replicates: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of a bootstrap, widened to hold the value itself.

    Parameters
    ----------
    value
        As observed. Resampling can shift a score (an error of calibration is never below nought, and few folds have few
        draws), so that the value would lie just outside.
    replicates
        Of it; those that are not finite are left out.

    Returns
    -------
    low, high; NaN without replicates.
    """
    replicates = replicates[np.isfinite(replicates)]
    if len(replicates) == 0:
        return math.nan, math.nan
    low, high = np.quantile(replicates, [0.025, 0.975])
    return min(float(low), value), max(float(high), value)


def metric_row(
    study: str,
    stage: str,
    task: str,
    method: str,
    sample: str,
    protocol: str,
    metric: str,
    value: float,
    *,
    fold: str | int = "all",
    low: float = math.nan,
    high: float = math.nan,
    n: int | None = None,
    panel: str = "",
    note: str = "",
) -> dict[str, Any]:
    """Make one row of the metrics table.

    Parameters
    ----------
    study, sample
        ``all`` as `sample` for a mean over samples.
    stage, task, protocol
        Words of `STAGES`, `TASKS`, `PROTOCOLS`.
    method
        What was scored; floors begin with ``floor:``.
    fold
        ``all`` for a mean over folds.
    metric, value, low, high
        What was measured, and its 95 % interval where there is one.
    n
        Number of things it was measured on.
    panel
        Name and size of the gene panel.
    note
        ``default`` where the default config selects the method; what else a reader needs.

    Raises
    ------
    InputError
        A word is not in its vocabulary.
    """
    row = {
        "study": study, "stage": stage, "task": task, "method": method, "sample": sample, "protocol": protocol,
        "fold": str(fold), "metric": metric, "value": float(value), "low": float(low), "high": float(high),
        "n": n, "panel": panel, "note": note,
    }  # fmt: skip
    _check_row(row).raise_if_any()
    return row


def _check_row(row: dict[str, Any]) -> Faults:
    """Check one row as `check_metrics` checks a table, at a thousandth of its cost: stages make thousands."""
    faults = Faults()
    for column, words in _VOCABULARY.items():
        if row[column] not in words:
            _unknown_word(faults, f"metrics: {column}", row[column], words)
    for column in _NAMES:
        if not isinstance(row[column], str) or not row[column]:
            faults.add(f"metrics: {column}", "an empty cell", "a name")
    if row["low"] > row["value"] or row["high"] < row["value"]:
        faults.add("metrics", _outside(row["value"], row["low"], row["high"]), "a value within its interval")
    return faults


def _unknown_word(faults: Faults, where: str, word: Any, words: tuple[str, ...]) -> None:
    faults.add(where, repr(word), ", ".join(words), nearest(str(word), words))


def _outside(value: float, low: float, high: float) -> str:
    return f"{value} outside of {low} to {high}"


def check_metrics(table: pd.DataFrame, where: str = "metrics") -> pd.DataFrame:
    """Check a metrics table and put its columns in order.

    Raises
    ------
    InputError
        A column is missing or unknown, or a word is not in its vocabulary.
    """
    _check_columns(table, where).raise_if_any()
    _check_cells(table, where).raise_if_any()
    ordered = table.loc[:, list(COLUMNS)].copy()
    for column in NUMBERS:
        ordered[column] = ordered[column].astype(float)
    ordered["n"] = pd.to_numeric(ordered["n"]).astype("Int64")
    ordered["fold"] = ordered["fold"].astype(str)
    return ordered


def _check_columns(table: pd.DataFrame, where: str) -> Faults:
    faults = Faults()
    for column in COLUMNS:
        if column not in table:
            faults.add(where, f"no column {column!r}", ", ".join(COLUMNS))
    for column in table.columns:
        if column not in COLUMNS:
            faults.add(where, f"an unknown column {column!r}", ", ".join(COLUMNS), nearest(column, COLUMNS))
    return faults


def _check_cells(table: pd.DataFrame, where: str) -> Faults:
    faults = Faults()
    for column, words in _VOCABULARY.items():
        for word in pd.unique(table[column]):
            if word not in words:
                _unknown_word(faults, f"{where}: {column}", word, words)
    for column in _NAMES:
        if table[column].isna().any() or (table[column].astype(str) == "").any():
            faults.add(f"{where}: {column}", "an empty cell", "a name")
    low, value, high = (pd.to_numeric(table[name], errors="coerce") for name in ("low", "value", "high"))
    for at in np.flatnonzero((low > value) | (high < value)):
        found = _outside(value.iloc[at], low.iloc[at], high.iloc[at])
        faults.add(f"{where}, row {at + 1}", found, "a value within its interval")
    return faults


def write_metrics(rows: Iterable[dict[str, Any]] | pd.DataFrame, path: str | os.PathLike) -> None:
    """Write rows made by `metric_row` as tab-separated text; an empty table where there is none."""
    from histoweft.io import atomic

    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows), columns=list(COLUMNS))
    with atomic(path) as partial:
        check_metrics(table, str(path)).to_csv(partial, sep="\t", index=False, na_rep="")


def describe_metrics() -> dict[str, Any]:
    """Return the description of the table as a Table Schema (https://specs.frictionlessdata.io/table-schema/)."""
    fields = []
    for name in COLUMNS:
        kind = "number" if name in NUMBERS else "integer" if name == "n" else "string"
        field: dict[str, Any] = {"name": name, "type": kind, "description": _MEANING[name]}
        constraints: dict[str, Any] = {"required": True} if name in (*_NAMES, *_VOCABULARY) else {}
        if name in _VOCABULARY:
            constraints["enum"] = list(_VOCABULARY[name])
        fields.append(field | ({"constraints": constraints} if constraints else {}))
    return {"version": SCHEMA_VERSION, "fields": fields, "missingValues": [""]}


def write_schema(path: str | os.PathLike) -> None:
    """Write the description of the table as JSON."""
    from histoweft.io import atomic

    with atomic(path) as partial:
        partial.write_text(json.dumps(describe_metrics(), indent=1) + "\n", encoding="utf-8")


def _check_version(path: Path) -> None:
    """Raise when the description beside a table is of a newer kind than is known here."""
    schema = path.with_name(SCHEMA_FILE)
    if not schema.is_file():
        return
    try:
        version = str(json.loads(schema.read_text(encoding="utf-8"))["version"])
        major = int(version.partition(".")[0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "Run join_metrics again, or delete the file."
        raise InputError.one(schema, f"no description of a metrics table ({error})", "its version", hint) from error
    if major > int(SCHEMA_VERSION.partition(".")[0]):
        hint = "A newer Histoweft wrote it: read it with that one."
        raise InputError.one(path, f"a metrics table of version {version}", f"{SCHEMA_VERSION} or older", hint)


def read_metrics(path: str | os.PathLike) -> pd.DataFrame:
    """Read a metrics table and check it.

    Raises
    ------
    InputError
        It is no metrics table, or a description beside it (`SCHEMA_FILE`) says that it is of a newer kind.
    """
    _check_version(Path(path))
    text = {name: str for name in COLUMNS if name not in (*NUMBERS, "n")}
    gaps = {name: [""] for name in (*NUMBERS, "n")}
    table = pd.read_csv(path, sep="\t", dtype=text, keep_default_na=False, na_values=gaps)
    return check_metrics(table, str(path))


def join_metrics(paths: Iterable[str | os.PathLike]) -> pd.DataFrame:
    """Read the metrics that the stages wrote and put them under one another, sorted so that a rerun gives the same.

    Raises
    ------
    InputError
        One of the tables is not a metrics table.
    """
    tables = [table for table in map(read_metrics, paths) if len(table)]
    if not tables:
        return check_metrics(pd.DataFrame(columns=list(COLUMNS)))
    by = ["study", "stage", "task", "sample", "protocol", "metric", "method", "fold"]
    return pd.concat(tables, ignore_index=True).sort_values(by, kind="stable", ignore_index=True)
