"""From what a study names as its atlas to the voxels and genes that its models see."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoweft.atlas import tables
from histoweft.atlas.sources import (
    MIDDLE,
    Options,
    Raw,
    check_shape,
    is_missing,
    read_annotation,
    read_input,
    wanted_share,
)
from histoweft.atlas.voxels import Voxels, row_chunks, stream_rows
from histoweft.errors import Faults, InputError

log = logging.getLogger(__name__)

_SHOWN = 5


@dataclass(frozen=True)
class Prepared:
    """An atlas that passed its checks.

    Parameters
    ----------
    voxels
        Its expression is mapped from the file it was written to.
    about
        plane and experiment of each gene, None where the input has no such thing.
    """

    voxels: Voxels
    about: pd.DataFrame | None


def prepare(options: Options, expression_path: str | os.PathLike) -> Prepared:
    """Read an atlas, remove background and genes with too little data, and write its expression.

    Genes are judged by how much data they have and by whether they vary at all, never by how much they vary: choosing
    the most variable ones belongs inside a fold.

    Parameters
    ----------
    options
        The config.
    expression_path
        Where the expression goes (``.npy``, voxels x genes, NaN where there is no data). What is put together from many
        volumes lies beside it until this function returns.

    Raises
    ------
    InputError
        A file is missing or does not fit the others, or nothing is left.
    """
    tree = (
        tables.structures(options.structures, f"atlas.structures: {options.structures}") if options.structures else None
    )
    annotation = read_annotation(options)
    with tempfile.TemporaryDirectory(dir=Path(expression_path).parent, prefix=".partial.") as scratch:
        raw = read_input(options, annotation, Path(scratch))
        if raw.shape is not None:
            check_shape(raw.shape, annotation, "atlas.input")
        shape = raw.shape or _grid_of(raw.position, annotation)
        structure = None if annotation is None else lookup(annotation, raw.position, options)
        _check_structures(structure, tree, options)
        midline = middle(options.midline, raw.position, shape)
        notes: list[str] = []
        stats = scan_voxels(raw, options)
        kept = keep_voxels(stats, raw.position, structure, options, notes)
        genes = keep_genes(raw, kept, options, notes)
        mirrored = _mirrored_genes(raw, genes, midline, options)
        partner = mirror_images(raw.position[kept], midline) if mirrored.any() else None
        stream_rows(expression_path, (len(kept), len(genes)), _rows(raw, kept, genes, options, mirrored, partner))
    for note in notes:
        log.info("%s", note)
    voxels = Voxels(
        np.load(expression_path, mmap_mode="r", allow_pickle=False),
        raw.position[kept],
        raw.genes[genes],
        options.voxel_um,
        shape,
        midline,
        None if structure is None else structure[kept],
        tree,
        partner is not None,
        tuple(notes),
    )
    return Prepared(voxels, None if raw.about is None else raw.about.iloc[genes].reset_index(drop=True))


# ------------------------------------------------------------------------------------------- places and structures


def _grid_of(position: np.ndarray, annotation: np.ndarray | None) -> tuple[int, int, int] | None:
    """Return the annotation's grid when positions are distinct voxels of it."""
    if annotation is None or (position != np.rint(position)).any():
        return None
    return annotation.shape if len(np.unique(position, axis=0)) == len(position) else None


def lookup(annotation: np.ndarray, position: np.ndarray, options: Options) -> np.ndarray:
    """Return the structure at each position (int32), of the voxel it is nearest to.

    Raises
    ------
    InputError
        A position lies outside the annotation.
    """
    at = np.rint(position).astype(np.int64)
    outside = np.flatnonzero(((at < 0) | (at >= annotation.shape)).any(1))
    if len(outside):
        where = ", ".join(f"{value:g}" for value in position[outside[0]])
        expected = f"z, y, x below {' x '.join(map(str, annotation.shape))}, in voxels of the annotation"
        found = f"{len(outside)} of {len(position)} positions outside (number {outside[0] + 1}: {where})"
        raise InputError.one(f"atlas.annotation: {options.annotation}", found, expected)
    return annotation[tuple(at.T)].astype(np.int32)


def _check_structures(structure: np.ndarray | None, tree: pd.DataFrame | None, options: Options) -> None:
    if structure is None or tree is None:
        return
    unknown = np.setdiff1d(structure, [0, *tree["id"]])
    if len(unknown):
        share = np.isin(structure, unknown).mean()
        listed = ", ".join(map(str, unknown[:_SHOWN]))
        found = f"{len(unknown)} ids that {options.structures} lacks ({listed}), {share:.1%} of the voxels"
        hint = "Is the tree of another version of the annotation?"
        raise InputError.one(f"atlas.annotation: {options.annotation}", found, "ids of atlas.structures", hint)


