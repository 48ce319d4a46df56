"""How time and memory grow with size, measured; and what a study larger than any measured would need, calculated."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from histoweft.report.costs import DISK, OF_PIXELS, UNITS, Cost, Measured, Size, fit_costs
from histoweft.report.preflight import SAFETY, Machine, Planned, duration, gigabytes, longest_chain, makespan, predict

SHOWN = 12
"""Rules in the figure: those that take longest at the largest size."""

GROWS = 1.05
"""Times the cost in the smallest run from which that in the largest counts as more."""

RUNS = 3
"""Sizes that are set side by side."""

WIDTH = 120

SERIES = {
    "counts": "Simulated studies of the same two sections at three sizes: spots, counts and pixels grow together (the "
    "image up to 4 million pixels), genes and sections do not.",
    "pixels": "Rules that work on pixels: simulated sections, three real ones of the olfactory bulb, and a mosaic of a "
    "hundred real ones; the number of spots differs as well. Painting and pretraining did not run at all three.",
    "genes": "One cortical section with a sixteenth, a quarter and all of its genes; stored counts grow with them, "
    "spots do not.",
    "sections": "Two, four and eight simulated sections of equal size, without images: rules that run once a study.",
}
"""What grows -> what was run, from small to large."""

OWN_UNITS = {"genes": "thousand genes", "sections": "sections"}
"""Series whose sizes are not those of the jobs' inputs but given with the runs -> their unit."""


@dataclass(frozen=True)
class Case:
    """A study that is too large to be run here: so many sections, each of one size."""

    name: str
    sections: int
    size: Size


CASES = (
    Case("100 Visium sections", 100, Size(values=12.0, spots=3.5, megapixels=42.0, sections=1)),
    Case("10 Visium HD sections, 8 um", 10, Size(values=125.0, spots=500.0, megapixels=42.0, sections=1)),
)
"""Visium: 3,500 spots x 3,400 genes found. HD: 500,000 bins x 250 genes found of 18,000. Images: 6.5 mm at 1 um."""

_NODES, _CORES, _NODE_MB = 20, 32, 128e3
WORKSTATION = Machine(cores=8, memory_mb=64e3, disk_mb=math.inf, gpus=0)
WITH_GPU = replace(WORKSTATION, gpus=1)
CLUSTER = Machine(cores=_NODES * _CORES, memory_mb=_NODES * _NODE_MB, disk_mb=math.inf, gpus=0)
MACHINES = {
    "workstation, 8 cores, 64 GB": WORKSTATION,
    "the same with one GPU": WITH_GPU,
    "SLURM, 20 nodes of 32 cores and 128 GB": CLUSTER,
}


# ------------------------------------------------------------------------------------------------------- measured


def measured(series: str, runs: Sequence[Sequence[Measured]], sizes: Sequence[float] | None = None) -> pd.DataFrame:
    """Set what each rule took in runs of rising size side by side, with the curve through them.

    Parameters
    ----------
    series
        One of `SERIES`; rules that work on pixels are in that of ``pixels`` alone.
    runs
        Jobs of each of three runs, the smallest first.
    sizes
        Of the runs, for the series of `OWN_UNITS`. Of ``sections``, rules with one job a run are kept.

    Returns
    -------
    A row for each rule that is in every run: ``series``, ``rule``, ``unit``; mean ``size_<run>``, ``s_<run>``,
    ``mb_<run>`` of its jobs; the ``s_exponent`` and ``mb_exponent`` of base + k size^exponent (0 where cost does not
    grow); ``s_slope`` and ``mb_slope``, the exponent of a plain power law from the smallest to the largest run, the
    base included.
    """
    rows = []
    if sizes is not None:
        runs = [[replace(job, size=Size(values=size)) for job in run] for run, size in zip(runs, sizes, strict=True)]
    if series == "sections":
        runs = [[job for job in run if [other.rule for other in run].count(job.rule) == 1] for run in runs]
    for cost in fit_costs([job for run in runs for job in run]):
        own = [[job for job in run if job.rule == cost.rule] for run in runs]
        if cost.rule in DISK or not all(own) or (series == "pixels") != (cost.rule in OF_PIXELS):
            continue
        row: dict[str, object] = {"series": series, "rule": cost.rule, "unit": OWN_UNITS.get(series, cost.unit)}
        for at, jobs in enumerate(own, 1):
            row |= {
                f"size_{at}": np.mean([getattr(job.size, cost.unit) for job in jobs]),
                f"s_{at}": np.mean([job.seconds for job in jobs]),
                f"mb_{at}": np.mean([job.peak_mb for job in jobs]),
            }
        for name, curve in (("s", cost.time), ("mb", cost.memory)):
            grows = row[f"{name}_{RUNS}"] > GROWS * row[f"{name}_1"]
            row[f"{name}_exponent"] = curve.exponent if grows else 0.0
            row[f"{name}_slope"] = _slope(row, name)
        rows.append(row)
    return pd.DataFrame(rows)


