"""Pretraining on the images alone: reconstruct tissue of several sections together, judged on held-out tiles."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from histoweft.errors import InputError
from histoweft.training import Run, fit

if TYPE_CHECKING:
    import torch

    from histoweft.histology.autoencoder import PixelModel

Section = tuple[np.ndarray, pd.DataFrame]
"""Stain-normalised rgb (h, w, 3) uint8 at the working resolution, and its tiles: y0, y1, x0, x1 in px, kept."""

_log = logging.getLogger(__name__)

_STEP = 8
"""Grid of the crops' corners, px: crops half a nucleus apart show the same."""
_LEAST = 16
"""Side of a crop, px, at least: networks work in units of 16, and the similarity looks at 11."""
_MOST_STEPS = 500
"""Steps of an epoch at most: 33 megapixels of tissue in crops of 64 px; larger studies are covered over the epochs."""
_HELD_OUT_CROPS = 48
"""Held-out crops at most: the score is good to .01 with these, and costs a tenth of an epoch."""


def pretrain(
    sections: Sequence[Section],
    *,
    epochs: int,
    batch: int = 16,
    seed: int,
    device: str = "cpu",
    threads: int = 1,
    checkpoint: str | os.PathLike | None = None,
    validation_share: float = 0.1,
    network: str = "encoder",
    crop: int = 64,
    patience: int | None = None,
    lr: float | None = None,
) -> tuple[PixelModel, Run, float]:
    """Train a network to reconstruct the tissue of several sections.

    Parameters
    ----------
    sections
        (rgb, tiles) of each; all at one resolution, um per pixel.
    epochs
        Epochs at most. One epoch draws about as many crops as cover the tissue once, of a large tissue a part.
    batch
        Crops per step.
    seed
        Of the weights, the held-out tiles and the crops.
    device, threads, checkpoint
        See `training.fit`.
    validation_share
        Share of the kept tiles of each section that is held out, at least one tile; they lie side by side, and no
        crop to train on overlaps a crop to judge by.
    network
        ``encoder`` or ``autoencoder``.
    crop
        Side of a crop, px, made a multiple of 16; smaller where a tissue is. Many small steps learn faster than few
        large ones.
    patience
        Stop after so many epochs without a better held-out similarity.
    lr
        Highest learning rate; None takes the one that suits the network.

    Returns
    -------
    model
        In evaluation mode, with the weights of the best epoch.
    run
        How it went; ``history`` has ``train_loss`` and ``val_ssim``.
    score
        Mean SSIM of the reconstruction of the held-out crops; NaN when the tissue is too small to hold any out.

    Raises
    ------
    InputError
        A section has no tissue, or is smaller than the window of the similarity.
    ValueError
        An option is out of range.
    """
    import torch

    from histoweft.histology.autoencoder import build
    from histoweft.histology.objectives import Reconstruction

    if not 0 <= validation_share < 1:
        raise ValueError(f"validation_share is at least 0 and below 1, not {validation_share}")
    if batch < 1 or crop < 32:
        raise ValueError(f"batch is at least 1 and crop at least 32 px, not {batch} and {crop}")
    random = np.random.default_rng(seed)
    crops = _Crops(sections, batch, crop)
    held_out = crops.hold_out(validation_share, random)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(network)
    model.start_at(crops.colour())
    module = Reconstruction(model, **model.reconstruction | ({} if lr is None else {"lr": lr}))
    options = {"seed": seed, "device": device, "threads": threads, "checkpoint": checkpoint}
    options |= {"max_epochs": epochs, "fingerprint": crops.digest()}
    if not held_out:
        return model, fit(module, crops, monitor="train_loss", **options), math.nan
    run = fit(module, crops, held_out, patience=patience, monitor="val_ssim", mode="max", **options)
    return model, run, run.best_score


