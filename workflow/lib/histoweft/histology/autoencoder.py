"""Convolutional encoder-decoders that give back the image, and a gene for every pixel beside it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn

from histoweft import io
from histoweft.errors import InputError, nearest

_FORMAT = "histoweft pixel model 1"


class PixelModel(nn.Module):
    """What the networks have in common: any image size, an image and genes out, dense features.

    A subclass sets ``stages`` (modules that each halve the image), ``decoder`` (back to half of its size) and
    ``head`` (the last layer, a transposed convolution of 2 x 2 px with stride 2).

    Attributes
    ----------
    n_genes
        Gene channels of the last layer.
    stride
        Sides of images are filled up to a multiple of this inside, by mirroring their edge, and cut off again.
    margin
        Pixels around a window that what is computed inside depends on: a window at a multiple of `stride`, cut with
        this margin, gives what the whole image gives.
    reconstruction
        Options of `objectives.Reconstruction` that it learns well with: rectified units without a way around die at a
        high learning rate, and what is nearly all structure is slowed down by the weight of hues.
    """

    kind: str
    margin: int
    reconstruction: Mapping[str, float]
    stages: nn.ModuleList
    decoder: nn.Module
    head: nn.ConvTranspose2d

    def __init__(self, n_genes: int):
        super().__init__()
        if n_genes < 0:
            raise ValueError(f"n_genes is at least 0, not {n_genes}")
        self.n_genes = n_genes

    @property
    def stride(self) -> int:
        """Pixels of the image per cell of the coarsest layer."""
        return 2 ** len(self.stages)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image back and the genes.

        Parameters
        ----------
        x
            (n, 3, h, w), 0 to 1.

        Returns
        -------
        rgb
            (n, 3, h, w), 0 to 1.
        genes
            (n, n_genes, h, w), in the units of the targets it was trained on.
        """
        out = self.head(self.hidden(x))[..., : x.shape[2], : x.shape[3]]
        return out[:, :3].clamp(0, 1), out[:, 3:]

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the last layer sees, (n, c, h / 2, w / 2), of the filled-up image."""
        x = self._filled(x)
        for stage in self.stages:
            x = stage(x)
        return self.decoder(x)

    def image(self, hidden: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """Return the image alone from `hidden`, (n, 3, height, width), without computing a gene.

        Values may lie a little outside 0 to 1: a function that bounds them has no gradient where it bounds, and a
        similarity that looks at structure leaves an image white for ever.
        """
        out = F.conv_transpose2d(hidden, self.head.weight[:, :3], self.head.bias[:3], stride=2)
        return out[..., :height, :width]

    def genes(self, hidden: torch.Tensor, which: np.ndarray, height: int, width: int) -> torch.Tensor:
        """Return some gene channels from `hidden`, (n, len(which), height, width)."""
        channels = 3 + torch.as_tensor(which, device=hidden.device)
        out = F.conv_transpose2d(hidden, self.head.weight[:, channels], self.head.bias[channels], stride=2)
        return out[..., :height, :width]

    def pooled_genes(self, hidden: torch.Tensor, footprints: torch.Tensor) -> torch.Tensor:
        """Return the mean of each gene over each footprint without computing a gene at any pixel.

        The mean and the last layer are both linear, so the footprints can be averaged first, over the few channels
        that the last layer sees; the cost no longer depends on how many genes there are.

        Parameters
        ----------
        hidden
            (1, c, h / 2, w / 2), from `hidden`.
        footprints
            (4 x spots) x (h / 2 x w / 2), from `quarter`.

        Returns
        -------
        spots x n_genes.
        """
        means = footprints @ hidden[0].flatten(1).T
        weight = self.head.weight[:, 3:].permute(2, 3, 0, 1).flatten(0, 2)
        # Rows of a footprint sum to 1, and the bias counts once however its four parts share that.
        return means.reshape(-1, weight.shape[0]) @ weight + self.head.bias[3:]

    def features(self, x: torch.Tensor, stride: int = 2) -> torch.Tensor:
        """Return what every stage of the encoder sees, side by side on one grid.

        Parameters
        ----------
        x
            (n, 3, h, w), 0 to 1.
        stride
            Pixels per cell of the grid, a power of 2. Coarser stages are repeated, finer ones averaged.

        Returns
        -------
        (n, channels, ceil(h / stride), ceil(w / stride)).
        """
        size = [-(-side // stride) for side in x.shape[2:]]
        x = self._filled(x)
        maps = []
        for level, stage in enumerate(self.stages, 1):
            x, seen = self._see(stage, x)
            step = 2**level
            if step < stride:
                same = F.avg_pool2d(seen, stride // step, ceil_mode=True)
            else:
                same = F.interpolate(seen, scale_factor=step / stride, mode="nearest") if step > stride else seen
            maps.append(same[..., : size[0], : size[1]])
        return torch.cat(maps, dim=1)

    def start_at(self, colour: np.ndarray) -> None:
        """Let the first image have this mean colour, (3,), 0 to 1.

        Otherwise the first steps drive every pixel towards it at once, and kill rectified units on the way.
        """
        with torch.no_grad():
            self.head.bias[:3] = torch.as_tensor(colour, dtype=self.head.bias.dtype)

    def add_gene_head(self, n_genes: int, seed: int) -> None:
        """Append gene channels to the last layer; what it has learned of the image stays.

        Parameters
        ----------
        n_genes
            Channels wanted; those of an earlier call are replaced.
        seed
            Of their first weights.
        """
        old = self.head
        generator = torch.Generator().manual_seed(seed)
        new = nn.ConvTranspose2d(old.in_channels, 3 + n_genes, 2, stride=2).to(old.weight)
        with torch.no_grad():
            new.weight[:, :3], new.bias[:3] = old.weight[:, :3], old.bias[:3]
            fresh = torch.randn(new.weight[:, 3:].shape, generator=generator) / old.in_channels**0.5
            new.weight[:, 3:], new.bias[3:] = fresh, 0.0
        self.head, self.n_genes = new, n_genes

    def _see(self, stage: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what a stage passes on, and what it shows as features."""
        x = stage(x)
        return x, x

    def _filled(self, x: torch.Tensor) -> torch.Tensor:
        """Centre the values, and fill the sides up to a multiple of the stride."""
        # Colours side by side in memory: convolutions of few channels are a third faster on a CPU.
        x = (2 * x - 1).contiguous(memory_format=torch.channels_last)
        height, width = x.shape[2:]
        down, right = -height % self.stride, -width % self.stride
        if not (down or right):
            return x
        # Mirroring needs more pixels than it adds; tiny images repeat their edge.
        mode = "reflect" if down < height and right < width else "replicate"
        return F.pad(x, (0, right, 0, down), mode=mode)


