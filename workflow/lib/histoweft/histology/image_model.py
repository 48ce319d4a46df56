"""Genes from pixels alone: an encoder-decoder of the image with gene channels, the reference project's way.

It learns from the same spots, targets and folds as the default model, and is the yardstick beside it.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from histoweft import training
from histoweft.errors import InputError
from histoweft.floors import Factored
from histoweft.histology.folds import Target
from histoweft.histology.spots import Spots

if TYPE_CHECKING:
    import torch

    from histoweft.histology.autoencoder import PixelModel

HELD_OUT_PART = 0
"""Inner part of the training spots that stops the training early."""

LEARNING_RATE = 1e-2

_START_PENALTY = 1e-2
"""Ridge penalty of the gene channels' first weights, as a share of the mean variance of what they look at."""

_WINDOW = 1024
"""Side of the parts that a large picture is worked on in, px, at most; what they depend on around them comes on top."""

_LEAST = 16
"""Side of a picture, px, at least: the similarity looks at 11."""

_CANDIDATES = 4_000_000
"""Pairs of spot and pixel looked at together."""


@dataclass(frozen=True)
class Picture:
    """The part of a section's image that holds its tissue.

    Attributes
    ----------
    rgb
        (h, w, 3) uint8, stain-normalised.
    offset
        Row and column of the working image where it starts, px.
    um_per_px
        Of both.
    mask
        (h, w) bool, tissue.
    """

    rgb: np.ndarray
    offset: tuple[int, int]
    um_per_px: float
    mask: np.ndarray


@dataclass(frozen=True)
class Scale:
    """What turns a network's gene channels into log-normalised expression.

    Attributes
    ----------
    genes
        Column numbers, one a channel.
    mean, spread
        Of each over the training spots, (channels,); spread within sections.
    """

    genes: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


# --------------------------------------------------------------------------------------------- pictures and footprints


def crop_to_tissue(
    rgb: np.ndarray, mask: np.ndarray, xy_px: np.ndarray, size_px: float, um_per_px: float, margin: int = 32
) -> Picture:
    """Cut the tissue and all footprints out of a section's working image.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8, stain-normalised.
    mask
        (h, w) bool, tissue.
    xy_px
        spots x 2, x and y of the centres in pixels; (0, 0) is the image's upper left corner.
    size_px
        Diameter of a spot or side of a bin, px.
    um_per_px
        Of the image.
    margin
        Pixels kept around.

    Raises
    ------
    InputError
        What is left is too small to be compared with its reconstruction.
    """
    there = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    area = []
    for pixels, centres, side in zip(there, xy_px.T[1::-1], rgb.shape):
        low = np.concatenate([pixels[:1], np.floor(centres - size_px / 2)])
        high = np.concatenate([pixels[-1:] + 1, np.ceil(centres + size_px / 2)])
        ends = np.clip([low.min(initial=side) - margin, high.max(initial=0) + margin], 0, side)
        area.append(slice(*map(int, ends)))
    height, width = (max(0, one.stop - one.start) for one in area)
    if min(height, width) < _LEAST:
        hint = "Do image and positions fit, and is the size in um right?"
        raise InputError.one("image", f"{height} x {width} px of tissue and spots", f"{_LEAST} px at least", hint)
    part, offset = tuple(area), (area[0].start, area[1].start)
    # Copies, so that the whole image can be let go.
    return Picture(rgb[part].copy(), offset, float(um_per_px), mask[part].copy())


