"""A small voxel atlas: a two-sided organ on a grid, four structures, smooth and structural genes, section artefacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from histoweft.simulate.draws import stream

VOXEL_UM = 200
N_GENES = 150
#: id, acronym, name, parent id: two levels under the root.
STRUCTURES = (
    (1, "ORG", "organ", 0),
    (2, "CTX", "cortex", 1),
    (3, "MED", "medulla", 1),
    (11, "CTXs", "cortex, superficial layer", 2),
    (12, "CTXd", "cortex, deep layer", 2),
    (21, "MEDl", "medulla, lateral part", 3),
    (22, "MEDm", "medulla, medial part", 3),
)
LEAVES = (11, 12, 21, 22)


@dataclass(frozen=True)
class Atlas:
    """The atlas.

    Parameters
    ----------
    expression
        float32, voxels x genes, non-negative energies; -1 where missing.
    coordinates
        int16, voxels x 3: z (section), y, x on the grid, 0-based.
    annotation
        int32 volume of structure ids, 0 outside the organ.
    genes
        One name a gene.
    truth
        One array a gene: kind, structure, wavelength.
    """

    expression: np.ndarray
    coordinates: np.ndarray
    annotation: np.ndarray
    genes: np.ndarray
    truth: Mapping[str, np.ndarray]


def draw_atlas(seed: int, voxels: int = 1500) -> Atlas:
    """Draw an atlas of about `voxels` voxels inside an ellipsoid with a left and a right half.

    A third of the genes are smooth fields, a third follow a structure, a sixth do both, a sixth are noise.
    Every gene has the artefacts of a section-wise assay: whole sections brighter or dimmer, 1 % of voxels and
    some sections missing.
    """
    rng = stream(seed, "atlas")
    scale = (voxels / (4 / 3 * np.pi)) ** (1 / 3)
    radius = scale * np.array([1.2, 0.75, 1 / 0.9])
    size = np.ceil(2 * radius + 2).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(k) for k in size), indexing="ij"), -1)
    unit = (grid - (size - 1) / 2) / radius
    shell = np.linalg.norm(unit, axis=-1)
    wave = 0.06 * np.sin(4 * unit[..., 0] + 1) * np.cos(5 * unit[..., 1])
    annotation = np.zeros(size, np.int32)
    organ = shell <= 1.0
    annotation[organ] = np.where(np.abs(unit[..., 2]) > 0.33, 21, 22)[organ]
    annotation[organ & (shell + wave > 0.68)] = 12
    annotation[organ & (shell + wave > 0.86)] = 11
    coordinates = np.argwhere(annotation > 0).astype(np.int16)
    place = unit[annotation > 0]
    region = annotation[annotation > 0]

    kind = np.array(["smooth", "structure", "both", "noise"])[rng.choice(4, N_GENES, p=[0.34, 0.33, 0.18, 0.15])]
    wavelength = np.where(np.isin(kind, ["smooth", "both"]), rng.uniform(1.2, 3.0, N_GENES), np.nan)
    structure = np.where(np.isin(kind, ["structure", "both"]), rng.choice(LEAVES, N_GENES), 0)
    # the two halves mirror one another, but for a slight slope from left to right in the smooth genes
    folded = np.column_stack([place[:, :2], np.abs(place[:, 2])])
    log = rng.normal(0.3, 0.5, N_GENES) + 0.12 * rng.standard_normal((len(place), N_GENES))
    for gene in np.flatnonzero(np.isfinite(wavelength)):
        direction = rng.standard_normal((4, 3))
        direction *= 2 * np.pi / wavelength[gene] / np.linalg.norm(direction, axis=1, keepdims=True)
        log[:, gene] += 0.45 * np.cos(folded @ direction.T + rng.uniform(0, 2 * np.pi, 4)).sum(1)
        log[:, gene] += rng.normal(0, 0.25) * place[:, 2]
    log += np.where(region[:, None] == structure, rng.uniform(0.8, 1.6, N_GENES), 0.0)
    log += 0.10 * rng.standard_normal((size[0], N_GENES))[coordinates[:, 0]]
    expression = np.exp(log).astype(np.float32)
    gone = rng.random(expression.shape) < 0.01
    gone |= (rng.random((size[0], N_GENES)) < 0.015)[coordinates[:, 0]]
    expression[gone] = -1
    names = np.array([f"ATLAS{i:03d}" for i in range(1, N_GENES + 1)])
    truth = {"gene": names, "kind": kind, "structure": structure, "wavelength_voxels": wavelength * scale}
    return Atlas(expression, coordinates, annotation, names, truth)
