"""Response predicted by every model and every floor of a study, on the same patients and folds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from histoweft.cohort import prediction
from histoweft.cohort.bulk import standardise
from histoweft.cohort.features import feature_columns
from histoweft.cohort.groups import by_response
from histoweft.cohort.patients import CLINICAL, disguised, same_profiles
from histoweft.cohort.prediction import CLINICAL_FLOOR, FLOOR, PRIOR, Prediction, Task
from histoweft.cohort.signatures import SIGNATURE
from histoweft.errors import Faults, InputError

FEWEST_OF_A_KIND = 5
"""Patients with each answer below which nothing is predicted, whatever `cohort.min_patients` says."""

FOLD_COLUMNS = ("round", "fold", "protocol", "patients_train", "patients_test", "on_both_sides", "tested")


@dataclass
class Evaluation:
    """Everything that `predict_response` found.

    Attributes
    ----------
    task
        None where the prediction is refused.
    protocol
        ``cohort`` or ``patient``.
    predictions
        Method to its out-of-fold scores; floors begin with ``floor:``.
    folds
        `FOLD_COLUMNS`: the audit.
    refusal
        Why nothing was predicted, and what would be needed.
    notes
        Sentences for the report.
    """

    task: Task | None = None
    protocol: str = "patient"
    predictions: dict[str, Prediction] = field(default_factory=dict)
    folds: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(FOLD_COLUMNS)))
    refusal: str = ""
    notes: list[str] = field(default_factory=list)


def refusal(label: pd.Series, min_patients: int) -> str:
    """Say why so few patients allow no prediction, and what is needed; empty where they do."""
    known = label.dropna()
    n, positive = len(known), int(known.sum())
    rarer = min(positive, n - positive)
    if n >= min_patients and rarer >= FEWEST_OF_A_KIND:
        return ""
    reach = 1.96 * np.sqrt(0.15 / max(n, 1))
    return (
        f"No response is predicted from {n} patients with a known response ({positive} positive): at least "
        f"{min_patients} are needed, {FEWEST_OF_A_KIND} of each answer. "
        + (f"An AUROC from so few would be uncertain by about {min(reach, 0.5):.2f} either way. " if n else "")
        + "Add patients, or bulk cohorts of the same treatment (cohort.bulk)."
    )


def predictors(merged: pd.DataFrame, wanted: list[str]) -> pd.DataFrame:
    """Return the features that models learn from.

    Parameters
    ----------
    merged
        One row a patient.
    wanted
        ``features`` (of the earlier stages) and ``signatures`` (published ones, `SIGNATURE`), in any combination.
    """
    columns = feature_columns(merged)
    published = [c for c in columns if c.startswith(SIGNATURE)]
    others = [c for c in columns if not c.startswith(SIGNATURE)]
    return merged[[*(others if "features" in wanted else []), *(published if "signatures" in wanted else [])]]


def of_patients(expression: pd.DataFrame, table: pd.DataFrame, condition: str = "") -> pd.DataFrame:
    """Average expression over the rows of each patient (of one condition), weighted by spots."""
    rows = table[table["condition"] == condition] if condition else table
    if rows["patient"].is_unique:
        return expression.loc[rows.index].set_axis(pd.Index(rows["patient"], name="patient"))
    weight = rows["spots"].clip(lower=1).astype(float)
    patient = rows["patient"].to_numpy()
    total = expression.loc[rows.index].mul(weight, axis=0).groupby(patient).sum()
    return total.div(weight.groupby(patient).sum(), axis=0).rename_axis(index="patient")


def check(merged: pd.DataFrame, label: pd.Series, expression: pd.DataFrame) -> None:
    """Refuse patients that would be on both sides of a fold, and clinical columns that are the response.

    Raises
    ------
    InputError
        With every such fault.
    """
    faults = Faults()
    faults.extend(same_profiles(expression, list(expression.index)))
    faults.extend(disguised(merged[[c for c in merged if c.startswith(CLINICAL)]], label))
    faults.raise_if_any()


def evaluate(table: pd.DataFrame, expression: pd.DataFrame, options: dict, seed: int) -> Evaluation:
    """Predict the response of every patient by every model and floor.

    Parameters
    ----------
    table
        See `features.by_patient`; bulk patients have no features but published signatures.
    expression
        Rows of the table x genes, log scale.
    options
        The config's section cohort.
    seed
        Of folds, permutations and models.

    Raises
    ------
    InputError
        The data would leak, or there is nothing to predict from.
    """
    merged, groups = by_response(table, options["positive"], options["negative"], options["baseline"])
    label, own = groups.label, of_patients(expression, table, options["baseline"]).loc[merged.index]
    why_not = refusal(label, options["min_patients"])
    if why_not:
        return Evaluation(refusal=why_not)
    check(merged, label, own)
    genes = own if "expression" in options["predictors"] else None
    features = predictors(merged, options["predictors"])
    task = prediction.make_task(label, merged["cohort"], features, genes, options["genes"])
    protocol, rounds = prediction.outer_folds(task, options["folds"], options["repeats"], seed)
    found = Evaluation(task, protocol, folds=fold_table(task, protocol, rounds))
    lost = int(label.isna().sum())
    if lost:
        found.notes.append(f"{lost} of {len(label)} patients have no response that could be assessed and are left out.")
    for model in options["models"]:
        found.predictions[model] = prediction.predict(
            task, model, rounds, options["inner_folds"], options["permutations"], seed
        )
    _add_floors(found, rounds, merged, own, options, seed)
    return found


def _add_floors(found: Evaluation, rounds, merged, own, options, seed) -> None:
    """Score single markers, signatures, clinical columns alone, and the share of responders."""
    task, permutations = found.task, options["permutations"]
    standard = standardise(own, merged["cohort"]).loc[task.names]
    for gene in options["markers"]:
        if gene in standard:
            value = standard[gene].to_numpy(dtype=float)
            found.predictions[f"{FLOOR}{gene}"] = prediction.fixed_floor(task, value, permutations, seed)
        else:
            found.notes.append(f"The marker {gene} is not measured in this study.")
    for column in [c for c in merged if c.startswith(SIGNATURE)]:
        value = merged.loc[task.names, column].to_numpy(dtype=float)
        name = f"{FLOOR}{column.removeprefix(SIGNATURE)}"
        found.predictions[name] = prediction.fixed_floor(task, value, permutations, seed)
    clinical = merged[[c for c in merged if c.startswith(CLINICAL)]]
    design = prediction.clinical_design(clinical)
    if design.shape[1]:
        try:
            own_task = prediction.make_task(
                pd.Series(task.positive, index=task.names), merged.loc[task.names, "cohort"], design, None, 1, False
            )
        except InputError:
            found.notes.append("The clinical columns are the same for all patients: no clinical floor.")
        else:
            found.predictions[CLINICAL_FLOOR] = prediction.predict(
                own_task, "elastic_net", rounds, options["inner_folds"], permutations, seed
            )
    found.predictions[PRIOR] = prediction.prior_floor(task, rounds)


def fold_table(task: Task, protocol: str, rounds) -> pd.DataFrame:
    """Write the audit of the folds: who is tested where, and that nobody is on both sides."""
    rows = []
    for number, folds in enumerate(rounds, 1):
        for fold in folds:
            train, test = set(task.names[fold.train]), set(task.names[fold.test])
            rows.append(
                (number, fold.name, protocol, len(train), len(test), len(train & test), ", ".join(sorted(test)))
            )
    return pd.DataFrame(rows, columns=list(FOLD_COLUMNS))


def prediction_table(found: Evaluation) -> pd.DataFrame:
    """Return one row a patient and method: patient, cohort, response, method, score, probability."""
    columns = ["patient", "cohort", "response", "method", "score", "probability"]
    if found.task is None:
        return pd.DataFrame(columns=columns)
    parts = []
    for method, one in found.predictions.items():
        probability = np.full(len(one.score), np.nan) if one.probability is None else one.probability
        parts.append(
            pd.DataFrame(
                {
                    "patient": found.task.names, "cohort": found.task.cohorts, "response": found.task.positive,
                    "method": method, "score": one.score, "probability": probability,
                }
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)[columns]
