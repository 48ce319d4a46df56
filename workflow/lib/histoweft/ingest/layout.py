"""Finding a sample's files: standard library only, so that a dry run over hundreds of samples stays quick."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from histoweft.errors import Faults, nearest
from histoweft.ingest.section import Discovery

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".svs", ".btf", ".ndpi")
MATRIX_H5 = re.compile(r"(filtered|raw)_(?:feature|gene)_bc_matri(?:x|ces).*\.h5$", re.I)
MATRIX_DIR = re.compile(r"(filtered|raw)_(?:feature|gene)_bc_matri(?:x|ces)|(filtered|raw)_count_matrix", re.I)


@dataclass
class Folder:
    """One folder's names, listed once.

    Parameters
    ----------
    path
        The folder.
    prefix
        Only files starting so belong to the sample (``GSM123_``); empty for all.
    """

    path: Path
    prefix: str = ""
    names: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)

    @classmethod
    def list(cls, path: Path, prefix: str = "") -> Folder:
        """Read the folder's names; raises OSError."""
        found = cls(path, prefix)
        with os.scandir(path) as entries:
            for entry in entries:
                (found.folders if entry.is_dir() else found.names).append(entry.name)
        found.names.sort()
        found.folders.sort()
        return found

    def matching(self, pattern: re.Pattern | str) -> list[Path]:
        """Return the files of this sample whose name holds the pattern."""
        pattern = re.compile(pattern, re.I) if isinstance(pattern, str) else pattern
        return [self.path / name for name in self.names if name.startswith(self.prefix) and pattern.search(name)]

    def folders_matching(self, pattern: re.Pattern) -> list[Path]:
        """Return the subfolders of this sample whose name holds the pattern."""
        return [self.path / name for name in self.folders if name.startswith(self.prefix) and pattern.search(name)]

    def summary(self, limit: int = 8) -> str:
        """Return what lies here, for an error message."""
        names = [f"{name}/" for name in self.folders] + self.names
        if not names:
            return f"in {self.path}, an empty folder"
        more = f" and {len(names) - limit} more" if len(names) > limit else ""
        return f"in {self.path}: {', '.join(names[:limit])}{more}"


def same_name(name: str) -> str:
    """Return a name as people see it: composed accents, no invisible characters."""
    return "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) not in ("Cf", "Cc"))


def resolve_path(path: str | Path) -> Path:
    """Return the path that is there under the same visible name (accents composed or not, invisible characters).

    A path that is there is returned as it is, and so is one for which nothing, or more than one name, fits. Callers
    that get another path back tell it.
    """
    path = Path(path)
    try:
        if os.path.lexists(path) or path.parent == path:
            return path
        parent = resolve_path(path.parent)
        names = [name for name in os.listdir(parent) if same_name(name) == same_name(path.name)]
    except (OSError, ValueError):
        return path
    return parent / names[0] if len(names) == 1 else parent / path.name


def nearest_there(expected: str, names: Iterable[str]) -> str:
    """Return a hint with the name most like the expected one, or an empty string."""
    match = re.search(r"'(.*)'", nearest(expected, names))
    return f"The nearest name there is {match.group(1)!r}: rename it?" if match else ""


def open_folder(path: Path, where: str, faults: Faults, expected: str, prefix_ok: bool = False) -> Folder | None:
    """List a folder, or note why it cannot be listed.

    With `prefix_ok`, a path that is no folder but the start of file names in its parent
    (``GEO/GSM123_A1_``) opens the parent narrowed to these files.
    """
    try:
        return Folder.list(path)
    except NotADirectoryError:
        faults.add(where, f"{path}, a file", expected, f"Give the folder that holds it: {path.parent}")
    except FileNotFoundError:
        try:
            parent = Folder.list(path.parent)
        except OSError:
            faults.add(where, f"{path}, which does not exist", expected, "Check the path for typing errors.")
            return None
        if prefix_ok and any(name.startswith(path.name) for name in parent.names):
            parent.prefix = path.name
            return parent
        faults.add(
            where,
            f"{path}, which does not exist",
            expected,
            nearest(path.name, parent.folders + parent.names) or f"Found {parent.summary()}",
        )
    except PermissionError:
        faults.add(where, f"{path}, which may not be read", expected, f"Allow reading: chmod u+rx {path}")
    except OSError as error:
        faults.add(where, f"{path} ({error.strerror})", expected)
    return None


def check_file(path: Path, where: str, faults: Faults, expected: str) -> bool:
    """Return whether `path` is a readable file; note the fault when not."""
    if path.is_file():
        if os.access(path, os.R_OK):
            return True
        faults.add(where, f"{path}, which may not be read", expected, f"Allow reading: chmod u+r {path}")
    elif path.is_dir():
        try:
            found = Folder.list(path).summary()
        except OSError:
            found = "nothing that can be listed"
        faults.add(where, f"{path}, a folder", expected, f"Found {found}")
    else:
        try:
            beside = Folder.list(path.parent)
            hint = nearest(path.name, beside.names) or f"Found {beside.summary()}"
        except OSError:
            hint = f"The folder {path.parent} cannot be listed either."
        faults.add(where, f"{path}, which does not exist", expected, hint)
    return False