def middle(midline: float | str | None, position: np.ndarray, shape: Sequence[int] | None) -> float | None:
    """Return where on x the organ folds, in voxels.

    Parameters
    ----------
    midline
        ``middle`` for the middle of the grid (without one, of the range of x), a number, or None.
    position
        Voxels x 3.
    shape
        The grid.

    Raises
    ------
    InputError
        A word other than ``middle``, or a number beyond the positions.
    """
    low, high = (float(edge) for edge in (position[:, 2].min(), position[:, 2].max()))
    if midline is None:
        return None
    if midline == MIDDLE:
        return (shape[2] - 1) / 2 if shape is not None else (low + high) / 2
    if isinstance(midline, str):
        raise InputError.one("atlas.midline", midline, "middle, a number of voxels, or null")
    if not low < midline < high:
        raise InputError.one(
            "atlas.midline", midline, f"a number between {low:g} and {high:g}, the range of x in voxels"
        )
    return float(midline)


# --------------------------------------------------------------------------------------------------------- voxels


@dataclass(frozen=True)
class VoxelStats:
    """What one pass over the candidates found.

    Parameters
    ----------
    valid, detected
        Share of the genes with data, and of those with data the share above 0.
    mean
        Mean of the data; 0 without any.
    """

    valid: np.ndarray
    detected: np.ndarray
    mean: np.ndarray


def scan_voxels(raw: Raw, options: Options) -> VoxelStats:
    """Go through all candidates once.

    Raises
    ------
    InputError
        A value is infinite.
    """
    parts = []
    for rows in row_chunks((len(raw.rows), len(raw.genes))):
        values = np.asarray(raw.values[raw.rows[rows]])
        missing = is_missing(values, options.missing)
        infinite = np.isinf(values) & ~missing if values.dtype.kind == "f" else np.zeros((0, 0), bool)
        if infinite.any():
            row, gene = np.argwhere(infinite)[0]
            z, y, x = raw.position[rows][row]
            found = f"an infinite value of {raw.genes[gene]} at z, y, x = {z:g}, {y:g}, {x:g}"
            raise InputError.one(f"atlas.input: {options.input}", found, "finite numbers, NaN for no data")
        n = len(raw.genes) - missing.sum(1)
        total = np.where(missing, 0, values).sum(1, dtype=float)
        above = ((values > 0) & ~missing).sum(1)
        parts.append(np.column_stack([n / len(raw.genes), above / np.maximum(n, 1), total / np.maximum(n, 1)]))
    return VoxelStats(*np.concatenate(parts).T)


def keep_voxels(
    stats: VoxelStats, position: np.ndarray, structure: np.ndarray | None, options: Options, notes: list[str]
) -> np.ndarray:
    """Return which candidates are kept; what was removed is said in `notes`.

    Voxels without any data always go, as nothing can be learnt or scored there.

    Raises
    ------
    InputError
        None is left.
    """
    kept = stats.valid > 0
    if not kept.all():
        notes.append(f"{(~kept).sum()} of {len(kept)} voxels have no data in any gene and were left out.")
    if options.background == "annotation" and structure is not None:
        outside = kept & (structure == 0)
        if outside.any():
            notes.append(f"{outside.sum()} voxels lie outside the annotation and were left out.")
        kept &= ~outside
    elif options.background == "clusters" and kept.any():
        kept[np.flatnonzero(kept)[dim_and_outer(stats, position, kept, notes)]] = False
    if not kept.any():
        raise InputError.one("atlas.input", "no voxel with data in the organ", "values other than atlas.missing")
    return np.flatnonzero(kept)


def dim_and_outer(stats: VoxelStats, position: np.ndarray, kept: np.ndarray, notes: list[str]) -> np.ndarray:
    """Return which of the kept voxels are background by their expression (bool).

    Two clusters (k-means) by the logarithm of the mean expression and the share of genes detected, both standardized.
    The dimmer cluster is background if it also lies further out: its voxels' median distance to the middle of all, in
    units of the extent along each axis, is the larger one. Else nothing is removed.
    """
    from sklearn.cluster import KMeans

    bright = np.log1p(np.maximum(stats.mean[kept], 0))
    features = np.column_stack([bright, stats.detected[kept]])
    spread = np.where(np.ptp(features, axis=0) > 0, features.std(0), 0)
    if not (spread > 0).any():
        notes.append("All voxels have the same mean expression; no background was removed.")
        return np.zeros(len(features), bool)
    features = (features - features.mean(0)) / np.where(spread > 0, spread, 1)
    cluster = KMeans(2, n_init=10, random_state=0).fit_predict(features)
    dim = cluster == np.argmin([features[cluster == k].sum(1).mean() for k in (0, 1)])
    place = position[kept]
    extent = np.maximum(np.ptp(place, axis=0), 1)
    away = np.linalg.norm((place - (place.min(0) + place.max(0)) / 2) / extent, axis=1)
    outer = np.median(away[dim]) > np.median(away[~dim])
    if not outer:
        notes.append("The dimmer of two clusters of voxels does not lie further out; no background was removed.")
        return np.zeros(len(features), bool)
    notes.append(f"{dim.sum()} voxels of the dimmer and outer of two clusters were left out as background.")
    return dim


