"""What was found beside its floors, where the truth is known, and what a reader must be told."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from histoweft.errors import InputError, nearest
from histoweft.metrics import area_under_curve, metric_row

JOINT, ISOLATION = "joint", "isolation"
PERSISTER_FLOORS = ("mean_signature", "gpx4", "depth")
_TIE = 0.01
_BOOTSTRAPS = 500
_LEVEL = 0.05


def read_truth(options: Mapping[str, Any], barcodes: pd.Index, labels: pd.Series | None) -> pd.DataFrame:
    """Read which barcodes truly persist or are rare.

    Parameters
    ----------
    options
        The config's states.truth, its table already that of the sample.
    barcodes
        Of the sample; those the table lacks are not scored.
    labels
        Expert labels, None where there are none.

    Returns
    -------
    Index: barcodes; columns persister and rare, where known: 1, 0, or NaN for barcodes between the two.

    Raises
    ------
    InputError
        The table cannot be read, or lacks a column.
    """
    truth = pd.DataFrame(index=barcodes)
    if options["table"]:
        table = _truth_table(options["table"])
        for task in ("persister", "rare"):
            if options[task]:
                amount = _column(table, options["table"], options[task], f"config: states.truth.{task}")
                if task == "persister" and options["among"]:
                    amount = amount * _column(table, options["table"], options["among"], "config: states.truth.among")
                truth[task] = _graded(amount.reindex(barcodes), options["share"])
    if options["rare_labels"] and labels is not None:
        truth["rare"] = labels.astype(str).isin(options["rare_labels"]).to_numpy(dtype=float)
    return truth


def _truth_table(path: str | os.PathLike) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", index_col=0)
    except (OSError, ValueError) as error:
        hint = "Correct states.truth.table in the config."
        raise InputError.one(path, error, "a tab-separated table, barcodes first", hint) from error


def _column(table: pd.DataFrame, path: str | os.PathLike, name: str, where: str) -> pd.Series:
    if name not in table:
        raise InputError.one(where, repr(name), f"a column of {path}", nearest(name, table.columns))
    return table[name].astype(float)


def _graded(amount: pd.Series, share: float) -> np.ndarray:
    """Return 1 from `share` on, 0 for nothing, NaN between: too little to be seen, too much to count as absent."""
    return np.where(amount >= share, 1.0, np.where(amount > 0, np.nan, np.where(amount.isna(), np.nan, 0.0)))


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Return the area under the precision-recall curve, tied scores taken together (Davis and Goadrich 2006)."""
    if not positive.any():
        return math.nan
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
    return float((np.diff(recall, prepend=0) * precision).sum())


def _interval(positive: np.ndarray, score: np.ndarray, seed: int) -> tuple[float, float]:
    from histoweft.metrics import percentile_interval

    rng = np.random.default_rng(seed)
    ones, zeros = np.flatnonzero(positive), np.flatnonzero(~positive)
    drawn = []
    for _ in range(_BOOTSTRAPS):
        at = np.concatenate([rng.choice(ones, len(ones)), rng.choice(zeros, len(zeros))])
        drawn.append(area_under_curve(positive[at], score[at]))
    return percentile_interval(area_under_curve(positive, score), np.array(drawn))


