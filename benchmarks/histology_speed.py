"""Seconds an epoch and peak memory of the gene phase, beside a per-spot loop with a dense bottleneck.

    python benchmarks/histology_speed.py run --sample results/mob/samples/MOB1 --report out/histology_speed.json
    python benchmarks/histology_speed.py run --variants autoencoder ours --epochs 20

One image, one set of spots and genes, one machine, one thread; every variant in a process of its own, so that its peak
memory is its own. An epoch is one step over the whole image: gene loss on all spots, 1 - SSIM on the image.

loop         the reference's way: the feature map flattened into a dense layer and back (some 300 million parameters),
             Adam one parameter after another, SSIM by full two-dimensional windows, a Python loop that slices each
             spot's square and averages it
vectorised   the same network; footprints averaged by one sparse product, separable SSIM, fused Adam
autoencoder  the library's `autoencoder`: the same convolutions without the dense bottleneck
ours         the default model: an epoch is every network of the ensemble seeing every spot once; the image features are
             computed once, before

The image is resized to `--side`, because the first two can take one size only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "lib"))

VARIANTS = ("loop", "vectorised", "autoencoder", "ours")
LR = 1e-3
SPOT_UM = 100.0


@dataclass
class Data:
    """One section.

    Attributes
    ----------
    image
        (side, side, 3) uint8.
    targets
        spots x genes float32: log-normalised, each gene standardised.
    squares
        (spots, 4) y0, y1, x0, x1 in px: the square around each spot, its sides the spot's diameter.
    """

    image: np.ndarray
    targets: np.ndarray
    squares: np.ndarray

    def footprints(self):
        """Return the mean over each square as a matrix, spots x pixels."""
        import scipy.sparse as sp

        side = self.image.shape[1]
        pixels = [(np.arange(y0, y1)[:, None] * side + np.arange(x0, x1)).ravel() for y0, y1, x0, x1 in self.squares]
        sizes = np.array([len(one) for one in pixels])
        values = np.repeat(1 / sizes, sizes)
        indptr = np.concatenate([[0], np.cumsum(sizes)])
        return sp.csr_matrix((values, np.concatenate(pixels), indptr), shape=(len(pixels), side * side))


def read(sample: Path, side: int, n_genes: int) -> Data:
    """Read a sample that the workflow has filtered; the genes of largest variance."""
    from PIL import Image

    from histoweft.images import read_image
    from histoweft.io import CountsFile
    from histoweft.normalise import normalise

    rgb, um_per_px, scale = read_image(sample / "image.tif")
    shape = np.array(rgb.shape[:2])
    image = np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.BOX))
    with CountsFile(sample / "filtered.h5ad") as counts:
        values = normalise(counts.matrix()).toarray()
        centre = counts.obsm("spatial")[:, ::-1] * scale * (side / shape)
        diameter = counts.uns["histoweft"]["spot_diameter_um"] / um_per_px * side / shape.mean()
    chosen = np.sort(np.argsort(-values.var(axis=0))[:n_genes])
    values = values[:, chosen]
    low = np.clip(np.round(centre - diameter / 2).astype(int), 0, side - 1)
    high = np.clip(np.round(centre + diameter / 2).astype(int), low + 1, side)
    squares = np.column_stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]])
    return Data(image, ((values - values.mean(0)) / values.std(0)).astype(np.float32), squares)


def _reference(side: int, hidden: int, n_genes: int):
    """Make a network in the reference's shape, its feature map going through a dense layer and back."""
    from torch import nn

    widths = (3, 16, 32, 64, 128)
    cells = side // 16
    encode = []
    for a, b in pairwise(widths):
        encode += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    flat = 128 * cells * cells
    dense = [nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, flat), nn.ReLU()]
    decode = [nn.Unflatten(1, (128, cells, cells))]
    for a, b in ((128, 64), (64, 32), (32, 16)):
        decode += [nn.ConvTranspose2d(a, b, 2, stride=2), nn.ReLU()]
    return nn.Sequential(*encode, *dense, *decode, nn.ConvTranspose2d(16, 3 + n_genes, 2, stride=2))


