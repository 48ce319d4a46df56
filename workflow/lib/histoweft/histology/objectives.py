"""What networks are trained for: giving the image back, the genes of each spot's footprint, and their components."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from histoweft.histology.autoencoder import PixelModel
from histoweft.histology.ssim import ssim
from histoweft.training import adam

if TYPE_CHECKING:
    from histoweft.histology.network import Ensemble, Options

_DECAY = 0.97
"""Of the running mean of an ensemble's weights: about the last thirty steps."""


class Reconstruction(pl.LightningModule):
    """Train a network to give its image back: 1 - SSIM, with a share of the absolute differences.

    Batches are images (n, 3, h, w), 0 to 1. Logs ``train_loss`` and ``val_ssim``.

    Parameters
    ----------
    model
        The network.
    lr
        Highest learning rate; it rises and falls once over the run (Smith and Topin 2019).
    l1
        Weight of the mean absolute difference.
    hue
        Weight of the same after the mean of each pixel's three values is taken off. The similarity looks at structure,
        which the three colours share: by itself it gives a section back in a single tint, and the tint is what tells
        eosin from haematoxylin.
    """

    def __init__(self, model: PixelModel, lr: float = 1e-2, l1: float = 2.0, hue: float = 10.0):
        super().__init__()
        self.save_hyperparameters({"kind": model.kind, "lr": lr, "l1": l1, "hue": hue})
        self.model = model

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        """Return the loss of one batch."""
        given = self.model.image(self.model.hidden(batch), *batch.shape[2:])
        loss = 1 - ssim(given, batch) + self.hparams.l1 * F.l1_loss(given, batch)
        off = given - batch
        loss = loss + self.hparams.hue * (off - off.mean(dim=1, keepdim=True)).abs().mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        """Log the held-out similarity."""
        given = self.model.image(self.model.hidden(batch), *batch.shape[2:])
        self.log("val_ssim", ssim(given, batch), batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        """Return Adam under one cycle of the learning rate."""
        return _one_cycle(self)


class GeneTraining(pl.LightningModule):
    """Train the gene channels on the means over the spots' footprints, and the image along with them.

    A batch is a dict of one section: ``image`` (1, 3, h, w), 0 to 1; ``footprints`` from `quarter`; ``targets``
    spots x n_genes, standardised log-normalised expression. Held-out batches have the held-out spots' footprints and
    targets. Logs ``train_loss``, ``val_loss`` (of the genes alone) and ``val_ssim``.

    Parameters
    ----------
    model
        A network with a gene head.
    lr
        Highest learning rate; it rises and falls once over the run (Smith and Topin 2019). A constant one kills the
        rectified units of the autoencoder when it is high, and converges slowly when it is low.
    image_weight
        Weight of 1 - SSIM beside the genes' mean squared error: the image must not be given up for the genes.
    """

    def __init__(self, model: PixelModel, lr: float = 1e-3, image_weight: float = 1.0):
        super().__init__()
        if model.n_genes == 0:
            raise ValueError("this network has no gene channels; call add_gene_head first")
        self.save_hyperparameters({"kind": model.kind, "lr": lr, "image_weight": image_weight})
        self.model = model

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        """Return the loss of one section."""
        genes, image = self._losses(batch)
        loss = genes + self.hparams.image_weight * image
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["targets"]))
        return loss

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        """Log both losses of the held-out spots of one section."""
        genes, image = self._losses(batch)
        scores = {"val_loss": genes, "val_ssim": 1 - image}
        self.log_dict(scores, batch_size=len(batch["targets"]))

    def configure_optimizers(self) -> Any:
        """Return Adam under one cycle of the learning rate."""
        return _one_cycle(self)

    def _losses(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.model.hidden(batch["image"])
        genes = F.mse_loss(self.model.pooled_genes(hidden, batch["footprints"]), batch["targets"])
        image = batch["image"]
        return genes, 1 - ssim(self.model.image(hidden, *image.shape[2:]), image)


class EnsembleTraining(pl.LightningModule):
    """Train an ensemble of networks of spots; each member is judged on the spots it does not see.

    What is judged and kept is a running mean of the weights (Polyak and Juditsky 1992): at a high learning rate the
    weights of a single step are too noisy to stop at.

    Batches are dicts: ``x`` (members, spots, points, inputs) and ``y`` (members, spots, outputs) in training; ``x``
    (spots, points, inputs), ``y`` (spots, outputs) and ``held_out`` (members, spots), 1 where a member has not seen the
    spot, in validation. Logs ``train_loss``, ``val_mse`` and ``val_pearson``.

    Parameters
    ----------
    network
        The ensemble.
    options
        See `network.Options`; learning rate, weight decay and steps are used.
    """

    def __init__(self, network: Ensemble, options: Options):
        super().__init__()
        self.save_hyperparameters({name: value for name, value in vars(options).items() if name != "ridge_share"})
        self.network, self.averaged = network, copy.deepcopy(network).requires_grad_(False)
        self._given: list[torch.Tensor] = []
        self._wanted: list[torch.Tensor] = []

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        """Return the loss of one batch: squared errors of the means over points."""
        loss = ((self._spots(self.network, batch["x"]) - batch["y"]) ** 2).sum(dim=-1).mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Take the new weights into the running mean."""
        for mean, now in zip(self.averaged.parameters(), self.network.parameters()):
            mean.data.lerp_(now.data, min(1 - _DECAY, 1 / (1 + self.global_step / 10)) if self.global_step > 1 else 1.0)

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        """Keep what the members that did not see a spot say of it."""
        held_out = batch["held_out"][..., None]
        given = self._spots(self.averaged.eval(), batch["x"])
        # Few members leave some parts to none of them.
        judged = batch["held_out"].any(dim=0)
        self._given.append(((given * held_out).sum(dim=0) / held_out.sum(dim=0))[judged])
        self._wanted.append(batch["y"][judged])

    def on_validation_epoch_end(self) -> None:
        """Log the held-out error and the correlation, weighted by the components' variances."""
        given, wanted = torch.cat(self._given), torch.cat(self._wanted)
        self._given.clear()
        self._wanted.clear()
        self.log("val_mse", ((given - wanted) ** 2).sum(dim=1).mean())
        given, wanted = given - given.mean(dim=0), wanted - wanted.mean(dim=0)
        size = ((given**2).sum(dim=0) * (wanted**2).sum(dim=0)).sqrt().clamp(min=1e-9)
        weight = wanted.var(dim=0)
        # Nothing is left to learn where a serial section is a copy: no correlation then, not NaN.
        self.log("val_pearson", ((given * wanted).sum(dim=0) / size * weight).sum() / weight.sum().clamp(min=1e-9))

    def configure_optimizers(self) -> Any:
        """Return AdamW under one cycle of the learning rate."""
        optimizer = adam(self.network.parameters(), self.hparams.learning_rate, self.hparams.weight_decay)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.hparams.learning_rate, total_steps=max(self.hparams.steps, 10), pct_start=0.1
        )
        return [optimizer], [{"scheduler": cycle, "interval": "step"}]

    @staticmethod
    def _spots(network: Ensemble, x: torch.Tensor) -> torch.Tensor:
        """Return members x spots x outputs, the mean over the points of each spot."""
        spots, points = x.shape[-3:-1]
        return network(x.flatten(-3, -2)).unflatten(1, (spots, points)).mean(dim=2)


def _one_cycle(module: pl.LightningModule) -> Any:
    optimizer = adam(module.parameters(), module.hparams.lr)
    steps = max(10, int(module.trainer.estimated_stepping_batches))
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, module.hparams.lr, total_steps=steps, pct_start=0.2)
    return [optimizer], [{"scheduler": cycle, "interval": "step"}]
