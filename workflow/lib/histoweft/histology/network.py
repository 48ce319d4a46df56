"""The default model: a ridge regression on a pixel's context, and an ensemble of small networks beside it.

Both look at the same features of a pixel (`context`) and give the components of log-normalised expression. A spot is
the mean over the points of its footprint, so what is learned from spots can be read at every pixel.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from histoweft import io
from histoweft.errors import InputError
from histoweft.training import Run, fit

_FORMAT = "histoweft context model 1"
_STEPS_PER_EPOCH = 20
_HELD_OUT_POINTS = 6
_ROWS = 16_384
"""Pixels predicted at a time."""


@dataclass(frozen=True)
class Options:
    """How the networks are built and trained.

    Attributes
    ----------
    members
        Networks in the ensemble.
    hidden, layers
        Width and number of hidden layers of each.
    dropout
        Share of hidden units left out of a training step; half of it for the inputs.
    learning_rate, weight_decay
        Of AdamW, under one cycle.
    steps
        Training steps at most.
    batch
        Spots a step.
    points
        Points of each spot's footprint that a step sees.
    patience
        Epochs (of 20 steps) without a better held-out correlation before training stops.
    ridge_share
        Weight of the ridge in the mean with the networks.
    """

    members: int = 15
    hidden: int = 64
    layers: int = 2
    dropout: float = 0.2
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    steps: int = 400
    batch: int = 64
    points: int = 4
    patience: int = 8
    ridge_share: float = 0.25


class Ensemble(nn.Module):
    """Multilayer perceptrons that run side by side as batched matrix products.

    Parameters
    ----------
    inputs, outputs
        Features of a pixel; components of expression.
    options
        Sizes.
    """

    def __init__(self, inputs: int, outputs: int, options: Options):
        super().__init__()
        sizes = [inputs, *[options.hidden] * options.layers, outputs]
        self.dropout = options.dropout
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for number, (before, after) in enumerate(pairwise(sizes)):
            # The last layer starts small: the first prediction is the mean.
            gain = math.sqrt(2) if number < options.layers else 0.3
            self.weights.append(torch.randn(options.members, before, after) * (gain / math.sqrt(before)))
            self.biases.append(torch.zeros(options.members, 1, after))

    @property
    def members(self) -> int:
        """Number of networks."""
        return self.weights[0].shape[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return members x rows x outputs, of rows x inputs for all or members x rows x inputs for each."""
        x = x.expand(self.members, *x.shape[-2:])
        x = F.dropout(x, self.dropout / 2, self.training)
        last = len(self.weights) - 1
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(bias, x, weight)
            if number < last:
                x = F.dropout(F.gelu(x), self.dropout, self.training)
        return x


@dataclass
class Data:
    """Spots to learn from.

    Attributes
    ----------
    pixels
        spots x points x features, float16 or float32, standardised: points of each spot's footprint.
    extra
        spots x further features, the same for all points of a spot; may have no columns.
    target
        spots x components, float32.
    parts
        Inner part of each spot, 0, 1, ...: what a member does not see is what it is judged on.
    """

    pixels: np.ndarray
    extra: np.ndarray
    target: np.ndarray
    parts: np.ndarray
    scale: float = field(init=False)

    def __post_init__(self):
        if not len(self.pixels) == len(self.extra) == len(self.target) == len(self.parts):
            raise ValueError("pixels, extra, target and parts are not of the same spots")
        # One scale for all components: their variances are their weights.
        self.scale = float(self.target.std(axis=0).max()) or 1.0


class _Batches:
    """Random spots for each member, and random points of them; one epoch."""

    def __init__(self, data: Data, options: Options):
        self._x, self._extra = torch.from_numpy(data.pixels), torch.from_numpy(data.extra.astype(np.float32))
        self._y = torch.from_numpy(data.target / data.scale)
        held_out = _held_out(data.parts, options.members)
        self._rows = [torch.from_numpy(np.flatnonzero(~held_out[member])) for member in range(options.members)]
        self._least = min(map(len, self._rows))
        self._batch, self._points = min(options.batch, self._least), min(options.points, data.pixels.shape[1])
        self._n = min(_STEPS_PER_EPOCH, options.steps)

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        order, at = None, 0
        for _ in range(self._n):
            if order is None or at + self._batch > self._least:
                order, at = torch.stack([rows[torch.randperm(len(rows))[: self._least]] for rows in self._rows]), 0
            spots = order[:, at : at + self._batch]
            at += self._batch
            points = torch.randint(self._x.shape[1], (*spots.shape, self._points))
            yield {"x": _joined(self._x[spots[..., None], points], self._extra[spots]), "y": self._y[spots]}