class _Crops:
    """Random crops of the tissue of all sections, turned and mirrored; an iterable over the batches of one epoch."""

    def __init__(self, sections: Sequence[Section], batch: int, side: int):
        if not sections:
            raise InputError.one("pretraining", "no sections", "at least one section with an image")
        self._images = [rgb for rgb, _ in sections]
        self._tiles = [_kept(tiles, rgb, i) for i, (rgb, tiles) in enumerate(sections, 1)]
        self._batch = batch
        areas = [int(_painted(rgb.shape[:2], tiles).sum()) for rgb, tiles in zip(self._images, self._tiles)]
        # A third of the tissue's width at most, or nothing is left once some of it is held out.
        self._side = max(_LEAST, min(side, int(min(areas) ** 0.5) // 3) // 16 * 16)
        self._n = min(_MOST_STEPS, max(4, math.ceil(sum(areas) / (self._side**2 * batch))))
        self._corners = self._places([tiles[:0] for tiles in self._tiles])

    def hold_out(self, share: float, random: np.random.Generator) -> list[torch.Tensor]:
        """Set tiles aside; return batches of crops centred on them, none if too little would be left to train on."""
        if share == 0:
            return []
        # Tiles side by side: scattered ones would leave hardly a crop between them.
        corners = [
            np.array([_corner((y0 + y1) // 2, (x0 + x1) // 2, self._side, image.shape) for y0, y1, x0, x1 in chosen])
            for image, chosen in zip(self._images, (_patch(tiles, share, random) for tiles in self._tiles))
        ]
        left = self._places([np.column_stack([at[:, 0], at[:, 0] + self._side, at[:, 1], at[:, 1] + self._side])
                             for at in corners])  # fmt: skip
        if len(left) < len(self._corners) / 4:
            _log.warning("the tissue is too small to hold tiles out: pretraining is not judged on held-out images")
            return []
        self._corners = left
        places = [(i, y, x) for i, at in enumerate(corners) for y, x in at]
        if len(places) > _HELD_OUT_CROPS:
            places = [places[i] for i in random.choice(len(places), _HELD_OUT_CROPS, replace=False)]
        return [self._cut(places[i : i + self._batch]) for i in range(0, len(places), self._batch)]

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[torch.Tensor]:
        # The global generator is what the trainer seeds for each epoch.
        random = np.random.default_rng(np.random.randint(2**31))
        for _ in range(self._n):
            which = self._corners[random.integers(len(self._corners), size=self._batch)]
            yield self._cut(which, turns=random.integers(8, size=self._batch))

    def colour(self) -> np.ndarray:
        """Return the mean colour of the kept tiles, (3,), 0 to 1."""
        sums = sum(image[y0:y1, x0:x1].sum(axis=(0, 1), dtype=np.float64) for image, y0, y1, x0, x1 in self._boxes())
        return sums / (255 * sum((y1 - y0) * (x1 - x0) for _, y0, y1, x0, x1 in self._boxes()))

    def _boxes(self) -> Iterator[tuple]:
        for image, tiles in zip(self._images, self._tiles):
            yield from ((image, *tile) for tile in tiles)

    def digest(self) -> str:
        """Return a hash of the images and the crops' places."""
        found = hashlib.sha256(self._corners.tobytes())
        for image in self._images:
            found.update(np.ascontiguousarray(image[::7, ::7]))
        return found.hexdigest()[:16]

    def _cut(self, corners: Sequence[Sequence[int]], turns: np.ndarray | None = None) -> torch.Tensor:
        from histoweft.histology.autoencoder import as_images

        side = self._side
        crops = [self._images[i][y : y + side, x : x + side] for i, y, x in corners]
        if turns is not None:
            crops = [np.rot90(one if turn < 4 else one[::-1], turn % 4) for one, turn in zip(crops, turns)]
        return as_images(np.stack(crops))

    def _places(self, out: Sequence[np.ndarray]) -> np.ndarray:
        """List the corners (section, y, x) of crops at least half on kept tiles and nowhere on `out`."""
        found = []
        for i, (image, tiles) in enumerate(zip(self._images, self._tiles)):
            inside = _windows(_painted(image.shape[:2], tiles), self._side)
            clear = _windows(_painted(image.shape[:2], out[i]), self._side) == 0
            # Half of what the best crop holds, so that a narrow piece of tissue still gives some.
            places = np.argwhere(clear & (inside >= inside.max() / 2))
            found.append(np.column_stack([np.full(len(places), i), places * _STEP]))
        return np.concatenate(found)


def _kept(tiles: pd.DataFrame, rgb: np.ndarray, number: int) -> np.ndarray:
    """Return the kept tiles, (n, 4) y0, y1, x0, x1, inside the image."""
    where = f"tiles of section {number} of the pretraining"
    missing = [name for name in ("y0", "y1", "x0", "x1", "kept") if name not in tiles]
    if missing:
        raise InputError.one(where, f"no column {', '.join(missing)}", "y0, y1, x0, x1 in px, and kept")
    if min(rgb.shape[:2]) < _LEAST:
        hint = "Is its size in um right? Else leave it out."
        raise InputError.one(where, f"an image of {min(rgb.shape[:2])} px", f"{_LEAST} px at least", hint)
    boxes = tiles.loc[tiles["kept"].astype(bool), ["y0", "y1", "x0", "x1"]].to_numpy(dtype=int)
    height, width = rgb.shape[:2]
    boxes = np.clip(boxes, 0, [height, height, width, width])
    boxes = boxes[(boxes[:, 1] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 2])]
    if not len(boxes):
        hint = "Look at the contact sheet; lower the share of tissue that a tile needs, or leave the section out."
        raise InputError.one(where, "no tile with tissue on the image", "at least one", hint)
    return boxes


def _patch(tiles: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Choose a share of the tiles, at least one: those nearest to one drawn at random."""
    centres = tiles.reshape(-1, 2, 2).sum(axis=2)
    distance = ((centres - centres[random.integers(len(tiles))]) ** 2).sum(axis=1)
    return tiles[np.argsort(distance, kind="stable")[: max(1, round(share * len(tiles)))]]


def _corner(y: int, x: int, side: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the corner of a window around a point, moved inside the image."""
    return tuple(int(np.clip(at - side // 2, 0, size - side)) for at, size in zip((y, x), shape))


def _painted(shape: tuple[int, int], tiles: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for y0, y1, x0, x1 in tiles:
        mask[y0:y1, x0:x1] = True
    return mask


def _windows(mask: np.ndarray, side: int) -> np.ndarray:
    """Count the true pixels in every window whose corner lies on the grid, by a summed-area table."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.int64)
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1, out=sums[1:, 1:])
    low, high = sums[:-side, :-side][::_STEP, ::_STEP], sums[side:, side:][::_STEP, ::_STEP]
    return high + low - sums[side:, :-side][::_STEP, ::_STEP] - sums[:-side, side:][::_STEP, ::_STEP]
