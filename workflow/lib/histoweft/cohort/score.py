"""The scores of response as rows of the metrics table, and what they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from histoweft.cohort import performance
from histoweft.cohort.prediction import FLOOR, PRIOR, Prediction, score_groups
from histoweft.cohort.response import Evaluation
from histoweft.metrics import metric_row

STAGE, TASK = "cohort", "response"


def metric_rows(found: Evaluation, study: str, default: str, bootstraps: int, seed: int) -> list[dict]:
    """Score every method.

    Parameters
    ----------
    found
        Out-of-fold scores.
    study
        Its name.
    default
        The model that the config selects.
    bootstraps
        Resamplings of patients for the intervals.
    seed
        Of the resamplings.

    Returns
    -------
    Rows of the metrics table: AUROC and AUPRC (where cohorts are held out: mean of the values inside cohorts, and each
    cohort's own), Brier score, calibration error and slope of probabilities, permutation p. `n` counts patients.
    """
    if found.task is None:
        return []
    groups = score_groups(found.task)
    drawn = performance.resamples(found.task.positive == 1, groups, bootstraps, seed)
    rows = []
    for method, one in found.predictions.items():
        notes = [*(["default"] if method == default else []), *([one.note] if one.note else [])]
        if found.protocol == "cohort":
            notes.append("mean within cohorts; genes standardised inside each cohort without its responses")
        values = [*_discrimination(found, one, groups, drawn), *_calibration(found, one, groups)]
        if len(one.permuted):
            seen = performance.auroc(found.task.positive == 1, one.score, groups)
            values.append(("permutation_p", performance.permutation_p(seen, one.permuted)))
        for metric, value, *rest in values:
            low, high, fold, n = rest or (np.nan, np.nan, "all", len(groups))
            if np.isfinite(value):
                rows.append(
                    metric_row(
                        study, STAGE, TASK, method, "all", found.protocol, metric, value, fold=fold, low=low, high=high,
                        n=int(n), panel=f"{len(found.task.columns)} features", note="; ".join(notes),
                    )
                )  # fmt: skip
    return rows


def _discrimination(found: Evaluation, one: Prediction, groups: np.ndarray, drawn: np.ndarray) -> list[tuple]:
    """Return (metric, value, low, high, fold, n): over all patients, and of each cohort that is held out."""
    positive = found.task.positive == 1
    values = []
    for metric, measure in (("auroc", performance.auroc), ("auprc", performance.auprc)):
        values.append((metric, *performance.interval(measure, positive, one.score, groups, drawn), "all", len(groups)))
    if found.protocol == "cohort":
        for cohort in np.unique(groups):
            rows = np.flatnonzero(groups == cohort)
            # Patients are drawn inside their cohort: the same draws serve for the cohort alone.
            of_cohort = np.searchsorted(rows, drawn[:, rows])
            own = positive[rows], one.score[rows], groups[rows]
            values.append(("auroc", *performance.interval(performance.auroc, *own, of_cohort), str(cohort), len(rows)))
    return values


def _calibration(found: Evaluation, one: Prediction, groups: np.ndarray) -> list[tuple]:
    """Return (metric, value) of probabilities, nothing for scores that are none."""
    if one.probability is None:
        return []
    positive = found.task.positive == 1
    return [
        ("brier", performance.brier(positive, one.probability)),
        ("ece", performance.expected_calibration_error(positive, one.probability)),
        ("calibration_slope", performance.calibration_slope(positive, one.probability, groups)),
    ]


def best_floor(rows: pd.DataFrame) -> str:
    """Return the floor of highest AUROC; empty without floors."""
    floors = rows[rows["method"].str.startswith(FLOOR) & (rows["method"] != PRIOR)]
    floors = floors[(floors["metric"] == "auroc") & (floors["fold"] == "all")]
    return str(floors.loc[floors["value"].idxmax(), "method"]) if len(floors) else ""


def verdict(found: Evaluation, rows: Sequence[dict], default: str, bootstraps: int, seed: int) -> dict:
    """Say which method to use and how sure that is.

    Returns
    -------
    texts, warnings: lists of sentences; default: the configured model where its AUROC is above that of the best floor
    with an interval that leaves nought out, else that floor.
    """
    if found.task is None:
        return {"texts": [], "warnings": [found.refusal], "default": ""}
    task, table = found.task, pd.DataFrame(list(rows))
    positive, groups = task.positive == 1, score_groups(task)
    aurocs = table[(table["metric"] == "auroc") & (table["fold"] == "all")].set_index("method")
    p = table[table["metric"] == "permutation_p"].set_index("method")["value"]
    n, responders = len(positive), int(positive.sum())
    how = "one cohort held out at a time, mean within cohorts" if found.protocol == "cohort" else "patients held out"
    texts = [f"Response of {n} patients ({responders} positive), {how}: {_said(default, aurocs, p)}."]
    others = [method for method in aurocs.index if not method.startswith(FLOOR) and method != default]
    texts += [f"Beside it: {_said(other, aurocs, p)}." for other in others]
    warnings = list(found.notes)
    floor = best_floor(table)
    if not floor:
        warnings.append("No floor could be scored: none of the markers and signatures is measured.")
        return {"texts": texts, "warnings": warnings, "default": default}
    value, low, high = performance.difference(
        positive, found.predictions[default].score, found.predictions[floor].score, groups,
        performance.resamples(positive, groups, bootstraps, seed),
    )  # fmt: skip
    named = floor.removeprefix(FLOOR)
    texts.append(f"The best of {_n_floors(aurocs)} floors: {_said(floor, aurocs, p)}.")
    gap = f"{value:+.2f} [{low:+.2f}, {high:+.2f}] over {n} patients"
    texts.append(f"{default} less {named}: {gap}. The best of many floors looks a little better than it is.")
    chosen = default if low > 0 else named
    if low > 0:
        texts.append(f"{default} beats its best floor.")
    elif high < 0:
        warnings.append(f"{default} loses to {named}, which needs no training ({gap}): use {named}.")
    else:
        warnings.append(
            f"{default} does not beat {named} on these patients ({gap}): a tie. The simpler {named} is the default."
        )
    return {"texts": texts, "warnings": warnings, "default": chosen}


def _n_floors(aurocs: pd.DataFrame) -> int:
    return sum(method.startswith(FLOOR) and method != PRIOR for method in aurocs.index)


def _said(method: str, aurocs: pd.DataFrame, p: pd.Series) -> str:
    row = aurocs.loc[method]
    tail = f", permutation p {p[method]:.2g}" if method in p.index else ""
    value = f"AUROC {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{method.removeprefix(FLOOR)} {value}{tail}, n = {row['n']}"
