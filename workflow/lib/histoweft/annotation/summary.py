"""From the fits and the annotated samples to the study's metrics and its verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from histoweft.annotation import score
from histoweft.annotation.annotator import UNKNOWN, apart
from histoweft.annotation.evaluate import DISTANCE, PROBABILITY
from histoweft.annotation.heldout import HeldOut
from histoweft.annotation.names import LOGISTIC
from histoweft.annotation.score import Judged, Scores
from histoweft.io import CountsFile, read_table
from histoweft.metrics import area_under_curve, metric_row

REFERENCE = "reference"
GAINS = ("macro_f1", "accuracy")
RARE = 50
"""Truth cells of a type below which its own recall says little."""


@dataclass(frozen=True)
class Sample:
    """One annotated sample.

    Attributes
    ----------
    name
        Of the sample.
    tables
        Method to ``best``, ``probability``, ``set``, ``set_size``, ``unknown_score``, ``unknown``.
    labels
        Of the sheet; None where it gives none.
    facts
        Method to facts of its run.
    warnings
        Sentences.
    in_reference
        Whether each cell is one of the reference's own.
    """

    name: str
    tables: dict[str, pd.DataFrame]
    labels: pd.Series | None
    facts: dict[str, dict[str, Any]]
    warnings: list[str]
    in_reference: np.ndarray


def read_sample(
    filtered: str | os.PathLike, compared: str | os.PathLike, facts: str | os.PathLike, reference: Sequence[str]
) -> Sample:
    """Read what the annotation of a sample left.

    Parameters
    ----------
    filtered
        Its counts, for the sheet's labels.
    compared
        What each model says of its cells.
    facts
        Of the runs.
    reference
        Barcodes of reference cells that were read from the same file.
    """
    with CountsFile(filtered) as counts:
        obs = counts.obs()
    with open(facts, encoding="utf-8") as file:
        told = json.load(file)
    name = next(iter(told["runs"].values()))["sample"]
    labels = obs["label"] if "label" in obs else None
    tables = apart(read_table(compared, obs.index))
    return Sample(name, tables, labels, told["runs"], told["warnings"], obs.index.isin(list(reference)))


@dataclass
class Summary:
    """What the study learned about its annotation.

    Attributes
    ----------
    rows
        Metrics.
    verdict
        ``texts``, ``warnings``, ``default``.
    judged
        Method to held-out reference cells beside their truth, for the figures.
    default
        The model that annotates.
    """

    rows: list[dict[str, Any]]
    verdict: dict[str, Any]
    judged: dict[str, Judged]
    default: str

    @property
    def recall(self) -> pd.DataFrame:
        """Rows of the recall of each type on held-out reference cells, the floor left out."""
        rows = pd.DataFrame(self.rows)
        types = next(iter(self.judged.values())).names
        keep = (rows["metric"] == "recall") & (rows["sample"] == REFERENCE) & rows["panel"].isin(types)
        return rows[keep & (rows["method"] != score.MAJORITY)].drop_duplicates(["method", "panel"])


def summarise(
    fits: Sequence[HeldOut],
    samples: Sequence[Sample],
    *,
    study: str,
    asked: str,
    groups: Mapping[str, str],
    query_map: Mapping[str, str] | None,
    alpha: float,
    unknown_rate: float,
    seed: int = 0,
) -> Summary:
    """Score every model on held-out reference cells and, where the sheet has labels, on the samples; and decide.

    Parameters
    ----------
    fits
        One for each model, ``logistic`` among them.
    samples
        Annotated samples.
    study
        Name.
    asked
        The config's model.
    groups
        Type to group; each type to itself without a hierarchy.
    query_map
        See `score.map_labels`.
    alpha, unknown_rate
        Of the sets and of the flag.
    seed
        Of the intervals.
    """
    by_method = {one.method: one for one in fits}
    by_method[score.MAJORITY] = score.majority(by_method[LOGISTIC])
    judged = {name: score.judge(one, alpha) for name, one in by_method.items()}
    scores = {name: score.score(one, seed) for name, one in judged.items()}
    default = score.default_model(asked, scores)
    book = Book(study, default)
    _reference_rows(book, by_method, judged, scores)
    coarse = _group_rows(book, by_method, groups, alpha, seed)
    left_out = _unknown_rows(book, by_method[LOGISTIC], groups, unknown_rate)
    truths = _truth_rows(book, samples, by_method[LOGISTIC].types, groups, query_map, seed)
    _cost_rows(book, by_method, samples)
    texts = [
        _choice_text(asked, default, scores, by_method),
        _doubt_text(scores[default], default, alpha),
        *coarse, *left_out, *truths,
        *filter(None, [by_method[LOGISTIC].facts.get("matched", "")]), *_sample_texts(samples, default),
    ]  # fmt: skip
    noted = dict.fromkeys(note for one in fits for note in one.facts.get("notes", []))
    warnings = [f"Reference: {note}." for note in noted]
    warnings += _told_once(samples)
    verdict = {"texts": texts, "warnings": warnings, "default": default}
    return Summary(book.rows, verdict, judged, default)


def _told_once(samples: Sequence[Sample]) -> list[str]:
    """Join warnings that differ in the name of the sample alone."""
    of: dict[str, list[str]] = {}
    for sample in samples:
        for warning in sample.warnings:
            of.setdefault(warning.removeprefix(f"{sample.name}: "), []).append(sample.name)
    return [f"{', '.join(names)}: {text}" for text, names in of.items()]


class Book:
    """Takes down rows of the metrics table.

    Parameters
    ----------
    study
        Name.
    default
        The model that annotates; empty where it is not among the rows.
    """

    def __init__(self, study: str, default: str):
        self.rows: list[dict[str, Any]] = []
        self._study, self._default = study, default

    def add(self, method: str, sample: str, protocol: str, metric: str, value: float, **more: Any) -> None:
        """Take down one row; see `metrics.metric_row`."""
        notes = ["default"] if method in (self._default, DISTANCE) else []
        more["note"] = "; ".join([*notes, *filter(None, [more.get("note", "")])])
        self.rows.append(
            metric_row(self._study, "annotation", "cell_type", method, sample, protocol, metric, value, **more)
        )

    def add_scores(
        self, method: str, sample: str, protocol: str, judged: Judged, scores: Scores, level: str, note: str = ""
    ) -> None:
        """Take down every score of a method; `level` says what its classes are."""
        panel = f"{level} ({len(judged.names)})"
        for name, value in scores.values.items():
            low, high = scores.interval(name)
            metric, _, of = name.partition(":")
            n = int((judged.truth == judged.names.index(of)).sum()) if of else len(judged.truth)
            self.add(method, sample, protocol, metric, value, low=low, high=high, n=n, panel=of or panel, note=note)

    def add_gains(self, sample: str, protocol: str, scores: Mapping[str, Scores], level: str, n: int) -> None:
        """Take down how much better than ``logistic`` the other methods do on the same `n` cells."""
        floor = scores.get(LOGISTIC)
        for method, one in scores.items():
            if floor is None or method in (LOGISTIC, score.MAJORITY):
                continue
            for name in GAINS:
                gain = score.difference(one, floor, name)
                self.add(method, sample, protocol, f"{name}_gain", gain.value, low=gain.low, high=gain.high, n=n,
                         panel=level, note="over logistic, same cells")  # fmt: skip


def _reference_rows(book: Book, fits, judged, scores) -> None:
    for method, one in fits.items():
        book.add_scores(method, REFERENCE, one.protocol, judged[method], scores[method], "types", one.note)
        for name, value in one.facts.get("recovered", {}).items():
            book.add(method, REFERENCE, one.protocol, "marker_auroc", value, panel=name,
                     note="known markers among all used genes, ranked by what they add to the decision")  # fmt: skip
    floor = fits[LOGISTIC]
    book.add_gains(REFERENCE, floor.protocol, scores, f"types ({len(floor.types)})", len(floor.codes))


def _group_rows(book: Book, fits, groups: Mapping[str, str], alpha: float, seed: int) -> list[str]:
    """Score groups of types, where there is a hierarchy."""
    if all(name == group for name, group in groups.items()):
        return []
    texts = []
    for method, one in fits.items():
        judged = score.judge_groups(one, groups, alpha)
        found = score.score(judged, seed)
        book.add_scores(method, REFERENCE, one.protocol, judged, found, "groups", one.note)
        if method == book._default:
            texts.append(
                f"Of the {len(judged.names)} groups of types, {method} names {_say(found, 'accuracy')} of held-out "
                f"reference cells rightly (macro-F1 {_say(found, 'macro_f1')})."
            )
    return texts


def _unknown_rows(book: Book, fit: HeldOut, groups: Mapping[str, str], unknown_rate: float) -> list[str]:
    """Rows of the types left out, and of the share of known cells that is flagged."""
    flagged = _flagged(fit, unknown_rate)
    book.add(DISTANCE, REFERENCE, fit.protocol, "unknown_rate", flagged, n=len(fit.codes),
             note=f"held-out known cells flagged; {unknown_rate:g} was asked for")  # fmt: skip
    if fit.left_out.empty:
        return ["No type of the reference has enough held-out cells to be left out: the flag is untested."]
    level = "types" if all(name == group for name, group in groups.items()) else "groups"
    means = {}
    for method, part in fit.left_out.groupby("score", sort=False):
        each = part.groupby("left_out")["auroc"].mean()
        sizes = part.groupby("left_out")["n"].sum()
        for name, value in each.items():
            book.add(method, REFERENCE, fit.protocol, "unknown_auroc", value, n=int(sizes[name]), panel=str(name),
                     note="left out of training")  # fmt: skip
        means[method] = float(each.mean())
        book.add(method, REFERENCE, fit.protocol, "unknown_auroc", means[method], n=len(each),
                 panel=f"{level} left out ({len(each)})", note="mean; left out one after the other")  # fmt: skip
        if method == DISTANCE:
            worst = each.idxmin()
            worst_text = f"hardest: {worst}, {each[worst]:.2f}"
    return [
        f"Cells of {level} that were left out of training stand out by their distance with a mean AUROC of "
        f"{means[DISTANCE]:.2f} ({worst_text}); a small probability alone reaches {means[PROBABILITY]:.2f}."
    ]


def _flagged(fit: HeldOut, rate: float) -> float:
    """Return the share of held-out cells above a threshold that the other folds set."""
    flags = np.zeros(len(fit.codes), dtype=bool)
    for fold in fit.folds:
        others = np.setdiff1d(np.arange(len(flags)), fold.test)
        flags[fold.test] = fit.distance[fold.test] > np.quantile(fit.distance[others], 1 - rate)
    return float(flags.mean())


def _truth_rows(book: Book, samples: Sequence[Sample], types, groups, query_map, seed: int) -> list[str]:
    texts = []
    for sample in samples:
        if sample.labels is None:
            continue
        found = score.map_labels(sample.labels, types, groups, query_map)
        if found is None:
            continue
        level, names, codes = found
        codes = np.where(sample.in_reference, -1, codes)
        if (codes >= 0).sum() == 0:
            texts.append(
                f"{sample.name}: its labelled cells are those of the reference, so neither its labels nor its flags "
                "are a test; the scores of held-out cells are."
            )
            continue
        texts.append(_sample_truth(book, sample, (level, names, codes), types, groups, seed))
    _truth_means(book)
    return texts


def _sample_truth(book: Book, sample: Sample, truth, types, groups, seed: int) -> str:
    level, names, codes = truth
    left = int(sample.in_reference.sum())
    note = f"{left} cells of the reference left out" if left else ""
    scores = {}
    for method, table in sample.tables.items():
        judged = score.judge_sample(table, truth, types, groups)
        scores[method] = score.score(judged, seed)
        book.add_scores(method, sample.name, "truth", judged, scores[method], level, note)
    known, strange = codes >= 0, codes == -2
    book.add_gains(sample.name, "truth", scores, f"{level} ({len(names)})", int(known.sum()))
    table = sample.tables[book._default]
    flagged, distance = table["unknown"].to_numpy(bool), table["unknown_score"].to_numpy(float)
    book.add(DISTANCE, sample.name, "truth", "unknown_rate", flagged[known].mean(), n=int(known.sum()),
             note="cells of known type flagged")  # fmt: skip
    one = scores[book._default]
    text = (
        f"{sample.name}: {book._default} agrees with the sheet's labels for {_say(one, 'accuracy')} of "
        f"{int(known.sum())} cells (macro-F1 {_say(one, 'macro_f1')}); {flagged[known].mean():.0%} of them are flagged "
        "as unknown"
    )
    if strange.any():
        value = area_under_curve(strange[known | strange], distance[known | strange])
        listed = f"{int(strange.sum())} cells of labels that the reference lacks"
        book.add(DISTANCE, sample.name, "truth", "unknown_auroc", value, n=int(strange.sum()), note=listed)
        book.add(DISTANCE, sample.name, "truth", "unknown_found", flagged[strange].mean(), n=int(strange.sum()),
                 note=f"{listed}: share flagged")  # fmt: skip
        text += f", and {flagged[strange].mean():.0%} of {listed} (AUROC {value:.2f})"
    return text + "."


def _truth_means(book: Book) -> None:
    """Add the mean over samples, where several have a truth at the same level."""
    rows = [row for row in book.rows if row["protocol"] == "truth" and row["metric"] in
            ("accuracy", "macro_f1", "ece", "coverage", "unknown_auroc", "unknown_found", "unknown_rate")]  # fmt: skip
    if len({row["sample"] for row in rows}) < 2:
        return
    for (method, metric, panel), part in pd.DataFrame(rows).groupby(["method", "metric", "panel"], sort=False):
        if len(part) > 1:
            book.add(method, "all", "truth", metric, part["value"].mean(), n=len(part), panel=panel,
                     note="mean over samples")  # fmt: skip


def _cost_rows(book: Book, fits, samples: Sequence[Sample]) -> None:
    for method, one in fits.items():
        if not one.facts:
            continue
        note = f"scoring on held-out cells, fitting and calibrating; device {one.facts.get('device', 'cpu')}"
        panel = f"shared genes ({one.facts['genes']})"
        for metric in ("seconds", "peak_mb"):
            book.add(method, REFERENCE, one.protocol, metric, one.facts[metric], n=len(one.codes), panel=panel,
                     note=note)  # fmt: skip
    for sample in samples:
        for method, facts in sample.facts.items():
            for metric in ("seconds", "peak_mb"):
                book.add(method, sample.name, "truth", metric, facts[metric], n=facts["cells"],
                         panel=f"shared genes ({facts['genes']})", note="annotating the sample")  # fmt: skip


def _say(scores: Scores, name: str) -> str:
    low, high = scores.interval(name)
    return f"{scores.values[name]:.3f} ({low:.3f} to {high:.3f})"


def _choice_text(asked: str, default: str, scores: Mapping[str, Scores], fits) -> str:
    one = fits[LOGISTIC]
    text = (
        f"On {len(one.codes)} reference cells of {len(one.types)} types, each predicted by a model trained without its "
        f"fold ({one.note}), {default} reaches a macro-F1 of {_say(scores[default], 'macro_f1')} and an accuracy of "
        f"{_say(scores[default], 'accuracy')}; always the commonest type, {_say(scores[score.MAJORITY], 'accuracy')}."
    )
    others = [name for name in scores if name not in (LOGISTIC, score.MAJORITY)]
    compared = []
    for name in others:
        gain = score.difference(scores[name], scores[LOGISTIC], "macro_f1")
        word = "beats" if gain.low > 0 else "loses to" if gain.high < 0 else "does not differ clearly from"
        compared.append(f"{name} {word} logistic (macro-F1 {gain})")
    text += f" {'; '.join(compared)}." if compared else ""
    if asked != default:
        text += f" The model asked for, {asked}, does not beat logistic, so logistic annotates."
    better = [name for name in others if name != default
              and score.difference(scores[name], scores[default], "macro_f1").low > 0]  # fmt: skip
    return text + (f" Consider annotation.model: {better[0]}." if better else "")


def _doubt_text(scores: Scores, default: str, alpha: float) -> str:
    return (
        f"Its probabilities are off by {_say(scores, 'ece')} on average (expected calibration error), and its sets of "
        f"types hold the true one for {_say(scores, 'coverage')} of held-out cells ({1 - alpha:g} was asked for), with "
        f"{scores.values['set_size']:.2f} types a cell."
    )


def _sample_texts(samples: Sequence[Sample], default: str) -> list[str]:
    """Say how many cells were refused."""
    if not samples:
        return []
    counts = [(sample.name, sample.tables[default]["unknown"]) for sample in samples]
    listed = ", ".join(f"{name} {int(flag.sum())} of {len(flag)}" for name, flag in counts)
    return [f"Refused as {UNKNOWN}: {listed}."]
