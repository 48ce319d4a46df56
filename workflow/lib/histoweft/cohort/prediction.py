"""Response predicted by nested cross-validation: everything is chosen inside the fold, no patient is on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from histoweft import splits
from histoweft.cohort import learners
from histoweft.cohort.bulk import standardise
from histoweft.cohort.patients import is_missing
from histoweft.cohort.performance import auroc
from histoweft.errors import InputError

FLOOR = "floor:"
PRIOR = f"{FLOOR}prior"
CLINICAL_FLOOR = f"{FLOOR}clinical"

EXPRESSION = "expression"
"""Block of the genes; all other blocks are kinds of features."""

SMALL = 30
"""Cohorts below this size leave one patient out at a time."""

_BOOSTING_FITS = 1_500
"""Trees are fitted one permutation at a time: with more fits than this the permutations are fewer."""

_MISSING_SHARE = 0.3


@dataclass(frozen=True)
class Task:
    """Patients with a known response, and what it is predicted from.

    Attributes
    ----------
    names
        Patients.
    positive
        (n,), 1 or 0.
    cohorts
        Of each patient.
    X
        (n, features), NaN where missing; standardised inside cohorts where there are several.
    columns, blocks
        Name and kind of each feature.
    spread
        (n, genes) expression as measured, less the mean of the cohort: the genes of largest variance are chosen on the
        training rows.
    genes
        How many genes enter.
    """

    names: pd.Index
    positive: np.ndarray
    cohorts: np.ndarray
    X: np.ndarray
    columns: pd.Index
    blocks: np.ndarray
    spread: np.ndarray
    genes: int

    @property
    def several(self) -> bool:
        """Return whether whole cohorts are held out: two or more of them have both answers."""
        return len(scored_cohorts(self.positive, self.cohorts)) > 1

    def subset(self, train: np.ndarray) -> np.ndarray:
        """Return the columns that enter a fold: all features, and the genes that vary most over its training rows."""
        is_gene = self.blocks == EXPRESSION
        if is_gene.sum() <= self.genes:
            return np.arange(len(self.columns))
        order = np.argsort(-(self.spread[train] ** 2).mean(axis=0), kind="stable")
        return np.sort(np.concatenate([np.flatnonzero(~is_gene), np.flatnonzero(is_gene)[order[: self.genes]]]))


@dataclass
class Prediction:
    """Out-of-fold scores of one method.

    Attributes
    ----------
    score
        (n,), larger where a response is expected.
    probability
        (n,), or None for a score that is none.
    permuted
        AUROCs with permuted responses.
    settings
        What the inner folds chose, one text a fold.
    note
        What a reader must know.
    """

    score: np.ndarray
    probability: np.ndarray | None = None
    permuted: np.ndarray = field(default_factory=lambda: np.empty(0))
    settings: list[str] = field(default_factory=list)
    note: str = ""


def scored_cohorts(positive: np.ndarray, cohorts: np.ndarray) -> list[str]:
    """Return the cohorts in which both answers occur."""
    table = pd.DataFrame({"cohort": cohorts, "positive": positive})
    both = table.groupby("cohort")["positive"].nunique() == 2
    return list(both.index[both])


def make_task(
    response: pd.Series,
    cohorts: pd.Series,
    features: pd.DataFrame | None,
    expression: pd.DataFrame | None,
    genes: int,
    own_scale: bool = True,
) -> Task:
    """Put predictors together.

    Parameters
    ----------
    response
        1, 0 or NaN; index: patients. Those without one are left out.
    cohorts
        Same index.
    features
        patients x features, named ``kind:name``; see `distinct` for what is left out without looking at the response.
    expression
        patients x genes, log scale.
    genes
        See `Task`.
    own_scale
        Whether features are standardised inside their cohort where there are several, as genes are: laboratories differ
        in what they measure, but not in the age of patients.
    """
    known = response.notna().to_numpy()
    several = len(scored_cohorts(response[known].to_numpy(), cohorts[known].to_numpy())) > 1
    parts, blocks, spread = [], [], np.empty((int(known.sum()), 0))
    if features is not None and features.shape[1]:
        table = distinct(features.loc[response.index])
        parts.append(standardise(table, cohorts) if several and own_scale else table)
        blocks += [column.partition(":")[0] for column in table]
    if expression is not None and expression.shape[1]:
        own = expression.loc[response.index]
        parts.append(standardise(own, cohorts) if several else own)
        blocks += [EXPRESSION] * own.shape[1]
        centred = own - own.groupby(cohorts.to_numpy()).transform("mean")
        spread = centred.to_numpy(dtype=np.float32)[known]
    if not blocks:
        found = "no feature that differs between patients, and no expression"
        raise InputError.one("cohort", found, "something to predict from", "See cohort.predictors.")
    joined = pd.concat(parts, axis=1)[known]
    return Task(
        joined.index, response[known].to_numpy(), cohorts[known].to_numpy(), joined.to_numpy(dtype=np.float64),
        joined.columns, np.array(blocks, dtype=object), spread, genes,
    )  # fmt: skip


def distinct(features: pd.DataFrame) -> pd.DataFrame:
    """Leave out features that are constant, missing in three of ten patients, or a copy (correlation above 0.9999)."""
    table = features.loc[:, features.isna().mean() <= _MISSING_SHARE]
    table = table.loc[:, table.std(ddof=0) > 1e-9]
    values = table.fillna(table.mean()).to_numpy()
    if values.shape[1] < 2:
        return table
    same = np.abs(np.corrcoef(values.T)) > 0.9999
    return table.loc[:, ~np.triu(same, 1).any(axis=0)]


def outer_folds(task: Task, folds: int, repeats: int, seed: int) -> tuple[str, list[list[splits.Fold]]]:
    """Make the folds that are scored, and audit them.

    Returns
    -------
    protocol
        ``cohort`` (whole cohorts) or ``patient``.
    rounds
        Lists of folds; each patient is tested once in each. Cohorts, and single patients below `SMALL`, take one round.

    Notes
    -----
    Patients are dealt to folds without looking at their response, so that permuting the responses is an exact test.
    """
    n = len(task.positive)
    if task.several:
        protocol, rounds = "cohort", [splits.leave_groups_out(task.cohorts)]
    elif n < SMALL:
        protocol, rounds = "patient", [splits.leave_groups_out(task.names)]
    else:
        protocol, rounds = "patient", [splits.random_folds(n, folds, seed + number) for number in range(repeats)]
    for one in rounds:
        splits.audit(one, n, groups=task.cohorts if protocol == "cohort" else task.names)
    return protocol, rounds


def inner_folds(task: Task, train: np.ndarray, n_folds: int, seed: int) -> list[splits.Fold]:
    """Cut training rows once more: by cohort where cohorts are held out and two or more train, else by patient."""
    if task.several and len(np.unique(task.cohorts[train])) > 1:
        return splits.leave_groups_out(task.cohorts[train])
    return splits.random_folds(len(train), min(n_folds, len(train)), seed)


def permuted_labels(positive: np.ndarray, cohorts: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Permute responses inside each cohort; (patients, n)."""
    rng = np.random.default_rng(seed)
    drawn = np.repeat(positive[:, None], n, axis=1)
    for cohort in np.unique(cohorts):
        rows = np.flatnonzero(cohorts == cohort)
        drawn[rows] = rng.permuted(drawn[rows], axis=0)
    return drawn