def _slope(row: Mapping[str, object], name: str) -> float:
    """Return log cost over log size between the first and the last run; NaN where the size did not grow."""
    grown = row[f"size_{RUNS}"] / row["size_1"] if row["size_1"] else 1.0
    return math.log(row[f"{name}_{RUNS}"] / row[f"{name}_1"]) / math.log(grown) if grown > 1.05 else math.nan


# ----------------------------------------------------------------------------------------------------- calculated


def estimates(case: Case, jobs: Sequence[Planned], costs: Mapping[str, Cost]) -> list[dict[str, object]]:
    """Play a study through on each machine, by the fitted costs.

    Parameters
    ----------
    case
        What the study is.
    jobs
        Its jobs, planned; costs are filled in.
    costs
        Fitted, by rule.

    Returns
    -------
    A row for each of `MACHINES`: ``least_s`` and ``most_s`` (equal, but where there is a GPU, whose gain was not
    measured: training taking no time, and training as slow as on a core), what does not fit, and how far the costs were
    extrapolated: ``section_factor`` and ``study_factor``, the largest size of a job (of one section, of more) over the
    largest that its rule was measured at; ``beyond``, the share of the work in jobs more than four times as large as
    any measured; ``guessed``, the rules that were measured once, whose growth is a guess; ``unmeasured``, those that
    never were and are not counted.
    """
    predict(jobs, costs)
    known = [job for job in jobs if job.seconds is not None]
    work = sum(job.seconds for job in known)
    shared = {
        "case": case.name,
        "jobs": len(jobs),
        "unmeasured": ", ".join(sorted({job.rule for job in jobs if job.seconds is None})),
        "guessed": ", ".join(sorted({job.rule for job in known if costs[job.rule].jobs == 1})),
        "work_s": work,
        "chain_s": sum(job.seconds for job in longest_chain(known)),
        "largest_mb": max(job.mb for job in known),
        "largest_rule": max(known, key=lambda job: job.mb).rule,
        "longest_s": max(job.seconds for job in known),
        "longest_rule": max(known, key=lambda job: job.seconds).rule,
        "section_factor": max((_factor(job, costs[job.rule]) for job in known if job.size.sections <= 1), default=0.0),
        "study_factor": max((_factor(job, costs[job.rule]) for job in known if job.size.sections > 1), default=0.0),
        "beyond": sum(job.seconds for job in known if job.beyond) / work,
    }
    return [shared | _on(name, machine, known) for name, machine in MACHINES.items()]


def _factor(job: Planned, cost: Cost) -> float:
    return getattr(job.size, cost.unit) / cost.largest if cost.largest > 0 else 1.0


def _on(name: str, machine: Machine, jobs: Sequence[Planned]) -> dict[str, object]:
    each = _NODE_MB if machine is CLUSTER else machine.memory_mb
    fit = [job for job in jobs if job.mb <= SAFETY * each]
    large = sorted({job.rule for job in jobs if job.mb > SAFETY * each})
    most, _ = makespan(fit, machine.cores, SAFETY * machine.memory_mb)
    least = most
    if machine.gpus:
        free = [replace(job, seconds=0.0) if job.gpu else job for job in fit]
        least, _ = makespan(free, machine.cores, SAFETY * machine.memory_mb)
    return {
        "machine": name,
        "least_s": least,
        "most_s": most,
        "too_large": ", ".join(large),
    }


