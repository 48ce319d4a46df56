"""Finding a sample's files: standard library only, so that a dry run over hundreds of samples stays quick."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from histoweft.errors import Faults, nearest
from histoweft.ingest import diagnose
from histoweft.ingest.section import Discovery

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".svs", ".btf", ".ndpi")
MATRIX_H5 = re.compile(r"(filtered|raw)_(?:feature|gene)_bc_matri(?:x|ces).*\.h5$", re.I)
MATRIX_DIR = re.compile(r"(filtered|raw)_(?:feature|gene)_bc_matri(?:x|ces)|(filtered|raw)_count_matrix", re.I)


SMALL = 32768  # bytes: pointers of Git LFS and git-annex are smaller


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


PACKED = re.compile(r"\.(?:tar\.gz|tgz|tar|gz|zip|bz2|xz|zst|7z)$", re.I)
UNPACK = {".zip": "unzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".7z": "7z x", ".gz": "gunzip"}


def nearest_there(expected: str, names: Iterable[str]) -> str:
    """Return a hint with the name that looks like the expected one misspelt, or an empty string.

    A name with another ending is another kind of file: renaming would not help.
    """
    alike = [n for n in names if Path(n).suffix == Path(expected).suffix and n != expected]
    match = difflib.get_close_matches(expected.casefold(), [n.casefold() for n in alike], n=1, cutoff=0.75)
    found = next((n for n in alike if n.casefold() == match[0]), "") if match else ""
    return f"The nearest name there is {found!r}: rename it?" if found else ""


def unpack_hint(pattern: re.Pattern | str, names: Iterable[str]) -> str:
    """Return how a wanted file is unpacked that lies there compressed or in an archive, or an empty string.

    `pattern` is of names (or, as a text, one name) without the ending of the compression.
    """
    for name in names:
        packed = PACKED.search(name)
        bare = name[: packed.start()] if packed else ""
        if bare and (bare == pattern if isinstance(pattern, str) else pattern.search(bare)):
            ending = packed.group().lower()
            command = "tar xf" if ending.startswith((".tar", ".tgz")) else UNPACK[ending]
            return f"{name} is compressed: {command} {name}"
    return ""


def unreadable(path: Path) -> tuple[str, str] | None:
    """Return (why a file that is listed cannot be read, what to do), or None; of a large file nothing is read."""
    if path.is_symlink() and not path.exists():
        return diagnose.unreachable(path)
    if not os.access(path, os.R_OK):
        return "which may not be read", f"Allow reading: chmod u+r {path}"
    return diagnose.pointer(path) if path.is_file() and path.stat().st_size < SMALL else None


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
        return _narrowed(path, where, faults, expected, prefix_ok)
    except PermissionError:
        faults.add(where, f"{path}, which may not be read", expected, f"Allow reading: chmod u+rx {path}")
    except OSError as error:
        faults.add(where, f"{path} ({error.strerror})", expected)
    return None


def _narrowed(path: Path, where: str, faults: Faults, expected: str, prefix_ok: bool) -> Folder | None:
    """Return the parent narrowed to the files that begin like the path's name, or note that there is no such path."""
    if path.is_symlink():
        found, hint = diagnose.unreachable(path)
        faults.add(where, f"{path}, {found}", expected, hint)
        return None
    try:
        parent = Folder.list(path.parent)
    except OSError:
        faults.add(where, f"{path}, which does not exist", expected, "Check the path for typing errors.")
        return None
    if prefix_ok and any(name.startswith(path.name) for name in parent.names):
        parent.prefix = path.name
        return parent
    _note_absent(path, parent, parent.folders + parent.names, where, faults, expected)
    return None


def _note_absent(path: Path, parent: Folder, names: list[str], where: str, faults: Faults, expected: str) -> None:
    """Note that a path is not there, with what may be meant."""
    packed = unpack_hint(path.name, parent.names)
    hint = packed or nearest(path.name, [n for n in names if n != path.name]) or f"Found {parent.summary()}"
    faults.add(where, f"{path}, which does not exist", expected, hint)


