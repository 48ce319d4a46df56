"""Deconvolution of spots mixed from real cells, and of a section with published proportions.

Each data set's cells are cut into halves within types: signatures are learned on one, spots are mixed of the other.
Missing types: one half in turn lacks a type; the flag is calibrated on spots mixed of that half's other cells.

    python benchmarks/deconvolution.py <folder of the data sets> <table.tsv>
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "lib"))

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft.annotation.deconvolve import METHODS, POISSON, Options, deconvolve, fit
from histoweft.annotation.deconvolve_sample import scale_and_coverage
from histoweft.annotation.deconvolve_score import NAMES, scores
from histoweft.annotation.deconvolve_selftest import Setting, halve, run_trial
from histoweft.annotation.deconvolve_signature import Signature, learn_signature
from histoweft.annotation.deconvolve_simulate import simulate_spots
from histoweft.annotation.deconvolve_solve import solve_nonnegative
from histoweft.io import CountsFile

DIFFICULTIES = {
    "few cells": {"cells_per_spot": (2, 6), "depth": 1.0, "platform_sd": 0.0},
    "medium": {"cells_per_spot": (5, 15), "depth": 0.5, "platform_sd": 0.3},
    "shallow": {"cells_per_spot": (5, 15), "depth": 0.1, "platform_sd": 0.6},
    "other platform": {"cells_per_spot": (2, 15), "depth": 0.3, "platform_sd": 1.0},
}
SPOTS, SEEDS = 400, (0, 1)
OTHER_PATIENTS = ("B1", "D1", "E1")


def data_sets(folder: Path) -> Iterator[tuple[str, sp.csr_matrix, np.ndarray, list[str]]]:
    """Yield name, cells x genes, type of each cell and types."""
    with CountsFile(folder / "pbmc_facs_zheng" / "pbmc_facs.h5ad") as counts:
        matrix, obs = counts.matrix(), counts.obs()
    matrix.data = matrix.data.astype(np.int64)
    for name, column in (("pbmc, 10 gates", "celltype_facs"), ("pbmc, 5 groups", "subpop")):
        yield (name, matrix, *_codes(obs[column].astype(str).to_numpy()))
    for name, place in (("hippocampus", "Visium_Ref"), ("hypothalamus", "Merfish_Ref")):
        source = folder / "mouse_brain_refs_spacexr" / "original" / place
        table = pd.read_csv(source / "counts.csv", index_col=0)
        labels = pd.read_csv(source / "cell_types.csv", index_col=0).iloc[:, 0].reindex(table.columns)
        cells = sp.csr_matrix(table.to_numpy().T.astype(np.int64))
        yield (name, cells, *_codes(labels.astype(str).to_numpy()))


def _codes(labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    types = sorted(set(labels))
    return np.searchsorted(types, labels), types


def mixed(name: str, cells: sp.csr_matrix, codes: np.ndarray, types: list[str]) -> Iterator[dict]:
    """Score every method, with and without cell sizes, and the intervals."""
    for level, setting in DIFFICULTIES.items():
        for seed in SEEDS:
            halves = halve(codes, None, seed)
            signature = learn_signature(cells[halves.train], codes[halves.train], len(types))
            spots = simulate_spots(cells[halves.test], codes[halves.test], len(types), SPOTS, seed=seed + 10, **setting)
            about = {"data": name, "spots": level, "seed": seed}
            for method in METHODS:
                for sizes in (True, False):
                    start = time.perf_counter()
                    found = deconvolve(spots.counts, signature, Options(method, cell_sizes=sizes))
                    seconds = time.perf_counter() - start
                    label = NAMES[method] if sizes else f"{NAMES[method]}, of counts"
                    values = {**scores(spots.proportions, found.values), "seconds": seconds}
                    yield from ({**about, "method": label, "metric": key, "value": v} for key, v in values.items())
            yield {**about, "method": POISSON, "metric": "coverage",
                   "value": _coverage(cells, codes, halves.train, types, signature, spots, setting, seed)}  # fmt: skip


def _coverage(cells, codes, train, types, signature, spots, setting, seed) -> float:
    """Scale intervals by a trial inside the reference half, as the workflow does, and see whether they hold here."""
    totals = np.asarray(spots.counts.sum(axis=1)).ravel()
    model = fit(spots.counts, signature, Options())
    like = Setting(setting["cells_per_spot"], totals, model.noise.platform.log_sd, SPOTS, 0.05, seed)
    inner = halve(codes[train], None, seed)
    trial = run_trial(cells[train], codes[train], inner, like, Options(), leave_out=False)
    scale, _ = scale_and_coverage(trial.truth, trial.found[POISSON])
    low, high = deconvolve(spots.counts, signature, Options(), model).interval(scale)
    return float(((spots.proportions >= low - 1e-9) & (spots.proportions <= high + 1e-9)).mean())


def missing(name: str, cells: sp.csr_matrix, codes: np.ndarray, types: list[str]) -> Iterator[dict]:
    """Leave types out of the reference."""
    depth = float(np.median(np.asarray(cells.sum(axis=1)).ravel()))
    for level, share, sd in (("medium", 4.0, 0.3), ("shallow", 0.8, 0.6)):
        for seed in SEEDS[:2]:
            setting = Setting((5, 15), np.full(1, share * depth), sd, SPOTS, 0.05, seed)
            trial = run_trial(cells, codes, halve(codes, None, seed), setting, Options())
            for one in trial.missing:
                about = {"data": name, "spots": level, "seed": seed, "method": f"without {types[one.left_out]}"}
                for key, value in (("auroc", one.auroc), ("found", one.found), ("false", one.falsely)):
                    yield {**about, "metric": f"unknown_{key}", "value": value}


def published(folder: Path) -> Iterator[dict]:
    """Agree with the published proportions of her2st A1, with signatures from the sections of other patients.

    No labelled breast reference is at hand. Signatures are the non-negative regression of the other patients' counts on
    their published proportions, so agreement says that two models of one kind agree, not that they are right.
    """
    sections = {name: _her2st(folder, name) for name in (*OTHER_PATIENTS, "A1")}
    genes = sorted(set.intersection(*(set(table.columns) for table, _ in sections.values())))
    counts = np.concatenate([sections[name][0][genes].to_numpy() for name in OTHER_PATIENTS]).astype(float)
    shares = np.concatenate([sections[name][1].to_numpy() for name in OTHER_PATIENTS])
    depth = counts.sum(axis=1, keepdims=True)
    design = shares * np.sqrt(depth)
    rates, _ = solve_nonnegative((design.T @ design)[None], (counts / np.sqrt(depth)).T @ design)
    rates = 0.98 * rates.T + 0.02 * rates.mean(axis=1)
    rates /= rates.sum(axis=1, keepdims=True)
    k = len(rates)
    weight = (shares * depth).sum(axis=0)
    signature = Signature(rates, rates / weight[:, None], np.full(len(genes), 0.1), np.ones(k), np.zeros(k))
    table, truth = sections["A1"]
    spots = sp.csr_matrix(table[genes].to_numpy().astype(np.int64))
    for method in METHODS:
        start = time.perf_counter()
        found = deconvolve(spots, signature, Options(method, cell_sizes=False)).values
        seconds = time.perf_counter() - start
        values = {**scores(truth.to_numpy(), found), "seconds": seconds}
        about = {"data": "her2st A1", "spots": "published", "seed": 0, "method": NAMES[method]}
        yield from ({**about, "metric": key, "value": value} for key, value in values.items())
        for column, name in enumerate(truth.columns):
            pair = np.corrcoef(truth[name], found[:, column])[0, 1] if found[:, column].std() > 0 else 0.0
            yield {**about, "metric": f"pearson:{name}", "value": pair}


def _her2st(folder: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    counts = pd.read_csv(folder / "her2st" / name / f"{name}.tsv.gz", sep="\t", index_col=0)
    shares = pd.read_csv(folder / "her2st" / name / f"{name}-proportion.tsv", sep="\t", index_col=0)
    both = counts.index.intersection(shares.index)
    return counts.loc[both], shares.loc[both].div(shares.loc[both].sum(axis=1), axis=0)


def scale(cells: sp.csr_matrix, codes: np.ndarray, types: list[str]) -> Iterator[dict]:
    """Time the model on many spots."""
    signature = learn_signature(cells, codes, len(types))
    spots = simulate_spots(cells, codes, len(types), 1_000, depth=0.3, seed=0)
    many = sp.vstack([spots.counts] * 20, format="csr")
    start = time.perf_counter()
    fit(many, signature, Options())
    seconds = time.perf_counter() - start
    about = {"data": "pbmc, 10 gates", "spots": f"{many.shape[0]} spots", "seed": 0, "method": POISSON}
    yield {**about, "metric": "seconds", "value": seconds}


def main(folder: str, out: str) -> None:
    """Write the table and print its means."""
    rows = list(published(Path(folder)))
    sets = list(data_sets(Path(folder)))
    rows += scale(*sets[0][1:])
    for case in sets:
        rows += [*mixed(*case), *missing(*case)]
        print(case[0], "done", flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(out, sep="\t", index=False, float_format="%.5g")
    flag = table["metric"].str.startswith("unknown")
    for part in (table[~flag], table[flag]):
        means = part.groupby(["data", "spots", "method", "metric"], sort=False)["value"].mean().unstack("metric")
        print(means.loc[:, ~means.columns.str.contains(":")].round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