class Autoencoder(PixelModel):
    """The yardstick: four convolutions with max-pooling down to 1/16, four transposed convolutions back.

    Its shape is that of the reference project's network; the dense bottleneck is left out, and with it the fixed size
    of the image and nearly all of the parameters.
    """

    kind = "autoencoder"
    margin = 16
    reconstruction = MappingProxyType({"lr": 3e-3, "l1": 2.0, "hue": 0.0})

    def __init__(self, n_genes: int = 0):
        super().__init__(n_genes)
        widths = (3, 16, 32, 64, 128)
        # max(relu(x)) = relu(max(x)): the order here needs a quarter of the memory.
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True))
            for a, b in pairwise(widths)
        )
        self.decoder = nn.Sequential(
            *(
                layer
                for a, b in ((128, 64), (64, 32), (32, 16))
                for layer in (nn.ConvTranspose2d(a, b, 2, stride=2), nn.ReLU(inplace=True))
            )
        )
        self.head = nn.ConvTranspose2d(16, 3 + n_genes, 2, stride=2)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                # Signals keep their size through ReLU (He et al. 2015); 2 x 2 of stride 2 sum over channels only.
                inputs = layer.in_channels * (9 if isinstance(layer, nn.Conv2d) else 1)
                nn.init.normal_(layer.weight, std=(2 / inputs) ** 0.5)
                nn.init.zeros_(layer.bias)
        _start_at_grey(self.head, 0.3)


