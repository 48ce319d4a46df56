"""Time and memory of the expression stage, from QC to Leiden, beside a straightforward scanpy script.

    python benchmarks/expression_scale.py generate cells.h5ad --cells 20000 --genes 5000 --nnz 1000
    python benchmarks/expression_scale.py ours cells.h5ad out/ours
    python benchmarks/expression_scale.py scanpy cells.h5ad out/scanpy
    python benchmarks/expression_scale.py compare cells.h5ad out --report out/compare.json

`compare` runs the two one after the other, each in a process of its own, and prints wall time, CPU time and peak
memory (the largest sum of resident memory over the process and its children, sampled; and what the kernel counted for
the process itself) with the agreement of the clusters.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "lib"))

RESOLUTIONS = (0.5, 1.0)
ITERATIONS = 2


def generate(path: Path, cells: int, genes: int, nnz: int, groups: int, seed: int) -> None:
    """Write counts with `groups` cell types, a chunk of cells at a time.

    Gene abundances are log-normal; each type over-expresses its own 1 % of the genes 4 to 16 times; a cell's depth
    is log-normal; each cell's genes are drawn from its type's profile, its non-zero genes being about `nnz`.
    """
    import pandas as pd
    import scipy.sparse as sp

    from histoweft.io import CsrWriter, atomic

    random = np.random.default_rng(seed)
    base = random.lognormal(0, 1.5, genes)
    profiles = np.tile(base, (groups, 1))
    for profile in profiles:
        own = random.choice(genes, max(5, genes // 100), replace=False)
        profile[own] *= random.uniform(4, 16, len(own))
    profiles /= profiles.sum(axis=1, keepdims=True)
    rates = random.dirichlet(np.full(groups, 3.0))
    draws = _draws_for(profiles[0], nnz)
    kinds = random.choice(groups, cells, p=rates)
    steps = [np.cumsum(profile) for profile in profiles]
    with atomic(path) as partial, CsrWriter(partial, genes, np.int32) as writer:
        for start in range(0, cells, 2000):
            here = kinds[start : start + 2000]
            depth = np.maximum(random.lognormal(np.log(draws), 0.25, len(here)), 20).astype(int)
            rows = np.repeat(np.arange(len(here)), depth)
            columns = np.empty(len(rows), dtype=np.int64)
            of = here[rows]
            for kind in np.unique(here):
                mine = of == kind
                columns[mine] = np.searchsorted(steps[kind], random.random(int(mine.sum())) * steps[kind][-1])
            flat = rows * genes + np.minimum(columns, genes - 1)
            flat.sort()
            first = np.flatnonzero(np.diff(flat, prepend=-1))
            values = np.diff(first, append=len(flat)).astype(np.int32)
            where = flat[first]
            indptr = np.searchsorted(where, np.arange(len(here) + 1) * genes)
            writer.append(sp.csr_matrix((values, (where % genes).astype(np.int32), indptr), shape=(len(here), genes)))
        obs = pd.DataFrame({"kind": pd.Categorical(kinds.astype(str))}, index=[f"cell{i:07d}" for i in range(cells)])
        names = [f"MT-{i}" if i < 13 else f"gene{i:05d}" for i in range(genes)]
        var = pd.DataFrame({"gene_id": [f"ID{i:08d}" for i in range(genes)]}, index=names)
        writer.finish(obs, var, obsm={"spatial": random.uniform(0, 1e4, (cells, 2))})


def _draws_for(profile: np.ndarray, nnz: int) -> float:
    """Find how many draws from a profile hit about `nnz` different genes."""
    low, high = float(nnz), 200.0 * nnz
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - np.exp(-middle * profile)).sum() < nnz else (low, middle)
    return low


class Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now
        print(f"  {name:<12} {self.seconds[name]:8.2f} s", flush=True)


def ours(path: Path, out: Path) -> None:
    """Run the stage through the library, writing what the rules write."""
    clock = Clock()
    from histoweft.expression.features import extract_features
    from histoweft.expression.qc import filter_counts
    from histoweft.graph.leiden import cluster
    from histoweft.graph.neighbours import neighbour_graph
    from histoweft.io import CountsFile, read_graph, write_graph, write_table

    out.mkdir(parents=True, exist_ok=True)
    clock.lap("import")
    filter_counts(path, out / "filtered.h5ad")
    clock.lap("qc")
    extract_features(out / "filtered.h5ad", out / "features.h5ad")
    clock.lap("features")
    with CountsFile(out / "features.h5ad") as features:
        scores, barcodes = features.obsm("X_pca"), features.obs_names
    connectivities, distances = neighbour_graph(scores)
    write_graph(out / "neighbours.npz", connectivities, distances)
    del distances
    clock.lap("neighbours")
    connectivities, _ = read_graph(out / "neighbours.npz")
    table = cluster(connectivities, barcodes, resolutions=RESOLUTIONS, n_iterations=ITERATIONS)
    write_table(table, out / "clusters.parquet")
    clock.lap("leiden")
    (out / "steps.json").write_text(json.dumps(clock.seconds))


def scanpy(path: Path, out: Path) -> None:
    """Run the same steps as a scanpy tutorial would."""
    clock = Clock()
    import scanpy as sc
    from scanpy.neighbors import _common
    from scipy.sparse import csr_matrix

    # scanpy 1.11 stumbles over the sparse arrays of scikit-learn 1.9 and pynndescent 0.7; nothing else changes.
    shortcut = _common._ind_dist_shortcut
    _common._ind_dist_shortcut = lambda distances: shortcut(csr_matrix(distances))

    out.mkdir(parents=True, exist_ok=True)
    clock.lap("import")
    adata = sc.read_h5ad(path)
    clock.lap("read")
    adata.var["mt"] = adata.var_names.str.startswith("MT-")
    sc.pp.calculate_qc_metrics(adata, qc_vars=["mt"], inplace=True, percent_top=None, log1p=False)
    sc.pp.filter_cells(adata, min_genes=200)
    sc.pp.filter_cells(adata, max_counts=30_000)
    sc.pp.filter_genes(adata, min_cells=3)
    adata.write_h5ad(out / "filtered.h5ad")
    clock.lap("qc")
    sc.pp.normalize_total(adata, target_sum=10_000)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2_000)
    adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.pca(adata, n_comps=30)
    adata.write_h5ad(out / "features.h5ad")
    clock.lap("features")
    sc.pp.neighbors(adata, n_neighbors=15)
    clock.lap("neighbours")
    for resolution in RESOLUTIONS:
        options = {"flavor": "igraph", "n_iterations": ITERATIONS, "directed": False}
        sc.tl.leiden(adata, resolution, key_added=f"leiden_{resolution}", **options)
    columns = [f"leiden_{resolution}" for resolution in RESOLUTIONS]
    adata.obs[columns].astype(str).rename_axis("barcode").to_parquet(out / "clusters.parquet")
    clock.lap("leiden")
    (out / "steps.json").write_text(json.dumps(clock.seconds))


def _tree_memory(root: int) -> int:
    """Proportional set size, in bytes, of a process and all below it: shared pages are counted once."""
    total, todo = 0, [root]
    while todo:
        process = todo.pop()
        try:
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            for task in Path(f"/proc/{process}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except OSError:
            continue
    return total


def measured(command: list[str]) -> dict[str, float]:
    """Run a command; wall and CPU seconds, and peak memory in MB in two ways."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            peak[0] = max(peak[0], _tree_memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    done.set()
    watcher.join()
    if status != 0:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(max(usage.ru_maxrss / 1024, peak[0] / 2**20)),
        "peak_process_mb": round(usage.ru_maxrss / 1024),
        "peak_tree_mb": round(peak[0] / 2**20),
    }


