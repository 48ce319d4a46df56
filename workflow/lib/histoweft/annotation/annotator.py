"""The finished model of a study: fitted on the whole reference, calibrated on what was held out; and its use."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from histoweft import io
from histoweft.annotation import calibrate, models
from histoweft.annotation.evaluate import Fitted, peak_memory
from histoweft.annotation.genes import ExpressionOnDisk
from histoweft.annotation.reference import Cells
from histoweft.annotation.space import Distance, Space
from histoweft.io import CountsFile

UNKNOWN = "unknown"
QUARTILE = 0.25
"""Quantile of a sample's distances by which it is laid onto the reference."""

MIXED_PLATFORMS = ("visium", "st")
"""Platforms whose spots hold several cells."""

_FORMAT = "histoweft annotator 1"


@dataclass(frozen=True)
class Calibration:
    """What held-out reference cells taught.

    Attributes
    ----------
    temperature
        Of the softmax.
    thresholds
        Probability from which a type joins the set, (types,).
    unknown_above
        Distance above which a cell is unknown.
    quartile
        `QUARTILE` of the held-out cells' distances.
    unknown_distance
        Median distance of cells of types that were left out; NaN where none could be.
    """

    temperature: float
    thresholds: np.ndarray
    unknown_above: float
    quartile: float
    unknown_distance: float


def calibrate_on(
    logits: np.ndarray,
    codes: np.ndarray,
    distance: np.ndarray,
    alpha: float,
    unknown_rate: float,
    unknown_distance: float,
) -> Calibration:
    """Calibrate on held-out cells.

    Parameters
    ----------
    logits, codes, distance
        cells x types, (cells,), (cells,): of cells that the models were not trained on.
    alpha
        See `calibrate.set_thresholds`.
    unknown_rate
        Share of known cells that may be flagged as unknown.
    unknown_distance
        See `Calibration`.
    """
    temperature = calibrate.fit_temperature(logits, codes)
    thresholds = calibrate.set_thresholds(calibrate.softmax(logits, temperature), codes, alpha)
    above, quartile = np.quantile(distance, [1 - unknown_rate, QUARTILE])
    return Calibration(temperature, thresholds, float(above), float(quartile), unknown_distance)


@dataclass(frozen=True)
class Annotator:
    """A fitted model with its calibration.

    Attributes
    ----------
    name
        Of the model.
    types
        Names, in the order of the logits.
    genes
        Names of the shared genes.
    columns
        Sample to the column of each shared gene in its counts, (genes,).
    fitted, calibration
        See there.
    """

    name: str
    types: list[str]
    genes: np.ndarray
    columns: dict[str, np.ndarray]
    fitted: Fitted
    calibration: Calibration


def save(annotator: Annotator, path: str | os.PathLike) -> None:
    """Write an annotator as one npz file, without pickle."""
    fitted, calibration = annotator.fitted, annotator.calibration
    parts = {
        "space": vars(fitted.space),
        "distance": vars(fitted.distance),
        "model": fitted.model.state(),
        "calibration": vars(calibration),
        "columns": annotator.columns,
        "about": {"genes": annotator.genes.astype(str), "types": annotator.types, "name": annotator.name},
    }
    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, Any] = {"format": _FORMAT}
    for part, values in parts.items():
        for key, value in values.items():
            if isinstance(value, np.ndarray):
                arrays[f"{part}/{key}"] = value
            else:
                plain[f"{part}/{key}"] = value
    arrays["plain"] = np.array(json.dumps(plain))
    with io.atomic(path) as partial, open(partial, "wb") as handle:
        np.savez(handle, **arrays)