class Encoder(PixelModel):
    """A compact encoder-decoder without skips: 64 channels at 1/8 of the image must carry all of it.

    Every layer is a linear map of 2 x 2 px plus a correction that starts at zero (as in a residual network, He et al.
    2016), and the way back starts as the transpose of the way in. The linear maps alone can be the principal components
    of 8 x 8 px, so the image comes back within a few hundred steps. What the corrections look at, through a ReLU, are
    the features: over a spot, a linear filter averages to nothing, a rectified one to how much of its texture there is.
    """

    kind = "encoder"
    margin = 24
    reconstruction = MappingProxyType({"lr": 1e-2, "l1": 2.0, "hue": 10.0})

    def __init__(self, n_genes: int = 0):
        super().__init__(n_genes)
        widths = (3, 16, 32, 64)
        self.stages = nn.ModuleList(_Stage(nn.Conv2d(a, b, 2, stride=2)) for a, b in pairwise(widths))
        self.decoder = nn.Sequential(*(_Stage(nn.ConvTranspose2d(a, b, 2, stride=2)) for a, b in ((64, 32), (32, 16))))
        self.head = nn.ConvTranspose2d(16, 3 + n_genes, 2, stride=2)
        with torch.no_grad():
            for there, back in zip(self.stages[:0:-1], self.decoder):
                back.linear.weight.copy_(there.linear.weight)
            self.head.weight[:, :3] = self.stages[0].linear.weight
        _start_at_grey(self.head, 0.5)

    def _see(self, stage: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = stage.linear(x)
        seen = stage.look(x)
        return x + stage.correct(seen), seen


class _Stage(nn.Module):
    """A linear change of size, and a correction of what it gives."""

    def __init__(self, linear: nn.Conv2d | nn.ConvTranspose2d):
        super().__init__()
        n = linear.out_channels
        self.linear = linear
        self.look = nn.Sequential(nn.Conv2d(n, n, 3, padding=1), nn.ReLU(inplace=True))
        self.correct = nn.Conv2d(n, n, 1)
        with torch.no_grad():
            nn.init.orthogonal_(linear.weight.view(linear.weight.shape[0], -1))
        nn.init.kaiming_normal_(self.look[0].weight, nonlinearity="relu")
        nn.init.zeros_(self.correct.weight)
        for layer in (linear, self.look[0], self.correct):
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return x + self.correct(self.look(x))


def _start_at_grey(head: nn.ConvTranspose2d, size: float) -> None:
    """Let the first image be grey, `size` of the signal above and below."""
    with torch.no_grad():
        head.weight.mul_(size)
        head.bias[:3], head.bias[3:] = 0.5, 0.0


MODELS: dict[str, type[PixelModel]] = {model.kind: model for model in (Autoencoder, Encoder)}


def build(kind: str, n_genes: int = 0) -> PixelModel:
    """Make a network by its name in the config: ``autoencoder`` or ``encoder``.

    Raises
    ------
    InputError
        There is no such network.
    """
    if kind not in MODELS:
        raise InputError.one("histology: network", repr(kind), ", ".join(MODELS), nearest(kind, MODELS))
    return MODELS[kind](n_genes)


def as_tensor(matrix: sp.spmatrix) -> torch.Tensor:
    """Return a scipy matrix as a sparse torch matrix, CSR float32."""
    matrix = sp.csr_matrix(matrix, dtype=np.float32)
    parts = (torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices), torch.from_numpy(matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*parts, size=matrix.shape, check_invariants=False)


def pool(genes: torch.Tensor, footprints: torch.Tensor) -> torch.Tensor:
    """Average a map over each spot's footprint.

    Parameters
    ----------
    genes
        (n_genes, h, w).
    footprints
        Sparse, spots x (h x w), pixels by rows of the image; each row sums to 1. See `as_tensor`.

    Returns
    -------
    spots x n_genes.
    """
    return footprints @ genes.flatten(1).T


def quarter(footprints: sp.spmatrix, height: int, width: int, stride: int) -> torch.Tensor:
    """Split each footprint into its even and odd rows and columns, for `PixelModel.pooled_genes`.

    Parameters
    ----------
    footprints
        spots x (height x width), pixels by rows of the image.
    height, width
        Of the image, px.
    stride
        Of the network.

    Returns
    -------
    Sparse, (4 x spots) x (h / 2 x w / 2) of the image filled up to a multiple of `stride`; row 4 s + 2 i + j is the
    part of spot s in rows 2 y + i and columns 2 x + j.

    Raises
    ------
    ValueError
        The footprints are of an image of another size.
    """
    pixels = sp.coo_matrix(footprints)
    if pixels.shape[1] != height * width:
        raise ValueError(f"footprints on {pixels.shape[1]} pixels, but the image has {height} x {width}")
    half = (-(-height // stride) * stride // 2, -(-width // stride) * stride // 2)
    y, x = np.divmod(pixels.col.astype(np.int64), width)
    rows = 4 * pixels.row.astype(np.int64) + 2 * (y % 2) + x % 2
    columns = (y // 2) * half[1] + x // 2
    return as_tensor(sp.csr_matrix((pixels.data, (rows, columns)), shape=(4 * pixels.shape[0], half[0] * half[1])))


def as_images(rgb: np.ndarray) -> torch.Tensor:
    """Return uint8 images, (h, w, 3) or (n, h, w, 3), as (n, 3, h, w) float32, 0 to 1."""
    rgb = rgb[None] if rgb.ndim == 3 else rgb
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))).float().div_(255)


def save(model: PixelModel, path: str | os.PathLike, meta: dict[str, Any]) -> None:
    """Write a network: its weights as plain tensors, and facts about it as JSON.

    Parameters
    ----------
    model
        The network.
    path
        Where to; written under a temporary name first.
    meta
        What a reader must know, such as um per pixel, the genes, mean and scale of the targets; JSON-able.
    """
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    facts = {"format": _FORMAT, "kind": model.kind, "n_genes": model.n_genes, "meta": json.dumps(meta)}
    with io.atomic(path) as partial:
        torch.save(facts | {"weights": weights}, partial)


def load(path: str | os.PathLike) -> tuple[PixelModel, dict[str, Any]]:
    """Read what `save` wrote; the network comes in evaluation mode. Runs no code from the file.

    Raises
    ------
    FileNotFoundError
        There is no file.
    InputError
        It is another file, or of a network this version does not know.
    """
    path = Path(path)
    expected, hint = "a network written by this workflow", "Delete it and run again."
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise InputError.one(path, "a file of another kind", expected, hint)
        model = build(found["kind"], found["n_genes"])
        model.load_state_dict(found["weights"])
        return model.eval(), json.loads(found["meta"])
    except (FileNotFoundError, InputError):
        raise
    except Exception as error:  # torch.load raises nearly anything on a foreign file
        raise InputError.one(path, f"no network ({type(error).__name__})", expected, hint) from error
