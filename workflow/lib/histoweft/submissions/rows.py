"""What all submissions' rows of the metrics table have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from histoweft.metrics import SUBMISSION, metric_row
from histoweft.submissions.interface import Cost


def marked(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows whose notes say first that the method is a submission."""
    return [row | {"note": "; ".join(filter(None, [SUBMISSION, row["note"]]))} for row in rows]


def cost_rows(cost: Cost, calls: str, **about: Any) -> list[dict[str, Any]]:
    """Return time and memory.

    They bear the task of the stage, as those of our own methods do, so that they stand in one table.

    Parameters
    ----------
    cost
        Of all calls.
    calls
        What one call was for: ``fold``, ``sample``, ``seed``.
    about
        study, stage, task, method, sample, protocol; n and panel where known.
    """
    said = f"{cost.calls} {calls}{'s' if cost.calls != 1 else ''} in all"
    values = {"seconds": cost.seconds, "peak_mb": cost.peak_mb}
    return [metric_row(**about, metric=metric, value=value, note=said) for metric, value in values.items()]
