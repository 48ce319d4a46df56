"""What a run will cost on this machine, before it starts: a table, the longest chain, and advice."""

from __future__ import annotations

import heapq
import os
import shutil
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from histoweft.report.costs import DISK, Cost, Size

SAFETY = 0.9
"""Share of the memory that jobs may take together."""

LONG_S = 12 * 3600.0
"""Seconds after which a cluster is advised."""


@dataclass(frozen=True)
class Machine:
    """What there is to run on: cores, MB of memory and of free disk, GPUs."""

    cores: int
    memory_mb: float
    disk_mb: float
    gpus: int


@dataclass
class Planned:
    """One job that is to run.

    Parameters
    ----------
    key
        Names the job.
    rule
        As in the table of costs.
    about
        Section, fold or method it is of; empty for the study.
    size, effort
        See `costs`.
    needs
        Keys of the jobs it waits for.
    gpu
        Whether it would use one.
    seconds, mb
        As predicted; None where the rule was never measured.
    """

    key: Hashable
    rule: str
    about: str
    size: Size
    effort: float = 1.0
    needs: set[Hashable] = field(default_factory=set)
    gpu: bool = False
    seconds: float | None = None
    mb: float | None = None
    beyond: bool = False


def predict(jobs: Sequence[Planned], costs: Mapping[str, Cost]) -> None:
    """Fill in what each job will cost, as far as its rule is in the table."""
    for job in jobs:
        cost = costs.get(job.rule)
        if cost is not None:
            job.mb, job.seconds = cost.predict(job.size, job.effort)
            job.beyond = cost.extrapolates(job.size)


def longest_chain(jobs: Sequence[Planned]) -> list[Planned]:
    """Return the jobs that must wait for one another and take longest together, first to last."""
    by_key = {job.key: job for job in jobs}
    ends: dict[Hashable, tuple[float, Planned | None]] = {}
    for job in _in_order(by_key):
        before = max(
            (by_key[key] for key in job.needs if key in by_key), key=lambda one: ends[one.key][0], default=None
        )
        ends[job.key] = ((ends[before.key][0] if before else 0.0) + (job.seconds or 0.0), before)
    last = max(jobs, key=lambda job: ends[job.key][0], default=None)
    chain = []
    while last is not None:
        chain.append(last)
        last = ends[last.key][1]
    return chain[::-1]


def _waits(by_key: Mapping[Hashable, Planned]) -> tuple[dict[Hashable, int], dict[Hashable, list[Hashable]]]:
    """Return for how many jobs each one waits, and which ones wait for it."""
    waits, followers = {}, {key: [] for key in by_key}
    for key, job in by_key.items():
        needs = [need for need in job.needs if need in by_key]
        waits[key] = len(needs)
        for need in needs:
            followers[need].append(key)
    return waits, followers


def _released(done: Hashable, waits: dict[Hashable, int], followers: dict[Hashable, list]) -> list[Hashable]:
    """Note that a job is done; return those that waited for nothing else."""
    for key in followers[done]:
        waits[key] -= 1
    return [key for key in followers[done] if waits[key] == 0]


def _in_order(by_key: Mapping[Hashable, Planned]) -> list[Planned]:
    """Return jobs so that each comes after those it needs."""
    waits, followers = _waits(by_key)
    ready, found = [key for key, count in waits.items() if count == 0], []
    while ready:
        key = ready.pop()
        found.append(by_key[key])
        ready += _released(key, waits, followers)
    return found


def makespan(jobs: Sequence[Planned], cores: int, memory_mb: float | None = None) -> tuple[float, float]:
    """Play the run through on some cores: each time one is free, the longest job that may start does.

    Returns
    -------
    Seconds in all, and the largest sum of MB at one time. With `memory_mb`, a job that does not fit beside those
    running waits, unless it is alone.
    """
    by_key = {job.key: job for job in jobs}
    waits, followers = _waits(by_key)
    ready = [key for key, count in waits.items() if count == 0]
    running: list[tuple[float, int, Hashable]] = []
    now = used = peak = 0.0
    started: set[Hashable] = set()
    while ready or running:
        ready.sort(key=lambda key: by_key[key].seconds or 0.0)
        for key in reversed(ready[:]):
            mb = by_key[key].mb or 0.0
            if len(running) >= cores:
                break
            if memory_mb is None or not running or used + mb <= memory_mb:
                ready.remove(key)
                started.add(key)
                heapq.heappush(running, (now + (by_key[key].seconds or 0.0), len(started), key))
                used += mb
        peak = max(peak, used)
        now, _, done = heapq.heappop(running)
        used -= by_key[done].mb or 0.0
        ready += _released(done, waits, followers)
    return now, peak


