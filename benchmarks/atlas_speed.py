"""Processor seconds an epoch and peak memory of Spatial-VAE here, beside the obvious one with a dictionary a voxel.

    python benchmarks/atlas_speed.py results/atlas_sim/atlas --report out/atlas_speed.json
    python benchmarks/atlas_speed.py results/atlas_sim/atlas --voxels 20000 --epochs 3

One atlas, one fold, one machine, one thread; each implementation in a process of its own, one after the other, so that
its peak memory is its own. The folder is what the rule prepare_atlas writes. An epoch is one pass over the training
voxels.

plain        a dictionary from grid position to a tensor of genes, a Dataset that returns a dictionary a voxel, a
             DataLoader that collates them, both layers of the linear decoder one after the other, single precision,
             default Adagrad
histoweft    the library's `reference`
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "lib"))

VARIANTS = ("plain", "histoweft")
FILES = ("expression.npy", "voxels.parquet", "genes.tsv", "atlas.json", "structures.tsv")
GENES, CLIP, SEED = 3_000, 10.0, 0


def main() -> None:
    """Run the implementations and print, or write, what they took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("atlas", type=Path)
    parser.add_argument("--voxels", type=int, default=None, help="use so many voxels, evenly spread; all when left out")
    parser.add_argument("--epochs", type=int, default=3, help="passes over the training voxels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.atlas if args.voxels is None else cut(args.atlas, Path(scratch), args.voxels)
        found = {}
        for name in VARIANTS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name] = pool.apply(measure, (name, folder, args.epochs, args.threads))
    plain, here = (found[name] for name in VARIANTS)
    found["speedup"] = plain["cpu_seconds_per_epoch"] / here["cpu_seconds_per_epoch"]
    found["loss_ratio"] = here["val_loss"] / plain["val_loss"]
    text = json.dumps(found, indent=1)
    print(text)
    if args.report:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(text + "\n", encoding="utf-8")


def cut(folder: Path, scratch: Path, n: int) -> Path:
    """Write a smaller atlas."""
    from histoweft.atlas import voxels

    atlas = voxels.read(*(folder / name for name in FILES))
    rows = np.unique(np.linspace(0, atlas.n - 1, min(n, atlas.n)).astype(int))
    small = replace(
        atlas, expression=np.asarray(atlas.expression[rows]), position=atlas.position[rows],
        structure=None if atlas.structure is None else atlas.structure[rows],
    )  # fmt: skip
    voxels.write(small, *(scratch / name for name in FILES))
    return scratch


def measure(name: str, folder: Path, epochs: int, threads: int) -> dict[str, Any]:
    """Train one implementation.

    Returns
    -------
    dict
        Processor seconds an epoch (other users of the machine do not count), the validation loss after each epoch, the
        size of the expression, the peak of the process and what it was before the expression was read, MB.
    """
    import torch

    from histoweft.atlas import folds, reference, voxels

    torch.set_num_threads(threads)
    torch.nn.functional.linear(torch.zeros(8, 8), torch.zeros(8, 8))
    before = peak_mb()
    atlas = voxels.read(*(folder / file for file in FILES))
    split = folds.make(atlas, folds.RANDOM, 5, 0.0, SEED)[0]
    settings = reference.Options(epochs=epochs)
    train = train_plain if name == "plain" else train_here
    seconds, losses = train(atlas, split, settings, threads)
    data_mb = atlas.n * len(atlas.genes) * 4 / 2**20
    return {
        "cpu_seconds_per_epoch": seconds / epochs, "val_loss": losses[-1], "val_losses": losses, "voxels": atlas.n,
        "data_mb": data_mb, "peak_mb": peak_mb(), "peak_mb_before": before,
        "peak_of_data": (peak_mb() - before) / data_mb,
    }  # fmt: skip


def peak_mb() -> float:
    """Return the largest resident size of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train_here(atlas, split, settings, threads: int) -> tuple[float, list[float]]:
    """Train the library's reference; return processor seconds, and the validation loss after each epoch."""
    from histoweft.atlas import data, reference

    prepared = data.prepare(atlas, split, GENES, CLIP)
    started = time.process_time()
    _, run = reference.train(prepared, settings, seed=SEED, threads=threads)
    return time.process_time() - started, [epoch["val_loss"] for epoch in run.history]


def train_plain(atlas, split, settings, threads: int) -> tuple[float, list[float]]:
    """Train the same network as it is usually written; return the same."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from histoweft.atlas import data, reference

    class Plain(reference.SpatialVAE):
        def decode(self, latent):
            return self.decode_genes(self.decode_hidden(latent))

    class Voxels(Dataset):
        def __init__(self, table, rows):
            self.table, self.keys = table, [tuple(atlas.position[row]) for row in rows]

        def __len__(self):
            return len(self.keys)

        def __getitem__(self, index):
            key = self.keys[index]
            expression, there = self.table[key]
            return {"expression": expression, "there": there, "position": torch.tensor(key, dtype=torch.float32)}

    scaling = data.fit_scaling(np.asarray(atlas.expression), split.train, GENES, CLIP)
    values, least, span = scaling.apply(np.asarray(atlas.expression))
    factor, offset = scaling.affine(least, span)
    there = ~np.isnan(values)
    filled = np.where(there, values, 0) * factor + offset
    table = {
        tuple(place): (torch.from_numpy(row.copy()), torch.from_numpy(known.copy()))
        for place, row, known in zip(atlas.position, filled, there, strict=True)
    }
    del values, there, filled
    empty = np.zeros((0, len(scaling.genes)), np.float16)
    shape_only = data.Prepared(atlas, split, scaling, empty, least, span)
    torch.manual_seed(SEED)
    model = Plain(shape_only, replace(settings, bfloat16=False))
    model.inputs = lambda batch, *_: (batch["expression"], batch["there"])
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.01)
    loaders = [
        DataLoader(Voxels(table, rows), batch_size=reference.BATCH, shuffle=shuffle, drop_last=shuffle)
        for rows, shuffle in ((split.fitting, True), (split.validation, False))
    ]
    losses = []
    started = time.process_time()
    for _ in range(settings.epochs):
        model.train()
        for batch in loaders[0]:
            optimizer.zero_grad()
            loss, _ = model.loss((batch, None, None, batch["position"]))
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            found = [(len(batch["position"]), float(model.loss((batch, None, None, batch["position"]))[0]))
                     for batch in loaders[1]]  # fmt: skip
        losses.append(sum(n * loss for n, loss in found) / sum(n for n, _ in found))
    return time.process_time() - started, losses


if __name__ == "__main__":
    main()
