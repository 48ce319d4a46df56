"""What a job costs: memory and time as base + k * size^e, fitted to benchmark files and read back from a table.

The size of a job is that of the sections, the reference and the atlas it reads, as their files' headers tell it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

UNITS = {
    "values": "million stored counts",
    "spots": "thousand spots or cells",
    "megapixels": "million pixels of the working image",
    "sections": "sections",
    "voxels": "million voxels x genes",
}
"""Unit -> what one of it is. Of units that fit alike, the first is taken."""

EXPONENTS = (1.0, 0.5, 0.75, 1.25, 1.5, 2.0)
CLEARLY, GOOD = 0.8, 0.15
"""Another power or unit is taken instead of the simpler one where that is off by more than the second of these (as a
share of a job's cost) and the other one leaves the first of these of its error, or less."""

VARIANTS = ("model", "annotator", "atlas_model", "method", "network")
"""Wildcards that choose another algorithm, so that the rule's cost is another one."""

START_S, START_MB = 1.0, 100.0
"""What a job costs that does nothing, for rules that were measured at one size only."""

REFERENCE, ATLAS = "(reference)", "(atlas)"
MAKERS = {"ingest_reference": REFERENCE, "prepare_atlas": ATLAS}
"""Rules that read these in from a form whose size no header tells."""

SHORT_S = 2.0
"""Snakemake looks at a job's memory once at the start and then after seconds: of shorter jobs it misses the peak."""

SAMPLING_S = 30.0
"""Longest time between two looks of Snakemake at a job's processor time."""

RESULTS, PICTURES = "tables of a section", "images of a section"
DISK = {RESULTS: "values", PICTURES: "megapixels"}
"""The table's rows for disk instead of memory, and what each grows with."""

OF_PIXELS = ("ingest_image", "tile", "image_features", "pretrain/encoder", "pretrain/autoencoder", "paint")
"""Rules that work on pixels: in most studies these grow with the counts, and no fit can tell the one from the other."""

KNOWN_UNITS = DISK | dict.fromkeys(OF_PIXELS, "megapixels")
"""What is not left to the fit."""


@dataclass(frozen=True)
class Size:
    """How large a section, a reference or an atlas is, in the units of `UNITS`."""

    values: float = 0.0
    spots: float = 0.0
    megapixels: float = 0.0
    sections: float = 0.0
    voxels: float = 0.0

    def __add__(self, other: Size) -> Size:
        return Size(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Measured:
    """One job that ran.

    Parameters
    ----------
    rule
        With its variant: ``cross_validate/context``.
    size
        Of what it read.
    effort
        See `effort_of`.
    seconds, peak_mb
        What it took.
    """

    rule: str
    size: Size
    effort: float
    seconds: float
    peak_mb: float


def rule_key(rule: str, wildcards: Mapping[str, Any]) -> str:
    """Return the name under which a job's cost is kept: the rule, and its variant where there is one."""
    chosen = [str(wildcards[name]) for name in VARIANTS if name in wildcards]
    return "/".join([rule, *chosen])


def effort_of(params: Any) -> float:
    """Return how often a training goes over its data, by the options of the job: epochs, or members x steps.

    1 where a job trains nothing.
    """
    effort = 1.0
    if isinstance(params, Mapping):
        for name, value in params.items():
            if name in ("epochs", "members", "steps") and isinstance(value, int | float) and value > 0:
                effort *= value
            else:
                effort *= effort_of(value)
    return effort


# -------------------------------------------------------------------------------------------------------- measuring


def read_benchmarks(root: str | os.PathLike, study: str) -> list[Measured]:
    """Return every job of a study that has run below a folder, with the size of what it read.

    Parameters
    ----------
    root
        The folder Snakemake ran in, with ``benchmarks/`` (``benchmark-extended``) and ``results/``.
    study
        Its name.
    """
    root = Path(root)
    sizes = result_sizes(root / "results" / study)
    found = []
    for path in sorted((root / "benchmarks" / study).rglob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            job = _measured(json.loads(line), study, sizes)
            if job is not None:
                found.append(job)
    for name, size in sizes.items():
        found += [Measured(kind, size, 1.0, 0.0, mb) for kind, mb in _disk(root / "results" / study / "samples" / name)]
    return found


def _disk(folder: Path) -> list[tuple[str, float]]:
    """Return the MB that the results of a section take: its image and what is painted on it, and all the rest."""
    used = dict.fromkeys(DISK, 0.0)
    for path in folder.rglob("*"):
        if path.is_file():
            pictured = path.name == "image.tif" or path.relative_to(folder).parts[0] == "histology"
            used[PICTURES if pictured else RESULTS] += path.stat().st_size / 1e6
    return [(kind, mb) for kind, mb in used.items() if mb]


def _measured(record: Mapping[str, Any], study: str, sizes: Mapping[str, Size]) -> Measured | None:
    """Return one line of a benchmark file as a job; None where its rule or its memory was not recorded."""
    if "rule_name" not in record or not isinstance(record.get("max_rss"), int | float):
        return None
    wildcards = record.get("wildcards") or {}
    rule, inputs = record["rule_name"], record.get("input_size_mb") or {}
    names = names_read(rule, inputs, wildcards, study) or sections(sizes)
    # Processor time leaves out how long a busy machine let the job wait; it is looked at now and then only.
    seconds = min(float(record["s"]), float(record.get("cpu_time") or record["s"]) + SAMPLING_S)
    size = total(sizes[name] for name in names if name in sizes)
    return Measured(rule_key(rule, wildcards), size, effort_of(record.get("params")), seconds, float(record["max_rss"]))


def names_read(rule: str, inputs: Iterable[str], wildcards: Mapping[str, Any], study: str) -> set[str]:
    """Return what a job reads: sections by name, `REFERENCE`, `ATLAS`; nothing known for jobs about the whole study.

    A job of one section reads that one: what it takes of others (the marker panels of all, say) is small.
    """
    found = {str(wildcards["sample"])} if "sample" in wildcards else set()
    found |= {MAKERS[rule]} if rule in MAKERS else set()
    below = f"results/{study}/samples/"
    for path in inputs:
        if path.startswith(below) and "sample" not in wildcards:
            found.add(path.removeprefix(below).partition("/")[0])
        elif path.endswith("annotation/reference.h5ad"):
            found.add(REFERENCE)
        elif path.startswith(f"results/{study}/atlas/expression."):
            found.add(ATLAS)
    return found


def sections(sizes: Iterable[str]) -> set[str]:
    """Return the names that are sections: what a job about the whole study is taken to read."""
    return {name for name in sizes if name not in (REFERENCE, ATLAS)}


def total(sizes: Iterable[Size]) -> Size:
    """Return sizes added up."""
    return sum(sizes, Size())


def result_sizes(results: Path) -> dict[str, Size]:
    """Return the size of every section of a study that was read in, of its reference and of its atlas."""
    found = {}
    for path in sorted(results.glob("samples/*/counts.h5ad")):
        image = path.with_name("image.tif")
        size = counts_size(path) + Size(sections=1)
        found[path.parent.name] = size + (Size(megapixels=_pixels(image)) if image.is_file() else Size())
    reference, atlas = results / "annotation" / "reference.h5ad", results / "atlas" / "expression.npy"
    if reference.is_file():
        found[REFERENCE] = counts_size(reference)
    if atlas.is_file():
        shape = np.load(atlas, mmap_mode="r", allow_pickle=False).shape
        found[ATLAS] = Size(voxels=float(np.prod(shape, dtype=float)) / 1e6)
    return found


def counts_size(path: str | os.PathLike) -> Size:
    """Return the size of an h5ad file by its header; a dense matrix counts every value."""
    import h5py

    with h5py.File(path, "r") as file:
        x = file["X"]
        rows, columns = x.shape if isinstance(x, h5py.Dataset) else x.attrs["shape"]
        stored = int(rows) * int(columns) if isinstance(x, h5py.Dataset) else x["data"].shape[0]
    return Size(values=stored / 1e6, spots=int(rows) / 1e3)


def _pixels(path: Path) -> float:
    """Return the million pixels of a tiff's finest level."""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        shape = tif.series[0].levels[0].shape
    return shape[0] * shape[1] / 1e6


# ---------------------------------------------------------------------------------------------------------- fitting


@dataclass(frozen=True)
class Curve:
    """base + k * size^exponent, and the root mean squared relative error of the jobs it was fitted to."""

    base: float
    k: float
    exponent: float
    error: float = 0.0

    def at(self, size: float) -> float:
        """Return the cost of a size."""
        return self.base + self.k * size**self.exponent if size > 0 else self.base


def fit_curve(sizes: np.ndarray, costs: np.ndarray, start: float) -> Curve:
    """Fit base + k * size^e with neither below nought, each job counting by its relative error.

    Parameters
    ----------
    sizes, costs
        (jobs,).
    start
        Base for jobs of one size, of which no curve can be told: the rest then grows with the size.

    Notes
    -----
    Fewer than three sizes, or less than a factor of four between them, say nothing of the exponent, which is then 1.
    """
    sizes, costs = np.asarray(sizes, dtype=float), np.maximum(np.asarray(costs, dtype=float), 1e-3)
    different = np.unique(np.round(np.log(np.maximum(sizes, 1e-9)) / np.log(1.2)))
    spread = sizes.max() / max(sizes.min(), 1e-9)
    if sizes.max() <= 0 or len(different) < 2:
        typical = float(np.median(costs))
        base = typical if sizes.max() <= 0 else min(start, typical)
        k = (typical - base) / float(np.median(sizes)) if sizes.max() > 0 else 0.0
        return Curve(base, k, 1.0, _relative(base + k * sizes, costs))
    tried = EXPONENTS if len(different) > 2 and spread >= 4 else EXPONENTS[:1]
    curves = [_curve(sizes, costs, exponent) for exponent in tried]
    best = min(curves, key=lambda curve: curve.error)
    # In proportion, unless another power is clearly better: sizes far beyond the measured ones hang on it.
    return best if curves[0].error > GOOD and best.error < CLEARLY * curves[0].error else curves[0]


def _curve(sizes: np.ndarray, costs: np.ndarray, exponent: float) -> Curve:
    from scipy.optimize import nnls

    design = np.column_stack([np.ones_like(sizes), sizes**exponent]) / costs[:, None]
    (base, k), _ = nnls(design, np.ones_like(costs))
    # Relative errors forgive what is predicted too small; on the whole it must be neither.
    evened = float(np.exp(np.mean(np.log(costs / np.maximum(base + k * sizes**exponent, 1e-9)))))
    base, k = base * evened, k * evened
    return Curve(float(base), float(k), exponent, _relative(base + k * sizes**exponent, costs))


def _relative(predicted: np.ndarray, costs: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted / costs - 1) ** 2)))