def compare(path: Path, out: Path, report: Path | None) -> dict:
    """Run both, one after the other, and put them side by side."""
    import pandas as pd

    from histoweft.io import CountsFile
    from histoweft.metrics import adjusted_rand_index

    found: dict = {"data": {"path": str(path)}, "runs": {}}
    with CountsFile(path) as counts:
        found["data"] |= {"cells": counts.n_obs, "genes": counts.n_vars, "nnz": counts.nnz}
        truth = counts.obs().get("kind")
    tables = {}
    for name in ("ours", "scanpy"):
        print(name, flush=True)
        found["runs"][name] = measured([sys.executable, __file__, name, str(path), str(out / name)])
        found["runs"][name]["steps"] = json.loads((out / name / "steps.json").read_text())
        tables[name] = pd.read_parquet(out / name / "clusters.parquet")
    found["ratio"] = {
        key: round(found["runs"]["ours"][key] / found["runs"]["scanpy"][key], 3)
        for key in ("wall_s", "cpu_s", "peak_mb")
    }
    mine, theirs = tables["ours"], tables["scanpy"]
    mine = mine.loc[theirs.index]
    found["same_barcodes"] = len(mine) == len(tables["ours"])
    found["ari"] = {
        f"leiden_{r}": {
            "ours_scanpy": round(adjusted_rand_index(mine[f"leiden_{r:g}"], theirs[f"leiden_{r}"]), 3),
            **(
                {}
                if truth is None
                else {
                    "ours_truth": round(adjusted_rand_index(mine[f"leiden_{r:g}"], truth[mine.index]), 3),
                    "scanpy_truth": round(adjusted_rand_index(theirs[f"leiden_{r}"], truth[mine.index]), 3),
                }
            ),
        }
        for r in RESOLUTIONS
    }
    text = json.dumps(found, indent=2)
    print(text)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(text + "\n")
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("generate", help="write a simulated h5ad file")
    make.add_argument("path", type=Path)
    make.add_argument("--cells", type=int, default=200_000)
    make.add_argument("--genes", type=int, default=20_000)
    make.add_argument("--nnz", type=int, default=1_000, help="non-zero genes a cell, about")
    make.add_argument("--groups", type=int, default=12)
    make.add_argument("--seed", type=int, default=1)
    for name in ("ours", "scanpy", "compare"):
        run = commands.add_parser(name)
        run.add_argument("path", type=Path)
        run.add_argument("out", type=Path)
        if name == "compare":
            run.add_argument("--report", type=Path)
    arguments = vars(parser.parse_args())
    command = arguments.pop("command")
    {"generate": generate, "ours": ours, "scanpy": scanpy, "compare": compare}[command](**arguments)


if __name__ == "__main__":
    main()
