"""The registry of downloads that are known beforehand: url and sha256 of each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from histoweft.download import url_fault
from histoweft.errors import Faults
from histoweft.ingest.layout import nearest_there

COLUMNS = ("key", "url", "sha256", "bytes", "licence", "description")


@dataclass(frozen=True)
class Entry:
    """One line of the registry, or of a list of what is to be registered: sha256 may then be empty."""

    key: str
    url: str
    sha256: str
    bytes: int | None = None
    licence: str = ""
    description: str = ""

    @property
    def file_name(self) -> str:
        """The last part of the url's path (the key where it has none), safe as a file name."""
        name = PurePosixPath(unquote(urlsplit(self.url).path)).name.lstrip(".") or self.key
        return "".join(c if c.isalnum() or c in "._-+" else "_" for c in name).lstrip(".") or "file"


def load_registry(path: Path) -> tuple[dict[str, Entry], Faults]:
    """Read the data registry.

    Returns
    -------
    entries
        By url.
    faults
        Every line that cannot be used.
    """
    return _load(path, "the data registry (tsv)", ("key", "url", "sha256"))


def load_downloads(path: Path) -> tuple[dict[str, Entry], Faults]:
    """Read a list of files to register: the registry's columns, of which sha256 and bytes may be missing or empty.

    Returns
    -------
    entries
        By url; sha256 is empty where the list does not know it.
    faults
        Every line that cannot be used.
    """
    return _load(path, "a list of downloads (tsv)", ("key", "url"))


def _load(path: Path, what: str, needed: Sequence[str]) -> tuple[dict[str, Entry], Faults]:
    """Read entries from a table; a sha256 must be given where the column is needed."""
    entries: dict[str, Entry] = {}
    faults = Faults()
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        faults.add(str(path), f"an unreadable file ({getattr(error, 'strerror', None) or error})", what)
        return entries, faults
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    header = rows.fieldnames or []
    for column in needed:
        if column not in header:
            listed = ", ".join(header) or "an empty file"
            faults.add(
                f"{path}, line 1", f"no column {column} ({listed})", ", ".join(COLUMNS), nearest_there(column, header)
            )
    if faults:
        return entries, faults
    for row in rows:
        entry = _entry(row, f"{path}, line {rows.line_num}", "sha256" in needed, faults)
        if entry is not None and entry.url in entries:
            faults.add(f"{path}, line {rows.line_num}, column url", entry.url, "each url once")
        elif entry is not None:
            entries[entry.url] = entry
    return entries, faults


def _entry(row: dict, where: str, with_digest: bool, faults: Faults) -> Entry | None:
    """Return one line of the table; None with its faults noted."""
    url, digest, size = ((row.get(name) or "").strip() for name in ("url", "sha256", "bytes"))
    wrong = len(faults.items)
    if fault := url_fault(url):
        faults.add(f"{where}, column url", url or "nothing", fault)
    if (digest or with_digest) and (len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef")):
        faults.add(f"{where}, column sha256", digest or "nothing", "64 hexadecimal digits (`sha256sum FILE`)")
    if size and not size.isdigit():
        faults.add(f"{where}, column bytes", size, "a whole number, or nothing")
    if len(faults.items) > wrong:
        return None
    licence, description = (row.get(name) or "" for name in ("licence", "description"))
    return Entry(row.get("key") or "", url, digest.lower(), int(size) if size else None, licence, description)