def _joined(pixels: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
    """Put a spot's further features beside those of each of its points."""
    extra = extra[..., None, :].expand(*pixels.shape[:-1], extra.shape[-1])
    return torch.cat([pixels.float(), extra], dim=-1)


def _held_out(parts: np.ndarray, members: int) -> np.ndarray:
    """Say which member does not see which spot, members x spots; nothing is held out of fewer than two parts."""
    n = int(parts.max()) + 1
    if n < 2:
        return np.zeros((members, len(parts)), dtype=bool)
    return parts[None, :] == (np.arange(members) % n)[:, None]


def _validation(data: Data, members: int) -> list[dict[str, torch.Tensor]] | None:
    held_out = _held_out(data.parts, members)
    if not held_out.any():
        return None
    batches = []
    points = data.pixels[:, :: max(1, data.pixels.shape[1] // _HELD_OUT_POINTS)]
    for rows in np.array_split(np.arange(len(points)), math.ceil(len(points) / 512)):
        x = _joined(torch.from_numpy(points[rows]), torch.from_numpy(data.extra[rows].astype(np.float32)))
        batches.append({
            "x": x, "y": torch.from_numpy(data.target[rows] / data.scale),
            "held_out": torch.from_numpy(held_out[:, rows]).float(),
        })  # fmt: skip
    return batches


def train(
    data: Data,
    options: Options,
    *,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    checkpoint: str | os.PathLike | None = None,
    fingerprint: str = "",
) -> tuple[Ensemble, Run]:
    """Train the ensemble.

    Parameters
    ----------
    data
        Spots.
    options
        Sizes and training.
    seed, device, threads, checkpoint, fingerprint
        See `training.fit`.

    Returns
    -------
    network
        In evaluation mode; its outputs are the target divided by ``data.scale``.
    run
        How it went.

    Notes
    -----
    Every member leaves one inner part out (bagging by blocks rather than by spots, whose neighbours would give them
    away), and the epoch kept is the one whose predictions of what was left out correlate best: the squared error would
    stop long before the order of the spots is learned.
    """
    from histoweft.histology.objectives import EnsembleTraining

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Ensemble(data.pixels.shape[2] + data.extra.shape[1], data.target.shape[1], options)
    module = EnsembleTraining(network, options)
    validation = _validation(data, options.members)
    run = fit(
        module, _Batches(data, options), validation, max_epochs=math.ceil(options.steps / _STEPS_PER_EPOCH),
        patience=options.patience if validation else None, monitor="val_pearson" if validation else "train_loss",
        mode="max" if validation else "min",
        seed=seed, device=device, threads=threads, checkpoint=checkpoint, fingerprint=fingerprint, gradient_clip=5.0,
    )  # fmt: skip
    return module.averaged.cpu().eval(), run


@torch.no_grad()
def predict(network: Ensemble, rows: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Return the mean over members, rows x outputs float32, of rows x inputs."""
    network = network.to(device)
    parts = [
        network(torch.from_numpy(np.ascontiguousarray(rows[start : start + _ROWS])).to(device).float())
        .mean(dim=0)
        .cpu()
        for start in range(0, len(rows), _ROWS)
    ]
    network.cpu()
    return torch.cat(parts).numpy() if parts else np.zeros((0, network.biases[-1].shape[-1]), dtype=np.float32)


@dataclass
class Model:
    """What maps a pixel's features to the components of expression.

    Attributes
    ----------
    network
        The ensemble; its outputs times `scale` are component scores.
    scale
        See `Data`.
    ridge, ridge_offset
        features x components and (components,): the linear part, on the pixel's features (without extra ones).
    ridge_share
        Its weight.
    axes, mean
        components x genes and (genes,): from scores to log-normalised expression.
    genes, features
        Names, in their orders.
    """

    network: Ensemble
    scale: float
    ridge: np.ndarray
    ridge_offset: np.ndarray
    ridge_share: float
    axes: np.ndarray
    mean: np.ndarray
    genes: list[str]
    features: list[str]

    def scores(self, rows: np.ndarray, device: str = "cpu") -> np.ndarray:
        """Return the component scores of pixels, rows x components float32.

        Parameters
        ----------
        rows
            pixels x features, standardised.
        device
            Of the networks.
        """
        given = predict(self.network, rows, device) * ((1 - self.ridge_share) * self.scale)
        return given + (rows @ self.ridge + self.ridge_offset) * self.ridge_share

    def expression(self, scores: np.ndarray, genes: np.ndarray) -> np.ndarray:
        """Return log-normalised expression of some genes (column numbers), rows x genes; never below 0."""
        return np.maximum(scores @ self.axes[:, genes] + self.mean[genes], 0).astype(np.float32)


def save(model: Model, path: str | os.PathLike, meta: dict[str, Any]) -> None:
    """Write a model; only tensors and text, so that reading it runs no code."""
    sizes = {"members": model.network.members, "hidden": model.network.weights[0].shape[2],
             "layers": len(model.network.weights) - 1, "dropout": model.network.dropout}  # fmt: skip
    arrays = {name: torch.from_numpy(np.ascontiguousarray(getattr(model, name), dtype=np.float32))
              for name in ("ridge", "ridge_offset", "axes", "mean")}  # fmt: skip
    facts = {"sizes": sizes, "scale": model.scale, "ridge_share": model.ridge_share, "genes": model.genes,
             "features": model.features, "meta": meta}  # fmt: skip
    with io.atomic(path) as partial:
        torch.save(
            {"format": _FORMAT, "facts": json.dumps(facts), "weights": model.network.state_dict(), **arrays}, partial
        )


def load(path: str | os.PathLike) -> tuple[Model, dict[str, Any]]:
    """Read a model written by `save`, and its meta.

    Raises
    ------
    InputError
        The file is not one.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if stored.get("format") != _FORMAT:
            raise ValueError(f"format {stored.get('format')!r}")
        facts = json.loads(stored["facts"])
        arrays = {name: stored[name].numpy() for name in ("ridge", "ridge_offset", "axes", "mean")}
        network = Ensemble(stored["weights"]["weights.0"].shape[1], arrays["axes"].shape[0], Options(**facts["sizes"]))
        network.load_state_dict(stored["weights"])
    except FileNotFoundError:
        raise
    except Exception as error:
        hint = "Delete it and run again: Snakemake makes it anew."
        raise InputError.one(path, error, "a gene model of the histology stage", hint) from error
    shared = {name: facts[name] for name in ("scale", "ridge_share", "genes", "features")}
    return Model(network=network.eval(), **arrays, **shared), facts["meta"]
