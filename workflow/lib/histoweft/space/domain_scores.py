"""How well domains agree with expert labels, beside the floors; and what to say about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from histoweft.metrics import adjusted_rand_index, metric_row, percentile_interval
from histoweft.space import semi
from histoweft.space.domains import (
    DEFAULT,
    FLOORS,
    blind_scores,
    consensus,
    fit_partitions,
    leiden_floor,
    neighbours_of,
    smoothed_pca_floor,
)
from histoweft.space.views import Tissue, View, default_views, iterate_views

SPREAD = "spread"
SEMI_FLOORS = ("coordinates_knn", "logistic")
LARGE = 20_000
"""Above this many points a section's labels are hidden once instead of `DRAWS` times."""

DRAWS = 5
_MOSTLY = 0.5
_REGIONS = 0.6
_ADJACENT = 6
_TIE = 0.005


def method_name(method: str) -> str:
    """Name a method as the metrics table does."""
    return f"floor:{method}" if method in (*FLOORS, *SEMI_FLOORS) else method


def expert_labels(
    observed: Mapping[str, pd.DataFrame], near: Sequence[np.ndarray]
) -> tuple[dict[str, pd.Series], list[str]]:
    """Return the expert labels that domains can be scored against: those that name regions of most of a section.

    Parameters
    ----------
    observed
        Sample to its table of observations; the labels are its column ``label``, where it has one.
    near
        Nearest others of the points of each section.

    Returns
    -------
    labels
        By sample.
    notes
        Why other labels are not scored against.
    """
    found, notes = {}, []
    for (sample, table), close in zip(observed.items(), near, strict=True):
        labels = table["label"] if "label" in table else pd.Series(dtype=object)
        if labels.nunique() < 2:
            continue
        shared = shared_with_neighbours(labels, close)
        if labels.notna().mean() < _MOSTLY:
            notes.append(f"{sample}: {labels.notna().mean():.0%} of the points have a label: domains are not scored")
        elif shared < _REGIONS:
            notes.append(
                f"{sample}: labels look like cell types, not regions (a point's nearest points share its label in "
                f"{shared:.0%}): domains are not scored against them"
            )
        else:
            found[sample] = labels
    return found, notes


def shared_with_neighbours(labels: pd.Series, near: np.ndarray) -> float:
    """Return how often a labelled point's six nearest labelled points have its label."""
    codes = pd.Categorical(labels).codes
    around = codes[near[:, :_ADJACENT]]
    known = (codes[:, None] >= 0) & (around >= 0)
    return float((around == codes[:, None])[known].mean()) if known.any() else 0.0


# ----------------------------------------------------------------------------------------------------- domains


