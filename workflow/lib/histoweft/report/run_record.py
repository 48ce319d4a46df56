"""What the study page says of the environments, and where the digests of everything lie."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from histoweft.download import sha256
from histoweft.report.html import Html, paragraph, table

APART = ("all", "dev", "host", "uv")
"""Lock files that no rule's environment is made from."""

_DEVICE = re.compile(r"\bdevice ((?:cpu|cuda|mps)[:\d]*(?:, (?:cpu|cuda|mps)[:\d]*)*)")
_PIN = re.compile(r"^[A-Za-z0-9][\w.-]*(\[[^\]]*\])?==", re.MULTILINE)


def environments(folder: Path) -> list[dict[str, Any]]:
    """Return the lock file of each environment: its name, how many packages it pins, its sha256."""
    found = []
    for lock in sorted(folder.glob("*.lock.txt")):
        name = lock.name.removesuffix(".lock.txt")
        if name not in APART:
            pins = len(_PIN.findall(lock.read_text(encoding="utf-8")))
            found.append({"name": name, "packages": pins, "sha256": sha256(lock)})
    return found


def devices(metrics: str | os.PathLike) -> str:
    """Return what the trainings of each stage ran on, from the notes of the metrics table: ``cpu (atlas)``."""
    from histoweft.metrics import read_metrics

    found: dict[str, set[str]] = {}
    for stage, note in read_metrics(metrics)[["stage", "note"]].itertuples(index=False):
        for named in _DEVICE.findall(note):
            for device in named.split(", "):
                found.setdefault(device, set()).add(stage)
    return "; ".join(f"{device} ({', '.join(sorted(stages))})" for device, stages in sorted(found.items()))


def environment_table(found: Sequence[dict[str, Any]]) -> Html:
    """Return the environments as a folded table; nothing where none is known."""
    if not found:
        return Html("")
    rows = [[one["name"], one["packages"], Html("<code>{}</code>").format(one["sha256"])] for one in found]
    return Html("<details><summary>{}</summary>{}</details>").format(
        "Environments (envs/*.lock.txt)", table(["Environment", "Packages pinned", "sha256 of the lock file"], rows)
    )


def crate_note() -> Html:
    """Return where the digests of every input and output are written."""
    return paragraph(
        "Every input and output with its sha256, and the job that made it: ",
        Html("<code>ro-crate-metadata.json</code>"),
        " in the folder of the results (written last).",
        kind="quiet",
    )
