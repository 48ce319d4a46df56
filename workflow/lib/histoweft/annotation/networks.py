"""What the networks share: the loss, the cells held out to stop on, the way through the trainer, weights as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from histoweft.annotation import folds
from histoweft.annotation.models import Options, balanced_weights
from histoweft.training import Run, adam, fit

_HELD_OUT_FOLDS = 8
_PATIENCE = 8
_SMOOTHING = 0.05


class Classifier(pl.LightningModule):
    """Trains a network on batches of (inputs, types), types weighted alike, under one cycle of the learning rate.

    Parameters
    ----------
    network
        Called with the inputs of a batch; gives cells x types.
    weights
        Of the types, (types,).
    learning_rate, weight_decay, steps
        Of AdamW and its cycle.
    """

    def __init__(self, network: nn.Module, weights: np.ndarray, learning_rate: float, weight_decay: float, steps: int):
        super().__init__()
        self.save_hyperparameters(ignore=["network", "weights"])
        self.network = network
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)))

    def training_step(self, batch: tuple[Any, torch.Tensor], index: int) -> torch.Tensor:
        """Return the weighted cross-entropy of a batch."""
        inputs, codes = batch
        loss = F.cross_entropy(self.network(*inputs), codes, self.weights, label_smoothing=_SMOOTHING)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(codes))
        return loss

    def validation_step(self, batch: tuple[Any, torch.Tensor], index: int) -> None:
        """Log the weighted cross-entropy of held-out cells."""
        inputs, codes = batch
        self.log("val_loss", F.cross_entropy(self.network(*inputs), codes, self.weights), batch_size=len(codes))

    def configure_optimizers(self) -> Any:
        """Return AdamW under one cycle."""
        given = self.hparams
        optimizer = adam(self.network.parameters(), given.learning_rate, given.weight_decay)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, given.learning_rate, total_steps=max(given.steps, 10), pct_start=0.15
        )
        return [optimizer], [{"scheduler": cycle, "interval": "step"}]


def held_out(codes: np.ndarray, groups: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and those to stop on: a batch where batches allow it, else an eighth of each type."""
    fold = folds.inner(codes, groups, _HELD_OUT_FOLDS, seed)[0]
    return fold.train, fold.test


def train_network(
    network: nn.Module,
    batches: Iterable[Any],
    validation: Iterable[Any],
    codes: np.ndarray,
    n_types: int,
    options: Options,
    *,
    learning_rate: float,
    weight_decay: float,
) -> Run:
    """Train a network and leave it in evaluation mode with the weights of its best epoch.

    Parameters
    ----------
    network
        See `Classifier`.
    batches, validation
        Sized iterables of (inputs, types).
    codes
        Types of the training cells, for their weights.
    n_types
        Number of types.
    options
        Epochs, seed, device, threads.
    learning_rate, weight_decay
        Of AdamW.
    """
    steps = options.epochs * len(batches)
    module = Classifier(network, balanced_weights(codes, n_types), learning_rate, weight_decay, steps)
    return fit(
        module, batches, validation, max_epochs=options.epochs, patience=_PATIENCE, seed=options.seed,
        device=options.device, threads=options.threads, gradient_clip=1.0,
    )  # fmt: skip


def to_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Return a network's weights as arrays, their names prefixed with ``weight:``."""
    return {f"weight:{name}": value.detach().cpu().numpy() for name, value in network.state_dict().items()}


def from_arrays(network: nn.Module, state: dict[str, Any]) -> None:
    """Put weights that `to_arrays` returned into a network of the same build."""
    weights = {name.removeprefix("weight:"): torch.from_numpy(np.asarray(value)) for name, value in state.items()
               if name.startswith("weight:")}  # fmt: skip
    network.load_state_dict(weights)
    network.eval()
