"""Which genes place and structures are told from: integrated gradients of the network, held against the annotation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from histoweft.atlas import data, folds, score
from histoweft.atlas.data import Axes, Prepared
from histoweft.atlas.fit import latent_size
from histoweft.atlas.voxels import Voxels
from histoweft.metrics import area_under_curve

VOXELS = 2_000
"""Held-out voxels that are explained, at most."""
STRUCTURES = 12
"""Structures that are explained, the largest."""
STEPS = 24
"""Points on the way from the mean voxel to a voxel at which the gradient is taken."""
MARKERS = 0.1
"""Share of the genes that count as markers of a target when the attributions are checked."""


def explain(
    voxels: Voxels, options: Mapping[str, Any], *, seed: int = 0, device: str = "cpu", threads: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train the network once, and find the genes it goes by.

    Parameters
    ----------
    voxels
        The atlas.
    options
        The section ``atlas`` of the config.
    seed, device, threads
        See `training.fit`.

    Returns
    -------
    genes
        ``target``, ``kind`` (axis or structure), ``gene``, ``attribution`` (axes: mean size, voxels; structures: mean,
        share of the log odds), ``association`` (see `association`), ``rank``.
    agreement
        ``target``, ``kind``, ``auroc``: whether the genes most associated with the target in the data have the largest
        attributions; ``genes`` and ``markers``, their numbers; ``voxels`` explained.

    Notes
    -----
    Integrated gradients (Sundararajan, Taly and Yan 2017) from the mean voxel, on voxels of the first
    random fold's test part. The network starts with a linear map from genes to components: the gradient is carried
    through it exactly.
    """
    from histoweft.atlas import residual

    split = folds.make(voxels, folds.RANDOM, options["folds"], 0.0, seed)[0]
    prepared = data.prepare(voxels, split, options["n_genes"], options["clip"], options["scaling"])
    latent = latent_size(options["latent"], prepared.values.shape[1], len(split.train))
    axes = data.principal_axes(prepared, residual.FRONT * latent)
    scores = axes.project_all(prepared)
    settings = residual.Options(latent=latent, epochs=options["epochs"])
    trained, _ = residual.train(prepared, axes, scores, settings, seed=seed, device=device, threads=threads)
    asked = split.test[:: max(1, len(split.test) // VOXELS)]
    tables, checks = [], []
    for target, kind, attribution, truth in _targets(trained, prepared, axes, scores, asked):
        table = pd.DataFrame(
            {"target": target, "kind": kind, "gene": prepared.genes, "attribution": attribution, "association": truth}
        )
        table["rank"] = table["attribution"].rank(ascending=False, method="first").astype(int)
        tables.append(table.sort_values("rank"))
        checks.append(_check(target, kind, attribution, truth, len(asked)))
    return pd.concat(tables, ignore_index=True), pd.DataFrame(checks)


def _check(target: str, kind: str, attribution: np.ndarray, truth: np.ndarray, n: int) -> dict[str, Any]:
    markers = truth >= np.quantile(truth, 1 - MARKERS)
    return {
        "target": target, "kind": kind, "auroc": area_under_curve(markers, attribution), "genes": len(truth),
        "markers": int(markers.sum()), "voxels": n,
    }  # fmt: skip


def _targets(trained, prepared: Prepared, axes: Axes, scores: np.ndarray, asked: np.ndarray):
    """Yield target, kind, attribution and association of each gene."""
    values = np.nan_to_num(prepared.rows(asked) - axes.mean)
    midline = prepared.voxels.midline
    names = {0: "z", 1: "y", 2: "x" if midline is None else "distance to the midline"}
    for axis, name in names.items():
        place = _Place(trained, axis, midline)
        gradient = integrated_gradient(place, scores[asked], trained.scale) @ axes.axes.T
        truth = prepared.voxels.folded()[asked, axis]
        yield name, "axis", np.abs(gradient * values).mean(axis=0), association(prepared.rows(asked), truth)
    labels, told = _structures(prepared.voxels, asked)
    if not told:
        return
    head = _Head.fit(trained, scores, labels, prepared.split.train, list(told))
    inside = labels[asked]
    for number, (structure, name) in enumerate(told.items()):
        gradient = integrated_gradient(head.of(number), scores[asked], trained.scale) @ axes.axes.T
        share = gradient * values
        of = inside == structure
        attribution = share[of].mean(axis=0) - share[~of].mean(axis=0)
        truth = association(prepared.rows(asked), of.astype(float))
        yield name, "structure", np.abs(attribution), truth


def association(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the squared correlation of each gene with a target over voxels, gaps left out; 0 where a gene is constant.

    For a structure (1 inside, 0 outside) this is the share of the gene's variance that lies between inside and outside.
    """
    there = ~np.isnan(values)
    n = np.maximum(there.sum(axis=0), 1)
    x = np.where(there, values, 0.0)
    t = np.asarray(target, dtype=np.float64)[:, None] * there
    mx, mt = x.sum(axis=0) / n, t.sum(axis=0) / n
    covariance = (x * t).sum(axis=0) / n - mx * mt
    spread = ((x * x).sum(axis=0) / n - mx**2) * ((t * t).sum(axis=0) / n - mt**2)
    return np.divide(covariance**2, spread, out=np.zeros(len(n)), where=spread > 1e-12)


def integrated_gradient(function, scores: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Average the gradient of a function between the mean voxel and each voxel.

    Parameters
    ----------
    function
        Module: whitened component scores to one number a voxel.
    scores
        voxels x components.
    scale
        Of each component.

    Returns
    -------
    ndarray
        voxels x components, with respect to the scores: times the scores, and summed, it is the change of the function
        from the mean voxel to the voxel.
    """
    import torch
    from captum.attr import IntegratedGradients

    gradients = IntegratedGradients(function, multiply_by_inputs=False)
    found = []
    for start in range(0, len(scores), 256):
        given = torch.from_numpy((scores[start : start + 256] / scale).astype(np.float32))
        found.append(gradients.attribute(given, n_steps=STEPS, internal_batch_size=2_048).detach().numpy())
    return (np.concatenate(found) / scale).astype(np.float32)


class _Place:
    """One coordinate, in voxels; x as distance to the midline where there is one."""

    def __init__(self, trained, axis: int, midline: float | None):
        self._trained, self._axis, self._midline = trained, axis, midline

    def __call__(self, given):
        place = self._trained.network(given)[2][:, self._axis] * self._trained.spread
        place = place + float(self._trained.centre[self._axis])
        return (place - self._midline).abs() if self._axis == 2 and self._midline is not None else place


class _Head:
    """Log odds of structures, linear on the latent: linear discriminant analysis."""

    def __init__(self, trained, directions: np.ndarray, offset: np.ndarray):
        self._trained, self._directions, self._offset = trained, directions, offset

    @classmethod
    def fit(cls, trained, scores: np.ndarray, labels: np.ndarray, train: np.ndarray, told: list[int]):
        """Fit to the latent of the training voxels that lie in the structures asked for."""
        from histoweft.atlas.baselines import discriminant

        rows = train[np.isin(labels[train], told)]
        pieces = np.array_split(rows, max(1, len(rows) // 2_000))
        latent = np.concatenate([trained.apply(scores[piece])[2] for piece in pieces])
        classes, directions, offset = discriminant(latent, labels[rows])
        order = [int(np.flatnonzero(classes == structure)[0]) for structure in told]
        return cls(trained, directions[:, order].astype(np.float32), offset[order].astype(np.float32))

    def of(self, number: int):
        """Return the log odds of a structure against the mean of the others, as a function of whitened scores."""
        import torch

        scale = self._trained.scale[: len(self._directions)]
        weight = torch.from_numpy(scale * (self._directions[:, number] - self._directions.mean(axis=1)))
        offset = float(self._offset[number] - self._offset.mean())
        return lambda given: self._trained.network(given)[0] @ weight + offset


def _structures(voxels: Voxels, asked: np.ndarray) -> tuple[np.ndarray | None, dict[int, str]]:
    """Choose the level of the structure tree with a legible number of structures, and name the largest of them."""
    depths = [depth for depth in score.depths_of(voxels, at_most=100) if len(np.unique(voxels.ancestors(depth))) <= 40]
    if not depths:
        return None, {}
    labels = voxels.ancestors(depths[-1])
    ids, counts = np.unique(labels[asked], return_counts=True)
    large = ids[(counts >= 5) & (ids != 0)][np.argsort(-counts[(counts >= 5) & (ids != 0)], kind="stable")][:STRUCTURES]
    names = voxels.structures.set_index("id")["acronym"]
    return labels, {int(one): str(names.get(one, one)) for one in large} if len(large) > 1 else {}
