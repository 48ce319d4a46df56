"""A network around principal components: it starts as PCA, and learns what a line cannot say."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from histoweft import training
from histoweft.atlas.data import Axes, Batches, Prepared
from histoweft.atlas.score import fold

BATCH = 512
WIDTHS = (128, 512)
"""Hidden units: four for each component, within these bounds."""
FRONT = 3
"""Principal components that the network sees and returns, for each dimension of its latent."""


@dataclass(frozen=True)
class Options:
    """Settings of the network.

    Attributes
    ----------
    latent
        Dimensions of the latent.
    epochs
        Passes over the fitting voxels, at most.
    patience
        Share of the epochs without a better validation loss after which training ends.
    lr, weight_decay, dropout
        Of AdamW at the top of the cosine schedule, and of the layers.
    position_weight
        Weight of the mean distance (in standard deviations of the positions) beside the share of the variance that is
        not reconstructed.
    """

    latent: int = 200
    epochs: int = 30
    patience: float = 0.35
    lr: float = 1.5e-3
    weight_decay: float = 0.02
    dropout: float = 0.0
    position_weight: float = 0.5


@dataclass(frozen=True)
class Trained:
    """The network with the axes it works on.

    Attributes
    ----------
    axes
        Front and back end.
    network
        Whitened scores to latent, whitened scores, standardised position.
    centre, spread
        Of the positions.
    gate
        Whether the network reconstructs held-out training voxels better than its own start, PCA; where it does not,
        latent and reconstruction are better taken from PCA.
    position_error
        Mean distance on the validation voxels, left-right folded, voxels.
    validation
        Share of the components' variance reconstructed on the validation voxels: ``network`` and ``pca``.
    """

    axes: Axes
    network: Network
    centre: np.ndarray
    spread: float
    gate: bool
    position_error: float
    validation: dict[str, float]

    @property
    def scale(self) -> np.ndarray:
        """Standard deviation of each component, that the network's scores are divided by."""
        return _scale(self.axes)

    def apply(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return reconstructed scores, position, and latent (in units of the scores) of rows of component scores."""
        scale = self.scale
        with torch.inference_mode():
            latent, output, place = (part.numpy() for part in self.network(torch.from_numpy(scores / scale)))
        return output * scale, place * self.spread + self.centre, latent * scale[: latent.shape[1]]


class Block(nn.Module):
    """A residual layer: LayerNorm, linear, GELU."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        self.inside = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout))

    def forward(self, x):
        """Add what the layer says."""
        return x + self.inside(x)


class Network(nn.Module):
    """Autoencoder of whitened component scores, and the place; exactly PCA before training.

    Notes
    -----
    latent = leading scores + E(all scores); reconstruction = latent, in place of the leading scores, +
    D(latent). E and D are residual networks whose last layers start at zero. The position is read from E's trunk.
    """

    def __init__(self, n_components: int, latent: int, dropout: float):
        super().__init__()
        self.latent = latent
        width = int(np.clip(4 * n_components, *WIDTHS))

        def layers(size: int, blocks: int) -> list[nn.Module]:
            first = [nn.Linear(size, width), nn.GELU(), nn.Dropout(dropout)] if size else []
            return [*first, *(Block(width, dropout) for _ in range(blocks)), nn.LayerNorm(width)]

        self.trunk = nn.Sequential(*layers(n_components, 2))
        self.to_latent = _zero(width, latent)
        self.decoder = nn.Sequential(*layers(latent, 1), _zero(width, n_components))
        self.place = nn.Sequential(*layers(0, 1), nn.Linear(width, 3))

    def forward(self, scores):
        """Return latent, reconstructed scores and standardised position."""
        hidden = self.trunk(scores)
        code = scores[:, : self.latent] + self.to_latent(hidden)
        output = self.decoder(code)
        return code, torch.cat([output[:, : self.latent] + code, output[:, self.latent :]], dim=1), self.place(hidden)


def _zero(width: int, size: int) -> nn.Linear:
    layer = nn.Linear(width, size)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Fit(pl.LightningModule):
    """The network in training."""

    def __init__(self, network: Network, weight: np.ndarray, options: Options, steps: int):
        super().__init__()
        self.network, self.options, self.steps = network, options, steps
        self.register_buffer("weight", torch.from_numpy(weight.astype(np.float32)))

    def losses(self, batch):
        """Return the share of the variance that is missed, and the mean distance."""
        given, truth = batch
        given = given.float()
        with torch.autocast(given.device.type, torch.bfloat16):
            _, output, guess = self.network(given)
        missed = ((output.float() - given).square() * self.weight).sum(dim=1).mean()
        distance = (guess.float() - truth).square().sum(dim=1).add(1e-6).sqrt().mean()
        return missed, missed + self.options.position_weight * distance

    def training_step(self, batch, _):
        """Return the loss of a batch."""
        missed, loss = self.losses(batch)
        found = {"loss": loss, "reconstruction": missed}
        self.log_dict(found, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch, _):
        """Log the losses of a held-out batch."""
        missed, loss = self.losses(batch)
        self.log_dict({"val_loss": loss, "val_reconstruction": missed}, batch_size=len(batch[0]))

    def configure_optimizers(self):
        """Return AdamW with a cosine schedule."""
        lr = self.options.lr
        optimizer = training.adam(self.parameters(), lr, self.options.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=self.steps, pct_start=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(
    prepared: Prepared,
    axes: Axes,
    scores: np.ndarray,
    options: Options,
    *,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    checkpoint: str | os.PathLike | None = None,
) -> tuple[Trained, training.Run]:
    """Train the network on the fitting voxels of a fold.

    Parameters
    ----------
    prepared, axes, scores
        The fold, its principal axes, and the scores of all voxels on them, voxels x axes.
    options
        Settings.
    seed, device, threads, checkpoint
        See `training.fit`.

    Notes
    -----
    Loss: squared error of the components as a share of their variance + position_weight mean distance. AdamW, cosine
    schedule. Everything happens on the components: no product of the size of the genes is left in an epoch.
    """
    split = prepared.split
    latent = min(options.latent, scores.shape[1])
    whitened = (scores / _scale(axes)).astype(np.float16)
    known = prepared.position[split.train]
    centre, spread = known.mean(axis=0), float(known.std()) or 1.0
    place = ((prepared.position - centre) / spread).astype(np.float32)
    batches = Batches([whitened, place], split.fitting, min(BATCH, max(8, len(split.fitting) // 8)))

    torch.manual_seed(seed)
    network = Network(scores.shape[1], latent, options.dropout)
    patience = max(3, round(options.patience * options.epochs))
    run = training.fit(
        Fit(network, axes.variance / axes.variance.sum(), options, options.epochs * len(batches)), batches,
        Batches([whitened, place], split.validation, 4_000, shuffle=False),
        max_epochs=options.epochs, patience=patience, seed=seed, device=device, threads=threads,
        checkpoint=checkpoint, gradient_clip=1.0,
        fingerprint=f"{split.protocol}:{split.name}:{len(split.fitting)}:{int(split.fitting.sum())}",
    )  # fmt: skip
    return _judged(prepared, Trained(axes, network, centre, spread, True, np.nan, {}), scores, latent), run


def _judged(prepared: Prepared, trained: Trained, scores: np.ndarray, latent: int) -> Trained:
    """Compare the network with its start, PCA, on the validation voxels."""
    held_out = prepared.split.validation
    truth = scores[held_out]
    output, place, _ = trained.apply(truth)
    total = float((truth**2).sum())
    found = {
        "network": 1 - float(((output - truth) ** 2).sum()) / total,
        "pca": float((truth[:, :latent] ** 2).sum()) / total,
    }
    error = float(
        np.linalg.norm(fold(place, prepared.voxels.midline) - prepared.voxels.folded()[held_out], axis=1).mean()
    )
    return replace(trained, gate=found["network"] > found["pca"], position_error=error, validation=found)


def _scale(axes: Axes) -> np.ndarray:
    return np.sqrt(np.maximum(axes.variance, axes.variance[0] * 1e-8)).astype(np.float32)
