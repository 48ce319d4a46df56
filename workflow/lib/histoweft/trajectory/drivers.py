"""Genes that go with a fate, and how they change along it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from histoweft.io import CountsFile
from histoweft.normalise import normalise, row_sums
from histoweft.significance import SMALLEST, adjust

DRIVER_COLUMNS = ("fate", "gene", "correlation", "low", "high", "p", "q", "n")
TREND_COLUMNS = ("fate", "gene", "pseudotime", "mean", "low", "high")
GRID = 50
"""Points of pseudotime at which a trend is given."""

_KNOTS = 8
_DEGREE = 3
_SMOOTHING = 1.0
_NORMAL_95 = 1.959964


def driver_genes(counts: CountsFile, rows: np.ndarray, fates: pd.DataFrame, target_sum: float) -> pd.DataFrame:
    """Correlate every gene with every fate probability, in one pass over the counts.

    Parameters
    ----------
    counts
        Filtered counts of the sample.
    rows
        Rows of the cells that entered the trajectory.
    fates
        Those cells x fates; rows without a value are left out.
    target_sum
        Total that each barcode is scaled to before log1p.

    Returns
    -------
    `DRIVER_COLUMNS`, by fate and falling correlation: Pearson correlation of log-normalised expression with the fate
    probability, its 95 % interval and two-sided p by Fisher's transformation (Fisher 1921; CellRank's method
    ``fisher``), q (Benjamini and Hochberg, over all genes of all fates), n cells. The test takes cells as independent,
    which they are not: it ranks genes, and its p-values are too small. Genes found in none of the cells, and fates that
    are the same everywhere, are left out.
    """
    used = fates.notna().all(axis=1).to_numpy()
    place = np.full(counts.n_obs, -1)
    place[rows[used]] = np.arange(used.sum())
    centred = fates[used].to_numpy()
    centred = centred - centred.mean(axis=0)
    n = len(centred)
    products = np.zeros((counts.n_vars, centred.shape[1]))
    sums, squares = np.zeros(counts.n_vars), np.zeros(counts.n_vars)
    for where, chunk in counts.chunks():
        kept = place[where] >= 0
        if not kept.any():
            continue
        values = normalise(chunk[kept], target_sum).astype(np.float64)
        products += values.T @ centred[place[where][kept]]
        sums += np.asarray(values.sum(axis=0)).ravel()
        squares += np.asarray(values.multiply(values).sum(axis=0)).ravel()
    size = np.sqrt(np.outer(np.clip(squares - sums**2 / n, 0, None), (centred**2).sum(axis=0)))
    known = size > 1e-9
    correlation = np.clip(np.divide(products, size, out=np.full(size.shape, np.nan), where=known), -1, 1)
    return _with_intervals(correlation, n, counts.var_names, list(fates.columns))


def _with_intervals(correlation: np.ndarray, n: int, genes: pd.Index, names: list[str]) -> pd.DataFrame:
    from scipy.special import ndtr

    with np.errstate(divide="ignore"):
        z = np.arctanh(correlation)
    error = 1 / np.sqrt(max(n - 3, 1))
    # Not below the smallest number that has a logarithm; NaN stays.
    p = np.fmax(2 * ndtr(-np.abs(z) / error), np.where(np.isnan(z), np.nan, SMALLEST))
    table = pd.DataFrame(
        {
            "fate": np.repeat(names, len(genes)),
            "gene": np.tile(genes, len(names)),
            "correlation": correlation.T.ravel(),
            "low": np.tanh(z - _NORMAL_95 * error).T.ravel(),
            "high": np.tanh(z + _NORMAL_95 * error).T.ravel(),
            "p": p.T.ravel(),
        }
    )
    table["q"] = adjust(table["p"].to_numpy())
    table["n"] = n
    table = table.dropna(subset=["correlation"])
    order = table["fate"].map({name: number for number, name in enumerate(names)})
    ranked = table.assign(order=order).sort_values(["order", "correlation"], ascending=[True, False], kind="stable")
    return ranked.drop(columns="order").reset_index(drop=True)


def committing(time: np.ndarray, later_than: float) -> np.ndarray:
    """Say which cells lie later in pseudotime than a share of all; those without one do not."""
    known = np.isfinite(time)
    return known & (time > np.quantile(time[known], later_than)) if later_than > 0 else known


def top_genes(drivers: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the n genes of highest correlation of each fate."""
    return drivers.groupby("fate", sort=False).head(n)


