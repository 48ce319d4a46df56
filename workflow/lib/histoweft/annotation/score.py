"""Scores of annotation with their intervals: accuracy, macro-F1, recall, calibration, coverage, differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histoweft.annotation import calibrate
from histoweft.annotation.heldout import HeldOut
from histoweft.annotation.names import LOGISTIC
from histoweft.metrics import percentile_interval

REPLICATES = 400
MAJORITY = "floor:majority"
_LEAST_CLUSTERS = 3
"""Batches from which whole batches are resampled; fewer tell nothing about batches that were not seen."""


@dataclass(frozen=True)
class Judged:
    """Predictions beside the truth.

    Attributes
    ----------
    truth, predicted
        Numbers into `names`, (cells,).
    names
        Of the classes.
    probability
        Of the predicted class, (cells,).
    covered, set_size
        Whether the prediction set holds the truth, and its size; None where there are no sets.
    clusters
        Batch of each cell, resampled whole; None where cells are resampled.
    """

    truth: np.ndarray
    predicted: np.ndarray
    names: list[str]
    probability: np.ndarray
    covered: np.ndarray | None = None
    set_size: np.ndarray | None = None
    clusters: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        """Whether each prediction is true."""
        return self.truth == self.predicted


def judge(held_out: HeldOut, alpha: float) -> Judged:
    """Judge held-out reference cells; each fold is calibrated on the others."""
    doubt = calibrate.cross_fitted(held_out.logits, held_out.codes, held_out.folds, alpha)
    return _judged(doubt, held_out.codes, held_out.types, clusters_of(held_out))


def _judged(doubt: calibrate.Doubt, codes: np.ndarray, names: list[str], clusters: np.ndarray | None) -> Judged:
    covered = doubt.sets[np.arange(len(codes)), codes]
    best = doubt.probability.argmax(axis=1)
    return Judged(codes, best, names, doubt.probability.max(axis=1), covered, doubt.sets.sum(axis=1), clusters)


def judge_groups(held_out: HeldOut, groups: Mapping[str, str], alpha: float) -> Judged:
    """Judge the groups of types: the probability of a group is the sum over its types, cross-fitted like theirs."""
    names = sorted(set(groups.values()))
    of_type = np.array([names.index(groups[name]) for name in held_out.types])
    member = np.eye(len(names))[of_type]
    truth = of_type[held_out.codes]
    probability = np.zeros((len(truth), len(names)), dtype=np.float32)
    sets = np.zeros(probability.shape, dtype=bool)
    for fold in held_out.folds:
        others = np.setdiff1d(np.arange(len(truth)), fold.test)
        temperature = calibrate.fit_temperature(held_out.logits[others], held_out.codes[others])
        summed = calibrate.softmax(held_out.logits, temperature) @ member
        thresholds = calibrate.set_thresholds(summed[others], truth[others], alpha)
        probability[fold.test] = summed[fold.test]
        sets[fold.test] = summed[fold.test] >= thresholds - 1e-6
    return _judged(calibrate.Doubt(probability, sets), truth, names, clusters_of(held_out))


def majority(held_out: HeldOut) -> HeldOut:
    """Return the floor: the shares of the types among the training cells of each fold, whatever the cell."""
    logits = np.zeros(held_out.logits.shape, dtype=np.float32)
    for fold in held_out.folds:
        sizes = np.bincount(held_out.codes[fold.train], minlength=len(held_out.types))
        logits[fold.test] = np.log(sizes + 1e-3)
    return HeldOut(
        MAJORITY, held_out.types, held_out.barcodes, held_out.codes, logits, held_out.distance, held_out.part,
        held_out.batches, held_out.protocol, held_out.note,
    )  # fmt: skip


def clusters_of(held_out: HeldOut) -> np.ndarray | None:
    """Return the batches that are resampled whole, None where there are too few."""
    batches = held_out.batches
    return batches if batches is not None and len(np.unique(batches)) >= _LEAST_CLUSTERS else None


def replicate_weights(n: int, clusters: np.ndarray | None, seed: int, replicates: int = REPLICATES) -> Iterator:
    """Yield how often each cell is drawn in a bootstrap sample of cells, or of whole clusters; (cells,) float."""
    rng = np.random.default_rng(seed)
    names, member = (None, None) if clusters is None else np.unique(clusters, return_inverse=True)
    for _ in range(replicates):
        if clusters is None:
            yield np.bincount(rng.integers(0, n, n), minlength=n).astype(float)
        else:
            drawn = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
            yield drawn[member].astype(float)


def values_of(judged: Judged, weights: np.ndarray | None = None) -> dict[str, float]:
    """Return every score of weighted cells.

    Returns
    -------
    ``accuracy``, ``macro_f1`` (over the classes that the truth has), ``ece``, ``recall:<class>``; ``coverage`` and
    ``set_size`` where there are sets.
    """
    weights = np.ones(len(judged.truth)) if weights is None else weights
    total, classes = weights.sum(), len(judged.names)
    pairs = np.bincount(judged.truth * classes + judged.predicted, weights, minlength=classes**2)
    confusion = pairs.reshape(classes, classes)
    hits, true, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    there = true > 0
    f1 = 2 * hits[there] / (true[there] + said[there])
    found = {"accuracy": hits.sum() / total, "macro_f1": f1.mean(), "ece": _weighted_ece(judged, weights)}
    found |= {f"recall:{judged.names[code]}": hits[code] / true[code] for code in np.flatnonzero(there)}
    if judged.covered is not None:
        found["coverage"] = float(weights @ judged.covered / total)
        found["set_size"] = float(weights @ judged.set_size / total)
    return {name: float(value) for name, value in found.items()}


def _weighted_ece(judged: Judged, weights: np.ndarray) -> float:
    bin_of = np.minimum((judged.probability * calibrate.BINS).astype(int), calibrate.BINS - 1)
    gap = np.bincount(bin_of, weights * (judged.probability - judged.right), minlength=calibrate.BINS)
    return float(np.abs(gap).sum() / weights.sum())


@dataclass(frozen=True)
class Scores:
    """Scores with their bootstrap replicates.

    Attributes
    ----------
    values
        Score to its value.
    replicates
        Score to its values in the bootstrap samples; the same samples for all methods on the same cells.
    sizes
        Score to the number of cells it is a share of, for those that are shares.
    """

    values: dict[str, float]
    replicates: dict[str, np.ndarray]
    sizes: dict[str, int]

    def interval(self, name: str) -> tuple[float, float]:
        """Return the 95 % percentile interval, widened to hold the value itself.

        A share of all or of none does not vary when it is resampled: it gets the exact binomial interval (Clopper and
        Pearson 1934).
        """
        value, n = self.values[name], self.sizes.get(name, 0)
        if n and value in (0.0, 1.0):
            bound = 0.025 ** (1 / n)
            return (bound, 1.0) if value == 1 else (0.0, 1 - bound)
        return percentile_interval(value, self.replicates[name])


def score(judged: Judged, seed: int = 0, replicates: int = REPLICATES) -> Scores:
    """Score predictions and resample them.

    Parameters
    ----------
    judged
        Predictions beside the truth.
    seed
        Of the bootstrap samples.
    replicates
        How many.
    """
    values = values_of(judged)
    samples = [
        values_of(judged, weights)
        for weights in replicate_weights(len(judged.truth), judged.clusters, seed, replicates)
    ]
    sizes = {name: len(judged.truth) for name in ("accuracy", "coverage") if name in values}
    counts = np.bincount(judged.truth, minlength=len(judged.names))
    sizes |= {f"recall:{name}": int(n) for name, n in zip(judged.names, counts, strict=True) if n}
    return Scores(values, {name: np.array([one.get(name, np.nan) for one in samples]) for name in values}, sizes)


@dataclass(frozen=True)
class Difference:
    """How much one method's score is above another's, on the same cells.

    Attributes
    ----------
    value, low, high
        With the 95 % interval over paired bootstrap samples.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def difference(one: Scores, other: Scores, name: str) -> Difference:
    """Compare two methods scored with the same seed on the same cells."""
    value = one.values[name] - other.values[name]
    return Difference(value, *percentile_interval(value, one.replicates[name] - other.replicates[name]))


