"""Sums of one fold from which every score follows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from histoweft.atlas.voxels import Voxels


@dataclass
class Tally:
    """Running sums over held-out voxels, gene by gene; voxels come in pieces.

    Attributes
    ----------
    n
        Measured values of each gene.
    error, total
        Squared error, and squared distance from the training mean (standardised: 0), of each gene.
    moments
        5 x genes: sums of truth, prediction, their squares and their product.
    unit_error, unit_n
        Squared error on the 0..1 scale of each voxel, over all genes, and the values in it.
    voxel_error
        Mean squared error of each voxel as it came, standardised.
    """

    genes: int
    n: np.ndarray = field(init=False)
    error: np.ndarray = field(init=False)
    total: np.ndarray = field(init=False)
    moments: np.ndarray = field(init=False)
    unit_error: float = 0.0
    voxel_error: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self):
        self.n, self.error, self.total = np.zeros(self.genes), np.zeros(self.genes), np.zeros(self.genes)
        self.moments = np.zeros((5, self.genes))

    def add(self, truth: np.ndarray, predicted: np.ndarray, factor: np.ndarray) -> None:
        """Add voxels.

        Parameters
        ----------
        truth
            rows x genes, standardised; NaN where there is no data.
        predicted
            The same, without gaps.
        factor
            Turns a standardised difference into one on the 0..1 scale of the voxel; see `Scaling.affine`.
        """
        there = ~np.isnan(truth)
        truth = np.where(there, truth, np.float32(0))
        predicted = np.where(there, predicted, np.float32(0))
        missed = predicted - truth
        squares = missed**2
        self.n += there.sum(axis=0)
        self.error += squares.sum(axis=0, dtype=np.float64)
        self.total += np.einsum("ij,ij->j", truth, truth, dtype=np.float64)
        products = (truth, predicted, truth * truth, predicted * predicted, truth * predicted)
        for row, values in zip(self.moments, products, strict=True):
            row += values.sum(axis=0, dtype=np.float64)
        self.unit_error += float(((missed * factor) ** 2).sum(dtype=np.float64))
        self.voxel_error.append(squares.sum(axis=1) / np.maximum(there.sum(axis=1), 1))

    def pearson(self) -> np.ndarray:
        """Return the correlation over the voxels, gene by gene; NaN where one side does not vary."""
        n = np.maximum(self.n, 1)
        x, y, xx, yy, xy = self.moments / n
        spread = np.sqrt(np.maximum(xx - x * x, 0) * np.maximum(yy - y * y, 0))
        return np.divide(xy - x * y, spread, out=np.full(self.genes, np.nan), where=spread > 1e-9)


def reconstruction_scores(
    error: np.ndarray, total: np.ndarray, n: np.ndarray, pearson: np.ndarray, unit_error: float
) -> dict[str, float]:
    """Score a reconstruction from the sums of a `Tally`.

    Returns
    -------
    dict
        ``r2``: one minus squared error over squared distance from the training mean, pooled over genes, each in
        training standard deviations. ``mse``: on the 0..1 scale within each voxel that Spatial-VAE reports.
        ``pearson``: mean over genes; one that is predicted constant counts 0.
    """
    return {
        "r2": 1 - float(error.sum() / max(total.sum(), 1e-12)),
        "mse": float(unit_error / max(n.sum(), 1)),
        "pearson": float(np.nan_to_num(pearson).mean()),
    }


def place_scores(predicted: np.ndarray, truth: np.ndarray, voxels: Voxels) -> dict[str, float]:
    """Score predicted positions.

    Parameters
    ----------
    predicted, truth
        voxels x 3 (z, y, x), voxels.
    voxels
        For the midline and the size of a voxel.

    Returns
    -------
    dict
        ``r2_z``, ``r2_y``, ``r2_x`` and their mean ``r2`` (against the mean of the held-out voxels), ``rmse``
        (voxels, over the axes), ``euclid_voxels`` and ``euclid_um`` (mean distance), and ``euclid_folded_voxels``:
        with the halves of the organ laid onto one another, for it is symmetric, and a place mirrored is a small
        mistake.
    """
    missed = predicted - truth
    spread = np.maximum(((truth - truth.mean(axis=0)) ** 2).sum(axis=0), 1e-12)
    r2 = 1 - (missed**2).sum(axis=0) / spread
    distance = float(np.linalg.norm(missed, axis=1).mean())
    folded = np.linalg.norm(fold(predicted, voxels.midline) - fold(truth, voxels.midline), axis=1)
    return {
        **{f"r2_{axis}": float(value) for axis, value in zip("zyx", r2, strict=True)},
        "r2": float(r2.mean()),
        "rmse": float(np.sqrt((missed**2).mean())),
        "euclid_voxels": distance,
        "euclid_um": distance * voxels.voxel_um,
        "euclid_folded_voxels": float(folded.mean()),
    }


def fold(position: np.ndarray, midline: float | None) -> np.ndarray:
    """Return positions with x replaced by the distance to the midline, as they are where there is none."""
    if midline is None:
        return position
    return np.column_stack([position[:, :2], np.abs(position[:, 2] - midline)])


def depths_of(voxels: Voxels, at_most: int = 3) -> list[int]:
    """Choose depths of the structure tree to score at: evenly spread over those with at least two structures."""
    if voxels.structure is None or voxels.structures is None:
        return []
    deepest = int(voxels.structures["depth"].max())
    useful, before = [], 1
    for depth in range(1, deepest + 1):
        distinct = len(np.unique(voxels.ancestors(depth)))
        # A deeper level that tells no more structures apart is the same question again.
        if distinct > before:
            useful.append(depth)
        before = distinct
    if len(useful) <= at_most:
        return useful
    return [useful[i] for i in np.linspace(1, len(useful) - 1, at_most).round().astype(int)]


def region_of(predicted: np.ndarray, voxels: Voxels, labels: np.ndarray) -> np.ndarray:
    """Look up the structure at predicted places: that of the nearest voxel of the atlas, left-right folded."""
    from scipy.spatial import cKDTree

    tree = cKDTree(voxels.folded())
    return labels[tree.query(fold(predicted, voxels.midline))[1]]