def this_machine(folder: str | os.PathLike = ".", cores: int | None = None) -> Machine:
    """Return what this machine has; `cores` instead of all of them."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    return Machine(cores or here, memory, shutil.disk_usage(folder).free / 1e6, _gpus())


def _gpus() -> int:
    """Return how many GPUs there are, without importing torch."""
    import subprocess

    command = shutil.which("nvidia-smi")
    if command is None:
        return 0
    try:
        done = subprocess.run([command, "--list-gpus"], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return 0
    return len([line for line in done.stdout.splitlines() if line.startswith("GPU ")])


# ------------------------------------------------------------------------------------------------------------- words


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def gigabytes(mb: float) -> str:
    """Return an amount of memory or disk as people say it."""
    return f"{mb:.0f} MB" if mb < 1000 else f"{mb / 1000:.1f} GB"


def disk_needed(sizes: Mapping[str, Size], costs: Mapping[str, Cost]) -> float | None:
    """Return the MB that the results of all sections will take; None where it was never measured."""
    known = [costs[kind] for kind in DISK if kind in costs]
    if not known:
        return None
    return sum(one.predict(size)[0] for one in known for size in sizes.values() if getattr(size, one.unit))


def advice(jobs: Sequence[Planned], machine: Machine, disk_mb: float | None) -> list[str]:
    """Return what to do where the run does not fit the machine, or where the estimate is weak."""
    said = []
    known = [job for job in jobs if job.mb is not None]
    allowed = SAFETY * machine.memory_mb
    large = sorted((job for job in known if job.mb > allowed), key=lambda job: -job.mb)
    if large:
        worst = large[0]
        jobs_need = f"{len(large)} jobs need" if len(large) > 1 else "1 job needs"
        said.append(
            f"{jobs_need} more memory than the {gigabytes(machine.memory_mb)} here, most {_name(worst)} with about "
            f"{gigabytes(worst.mb)}. Keep fewer cells (column subset of the sheet), choose larger bins of Visium HD "
            "(column bin_um), or run where there is more: --profile profiles/slurm."
        )
    _, together = makespan(known, machine.cores)
    if not large and together > allowed:
        time, _ = makespan(known, machine.cores, allowed)
        said.append(
            f"{machine.cores} jobs at once would take {gigabytes(together)} together. Add "
            f"--resources mem_mb={allowed:.0f}: fewer then run side by side (about {duration(time)} in all)."
        )
    if disk_mb is not None and disk_mb > machine.disk_mb:
        said.append(
            f"The results will take about {gigabytes(disk_mb)}; {gigabytes(machine.disk_mb)} are free. Run in a folder "
            "with more room (--directory)."
        )
    if not machine.gpus and any(job.gpu for job in jobs):
        took = sum(job.seconds or 0.0 for job in jobs if job.gpu)
        said.append(
            f"No GPU was found: {sum(job.gpu for job in jobs)} jobs that can use one run on the processor, about "
            f"{duration(took)} of work in all."
        )
    time, _ = makespan(known, machine.cores)
    if time > LONG_S:
        said.append(
            f"About {duration(time)} on {machine.cores} cores: --profile profiles/slurm spreads it over a cluster."
        )
    beyond = sorted({job.rule for job in known if job.beyond})
    if beyond:
        said.append(f"Far larger than anything measured, so a rough guess (marked ~): {', '.join(beyond)}.")
    unknown = sorted({job.rule for job in jobs if job.mb is None})
    if unknown:
        said.append(f"Never measured, so not counted: {', '.join(unknown)}.")
    return said


def _name(job: Planned) -> str:
    return f"{job.rule} of {job.about}" if job.about else job.rule


def report(
    jobs: Sequence[Planned], sizes: Mapping[str, Size], machine: Machine, costs: Mapping[str, Cost], measured_on: str
) -> str:
    """Return the whole of it as text; `predict` has been called."""
    if not jobs:
        return "Nothing to be done: every result is there and newer than what it was made from."
    lines = ["What is given", ""]
    lines += _columns(
        ("", "spots or cells", "million counts", "million pixels"),
        [(name, f"{1e3 * s.spots:,.0f}", f"{s.values:,.1f}", f"{s.megapixels:,.1f}") for name, s in sizes.items()],
    )
    lines += ["", f"Jobs by rule (measured on {measured_on}; expect half to twice)", ""]
    lines += _columns(("rule", "jobs", "time each", "memory each, largest", "largest is"), _by_rule(jobs))
    chain, work = longest_chain(jobs), sum(job.seconds or 0.0 for job in jobs)
    time, together = makespan(jobs, machine.cores)
    disk = disk_needed(sizes, costs)
    least = sum(job.seconds or 0.0 for job in chain)
    ends = sorted(chain, key=lambda job: -(job.seconds or 0.0))[:3]
    lines += [
        "",
        f"This machine: {machine.cores} cores, {gigabytes(machine.memory_mb)} memory, "
        f"{gigabytes(machine.disk_mb)} free disk, {machine.gpus or 'no'} GPU.",
        f"{len(jobs)} jobs, {duration(work)} of work: about {duration(time)} on {machine.cores} cores, at most "
        f"{gigabytes(together)} of memory at once.",
        f"No number of cores makes it shorter than {duration(least)}: {len(chain)} jobs wait for one another "
        f"(longest: {', '.join(f'{_name(job)} {duration(job.seconds or 0.0)}' for job in ends)}).",
    ]
    lines += [f"Results: about {gigabytes(disk)}."] if disk is not None else []
    said = advice(jobs, machine, disk)
    lines += ["", "Advice", "", *(f"  - {text}" for text in said)] if said else ["", "It fits."]
    return "\n".join(lines)


def _by_rule(jobs: Sequence[Planned]) -> list[tuple[str, ...]]:
    """Return a row for each rule, the one that takes longest in all first."""
    groups: dict[str, list[Planned]] = {}
    for job in jobs:
        groups.setdefault(job.rule, []).append(job)
    rows = []
    for rule, ones in sorted(groups.items(), key=lambda item: -sum(job.seconds or 0.0 for job in item[1])):
        if ones[0].mb is None:
            rows.append((rule, str(len(ones)), "?", "?", ""))
            continue
        times, worst = sorted(job.seconds for job in ones), max(ones, key=lambda job: job.mb)
        mark = "~" if any(job.beyond for job in ones) else ""
        each = " to ".join(dict.fromkeys(duration(time) for time in (times[0], times[-1])))
        largest = worst.about if len(ones) > 1 else ""
        rows.append((rule, str(len(ones)), mark + each, mark + gigabytes(worst.mb), largest))
    return rows


def _columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as text, every column as wide as its widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, strict=True)
        return "  ".join(cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(cells))

    return [f"  {line(row)}".rstrip() for row in [head, *rows]]
