"""Rows of the metrics table as both pages show them: floors first, each model beside the best floor."""

from __future__ import annotations

import math
import os
from typing import Any

import pandas as pd

from histoweft.metrics import read_metrics
from histoweft.report.html import NOTHING, Html, joined, number, plain, table

SMALLER_IS_BETTER = {"mse", "rmse", "ece", "seconds", "peak_mb", "euclid_voxels"}

LONG_NOTE = 64
"""Characters above which a note is put below the table."""

_GROUP = ["task", "sample", "protocol", "fold", "metric"]


def read_scores(path: str | os.PathLike) -> pd.DataFrame:
    """Read a metrics table; text stays text, all numbers (``n`` too) are floats, NaN where a cell is empty."""
    return read_metrics(path).astype({"n": float})


def is_floor(method: str) -> bool:
    """Return whether a method is a baseline."""
    return method.startswith("floor:")


def against_floor(value: float, floors: list[float], metric: str) -> tuple[float, str] | None:
    """Compare a score with the best floor.

    Returns
    -------
    Difference to the best floor, and ``better``, ``worse`` or ``equal``; None where there is no floor.
    """
    floors = [floor for floor in floors if not math.isnan(floor)]
    if not floors or math.isnan(value):
        return None
    smaller = metric in SMALLER_IS_BETTER
    difference = value - (min(floors) if smaller else max(floors))
    if abs(difference) < 5e-4 * max(abs(value), 1e-9):
        return difference, "equal"
    return difference, "better" if (difference < 0) == smaller else "worse"


def evidence(frame: pd.DataFrame, tall: bool = False) -> Html:
    """Return the table of all scores.

    Parameters
    ----------
    frame
        Rows of the metrics table.
    tall
        In a box that scrolls.
    """
    rows, kinds, notes = [], [], {}
    for _, group in frame.groupby(_GROUP, sort=False):
        floors = group.loc[group["method"].map(is_floor)]
        models = group.loc[~group["method"].map(is_floor)]
        ordered = pd.concat([floors, models]).to_dict("records")
        for at, row in enumerate(ordered):
            rows.append(_row(row, floors["value"].tolist(), notes))
            kinds.append(
                " ".join(filter(None, ["group" if at == 0 else "", "floor" if is_floor(row["method"]) else ""]))
            )
    columns = ["Task", "Sample", "Protocol", "Metric", "Method", "Value", "95 % interval", "Beside the best floor", "n"]
    columns += ["Note"]
    said = [at for at in range(len(columns)) if any(row[at] not in (None, "", NOTHING) for row in rows)]
    shown = [[row[at] for at in said] for row in rows]
    made = table([columns[at] for at in said], shown, row_kinds=kinds, tall=tall, empty="Nothing was scored.")
    return joined([made, _notes(notes)]) if notes else made


def _notes(notes: dict[str, int]) -> Html:
    items = joined(Html("<li>{}</li>").format(f"{text[:1].upper()}{text[1:]}") for text in notes)
    return Html('<ol class="caption notes">{}</ol>').format(items)


def _note(row: dict[str, Any], notes: dict[str, int]) -> Html | str:
    """Return what stands in the last column: a long text that many rows share becomes a number, explained below."""
    parts = [part for part in row["note"].split("; ") if part]
    default = Html('<span class="tag">default</span> ') if "default" in parts else ""
    text = "; ".join(part for part in parts if part != "default")
    text = "; ".join(filter(None, [text, row["panel"] and f"panel: {row['panel']}"]))
    if len(text) > LONG_NOTE:
        text = f"note {notes.setdefault(text, len(notes) + 1)}"
    return joined([default, text]) if default else text


def _row(row: dict[str, Any], floors: list[float], notes: dict[str, int]) -> list[Any]:
    method = Html("{}").format(row["method"])
    if is_floor(row["method"]):
        method = joined([row["method"].removeprefix("floor:"), Html(' <span class="tag">floor</span>')])
        beside: Any = NOTHING
    else:
        found = against_floor(row["value"], floors, row["metric"])
        beside = "no floor" if found is None else _words(*found)
    interval = NOTHING if math.isnan(row["low"]) else f"{number(row['low'])} to {number(row['high'])}"
    fold = "" if row["fold"] in ("", "all") else f", fold {row['fold']}"
    return [
        row["task"].replace("_", " "),
        row["sample"],
        f"{row['protocol']}{fold}",
        row["metric"],
        method,
        row["value"],
        interval,
        beside,
        None if math.isnan(row["n"]) else int(row["n"]),
        _note(row, notes),
    ]


def _words(difference: float, verdict: str) -> str:
    if verdict == "equal":
        return "the same"
    sign = "+" if difference > 0 else "−"
    return f"{sign}{plain(float(f'{abs(difference):.3g}'))}, {verdict}"