def metric_rows(
    table: pd.DataFrame,
    floors: pd.DataFrame,
    truth: pd.DataFrame,
    *,
    study: str,
    sample: str,
    panel: str,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Score one sample against its truth.

    Parameters
    ----------
    table, floors
        See `histoweft.states.sample.analyse`.
    truth
        See `read_truth`.
    study, sample, panel
        For the rows.
    seed
        Of the bootstrap over barcodes.

    Returns
    -------
    Rows of the metrics table; none without a truth. Barcodes that may not persist are left out of the task persister.
    """
    rows = []

    def add(
        task: str, method: str, metric: str, value: float, n: int, note: str = "", ends=(math.nan, math.nan)
    ) -> None:
        row = metric_row(
            study, "states", task, method, sample, "truth", metric, value, n=n, panel=panel, note=note,
            low=ends[0], high=ends[1],
        )  # fmt: skip
        rows.append(row)

    if "persister" in truth:
        asked = truth["persister"].notna() & table["persister_score"].notna()
        positive = truth["persister"][asked].to_numpy() == 1
        if positive.any() and not positive.all():
            scores = {JOINT: table["persister_score"]} | {f"floor:{name}": floors[name] for name in PERSISTER_FLOORS}
            for method, values in scores.items():
                values, note = values[asked].to_numpy(), "default" if method == JOINT else ""
                if np.isnan(values).any():
                    continue
                if method == "floor:depth" and area_under_curve(positive, values) < 0.5:
                    values, note = -values, "low depth"
                value, ends = area_under_curve(positive, values), _interval(positive, values, seed)
                add("persister", method, "auroc", value, len(positive), note, ends)
                add("persister", method, "auprc", average_precision(positive, values), len(positive), note)
            _called(add, "persister", JOINT, table["persister"][asked].to_numpy(), positive)
    if "rare" in truth:
        asked = truth["rare"].notna()
        positive = truth["rare"][asked].to_numpy() == 1
        if positive.any() and not positive.all():
            n = len(positive)
            add("rare", ISOLATION, "auroc", area_under_curve(positive, table["rare_score"][asked]), n, "default")
            _called(add, "rare", ISOLATION, table["rare"][asked].to_numpy(), positive)
            _called(add, "rare", "floor:smallest_cluster", floors["smallest_cluster"][asked].to_numpy() > 0, positive)
    return rows


def _called(add: Any, task: str, method: str, called: np.ndarray, positive: np.ndarray) -> None:
    note = "" if method.startswith("floor:") else "default"
    add(task, method, "recall", float(called[positive].mean()), int(positive.sum()), note)
    add(task, method, "false_positive_rate", float(called[~positive].mean()), int((~positive).sum()), note)
    if called.any():
        add(task, method, "precision", float(positive[called].mean()), int(called.sum()), note)


def mean_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Add rows ``all``: means over samples, without intervals; nothing to add for a single sample."""
    if rows["sample"].nunique() < 2:
        return rows
    keys = ["study", "stage", "task", "method", "protocol", "fold", "metric"]
    kept = rows.assign(note=rows["note"].where(rows["note"] == "default", ""))
    whole = kept.groupby(keys, sort=False, as_index=False).agg(
        value=("value", "mean"), n=("n", "sum"), panel=("panel", "first"), note=("note", "max")
    )
    return pd.concat([whole.assign(sample="all", low=math.nan, high=math.nan), rows], ignore_index=True)


def wilson(k: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); NaN for nothing counted."""
    if n == 0:
        return math.nan, math.nan
    z2 = 1.959964**2
    middle = (k + z2 / 2) / (n + z2)
    reach = math.sqrt(z2 * (k * (n - k) / n + z2 / 4)) / (n + z2)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def persister_table(facts: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Count the persisters of each sample and patient.

    Parameters
    ----------
    facts
        Sample to its facts.
    rows
        Sample to its row of the sheet.

    Returns
    -------
    level (sample or patient), name, patient, condition (of samples), n (barcodes that may persist), persisters, share,
    low, high: Wilson's interval of counting, which knows nothing of differences between patients. A share is NaN where
    nothing could be scored.
    """
    table = []
    for sample, fact in facts.items():
        row = rows[sample]
        scored = fact["sets"] > 0
        table.append(
            {
                "level": "sample",
                "name": sample,
                "patient": row.get("patient", ""),
                "condition": row.get("condition", ""),
                "n": fact["eligible"] if scored else 0,
                "persisters": fact["persisters"],
            }
        )
    frame = pd.DataFrame(table)
    whole = frame.groupby("patient", sort=False, as_index=False)[["n", "persisters"]].sum()
    whole = whole.assign(level="patient", name=whole["patient"], condition="")
    joined = pd.concat([frame, whole], ignore_index=True)
    joined["share"] = joined["persisters"] / joined["n"].where(joined["n"] > 0)
    joined[["low", "high"]] = [wilson(k, n) for k, n in zip(joined["persisters"], joined["n"])]
    return joined[["level", "name", "patient", "condition", "n", "persisters", "share", "low", "high"]]


def rare_table(facts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """List the rare populations of all samples."""
    rows = [
        {"sample": sample, **group, "share": group["n"] / fact["barcodes"], "markers": ", ".join(group["markers"])}
        for sample, fact in facts.items()
        for group in fact["rare"]
    ]
    return pd.DataFrame(rows, columns=["sample", "group", "n", "share", "isolation", "p", "markers"])


def coverage_table(facts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """List how many genes of each signature each sample has."""
    columns = ["sample", "signature", "listed", "found", "used", "missing"]
    rows = [{"sample": sample, **row} for sample, fact in facts.items() for row in fact["coverage"]]
    return pd.DataFrame(rows, columns=columns)


def verdict(
    rows: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]], shares: pd.DataFrame, contrast: pd.DataFrame,
    niches: pd.DataFrame, partners: pd.DataFrame, rate: float,
) -> dict[str, Any]:  # fmt: skip
    """Say what was found, how sure it is, and which score to use.

    Parameters
    ----------
    rows
        Metrics, rows ``all`` included.
    facts, shares, contrast, niches, partners
        The study's tables.
    rate
        Chance of finding a rare population in a sample without one.

    Returns
    -------
    texts, warnings: lists of sentences; default: the persister score to use.
    """
    texts, warnings = _persister_texts(facts, shares)
    default = JOINT
    for task, selected, words in (("persister", JOINT, "Persisters"), ("rare", ISOLATION, "Rare populations")):
        said, lost, best = _scored(rows, task, selected, words)
        texts += said
        warnings += lost
        default = best if task == "persister" and best else default
    texts += _contrast_texts(contrast) + _place_texts(niches, partners) + _rare_texts(facts, rate)
    return {"texts": texts, "warnings": warnings + _warnings(facts), "default": default}


def _persister_texts(facts: Mapping[str, Mapping[str, Any]], shares: pd.DataFrame) -> tuple[list[str], list[str]]:
    scored = [sample for sample, fact in facts.items() if fact["sets"] > 0]
    if not scored:
        return ["Persisters: no sample has the genes of a persister programme, so none was scored."], []
    one = facts[scored[0]]
    counted = shares[(shares["level"] == "sample") & shares["share"].notna()]
    said = ", ".join(f"{row.name} {row.share:.1%}" for row in counted.itertuples(index=False))
    rates = [facts[sample]["false_positive_rate"] for sample in scored]
    texts = [
        f"Persister candidates (false discovery rate {one['fdr']:.0%} against {one['sets']} random sets of like genes; "
        f"{', '.join(one['programmes'])}; corrected for {', '.join(one['corrected_for'])}): {said}.",
        f"Random gene sets reach the threshold in {max(rates):.2%} of barcodes at most.",
    ]
    warnings = []
    standing_in = [sample for sample in scored if "clusters" in facts[sample]["corrected_for"]]
    if standing_in:
        warnings.append(
            f"No cell types are known for {', '.join(standing_in)}: clusters stand in for them, and persisters that "
            "form a cluster of their own are overlooked."
        )
    return texts, warnings


def _scored(rows: pd.DataFrame, task: str, selected: str, words: str) -> tuple[list[str], list[str], str]:
    metric = "auroc" if task == "persister" else "recall"
    found = rows[(rows["task"] == task) & rows["metric"].isin([metric, "false_positive_rate"])]
    if found.empty:
        return [], [], ""
    sample = "all" if (found["sample"] == "all").any() else found["sample"].iloc[0]
    found = found[found["sample"] == sample]
    scores = found[found["metric"] == metric].set_index("method")["value"]
    false = found[found["metric"] == "false_positive_rate"].set_index("method")["value"]
    said = ", ".join(
        f"{name.removeprefix('floor:')} {value:.3f}"
        + (f" (false positives {false[name]:.2%})" if name in false else "")
        for name, value in scores.items()
    )
    named = {"auroc": "area under the curve", "recall": "recall"}[metric]
    texts = [f"{words} against the truth ({named}{', mean over samples' if sample == 'all' else ''}): {said}."]
    best = str(scores.idxmax())
    if scores[best] > scores[selected] + _TIE and (task == "persister" or false[best] <= false[selected] + _TIE):
        lost = f"{words}: {selected} loses to {best.removeprefix('floor:')} "
        return texts, [lost + f"({scores[selected]:.3f} against {scores[best]:.3f})."], best
    return texts, [], ""


def _contrast_texts(contrast: pd.DataFrame) -> list[str]:
    found = contrast[contrast["measure"] == "persister_share"]
    if found.empty:
        return ["No two conditions are compared: the sheet names no treated and untreated samples."]
    row = found.iloc[0]
    if not np.isfinite(row["effect"]):
        return [f"{row['first']} and {row['second']} are not compared: no cells that could persist on both sides."]
    counted = (
        f"{row['n_first']} patients with both"
        if row["design"] == "paired"
        else f"{row['n_first']} and {row['n_second']} patients"
    )
    text = (
        f"Persister share of the cells that could persist, {row['second']} against {row['first']} ({counted}): "
        f"{row['mean_second']:.1%} against {row['mean_first']:.1%}, difference {row['effect']:.1%}"
    )
    text += f" (95 % interval {row['low']:.1%} to {row['high']:.1%})" if np.isfinite(row["low"]) else ""
    text += f"; {row['note']}." if row["note"] else f"; p = {row['p']:.2g}, patients permuted (this measure alone)."
    return [text]


def _place_texts(niches: pd.DataFrame, partners: pd.DataFrame) -> list[str]:
    texts = []
    whole = niches[(niches["sample"] == "all") & (niches["q"] <= _LEVEL)]
    fates, places = whole[whole["kind"] == "fate"], whole[whole["kind"] != "fate"]
    if len(places):
        said = ", ".join(f"{row['kind']} {row['name']} ({_times(row)})" for row in places.head(5).to_dict("records"))
        texts.append(f"Persisters lie where more than expected is of: {said}.")
    elif len(niches):
        texts.append("No niche or neighbour holds more persisters than their pattern would meet by chance (q > 0.05).")
    if len(fates):
        said = ", ".join(f"{row['name']} ({_times(row)})" for row in fates.to_dict("records"))
        texts.append(f"Fates that persisters lean to: {said}.")
    whole = partners[(partners["sample"] == "all") & (partners["q"] <= _LEVEL)]
    if len(whole):
        rows = whole.head(5).to_dict("records")
        said = ", ".join(f"{row['ligand_complex']} to {row['receptor_complex']} ({row['direction']})" for row in rows)
        texts.append(f"Ligands and receptors around persisters: {said}.")
    elif len(partners):
        texts.append("No ligand and receptor are raised around persisters beyond chance (q > 0.05).")
    return texts


def _times(row: Mapping[str, Any]) -> str:
    return f"{2 ** row['log2_ratio']:.1f} times"


def _rare_texts(facts: Mapping[str, Mapping[str, Any]], rate: float) -> list[str]:
    found = {sample: fact["rare"] for sample, fact in facts.items() if fact["rare"]}
    basis = f"{rate:.0%} chance of any in a sample that is a mixture of plain states"
    if not found:
        return [f"No rare population in any sample ({basis})."]
    said = "; ".join(
        f"{sample} {len(groups)} ({', '.join(str(group['n']) for group in groups)} barcodes)"
        for sample, groups in found.items()
    )
    return [f"Rare populations ({basis}): {said}."]


def _warnings(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    by_text: dict[str, list[str]] = {}
    for sample, fact in facts.items():
        for text in fact["warnings"]:
            by_text.setdefault(text, []).append(sample)
    every = len(facts)
    return [text if len(samples) == every else f"{', '.join(samples)}: {text}" for text, samples in by_text.items()]


def measures(facts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return what patients are compared by, samples x measures: persister share, and signatures in the pseudobulk."""
    table = {}
    for sample, fact in facts.items():
        share = fact["persisters"] / fact["eligible"] if fact["sets"] and fact["eligible"] else np.nan
        bulk = {f"signature_{name}": value for name, value in fact["pseudobulk"].items()}
        table[sample] = {"persister_share": share} | bulk
    return pd.DataFrame(table).T
