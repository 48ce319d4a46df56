"""Time and memory of painting a large section, from the model's windows to the checked multiscale store.

    python benchmarks/paint_scale.py measure /tmp/painted.zarr --side 20000 --genes 8
    python benchmarks/paint_scale.py paint /tmp/painted.zarr --side 20000 --genes 8

`paint` paints; `measure` does the same in a process of its own, prints seconds, peak memory and size on disk, and
removes what was written. The model is a cheap stand-in with windows like a network's (`stand_in`); another one is
measured with ``--predict module:function``, a function of (side, genes) that returns
``predict(rows, cols) -> float32 (genes, rows, cols)``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "lib"))

Predict = Callable[[slice, slice], np.ndarray]


def stand_in(side: int, n_genes: int) -> Predict:
    """Return a model that costs next to nothing: waves over the tissue, different for each gene, with some noise."""
    waves = np.linspace(2, 12, n_genes) * 2 * np.pi / side
    noise = np.random.default_rng(1).normal(0, 0.05, (2048, 2048)).astype(np.float32)

    def predict(rows: slice, cols: slice) -> np.ndarray:
        y, x = (np.arange(one.start, one.stop, dtype=np.float32) for one in (rows, cols))
        block = np.empty((n_genes, len(y), len(x)), dtype=np.float32)
        for gene, wave in enumerate(waves):
            block[gene] = 2 + np.sin(wave * y)[:, None] + np.cos(wave * x) + noise[: len(y), : len(x)]
        return block

    return predict


class Disc:
    """A round section that fills most of the image, known without holding it: sliced like an array of bool."""

    def __init__(self, side: int):
        self.shape = (side, side)

    def __getitem__(self, area: tuple[slice, slice]) -> np.ndarray:
        y, x = (np.arange(*one.indices(self.shape[0]), dtype=np.float32) - self.shape[0] / 2 for one in area)
        return y[:, None] ** 2 + x**2 < (0.48 * self.shape[0]) ** 2


def paint_section(path: Path, side: int, n_genes: int, window: int, overlap: int, predict: Predict) -> float:
    """Paint a section of `side` x `side` pixels with any model; return seconds."""
    from histoweft.histology.paint import paint

    start = time.perf_counter()
    paint(
        path, predict, genes=[f"gene{i:03d}" for i in range(n_genes)], shape=(side, side), um_per_px=0.5,
        window=window, overlap=overlap, mask=Disc(side),
    )  # fmt: skip
    return time.perf_counter() - start


def named(name: str | None) -> Callable[[int, int], Predict]:
    """Find the function that makes the model, ``module:function``."""
    if name is None:
        return stand_in
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def measure(command: list[str]) -> dict[str, float]:
    """Run a command; wall and CPU seconds, and peak resident memory as the kernel counted it and as sampled, MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            try:
                for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        peak[0] = max(peak[0], int(line.split()[1]) / 1024)
            except OSError:
                continue

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
        "peak_rss_mb": round(usage.ru_maxrss / 1024),
        "peak_sampled_mb": round(peak[0]),
    }


def report(path: Path, options: dict) -> dict:
    """Measure a painting in a process of its own, and remove it."""
    command = [sys.executable, __file__, "paint", str(path)]
    for name, value in options.items():
        command += [] if value is None else [f"--{name}", str(value)]
    try:
        found = options | measure(command)
        found["store_mb"] = round(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6)
    finally:
        shutil.rmtree(path, ignore_errors=True)
    print(json.dumps(found, indent=2))
    return found


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("measure", "paint"):
        run = commands.add_parser(name)
        run.add_argument("path", type=Path, help="store to write; must not exist")
        run.add_argument("--side", type=int, default=20_000, help="pixels")
        run.add_argument("--genes", type=int, default=8)
        run.add_argument("--window", type=int, default=512)
        run.add_argument("--overlap", type=int, default=64)
        run.add_argument("--predict", help="module:function that makes the model; by default a cheap stand-in")
    options = vars(parser.parse_args())
    command, path = options.pop("command"), options.pop("path")
    if path.exists():
        raise SystemExit(f"{path} exists; name a path that can be removed")
    if command == "measure":
        report(path, options)
        return
    side, genes = options["side"], options["genes"]
    model = named(options["predict"])(side, genes)
    print(f"{paint_section(path, side, genes, options['window'], options['overlap'], model):.1f} s", flush=True)


if __name__ == "__main__":
    main()