def load(path: str | os.PathLike) -> Annotator:
    """Read what `save` wrote.

    Raises
    ------
    InputError
        The file is no such model.
    """
    with io.archive(path, "a model of the annotation stage") as stored:
        values = {name: stored[name] for name in stored.files}
        values |= json.loads(str(values.pop("plain")))
        if values.get("format") != _FORMAT:
            raise ValueError(f"format {values.get('format')!r}")

    def part(name: str) -> dict[str, Any]:
        return {key.split("/", 1)[1]: value for key, value in values.items() if key.startswith(f"{name}/")}

    about = part("about")
    model = models.restore(about["name"], part("model"))
    fitted = Fitted(Space(**part("space")), Distance(**part("distance")), model)
    calibration = Calibration(**part("calibration"))
    return Annotator(about["name"], about["types"], about["genes"], part("columns"), fitted, calibration)


@dataclass(frozen=True)
class Annotated:
    """What was found in one sample.

    Attributes
    ----------
    table
        Index: barcodes; see `annotate`.
    facts
        Numbers about the sample and the run: cells, unknown, shift, seconds, peak_mb, ...
    warnings
        Sentences.
    """

    table: pd.DataFrame
    facts: dict[str, Any]
    warnings: list[str]


def annotate(
    annotators: Sequence[Annotator],
    path: str | os.PathLike,
    sample: str,
    embedding: np.ndarray | None = None,
) -> list[Annotated]:
    """Annotate the cells of one sample with several models.

    Parameters
    ----------
    annotators
        Models of the same reference and genes.
    path
        Counts of the sample, read in blocks.
    sample
        Its name.
    embedding
        cells x dimensions, where an embedding takes the place of the components.

    Returns
    -------
    One for each model, in their order. Columns of its table:

    label
        The type, or `UNKNOWN`.
    best
        The type before that refusal.
    probability
        Calibrated, of `best`.
    set, set_size
        Types of the conformal set joined by ``;``, and their number.
    unknown_score, unknown
        Distance to the nearest type, laid onto the reference's scale, and whether it is above the threshold.
    p:<type>
        Probability of each type.
    """
    with CountsFile(path) as counts:
        expression = ExpressionOnDisk(counts, annotators[0].columns[sample])
        xy = counts.obsm("spatial")[:, :2] if "spatial" in counts.obsm_names() else None
        barcodes = counts.obs_names
        platform = counts.uns.get("histoweft", {}).get("platform", "")
        found = []
        for annotator in annotators:
            start = time.perf_counter()
            scores, empty = _project(annotator.fitted.space, expression, embedding)
            logits = annotator.fitted.model.logits(Cells(scores, expression, xy))
            distance = annotator.fitted.distance(scores)
            result = _describe(annotator, logits, distance, empty, barcodes, sample)
            if platform in MIXED_PLATFORMS:
                result.warnings.append(
                    f"{sample}: a spot holds several cells. A spot of mixed types lies far from every single one and "
                    "is refused; its proportions of types are the answer."
                )
            result.facts.update(seconds=time.perf_counter() - start, peak_mb=peak_memory())
            found.append(result)
    return found


