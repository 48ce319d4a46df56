"""Scores of trajectories against what is expected, and what they mean."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from histoweft.errors import Faults, nearest
from histoweft.metrics import area_under_curve, metric_row, percentile_interval
from histoweft.trajectory import stability
from histoweft.trajectory.fit import FATE
from histoweft.trajectory.floors import NEAREST, ORDERS

STAGE = TASK = "trajectory"
REPLICATES = 200
TOP_DRIVERS = 8


@dataclass(frozen=True)
class Found:
    """What was found in one sample.

    Attributes
    ----------
    fates
        `fit.fate_table`, the cells that entered.
    floors
        `floors.floor_table`.
    drivers, floor_drivers
        `drivers.driver_genes` of the fates and of those of the floor.
    states
        `terminal.terminal_states`.
    replicates
        `stability.replicates`.
    labels
        Group of each cell, "" where none.
    facts
        What the rule noted.
    """

    fates: pd.DataFrame
    floors: pd.DataFrame
    drivers: pd.DataFrame
    floor_drivers: pd.DataFrame
    states: pd.DataFrame
    replicates: pd.DataFrame
    labels: np.ndarray
    facts: dict[str, Any]

    @property
    def ends(self) -> pd.DataFrame:
        """Return the terminal states."""
        return self.states[self.states["terminal"]]


def check_expected(expected: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Check that what is expected speaks of groups that there are.

    Raises
    ------
    InputError
        A label is in no sample.
    """
    faults = Faults()
    present = sorted(set(labels) - {""})
    for part, names in (
        ("order", [name for step in expected["order"] for name in step.split("|")]),
        ("terminal", expected["terminal"]),
        ("drivers", list(expected["drivers"])),
    ):
        for name in names:
            if name not in present:
                found = f"one of trajectory.labels: {', '.join(present[:15]) or 'none'}"
                faults.add(f"config: trajectory.expected.{part}", repr(name), found, nearest(name, present))
    faults.raise_if_any()


def ranks(labels: np.ndarray, order: Sequence[str]) -> np.ndarray:
    """Return each cell's place in the expected order (``a|b`` for groups at one step), NaN for cells of others."""
    places = {name: float(place) for place, step in enumerate(order) for name in step.split("|")}
    return np.array([places.get(label, np.nan) for label in labels])


def order_scores(time: np.ndarray, place: np.ndarray, seed: int) -> dict[str, tuple[float, float, float]]:
    """Score an order of cells against the expected one.

    Parameters
    ----------
    time
        (cells,) late is large.
    place
        `ranks`.
    seed
        Of the bootstrap over cells.

    Returns
    -------
    order_spearman: rank correlation; order_auroc: mean over neighbouring steps of the chance that a cell of the later
    one comes later. Each with its 95 % interval.
    """
    used = np.isfinite(time) & np.isfinite(place)
    time, place = time[used], place[used]
    rng = np.random.default_rng(seed)
    draws = [rng.integers(0, len(time), len(time)) for _ in range(REPLICATES)]
    scores = {}
    for name, score in (("order_spearman", _spearman), ("order_auroc", _neighbours_auroc)):
        value = score(time, place)
        scores[name] = (value, *percentile_interval(value, np.array([score(time[d], place[d]) for d in draws])))
    return scores


def _spearman(time: np.ndarray, place: np.ndarray) -> float:
    from scipy.stats import rankdata

    a, b = rankdata(time), rankdata(place)
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")


def _neighbours_auroc(time: np.ndarray, place: np.ndarray) -> float:
    steps = np.unique(place)
    pairs = [np.isin(place, pair) for pair in itertools.pairwise(steps)]
    found = [area_under_curve(place[one] == place[one].max(), time[one]) for one in pairs]
    return float(np.mean(found)) if found else float("nan")