@dataclass(frozen=True)
class Cost:
    """A rule's cost: a line of the table.

    Parameters
    ----------
    unit
        What its size is measured in.
    memory, time
        MB, and seconds for an effort of 1.
    largest
        Largest size it was measured at, in its unit.
    jobs
        Number of jobs behind it.
    """

    rule: str
    unit: str
    memory: Curve
    time: Curve
    largest: float
    jobs: int

    def predict(self, size: Size, effort: float = 1.0) -> tuple[float, float]:
        """Return MB and seconds of a job."""
        amount = getattr(size, self.unit)
        least = 0.0 if self.rule in DISK else START_MB
        return max(self.memory.at(amount), least), self.time.base + (self.time.at(amount) - self.time.base) * effort

    def extrapolates(self, size: Size, factor: float = 4.0) -> bool:
        """Return whether a job is much larger than any that was measured."""
        return getattr(size, self.unit) > factor * self.largest > 0


def fit_costs(jobs: Sequence[Measured]) -> list[Cost]:
    """Fit the cost of each rule, in the unit that explains its jobs best; sorted by name."""
    by_rule: dict[str, list[Measured]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job)
    return [_fit_rule(rule, by_rule[rule]) for rule in sorted(by_rule)]


def _fit_rule(rule: str, jobs: Sequence[Measured]) -> Cost:
    effort = np.array([job.effort for job in jobs])
    seconds, peak = (np.array([getattr(job, name) for job in jobs]) for name in ("seconds", "peak_mb"))
    seen = seconds >= SHORT_S
    if seen.sum() < 3:
        seen[:] = True
    sized = np.array([job.size != Size() for job in jobs])
    best, best_error = None, np.inf
    for unit in [KNOWN_UNITS[rule]] if rule in KNOWN_UNITS else UNITS:
        amount = np.array([getattr(job.size, unit) for job in jobs])
        # Jobs do not grow with what some of them have nothing of (pixels, where a section has no image).
        if not amount.any() or (rule not in KNOWN_UNITS and (amount[sized] == 0).any()):
            continue
        memory = fit_curve(amount[seen], peak[seen], START_MB)
        time = _fit_time(amount, seconds, effort)
        error = time.error + memory.error
        if best is None or (best_error > 2 * GOOD and error < CLEARLY * best_error):
            best, best_error = Cost(rule, unit, memory, time, float(amount.max()), len(jobs)), error
    if best is not None:
        return best
    nothing = np.zeros(len(jobs))
    memory, time = fit_curve(nothing, peak, START_MB), fit_curve(nothing, seconds, START_S)
    return Cost(rule, "sections", memory, time, 0.0, len(jobs))