def _project(space: Space, expression: ExpressionOnDisk, embedding: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of all cells, and which cells have none of the shared genes."""
    n = len(expression)
    empty = np.zeros(n, dtype=bool)
    scores = np.zeros((n, space.axes.shape[1]), dtype=np.float32) if embedding is None else space.project(embedding)
    for rows, block in expression.blocks():
        empty[rows] = np.diff(block.indptr) == 0
        if embedding is None:
            scores[rows] = space.project(block)
    return scores, empty


def _describe(
    annotator: Annotator, logits: np.ndarray, distance: np.ndarray, empty: np.ndarray, barcodes: pd.Index, sample: str
) -> Annotated:
    calibration, types = annotator.calibration, np.array(annotator.types)
    shift, warnings = sample_shift(distance[~empty], calibration, sample)
    doubt = calibrate.apply(logits, calibration.temperature, calibration.thresholds)
    score = distance - shift
    unknown = (score > calibration.unknown_above) | empty
    best = doubt.probability.argmax(axis=1)
    table = pd.DataFrame(
        {
            "label": pd.Categorical(np.where(unknown, UNKNOWN, types[best]), [*types, UNKNOWN]),
            "best": pd.Categorical.from_codes(best, types),
            "probability": doubt.probability.max(axis=1),
            "set": join_sets(doubt.sets, annotator.types),
            "set_size": doubt.sets.sum(axis=1).astype(np.int16),
            "unknown_score": score.astype(np.float32),
            "unknown": unknown,
        },
        index=barcodes,
    )
    each = pd.DataFrame(doubt.probability, index=barcodes, columns=[f"p:{name}" for name in types])
    if empty.any():
        warnings.append(f"{sample}: {int(empty.sum())} cells have no count in a shared gene: unknown")
    facts = {
        "sample": sample, "model": annotator.name, "cells": len(table), "unknown": int(unknown.sum()),
        "unknown_share": float(unknown.mean()), "shift": shift, "unknown_above": calibration.unknown_above,
        "genes": len(annotator.genes), "median_probability": float(table["probability"].median()),
    }  # fmt: skip
    return Annotated(pd.concat([table, each], axis=1), facts, warnings)


COMPARED = ("best", "probability", "set", "set_size", "unknown_score", "unknown")
"""Columns that are kept of every model."""


def beside_one_another(found: Mapping[str, Annotated]) -> pd.DataFrame:
    """Put what several models say of the same cells into one table; columns ``<model>:<column>`` of `COMPARED`."""
    return pd.concat([one.table[list(COMPARED)].add_prefix(f"{name}:") for name, one in found.items()], axis=1)


def apart(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Undo `beside_one_another`."""
    names = dict.fromkeys(column.split(":", 1)[0] for column in table)
    return {
        name: table.filter(regex=f"^{name}:").rename(columns=lambda column: column.split(":", 1)[1]) for name in names
    }


def sample_shift(distance: np.ndarray, calibration: Calibration, sample: str = "") -> tuple[float, list[str]]:
    """Say how much farther from all types a sample lies as a whole than the reference's own held-out cells.

    Parameters
    ----------
    distance
        Of the sample's cells.
    calibration
        Of the reference.
    sample
        Its name, for the warning.

    Returns
    -------
    shift
        Difference of the lower quartiles, 0 or more; it is taken off each cell's distance.
    warnings
        One where so large a shift could as well mean that most cells are of no reference type.

    Notes
    -----
    Another technology, donor or depth adds to the distance of every cell, known or not, and without a correction many
    known cells are flagged (cell lines on other plates or by another technology: 25 % to 91 % instead of 5 %). The
    lower quartile belongs to known cells as long as they are more than a quarter of the sample, so unknown cells do
    not hide themselves; the median would let them do so from a half on. A difference, not a ratio: dividing also
    shrinks the gap between known and unknown (two unknown cell lines: 23 % to 100 % flagged, against 86 % to 100 %).
    Removing the mean shift of components instead made unknown cells harder to tell (AUROC .96 to .98 against .96 to
    .997). The rule was chosen among these on the same cell lines: other data may do worse.
    """
    if len(distance) == 0:
        return 0.0, []
    shift = max(float(np.quantile(distance, QUARTILE)) - calibration.quartile, 0.0)
    half_way = (calibration.unknown_distance - calibration.quartile) / 2
    if np.isfinite(half_way) and shift > half_way:
        return shift, [
            f"{sample}: even the nearest quarter of its cells lies {shift:.1f} farther from all types than held-out "
            f"reference cells do, more than half as far as types that were left out ({2 * half_way:.1f}). Either the "
            "technology differs much, or most cells are of types that the reference lacks; the flag for unknown cells "
            "cannot tell these apart and holds for the rest of the sample only."
        ]
    return shift, []


def join_sets(sets: np.ndarray, types: Sequence[str]) -> np.ndarray:
    """Write each row's types in words, joined by ``;``; cells x types to (cells,)."""
    # Few of the possible sets occur: each is written once.
    kinds, which = np.unique(np.packbits(sets, axis=1), axis=0, return_inverse=True)
    members = np.unpackbits(kinds, axis=1, count=len(types)).astype(bool)
    return np.array([";".join(np.array(types)[row]) for row in members], dtype=object)[which.ravel()]