def default_model(asked: str, scores: Mapping[str, Scores]) -> str:
    """Choose what annotates: the model asked for, if it beats ``logistic`` in macro-F1; else ``logistic``.

    Parameters
    ----------
    asked
        The config's choice.
    scores
        Method to its scores on held-out reference cells.
    """
    if asked == LOGISTIC or difference(scores[asked], scores[LOGISTIC], "macro_f1").low > 0:
        return asked
    return LOGISTIC


def choose(asked: str, held_out: Iterable[HeldOut], alpha: float, seed: int) -> str:
    """Return the model that annotates; see `default_model`."""
    if asked == LOGISTIC:
        return asked
    wanted = {one.method: one for one in held_out if one.method in (asked, LOGISTIC)}
    return default_model(asked, {name: score(judge(one, alpha), seed) for name, one in wanted.items()})


def map_labels(
    labels: pd.Series, types: Sequence[str], groups: Mapping[str, str], query_map: Mapping[str, str] | None = None
) -> tuple[str, list[str], np.ndarray] | None:
    """Translate a sheet's labels into the reference's words.

    Parameters
    ----------
    labels
        Of a sample's cells; missing where unlabelled.
    types
        Of the reference.
    groups
        Type to group.
    query_map
        Label to type or group; a label that stands for nothing ("") counts as unlabelled, one that is not in the table
        stays as it is.

    Returns
    -------
    level
        ``types`` or ``groups``: the one that more labels are words of, types where equal.
    names
        Of that level.
    codes
        Into `names`; -1 unlabelled, -2 labelled with what the reference lacks.

    None where fewer than two of the labels are words of the reference: these are labels of something else.
    """
    words = labels.astype(object).where(labels.notna(), "").astype(str)
    if query_map is not None:
        words = words.map(lambda word: query_map.get(word, word))
    there = set(words) - {""}
    levels = {"types": list(types), "groups": sorted(set(groups.values()))}
    known = {level: {name.casefold(): at for at, name in enumerate(names)} for level, names in levels.items()}
    matches = {level: sum(word.casefold() in table for word in there) for level, table in known.items()}
    level = max(levels, key=matches.get)
    if matches[level] < 2:
        return None
    codes = words.map(lambda word: -1 if word == "" else known[level].get(word.casefold(), -2)).to_numpy(dtype=int)
    return level, levels[level], codes


def judge_sample(
    table: pd.DataFrame, truth: tuple[str, list[str], np.ndarray], types: Sequence[str], groups: Mapping[str, str]
) -> Judged:
    """Judge the annotation of a sample's cells that have a known type.

    Parameters
    ----------
    table
        ``best``, ``probability``, ``set`` and ``set_size`` of the cells.
    truth
        From `map_labels`.
    types, groups
        Of the reference.
    """
    level, names, codes = truth
    known = codes >= 0
    table, codes = table[known], codes[known]
    best = table["best"].astype(str)
    if level == "groups":
        predicted = np.array([names.index(groups[name]) for name in best])
        return Judged(codes, predicted, names, table["probability"].to_numpy(float))
    predicted = pd.Index(names).get_indexer(best)
    covered = np.array([names[code] in members.split(";") for code, members in zip(codes, table["set"], strict=True)])
    return Judged(codes, predicted, names, table["probability"].to_numpy(float), covered, table["set_size"].to_numpy())
