"""Where what a page shows comes from: the rule and its log, and the files to take away."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from histoweft.plotting import VECTOR
from histoweft.report.html import Html, joined


def addresses(sources: Mapping[str, Mapping[str, str]], folder: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Find the files that belong to what a page shows, as links that work from disk.

    Parameters
    ----------
    sources
        Path of a figure or table to its ``rule``, its ``log`` and, of a figure, the ``table`` with its numbers (may be
        empty).
    folder
        Where the page lies.

    Returns
    -------
    Path to ``rule``, ``log`` and ``links``: pairs of a word and an address relative to the folder. A vector figure
    beside a png and the table are linked where they are there.
    """
    found = {}
    for path, source in sources.items():
        own = Path(path)
        files = [(own.suffix.removeprefix("."), own)]
        if own.suffix == ".png":
            files += [(kind, own.with_suffix(f".{kind}")) for kind in VECTOR]
        if source.get("table"):
            files.append(("table", Path(source["table"])))
        links = [[word, quote(os.path.relpath(file, folder))] for word, file in files if file.is_file()]
        found[path] = {"rule": source["rule"], "log": source["log"], "links": links}
    return found


def line(path: str | os.PathLike, traced: Mapping[str, Mapping[str, Any]]) -> Html:
    """Return a small line under a figure or table: its files, the rule that made it, that rule's log.

    Parameters
    ----------
    path
        What is shown.
    traced
        Of `addresses`.

    Returns
    -------
    Nothing for a path that no rule is known of.
    """
    source = traced.get(str(path))
    if not source:
        return Html("")
    name = Path(path).stem.replace("_", " ")
    links = joined(
        (
            Html('<a href="{0}" aria-label="{1}, {2}">{1}</a>').format(address, word, name)
            for word, address in source["links"]
        ),
        " · ",
    )
    made = Html("rule <code>{}</code>, log <code>{}</code>").format(source["rule"], source["log"])
    return Html('<p class="source"><span>{}</span> <span>{}</span></p>').format(links, made)