# ----------------------------------------------------------------------------------------------------- for readers


def page(scaling: pd.DataFrame | None, overhead: pd.DataFrame | None, machines: pd.DataFrame | None) -> str:
    """Return the page (Markdown) of the tables that there are."""
    lines = [
        "# How cost grows",
        "",
        "Made by `tools/scaling.py` from `scaling.tsv`, `overhead.tsv` and `machines.tsv` here; edit nothing.",
        "",
    ]
    lines += _measured_part(scaling) if scaling is not None else []
    lines += _overhead_part(overhead) if overhead is not None else []
    lines += _machines_part(machines) if machines is not None else []
    return "\n".join(lines).rstrip("\n") + "\n"


def _measured_part(table: pd.DataFrame) -> list[str]:
    units = "; ".join(f"`{name}`: {UNITS[name]}" for name in UNITS if (table["unit"] == name).any())
    words = (
        "One core a job on a shared server, whose load shows in single jobs. `time ~` and `memory ~`: the exponent of "
        "base + k size^exponent, taken as 1 unless another is clearly better; `slope`: that of a plain power law from "
        "the smallest to the largest run, in which the constant cost of starting hides the growth. Sizes are means of "
        f"the jobs of a run. Units: {units}."
    )
    lines = ["## Measured", "", *textwrap.wrap(words, WIDTH), ""]
    for series, rows in table.groupby("series", sort=False):
        lines += [f"### By {series}", "", *textwrap.wrap(SERIES[series], WIDTH), "", *_growth_table(rows), ""]
        if series == next(iter(SERIES)):
            lines += ["![Seconds and memory of the longest rules by size](scaling.svg)", ""]
    return lines


