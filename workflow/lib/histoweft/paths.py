"""Paths as people write them: the same name in other code points, and what is a path at all. Standard library only."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"))
"""Characters of no width, for `str.translate`: they come with copying, and nobody sees them."""

LABEL_TABLE = (".tsv", ".csv", ".txt", ".parquet")


def plain(text: str) -> str:
    """Return a text as it looks: accents composed, no invisible characters, every blank a space.

    macOS and some archives keep ``ü`` as ``u`` and a combining mark; a sheet may hold either form.
    """
    visible = text.translate(INVISIBLE)
    return unicodedata.normalize("NFC", "".join(" " if c.isspace() and c not in "\t\r\n" else c for c in visible))


def lookalike(name: str, names: Iterable[str]) -> str:
    """Return the one of some names that is the same or, where a single one is, looks the same; the name itself else."""
    names = list(names)
    same = [one for one in names if plain(str(one)) == plain(name)]
    return same[0] if name not in names and len(same) == 1 else name


def resolve(path: str | Path) -> Path:
    """Return the path under the name that it has on disk, where exactly one name there looks the same.

    A path that exists, and one that nothing looks like, is returned as it is. The last part may be the start of names
    (``GEO/GSM123_A1_``).
    """
    path = Path(path)
    try:
        if os.path.lexists(path):
            return path
    except ValueError:  # a name that no file can have
        return path
    found = Path(path.anchor)
    for number, part in enumerate(path.parts[bool(path.anchor) :]):
        if not os.path.lexists(found / part):
            last = number == len(path.parts) - bool(path.anchor) - 1
            part = _name_there(found, part, last)
            if not part:
                return path
        found /= part
    return found


def _name_there(folder: Path, part: str, prefix: bool) -> str:
    """Return the one name in the folder that looks like `part`, or the start of names; an empty text without one."""
    try:
        names = os.listdir(folder)
    except OSError:
        return ""
    wanted = plain(part)
    alike = [name for name in names if plain(name) == wanted]
    if len(alike) == 1:
        return alike[0]
    forms = (unicodedata.normalize("NFC", wanted), unicodedata.normalize("NFD", wanted))
    starts = [form for form in forms if any(name.startswith(form) for name in names)]
    return starts[0] if prefix and not alike and len(starts) == 1 else ""


def labels_is_table(labels: str | Path, path: str | Path) -> bool:
    """Return whether `labels` names a table; for h5ad and loom any other word is an obs column, dots and all.

    Parameters
    ----------
    labels
        As in the sheet.
    path
        The sample's data: a path, or the url that it is downloaded from.
    """
    text = str(labels)
    if not text:
        return False
    column_ok = str(path).split("?", 1)[0].lower().endswith((".h5ad", ".loom"))
    return not column_ok or text.lower().removesuffix(".gz").endswith(LABEL_TABLE)
