"""Digests of files, computed once: a file with the same path, size and time is not read again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from histoweft.download import sha256
from histoweft.io import atomic

TIMESTAMP = ".snakemake_timestamp"


@dataclass(frozen=True)
class Digest:
    """What identifies the content of a file.

    Parameters
    ----------
    sha256
        64 hexadecimal digits.
    size
        Bytes.
    """

    sha256: str
    size: int


class Digests:
    """Computes digests and keeps them in a file between runs.

    Parameters
    ----------
    cache
        The JSON file; a missing or damaged one is begun anew.

    Attributes
    ----------
    bytes_read
        How much was read in all, in bytes: nothing when all digests were known.
    """

    def __init__(self, cache: str | os.PathLike):
        self.cache = Path(cache)
        self.bytes_read = 0
        self._known = self._load()
        self._used: dict[str, list] = {}

    def _load(self) -> dict[str, list]:
        try:
            found = json.loads(self.cache.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def of(self, path: str | os.PathLike) -> Digest:
        """Return the digest of a file; it is read in blocks, and only if it has changed since the last time."""
        facts = os.stat(path)
        key = os.path.abspath(path)
        stamp = [facts.st_size, facts.st_mtime_ns]
        known = self._known.get(key)
        if not (isinstance(known, list) and known[:2] == stamp and len(known) == 3):
            known = [*stamp, sha256(path)]
            self.bytes_read += facts.st_size
        self._known[key] = self._used[key] = known
        return Digest(str(known[2]), facts.st_size)

    def save(self) -> None:
        """Keep what was asked for in this run, and what is known of other files that are still there."""
        kept = {key: value for key, value in self._known.items() if key in self._used or os.path.exists(key)}
        with atomic(self.cache) as partial:
            partial.write_text(json.dumps(kept), encoding="utf-8")


def files_below(folder: str | os.PathLike) -> list[Path]:
    """Return every file below a folder, in the order of their names; links to folders and to nothing are left out.

    The empty file by which Snakemake tells a folder's age is no content.
    """
    found = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.name != TIMESTAMP and path.is_file())


def manifest(files: dict[str, Digest]) -> str:
    """Return digests as text that ``sha256sum --check`` reads: a line a file, in the order of the names."""
    return "".join(f"{files[name].sha256}  {name}\n" for name in sorted(files))
