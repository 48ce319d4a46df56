"""The spots of one or several sections as models see them: counts, positions and the features of their footprints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.histology import context
from histoweft.io import CountsFile
from histoweft.normalise import normalise, row_sums

MOST_POINTS = 600_000
"""Footprint points held in memory, all sections together; more spots get fewer points each."""


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes
    ----------
    name
        Sample.
    barcodes
        Of its spots.
    genes
        Names of the columns of `counts`.
    counts
        spots x genes, raw.
    totals
        Counts of each spot over all genes of the section, (spots,).
    xy
        spots x 2, um.
    pixels
        spots x points x features, float16, standardised within the section.
    centre, spread
        Of each feature over the section's spots, (features,): what `pixels` were standardised with.
    features
        Their names.
    """

    name: str
    barcodes: pd.Index
    genes: pd.Index
    counts: sp.csr_matrix
    totals: np.ndarray
    xy: np.ndarray
    pixels: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    features: list[str]

    @cached_property
    def means(self) -> np.ndarray:
        """Mean over each footprint, spots x features float32."""
        return self.pixels.mean(axis=1, dtype=np.float32)


def footprint_of(about: dict, where: str, footprint_um: float | None = None) -> tuple[float, bool]:
    """Return the diameter of a spot or the side of a bin, um, and whether it is square.

    Parameters
    ----------
    about
        ``uns['histoweft']`` of a sample.
    where
        How messages call it.
    footprint_um
        Replaces the platform's size.

    Raises
    ------
    InputError
        The size is not known.
    """
    size = footprint_um or about.get("spot_diameter_um")
    if size is None or not np.isfinite(size) or size <= 0:
        raise InputError.one(
            where,
            "no spot diameter and no bin size",
            "what area of the image a count belongs to",
            "Set histology.footprint_um in the config, or histology.enabled: false for this study.",
        )
    return float(size), about.get("platform") == "visium_hd"


def standardise(features: np.ndarray, centre: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return (features - centre) / spread, limited to `context.CLIP`; features on the last axis."""
    return np.clip((features - centre) / spread, -context.CLIP, context.CLIP)


def read_section(
    filtered: str | os.PathLike,
    pyramid: str | os.PathLike,
    points: int = context.POINTS,
    footprint_um: float | None = None,
) -> Section:
    """Read the spots of one section and the image features of their footprints.

    Parameters
    ----------
    filtered
        ``filtered.h5ad``.
    pyramid
        Folder written by `context.save`.
    points
        Points of each footprint.
    footprint_um
        Diameter of a spot, um, instead of the platform's.

    Raises
    ------
    InputError
        The size of a spot is not known, or the spots lie off the image.
    """
    image = context.load(pyramid)
    with CountsFile(filtered) as file:
        about, counts, genes, barcodes = file.uns["histoweft"], file.matrix(), file.var_names, file.obs_names
        pixels_full, xy = file.obsm("spatial")[:, :2], file.obsm("spatial_um")[:, :2]
    size, square = footprint_of(about, str(filtered), footprint_um)
    at = pixels_full * (float(about["mpp"]) / image.um_per_px)
    _on_image(at, image, filtered)
    spots = context.footprints(at, size / image.um_per_px, square, points)
    values = image.sample(spots.reshape(-1, 2)).reshape(*spots.shape[:2], -1)
    means = values.mean(axis=1)
    centre, spread = means.mean(axis=0), means.std(axis=0) + 1e-6
    pixels = standardise(values, centre, spread).astype(np.float16)
    return Section(
        str(about["sample"]), barcodes, genes, sp.csr_matrix(counts), row_sums(counts), np.asarray(xy, dtype=float),
        pixels, centre, spread, image.features,
    )  # fmt: skip


def _on_image(at: np.ndarray, image: context.Context, where: str | os.PathLike) -> None:
    height, width = (size * image.levels[0].factor for size in image.shape)
    outside = ~((at >= 0).all(axis=1) & (at[:, 0] <= width) & (at[:, 1] <= height))
    if outside.mean() > 0.5:
        raise InputError.one(
            where,
            f"{outside.sum()} of {len(at)} spots off the image of {width} x {height} px",
            "spots on the image",
            "Check the sheet's image, image_scale and mpp.",
        )


def points_each(n_spots: int) -> int:
    """Return the points of each footprint that so many spots can have."""
    return int(np.clip(MOST_POINTS // max(n_spots, 1), 4, context.POINTS))


@dataclass(frozen=True)
class Spots:
    """The spots of several sections under one another, on the genes they share.

    Attributes
    ----------
    samples
        Names of the sections.
    section
        Number of each spot's section.
    genes, counts, totals, xy, pixels
        As of `Section`, joined. `totals` are over all genes of each section, shared or not.
    registered
        Positions in a common frame, spots x 2 um; NaN where a section has no serial partner.
    frame
        Of each spot: name of the frame that its registered position lies in; empty for none.
    """

    samples: list[str]
    section: np.ndarray
    barcodes: np.ndarray
    genes: pd.Index
    counts: sp.csr_matrix
    totals: np.ndarray
    xy: np.ndarray
    pixels: np.ndarray
    registered: np.ndarray
    frame: np.ndarray
    features: list[str]

    @cached_property
    def means(self) -> np.ndarray:
        """Mean over each footprint, spots x features float32."""
        return self.pixels.mean(axis=1, dtype=np.float32)

    def normalised(self, median_total: float, rows: slice | np.ndarray = slice(None)) -> sp.csr_matrix:
        """Return log(1 + count / total x median total) of some spots, rows x genes float32; of all if left out."""
        return normalise(self.counts[rows], median_total, self.totals[rows])


def join(sections: Sequence[Section], registered: pd.DataFrame | None = None) -> Spots:
    """Put sections under one another.

    Parameters
    ----------
    sections
        At least one.
    registered
        Table of `x`, `y`, `frame` with the index ``<sample>:<barcode>``, where sections were registered.

    Raises
    ------
    InputError
        The sections share no gene.
    """
    genes = sections[0].genes
    for section in sections[1:]:
        genes = genes.intersection(section.genes, sort=False)
    if not len(genes):
        names = ", ".join(section.name for section in sections)
        raise InputError.one(f"sections {names}", "no gene in common", "the same gene names", "Are the species alike?")
    number = np.repeat(np.arange(len(sections)), [len(section.barcodes) for section in sections])
    barcodes = np.concatenate([section.barcodes.to_numpy(dtype=object) for section in sections])
    index = [f"{sections[n].name}:{barcode}" for n, barcode in zip(number, barcodes)]
    where, frame = np.full((len(index), 2), np.nan), np.full(len(index), "", dtype=object)
    if registered is not None:
        there = registered.reindex(index)
        where, frame = there[["x", "y"]].to_numpy(dtype=float), there["frame"].fillna("").to_numpy(dtype=object)
    return Spots(
        samples=[section.name for section in sections], section=number, barcodes=barcodes, genes=genes,
        counts=sp.vstack([s.counts[:, s.genes.get_indexer(genes)] for s in sections], format="csr"),
        totals=np.concatenate([section.totals for section in sections]),
        xy=np.concatenate([section.xy for section in sections]),
        pixels=np.concatenate([section.pixels for section in sections]),
        registered=where, frame=frame, features=sections[0].features,
    )  # fmt: skip
