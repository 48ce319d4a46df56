"""Which job made which file: Snakemake's own records, read back."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

RECORDS = Path(".snakemake/metadata")
"""Where Snakemake keeps a record of each output, below the folder it runs in."""


@dataclass
class JobRecord:
    """One job that ran.

    Attributes
    ----------
    rule
        The rule's name.
    inputs, outputs
        Paths as Snakemake knows them; outputs in the order of their names.
    started, ended
        Seconds since 1970.
    """

    rule: str
    inputs: list[str]
    started: float
    ended: float
    outputs: list[str] = field(default_factory=list)


def read_records(folder: str | os.PathLike = RECORDS) -> list[JobRecord]:
    """Return every job on record, the earliest first; empty where Snakemake keeps none (``--drop-metadata``).

    Snakemake writes a record for each output, named by the output's path in base64, long names in pieces. Outputs of
    one rule that share a log come from one job.
    """
    folder, jobs = Path(folder), {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name, record = _output_name(path.relative_to(folder)), _record(path)
        if name is None or record is None:
            continue
        key = (record["rule"], *(record.get("log") or [name]))
        started, ended = float(record["starttime"]), float(record["endtime"])
        job = jobs.setdefault(key, JobRecord(record["rule"], list(record.get("input") or []), started, ended))
        job.outputs.append(name)
        job.started, job.ended = min(job.started, started), max(job.ended, ended)
    for job in jobs.values():
        job.outputs.sort()
    return sorted(jobs.values(), key=lambda job: (job.started, job.rule, job.outputs))


def _output_name(relative: Path) -> str | None:
    """Return the output that a record's file name stands for; None for another file."""
    try:
        return base64.b64decode("".join(part.removeprefix("@") for part in relative.parts), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _record(path: Path) -> dict | None:
    """Return a record of a job that ended well; None for one that is being written, is damaged or was interrupted."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and {"rule", "starttime", "endtime"} <= record.keys()
    known = whole and not record.get("incomplete") and record["starttime"] and record["endtime"]
    return record if known else None


def jobs_behind(targets: Iterable[str], jobs: Iterable[JobRecord]) -> list[JobRecord]:
    """Return the jobs that the targets came from, directly or through other jobs, the earliest first.

    What an earlier config left in the results and no target reads is left out.
    """
    jobs = list(jobs)
    # Of two jobs that claim one output, the later one wrote what lies there.
    makers = {output: at for at, job in enumerate(jobs) for output in job.outputs}
    reached: set[int] = set()
    queue = list(targets)
    while queue:
        at = makers.get(queue.pop())
        if at is not None and at not in reached:
            reached.add(at)
            queue.extend(jobs[at].inputs)
    return [jobs[at] for at in sorted(reached)]