# ---------------------------------------------------------------------------------------------------------- genes


def keep_genes(raw: Raw, kept: np.ndarray, options: Options, notes: list[str]) -> np.ndarray:
    """Return which genes have enough data in the kept voxels and vary there; the others are named in `notes`.

    Raises
    ------
    InputError
        Fewer than two are left.
    """
    n = np.zeros(len(raw.genes), np.int64)
    low, high = np.full(len(n), np.inf), np.full(len(n), -np.inf)
    for rows in row_chunks((len(kept), len(n))):
        values = np.asarray(raw.values[raw.rows[kept[rows]]], np.float32)
        missing = is_missing(values, options.missing)
        n += (~missing).sum(0)
        low = np.minimum(low, np.where(missing, np.inf, values).min(0))
        high = np.maximum(high, np.where(missing, -np.inf, values).max(0))
    share = n / len(kept)
    plane = np.full(len(n), "") if raw.about is None else raw.about["plane"].to_numpy(str)
    wanted = np.array([wanted_share(each, options) for each in plane])
    reasons = {
        "no data": n == 0,
        "data in too few voxels (atlas.min_valid)": (n > 0) & (share < wanted),
        "the same value everywhere": (n > 0) & (share >= wanted) & (low == high),
    }
    for reason, dropped in reasons.items():
        if dropped.any():
            names = ", ".join(raw.genes[dropped][:_SHOWN]) + (", ..." if dropped.sum() > _SHOWN else "")
            notes.append(f"{dropped.sum()} of {len(n)} genes have {reason} and were left out: {names}.")
    left = np.flatnonzero(~np.logical_or.reduce(list(reasons.values())))
    if len(left) < 2:
        faults = Faults()
        for reason, dropped in reasons.items():
            if dropped.any():
                faults.add(
                    "atlas.input", f"{dropped.sum()} of {len(n)} genes with {reason}", "two genes or more to keep"
                )
        if not faults:
            faults.add("atlas.input", f"{len(n)} gene", "two genes or more")
        faults.raise_if_any()
    return left


def _mirrored_genes(raw: Raw, genes: np.ndarray, midline: float | None, options: Options) -> np.ndarray:
    """Return which of the genes are filled from the other half (bool)."""
    if not options.mirror:
        return np.zeros(len(genes), bool)
    if midline is None:
        raise InputError.one("atlas.mirror", "true", "false, where atlas.midline is null")
    if raw.about is None:
        raise InputError.one("atlas.mirror", "true", "false, where the input names no planes of section")
    return (raw.about["plane"].to_numpy(str) == "sagittal")[genes]


def mirror_images(position: np.ndarray, midline: float) -> np.ndarray:
    """Return which voxel is the mirror image of each across the midline, -1 where there is none.

    Parameters
    ----------
    position
        Voxels x 3.
    midline
        On x, in voxels; a whole or half number, or no voxel has an image.
    """
    from scipy.spatial import cKDTree

    mirrored = position.astype(np.float64)
    mirrored[:, 2] = 2 * midline - mirrored[:, 2]
    distance, nearest = cKDTree(position).query(mirrored, distance_upper_bound=1e-3)
    return np.where(np.isfinite(distance), nearest, -1)


def _rows(
    raw: Raw, kept: np.ndarray, genes: np.ndarray, options: Options, mirrored: np.ndarray, partner: np.ndarray | None
):
    """Yield the kept genes of the kept voxels in chunks of rows, float32, NaN where there is no data."""
    everything = len(genes) == len(raw.genes)

    def chunk(which: np.ndarray, of: np.ndarray) -> np.ndarray:
        values = np.asarray(raw.values[raw.rows[which]])
        values = np.asarray(values if of is None else values[:, of])
        gone = is_missing(values, options.missing)
        values = values.astype(np.float32)
        values[gone] = np.nan
        return values

    for rows in row_chunks((len(kept), len(genes))):
        values = chunk(kept[rows], None if everything else genes)
        if partner is not None:
            there = np.flatnonzero(partner[rows] >= 0)
            opposite = chunk(kept[partner[rows][there]], genes[mirrored])
            block = values[np.ix_(there, np.flatnonzero(mirrored))]
            values[np.ix_(there, np.flatnonzero(mirrored))] = np.where(np.isnan(block), opposite, block)
        yield values