def _full_ssim(a, b):
    """Compute SSIM as usually written down: five moments, each by 11 x 11 windows."""
    import torch
    import torch.nn.functional as F

    x = torch.arange(11) - 5.0
    line = torch.exp(-(x**2) / (2 * 1.5**2))
    line = line / line.sum()
    window = (line[:, None] * line).expand(3, 1, 11, 11).contiguous()

    def blur(image):
        return F.conv2d(image, window, padding=5, groups=3)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return (top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def _epochs(step: Callable[[], None], epochs: int) -> list[float]:
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
        print(f"  epoch {len(seconds)}: {seconds[-1]:.2f} s", flush=True)
    return seconds


def loop(data: Data, epochs: int, hidden: int) -> list[float]:
    """Train the reference's way."""
    import torch

    from histoweft.histology.autoencoder import as_images

    torch.manual_seed(0)
    image, targets = as_images(data.image), torch.from_numpy(data.targets)
    model = _reference(len(data.image), hidden, targets.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, foreach=False)

    def step() -> None:
        optimizer.zero_grad()
        out = model(image)
        genes = out[0, 3:]
        loss = torch.zeros(())
        for target, (y0, y1, x0, x1) in zip(targets, data.squares):
            loss = loss + ((genes[:, y0:y1, x0:x1].mean(dim=(1, 2)) - target) ** 2).mean()
        loss = loss / len(targets) + 1 - _full_ssim(torch.sigmoid(out[:, :3]), image)
        loss.backward()
        optimizer.step()

    return _epochs(step, epochs)


def vectorised(data: Data, epochs: int, hidden: int) -> list[float]:
    """Train the same network without the loop, with separable SSIM and fused Adam."""
    import torch

    from histoweft.histology.autoencoder import as_images, as_tensor, pool
    from histoweft.histology.ssim import ssim

    torch.manual_seed(0)
    image, targets = as_images(data.image), torch.from_numpy(data.targets)
    footprints = as_tensor(data.footprints())
    model = _reference(len(data.image), hidden, targets.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        out = model(image)
        loss = ((pool(out[0, 3:], footprints) - targets) ** 2).mean() + 1 - ssim(torch.sigmoid(out[:, :3]), image)
        loss.backward()
        optimizer.step()

    return _epochs(step, epochs)


def autoencoder(data: Data, epochs: int, hidden: int) -> list[float]:
    """Train the library's yardstick through its trainer."""
    return _through_the_trainer("autoencoder", data, epochs)


def ours(data: Data, epochs: int, hidden: int) -> list[float]:
    """Train the default model: seconds in which every network of the ensemble sees every spot once.

    The image features are computed before the first epoch, as the workflow does; their time goes to stderr.
    """
    from histoweft.histology import context, network, stain, tissue
    from histoweft.histology.spots import standardise
    from histoweft.splits import partition

    start = time.monotonic()
    size = float(np.ptp(data.squares[0, :2]))
    um_per_px = SPOT_UM / size
    centres = data.squares.reshape(-1, 2, 2).mean(axis=2)[:, ::-1]
    found = tissue.find_tissue(data.image, um_per_px, centres, size)
    own, _ = stain.estimate(data.image, found.mask, 0)
    pyramid = context.build(data.image, um_per_px, found.mask, own, SPOT_UM)
    at = context.footprints(centres, size)
    features = pyramid.sample(at.reshape(-1, 2)).reshape(*at.shape[:2], -1)
    means = features.mean(axis=1)
    pixels = standardise(features, means.mean(axis=0), means.std(axis=0) + 1e-6).astype(np.float16)
    print(f"image features, once: {time.monotonic() - start:.2f} s", file=sys.stderr)
    options = network.Options()
    passes = len(data.targets) / options.batch / 20
    options = dataclasses.replace(options, steps=max(20, round(epochs * passes) * 20))
    given = network.Data(pixels, np.zeros((len(pixels), 0), np.float32), data.targets, partition(centres, 8))
    _, course = network.train(given, options, seed=0)
    return [epoch["seconds"] * passes for epoch in course.history]


def _through_the_trainer(kind: str, data: Data, epochs: int) -> list[float]:
    import torch

    from histoweft.histology.autoencoder import as_images, build, quarter
    from histoweft.histology.objectives import GeneTraining
    from histoweft.training import fit

    torch.manual_seed(0)
    model = build(kind)
    model.add_gene_head(data.targets.shape[1], seed=0)
    batch = {
        "image": as_images(data.image),
        "footprints": quarter(data.footprints(), *data.image.shape[:2], model.stride),
        "targets": torch.from_numpy(data.targets),
    }
    run = fit(GeneTraining(model, lr=LR), [batch], max_epochs=epochs, monitor="train_loss", seed=0, progress=False)
    return [epoch["seconds"] for epoch in run.history]


def one(variant: str, options: argparse.Namespace) -> None:
    """Run one variant in this process and print its seconds as JSON."""
    import torch

    torch.set_num_threads(options.threads)
    data = read(options.sample, options.side, options.genes)
    train = {"loop": loop, "vectorised": vectorised, "autoencoder": autoencoder, "ours": ours}[variant]
    seconds = train(data, options.epochs, options.hidden)
    print(json.dumps({"seconds": seconds, "spots": len(data.squares), "genes": data.targets.shape[1]}))


def run(options: argparse.Namespace) -> dict:
    """Run the variants one after the other, each in its own process, and compare them."""
    import torch

    found: dict = {
        "data": {"sample": str(options.sample), "side_px": options.side},
        "machine": {"threads": options.threads, "torch": torch.__version__, "cpus": os.cpu_count()},
        "variants": {},
    }
    given = [
        f"--{name}={getattr(options, name)}" for name in ("sample", "side", "genes", "hidden", "threads", "epochs")
    ]
    for variant in options.variants:
        print(variant, flush=True)
        process = subprocess.Popen(
            [sys.executable, __file__, "one", variant, *given], stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(options.threads)},
        )  # fmt: skip
        lines = [line.rstrip("\n") for line in process.stdout]
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise SystemExit(f"{variant} ended with {os.waitstatus_to_exitcode(status)}: {lines[-1:]}")
        result = json.loads(lines[-1])
        found["data"] |= {name: result[name] for name in ("spots", "genes")}
        found["variants"][variant] = {
            "seconds_per_epoch": round(statistics.median(result["seconds"]), 3),
            "epochs": len(result["seconds"]),
            "peak_mb": round(usage.ru_maxrss / 1024),
        }
    if "loop" in found["variants"]:
        slowest = found["variants"]["loop"]["seconds_per_epoch"]
        for value in found["variants"].values():
            value["speedup"] = round(slowest / value["seconds_per_epoch"], 1)
    _show(found)
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(found, indent=2) + "\n")
    return found


def _show(found: dict) -> None:
    print(f"\n{'variant':<14}{'s / epoch':>10}{'x loop':>9}{'peak MB':>10}")
    for name, value in found["variants"].items():
        print(f"{name:<14}{value['seconds_per_epoch']:>10.3f}{value.get('speedup', ''):>9}{value['peak_mb']:>10}")
    print(json.dumps(found, indent=2))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    several = commands.add_parser("run", help="compare the variants")
    several.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    several.add_argument("--report", type=Path)
    single = commands.add_parser("one", help="run one variant in this process")
    single.add_argument("variant", choices=VARIANTS)
    for command in (several, single):
        command.add_argument("--sample", type=Path, default=ROOT / "results" / "mob" / "samples" / "MOB1")
        command.add_argument("--side", type=int, default=768, help="px; a multiple of 16")
        command.add_argument("--hidden", type=int, default=512, help="units of the dense bottleneck")
        command.add_argument("--genes", type=int, default=12)
        command.add_argument("--epochs", type=int, default=3)
        command.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.command == "run":
        run(options)
    else:
        one(options.variant, options)


if __name__ == "__main__":
    main()
