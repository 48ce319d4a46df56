"""One fold, one model: train, predict the held-out voxels, and keep what the scores and the figures need."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from histoweft import splits
from histoweft.atlas import baselines, data, folds, multiscale, score
from histoweft.atlas import field as fields
from histoweft.atlas.data import Axes
from histoweft.atlas.folds import Split
from histoweft.atlas.plan import FLOORS, FRONT, MODELS, RESIDUAL
from histoweft.atlas.results import KNN, MEAN, MULTISCALE, PCA, RIDGE, FoldResult, Result
from histoweft.atlas.voxels import Voxels
from histoweft.errors import HistoweftError

if TYPE_CHECKING:
    from histoweft.atlas import residual

_log = logging.getLogger(__name__)

_ROWS = 2_000
_BREADTH = 5
"""Principal components that the code at several scales may draw on, for each number of its budget."""
_COMPONENTS = 100
"""Leading components whose fields tell the place."""
_CLEAR = 2.0
"""A network that errs less than so many candidate places apart, on its validation voxels, is not beaten by smooth
fields."""


def latent_size(wanted: int, n_genes: int, n_train: int) -> int:
    """Return the latent dimensions that a fold allows: a quarter of its genes and of its voxels at most."""
    return max(1, min(wanted, n_genes // 4, n_train // 4))


def pictured(voxels: Voxels, n: int = 3, sampled: int = 2_000) -> np.ndarray:
    """Choose genes for pictures: those that differ least between neighbours, relative to their variance.

    Returns
    -------
    Column numbers, in this order; of genes measured in at least half of the sampled voxels where there are any.
    """
    from scipy.spatial import cKDTree

    rows = np.unique(np.linspace(0, voxels.n - 1, min(sampled, voxels.n)).astype(int))
    near = cKDTree(voxels.position).query(voxels.position[rows], 2)[1][:, 1]
    a, b = np.asarray(voxels.expression[rows]), np.asarray(voxels.expression[near])
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = np.where(both, a, 0.0), np.where(both, b, 0.0)
    n_both = np.maximum(both.sum(axis=0), 1)
    mean = (a.sum(axis=0) + b.sum(axis=0)) / (2 * n_both)
    variance = ((a**2).sum(axis=0) + (b**2).sum(axis=0)) / (2 * n_both) - mean**2
    rough = ((a - b) ** 2).sum(axis=0) / n_both
    ratio = np.divide(rough, variance, out=np.full(len(mean), np.inf), where=variance > 1e-12)
    rare = both.mean(axis=0) < 0.5
    return np.lexsort([ratio, rare])[:n]


def fit_fold(
    voxels: Voxels,
    split: Split,
    model: str,
    options: Mapping[str, Any],
    *,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 1,
    checkpoint: str | os.PathLike | None = None,
) -> FoldResult:
    """Train a model on the training voxels of a fold, and apply it to those held out.

    Parameters
    ----------
    voxels, split
        The atlas and the fold.
    model
        One of `plan.MODELS`.
    options
        The section ``atlas`` of the config: ``latent``, ``n_genes``, ``clip``, ``scaling``, ``folds``,
        ``buffer_voxels``, ``epochs``, ``reference`` (its own options).
    seed, device, threads, checkpoint
        See `training.fit`.

    Returns
    -------
    FoldResult
    """
    if model not in MODELS:
        raise HistoweftError(f"atlas model {model!r} is not one of {', '.join(MODELS)}")
    started = time.monotonic()
    if model == FRONT:
        split = folds.first_fifth(voxels, split)
    prepared = data.prepare(voxels, split, options["n_genes"], options["clip"], options["scaling"])
    shown = np.flatnonzero(np.isin(prepared.scaling.genes, pictured(voxels)))
    latent = latent_size(options["latent"], prepared.values.shape[1], len(split.train))
    task = _Task(prepared, options, shown, latent, seed, device, threads, checkpoint)
    if model == FLOORS:
        results = task.floors()
    elif model == RESIDUAL:
        results = task.residual()
    else:
        results = [task.reference(model)]
    seconds = time.monotonic() - started
    _log.info("%s %s %s: %.0f s", split.protocol, split.name, model, seconds)
    results = [
        replace(one, facts={"job_seconds": seconds, "device": device, "latent": latent, **one.facts}) for one in results
    ]
    truth = prepared.values[split.test][:, shown]
    return FoldResult(split.protocol, split.name, split.test, prepared.genes, prepared.genes[shown], truth, results)


class _Task:
    """A fold and its settings, and the models that can be run on it."""

    def __init__(self, prepared, options, shown, latent, seed, device, threads, checkpoint):
        self.prepared, self.options, self.shown, self.latent = prepared, options, shown, latent
        self.seed, self.device, self.threads, self.checkpoint = seed, device, threads, checkpoint
        self.split: Split = prepared.split
        self.inner = folds.inner(prepared.voxels, self.split, options["folds"], options["buffer_voxels"], seed)

    def floors(self) -> list[Result]:
        """Fit mean, PCA, and ridge and nearest neighbours on its scores."""
        axes = data.principal_axes(self.prepared, self.latent)
        scores = axes.project_all(self.prepared)
        train, test = self.split.train, self.split.test
        position = self.prepared.position[train]
        mean = self._reconstructed(MEAN, lambda rows, _: np.zeros((len(rows), len(axes.mean)), np.float32))
        pca = self._reconstructed(PCA, lambda rows, _: axes.reconstruct(scores[rows]))
        found = [
            replace(mean, place=np.tile(position.mean(axis=0), (len(test), 1)).astype(np.float32)),
            replace(pca, latent=scores[test].astype(np.float16), regions=self._regions(scores)),
        ]
        for name, predict in ((RIDGE, baselines.ridge_place), (KNN, baselines.nearest_place)):
            place = predict(scores[train], position, self.inner, scores[test])
            found.append(Result(name, place=place.astype(np.float32)))
        return found

    def residual(self) -> list[Result]:
        """Train the network around PCA, with the fields for the place, and make the code at several scales."""
        from histoweft.atlas import residual

        axes = data.principal_axes(self.prepared, _BREADTH * self.latent)
        scores = axes.project_all(self.prepared)
        coded = self._multiscale(axes, scores)
        front = axes.first(residual.FRONT * self.latent)
        scores = np.ascontiguousarray(scores[:, : len(front.variance)])
        settings = residual.Options(latent=self.latent, epochs=self.options["epochs"])
        trained, run = residual.train(
            self.prepared, front, scores, settings, seed=self.seed, device=self.device, threads=self.threads,
            checkpoint=self.checkpoint,
        )  # fmt: skip
        output, place, latent = (np.concatenate(part) for part in zip(*self._apply(trained, scores), strict=True))
        test = self.split.test
        place, facts = self._place(trained, scores, place[test])
        if not trained.gate:
            # What the network would only spoil stays PCA, as the floor has it: gaps filled from the latent alone.
            front = axes.first(self.latent)
            output = latent = front.project_all(self.prepared)
        found = self._reconstructed(RESIDUAL, lambda rows, _: front.reconstruct(output[rows]))
        facts |= {"gate": trained.gate, "validation": trained.validation, **run.facts}
        return [
            replace(
                found, place=place, latent=latent[test].astype(np.float16), regions=self._regions(latent),
                history=run.history, facts=facts,
            ),
            coded,
        ]  # fmt: skip

    def reference(self, name: str) -> Result:
        """Train the published model."""
        from histoweft.atlas import reference

        settings = reference.Options(latent=self.latent, **self.options["reference"])
        model, run = reference.train(
            self.prepared, settings, seed=self.seed, device=self.device, threads=self.threads,
            checkpoint=self.checkpoint,
        )  # fmt: skip
        n = self.prepared.voxels.n
        place, latent = np.empty((n, 3), np.float32), np.empty((n, self.latent), np.float32)
        for start in range(0, n, _ROWS):
            rows = np.arange(start, min(start + _ROWS, n))
            _, place[rows], latent[rows] = reference.apply(model, self.prepared, rows)
        test = self.split.test
        found = self._reconstructed(name, lambda rows, _: reference.apply(model, self.prepared, rows)[0])
        return replace(
            found, place=place[test], latent=latent[test].astype(np.float16), regions=self._regions(latent),
            history=run.history, facts=run.facts,
        )  # fmt: skip

    def _multiscale(self, axes: Axes, scores: np.ndarray) -> Result:
        started = time.monotonic()
        position, (train, test) = self.prepared.position, (self.split.train, self.split.test)
        code = multiscale.learn(scores[train], position[train], self.latent)
        output = code.reconstruct(scores[test], position[test])
        found = self._reconstructed(MULTISCALE, lambda _, at: axes.reconstruct(output[at]))
        return replace(found, facts={"seconds": time.monotonic() - started})

    def _apply(self, trained: residual.Trained, scores: np.ndarray):
        for start in range(0, len(scores), _ROWS):
            yield trained.apply(scores[start : start + _ROWS])

    def _place(self, trained: residual.Trained, scores: np.ndarray, place: np.ndarray):
        """Take the network's place or the fields', whichever errs less on held-out training voxels.

        Held-out voxels with twins in training (the mirrored half) are another case than inner folds of regions are
        made for: nearest neighbours place them. Inner folds at random hold out voxels with twins themselves.
        """
        facts = {"place": "network", "network_error": trained.position_error}
        voxels, train, test = self.prepared.voxels, self.split.train, self.split.test
        folded, known = voxels.folded(), scores[:, :_COMPONENTS]
        low, high = folded.min(axis=0), folded.max(axis=0)
        spacing = fields.spacing_of(low, high)
        if trained.position_error < _CLEAR * spacing:
            return place, facts
        half = voxels.hemisphere()
        side = None if half is None or len(np.unique(half[train])) < 2 else 2.0 * half[train] - 1
        chart = fields.fit_chart(known[train], folded[train], self.inner, low, high, spacing, side)
        facts |= {"field_error": chart.error, "field_lengths": [one.length for one in chart.maps]}
        if trained.position_error <= chart.error:
            return place, facts
        regions = self.split.protocol != folds.RANDOM
        if regions and baselines.has_twins(known[train], self.inner, known[test], self.seed):
            pairs, known = splits.random_folds(len(train), seed=self.seed), scores[:, : self.latent]
            found = baselines.nearest_place(known[train], self.prepared.position[train], pairs, known[test])
            return found, facts | {"place": "nearest"}
        found, side = chart.locate(known[test])
        if half is not None:
            # Where only one half was seen, a voxel is placed in that half.
            found[:, 2] = voxels.midline + (side if side is not None else 2 * half[train[0]] - 1) * found[:, 2]
        return found, facts | {"place": "fields"}

    def _reconstructed(self, method: str, predict: Callable[[np.ndarray, slice], np.ndarray]) -> Result:
        """Sum up what `predict` makes of the held-out voxels: given row numbers, and their place among the held-out."""
        prepared, test = self.prepared, self.split.test
        tally = score.Tally(prepared.values.shape[1])
        shown = np.empty((len(test), len(self.shown)), dtype=np.float16)
        for start in range(0, len(test), _ROWS):
            at = slice(start, min(start + _ROWS, len(test)))
            rows = test[at]
            guess = predict(rows, at)
            factor, _ = prepared.scaling.affine(prepared.least[rows], prepared.span[rows])
            tally.add(prepared.rows(rows), guess, factor)
            shown[at] = guess[:, self.shown]
        return Result(
            method, tally.n, tally.error, tally.total, tally.pearson(), tally.unit_error,
            np.concatenate(tally.voxel_error).astype(np.float32), shown,
        )  # fmt: skip

    def _regions(self, latent: np.ndarray) -> dict[int, np.ndarray]:
        voxels, train, test = self.prepared.voxels, self.split.train, self.split.test
        return {
            depth: baselines.classify(latent[train], voxels.ancestors(depth)[train], latent[test])
            for depth in score.depths_of(voxels)
        }