def predict(
    task: Task, model: str, rounds: Sequence[Sequence[splits.Fold]], inner: int, permutations: int, seed: int
) -> Prediction:
    """Score every patient by a model that has not seen the patient.

    Parameters
    ----------
    task
        Patients.
    model
        One of `learners.MODELS`.
    rounds
        See `outer_folds`.
    inner
        Folds at most in which settings are chosen.
    permutations
        Times that the whole procedure, choices included, is run again with permuted responses (first round only).
    seed
        Of permutations, inner folds and trees.

    Returns
    -------
    Scores averaged over rounds.
    """
    note = ""
    if model == learners.BOOSTING:
        fits = len(rounds[0]) * (inner * len(learners.TREES) + 1)
        affordable = max(_BOOSTING_FITS // fits, 0)
        if affordable < permutations:
            note = f"{affordable} permutations" if affordable >= 19 else "no permutations: too slow"
            permutations = affordable if affordable >= 19 else 0
    labels = np.column_stack([task.positive, permuted_labels(task.positive, task.cohorts, permutations, seed)])
    scores, probabilities, settings = [], [], []
    permuted = np.empty(0)
    groups = score_groups(task)
    for number, folds in enumerate(rounds):
        columns = labels if number == 0 else labels[:, :1]
        decision, prior, chosen = _one_round(task, model, folds, columns, inner, seed + number)
        scores.append(decision[:, 0])
        probabilities.append(1 / (1 + np.exp(-(decision[:, 0] + prior))))
        settings += chosen
        if number == 0 and permutations:
            pairs = zip(columns.T[1:], decision.T[1:])
            permuted = np.array([auroc(y == 1, one, groups) for y, one in pairs])
    return Prediction(np.mean(scores, axis=0), np.mean(probabilities, axis=0), permuted, settings, note)


def score_groups(task: Task) -> np.ndarray:
    """Return inside what scores are compared: the cohort where cohorts are held out, else all patients together."""
    return task.cohorts if task.several else np.zeros(len(task.positive), dtype=int)


def _one_round(
    task: Task, model: str, folds: Sequence[splits.Fold], labels: np.ndarray, inner: int, seed: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return decisions (patients, label columns), the training prior's log odds, and what was chosen in each fold."""
    decision, prior = np.zeros(labels.shape), np.zeros(len(labels))
    chosen = []
    for fold in folds:
        within = inner_folds(task, fold.train, inner, seed)
        X = task.X[:, task.subset(fold.train)]
        blocks = task.blocks[task.subset(fold.train)]
        fit = _elastic_net if model == learners.ELASTIC_NET else _boosting
        decision[fold.test], setting = fit(X, blocks, labels[fold.train], fold, within, seed)
        share = np.clip(labels[fold.train, 0].mean(), 1e-3, 1 - 1e-3)
        prior[fold.test] = np.log(share / (1 - share))
        chosen.append(f"{fold.name}: {setting}")
    return decision, prior, chosen


def _scaled(X: np.ndarray, blocks: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scaler = learners.Scaler(blocks).fit(X[train])
    return scaler.transform(X[train]), scaler.transform(X[test])


def _elastic_net(X, blocks, labels, fold, within, seed) -> tuple[np.ndarray, str]:
    """Choose the penalty for every column of labels in the inner folds, fit again, and score the test rows."""
    mix, ratio = np.array(learners.GRID).T
    n_labels, n_grid = labels.shape[1], len(mix)
    inner_scores = np.zeros((len(labels), n_labels, n_grid), dtype=np.float32)
    for part in within:
        train, test = _scaled(X, blocks, fold.train[part.train], fold.train[part.test])
        repeated = np.repeat(labels[part.train], n_grid, axis=1)
        beta, bias = learners.elastic_net(
            train, repeated, learners.balanced(repeated), np.tile(mix, n_labels), np.tile(ratio, n_labels)
        )
        inner_scores[part.test] = (test.astype(np.float32) @ beta + bias).reshape(-1, n_labels, n_grid)
    best = choose(labels, inner_scores, within)
    train, test = _scaled(X, blocks, fold.train, fold.test)
    beta, bias = learners.elastic_net(train, labels, learners.balanced(labels), mix[best], ratio[best])
    kept = int((beta[:, 0] != 0).sum())
    setting = f"{learners.ELASTIC_NET} mix {mix[best[0]]:g}, penalty {ratio[best[0]]:g}, {kept} features kept"
    return test.astype(np.float32) @ beta + bias, setting


def _boosting(X, blocks, labels, fold, within, seed) -> tuple[np.ndarray, str]:
    """Choose the size of the ensemble for every column of labels in the inner folds, fit again, score the test rows."""
    n_labels = labels.shape[1]
    inner_scores = np.zeros((len(labels), n_labels, len(learners.TREES)))
    for part in within:
        train, test = X[fold.train[part.train]], X[fold.train[part.test]]
        train, test = _filled(train, test)
        for at in range(n_labels):
            for number, (features, trees) in enumerate(learners.TREES):
                inner_scores[part.test, at, number] = _boost(train, labels[part.train, at], test, features, trees, seed)
    best = choose(labels, inner_scores, within)
    train, test = _filled(X[fold.train], X[fold.test])
    found = [_boost(train, labels[:, at], test, *learners.TREES[best[at]], seed) for at in range(n_labels)]
    features, trees = learners.TREES[best[0]]
    return np.column_stack(found), f"{learners.BOOSTING} {features} features, {trees} trees"


def _filled(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(train)
    mean = np.where(known, train, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, train, mean), np.where(np.isfinite(test), test, mean)


def _boost(train, labels, test, features, trees, seed) -> np.ndarray:
    if len(np.unique(labels)) < 2:
        return np.zeros(len(test))
    return learners.boost(train, labels, test, features, trees, seed)[0]


def choose(labels: np.ndarray, scores: np.ndarray, folds: Sequence[splits.Fold]) -> np.ndarray:
    """Return the setting of highest AUROC for each column of labels; the first (strongest penalty) of equals.

    Parameters
    ----------
    labels
        (rows, columns).
    scores
        (rows, columns, settings), of inner folds.
    folds
        AUROCs are taken inside folds of which most have both answers, else over all rows together.
    """
    groups = [fold.test for fold in folds]
    if not all(len(np.unique(labels[rows, 0])) == 2 and len(rows) >= 8 for rows in groups):
        groups = [np.arange(len(labels))]
    values = np.nanmean([many_auroc(labels[rows], scores[rows]) for rows in groups], axis=0)
    return np.nan_to_num(values, nan=0.5).argmax(axis=1)


def many_auroc(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return AUROCs of (rows, columns, settings) scores for (rows, columns) labels; 0.5 without one of the answers."""
    from scipy.stats import rankdata

    ranks = rankdata(scores, axis=0)
    positives = labels.sum(axis=0)[:, None]
    negatives = len(labels) - positives
    above = (ranks * labels[:, :, None]).sum(axis=0) - positives * (positives + 1) / 2
    pairs = positives * negatives
    return np.divide(above, pairs, out=np.full(above.shape, 0.5), where=np.broadcast_to(pairs > 0, above.shape))


# ------------------------------------------------------------------------------------------------------- floors


def fixed_floor(task: Task, score: np.ndarray, permutations: int, seed: int) -> Prediction:
    """Score by a value that needs no training (a marker, a signature).

    Parameters
    ----------
    score
        (n,), larger where a response is expected; a missing value becomes the median.
    """
    score = np.where(np.isfinite(score), score, np.nanmedian(score))
    groups = score_groups(task)
    labels = permuted_labels(task.positive, task.cohorts, permutations, seed)
    return Prediction(score, permuted=np.array([auroc(y == 1, score, groups) for y in labels.T]))


def prior_floor(task: Task, rounds: Sequence[Sequence[splits.Fold]]) -> Prediction:
    """Predict the share of responders among the training patients for everybody."""
    probability = np.zeros(len(task.positive))
    for folds in rounds:
        for fold in folds:
            probability[fold.test] += task.positive[fold.train].mean() / len(rounds)
    return Prediction(np.zeros(len(task.positive)), probability)


def clinical_design(clinical: pd.DataFrame) -> pd.DataFrame:
    """Turn clinical columns into numbers: a number stays one, a word becomes a column of its own.

    Parameters
    ----------
    clinical
        patients x columns, as read.

    Returns
    -------
    patients x columns; words that fewer than three patients have share the column of all others. No response enters.
    """
    parts = {}
    for name in clinical:
        present = ~is_missing(clinical[name])
        numbers = pd.to_numeric(clinical[name].where(present), errors="coerce")
        if present.any() and numbers[present].notna().mean() > 0.5:
            parts[name] = numbers
            continue
        words = clinical[name].astype(str).where(present)
        for word, count in words.value_counts().items():
            if 3 <= count < present.sum():
                parts[f"{name}={word}"] = (words == word).astype(float).where(present)
    return pd.DataFrame(parts, index=clinical.index)