def check_file(path: Path, where: str, faults: Faults, expected: str) -> bool:
    """Return whether `path` is a readable file; note the fault when not."""
    if path.is_file() or (path.is_symlink() and not path.exists()):
        reason = unreadable(path)
        if reason is None:
            return True
        faults.add(where, f"{path}, {reason[0]}", expected, reason[1])
    elif path.is_dir():
        try:
            found = Folder.list(path).summary()
        except OSError:
            found = "nothing that can be listed"
        faults.add(where, f"{path}, a folder", expected, f"Found {found}")
    else:
        try:
            beside = Folder.list(path.parent)
        except OSError:
            hint = f"The folder {path.parent} cannot be listed either."
            faults.add(where, f"{path}, which does not exist", expected, hint)
        else:
            _note_absent(path, beside, beside.names, where, faults, expected)
    return False


def check_readable(discovery: Discovery, where: str) -> None:
    """Note each discovered file that cannot be read, and why."""
    for path in discovery.files:
        if reason := unreadable(path):
            discovery.faults.add(where, f"{path}, {reason[0]}", "a readable file", reason[1])


def prefix_of(path: Path, pattern: re.Pattern) -> str:
    """Return what stands before the usual name of a file: the sample's prefix (``GSM123_A1_``)."""
    return re.sub(r"(?:^|(?<=[_.-]))(?:spatial|aggr)[_.-]$", "", pattern.split(path.name)[0], flags=re.I)


def check_prefixes(roles: Iterable[tuple[Path, re.Pattern]], where: str, faults: Faults) -> None:
    """Note a fault where the files of one sample carry different prefixes; a file without one goes with any."""
    found = {}
    for path, pattern in roles:
        if prefix := prefix_of(path, pattern).strip("_-. ").casefold():
            found.setdefault(prefix, path)
    if len(found) > 1:
        faults.add(
            where,
            f"files of {len(found)} samples: {', '.join(map(str, found.values()))}",
            "the same prefix for every file of a sample",
            "Rename the files of this sample alike, or put them in a folder of their own.",
        )


def one_prefix(paths: Iterable[Path], pattern: re.Pattern, faults: Faults, where: str, what: str) -> Path | None:
    """Return the first path, or note a fault when files of several samples lie in one folder."""
    paths = list(paths)
    if not paths:
        return None
    prefixes = {prefix_of(path, pattern) for path in paths}
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
        return next(p for p in paths if prefix_of(p, pattern) == "")
    return paths[0]


TRIO = {
    "matrix": re.compile(r"matrix\.mtx(?:\.gz)?$", re.I),
    "barcodes": re.compile(r"barcodes\.tsv(?:\.gz)?$", re.I),
    "features": re.compile(r"(?:features|genes)\.tsv(?:\.gz)?$", re.I),
}


def find_trio(folder: Folder) -> dict[str, Path] | None:
    """Return the mtx trio in a folder (version 2 ``genes.tsv`` or 3 ``features.tsv.gz``), or None."""
    for matrix in folder.matching(TRIO["matrix"]):
        prefix, found = prefix_of(matrix, TRIO["matrix"]), {"matrix": matrix}
        for role in ("barcodes", "features"):
            there = folder.matching(TRIO[role])
            # samples of one study may share one list of genes
            shared = [p for p in there if role == "features" and (len(there) == 1 or not prefix_of(p, TRIO[role]))]
            own = [p for p in there if prefix_of(p, TRIO[role]) == prefix]
            if own or shared:
                found[role] = (own or shared)[0]
        if len(found) == len(TRIO):
            return found
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
                one_prefix(folder.matching(TRIO["matrix"]), TRIO["matrix"], faults, where, "matrices")
                if len(faults.items) > before:
                    return {}
                if trio := find_trio(folder):
                    return trio
    return {}


def matrix_hint(folder: Folder, pattern: re.Pattern, usual: str) -> str:
    """Return why no count matrix was found where something like one lies there, or an empty string."""
    packed = unpack_hint(pattern, folder.names) or unpack_hint(MATRIX_DIR, folder.names)
    if packed:
        return packed
    for path in folder.folders_matching(MATRIX_DIR):
        try:
            return f"The folder is not complete: found {Folder.list(path).summary()}"
        except OSError:
            continue
    return nearest_there(usual, folder.names)


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