def _growth_table(table: pd.DataFrame) -> list[str]:
    runs = range(1, RUNS + 1)
    head = ["rule", "grows with", "sizes", *(f"s, {at}" for at in runs), "time ~", "slope"]
    head += [*(f"MB, {at}" for at in runs), "memory ~", "slope"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in table.sort_values([f"s_{RUNS}", "rule"], ascending=[False, True]).to_dict("records"):
        cells = [f"`{row['rule']}`", row["unit"], ", ".join(_short(row[f"size_{at}"]) for at in runs)]
        for name in ("s", "mb"):
            cells += [_short(row[f"{name}_{at}"]) for at in runs]
            cells += [_power(row[f"{name}_exponent"]), _slope_cell(row[f"{name}_slope"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _power(exponent: float) -> str:
    return "constant" if exponent == 0 else f"{exponent:g}"


def _slope_cell(slope: float) -> str:
    return "" if math.isnan(slope) else f"{slope:.2f}"


def _overhead_part(table: pd.DataFrame) -> list[str]:
    lines = ["## What the workflow itself takes", ""]
    for row in table.to_dict("records"):
        imports, outside = row["imports_s"] / row["wall_s"], 1 - row["timed_s"] / row["wall_s"]
        busy = row["own_cpu_s"] / (row["own_cpu_s"] + row["jobs_cpu_s"])
        lines += textwrap.wrap(
            f"{row['about']}: {row['jobs']:.0f} jobs, one at a time, {row['wall_s']:.0f} s by the clock. {imports:.0%} "
            f"of them went to imports in jobs, {outside:.0%} passed outside of jobs (Snakemake's start and planning): "
            f"together {imports + outside:.0%}. Snakemake's own process, which watches the jobs from another core, "
            f"took {busy:.0%} of the processor time; on a single core that would come on top.",
            WIDTH,
        )
        lines.append("")
    return lines


def _machines_part(table: pd.DataFrame) -> list[str]:
    words = (
        "**Calculated, not run**: jobs are planned as Snakemake plans them, each is given the cost that "
        "`resources/costs.tsv` predicts for its size, and the run is played through on the machine, its memory kept "
        "to. The sizes lie far beyond the measured ones (the factors below say how far): read orders of magnitude. "
        "Steps that bound their own work (networks train at most 400 steps, integration is scored on at most 20,000 "
        "barcodes, pretraining sees at most 12 sections) are extrapolated as if they did not, so times are rather too "
        "long. Two sections a patient, before and after treatment, no annotation reference, default options. No GPU "
        "was measured: of its row, the lower time has training take none, the upper as much as a core. Rules in the "
        "last column are predicted to need more memory than the machine (the node) has and are not counted there."
    )
    lines = ["## What large studies would need", "", *textwrap.wrap(words, WIDTH), ""]
    lines += ["| study | machine | time | does not fit |", "|---|---|---|---|"]
    for row in table.fillna({"too_large": ""}).to_dict("records"):
        time = duration(row["most_s"])
        if row["least_s"] < row["most_s"]:
            time = f"{duration(row['least_s'])} to {time}"
        lines.append(f"| {row['case']} | {row['machine']} | {time} | {row['too_large']} |")
    lines.append("")
    for case in CASES:
        rows = table.loc[table["case"] == case.name]
        lines += [*_about(case, rows.fillna({"guessed": "", "unmeasured": ""}).iloc[0]), ""] if len(rows) else []
    return lines


def _about(case: Case, row: pd.Series) -> list[str]:
    size = case.size
    words = (
        f"{case.name}: {size.spots * 1e3:,.0f} barcodes, {size.values:g} million stored counts and {size.megapixels:g} "
        f"million pixels each. {row['jobs']:,} jobs, {duration(row['work_s'])} of work on one core, "
        f"{duration(row['chain_s'])} on any number of cores. Longest job `{row['longest_rule']}` "
        f"({duration(row['longest_s'])}), largest `{row['largest_rule']}` ({gigabytes(row['largest_mb'])}). Jobs of "
        f"one section are extrapolated by a factor of up to {row['section_factor']:,.0f}, jobs of the whole study by "
        f"up to {row['study_factor']:,.0f}; {row['beyond']:.0%} of the work is in jobs more than four times as large "
        "as any that was measured."
    )
    words += f" Measured once, so that growth in proportion is a guess: {row['guessed']}." if row["guessed"] else ""
    words += f" Never measured, so not counted: {row['unmeasured']}." if row["unmeasured"] else ""
    return textwrap.wrap(words, WIDTH)


def figure(table: pd.DataFrame, path: str | os.PathLike) -> None:
    """Draw seconds and memory of the longest rules over the size of what they read, both axes logarithmic.

    Parameters
    ----------
    table
        One series of `measured`.
    path
        Where to.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    from histoweft.plotting import category_colours, new_figure, save

    longest = table.loc[table["size_1"] > 0].nlargest(SHOWN, f"s_{RUNS}")
    colours = category_colours(list(longest["rule"]))
    fig, axes = new_figure(2, 1, panel=(4.6, 4.4))
    for axis, name, words in ((axes[0, 0], "s", "seconds a job"), (axes[0, 1], "mb", "peak memory, MB")):
        for row in longest.to_dict("records"):
            # As multiples of the smallest run: rules whose sizes have different units then share an axis.
            size = [row[f"size_{at}"] / row["size_1"] for at in range(1, RUNS + 1)]
            cost = [row[f"{name}_{at}"] for at in range(1, RUNS + 1)]
            axis.plot(size, cost, "o-", color=colours[row["rule"]], markersize=3.5, linewidth=1.2, label=row["rule"])
        axis.set(xscale="log", yscale="log", xlabel="size of what a job reads, times the smallest", ylabel=words)
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(LogLocator(subs=(1, 2, 5)))
            side.set_major_formatter(StrMethodFormatter("{x:,g}"))
            side.set_minor_formatter(NullFormatter())
        axis.grid(color="0.92", linewidth=0.6)
    axes[0, 1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize=7.5, frameon=False)
    save(fig, path)
