"""Adding files to the registry: downloaded once, their sha256 written down, so that every later run checks it.

The first download is trusted, for nothing is known to hold it against; whoever registers a file looks at it. What is
trusted from then on is that one file: a server that gives another is refused.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from histoweft import download
from histoweft.errors import Faults, InputError
from histoweft.ingest.fetch import COLUMNS, Entry, load_registry
from histoweft.ingest.inputs import FETCHED, fetched_path
from histoweft.io import atomic

log = logging.getLogger(__name__)

PAGES = (b"<!doctype", b"<html", b"<?xml")


def register(wanted: Iterable[Entry], registry: Path, home: Path = Path(), **options) -> Iterator[str]:
    """Download files, write their sha256 into the registry, and keep them where the workflow looks for them.

    A file that is registered is compared: its line stays as it is, and another file is refused. A failed download does
    not stop the others; each line is written as soon as its file is whole, so that the next call goes on from there.

    Parameters
    ----------
    wanted
        What to register. A sha256 that is given must be that of the file; sha256 and bytes are otherwise filled in.
    registry
        The table; made where there is none.
    home
        Folder the workflow runs in; files go to `inputs.FETCHED` below it.
    options
        tries, wait and timeout of `download.fetch`.

    Yields
    ------
    str
        What was done with each file, for people.

    Raises
    ------
    InputError
        At the first step: a url that is refused, or a registry that cannot be read; nothing is downloaded then. At the
        end: what could not be downloaded, or is another file than before.
    """
    wanted = list(wanted)
    known, faults = load_registry(registry) if registry.exists() else ({}, Faults())
    for entry in wanted:
        if fault := download.url_fault(entry.url):
            faults.add("url", entry.url or "nothing", fault)
    faults.raise_if_any()
    for entry in wanted:
        try:
            yield _register_one(entry, known, registry, home, options)
        except InputError as error:
            faults.extend(error.faults)
    faults.raise_if_any()


def _register_one(entry: Entry, known: dict[str, Entry], registry: Path, home: Path, options: dict) -> str:
    """Register one file; return what was done."""
    line = known.get(entry.url)
    if line is not None and entry.sha256 not in ("", line.sha256):
        hint = "One of the two is out of date: look at the file before changing either."
        raise InputError.one(entry.url, f"sha256 {entry.sha256} asked for", f"{line.sha256}, as in {registry}", hint)
    if line is not None and _is_there(line, home):
        return f"{entry.url}: registered already, and downloaded"
    got = _download(entry, line, registry, home, options)
    about = f"{got.bytes:,} bytes, sha256 {got.sha256}"
    if line is not None:
        return f"{entry.url}: the file that {registry} lists ({about}); its line stays as it is"
    _append(registry, got)
    known[got.url] = got
    return f"{entry.url}: {about}; added to {registry}" + ("" if entry.sha256 else ", trusted at first use")


def _is_there(entry: Entry, home: Path) -> bool:
    """Return whether the registered file has been downloaded."""
    path = home / fetched_path(entry)
    return path.is_file() and download.sha256(path) == entry.sha256


def _download(entry: Entry, line: Entry | None, registry: Path, home: Path, options: dict) -> Entry:
    """Download a file to its place; return its entry with sha256 and size."""
    fetched = home / FETCHED
    fetched.mkdir(parents=True, exist_ok=True)
    log.info("%s: downloading", entry.url)
    with tempfile.TemporaryDirectory(dir=fetched, prefix=".partial-") as scratch:
        partial = Path(scratch, "file")
        digest = download.fetch(entry.url, entry.sha256 or None, partial, **options)
        _refuse_page(entry, partial)
        if line is not None and digest != line.sha256:
            raise InputError.one(
                entry.url,
                f"sha256 {digest} ({partial.stat().st_size} bytes)",
                f"sha256 {line.sha256}, as in {registry}",
                "It is not the file that was registered, so nothing is changed. If the new one is wanted, look at it, "
                "take the old line out of the registry by hand and register it again; results of the two differ.",
            )
        got = replace(entry, sha256=digest, bytes=partial.stat().st_size)
        place = home / fetched_path(got)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, place)
    return got


def _refuse_page(entry: Entry, path: Path) -> None:
    """Raise where a page came instead of the file: what a login or an error looks like."""
    with open(path, "rb") as handle:
        start = handle.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(PAGES) and not entry.file_name.lower().endswith((".html", ".htm", ".xml")):
        hint = "Servers answer so when a login is needed or a file is gone. Open the address in a browser."
        raise InputError.one(entry.url, "a web page", f"the file {entry.file_name}", hint)


def _append(registry: Path, entry: Entry) -> None:
    """Add a line to the registry as it is now; the other lines stay byte for byte."""
    text = registry.read_bytes() if registry.exists() else ("\t".join(COLUMNS) + "\n").encode()
    header = text.decode("utf-8-sig").splitlines()[0].split("\t")
    line = io.StringIO()
    values = {name: " ".join(str(value).split()) for name, value in asdict(entry).items()}
    csv.DictWriter(line, header, restval="", extrasaction="ignore", delimiter="\t", lineterminator="\n").writerow(
        values
    )
    with atomic(registry) as partial:
        partial.write_bytes(text + (b"" if text.endswith(b"\n") else b"\n") + line.getvalue().encode())
