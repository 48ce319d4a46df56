"""What the networks of pixels are trained for: giving the image back, and the genes of each spot's footprint."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F

from histoweft.histology.autoencoder import PixelModel
from histoweft.histology.ssim import ssim
from histoweft.training import adam


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


def _one_cycle(module: pl.LightningModule) -> Any:
    optimizer = adam(module.parameters(), module.hparams.lr)
    steps = max(10, int(module.trainer.estimated_stepping_batches))
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, module.hparams.lr, total_steps=steps, pct_start=0.2)
    return [optimizer], [{"scheduler": cycle, "interval": "step"}]
