"""Seconds and peak memory of the space statistics on half a million bins, step by step.

    python benchmarks/space_scale.py run --report out/space_scale.json
    python benchmarks/space_scale.py run --side 300 --genes 1000

Simulated Visium HD: a square grid of 8 um bins, sparse counts of regions with their own genes; the genes are taken from
LIANA's pairs first. Every step reads the files that the step before wrote, as the rules do, in a process of its own;
peak memory is what the kernel counted for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "lib"))

STEPS = ("graph", "svg", "neighbourhood", "interactions")
BIN_UM = 8.0
TARGET = 10_000


def generate(folder: Path, side: int, genes: int, groups: int, seed: int) -> None:
    """Write counts, groups and principal components of a section of `side` x `side` bins."""
    import pandas as pd
    import scipy.sparse as sp
    from scipy.spatial import cKDTree

    from histoweft.io import CountsFile, CsrWriter, atomic, write_table
    from histoweft.linalg import pca
    from histoweft.normalise import normalise
    from histoweft.space.ligands import read_resource

    rng = np.random.default_rng(seed)
    rows, columns = np.divmod(np.arange(side * side), side)
    xy = BIN_UM * np.column_stack([columns, rows]).astype(float)
    centres = rng.uniform(0, side * BIN_UM, (3 * groups, 2))
    nearest = cKDTree(centres).query(xy)[1]
    kind = np.where(rng.random(len(xy)) < 0.8, nearest % groups, rng.integers(0, groups, len(xy)))
    pairs = read_resource("consensus", "human", pd.Index([]))
    known = sorted({part for name in pairs.to_numpy().ravel() for part in name.split("_")})
    names = (known + [f"OTHER{i}" for i in range(genes)])[:genes]
    base = rng.lognormal(-4.5, 1.3, genes)
    rates = base * np.exp(rng.standard_normal((groups, genes)) * (rng.random((groups, genes)) < 0.3))
    width = 4_000
    with atomic(folder / "filtered.h5ad") as partial, CsrWriter(partial, genes, np.int32) as writer:
        for start in range(0, len(xy), width):
            here = kind[start : start + width]
            depth = rng.lognormal(0, 0.4, len(here)).astype(np.float32)[:, None]
            writer.append(sp.csr_matrix(rng.poisson(rates[here].astype(np.float32) * depth).astype(np.int32)))
        barcodes = [f"s_008um_{r:05d}_{c:05d}-1" for r, c in zip(rows, columns)]
        about = {"platform": "visium_hd", "spot_diameter_um": BIN_UM, "mpp": 1.0, "species": "human"}
        frames = pd.DataFrame(index=barcodes), pd.DataFrame({"gene_id": names}, index=names)
        writer.finish(*frames, obsm={"spatial": xy, "spatial_um": xy}, uns={"histoweft": about})
    write_table(pd.DataFrame({"leiden": kind.astype(str)}, index=barcodes), folder / "clusters.parquet")
    with CountsFile(folder / "filtered.h5ad") as counts:
        chunks = list(counts.spans(20_000))
        axes = pca((normalise(counts.rows(where)) for where in chunks[::5]), genes, 30)
        scores = np.concatenate([axes.project(normalise(counts.rows(where))) for where in chunks])
        print(f"{counts.n_obs:,} bins x {genes:,} genes, {counts.nnz / counts.n_obs:.0f} found in a bin", flush=True)
    np.save(folder / "components.npy", scores)


def step(name: str, folder: Path) -> None:
    """Run one step, as its script does."""
    from histoweft.io import CountsFile, read_graph, write_graph, write_table
    from histoweft.space import colocation, graph, interactions, ligands, neighbourhood, svg, values

    with CountsFile(folder / "filtered.h5ad") as counts:
        section = graph.read_section(counts)
        if name == "graph":
            _, near, distances = graph.spatial_graph(section)
            write_graph(folder / "graph.npz", near, distances)
            return
        near, _ = read_graph(folder / "graph.npz")
        if name == "svg":
            write_table(svg.variable_genes(counts, near, section.xy, TARGET), folder / "svg.parquet")
            return
        labels = values.read_labels("clusters", counts, folder / "clusters.parquet")
        if name == "neighbourhood":
            write_table(neighbourhood.enrichment(near, labels), folder / "neighbourhood.parquet")
            write_table(neighbourhood.cooccurrence(section.xy, labels, BIN_UM), folder / "cooccurrence.parquet")
            return
        pairs = ligands.match(ligands.read_resource("consensus", "human", counts.var_names), counts.var_names)
        totals, found = values.totals_and_found(counts)
        controls = colocation.choose_controls(found, counts.n_obs, pairs.genes, 0)
        own = values.read_genes(counts, pairs.genes, totals, TARGET)
        others = values.read_genes(counts, controls, totals, TARGET)
        names, barcodes = counts.var_names[pairs.genes], counts.obs_names
    clock = time.perf_counter()
    table = interactions.score(own, labels, pairs, names)
    print(f"{len(pairs)} pairs, {len(table)} rows: {time.perf_counter() - clock:.1f} s", flush=True)
    basis = colocation.composition(labels, np.load(folder / "components.npy"), totals)
    own, others = (values.rescale(part, totals, TARGET) for part in (own, others))
    clock = time.perf_counter()
    placed = colocation.colocate(own, pairs, others, basis, near, section.xy, False, barcodes)
    print(f"{len(placed.table)} placed: {time.perf_counter() - clock:.1f} s", flush=True)
    write_table(table, folder / "interactions.parquet")
    write_table(placed.table, folder / "interactions_spatial.parquet")
    write_table(placed.local, folder / "interactions_local.parquet")


def run(options: argparse.Namespace) -> None:
    """Run the steps one after the other."""
    found: dict = {"bins": options.side**2, "genes": options.genes, "groups": options.groups, "steps": {}}
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), options.side, options.genes, options.groups, options.seed)
        for name in STEPS:
            start = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, __file__, "one", name, folder], env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
            _, status, usage = os.wait4(process.pid, 0)
            if status != 0:
                raise SystemExit(f"{name} ended with {os.waitstatus_to_exitcode(status)}")
            found["steps"][name] = {
                "seconds": round(time.perf_counter() - start, 1),
                "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
                "peak_mb": round(usage.ru_maxrss / 1024),
            }
            print(name, found["steps"][name], flush=True)
    for measure in ("seconds", "cpu_seconds"):
        found[measure] = round(sum(value[measure] for value in found["steps"].values()), 1)
    print(json.dumps(found, indent=2))
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(found, indent=2) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    several = commands.add_parser("run", help="run all steps")
    several.add_argument("--side", type=int, default=707, help="bins along a side")
    several.add_argument("--genes", type=int, default=2_000)
    several.add_argument("--groups", type=int, default=20)
    several.add_argument("--seed", type=int, default=0)
    several.add_argument("--report", type=Path)
    single = commands.add_parser("one", help="run one step in this process")
    single.add_argument("step", choices=STEPS)
    single.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    else:
        step(options.step, options.folder)


if __name__ == "__main__":
    main()
