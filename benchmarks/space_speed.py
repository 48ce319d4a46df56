"""Seconds of the space statistics beside squidpy's, with the agreement of their results.

    python benchmarks/space_speed.py run --report out/space_speed.json
    python benchmarks/space_speed.py run --parts nhood moran --cells 20000

One simulated section of cells of several types, one machine; every side of a comparison in a process of its own, timed
without imports and without compiling: both sides run once on a small section first. Wall seconds say how long one
waits; CPU seconds (the process and its workers) hold on a machine that others use too. The library runs on one thread,
squidpy's ligrec on two jobs (its nhood_enrichment fails with more than one on so many cells: numba refuses the
read-only memory map that joblib hands to the workers).

ligrec   every pair of LIANA's consensus, every two types: squidpy.gr.ligrec with 1,000 permutations against
         interactions.score; agreement: mean |dp| beside what 1,000 draws scatter by themselves
nhood    squidpy.gr.nhood_enrichment with 1,000 permutations against neighbourhood.enrichment; agreement: largest and
         root mean square difference of z beside what 1,000 draws scatter by themselves
moran    squidpy.gr.spatial_autocorr (analytic, I only) against svg.SectionTests, which also gives Geary's C, the exact
         moments of the permutation distribution and the covariance test; agreement: largest difference of I
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

PARTS = ("ligrec", "nhood", "moran")
SIDES = ("ours", "squidpy")
TARGET = 10_000


def generate(path: Path, cells: int, types: int, genes: int, seed: int) -> None:
    """Write counts of cells whose types form patches; the genes are those of LIANA's pairs, then others."""
    import pandas as pd
    import scipy.sparse as sp

    from histoweft.io import CsrWriter, atomic
    from histoweft.space.ligands import read_resource

    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, np.sqrt(cells) * 10, (cells, 2))
    centres = rng.uniform(0, xy.max(), (4 * types, 2))
    nearest = ((xy[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1) % types
    kind = np.where(rng.random(cells) < 0.7, nearest, rng.integers(0, types, cells))
    pairs = read_resource("consensus", "human", pd.Index([]))
    names = sorted({part for name in pairs.to_numpy().ravel() for part in name.split("_")})
    names += [f"OTHER{i}" for i in range(genes - len(names))]
    base = rng.lognormal(-2.5, 1.2, len(names))
    rates = base * np.exp(0.8 * rng.standard_normal((types, len(names))) * (rng.random((types, len(names))) < 0.3))
    with atomic(path) as partial, CsrWriter(partial, len(names), np.int32) as writer:
        for start in range(0, cells, 2_000):
            here = kind[start : start + 2_000]
            depth = rng.lognormal(0, 0.4, len(here))[:, None]
            writer.append(sp.csr_matrix(rng.poisson(rates[here] * depth).astype(np.int32)))
        labels = pd.Categorical([f"type{k}" for k in kind], categories=[f"type{k}" for k in range(types)])
        obs = pd.DataFrame({"label": labels}, index=[f"cell{i}" for i in range(cells)])
        about = {"platform": "xenium", "spot_diameter_um": 10.0, "mpp": 1.0}
        var = pd.DataFrame({"gene_id": names}, index=names)
        writer.finish(obs, var, obsm={"spatial": xy, "spatial_um": xy}, uns={"histoweft": about})


class Clock:
    """Wall and CPU seconds of a block, workers included."""

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), self._cpu()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._start[0]
        self.cpu_seconds = self._cpu() - self._start[1]

    @staticmethod
    def _cpu() -> float:
        import psutil

        own = psutil.Process()
        times = [process.cpu_times() for process in [own, *own.children(recursive=True)]]
        return sum(t.user + t.system for t in times)

    def result(self, tests: int) -> dict:
        return {"seconds": round(self.seconds, 3), "cpu_seconds": round(self.cpu_seconds, 3), "tests": tests}


def ours(part: str, path: Path, out: Path) -> dict:
    """Run one part through the library, on values that are normalised and in memory."""
    import pandas as pd

    from histoweft.io import CountsFile
    from histoweft.space import graph, interactions, ligands, neighbourhood, svg, values

    def call(path: Path, clock: Clock) -> object:
        with CountsFile(path) as counts:
            section = graph.read_section(counts)
            labels = values.read_labels("labels", counts, None)
            _, near, _ = graph.spatial_graph(section)
            totals, _ = values.totals_and_found(counts)
            if part == "moran":
                read = values.read_genes(counts, np.arange(counts.n_vars), totals, TARGET)
                with clock:
                    found = svg.SectionTests(near, section.xy).run(read)
                return pd.DataFrame({"gene": counts.var_names, "moran": found.moran})
            if part == "nhood":
                with clock:
                    return neighbourhood.enrichment(near, labels)
            resource = ligands.read_resource("consensus", "human", counts.var_names)
            pairs = ligands.match(resource, counts.var_names)
            read = values.read_genes(counts, pairs.genes, totals, TARGET)
            with clock:
                return interactions.score(read, labels, pairs, counts.var_names[pairs.genes], min_share=0.0)

    small = out.with_suffix(".small.h5ad")
    generate(small, 400, 4, 2_300, 0)
    call(small, Clock())
    clock = Clock()
    table = call(path, clock)
    table.to_parquet(out)
    return clock.result(len(table))


def squidpy(part: str, path: Path, out: Path, jobs: int) -> dict:
    """Run one part through squidpy, on values that are normalised and in memory."""
    import anndata
    import pandas as pd
    import squidpy as sq

    from histoweft.io import CountsFile
    from histoweft.normalise import normalise
    from histoweft.space import graph, ligands, values

    with CountsFile(path) as counts:
        section = graph.read_section(counts)
        _, near, _ = graph.spatial_graph(section)
        adata = anndata.AnnData(normalise(counts.matrix(), TARGET), var=pd.DataFrame(index=counts.var_names))
        adata.obs["label"] = values.read_labels("labels", counts, None)
        resource = ligands.read_resource("consensus", "human", counts.var_names)
        # squidpy takes one subunit for a complex by its mean over all cells; single genes are the same in both.
        single = resource[~resource["ligand"].str.contains("_") & ~resource["receptor"].str.contains("_")]
    adata.obsm["spatial"] = section.xy
    adata.obsp["spatial_connectivities"] = near.astype(np.float64)
    pairs = single if part == "ligrec" else None

    def call(data: anndata.AnnData, permutations: int):
        shared = {"copy": True, "seed": 0, "show_progress_bar": False}
        if part == "ligrec":
            return sq.gr.ligrec(
                data, "label", interactions=pairs.rename(columns={"ligand": "source", "receptor": "target"}),
                n_perms=permutations, threshold=0.0, use_raw=False, n_jobs=jobs, **shared,
            )  # fmt: skip
        if part == "nhood":
            return sq.gr.nhood_enrichment(data, "label", n_perms=permutations, n_jobs=1, **shared)
        return sq.gr.spatial_autocorr(data, mode="moran", n_perms=None, genes=list(data.var_names), copy=True)

    small = adata[: 40 * adata.obs["label"].nunique()].copy()
    call(small, 4)
    with Clock() as clock:
        found = call(adata, 1_000)
    if part == "ligrec":
        p = found["pvalues"]
        dense = np.column_stack([np.asarray(p.iloc[:, k], dtype=float) for k in range(p.shape[1])])
        row, column = np.nonzero(np.isfinite(dense))
        names = {"ligand": p.index.get_level_values(0)[row], "receptor": p.index.get_level_values(1)[row]}
        names |= {"source": p.columns.get_level_values(0)[column], "target": p.columns.get_level_values(1)[column]}
        table = pd.DataFrame({name: np.asarray(values, dtype=str) for name, values in names.items()})
        table["p"] = dense[row, column]
    elif part == "nhood":
        names = adata.obs["label"].cat.categories
        table = pd.DataFrame(found.zscore, index=names, columns=names).rename_axis("a").reset_index()
        table = table.melt("a", var_name="b", value_name="z")
    else:
        table = found[["I"]].rename_axis("gene").reset_index()
    table.to_parquet(out)
    return clock.result(len(table))


def agreement(part: str, one: Path, other: Path) -> dict:
    """Compare the results of both sides."""
    import pandas as pd

    a, b = pd.read_parquet(one), pd.read_parquet(other)
    if part == "ligrec":
        keys = ["ligand", "receptor", "source", "target"]
        # Pairs of single genes only: of a complex squidpy takes another subunit.
        single = (a["ligand"] == a["ligand_complex"].astype(str)) & (a["receptor"] == a["receptor_complex"].astype(str))
        a = a.loc[single, [*keys, "pvals"]].astype(dict.fromkeys(keys, str))
        both = a.merge(b.astype(dict.fromkeys(keys, str)), on=keys)
        p = both["pvals"].to_numpy()
        # The mean absolute deviation of a binomial share, by the normal: sqrt(2 / pi) times its standard deviation.
        noise = np.sqrt(2 / np.pi) * np.sqrt(p * (1 - p) / 1_000)
        return {
            "compared": len(both),
            "mean_abs_dp": float(np.abs(p - both["p"]).mean()),
            "expected_by_draws": float(noise.mean()),
        }
    if part == "nhood":
        both = a[["a", "b", "z"]].merge(b.astype({"b": str}), on=["a", "b"], suffixes=("", "_peer"))
        # Of a z from m draws: its mean scatters by 1 / sqrt(m), its scale by z / sqrt(2 m).
        scatter = np.sqrt((1 + both["z"] ** 2 / 2) / 1_000)
        gap = both["z"] - both["z_peer"]
        return {"compared": len(both), "rms_over_expected": float(np.sqrt(((gap / scatter) ** 2).mean()))}
    both = a[["gene", "moran"]].merge(b)
    return {"compared": len(both), "largest_difference": float(np.abs(both["moran"] - both["I"]).max())}


def run(options: argparse.Namespace) -> None:
    """Compare the two sides of each part."""
    found: dict = {"cells": options.cells, "types": options.types, "genes": options.genes, "parts": {}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        generate(path, options.cells, options.types, options.genes, options.seed)
        for part in options.parts:
            result = {}
            for side in SIDES:
                out = Path(folder) / f"{part}_{side}.parquet"
                given = [sys.executable, __file__, "one", part, side, str(path), str(out), f"--jobs={options.jobs}"]
                process = subprocess.Popen(
                    given, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
                )
                lines = process.stdout.read().splitlines()
                _, status, usage = os.wait4(process.pid, 0)
                if status != 0:
                    raise SystemExit(f"{part} {side} ended with {os.waitstatus_to_exitcode(status)}")
                result[side] = json.loads(lines[-1]) | {"peak_mb": round(usage.ru_maxrss / 1024)}
                print(part, side, result[side], flush=True)
            for name, measure in (("speedup", "seconds"), ("speedup_cpu", "cpu_seconds")):
                result[name] = round(result["squidpy"][measure] / result["ours"][measure], 1)
            result |= agreement(part, Path(folder) / f"{part}_ours.parquet", Path(folder) / f"{part}_squidpy.parquet")
            found["parts"][part] = result
    print(json.dumps(found, indent=2))
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(found, indent=2) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    several = commands.add_parser("run", help="compare the two sides")
    several.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    several.add_argument("--cells", type=int, default=50_000)
    several.add_argument("--types", type=int, default=20)
    several.add_argument("--genes", type=int, default=2_500)
    several.add_argument("--seed", type=int, default=0)
    several.add_argument("--report", type=Path)
    single = commands.add_parser("one", help="run one side of one part in this process")
    single.add_argument("part", choices=PARTS)
    single.add_argument("side", choices=SIDES)
    single.add_argument("path", type=Path)
    single.add_argument("out", type=Path)
    for command in (several, single):
        command.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if options.command == "run":
        run(options)
        return
    if options.side == "ours":
        result = ours(options.part, options.path, options.out)
    else:
        result = squidpy(options.part, options.path, options.out, options.jobs)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
