"""What each fit says of held-out reference cells: the file that calibration, scores and the choice of model read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from histoweft import io
from histoweft.annotation.evaluate import OutOfFold
from histoweft.annotation.folds import Plan
from histoweft.annotation.reference import Reference
from histoweft.splits import Fold

_ARRAYS = ("barcodes", "codes", "logits", "distance", "part")


@dataclass(frozen=True)
class HeldOut:
    """Held-out cells of the reference, as one model sees them.

    Attributes
    ----------
    method
        The model.
    types
        Names, in the order of the logits.
    barcodes, codes
        The cells and their types.
    logits, distance
        By models that were not trained on them.
    part
        Fold of each cell.
    batches
        Batch of each cell, where batches were held out; None else.
    protocol, note
        See `folds.Plan`.
    facts
        ``seconds`` (of the whole fit), ``seconds_per_fold``, ``peak_mb``, ``genes`` (shared), ``recovered`` (see
        `explain.explain`), ``notes`` on the reference.
    left_out
        See `evaluate.leave_types_out`; empty where another fit did it.
    """

    method: str
    types: list[str]
    barcodes: np.ndarray
    codes: np.ndarray
    logits: np.ndarray
    distance: np.ndarray
    part: np.ndarray
    batches: np.ndarray | None
    protocol: str
    note: str
    facts: dict[str, Any] = field(default_factory=dict)
    left_out: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def folds(self) -> list[Fold]:
        """The folds, by their number."""
        rows = np.arange(len(self.codes))
        parts = np.unique(self.part)
        return [Fold(f"fold_{i}", rows[self.part != i], rows[self.part == i]) for i in parts]


def collect(
    reference: Reference, plan: Plan, method: str, found: OutOfFold, facts: dict[str, Any], left_out: pd.DataFrame
) -> HeldOut:
    """Put together what one fit has found."""
    part = np.zeros(len(reference), dtype=np.int32)
    for number, fold in enumerate(plan.folds):
        part[fold.test] = number
    batches = reference.groups.astype(str) if plan.protocol == "patient" else None
    return HeldOut(
        method, reference.types, reference.barcodes.astype(str), reference.codes, found.logits, found.distance, part,
        batches, plan.protocol, plan.note, facts, left_out,
    )  # fmt: skip


def write(held_out: HeldOut, path: str | os.PathLike) -> None:
    """Write as one npz file, without pickle."""
    arrays = {name: getattr(held_out, name) for name in _ARRAYS}
    if held_out.batches is not None:
        arrays["batches"] = held_out.batches
    plain = {name: getattr(held_out, name) for name in ("method", "types", "protocol", "note", "facts")}
    plain["left_out"] = held_out.left_out.to_dict(orient="list")
    arrays["plain"] = np.array(json.dumps(plain))
    with io.atomic(path) as partial, open(partial, "wb") as handle:
        np.savez(handle, **arrays)


def read(path: str | os.PathLike) -> HeldOut:
    """Read what `write` wrote.

    Raises
    ------
    InputError
        The file is no such thing.
    """
    with io.archive(path, "held-out cells of the annotation stage") as stored:
        values = {name: stored[name] for name in stored.files}
        plain = json.loads(str(values.pop("plain")))
        plain["left_out"] = pd.DataFrame(plain["left_out"])
        return HeldOut(**{"batches": None, **values, **plain})
