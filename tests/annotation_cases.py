"""Simulated references and queries with planted types, a batch effect and a type that the reference lacks."""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft import io, normalise
from histoweft.annotation.reference import Reference

GENES = 150
TYPES = ("alpha", "beta", "delta", "rare")
MARKERS = {name: [f"G{20 * i + j}" for j in range(12)] for i, name in enumerate((*TYPES, "stranger"))}
NAMES = np.array([f"G{i}" for i in range(GENES)])


def counts_of(names, seed=0, shift=0.0, fold=6.0):
    """Counts of cells of the given types; `shift` is the spread (log scale) of a technical effect on every gene."""
    base = np.random.default_rng(7).gamma(1.0, 0.6, GENES) + 0.1
    rng = np.random.default_rng(seed)
    rate = np.tile(base * np.exp(shift * rng.standard_normal(GENES)), (len(names), 1))
    for name, genes in MARKERS.items():
        columns = [int(gene[1:]) for gene in genes]
        rate[np.ix_(np.asarray(names) == name, columns)] *= fold
    return rng.poisson(rate * rng.uniform(0.7, 1.4, (len(names), 1))).astype(np.int32)


def draw_types(sizes, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(list(sizes), list(sizes.values())))


def reference_of(sizes=None, seed=0, donors=0, **effect):
    """A reference in memory; with donors, each has its own technical effect."""
    sizes = sizes or {"alpha": 120, "beta": 90, "delta": 70, "rare": 20}
    names = draw_types(sizes, seed)
    groups = None
    if donors:
        groups = np.array([f"D{i % donors}" for i in range(len(names))])
        counts = np.zeros((len(names), GENES), np.int32)
        for i, donor in enumerate(np.unique(groups)):
            mine = groups == donor
            counts[mine] = counts_of(names[mine], seed + 10 + i, shift=0.3)
    else:
        counts = counts_of(names, seed, **effect)
    types = sorted(set(names))
    expression = normalise.normalise(sp.csr_matrix(counts)).tocsr()
    barcodes = np.array([f"r{i}" for i in range(len(names))])
    return Reference(barcodes, expression, NAMES, types, np.searchsorted(types, names), groups)


def write_h5ad(path, names, counts, genes=NAMES, batch=None, xy=None, sample="s", label=True, platform="scrna"):
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(len(counts))])
    if label:
        obs["label"] = pd.Categorical(names)
    if batch is not None:
        obs["batch"] = batch
    var = pd.DataFrame({"gene_id": [f"ID{gene}" for gene in genes]}, index=list(genes))
    about = {"sample": sample, "mpp": float("nan"), "spot_diameter_um": float("nan"), "platform": platform}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with io.CsrWriter(path, counts.shape[1], np.int32) as writer:
        writer.append(sp.csr_matrix(counts))
        writer.finish(obs, var, obsm={} if xy is None else {"spatial": xy}, uns={"histoweft": about})
    return path


def options(**changed):
    """The config's section with its defaults."""
    from histoweft import config

    schema = config.load_schema("config")["properties"]["annotation"]
    return config.complete({"reference": "r", "n_top": 100, "n_components": 10, "folds": 3, **changed}, schema)
