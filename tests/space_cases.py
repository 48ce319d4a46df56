"""A planted tissue for the tests of domains, niches and scales."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.io import CsrWriter

LAYERS = 4
SIDE = 24


def hexagonal(side=SIDE):
    """Return positions on a hexagonal lattice, 100 um apart."""
    row, column = np.mgrid[:side, :side]
    return np.column_stack([(column + 0.5 * (row % 2)).ravel(), (0.866 * row).ravel()]) * 100.0


def layers(xy):
    """Return the layer of each point: four bands with a bent border."""
    depth = xy[:, 1] + 120 * np.sin(xy[:, 0] / 500)
    return np.clip((depth / (0.866 * 100 * SIDE) * LAYERS).astype(int), 0, LAYERS - 1)


def planted_counts(seed=0, genes=120, total=600, batch=0.0):
    """Return positions, layers and counts; 15 genes mark each layer, `batch` moves every gene of the section."""
    rng = np.random.default_rng(seed)
    xy = hexagonal()
    layer = layers(xy)
    profile = np.tile(np.random.default_rng(99).gamma(2.0, 1.0, genes), (LAYERS, 1))
    for number in range(LAYERS):
        profile[number, 15 * number : 15 * (number + 1)] *= 2.5
    profile *= np.exp(rng.normal(0, batch, genes))
    profile /= profile.sum(axis=1, keepdims=True)
    depth = total * np.exp(rng.normal(0, 0.3, len(xy)))
    return xy, layer, sp.csr_matrix(rng.poisson(profile[layer] * depth[:, None]).astype(np.int32))


def write_section(path, sample, seed=0, batch=0.0, labelled=True, gene_prefix="G"):
    """Write a planted section as filtered.h5ad and return its layers."""
    xy, layer, counts = planted_counts(seed, batch=batch)
    barcodes = [f"{sample}_{number}" for number in range(len(xy))]
    obs = pd.DataFrame({"n_counts": np.asarray(counts.sum(axis=1)).ravel()}, index=barcodes)
    if labelled:
        obs["label"] = pd.Categorical([f"layer{number}" for number in layer])
    names = [f"{gene_prefix}{number}" for number in range(counts.shape[1])]
    var = pd.DataFrame({"gene_id": [f"ENS{name}" for name in names]}, index=names)
    about = {"sample": sample, "platform": "visium", "mpp": 1.0, "spot_diameter_um": 55.0}
    with CsrWriter(path, counts.shape[1], np.int32) as writer:
        writer.append(counts)
        writer.finish(obs, var, obsm={"spatial": xy, "spatial_um": xy}, uns={"histoweft": about})
    return layer
