"""One fit from end to end: its folds, the default model on each, and the scores of all methods beside one another."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from histoweft.errors import HistoweftError, NotComputed
from histoweft.floors import Factored
from histoweft.histology import ceiling, context, folds, panels, score
from histoweft.histology.plan import ACROSS, ALL, Fit
from histoweft.histology.spots import Spots, join, points_each, read_section
from histoweft.splits import Fold

CONTEXT, SERIAL = "context", "context_serial"
"""The default model on the image alone, and with the expression of serial sections at the registered position."""

LEAST_SPOTS = 50

_log = logging.getLogger(__name__)


def check_spots(n: int) -> None:
    """Refuse a section of too few spots to learn from.

    Raises
    ------
    NotComputed
        With what is needed.
    """
    if n < LEAST_SPOTS:
        found = f"{n} spots after QC, and learning from an image needs {LEAST_SPOTS}"
        raise NotComputed(f"{found}. The section is left out of the image models", "expression.qc")


def read_spots(
    filtered: Sequence[str | os.PathLike],
    pyramids: Sequence[str | os.PathLike],
    registered: str | os.PathLike | None = None,
    footprint_um: float | None = None,
) -> Spots:
    """Read and join the sections of a fit.

    Parameters
    ----------
    filtered, pyramids
        Of each section.
    registered
        Table of registered positions.
    footprint_um
        See `spots.read_section`.
    """
    from histoweft.io import CountsFile

    total = 0
    for path in filtered:
        with CountsFile(path) as counts:
            total += counts.n_obs
    points = points_each(total)
    if points < context.POINTS:
        _log.info("%d spots: %d points of each footprint instead of %d", total, points, context.POINTS)
    sections = [read_section(a, b, points, footprint_um) for a, b in zip(filtered, pyramids, strict=True)]
    return join(sections, None if registered is None else pd.read_parquet(registered))


def folds_of(spots: Spots, fit: Fit, groups: Mapping[str, str], options: Mapping[str, Any], seed: int) -> list[Fold]:
    """List the folds of a fit.

    Parameters
    ----------
    spots
        Of the fit's sections.
    fit, groups
        See `plan`.
    options
        ``folds`` and ``buffer_spots`` of the config.
    seed
        Of random folds.

    Raises
    ------
    NotComputed
        All sections that are there, or none, are to be held out.
    """
    if fit.kind == ALL:
        return [Fold(ALL, np.arange(len(spots.xy)), np.arange(0))]
    if fit.kind == ACROSS:
        held_out = {groups[sample] in fit.held_out for sample in spots.samples}
        if len(held_out) < 2:
            found = f"of sections one can learn from there is only {', '.join(spots.samples)}"
            raise NotComputed(f"{found}; holding out {', '.join(fit.held_out)} needs one on each side", "histology")
        return [folds.across(spots, dict(groups), fit.held_out)]
    return folds.within(spots, fit.kind, options["folds"], options["buffer_spots"], seed)


def cross_validate(
    spots: Spots,
    of: Sequence[Fold],
    options: Sequence[Any],
    *,
    seed: int,
    device: str,
    threads: int,
    checkpoint: str,
) -> list[dict[str, Any]]:
    """Fit the default model on each fold's training spots and predict the others.

    Parameters
    ----------
    spots, of
        Spots and folds.
    options
        `network.Options` of each fold.
    seed, device, threads
        See `training.fit`.
    checkpoint
        Beginning of the names of the checkpoint files.

    Returns
    -------
    list of dict
        As `results.write_predictions` wants them.
    """
    found = []
    for fold, chosen in zip(of, options, strict=True):
        goal = folds.target(spots, fold, seed=seed)
        variants: dict[str, folds.Neighbours | None] = {CONTEXT: None}
        near = folds.serial(spots, goal)
        if near is not None:
            variants[SERIAL] = near
        entry: dict[str, Any] = {"name": fold.name, "test": fold.test, "methods": {}, "training": {}, "runs": {}}
        for method, given in variants.items():
            model, run = folds.fit_context(
                spots, goal, chosen, seed=seed, device=device, threads=threads, neighbours=given,
                checkpoint=f"{checkpoint}.{fold.name}.{method}.ckpt",
            )  # fmt: skip
            test, train = folds.predict_fold(spots, goal, model, given, device)
            entry["methods"][method] = goal.decompress(test)
            entry["training"][method] = training_score(spots, goal, goal.decompress(train))
            entry["runs"][method] = run.facts
            _log.info("fold %s, %s: %.3f on the training spots after %d epochs", fold.name, method,
                      entry["training"][method], run.epochs)  # fmt: skip
        found.append(entry)
    return found


def training_score(spots: Spots, goal: folds.Target, given: Factored) -> float:
    """Return the mean Pearson over the top 50 genes on the training spots, averaged over sections.

    No evidence, but what evaluation on the training spots would have claimed.
    """
    train = goal.fold.train
    genes = panels.top_variable(spots.counts[train]).genes
    log_total, mean = np.log(np.maximum(spots.totals[train], 1)), np.asarray(goal.expression.mean(axis=0)).ravel()
    values = []
    for number in np.unique(spots.section[train]):
        own = np.flatnonzero(spots.section[train] == number)
        table = score.gene_scores(goal.expression[own], given.rows(own), log_total[own], genes, mean)
        values.append(table["pearson"].mean())
    return float(np.mean(values))


def score_fit(
    spots: Spots,
    of: Sequence[Fold],
    predictions: Sequence[Sequence[Mapping[str, Any]]],
    *,
    kind: str,
    all_share: float,
    seed: int,
) -> list[score.FoldScores]:
    """Score the models of a fit beside the floors, the bar and the ceiling, on the same folds.

    Parameters
    ----------
    spots, of
        As the models saw them.
    predictions
        Of each model: its folds, as `results.read_predictions` gives them.
    kind
        Of the fit; see `plan`.
    all_share
        Share of the training spots that a gene of the panel ``all`` is found in.
    seed
        Of what is random.

    Returns
    -------
    list of score.FoldScores
        One for each fold and section that it tests.
    """
    found = []
    for number, fold in enumerate(of):
        goal = folds.target(spots, fold, seed=seed)
        near = folds.serial(spots, goal)
        methods = folds.floor_predictions(spots, goal, near, coordinates=kind != ACROSS, seed=seed)
        for model in predictions:
            if not np.array_equal(model[number]["test"], fold.test):
                raise HistoweftError(f"fold {fold.name}: predictions are of other spots; delete them and run again")
            methods |= model[number]["methods"]
        chosen = [
            panels.top_variable(spots.counts[fold.train]),
            panels.markers(goal.expression, seed=seed, scores=goal.components.scores),
            panels.all_genes(goal.expression, all_share),
        ]
        found += [_score_section(spots, goal, section, methods, chosen, seed) for section in _tested(spots, fold)]
    return found


def _tested(spots: Spots, fold: Fold) -> np.ndarray:
    return np.unique(spots.section[fold.test])


def _score_section(spots: Spots, goal: folds.Target, section: int, methods, chosen, seed: int) -> score.FoldScores:
    own = np.flatnonzero(spots.section[goal.fold.test] == section)
    rows = goal.fold.test[own]
    genes = np.unique(np.concatenate([panel.genes for panel in chosen]))
    limit = np.full(len(spots.genes), np.nan)
    limit[genes] = ceiling.thinning_ceiling(spots.counts[rows], spots.totals[rows], goal.median_total, genes, seed)
    truth = spots.normalised(goal.median_total, rows)
    return score.score_fold(
        score.HeldOut(
            spots.samples[section], goal.fold.name, truth, np.log(np.maximum(spots.totals[rows], 1)), spots.xy[rows],
            np.asarray(goal.expression.mean(axis=0)).ravel(), chosen,
            {method: given.rows(own) for method, given in methods.items()}, limit,
        ),
        seed=seed,
    )  # fmt: skip


def tune(spots: Spots, of: Sequence[Fold], options: Any, *, seed: int, device: str, threads: int) -> list[float]:
    """Score one setting on inner folds of each fold's training spots.

    Parameters
    ----------
    spots, of, options, seed, device, threads
        See `cross_validate`; one `network.Options` for all folds.

    Returns
    -------
    list of float
        For each fold: correlation of the components, weighted by their variance, mean over the inner folds. The test
        spots of the fold are never looked at.
    """
    found = []
    for fold in of:
        train = fold.train
        inner = folds.target(spots, fold, seed=seed).inner
        scores = []
        for part in inner:
            own = Fold(f"{fold.name}-{part.name}", train[part.train], train[part.test])
            goal = folds.target(spots, own, seed=seed)
            model, _ = folds.fit_context(spots, goal, options, seed=seed, device=device, threads=threads)
            given = folds.predict_context(model, spots.pixels[own.test], device)
            truth = goal.components.compress(spots.normalised(goal.median_total, own.test))
            scores.append(folds.agreement(truth, given))
        found.append(float(np.mean(scores)))
    return found


def options_of_folds(
    network: Mapping[str, Any], tuned: Sequence[str | os.PathLike], fit: str, of: Sequence[Fold]
) -> list[Any]:
    """Return how to train on each fold: the config's options, with the setting that did best on its inner folds.

    Parameters
    ----------
    network
        Section ``histology.network`` of the config.
    tuned
        Tables of the rule ``tune``, one a setting; none without tuning.
    fit
        Name of the fit.
    of
        Its folds.

    Returns
    -------
    list of network.Options
    """
    from histoweft.histology.network import Options

    if not tuned:
        return [Options(**network)] * len(of)
    table = pd.concat([pd.read_csv(path, sep="\t", dtype={"fold": str}) for path in tuned], ignore_index=True)
    found = []
    for fold in of:
        own = table[(table["fit"] == fit) & (table["fold"] == fold.name)]
        best = own.loc[own["score"].idxmax()]
        _log.info("fold %s: setting %s did best on its inner folds (%.3f)", fold.name, best["setting"], best["score"])
        found.append(Options(**{**network, **json.loads(best["setting"])}))
    return found