def footprint_matrix(picture: Picture, xy_px: np.ndarray, size_px: float, square: bool) -> sp.csr_matrix:
    """Say which pixels lie under each spot.

    Parameters
    ----------
    picture
        Of the section.
    xy_px
        spots x 2, x and y in pixels of the working image.
    size_px
        Diameter of a disc or side of a square, px.
    square
        Bins are squares, spots are discs.

    Returns
    -------
    spots x (h x w) float32, pixels by rows of the picture. A pixel belongs to a footprint when its centre does; one
    that holds no centre gets the nearest pixel. Rows sum to 1.
    """
    height, width = picture.rgb.shape[:2]
    centres = np.asarray(xy_px, dtype=np.float64)[:, :2] - np.array(picture.offset[::-1])
    steps = np.arange(-math.ceil(size_px / 2), math.ceil(size_px / 2) + 1)
    dy, dx = (grid.ravel() for grid in np.meshgrid(steps, steps, indexing="ij"))
    middle = (dx == 0) & (dy == 0)
    columns, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    some = max(1, _CANDIDATES // len(dx))
    for start in range(0, len(centres), some):
        x, y = centres[start : start + some].T[:, :, None]
        column, row = np.floor(x).astype(np.int64) + dx, np.floor(y).astype(np.int64) + dy
        off_x, off_y = column + 0.5 - x, row + 0.5 - y
        if square:
            inside = (-size_px / 2 <= off_x) & (off_x < size_px / 2) & (-size_px / 2 <= off_y) & (off_y < size_px / 2)
        else:
            inside = off_x**2 + off_y**2 <= (size_px / 2) ** 2
        inside &= (0 <= column) & (column < width) & (0 <= row) & (row < height)
        inside |= middle & ~inside.any(axis=1, keepdims=True)
        pixels = np.clip(row, 0, height - 1) * width + np.clip(column, 0, width - 1)
        columns.append(pixels[inside])
        counts.append(inside.sum(axis=1))
    n = np.concatenate(counts)
    weights = np.repeat(1 / n, n).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(n)])
    return sp.csr_matrix((weights, np.concatenate(columns), starts), shape=(len(centres), height * width))


@dataclass(frozen=True)
class _Window:
    """Part of a picture that holds all that some spots depend on."""

    rows: slice
    cols: slice
    spots: np.ndarray
    footprints: sp.csr_matrix

    def image(self, picture: Picture) -> torch.Tensor:
        from histoweft.histology.autoencoder import as_images

        return as_images(picture.rgb[self.rows, self.cols])

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.cols.stop - self.cols.start