def read_genes(counts: CountsFile, rows: np.ndarray, genes: list[str], target_sum: float) -> np.ndarray:
    """Read log-normalised values of some genes in some cells, cells x genes; genes the file lacks are NaN."""
    columns = counts.var_names.get_indexer(genes)
    there = columns >= 0
    found = np.full((counts.n_obs, len(genes)), np.nan, dtype=np.float32)
    for where, chunk in counts.chunks():
        found[where.start : where.stop, there] = normalise(
            chunk[:, columns[there]], target_sum, row_sums(chunk)
        ).toarray()
    return found[rows]


def knots_at(time: np.ndarray, n: int = _KNOTS) -> np.ndarray:
    """Return 0, 1 and knots between them such that each span holds about as many cells, repeated at the ends."""
    inner = np.unique(np.quantile(time, np.linspace(0, 1, n)[1:-1]).clip(1e-3, 1 - 1e-3))
    return np.concatenate([np.zeros(_DEGREE + 1), inner, np.ones(_DEGREE + 1)])


def basis(time: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return cubic B-splines on knots over 0 to 1 at some points, points x splines."""
    from scipy.interpolate import BSpline

    return BSpline.design_matrix(np.clip(time, 0, 1), knots, _DEGREE).toarray()


def gene_trends(
    time: np.ndarray, values: np.ndarray, weights: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth expression along pseudotime, cells weighted by how likely they take a fate.

    Parameters
    ----------
    time
        (cells,) 0 to 1.
    values
        cells x genes.
    weights
        (cells,).
    grid
        (points,) of pseudotime.

    Returns
    -------
    mean, error
        points x genes: the smooth and its standard error.

    Notes
    -----
    Penalised splines (Eilers and Marx 1996, Statistical Science 11:89): ridge on second differences of neighbouring
    coefficients, on knots at quantiles of pseudotime. Errors by the sandwich formula (White 1980, Econometrica 48:817).
    CellRank fits the same kind of model gene by gene through mgcv.
    """
    knots = knots_at(time)
    design = basis(time, knots)
    bend = np.diff(np.eye(design.shape[1]), n=2, axis=0)
    weighted = design * weights[:, None]
    inverse = np.linalg.inv(weighted.T @ design + _SMOOTHING * bend.T @ bend + 1e-6 * np.eye(design.shape[1]))
    coefficients = inverse @ (weighted.T @ values)
    residual = values - design @ coefficients
    # Each cell's own squared residual, so that noise may grow with expression.
    at = basis(grid, knots)
    half = (at @ inverse @ weighted.T) ** 2
    return at @ coefficients, np.sqrt(half @ residual**2)


def trend_table(time: np.ndarray, fates: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Smooth genes along every fate.

    Parameters
    ----------
    time
        (cells,) pseudotime.
    fates
        cells x fates.
    values
        cells x genes, log-normalised.

    Returns
    -------
    `TREND_COLUMNS`; low and high 95 %. The grid of a fate ends where its own cells end.
    """
    parts = []
    genes = list(values.columns)
    for fate in fates:
        weights = fates[fate].to_numpy()
        used = np.isfinite(time) & np.isfinite(weights)
        grid = np.linspace(0, _last_time(time[used], weights[used]), GRID)
        mean, error = gene_trends(time[used], values[used].to_numpy(np.float64), weights[used], grid)
        columns = {
            "fate": fate,
            "gene": np.repeat(genes, GRID),
            "pseudotime": np.tile(grid, len(genes)),
            # A smooth may dip below zero beside a steep rise; expression does not.
            "mean": mean.clip(0).T.ravel(),
            "low": (mean - _NORMAL_95 * error).clip(0).T.ravel(),
            "high": (mean + _NORMAL_95 * error).clip(0).T.ravel(),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True) if genes else pd.DataFrame(columns=list(TREND_COLUMNS))


def _last_time(time: np.ndarray, weights: np.ndarray) -> float:
    """Return the pseudotime by which all but one in a hundred of a fate's weight has passed."""
    order = np.argsort(time)
    passed = np.cumsum(weights[order]) / max(weights.sum(), np.finfo(float).tiny)
    return float(max(time[order][np.searchsorted(passed, 0.99).clip(max=len(time) - 1)], 1e-3))
