"""The models that read the image itself: their sections as pictures, and their folds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from histoweft.histology import folds, image_model, panels
from histoweft.histology.evaluate import training_score
from histoweft.histology.image_model import Picture
from histoweft.histology.spots import Spots, footprint_of
from histoweft.histology.stain import Stain, normalise, target
from histoweft.histology.tissue import read_mask
from histoweft.images import read_image
from histoweft.io import CountsFile
from histoweft.splits import Fold

AUTOENCODER = "autoencoder"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placed:
    """A section's picture and where its spots lie.

    Attributes
    ----------
    picture
        Stain-normalised tissue.
    xy_px
        spots x 2, x and y in working-image pixels.
    size_px
        Diameter of a spot or side of a bin, px.
    square
        Whether it is a bin.
    """

    picture: Picture
    xy_px: np.ndarray
    size_px: float
    square: bool


def read_pictures(
    images: Sequence[str | os.PathLike],
    masks: Sequence[str | os.PathLike],
    stains: Sequence[str | os.PathLike],
    filtered: Sequence[str | os.PathLike],
    footprint_um: float | None = None,
) -> dict[str, Placed]:
    """Read the sections of a fit, normalised to their common stain.

    Parameters
    ----------
    images, masks, stains, filtered
        Of each section, what the rules wrote.
    footprint_um
        Diameter of a spot, um, instead of the platform's.
    """
    own = [Stain.from_json(json.loads(Path(path).read_text(encoding="utf-8"))) for path in stains]
    goal = target(own)
    found = {}
    for image, mask_path, stain, counts in zip(images, masks, own, filtered, strict=True):
        rgb, um_per_px, scale = read_image(image)
        mask = read_mask(mask_path)[0]
        with CountsFile(counts) as file:
            about, xy = file.uns["histoweft"], file.obsm("spatial")[:, :2] * scale
        size, square = footprint_of(about, str(counts), footprint_um)
        size /= um_per_px
        picture = image_model.crop_to_tissue(normalise(rgb, stain, goal, mask), mask, xy, size, um_per_px)
        found[str(about["sample"])] = Placed(picture, xy, size, square)
    return found


def cross_validate(
    spots: Spots,
    of: Sequence[Fold],
    placed: Mapping[str, Placed],
    pretrained: str | os.PathLike,
    *,
    epochs: int,
    seed: int,
    device: str,
    threads: int,
    checkpoint: str,
) -> list[dict[str, Any]]:
    """Train the autoencoder's gene channels on each fold's training spots and predict the others.

    Parameters
    ----------
    spots, of
        Spots and folds.
    placed
        Of each section.
    pretrained
        What the rule ``pretrain`` wrote.
    epochs
        Of the gene phase; as in the reference nothing is held out to stop it early.
    seed, device, threads, checkpoint
        See `evaluate.cross_validate`.

    Returns
    -------
    list of dict
        As `results.write_predictions` wants them. Only the genes of the small panels have channels.
    """
    from histoweft.histology import autoencoder

    start, _ = autoencoder.load(pretrained)
    found = []
    for fold in of:
        goal = folds.target(spots, fold, seed=seed)
        genes = np.union1d(
            panels.top_variable(spots.counts[fold.train]).genes,
            panels.markers(goal.expression, seed=seed, scores=goal.components.scores).genes,
        )
        model, run, scale = image_model.fit(
            start, {name: one.picture for name, one in placed.items()}, spots,
            {name: (one.xy_px, one.size_px, one.square) for name, one in placed.items()}, goal, genes, epochs=epochs,
            seed=seed, device=device, threads=threads, checkpoint=f"{checkpoint}.{fold.name}.ckpt",
        )  # fmt: skip
        values = _predict(model.cpu(), spots, placed, scale)
        mean = np.asarray(goal.expression.mean(axis=0)).ravel()
        every = image_model.as_factored(values, genes, len(spots.genes), mean)
        score = training_score(spots, goal, every.rows(fold.train))
        _log.info("fold %s: %.3f on the training spots after %d epochs", fold.name, score, run.epochs)
        found.append({
            "name": fold.name, "test": fold.test, "methods": {AUTOENCODER: every.rows(fold.test)},
            "training": {AUTOENCODER: score},
            "runs": {AUTOENCODER: run.facts},
        })  # fmt: skip
    return found


def _predict(model: Any, spots: Spots, placed: Mapping[str, Placed], scale: image_model.Scale) -> np.ndarray:
    values = np.zeros((len(spots.xy), len(scale.genes)), dtype=np.float32)
    for number, sample in enumerate(spots.samples):
        one = placed[sample]
        matrix = image_model.footprint_matrix(one.picture, one.xy_px, one.size_px, one.square)
        values[spots.section == number] = image_model.predict(model, one.picture, matrix, scale)
    return values
