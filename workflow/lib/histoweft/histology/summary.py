"""From the scores of single fits to the study's table and its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from histoweft.histology import score
from histoweft.histology.evaluate import CONTEXT, SERIAL
from histoweft.histology.plan import ACROSS, BLOCK, RANDOM
from histoweft.metrics import metric_row

TRAINING = "pearson_top50_training"
"""What evaluation on the training spots would have claimed; shown beside the held-out score, never instead of it."""

RIDGE = "floor:ridge_context"

_PARTIAL = ("autoencoder",)
"""Models that learn the genes of the small panels only; their mean over all genes would be a mean over gaps."""


@dataclass(frozen=True)
class Summary:
    """What the study learned.

    Attributes
    ----------
    rows
        Metrics.
    genes
        Scores of each gene and method in each protocol.
    verdict
        ``protocols``: for each one the default, the winner, whether the floors are beaten and the bar is met;
        ``texts``, the same in words; ``paint``: what the maps are painted with; ``image_adds``: in words, what the
        image adds to the position in serial sections.
    """

    rows: pd.DataFrame
    genes: pd.DataFrame
    verdict: dict[str, Any]


def summarise_study(
    scored: Mapping[str, tuple[Sequence[score.FoldScores], Sequence[str]]],
    study: str,
    across: str,
    model: str,
    runs: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]],
    seed: int = 0,
) -> Summary:
    """Average, compare and decide.

    Parameters
    ----------
    scored
        Kind of fit to its folds and gene names; see `results.read_scores`.
    study
        Name.
    across
        What ``across`` holds out: ``section`` or ``patient``.
    model
        The config's choice.
    runs
        Each fit (and its model's) predictions, for the scores on training spots and the times.
    seed
        Of the intervals.

    Returns
    -------
    Summary
    """
    rows: list[dict[str, Any]] = []
    tables, protocols, texts = [], {}, {}
    for kind, (folds, names) in scored.items():
        protocol = across if kind == ACROSS else kind
        chosen = default_of(model, folds)
        rows += _protocol_rows(folds, study, protocol, chosen, seed)
        table = score.gene_table(folds, names)
        table.insert(0, "protocol", protocol)
        tables.append(table)
        if kind != RANDOM:
            decided = score.verdict(rows, chosen, protocol=protocol)
            protocols[protocol] = {"default": chosen, "winner": decided.winner, "beats_floors": decided.beats_floors,
                                   "meets_bar": decided.meets_bar}  # fmt: skip
            texts[protocol] = decided.text
    if {RANDOM, BLOCK} <= set(scored):
        rows += score.leakage_gap(rows)
    rows += _training(runs, study, across)
    verdict = {
        "protocols": protocols,
        "texts": texts,
        "paint": _to_paint(rows, protocols),
        "image_adds": _image_adds(scored),
    }
    return Summary(pd.DataFrame(rows), pd.concat(tables, ignore_index=True), verdict)


def default_of(model: str, folds: Sequence[score.FoldScores]) -> str:
    """Return the method that the config's model stands for: with registered positions where all folds have them."""
    serial = all(SERIAL in fold.tables for fold in folds)
    return SERIAL if model == CONTEXT and serial else model


def _protocol_rows(folds, study: str, protocol: str, chosen: str, seed: int) -> list[dict[str, Any]]:
    notes = {chosen: "default"} | {oracle: "told the spot's total count" for oracle in score.ORACLES}
    found = score.summarise(folds, study, protocol, notes, seed=seed)
    found = [row for row in found if not (row["method"] in _PARTIAL and "_all" in row["metric"])]
    methods = [name for name in folds[0].tables if name not in (score.CEILING, "floor:mean")]
    return found + score.gain_rows(folds, study, protocol, chosen, methods)


def _to_paint(rows: Sequence[Mapping[str, Any]], protocols: Mapping[str, Any]) -> str:
    """Choose the network for the maps, unless its linear part alone does better inside a section."""
    for protocol in (BLOCK, *protocols):
        found = {
            row["method"]: row["value"] for row in rows
            if (row["protocol"], row["metric"], row["sample"], row["fold"]) == (protocol, score.PRIMARY, "all", "all")
        }  # fmt: skip
        if CONTEXT in found and RIDGE in found:
            return RIDGE if found[RIDGE] > found[CONTEXT] else CONTEXT
    return CONTEXT


def _image_adds(scored) -> str:
    """Say what the image adds to the position, where sections are serial."""
    folds = scored.get(ACROSS, ([], []))[0]
    if not folds or any(SERIAL not in fold.tables for fold in folds):
        return ""
    gain = score.paired_difference(folds, SERIAL, "floor:coordinates")
    alone = score.paired_difference(folds, SERIAL, CONTEXT)
    return (
        f"In serial sections the image adds {gain} to the correlation that the registered position alone reaches, "
        f"and the position adds {alone} to what the image alone reaches (95 % intervals)."
    )


def _training(runs, study: str, across: str) -> list[dict[str, Any]]:
    """Rows of the scores on training spots, mean over folds of each section, and the seconds an epoch took."""
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    devices: dict[tuple[str, str, str], set[str]] = {}
    for fit, folds in runs:
        protocol = across if fit["kind"] == ACROSS else fit["kind"]
        sample = "all" if fit["kind"] == ACROSS else fit["samples"][0]
        for fold in folds:
            for method, value in fold["training"].items():
                run = fold["runs"][method]
                found.setdefault((protocol, sample, method), []).append((value, run["seconds_per_epoch"]))
                devices.setdefault((protocol, sample, method), set()).add(run["device"])
    rows = []
    for (protocol, sample, method), pairs in found.items():
        values, seconds = np.array(pairs).T
        device = f"device {', '.join(sorted(devices[protocol, sample, method]))}"
        where = (study, "histology", "expression_from_histology", method, sample, protocol)
        rows.append(metric_row(*where, TRAINING, values.mean(), n=len(values), panel="top50 (50)",
                               note="on the spots it was trained on"))  # fmt: skip
        rows.append(metric_row(*where, "seconds_per_epoch", float(np.median(seconds)), n=len(values),
                               note=device))  # fmt: skip
    return rows


def training_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Put the score on training spots beside the held-out one.

    Returns
    -------
    pandas.DataFrame
        ``sample`` (with the protocol), ``method``, ``training``, ``held_out``.
    """
    every = rows[rows["fold"] == "all"]
    key = ["protocol", "sample", "method"]
    training = every[every["metric"] == TRAINING].set_index(key)["value"]
    held_out = rows[(rows["metric"] == score.PRIMARY) & (rows["fold"] == "all")].set_index(key)["value"]
    # A section cut across only once has no mean over folds.
    single = rows[(rows["metric"] == score.PRIMARY) & (rows["sample"] != "all")]
    single = single.drop_duplicates(key, keep=False).set_index(key)["value"]
    held_out = held_out.combine_first(single)
    both = pd.concat({"training": training, "held_out": held_out}, axis=1).dropna().reset_index()
    both["sample"] = both["sample"] + ", " + both["protocol"]
    return both[["sample", "method", "training", "held_out"]]