def fate_auroc(fates: pd.DataFrame, found: Found, expected: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Say how well fate probabilities tell each expected end from the others.

    Parameters
    ----------
    fates
        Of the cells, columns ``fate_<state>``.
    found
        The sample.
    expected
        Labels of ends.

    Returns
    -------
    For each end that was found: AUROC of its probability (summed over its states) between its own cells and those of
    the other ends, and how many; cells at a core, whose fates are given, are left out.
    """
    judged = np.isin(found.labels, list(expected)) & (found.fates["terminal"] == "").to_numpy()
    scores = {}
    for label in expected:
        names = found.ends.loc[found.ends["label"] == label, "state"]
        if len(names):
            value = fates[[f"{FATE}{name}" for name in names]].sum(axis=1, min_count=1).to_numpy()
            used = judged & np.isfinite(value)
            scores[label] = (area_under_curve(found.labels[used] == label, value[used]), int(used.sum()))
    return scores


def driver_percentiles(drivers: pd.DataFrame, ends: pd.DataFrame, known: Mapping[str, list[str]]) -> pd.DataFrame:
    """Say how near to the top known drivers stand.

    Returns
    -------
    One row a known gene of an end that was found: label, gene, rank (1 the highest correlation), percentile (1 at the
    top); NaN for a gene that was not measured. Of several states with one label the best counts.
    """
    rows = []
    for label, genes in known.items():
        states = ends.loc[ends["label"] == label, "state"]
        for gene in genes if len(states) else []:
            best = (np.nan, np.nan)
            for state in states:
                ranked = drivers.loc[drivers["fate"] == state, "gene"].to_numpy()
                at = np.flatnonzero(ranked == gene)
                if len(at) and not at[0] + 1 >= best[0]:
                    best = (int(at[0]) + 1, 1 - at[0] / len(ranked))
            rows.append((label, gene, *best))
    return pd.DataFrame(rows, columns=["label", "gene", "rank", "percentile"])


def sample_rows(
    study: str, sample: str, method: str, found: Found, expected: Mapping[str, Any], seed: int
) -> list[dict[str, Any]]:
    """Make the metrics of one sample.

    Parameters
    ----------
    study, sample, method
        Names; `method` is that of the kernels.
    found
        What was found.
    expected
        Option `trajectory.expected`; scores whose part is empty are left out.
    seed
        Of bootstraps.
    """

    def row(metric: str, value: float, who: str = method, **more: Any) -> dict[str, Any]:
        note = "default" if who == method else ""
        more["note"] = "; ".join(filter(None, (note, more.get("note", ""))))
        return metric_row(study, STAGE, TASK, who, sample, "truth", metric, value, **more)

    rows = [row("n_terminal", len(found.ends), n=len(found.fates))]
    rows += _order_rows(row, method, found, expected["order"], seed)
    rows += _end_rows(row, method, found, expected["terminal"])
    rows += _driver_rows(row, method, found, expected["drivers"])
    again = stability.summary(found.replicates)
    for kind, part in again.groupby("run", sort=False):
        runs = int(part["runs"].max())
        note = f"{kind}s" if kind == "seed" else f"{stability.SHARE:.0%} of the cells"
        rows.append(row("found_again", part["found"].mean(), n=runs, note=note))
        if part["correlation"].notna().any():
            rows.append(row("fate_agreement", part["correlation"].mean(), n=runs, note=note))
    return rows


def _order_rows(row, method: str, found: Found, order: Sequence[str], seed: int) -> list[dict[str, Any]]:
    place = ranks(found.labels, order)
    if len(np.unique(place[np.isfinite(place)])) < 2:
        return []
    orders = {method: found.fates["pseudotime"]} | {f"floor:{name}": found.floors[name] for name in ORDERS}
    rows = []
    for who, time in orders.items():
        scores = order_scores(time.to_numpy(dtype=float), place, seed)
        rows += [
            row(metric, value, who, low=low, high=high, n=int(np.isfinite(place).sum()))
            for metric, (value, low, high) in scores.items()
        ]
    return rows


def _end_rows(row, method: str, found: Found, expected: Sequence[str]) -> list[dict[str, Any]]:
    if not expected:
        return []
    ends = found.ends
    rows = [
        row("terminal_recall", float(np.mean([label in set(ends["label"]) for label in expected])), n=len(expected)),
        row("terminal_precision", float(ends["label"].isin(expected).mean()), n=len(ends)),
        row("terminal_purity", float(ends["purity"].mean()), n=len(ends)),
    ]
    for who, fates in ((method, found.fates), (f"floor:{NEAREST}", found.floors)):
        scores = fate_auroc(fates, found, expected)
        rows += [row("fate_auroc", value, who, n=n, panel=label) for label, (value, n) in scores.items()]
        if scores:
            rows.append(row("fate_auroc", float(np.nanmean([value for value, _ in scores.values()])), who))
    return rows


def _driver_rows(row, method: str, found: Found, known: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    rows = []
    for who, drivers in ((method, found.drivers), (f"floor:{NEAREST}", found.floor_drivers)):
        table = driver_percentiles(drivers, found.ends, known)
        for label, part in table.groupby("label", sort=False):
            said = [
                f"{one.gene} {'not measured' if np.isnan(one.rank) else int(one.rank)}" for one in part.itertuples()
            ]
            note = f"ranks: {', '.join(said)}"
            if part["percentile"].notna().any():
                rows.append(
                    row("driver_percentile", part["percentile"].mean(), who, n=len(part), panel=label, note=note)
                )
        if table["percentile"].notna().any():
            rows.append(row("driver_percentile", table["percentile"].mean(), who, n=len(table)))
    return rows


def terminal_table(samples: Mapping[str, Found]) -> pd.DataFrame:
    """Put the terminal states of all samples under one another, with their stability and first drivers."""
    rows = []
    for sample, found in samples.items():
        again = stability.summary(found.replicates).set_index(["run", "fate"])
        for end in found.ends.itertuples():
            times = again.loc[("subsample", end.state)] if ("subsample", end.state) in again.index else None
            first = found.drivers.loc[found.drivers["fate"] == end.state, "gene"].head(TOP_DRIVERS)
            rows.append(
                {
                    "sample": sample,
                    "state": end.state,
                    "label": end.label,
                    "purity": end.purity,
                    "cells": end.cells,
                    "pseudotime": end.pseudotime,
                    "retention": end.retention,
                    "stability": end.stability,
                    "mean_fate": float(found.fates[f"{FATE}{end.state}"].mean()),
                    "found_again": np.nan if times is None else times["found"],
                    "fate_agreement": np.nan if times is None else times["correlation"],
                    "drivers": ", ".join(first),
                }
            )
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------------------- verdict


def verdict(rows: pd.DataFrame, samples: Mapping[str, Found], method: str) -> dict[str, Any]:
    """Say in sentences what was found, beside the floors.

    Returns
    -------
    texts, warnings and default: the method, or the floor that orders cells better.
    """
    texts, warnings = [], []
    for sample, found in samples.items():
        texts.append(_found_text(sample, found))
        warnings += _warnings(sample, found)
    ordered, default = _order_verdict(rows, method)
    texts += ordered
    texts += _end_verdict(rows, method) + _driver_verdict(rows, method)
    if not ordered:
        warnings.append(
            "No order of groups was expected (trajectory.expected), so nothing checks the direction of pseudotime."
        )
    return {"texts": texts, "warnings": warnings, "default": default}


def _found_text(sample: str, found: Found) -> str:
    facts = found.facts
    names = ", ".join(found.ends["state"])
    text = (
        f"{sample}: {facts['cells']:,} cells, {len(found.states)} macrostates, {len(found.ends)} of them terminal "
        f"({names}), {facts['chosen']}; pseudotime starts {facts['root']}."
    )
    again = stability.summary(found.replicates)
    part = again[again["run"] == "subsample"]
    if len(part):
        low = part.sort_values("found").iloc[0]
        text += (
            f" From {stability.SHARE:.0%} of the cells ({int(part['runs'].max())} runs) each was found again in "
            f"{low['found']:.0%} of the runs or more"
        )
        agreement = part["correlation"].median()
        text += f", median correlation of fates {agreement:.2f}." if np.isfinite(agreement) else "."
    return text


def _warnings(sample: str, found: Found) -> list[str]:
    warnings = [f"{sample}: {note}." for note in found.facts.get("notes", [])]
    again = stability.summary(found.replicates)
    for one in again[(again["run"] == "subsample") & (again["found"] < 0.5)].itertuples():
        warnings.append(
            f"{sample}: the terminal state {one.fate} was found again in only {one.found:.0%} of the runs on "
            f"{stability.SHARE:.0%} of the cells: take it as a suggestion."
        )
    lost = int(found.fates["pseudotime"].isna().sum())
    if lost:
        warnings.append(f"{sample}: {lost:,} cells cannot be reached from the root and have no pseudotime.")
    aimless = int(found.fates["fate_entropy"].isna().sum())
    if aimless:
        warnings.append(f"{sample}: {aimless:,} cells reach no terminal state and have no fate.")
    if len(found.ends) == 1:
        warnings.append(f"{sample}: only one terminal state was found, so fates and their drivers say nothing.")
    return warnings


def _means(rows: pd.DataFrame, metric: str) -> pd.Series:
    part = rows[(rows["metric"] == metric) & (rows["panel"] == "")]
    return part.groupby("method", sort=False)["value"].mean()


def _order_verdict(rows: pd.DataFrame, method: str) -> tuple[list[str], str]:
    found = _means(rows, "order_spearman").dropna()
    if method not in found:
        return [], method
    others = found.drop(method)
    best = others.idxmax()
    part = rows[(rows["metric"] == "order_spearman") & (rows["method"] == method)]
    interval = f" ({part['low'].iloc[0]:.3f} to {part['high'].iloc[0]:.3f})" if len(part) == 1 else ""
    text = f"Pseudotime follows the expected order with a rank correlation of {found[method]:.3f}{interval}; "
    text += ", ".join(f"{name.removeprefix('floor:')} {value:.3f}" for name, value in others.items())
    loses = others[best] > found[method]
    text += f". It loses to its floor {best.removeprefix('floor:')}, which should order the cells." if loses else "."
    return [text], best if loses else method


def _end_verdict(rows: pd.DataFrame, method: str) -> list[str]:
    recall, precision = _means(rows, "terminal_recall"), _means(rows, "terminal_precision")
    if method not in recall:
        return []
    text = (
        f"Of the expected ends {recall[method]:.0%} are terminal states (purity of their cores "
        f"{_means(rows, 'terminal_purity')[method]:.2f}), and {precision[method]:.0%} of the terminal states were "
        "expected."
    )
    words = "Fate probabilities tell the cells of one end from those of others (AUROC {:.3f}), {}"
    return [text, *_against_floor(rows, method, "fate_auroc", words)]


def _driver_verdict(rows: pd.DataFrame, method: str) -> list[str]:
    words = "Known drivers stand at percentile {:.3f} of their fate's genes on average, {} where fates go by"
    return _against_floor(rows, method, "driver_percentile", words)


def _against_floor(rows: pd.DataFrame, method: str, metric: str, words: str) -> list[str]:
    """Compare a metric with that of the floor; `words` has places for the value and for better or worse."""
    found = _means(rows, metric)
    floor = f"floor:{NEAREST}"
    if method not in found or floor not in found:
        return []
    better = "higher than" if found[method] > found[floor] else "no higher than"
    return [
        f"{words.format(found[method], better)} distance to the terminal cells among principal components "
        f"({found[floor]:.3f})."
    ]
