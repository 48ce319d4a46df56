"""What failed, kept beside the log of the job that failed, until the job succeeds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from histoweft.gaps import Gap

SUFFIX = ".failed.json"


@dataclass(frozen=True)
class Failure:
    """A job that ended with an error.

    Parameters
    ----------
    rule
        Its rule.
    sample
        The sample it worked on; empty for a job of the whole study.
    message
        The error, as the log has it.
    """

    rule: str
    sample: str
    message: str


def remember(log: str | os.PathLike, failure: Failure) -> None:
    """Keep a failure beside the job's log."""
    path = Path(f"{log}{SUFFIX}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(failure), indent=1), encoding="utf-8")


def forget(log: str | os.PathLike) -> None:
    """Forget the failure of an earlier try."""
    Path(f"{log}{SUFFIX}").unlink(missing_ok=True)


def of(log: str | os.PathLike) -> Failure | None:
    """Return the failure remembered beside a log, None where there is none."""
    path = Path(f"{log}{SUFFIX}")
    return Failure(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def as_gap(failure: Failure, log: str | os.PathLike) -> Gap:
    """Return the gap that a failed job leaves."""
    where = f"{failure.rule} of {failure.sample}" if failure.sample else failure.rule
    return Gap(f"{where}: {first_line(failure.message)}; log {log}", failed=True)


def remembered(folder: str | os.PathLike) -> list[Failure]:
    """Return the failures below a folder of logs, by sample and rule."""
    found = [Failure(**json.loads(path.read_text(encoding="utf-8"))) for path in Path(folder).rglob(f"*{SUFFIX}")]
    return sorted(found, key=lambda failure: (failure.sample, failure.rule))


def advice(failed: Iterable[Failure], samples: Iterable[str], configfile: str = "") -> str:
    """Return what to tell a user at the end of a run in which jobs failed.

    Parameters
    ----------
    failed
        What failed.
    samples
        All samples of the study.
    configfile
        The study's config file, for the command that goes on without the samples that failed.
    """
    failed = list(failed)
    lines = [f"  {failure.sample or 'study'}, rule {failure.rule}: {first_line(failure.message)}" for failure in failed]
    bad = sorted({failure.sample for failure in failed if failure.sample})
    left = len(set(samples) - set(bad))
    if bad and left:
        option = f"--configfile {configfile} " if configfile else ""
        lines.append(
            f"{left} of {left + len(bad)} samples are not concerned. Repair the cause and start again, or have the "
            f"study without: ./histoweft {option}--config 'exclude=[{', '.join(bad)}]'"
        )
    return "\n".join(lines)


def first_line(message: str) -> str:
    """Return the first line that says something about the fault itself."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[1] if len(lines) > 1 and lines[0].endswith(":") else (lines or [""])[0]
