"""Folds of an atlas: at random, in compact blocks with a buffer, one half of the organ; and validation inside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from histoweft import splits
from histoweft.atlas.voxels import Voxels
from histoweft.errors import InputError
from histoweft.splits import Fold

RANDOM, BLOCK, HEMISPHERE = "random", "block", "hemisphere"
PROTOCOLS = (RANDOM, BLOCK, HEMISPHERE)

_VALIDATION = 5
"""One of so many parts of the training voxels is held out once more, to stop a network on: 16 % of all voxels."""


@dataclass(frozen=True)
class Split:
    """A fold with the part of its training voxels that networks are stopped on.

    Attributes
    ----------
    protocol
        One of `PROTOCOLS`.
    name
        Of the fold.
    train, test
        Row numbers. Scaling, components and floors use all of `train`.
    fitting, validation
        Parts of `train`: what weights are learned from, and what chooses the epoch. What lies in neither is the buffer.
    """

    protocol: str
    name: str
    train: np.ndarray
    test: np.ndarray
    fitting: np.ndarray
    validation: np.ndarray


def n_folds_of(protocol: str, n_folds: int) -> int:
    """Return how many folds a protocol has."""
    return 2 if protocol == HEMISPHERE else n_folds


def make(voxels: Voxels, protocol: str, n_folds: int, buffer: float, seed: int) -> list[Split]:
    """Cut an atlas into folds.

    Parameters
    ----------
    voxels
        The atlas.
    protocol
        ``random``: each fifth of the voxels in turn, drawn at random (64 % fitting, 16 % validation, 20 % test: the
        sizes of Spatial-VAE). ``block``: compact blocks of the left-right-folded positions, so that a block's mirror
        image is held out with it. ``hemisphere``: each half of the organ in turn.
    n_folds
        Of ``random`` and ``block``.
    buffer
        Training voxels nearer than this to a test voxel (``block``, in folded positions) or to the midline
        (``hemisphere``) are left out, in voxels.
    seed
        Of the random folds.

    Raises
    ------
    InputError
        Too few voxels, the buffer leaves nothing, or the organ has no halves.
    """
    if protocol == RANDOM:
        folds = splits.random_folds(voxels.n, n_folds, seed)
    elif protocol == BLOCK:
        folds = splits.blocks(voxels.folded(), n_folds, buffer)
        splits.audit(folds, voxels.n, xy=voxels.folded(), buffer_um=buffer)
    elif protocol == HEMISPHERE:
        folds = _hemispheres(voxels, buffer)
        splits.audit(folds, voxels.n, xy=voxels.position, buffer_um=buffer)
    else:
        raise ValueError(f"protocol {protocol!r} is not one of {', '.join(PROTOCOLS)}")
    return [_with_validation(voxels, protocol, fold, at, buffer, seed) for at, fold in enumerate(folds)]


def inner(voxels: Voxels, split: Split, n_folds: int, buffer: float, seed: int) -> list[Fold]:
    """Cut the training voxels of a fold once more, as the fold itself was cut.

    Returns
    -------
    list of Fold
        Row numbers among `split.train`.
    """
    if split.protocol == RANDOM:
        return splits.random_folds(len(split.train), n_folds, seed + 1)
    return splits.blocks(voxels.folded()[split.train], n_folds, buffer)


def first_fifth(voxels: Voxels, split: Split) -> Split:
    """Return the fold with the validation of Spatial-VAE: the first fifth of the training voxels, ordered by z.

    Kept to show what it does: the front of the organ is never learned from.
    """
    order = split.train[np.lexsort(voxels.position[split.train].T[::-1])]
    cut = len(order) // _VALIDATION
    return Split(split.protocol, split.name, split.train, split.test, np.sort(order[cut:]), np.sort(order[:cut]))


def _hemispheres(voxels: Voxels, buffer: float) -> list[Fold]:
    side = voxels.hemisphere()
    if side is None:
        raise InputError.one(
            "atlas.protocols: hemisphere",
            "an atlas without a midline",
            "an organ with two halves",
            "Set atlas.midline, or take `hemisphere` out of the protocols.",
        )
    far = np.abs(voxels.position[:, 2] - voxels.midline) >= buffer
    folds = []
    for half, name in enumerate(("first_half", "second_half")):
        fold = Fold(name, np.flatnonzero((side != half) & far), np.flatnonzero(side == half))
        if not (len(fold.train) and len(fold.test)):
            raise InputError.one(
                f"atlas: {name.replace('_', ' ')}",
                f"{len(fold.test)} voxels, and {len(fold.train)} beyond a buffer of {buffer:g} voxels in the other",
                "some in both",
                "Check atlas.midline, and use a smaller atlas.buffer_voxels.",
            )
        folds.append(fold)
    return folds


def _with_validation(voxels: Voxels, protocol: str, fold: Fold, at: int, buffer: float, seed: int) -> Split:
    if protocol == RANDOM:
        inner_fold = splits.random_folds(len(fold.train), _VALIDATION, seed + 1)[0]
    else:
        inner_folds = splits.blocks(voxels.folded()[fold.train], _VALIDATION, buffer)
        inner_fold = inner_folds[at % _VALIDATION]
    return Split(protocol, fold.name, fold.train, fold.test, fold.train[inner_fold.train], fold.train[inner_fold.test])
