"""Does the same trajectory come out again: other seeds, and other cells of the same sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from histoweft.errors import HistoweftError
from histoweft.trajectory.cells import Cells
from histoweft.trajectory.fit import Fit, fit

SHARE = 0.8
COLUMNS = ("run", "seed", "cells", "fate", "found", "correlation", "pseudotime_correlation", "n_terminal", "note")


def replicates(cells: Cells, reference: Fit, options: Mapping[str, Any], seed: int) -> pd.DataFrame:
    """Find the trajectory again with other seeds, and from random parts of the cells.

    Parameters
    ----------
    cells, reference
        The cells and what was found among all of them.
    options
        The config's section `trajectory`; `stability` says how often: ``seeds`` and ``bootstraps`` (`SHARE` of the
        cells without replacement: with it, copies of a cell would be each other's neighbours).
    seed
        The first.

    Returns
    -------
    `COLUMNS`: one row a run and terminal state of the reference: whether a terminal state of the run matches it, the
    Pearson correlation of their fate probabilities over the cells both have, the Spearman correlation of pseudotimes,
    the run's number of terminal states, and why a run failed.
    """
    wanted = options["stability"]
    runs = [("seed", seed + 1 + number) for number in range(wanted["seeds"])]
    runs += [("subsample", seed + 1 + number) for number in range(wanted["bootstraps"])]
    parts = []
    for kind, number in runs:
        rng = np.random.default_rng(number)
        size = max(int(SHARE * len(cells)), 1)
        chosen = np.arange(len(cells)) if kind == "seed" else np.sort(rng.permutation(len(cells))[:size])
        try:
            again = fit(cells.take(chosen), options, number)
            rows = compare(reference, again, chosen)
        except HistoweftError as error:
            rows = [{"fate": name, "found": False, "note": str(error)} for name in reference.names]
        parts += [{"run": kind, "seed": number, "cells": len(chosen), **row} for row in rows]
    return pd.DataFrame(parts, columns=list(COLUMNS))


def compare(reference: Fit, again: Fit, chosen: np.ndarray) -> list[dict[str, Any]]:
    """Match the terminal states of a run to those of the reference.

    Parameters
    ----------
    reference, again
        What was found among all cells, and among some.
    chosen
        Which cells `again` saw.

    Returns
    -------
    One row a terminal state of the reference. A run's state belongs to the reference's state that its core cells are
    most likely to end in; of several, the one whose fate probabilities agree best is taken.
    """
    from scipy.stats import spearmanr

    ours = reference.fates.probabilities[chosen]
    theirs = again.fates.probabilities
    belongs = [int(np.nan_to_num(np.nanmean(ours[core], axis=0), nan=-1).argmax()) for core in again.ends]
    both = np.isfinite(ours).all(axis=1) & np.isfinite(theirs).all(axis=1)
    timed = np.isfinite(reference.pseudotime[chosen]) & np.isfinite(again.pseudotime)
    order = spearmanr(reference.pseudotime[chosen][timed], again.pseudotime[timed]).statistic
    rows = []
    for number, name in enumerate(reference.names):
        matches = [k for k, state in enumerate(belongs) if state == number]
        agreement = [_correlation(ours[both, number], theirs[both, k]) for k in matches]
        rows.append(
            {
                "fate": name,
                "found": bool(matches),
                "correlation": max(agreement) if matches else np.nan,
                "pseudotime_correlation": float(order),
                "n_terminal": len(again.names),
                "note": "",
            }
        )
    return rows


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 3 or a.std() < 1e-12 or b.std() < 1e-12:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return, by kind of run and fate, how often it was found again, and the median agreement."""
    grouped = table.groupby(["run", "fate"], sort=False)
    return grouped.agg(
        runs=("found", "size"),
        found=("found", "mean"),
        correlation=("correlation", "median"),
        pseudotime_correlation=("pseudotime_correlation", "median"),
    ).reset_index()
