"""What pretraining works on, and what came of it: sections of one stain and one scale; the tissue given back."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from histoweft.histology.stain import Stain, normalise, target
from histoweft.histology.tissue import check_scale, read_mask

if TYPE_CHECKING:
    from histoweft.histology.autoencoder import PixelModel

_SAME_SCALE = 0.02
"""Resolutions that differ by less than this share count as one."""


def study_sections(
    images: Sequence[str | os.PathLike],
    masks: Sequence[str | os.PathLike],
    tiles: Sequence[str | os.PathLike],
    stains: Sequence[str | os.PathLike],
) -> tuple[list[tuple[np.ndarray, pd.DataFrame]], float, Stain]:
    """Read the sections of a study as one stain and one scale, ready for `pretrain.pretrain`.

    Parameters
    ----------
    images, masks, tiles, stains
        Of each section, what the rules ``ingest_image`` and ``tile`` wrote. What lies off the tissue becomes glass.

    Returns
    -------
    sections
        (rgb, tiles) of each; finer images are shrunk to the coarsest one's scale.
    um_per_px
        Of all of them.
    target
        The stain they were normalised to.
    """
    from PIL import Image

    from histoweft.images import read_image
    from histoweft.io import read_table

    found = [Stain.from_json(json.loads(Path(path).read_text(encoding="utf-8"))) for path in stains]
    goal = target(found)
    scales = [check_scale(json.loads(Path(path).read_text(encoding="utf-8"))["um_per_px"]) for path in stains]
    um_per_px = max(scales)
    sections = []
    for path, mask, table, stain, scale in zip(images, masks, tiles, found, scales, strict=True):
        rgb, table, ratio = read_image(path)[0], read_table(table), scale / um_per_px
        rgb = normalise(rgb, stain, goal, read_mask(mask)[0])
        if ratio < 1 - _SAME_SCALE:
            size = [max(1, round(side * ratio)) for side in rgb.shape[1::-1]]
            rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX))
            corners = ["y0", "y1", "x0", "x1"]
            table[corners] = (table[corners] * ratio).round().astype(int)
        sections.append((rgb, table))
    return sections, um_per_px, goal


def kept_part(rgb: np.ndarray, tiles: pd.DataFrame, most: int = 2048) -> tuple[np.ndarray, np.ndarray]:
    """Cut the middle of the kept tiles out of a section, for a picture.

    Parameters
    ----------
    rgb
        (h, w, 3) uint8.
    tiles
        Its tiles: y0, y1, x0, x1 in px, kept.
    most
        Pixels a side, at most.

    Returns
    -------
    part
        (rows, columns, 3) uint8.
    mask
        (rows, columns) bool: on a kept tile.
    """
    mask = np.zeros(rgb.shape[:2], dtype=bool)
    for y0, y1, x0, x1 in tiles.loc[tiles["kept"].astype(bool), ["y0", "y1", "x0", "x1"]].to_numpy(int):
        mask[y0:y1, x0:x1] = True
    area = []
    for axis in (1, 0):
        at = np.flatnonzero(mask.any(axis=axis))
        low, high = (at[0], at[-1] + 1) if len(at) else (0, mask.shape[1 - axis])
        low = max(low, (low + high - most) // 2)
        area.append(slice(low, min(high, low + most)))
    return np.ascontiguousarray(rgb[tuple(area)]), mask[tuple(area)]


def reconstruct(model: PixelModel, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give an image back by an autoencoder, strip by strip.

    Parameters
    ----------
    model
        The network, on the CPU.
    rgb
        (h, w, 3) uint8.

    Returns
    -------
    image
        (h, w, 3) uint8.
    similarity
        (h, w) float32: SSIM around each pixel, the mean over the colours; NaN where its window leaves the image.
    """
    import torch

    from histoweft.histology.autoencoder import as_images
    from histoweft.histology.ssim import ssim_map

    image, similarity = np.empty_like(rgb), np.full(rgb.shape[:2], np.nan, dtype=np.float32)
    with torch.inference_mode():
        for rows, around in _bands(rgb.shape, model.stride, math.ceil(model.margin / model.stride) * model.stride):
            given = as_images(rgb[around])
            back = model.image(model.hidden(given), *given.shape[2:]).clamp(0, 1)[0].permute(1, 2, 0)
            image[rows] = (255 * back).round().byte().numpy()[rows.start - around.start :][: rows.stop - rows.start]
        near = 5  # half the window of the similarity
        for _, around in _bands(rgb.shape, model.stride, near):
            if around.stop - around.start <= 2 * near or rgb.shape[1] <= 2 * near:
                continue
            found = ssim_map(as_images(rgb[around]), as_images(image[around])).mean(dim=1)[0].numpy()
            similarity[around.start + near : around.stop - near, near:-near] = found
    return image, similarity


def _bands(shape: tuple[int, ...], multiple: int, margin: int, pixels: int = 500_000) -> Iterator[tuple[slice, slice]]:
    """Yield rows, and the rows around them, a bounded number of pixels at a time."""
    height = max(1, pixels // shape[1] // multiple) * multiple
    for start in range(0, shape[0], height):
        stop = min(start + height, shape[0])
        yield slice(start, stop), slice(max(0, start - margin), min(shape[0], stop + margin))
