"""How near estimated compositions come to known ones, as rows of the metrics table and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from histoweft.annotation.deconvolve import MEAN, METHODS, NNLS, POISSON
from histoweft.annotation.deconvolve_selftest import Missing, Trial
from histoweft.metrics import column_pearson, metric_row, percentile_interval

REPLICATES = 200
AUTO = "auto"
NAMES = {POISSON: POISSON, NNLS: f"floor:{NNLS}", MEAN: f"floor:{MEAN}"}
"""How methods are called in metrics tables."""

MIXED = "mixed reference cells"
"""What rows of trials are measured on."""

_GAIN = "rmse_gain"


def jensen_shannon(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon distance of each row (base 2: 0 for equal, 1 for disjoint compositions)."""
    middle = (truth + found) / 2

    def relative(p: np.ndarray) -> np.ndarray:
        ratio = np.divide(p, middle, out=np.ones_like(p), where=p > 0)
        return (p * np.log2(ratio)).sum(axis=1)

    return np.sqrt(np.clip((relative(truth) + relative(found)) / 2, 0, 1))


def scores(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Compare compositions.

    Parameters
    ----------
    truth, found
        spots x types; spots of which nothing was found (NaN) are left out.

    Returns
    -------
    ``r2``: one less the squared error over the squared distance to each type's mean, all types together. ``rmse``.
    ``pearson_spot``: over the types, mean of the spots. ``pearson_type``: over the spots, mean of the types that vary.
    ``jensen_shannon``: mean of the spots.
    """
    kept = np.isfinite(found).all(axis=1)
    truth, found = truth[kept], found[kept]
    squared = ((truth - found) ** 2).sum()
    around = ((truth - truth.mean(axis=0)) ** 2).sum()
    varies = truth.var(axis=0) > 0
    return {
        "r2": float(1 - squared / around) if around > 0 else math.nan,
        "rmse": float(np.sqrt(((truth - found) ** 2).mean())),
        "pearson_spot": float(column_pearson(truth.T, found.T).mean()),
        "pearson_type": float(column_pearson(truth, found)[varies].mean()) if varies.any() else math.nan,
        "jensen_shannon": float(jensen_shannon(truth, found).mean()),
    }


def with_intervals(
    truth: np.ndarray, found: Mapping[str, np.ndarray], seed: int
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Score methods on the same spots, with 95 % intervals from a bootstrap over spots.

    Parameters
    ----------
    truth
        spots x types.
    found
        Method to spots x types.
    seed
        Of the bootstrap.

    Returns
    -------
    Method to score to value, low, high. For other methods than `NNLS`, ``rmse_gain`` is how much smaller the error is
    than that of least squares, on the same bootstrap samples.
    """
    rng = np.random.default_rng(seed)
    draws = [np.arange(len(truth)), *(rng.integers(0, len(truth), len(truth)) for _ in range(REPLICATES))]
    values = {
        name: pd.DataFrame([scores(truth[rows], estimate[rows]) for rows in draws]) for name, estimate in found.items()
    }
    for name, table in values.items():
        if NNLS in values and name != NNLS:
            table[_GAIN] = values[NNLS]["rmse"] - table["rmse"]
    return {name: {score: _interval(table[score].to_numpy()) for score in table} for name, table in values.items()}


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    if not np.isfinite(values).all():
        return float(values[0]), math.nan, math.nan
    value = float(values[0])
    return value, *percentile_interval(value, values[1:])


def choose(wanted: str, trial: Trial) -> str:
    """Return the method to use: the one wanted; for `AUTO`, the model unless least squares errs no more than it."""
    if wanted != AUTO:
        return wanted
    errors = {name: scores(trial.truth, trial.found[name].values)["rmse"] for name in (POISSON, NNLS)}
    return POISSON if errors[POISSON] < errors[NNLS] else NNLS


def trial_rows(
    trial: Trial, study: str, sample: str, method: str, coverage: float, types: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Make the rows of one sample's trial.

    Parameters
    ----------
    trial
        See `deconvolve_selftest.run_trial`.
    study, sample
        Names.
    method
        That the sample's spots were deconvolved with.
    coverage
        Share of this method's 95 % intervals that hold the truth, on mixed spots they were not scaled on.
    types
        Names of all types of the reference.
    seed
        Of the bootstrap.
    """
    n, k = trial.truth.shape
    panel = f"{k} types"
    note = f"{MIXED}; {trial.note}"

    def row(name: str, metric: str, value: float, low: float = math.nan, high: float = math.nan, **more) -> dict:
        said = f"default; {note}" if name == method and name in NAMES else note
        settings = {"n": n, "panel": panel, "note": said} | more
        return metric_row(
            study, "annotation", "deconvolution", NAMES.get(name, name), sample, "truth", metric, value,
            low=low, high=high, **settings,
        )  # fmt: skip

    found = with_intervals(trial.truth, {name: result.values for name, result in trial.found.items()}, seed)
    rows = [row(name, score, *value) for name, table in found.items() for score, value in table.items()]
    rows += [row(name, "seconds", trial.seconds[name]) for name in METHODS]
    rows.append(row(method, "coverage", coverage, n=n * k))
    for one in trial.missing:
        about = {"n": one.n, "panel": f"without {types[one.left_out]}"}
        rows.append(row("misfit", "unknown_auroc", one.auroc, **about))
        rows.append(row("misfit", "unknown_found", one.found, **about))
        rows.append(row("misfit", "unknown_false", one.falsely, **about))
    if trial.missing:
        about = {"n": sum(one.n for one in trial.missing), "panel": f"mean of {len(trial.missing)} types left out"}
        for metric, name in (("unknown_auroc", "auroc"), ("unknown_found", "found"), ("unknown_false", "falsely")):
            rows.append(row("misfit", metric, _mean(trial.missing, name), **about))
    return rows


def _mean(missing: Sequence[Missing], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in missing]))
