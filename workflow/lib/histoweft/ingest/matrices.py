"""Which of the matrices in an h5ad or loom file holds the counts: all are looked at, names go before guesses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from histoweft.ingest.section import Notes

NAMED = ("layers/counts", "layers/raw_counts", "layers/raw_count", "layers/count")
"""Layers that say of themselves that they hold counts."""
ORDER = ("X", "matrix", *NAMED, "raw/X", "raw.X")
"""The first one of whole numbers is taken; other layers are listed, and taken where the sheet says so."""
PARTIAL = ("spliced", "unspliced", "ambiguous")
"""Layers that hold a part of the counts."""
BLOCK = 5_000_000
_GLANCE = 1
"""Blocks read of a matrix that is only listed."""


@dataclass(frozen=True)
class Stored:
    """One matrix of a file.

    Parameters
    ----------
    name
        Its place: ``X``, ``layers/counts``, ``raw/X``.
    whole
        Whether all values looked at are whole numbers of 0 or more.
    empty
        Whether no value other than zero was met.
    total, largest
        Sum and maximum of the values looked at.
    """

    name: str
    whole: bool
    empty: bool
    total: float
    largest: float

    def alike(self, other: Stored) -> bool:
        """Return whether sum and maximum are those of another matrix."""
        return (self.total, self.largest) == (other.total, other.largest)

    def __str__(self) -> str:
        said = "empty" if self.empty else f"whole numbers: {'yes' if self.whole else 'no'}"
        return f"{called(self.name)} ({said})"


def called(name: str) -> str:
    """Return how people call a matrix: ``layers['counts']``."""
    return f"layers['{name.removeprefix('layers/')}']" if name.startswith("layers/") else name.replace("/", ".")


def names_in(handle) -> list[str]:
    """Return the places of every matrix in an open file."""
    import h5py

    layers = handle.get("layers")
    listed = [f"layers/{name}" for name in layers] if isinstance(layers, h5py.Group) else []
    present = [name for name in ("X", "matrix", "raw/X", "raw.X") if name in handle and _is_matrix(handle[name])]
    return present + [name for name in listed if _is_matrix(handle[name])]


def _is_matrix(element) -> bool:
    import h5py

    return "data" in element if isinstance(element, h5py.Group) else element.ndim == 2


def look(element, name: str, blocks: int | None = None) -> Stored:
    """Look at the values of a stored matrix, block by block; the first fraction ends it.

    Parameters
    ----------
    blocks
        How many to look at; all when None.
    """
    import h5py
    import numpy as np

    data = element["data"] if isinstance(element, h5py.Group) else element
    step = BLOCK if data.ndim == 1 else max(1, BLOCK // max(1, data.shape[1]))
    total, largest, whole = 0.0, 0.0, True
    for number, start in enumerate(range(0, data.shape[0], step)):
        if not whole or (blocks is not None and number >= blocks):
            break
        part = np.asarray(data[start : start + step])
        if part.dtype.kind == "f":
            whole = bool((np.isfinite(part) & (part == np.rint(part))).all())
        whole = whole and not (part < 0).any()
        total += float(np.nansum(part, dtype=np.float64))
        largest = max(largest, float(np.nanmax(part)) if part.size and not np.isnan(part).all() else 0.0)
    return Stored(name, whole, whole and total == 0, total, largest)


def choose(handle, path: Path, wanted: str, where: str, notes: Notes) -> tuple[str, list[Stored]]:
    """Return the place of the counts, and everything that was looked at.

    The first of `ORDER` that holds whole numbers and is not empty; a layer that is called counts goes before an X that
    differs from it. Where none does, X (or the first that is not empty), which the check of the counts then judges.

    Parameters
    ----------
    wanted
        What the sheet's column layer names: ``X``, ``raw`` or a layer; empty to find out.
    where
        How faults name that column.
    """
    from histoweft.ingest.tables import stop

    present = names_in(handle)
    if not present:
        stop(path, "no matrix", "X, layers['counts'] or raw")
    if wanted:
        return _wanted(handle, present, wanted, where, notes)
    first = [name for name in ORDER if name in present]
    seen = {name: look(handle[name], name) for name in first if name in NAMED or name in ("X", "matrix")}
    good = [name for name in seen if seen[name].whole and not seen[name].empty]
    logged = "log1p" in handle.get("uns", ())
    for name in (name for name in first if name not in seen):
        seen[name] = look(handle[name], name, None if not good else _GLANCE)
        if good == ["X"] and seen[name].whole and _no_counts_beside(seen["X"], seen[name], logged):
            good = []  # X holds rounded logarithms, or ones and zeros, of what raw holds
        good += [name] if seen[name].whole and not seen[name].empty and not good else []
    seen |= {name: look(handle[name], name, _GLANCE) for name in present if name not in seen}
    chosen = good[0] if good else next((name for name in seen if not seen[name].empty), next(iter(seen)))
    named = next((name for name in good if name in NAMED), None)
    if named and chosen in ("X", "matrix") and not seen[named].alike(seen[chosen]):
        notes.add(
            "counts_from",
            f"{called(chosen)} and {called(named)} both hold whole numbers, and differ: counts are read from "
            f"{called(named)}, by its name (the sheet's column layer takes another)",
        )
        chosen = named
    elif chosen not in ("X", "matrix"):
        notes.add("counts_from", f"{_main_said(seen)}: counts are read from {called(chosen)}")
    listed = list(seen.values())
    notes.choose("counts", f"{called(chosen)}; in the file: {listing(listed)}")
    return chosen, listed


def _no_counts_beside(main: Stored, other: Stored, logged: bool) -> bool:
    """Return whether an X of whole numbers is what was made of counts in raw: ones and zeros, or rounded logarithms."""
    return other.largest > main.largest and (main.largest <= 1 or (logged and main.largest < 20))


def _main_said(seen: dict[str, Stored]) -> str:
    if "X" not in seen:
        return "there is no X"
    if seen["X"].whole and not seen["X"].empty:
        return "X holds ones and zeros, or rounded logarithms, of another matrix"
    return "X is empty" if seen["X"].empty else "X does not hold integers"


def _wanted(handle, present: list[str], wanted: str, where: str, notes: Notes) -> tuple[str, list[Stored]]:
    """Return the matrix that the sheet names."""
    from histoweft.errors import nearest
    from histoweft.ingest.tables import stop

    plain = wanted.removeprefix("layers/")
    name = next((n for n in (wanted, f"layers/{plain}", f"{wanted}/X", f"{wanted}.X") if n in present), None)
    if name is None:
        short = [n.removeprefix("layers/").removesuffix("/X") for n in present]
        stop(where, repr(wanted), f"one of: {', '.join(short)}", nearest(plain, short))
    notes.choose("counts", f"{called(name)}, as the sheet's column layer says")
    return name, [look(handle[n], n, _GLANCE) for n in present]


def listing(stored: Iterable[Stored]) -> str:
    """Return what a file holds, for messages."""
    return ", ".join(map(str, stored))


def advice(chosen: str, stored: Iterable[Stored]) -> str:
    """Return what to do where the matrix taken holds no counts: what else there is, and how to choose it."""
    others = [matrix for matrix in stored if matrix.name != chosen]
    good = [m for m in others if m.whole and not m.empty and m.name.removeprefix("layers/") not in PARTIAL]
    if not others:
        return f"The file holds no other matrix than {called(chosen)}."
    text = f"Also in the file: {listing(others)}."
    if good:
        layer = good[0].name.removeprefix("layers/").removesuffix("/X").removesuffix(".X")
        text += f" To take {called(good[0].name)}, write {layer} into the sheet's column layer."
    return text