def _windows(model: PixelModel, picture: Picture, matrix: sp.csr_matrix) -> list[_Window]:
    """Share the spots among windows of bounded size; a picture that is no larger is one window.

    Computed inside its window, a spot gets what the whole picture would give it.
    """
    height, width = picture.rgb.shape[:2]
    if matrix.shape[1] != height * width:
        raise ValueError(f"footprints on {matrix.shape[1]} pixels, but the picture has {height} x {width}")
    if max(height, width) <= _WINDOW:
        return [_Window(slice(0, height), slice(0, width), np.arange(matrix.shape[0]), matrix)]
    y, x = np.divmod(matrix.indices, width)
    first, last = ([end.reduceat(at, matrix.indptr[:-1]) for at in (y, x)] for end in (np.minimum, np.maximum))
    middle = [(low + high) // 2 for low, high in zip(first, last)]
    # Cells of equal size: a sliver would count as much as a whole window in training.
    down, across = (-(-side // _WINDOW) for side in (height, width))
    cell = middle[0] * down // height * across + middle[1] * across // width
    found = []
    for number in np.unique(cell):
        spots = np.flatnonzero(cell == number)
        area = [
            _around(model, low[spots].min(), high[spots].max() + 1, side)
            for low, high, side in zip(first, last, (height, width))
        ]
        found.append(_Window(*area, spots, _cut(matrix[spots], width, *area)))
    return found


def _around(model: PixelModel, start: int, stop: int, side: int) -> slice:
    """Return the pixels of a line that a part of it depends on: whole cells of the coarsest layer, and a margin."""
    low, high = start // model.stride * model.stride, -(-stop // model.stride) * model.stride
    margin = -(-model.margin // model.stride) * model.stride
    return slice(int(max(0, low - margin)), int(min(side, high + margin)))


def _cut(matrix: sp.csr_matrix, width: int, rows: slice, cols: slice) -> sp.csr_matrix:
    """Renumber the pixels of footprints that lie inside a window."""
    y, x = np.divmod(matrix.indices, width)
    pixels = (y - rows.start) * (cols.stop - cols.start) + x - cols.start
    shape = (matrix.shape[0], (rows.stop - rows.start) * (cols.stop - cols.start))
    return sp.csr_matrix((matrix.data, pixels, matrix.indptr), shape=shape)


# ------------------------------------------------------------------------------------------------------------ training


class _Batches:
    """The windows of all sections, each with its spots' targets; in a new order every epoch."""

    def __init__(self, shuffle: bool):
        self._shuffle, self._all = shuffle, []

    def add(self, model: PixelModel, picture: Picture, matrix: sp.csr_matrix, targets: np.ndarray) -> None:
        import torch

        from histoweft.histology.autoencoder import quarter

        for window in _windows(model, picture, matrix) if len(targets) else ():
            footprints = quarter(window.footprints, *window.shape, model.stride)
            self._all.append((picture, window, footprints, torch.from_numpy(targets[window.spots])))

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        # The global generator is what the trainer seeds for each epoch.
        for i in np.random.permutation(len(self)) if self._shuffle else range(len(self)):
            yield self[i]

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        picture, window, footprints, targets = self._all[i]
        return {"image": window.image(picture), "footprints": footprints, "targets": targets}


def fit(
    model: PixelModel,
    pictures: Mapping[str, Picture],
    spots: Spots,
    where: Mapping[str, tuple[np.ndarray, float, bool]],
    goal: Target,
    genes: np.ndarray,
    *,
    epochs: int,
    patience: int | None = None,
    image_weight: float = 1.0,
    lr: float = LEARNING_RATE,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    checkpoint: str | os.PathLike | None = None,
) -> tuple[PixelModel, training.Run, Scale]:
    """Give a pretrained network gene channels, and train all of it on the training spots' footprints.

    Parameters
    ----------
    model
        Pretrained on images; it is copied.
    pictures
        Of each section that has training spots.
    spots
        Of all sections.
    where
        Of each section: its spots' x and y in working-image pixels (spots x 2, in the order of `spots`), their diameter
        or side in pixels, and whether they are square.
    goal
        What is learned.
    genes
        Columns of `spots.genes`, one a channel.
    epochs
        Epochs at most; an epoch sees every section once.
    patience
        Stop after so many epochs without a smaller error on the inner part that is then held out. None, as in the
        reference: learn from all training spots to the last epoch.
    image_weight
        Weight of 1 - SSIM beside the genes' mean squared error.
    lr
        Learning rate.
    seed, device, threads, checkpoint
        See `training.fit`.

    Returns
    -------
    model
        A new one, in evaluation mode.
    run
        How it went.
    scale
        Of its gene channels.

    Notes
    -----
    The gene channels start as a ridge regression on what the last layer sees (a linear probe, then fine-tuning: Kumar
    et al. 2022, doi:10.48550/arXiv.2202.10054): from random weights the loss stays at that of the mean for some hundred
    epochs, and early stopping takes that for the end.

    Raises
    ------
    InputError
        A section with training spots has no picture.
    ValueError
        Positions and spots of a section differ in number, or there is nothing to hold out.
    """
    from histoweft.histology.objectives import GeneTraining

    genes = np.asarray(genes)
    section = spots.section[goal.fold.train]
    scale, targets = _standardise(goal, genes, section)
    held_out = np.zeros(len(targets), dtype=bool) if patience is None else goal.parts == HELD_OUT_PART
    if held_out.all():
        raise ValueError("all training spots lie in one inner part: nothing is left to learn from")
    # A copy: folds must not learn from one another by way of the network they start from.
    model = copy.deepcopy(model)
    model.add_gene_head(len(genes), seed)
    batches, judged = _Batches(shuffle=True), _Batches(shuffle=False)
    for number in np.unique(section):
        picture, matrix = _training_footprints(pictures, spots, where, goal, number)
        own = section == number
        for store, which in ((batches, ~held_out[own]), (judged, held_out[own])):
            store.add(model, picture, matrix[which], targets[own][which])
    _start_linear(model, batches)
    module = GeneTraining(model, lr=lr, image_weight=image_weight)
    run = training.fit(
        module, batches, judged if len(judged) else None, max_epochs=epochs, patience=patience,
        monitor="val_loss" if len(judged) else "train_loss", seed=seed, device=device, threads=threads,
        checkpoint=checkpoint, fingerprint=_fingerprint(goal, targets, pictures, model),
    )  # fmt: skip
    return model, run, scale


def _start_linear(model: PixelModel, batches: _Batches) -> None:
    """Let the gene channels start as a ridge regression on the last layer's inputs, all pixels of its 2 x 2 alike."""
    import torch

    inputs, targets = [], []
    with torch.inference_mode():
        for batch in (batches[i] for i in range(len(batches))):
            hidden = model.hidden(batch["image"])[0].flatten(1)
            inputs.append((batch["footprints"] @ hidden.T).unflatten(0, (-1, 4)).sum(dim=1).double())
            targets.append(batch["targets"].double())
    X, Y = torch.cat(inputs), torch.cat(targets)
    mean = X.mean(dim=0)
    X = X - mean
    gram = X.T @ X
    penalty = _START_PENALTY * gram.diagonal().mean().clamp(min=1e-12)
    slope = torch.linalg.solve(gram + penalty * torch.eye(len(gram)), X.T @ Y)
    with torch.no_grad():
        model.head.weight[:, 3:] = slope.float()[:, :, None, None]
        model.head.bias[3:] = (Y.mean(dim=0) - mean @ slope).float()


def _standardise(goal: Target, genes: np.ndarray, section: np.ndarray) -> tuple[Scale, np.ndarray]:
    """Return training spots x genes, each section's mean taken out and then divided by each gene's spread."""
    values = goal.expression[:, genes].toarray().astype(np.float32)
    mean = values.mean(axis=0)
    for number in np.unique(section):
        values[section == number] -= values[section == number].mean(axis=0)
    spread = values.std(axis=0)
    # Nothing to learn of a gene that is the same everywhere: its predictions stay at its mean.
    spread[spread < 1e-6] = 1.0
    return Scale(genes, mean, spread), values / spread


def _training_footprints(
    pictures: Mapping[str, Picture], spots: Spots, where: Mapping, goal: Target, number: int
) -> tuple[Picture, sp.csr_matrix]:
    name = spots.samples[number]
    if name not in pictures or name not in where:
        raise InputError.one(f"section {name}", "no image", "one of every section that is learned from")
    xy, size, square = where[name]
    rows = np.flatnonzero(spots.section == number)
    if len(xy) != len(rows):
        raise ValueError(f"{len(xy)} positions for the {len(rows)} spots of {name}")
    mine = np.isin(rows, goal.fold.train)
    return pictures[name], footprint_matrix(pictures[name], np.asarray(xy)[mine], size, square)


def _fingerprint(goal: Target, targets: np.ndarray, pictures: Mapping[str, Picture], model: PixelModel) -> str:
    found = hashlib.sha256(goal.fold.name.encode())
    found.update(np.ascontiguousarray(targets))
    for picture in pictures.values():
        found.update(np.ascontiguousarray(picture.rgb[::7, ::7]))
    for weights in model.state_dict().values():
        found.update(weights.cpu().numpy().tobytes())
    return found.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------- prediction


def predict(model: PixelModel, picture: Picture, matrix: sp.csr_matrix, scale: Scale) -> np.ndarray:
    """Predict the expression of spots: the mean over the pixels of their footprints.

    Parameters
    ----------
    model, scale
        Of `fit`; the model on the CPU.
    picture
        Of the section.
    matrix
        Of `footprint_matrix`.

    Returns
    -------
    spots x genes of `scale`, float32, log-normalised. Memory does not grow with the picture.
    """
    import torch

    from histoweft.histology.autoencoder import quarter

    found = np.zeros((matrix.shape[0], len(scale.genes)), dtype=np.float32)
    with torch.inference_mode():
        for window in _windows(model, picture, matrix) if matrix.shape[0] else ():
            footprints = quarter(window.footprints, *window.shape, model.stride)
            found[window.spots] = model.pooled_genes(model.hidden(window.image(picture)), footprints).numpy()
    return found * scale.spread + scale.mean


def as_factored(values: np.ndarray, genes: np.ndarray, n_genes_total: int, mean: np.ndarray) -> Factored:
    """Turn predictions of some genes into predictions of all: the others are at their training mean.

    Parameters
    ----------
    values
        spots x genes.
    genes
        Their column numbers.
    n_genes_total
        Columns.
    mean
        Training mean of every column, (columns,).
    """
    n = len(genes)
    right = sp.csc_matrix((np.ones(n, np.float32), (np.arange(n), genes)), shape=(n, n_genes_total))
    return Factored((values - mean[genes]).astype(np.float32), right, np.asarray(mean))


def painter(
    model: PixelModel, picture: Picture, scale: Scale, genes: Sequence[int] | np.ndarray
) -> Callable[[slice, slice], np.ndarray]:
    """Return what `paint.paint` asks for expression in windows of the working image.

    Parameters
    ----------
    model, scale
        Of `fit`; the model on the CPU.
    picture
        Of the section.
    genes
        Columns to paint, some of `scale.genes`.

    Returns
    -------
    Function of rows and columns to (genes, rows, columns) float32: log-normalised, never below 0; 0 off the picture.

    Raises
    ------
    InputError
        A gene was not learned.
    """
    genes = np.asarray(genes)
    unknown = np.setdiff1d(genes, scale.genes)
    if len(unknown):
        found = f"{len(unknown)} genes that this network did not learn (columns {', '.join(map(str, unknown[:5]))})"
        raise InputError.one("genes to paint", found, f"some of its {len(scale.genes)}")
    channels = np.array([int(np.flatnonzero(scale.genes == gene)[0]) for gene in genes])
    spread, mean = scale.spread[channels, None, None], scale.mean[channels, None, None]
    sides = picture.rgb.shape[:2]

    def paint(rows: slice, cols: slice) -> np.ndarray:
        out = np.zeros((len(genes), rows.stop - rows.start, cols.stop - cols.start), dtype=np.float32)
        # Of the window what lies on the picture, in pixels of the picture.
        inside = [slice(max(0, one.start - off), min(side, one.stop - off))
                  for one, off, side in zip((rows, cols), picture.offset, sides)]  # fmt: skip
        if any(one.start >= one.stop for one in inside):
            return out
        there = tuple(slice(one.start + off - asked.start, one.stop + off - asked.start)
                      for one, off, asked in zip(inside, picture.offset, (rows, cols)))  # fmt: skip
        out[(slice(None), *there)] = np.maximum(_maps(model, picture, inside, channels) * spread + mean, 0)
        return out

    return paint


def _maps(model: PixelModel, picture: Picture, inside: Sequence[slice], channels: np.ndarray) -> np.ndarray:
    """Compute gene channels in a part of the picture: channels x rows x columns."""
    import torch

    from histoweft.histology.autoencoder import as_images

    around = [_around(model, one.start, one.stop, side) for one, side in zip(inside, picture.rgb.shape)]
    with torch.inference_mode():
        given = as_images(picture.rgb[tuple(around)])
        maps = model.genes(model.hidden(given), channels, *given.shape[2:])[0].numpy()
    here = tuple(slice(one.start - near.start, one.stop - near.start) for one, near in zip(inside, around))
    return maps[(slice(None), *here)]