def check_readable(discovery: Discovery, where: str) -> None:
    """Note each discovered file that exists but may not be read."""
    for path in discovery.files:
        if not os.access(path, os.R_OK):
            discovery.faults.add(
                where, f"{path}, which may not be read", "a readable file", f"Allow reading: chmod u+r {path}"
            )


def one_prefix(paths: Iterable[Path], pattern: re.Pattern, faults: Faults, where: str, what: str) -> Path | None:
    """Return the first path, or note a fault when files of several samples lie in one folder."""
    paths = list(paths)
    if not paths:
        return None
    prefixes = {pattern.split(path.name)[0] for path in paths}
    if len(prefixes) > 1 and "" not in prefixes:
        listed = ", ".join(str(paths[0].parent / p) for p in sorted(prefixes)[:6])
        faults.add(
            where,
            f"the {what} of {len(prefixes)} samples in {paths[0].parent}",
            "one sample",
            f"End the path with the sample's prefix, one of: {listed}",
        )
        return None
    if "" in prefixes:
        return next(p for p in paths if pattern.split(p.name)[0] == "")
    return paths[0]


def find_trio(folder: Folder) -> dict[str, Path] | None:
    """Return the mtx trio in a folder (version 2 ``genes.tsv`` or 3 ``features.tsv.gz``), or None."""
    matrix = folder.matching(r"matrix\.mtx(\.gz)?$")
    barcodes = folder.matching(r"barcodes\.tsv(\.gz)?$")
    features = folder.matching(r"(features|genes)\.tsv(\.gz)?$")
    if matrix and barcodes and features:
        return {"matrix": matrix[0], "barcodes": barcodes[0], "features": features[0]}
    return None


def trio_below(path: Path) -> dict[str, Path] | None:
    """Return the mtx trio in `path` or, as Cell Ranger 2 laid it out, in its one genome folder."""
    try:
        folder = Folder.list(path)
        trio = find_trio(folder)
        if trio is None and len(folder.folders) == 1:
            trio = find_trio(Folder.list(path / folder.folders[0]))
    except OSError:
        return None
    return trio


def find_matrix(folder: Folder, faults: Faults, where: str) -> dict[str, Path]:
    """Return the roles of the count matrix: filtered h5, filtered trio, flat trio, raw h5, raw trio, in that order."""
    h5 = folder.matching(MATRIX_H5)
    if folder.path.name != "binned_outputs":  # prefixed GEO names first need one sample
        before = len(faults.items)
        for kind in ("filtered", "raw"):
            here = [p for p in h5 if MATRIX_H5.search(p.name).group(1).lower() == kind]
            matrix = one_prefix(here, MATRIX_H5, faults, where, "matrices")
            if matrix is not None:
                return {"matrix": matrix}
            if len(faults.items) > before:
                return {}
            for sub in folder.folders_matching(MATRIX_DIR):
                match = MATRIX_DIR.search(sub.name)
                if (match.group(1) or match.group(2)).lower() == kind and (trio := trio_below(sub)):
                    return trio
            if kind == "filtered":
                matrices = folder.matching(r"matrix\.mtx(\.gz)?$")
                one_prefix(matrices, re.compile(r"matrix\.mtx(\.gz)?$"), faults, where, "matrices")
                if len(faults.items) > before:
                    return {}
                if trio := find_trio(folder):
                    return trio
    return {}


def column(where: str, name: str) -> str:
    """Return how another column of the same sheet line is called."""
    return f"{where.rsplit(', column', 1)[0]}, column {name}"


def given_image(image: str | Path, where: str, discovery: Discovery) -> bool:
    """Take the image that the sheet names; return whether the sheet said anything (a file, or ``none``)."""
    if not str(image):
        return False
    if str(image).lower() == "none":
        return True
    path, where = Path(image), column(where, "image")
    if check_file(path, where, discovery.faults, "an image file (png, jpg, tif, ome.tif, svs)"):
        if not path.name.lower().removesuffix(".gz").endswith(IMAGE_SUFFIXES):
            discovery.faults.add(where, path.name, f"one of {', '.join(IMAGE_SUFFIXES)}")
        else:
            discovery.image = path
            discovery.image_kind = image_kind(path.name) or "given"
    return True


def image_kind(name: str) -> str:
    """Return ``hires`` or ``lowres`` for Space Ranger's own image names, else an empty string."""
    match = re.search(r"tissue_(hires|lowres)_image\.", name, re.I)
    return match.group(1).lower() if match else ""