def partitions_by_seed(tissue: Tissue, n: int, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Find domains by every method, once for each seed.

    Returns
    -------
    Method (`consensus` and the floors) to (seeds, points) numbers.
    """
    sizes, around = list(tissue.sizes), neighbours_of(tissue)
    views = list(iterate_views(tissue, default_views(len(tissue.genes))))
    blind = blind_scores(tissue)
    found: dict[str, list[np.ndarray]] = {name: [] for name in (DEFAULT, *FLOORS)}
    for seed in seeds:
        found[DEFAULT].append(consensus(fit_partitions(views, n, seed, sizes), n, around, sizes).labels)
        found["leiden"].append(leiden_floor(blind, n, seed))
        found["smoothed_pca"].append(smoothed_pca_floor(tissue, blind, n, seed))
    return {name: np.array(runs) for name, runs in found.items()}


def domain_rows(
    tissue: Tissue, runs: Mapping[str, np.ndarray], truth: Mapping[str, pd.Series], study: str, method: str, n: int
) -> list[dict]:
    """Score partitions against expert labels.

    Parameters
    ----------
    tissue
        All sections.
    runs
        As of `partitions_by_seed`.
    truth
        Sample to its expert labels, in the order of the section's barcodes; sections without labels are left out.
    study, method
        For the rows; `method` is the one that the config selects.
    n
        Domains asked for.

    Returns
    -------
    Rows of the metrics table: adjusted Rand index, mean over seeds, with the interval of two standard deviations over
    seeds; by section, and their mean where there are several.
    """
    spans = dict(zip(tissue.samples, tissue.spans))
    return partition_rows(spans, runs, truth, study, method, n, f"spatially variable genes ({len(tissue.genes)})")


def partition_rows(
    spans: Mapping[str, slice],
    runs: Mapping[str, np.ndarray],
    truth: Mapping[str, pd.Series],
    study: str,
    method: str,
    n: int,
    panel: str,
) -> list[dict]:
    """Score partitions of points, whatever they were made from; see `domain_rows`.

    Parameters
    ----------
    spans
        Sample to its rows in a partition.
    runs, truth, study, method, n
        See `domain_rows`.
    panel
        Genes that the partitions were made from.
    """
    rows = []
    for name, partitions in runs.items():
        scores = {
            sample: np.array([adjusted_rand_index(run[spans[sample]], labels) for run in partitions])
            for sample, labels in truth.items()
        }
        counts = {sample: int(labels.notna().sum()) for sample, labels in truth.items()}
        if len(scores) > 1:
            scores["all"] = np.mean(list(scores.values()), axis=0)
            counts["all"] = sum(counts.values())
        for sample, values in scores.items():
            spread = values.std(ddof=1) if len(values) > 1 else np.nan
            notes = [f"{n} domains", f"{len(values)} seeds, SD {spread:.3f}" if len(values) > 1 else "1 seed"]
            notes = ["default", *notes] if name == method else notes
            rows.append(
                metric_row(
                    study, "space", "domains", method_name(name), sample, "truth", "ari", values.mean(),
                    low=values.mean() - 2 * spread, high=values.mean() + 2 * spread, n=counts[sample], panel=panel,
                    note="; ".join(notes),
                )
            )  # fmt: skip
    return rows


# ---------------------------------------------------------------------------------------------- semi-supervised


def semi_place(tissue: Tissue, votes: np.ndarray) -> semi.Place:
    """Gather what labels are spread by.

    Parameters
    ----------
    tissue
        All sections.
    votes
        (points, domains), of the unsupervised consensus: it needs no label.
    """
    parts = [scores for _, scores in iterate_views(tissue, semi.semi_views(len(tissue.genes)))]
    smoothed = next(iter(iterate_views(tissue, [View(len(tissue.genes), False, 18)])))[1]
    xy = [section.xy for section in tissue.sections]
    return semi.Place(np.hstack([*parts, votes]), smoothed, xy, tissue.near)


def semi_rows(
    tissue: Tissue, votes: np.ndarray, truth: Mapping[str, pd.Series], study: str, seed: int = 0
) -> list[dict]:
    """Hide most expert labels of each section and score how well they are found again from the others.

    Returns
    -------
    Rows of the metrics table: adjusted Rand index and accuracy on the hidden labels, mean over draws, with the interval
    that holds 95 % of the draws; of each section and of all; and by how much the spread labels are ahead of
    each floor (``gain_ari``), mean over sections and draws, with its 95 % interval from the pairs.
    """
    place = semi_place(tissue, votes)
    records = []
    for number, sample in enumerate(tissue.samples):
        if sample not in truth:
            continue
        section = place.section(number)
        codes, _ = semi.read_codes(truth[sample], f"expert labels of {sample}")
        draws = DRAWS if len(codes) <= LARGE else 1
        for panel, protocol, draw, given in semi.hidden_labels(codes, section.xy[0], draws, seed):
            if len(np.unique(given[given >= 0])) < 2:
                continue
            hidden = (codes >= 0) & (given < 0)
            found = {
                SPREAD: semi.spread_labels(section, given, seed + draw).labels,
                "coordinates_knn": semi.coordinates_floor(section, given, seed + draw),
                "logistic": semi.logistic_floor(section, given),
            }
            for name, labels in found.items():
                ari = adjusted_rand_index(labels[hidden], codes[hidden])
                accuracy = float((labels[hidden] == codes[hidden]).mean())
                records.append((sample, panel, protocol, draw, name, ari, accuracy, int(hidden.sum())))
    return _semi_table(records, study)


def _semi_table(records: list[tuple], study: str) -> list[dict]:
    columns = ["sample", "panel", "protocol", "draw", "name", "ari", "accuracy", "n"]
    table = pd.DataFrame(records, columns=columns)
    by = ["panel", "protocol", "draw", "name"]
    scores = table.groupby(by, sort=False)[["ari", "accuracy"]].mean()
    whole = scores.assign(n=table.groupby(by, sort=False)["n"].sum(), sample="all").reset_index()
    groups = pd.concat([table, whole]).groupby(["sample", "panel", "protocol", "name"], sort=False)
    rows = []
    for (sample, panel, protocol, name), group in groups:
        notes = [*(["default"] if name == SPREAD else []), f"{len(group)} draws" if len(group) > 1 else "1 draw"]
        about = {"n": int(group["n"].iloc[0]), "panel": panel, "note": "; ".join(notes)}
        for metric in ("ari", "accuracy"):
            around = _middle(group[metric])
            rows.append(
                metric_row(
                    study, "space", "domains_semi", method_name(name), sample, protocol, metric, **around, **about
                )
            )
    return rows + _semi_gains(table, study)


def _semi_gains(table: pd.DataFrame, study: str) -> list[dict]:
    """Return by how much the spread labels are ahead of each floor, draw by draw and section by section."""
    rows = []
    for (panel, protocol), group in table.groupby(["panel", "protocol"], sort=False):
        paired = group.pivot(index=["sample", "draw"], columns="name", values="ari")
        for name in paired.columns.drop(SPREAD):
            ahead = (paired[SPREAD] - paired[name]).dropna()
            around = _mean_interval(ahead)
            note = f"against {method_name(name)}"
            rows.append(
                metric_row(
                    study, "space", "domains_semi", SPREAD, "all", protocol, "gain_ari", **around, n=len(ahead),
                    panel=panel, note=note,
                )
            )  # fmt: skip
    return rows


def _middle(values: pd.Series) -> dict[str, float]:
    """Return the mean, and where 95 % of the values lie: within what the score can be; nowhere for a single value."""
    mean = values.mean()
    low, high = percentile_interval(mean, values.to_numpy()) if len(values) > 1 else (np.nan, np.nan)
    return {"value": mean, "low": low, "high": high}


def _mean_interval(values: pd.Series) -> dict[str, float]:
    """Return the mean and its 95 % interval; none for a single value."""
    mean, half = values.mean(), 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return {"value": mean, "low": mean - half, "high": mean + half}


# ----------------------------------------------------------------------------------------------------- verdict


def verdict(rows: pd.DataFrame, method: str = DEFAULT) -> dict:
    """Say which method to use, and how sure that is.

    Parameters
    ----------
    rows
        The stage's metrics.
    method
        That the config selects.

    Returns
    -------
    texts, warnings: lists of sentences; default: the method to use (a floor where it wins).
    """
    texts, warnings = [], []
    found = rows[(rows["task"] == "domains") & (rows["metric"] == "ari")]
    default = method
    if len(found):
        sample = "all" if (found["sample"] == "all").any() else found["sample"].iloc[0]
        scores = found[found["sample"] == sample].set_index("method")
        selected = scores.loc[method_name(method)]
        texts.append(
            "Domains against expert labels (adjusted Rand index): "
            + ", ".join(f"{name.removeprefix('floor:')} {row['value']:.2f}" for name, row in scores.iterrows())
            + f"; {selected['note'].removeprefix('default; ')}."
        )
        best = scores["value"].idxmax()
        if scores.loc[best, "value"] > selected["value"] + _TIE:
            default = best.removeprefix("floor:")
            warnings.append(
                f"{method} loses to {default} on this study's expert labels ({selected['value']:.2f} against "
                f"{scores.loc[best, 'value']:.2f}): set space.domains.method to {default}."
            )
    else:
        texts.append("No expert labels of regions: the domains are not scored here.")
    spread_texts, spread_warnings = _semi_verdict(rows)
    return {"texts": texts + spread_texts, "warnings": warnings + spread_warnings, "default": default}


def _semi_verdict(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    found = rows[(rows["task"] == "domains_semi") & (rows["sample"] == "all")]
    texts, warnings = [], []
    for panel, group in found.groupby("panel", sort=False):
        scores = group[group["metric"] == "ari"].set_index("method")["value"]
        said = ", ".join(f"{name.removeprefix('floor:')} {value:.2f}" for name, value in scores.items())
        texts.append(f"Labels spread from {panel} (adjusted Rand index on the hidden ones): {said}.")
        best = scores.idxmax()
        if scores[best] > scores[SPREAD] + _TIE:
            gain = group[(group["metric"] == "gain_ari") & (group["note"] == f"against {best}")].iloc[0]
            chance = ", by less than chance explains" if gain["low"] <= 0 <= gain["high"] else ""
            warnings.append(f"With {panel}, spreading labels loses to {best.removeprefix('floor:')}{chance}.")
    return texts, warnings
