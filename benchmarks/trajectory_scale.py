"""Seconds and peak memory of macrostates and fate probabilities on many cells, beside CellRank's own solvers.

    python benchmarks/trajectory_scale.py run --report out/trajectory_scale.json
    python benchmarks/trajectory_scale.py run --cells 3000 --direct-cells 3000 --dense-cells 2000

Simulated cells along a trunk that forks into branches, one terminal state at the tip of each; nearest neighbours, the
default kernels (0.8 pseudotime, 0.2 connectivity). Each step runs in a process of its own on the matrix that the first
one wrote; peak memory is what the kernel counted for it, imports included. `peer:` steps are CellRank's, without PETSc:
its fate probabilities by `gmres` on all cells and by `direct` on `--direct-cells`, its macrostates (dense `brandts`) on
`--dense-cells`.
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

DIMENSIONS = 20
NEIGHBOURS = 30
CORE = 30


def simulate(n: int, branches: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points (cells x dimensions), true pseudotime and branch of cells along a trunk that forks."""
    rng = np.random.default_rng(seed)
    time_, branch = rng.random(n), rng.integers(0, branches, n)
    ways = np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS)))[0]
    late = np.clip(time_ - 0.5, 0, None)
    points = 10 * np.minimum(time_, 0.5)[:, None] * ways[0] + 10 * late[:, None] * ways[1 + branch]
    return points + 0.3 * rng.standard_normal(points.shape), time_, branch


def prepare(folder: Path, n: int, branches: int, seed: int) -> None:
    """Write transition matrix, pseudotime and planted terminal cells."""
    from histoweft.graph.neighbours import neighbour_graph
    from histoweft.io import write_graph
    from histoweft.trajectory import kernels, pseudotime

    points, true, branch = simulate(n, branches, seed)
    graph, _ = neighbour_graph(points.astype(np.float32), NEIGHBOURS, seed)
    time_ = pseudotime.diffusion_pseudotime(pseudotime.diffuse(graph, seed=seed), int(true.argmin()))
    weights = {"pseudotime": 0.8, "connectivity": 0.2}
    made = {"pseudotime": kernels.pseudotime_kernel(graph, time_), "connectivity": kernels.connectivity_kernel(graph)}
    write_graph(folder / "walk.npz", kernels.combine(made, weights))
    ends = np.full(n, -1)
    for fate in range(branches):
        tip = np.flatnonzero(branch == fate)
        ends[tip[np.argsort(-true[tip])[:CORE]]] = fate
    np.savez(folder / "cells.npz", time=time_, ends=ends, branch=branch, true=true)


def step(name: str, folder: Path) -> None:
    """Run one step and write what it found."""
    from histoweft.io import read_graph
    from histoweft.trajectory import absorption, peer, spectrum, terminal

    walk, _ = read_graph(folder / "walk.npz")
    cells = np.load(folder / "cells.npz")
    ends = cells["ends"]
    m = int(ends.max()) + 2
    start = time.perf_counter()
    found: dict = {"cells": walk.shape[0], "entries": walk.nnz}
    if name == "macrostates":
        subspace = spectrum.slow_subspace(walk, m)
        states = spectrum.macrostates(walk, subspace, subspace.whole(m))
        table, _ = terminal.terminal_states(
            walk, states.memberships, states.stability, cells["time"], np.full(len(ends), ""), None, CORE
        )
        found |= {"macrostates": len(table), "terminal": int(table["terminal"].sum())}
    elif name == "peer:macrostates":
        memberships, _, _ = peer.cellrank_macrostates(walk, m)
        found["macrostates"] = memberships.shape[1]
    elif name == "fates":
        solved = absorption.fate_probabilities(walk, ends, m - 1, cells["time"])
        np.save(folder / "fates.npy", solved.probabilities)
        late = cells["true"] > 0.75
        right = (solved.probabilities.argmax(axis=1) == cells["branch"])[late].mean()
        found |= {"solver": solved.solver, "error": solved.error, "iterations": solved.iterations,
                  "late_cells_on_their_branch": round(float(right), 4)}  # fmt: skip
    else:
        solved = peer.cellrank_fates(walk, ends, name.removeprefix("peer:"))
        ours = np.load(folder / "fates.npy")
        found["smallest_correlation"] = float(min(np.corrcoef(ours[:, k], solved[:, k])[0, 1] for k in range(m - 1)))
    found["own_seconds"] = round(time.perf_counter() - start, 1)
    (folder / "found.json").write_text(json.dumps(found))


def measure(folder: Path, name: str, arguments: list[str]) -> dict:
    """Run one step in a process of its own; seconds, peak memory and what it found."""
    start = time.perf_counter()
    (folder / "found.json").write_text("{}")
    command = [sys.executable, __file__, *arguments, str(folder)]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{name} ended with {os.waitstatus_to_exitcode(status)}")
    row = {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
        **json.loads((folder / "found.json").read_text()),
    }
    print(name, row, flush=True)
    return row


def run(options: argparse.Namespace) -> None:
    """Run ours at full size, then both at the sizes that CellRank can do."""
    report: dict = {"branches": options.branches, "neighbours": NEIGHBOURS, "runs": []}
    plan = [
        (options.cells, ("macrostates", "fates", *(("peer:gmres",) if options.peer else ()))),
        (options.direct_cells, ("fates", "peer:gmres", "peer:direct")),
        (options.dense_cells, ("macrostates", "peer:macrostates")),
    ]
    for n, steps in plan:
        if n == 0:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder, found = Path(name), {"cells": n}
            numbers = [str(value) for value in (n, options.branches, options.seed)]
            found["graph and kernels"] = measure(folder, f"{n:,} cells: graph and kernels", ["prepare", *numbers])
            for what in steps:
                found[what] = measure(folder, f"{n:,} cells: {what}", ["one", what])
        report["runs"].append(found)
    print(json.dumps(report, indent=2))
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(report, indent=2) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    several = commands.add_parser("run", help="run all steps")
    several.add_argument("--cells", type=int, default=100_000, help="cells for ours, and for CellRank's gmres")
    several.add_argument("--no-peer", dest="peer", action="store_false", help="leave gmres out at full size")
    several.add_argument(
        "--direct-cells", type=int, default=10_000, help="cells for fate probabilities of both; 0 for none"
    )
    several.add_argument("--dense-cells", type=int, default=3_000, help="cells for macrostates of both; 0 for none")
    several.add_argument("--branches", type=int, default=10)
    several.add_argument("--seed", type=int, default=0)
    several.add_argument("--report", type=Path)
    first = commands.add_parser("prepare", help="write a simulated walk")
    for name in ("cells", "branches", "seed"):
        first.add_argument(name, type=int)
    single = commands.add_parser("one", help="run one step in this process")
    single.add_argument("step")
    for command in (first, single):
        command.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    elif options.command == "prepare":
        prepare(options.folder, options.cells, options.branches, options.seed)
    else:
        step(options.step, options.folder)


if __name__ == "__main__":
    main()
