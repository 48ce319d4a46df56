"""The published Spatial-VAE (Ahmed 2024): the yardstick that other models are measured against."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as functional
from torch import nn

from histoweft import training
from histoweft.atlas.data import Batches, Prepared
from histoweft.atlas.scaling import MINMAX

BATCH = 1_000
HIDDEN = (1_000, 500)
HEAD = 64
DROPOUT = 0.7
AFTER, BEFORE = "after_activation", "before_normalisation"


@dataclass(frozen=True)
class Options:
    """Settings of the published model.

    Attributes
    ----------
    latent
        Dimensions of the latent.
    epochs
        Passes over the fitting voxels; the one with the lowest validation loss is kept.
    kl, classification, regression
        Weights of the Kullback-Leibler term, of the cross-entropies of the coordinates, and of the squared errors of
        the coordinates (with the Euclidean term). The manuscript gives 1, 0 and 1.
    dropout
        Where the second layer's dropout stands: `AFTER` its activation, or `BEFORE` its batch normalisation.
    bfloat16
        Multiply matrices in bfloat16: the same loss in half the time where the processor knows it.
    """

    latent: int = 200
    epochs: int = 50
    kl: float = 1.0
    classification: float = 0.0
    regression: float = 1.0
    dropout: str = AFTER
    bfloat16: bool = True


class SpatialVAE(pl.LightningModule):
    """The published network and its loss.

    Parameters
    ----------
    prepared
        The fold: number of genes, their scale, extent of the positions.
    options
        Settings.

    Notes
    -----
    Input: each voxel's expression scaled to 0..1 (`scaling.voxel_limits`), gaps at the gene's mean. Encoder: genes -
    1,000 - batch norm - LeakyReLU - 500 - batch norm - LeakyReLU - dropout 0.7 - latent mean and log variance. The text
    puts the dropout in front of the second batch norm, whose running variance then holds the dropout's and shrinks
    everything once dropout is off: places shift by many voxels, far from the published error, which the order above
    comes near to (docs/benchmarks.md). Decoder: latent - 500 - genes, linear. Heads on the latent: for each axis 64
    hidden units and one class a grid plane; for each axis a linear regression. Loss, summed over genes (those
    measured), dimensions and axes, mean over the voxels of a batch: squared error + kl KL + classification cross-
    entropies + regression (squared errors of the axes + squared Euclidean distance). Adagrad.

    The two layers of the decoder have nothing between them: they are multiplied with one another first, which is the
    same function of the same parameters, with the same gradients, for fewer operations. What remains is nearly all
    matrix products: the rest of a step works on batch x genes in place (`_SquaredError`).
    """

    def __init__(self, prepared: Prepared, options: Options):
        super().__init__()
        self.options, self.unit = options, prepared.scaling.kind == MINMAX
        genes, (first, second) = prepared.values.shape[1], HIDDEN
        origin = np.floor(prepared.position.min(axis=0))
        planes = (np.ceil(prepared.position.max(axis=0)) - origin).astype(int) + 1
        last = [nn.BatchNorm1d(second), nn.LeakyReLU()]
        last.insert(len(last) if options.dropout == AFTER else 0, nn.Dropout(DROPOUT))
        self.encoder = nn.Sequential(
            nn.Linear(genes, first), nn.BatchNorm1d(first), nn.LeakyReLU(), nn.Linear(first, second), *last
        )
        self.to_mean, self.to_log_variance = nn.Linear(second, options.latent), nn.Linear(second, options.latent)
        self.decode_hidden, self.decode_genes = nn.Linear(options.latent, second), nn.Linear(second, genes)
        self.classify = nn.ModuleList(_head(options.latent, int(size)) for size in planes)
        self.regress = nn.Linear(options.latent, 3)
        scaling = prepared.scaling
        for name, values in (("gene_mean", scaling.mean), ("gene_sd", scaling.sd), ("origin", origin)):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)))

    def unscaled(self, values, least, span):
        """Return standardised expression as the network sees it, within 0..1; NaN stays NaN."""
        x = torch.addcmul(self.gene_mean, values, self.gene_sd)
        return x if self.unit else x.sub_(least).div_(span)

    def inputs(self, values, least, span):
        """Return expression within 0..1 with gaps at the gene's mean, and the same with gaps as NaN."""
        values = values.float()
        target = self.unscaled(values, least, span)
        return self.unscaled(values.nan_to_num_(nan=0.0), least, span), target

    def encode(self, x):
        """Return mean and log variance of the latent."""
        hidden = self.encoder(x)
        return self.to_mean(hidden), self.to_log_variance(hidden)

    def decode(self, latent):
        """Return expression within 0..1."""
        return functional.linear(latent, *self.decoder())

    def decoder(self):
        """Return weight and bias of the two layers as one."""
        weight = self.decode_genes.weight @ self.decode_hidden.weight
        return weight, self.decode_genes.weight @ self.decode_hidden.bias + self.decode_genes.bias

    def loss(self, batch):
        """Return the loss of a batch, and the reconstruction error in it."""
        values, least, span, position = batch
        weights = self.options
        x, target = self.inputs(values, least, span)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=weights.bfloat16):
            mean, log_variance = self.encode(x)
            latent = mean
            if self.training:
                latent = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
            (weight, bias), place = self.decoder(), self.regress(latent)
            classes = [head(latent) for head in self.classify] if weights.classification else []
        half = torch.bfloat16 if weights.bfloat16 else torch.float32
        parts = (part.to(half) for part in (latent, weight, bias, target))
        reconstruction = _SquaredError.apply(*parts) / len(x)
        mean, log_variance = mean.float(), log_variance.float()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum() / len(x)
        squares = (place.float() + self.origin - position).square().sum() / len(x)
        # The squared errors of the three axes, and their sum again as the Euclidean term.
        total = reconstruction + weights.kl * divergence + 2 * weights.regression * squares
        for axis, scores in enumerate(classes):
            plane = (position[:, axis] - self.origin[axis]).round().long()
            total = total + weights.classification * functional.cross_entropy(scores.float(), plane)
        return total, reconstruction

    def training_step(self, batch, _):
        """Return the loss of a batch."""
        total, reconstruction = self.loss(batch)
        found = {"loss": total, "reconstruction": reconstruction}
        self.log_dict(found, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return total

    def validation_step(self, batch, _):
        """Log the losses of a held-out batch."""
        total, reconstruction = self.loss(batch)
        self.log_dict({"val_loss": total, "val_reconstruction": reconstruction}, batch_size=len(batch[0]))

    def configure_optimizers(self):
        """Return Adagrad, all parameters in one kernel."""
        return torch.optim.Adagrad(self.parameters(), lr=0.01, fused=True)


class _SquaredError(torch.autograd.Function):
    """Squared error of a linear decoder, summed over what was measured.

    Batch x genes is by far the largest array here: the error is held once, in the precision of the products, and its
    gradient takes no further pass over it.
    """

    @staticmethod
    def forward(ctx, latent, weight, bias, target):
        """Return the sum; `latent` voxels x k, `weight` genes x k, `bias` (genes,), `target` with NaN for gaps."""
        error = functional.linear(latent, weight, bias).sub_(target).nan_to_num_(nan=0.0)
        ctx.save_for_backward(latent, weight, error)
        flat = error.flatten().float()
        return flat @ flat

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients of the first three."""
        latent, weight, error = ctx.saved_tensors
        twice = (2 * gradient).to(error.dtype)
        return (error @ weight) * twice, (error.T @ latent) * twice, error.sum(dim=0) * twice, None


def _head(latent: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(latent, HEAD), nn.LeakyReLU(), nn.Linear(HEAD, classes))


def train(
    prepared: Prepared,
    options: Options,
    *,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    checkpoint: str | os.PathLike | None = None,
):
    """Train the published model on the fitting voxels of a fold.

    Returns
    -------
    model
        With the weights of the epoch that did best on the validation voxels.
    run
        `training.Run`.
    """
    torch.manual_seed(seed)
    split = prepared.split
    model = SpatialVAE(prepared, options)
    arrays = [prepared.values, prepared.least, prepared.span, prepared.position]
    run = training.fit(
        model, Batches(arrays, split.fitting, BATCH), Batches(arrays, split.validation, BATCH, shuffle=False),
        max_epochs=options.epochs, seed=seed, device=device, threads=threads, checkpoint=checkpoint,
        fingerprint=f"{split.protocol}:{split.name}:{len(split.fitting)}:{int(split.fitting.sum())}",
    )  # fmt: skip
    return model, run


def apply(model, prepared: Prepared, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the trained model on voxels.

    Returns
    -------
    values
        rows x genes, standardised as `prepared.values`.
    position
        rows x 3, voxels.
    latent
        rows x latent: its mean.
    """
    least, span = prepared.least[rows], prepared.span[rows]
    with torch.inference_mode():
        parts = (prepared.values[rows], least, span)
        x, _ = model.inputs(*(torch.from_numpy(part) for part in parts))
        latent, _ = model.encode(x)
        decoded = model.decode(latent).numpy()
        position = (model.regress(latent) + model.origin).numpy()
    factor, offset = prepared.scaling.affine(least, span)
    return (decoded - offset) / factor, position, latent.numpy()