def _fit_time(amount: np.ndarray, seconds: np.ndarray, effort: np.ndarray) -> Curve:
    """Fit seconds of jobs of an effort: base + effort * k * size^e."""
    if np.allclose(effort, effort[0]):
        curve = fit_curve(amount, seconds, START_S)
        return Curve(curve.base, curve.k / effort[0], curve.exponent, curve.error)
    # With several efforts a power of the size cannot be told from one of the effort: in proportion to both.
    return _curve(amount * effort, np.maximum(seconds, 1e-3), 1.0)


# ------------------------------------------------------------------------------------------------------------ table

COLUMNS = (
    "rule", "unit", "base_mb", "mb_per_unit", "mb_exponent", "base_s", "s_per_unit", "s_exponent", "largest", "jobs",
    "error_mb", "error_s", "measured_on",
)  # fmt: skip


def _curve_cells(curve: Curve) -> list[float]:
    return [curve.base, curve.k, curve.exponent]


def write_costs(costs: Sequence[Cost], path: str | os.PathLike, measured_on: str) -> None:
    """Write the table; `measured_on` says on which machine."""
    from histoweft.io import atomic

    rows = [
        [
            *(cost.rule, cost.unit, *_curve_cells(cost.memory), *_curve_cells(cost.time), cost.largest, cost.jobs),
            *(cost.memory.error, cost.time.error, measured_on),
        ]
        for cost in costs
    ]
    with atomic(path) as partial:
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(partial, sep="\t", index=False, float_format="%.4g")


def merged(old: Mapping[str, Cost], new: Sequence[Cost]) -> list[Cost]:
    """Take new costs, but keep old ones of rules that were not measured now, or only at smaller sizes; by name."""
    found = dict(old)
    for cost in new:
        before = found.get(cost.rule)
        if before is None or before.unit != cost.unit or cost.largest >= before.largest:
            found[cost.rule] = cost
    return [found[rule] for rule in sorted(found)]


def read_costs(path: str | os.PathLike) -> dict[str, Cost]:
    """Read the table written by `write_costs`: rule to cost."""
    table = pd.read_csv(path, sep="\t")
    return {
        str(row.rule): Cost(
            str(row.rule),
            str(row.unit),
            Curve(row.base_mb, row.mb_per_unit, row.mb_exponent, row.error_mb),
            Curve(row.base_s, row.s_per_unit, row.s_exponent, row.error_s),
            float(row.largest),
            int(row.jobs),
        )
        for row in table.itertuples()
    }


def measured_on(path: str | os.PathLike) -> str:
    """Return which machine the table's times are of."""
    return ", ".join(pd.read_csv(path, sep="\t", usecols=["measured_on"])["measured_on"].unique())
