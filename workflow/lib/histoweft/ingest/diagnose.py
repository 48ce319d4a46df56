"""Why a file cannot be read, found by looking at the file itself; never by the words of a library's message."""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
AGAIN = "Download or copy it again and compare its size."
LOGIN = "The download was answered by a page: download the file again, logged in where that is needed."
# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
FILTERS = {
    305: "LZO",
    307: "bzip2",
    32000: "LZF",
    32001: "Blosc",
    32004: "LZ4",
    32008: "bitshuffle",
    32013: "ZFP",
    32015: "zstd",
    32017: "SZ",
    32024: "SZ3",
    32026: "Blosc2",
    4: "szip",
}
KINDS = (
    (HDF5_MAGIC, "an HDF5 file"),
    (b"RDX", "an R file (RData)"),
    (b"X\n\0\0\0", "an R file (RDS)"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ\x00", "xz-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow (Feather) file"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\xd0\xcf\x11\xe0", "an Excel file (.xls)"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\xfe\xff", "text in UTF-16"),
)
LFS = b"version https://git-lfs.github.com/spec"
ANNEX = re.compile(r"(?:^|/)annex/objects/")

PATH = re.compile(r"^[\w.@+-]*(?:/[\w.@+-]+)+$")  # git without links writes the target into a file


def fetch_hint(target: str) -> str:
    """Return how the content behind a link or pointer is fetched, by where it leads; empty where that is unknown."""
    if ANNEX.search(target):
        return "Its content was not fetched: git annex get, or datalad get."
    if re.search(r"\.dvc/cache/|(?:^|/)files/md5/[0-9a-f]{2}/", target):
        return "Its content was not fetched: dvc pull."
    return ""


def pointer(path: Path) -> tuple[str, str] | None:
    """Return (what it is, what to do) when a file holds nothing, or only says where its content is kept."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as handle:
            head = handle.read(200)
    except OSError:
        return None
    if size == 0:
        return "an empty file (0 bytes)", ""
    if head.startswith(LFS):
        return "a Git LFS pointer in place of the content", "Its content was not fetched: git lfs pull."
    first = head.split(b"\n")[0]
    if size < 32768 and first.startswith(b"/") and ANNEX.search(first.decode("utf-8", "replace")):
        return "a git-annex pointer in place of the content", fetch_hint("annex/objects/")
    target = first.decode("utf-8", "replace").strip()
    if b"\n" not in head.strip() and PATH.match(target) and Path(target).suffix == path.suffix:
        return f"a link to {target} that was written as a text", fetch_hint(target) or "Fetch the file it points to."
    return None


def describe(head: bytes) -> str:
    """Return what a file is by its first bytes, for people."""
    for magic, kind in KINDS:
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"<(?:!doctype html|html|head|body)", text, re.I):
        return "a web page (HTML), such as a server's error page"
    if text.startswith(b"<"):
        return "an XML file"
    if head and not any(head):
        return "zero bytes, as a download leaves that was not finished"
    if b"\0" in head:
        return "binary data of another kind"
    return "plain text" if text else "blank"


def explain(path: Path, error: BaseException) -> tuple[str, str]:
    """Return (what was found, what to do) for a file whose reading raised `error`.

    The remedy is empty where the cause is not certain.
    """
    path = Path(path)
    if known := unreachable(path):
        return known
    name = path.name.lower()
    with open(path, "rb") as handle:
        head = handle.read(4096)
    if isinstance(error, UnicodeDecodeError):
        return _encoding(path, head, error)
    if isinstance(error, json.JSONDecodeError):
        return _json(error)
    for fits, look in (
        (name.endswith((".h5", ".h5ad", ".loom", ".hdf5")) or head.startswith(HDF5_MAGIC), _hdf5),
        (name.endswith(".gz") or head.startswith(b"\x1f\x8b"), _gzip),
        (name.endswith(".parquet"), _parquet),
    ):
        if fits and (found := look(path, head)):
            return found
    if (found := describe(head)) not in ("plain text", "blank") and name.endswith((".csv", ".tsv", ".txt", ".mtx")):
        return found, ""
    return undecoded(error), ""


def undecoded(error: BaseException) -> str:
    """Return the words for a cause that is not known: the log has the rest."""
    return f"content that could not be decoded ({type(error).__name__}; the log says where)"


def unreachable(path: Path) -> tuple[str, str] | None:
    """Return why a path leads to no content: a dangling link, a folder, a pointer, an empty or forbidden file."""
    if path.is_symlink() and not path.exists():
        target = os.readlink(path)
        return f"a link to {target}, which is not there", fetch_hint(target) or "Fetch the file it points to."
    if path.is_dir():
        return "a folder", ""
    if not path.exists():
        return "no such file", ""
    if not os.access(path, os.R_OK):
        return "a file that may not be read", f"Allow reading: chmod u+r {path}"
    return pointer(path)


# ------------------------------------------------------------------------------------------------------------- text


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a text file, gzipped or not."""
    with open(path, "rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    with gzip.open(path, "rb") if zipped else open(path, "rb") as handle:
        yield from handle


def _encoding(path: Path, head: bytes, raised: UnicodeDecodeError) -> tuple[str, str]:
    """Return the first line and byte that are not UTF-8, and the encoding that would read them."""
    kind = describe(head)
    if kind == "an HDF5 file":
        return f"a text that is not UTF-8 ({bytes(raised.object[:60]).decode('latin-1')!r} in Latin-1)", ""
    if kind not in ("plain text", "gzip-compressed data"):
        return kind, ""
    for number, line in enumerate(_lines(path), 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            found = f"byte 0x{line[error.start]:02X} in line {number}, byte {error.start + 1}, which is not UTF-8"
            try:
                word = re.split(r"[\t,;\s\"]", line[: error.start].decode("cp1252"))[-1]
                rest = re.split(r"[\t,;\s\"]", line[error.start :].decode("cp1252"))[0]
            except UnicodeDecodeError:
                return found, ""
            unzip = f"zcat {path.name} | " if kind != "plain text" else ""
            convert = f"{unzip}iconv -f WINDOWS-1252 -t UTF-8{'' if unzip else f' {path.name}'} > utf8.txt"
            return found, f"In Latin-1 (Windows-1252) it says {word + rest!r}. Convert it: {convert}"
    return "text in UTF-16 that is cut short", AGAIN


def _json(error: json.JSONDecodeError) -> tuple[str, str]:
    if not error.doc[error.pos :].strip():
        return f"JSON that ends too early, in line {error.lineno}", "The file is cut short. " + AGAIN
    near = error.doc[max(0, error.pos - 15) : error.pos + 15].strip().replace("\n", " ")
    return f"no valid JSON in line {error.lineno}, column {error.colno} (near {near!r})", ""


# ------------------------------------------------------------------------------------------------- gzip and parquet


def _gzip(path: Path, head: bytes) -> tuple[str, str] | None:
    if not head.startswith(b"\x1f\x8b"):
        kind = describe(head)
        plain = f"The name ends in .gz but the content is not gzipped: rename it to {path.name[:-3]}."
        return f"{kind}, not gzipped", plain if kind == "plain text" else ""
    try:
        with gzip.open(path, "rb") as handle:
            while handle.read(1 << 20):
                pass
    except EOFError:
        return "truncated gzip data", "The file is cut short. " + AGAIN
    except (zlib.error, OSError):
        return "damaged gzip data (their checksum does not fit, or foreign bytes follow)", AGAIN
    return None


def _parquet(path: Path, head: bytes) -> tuple[str, str] | None:
    with open(path, "rb") as handle:
        handle.seek(-min(8, path.stat().st_size), os.SEEK_END)
        tail = handle.read()
    if head.startswith(b"PARE"):
        return "an encrypted Parquet file", "Write it without encryption."
    if not head.startswith(b"PAR1"):
        return f"{describe(head)}, not a Parquet file", ""
    if not tail.endswith(b"PAR1"):
        return "a truncated Parquet file (its end mark is missing)", "The file is cut short. " + AGAIN
    return "a damaged Parquet file (it has its marks, but its content cannot be decoded)", ""


# ------------------------------------------------------------------------------------------------------------- HDF5


def _hdf5(path: Path, head: bytes) -> tuple[str, str] | None:
    """Return what keeps an HDF5 file from being read, or None where it opens and all its data sets can be read."""
    start = _superblock(path)
    if start is None:
        kind = describe(head)
        hint = ""
        if kind == "gzip-compressed data":
            inside = describe(_unpacked(path))
            hint = f"Unzip it: gunzip -c {path.name} > unzipped{path.suffix}"
            if inside != KINDS[0][1]:
                kind, hint = f"gzip-compressed data ({inside} inside)", ""
        elif kind.startswith("a web page"):
            hint = LOGIN
        elif kind.startswith("zero bytes"):
            hint = AGAIN
        if "an R file" in kind:
            hint = "Write it as h5ad in R, such as with zellkonverter."
        return f"{kind}, not an HDF5 file", hint
    end = _end_of_file(path, start)
    if end is None:
        return "an HDF5 file of a version that is not known here", "Write it with the libver 'v114' or earlier."
    if end > path.stat().st_size:
        missing = f"{path.stat().st_size} of {end} bytes are there"
        return f"a truncated HDF5 file ({missing})", "The file is cut short. " + AGAIN
    return _locked(path) or _contents(path)


def _unpacked(path: Path) -> bytes:
    """Return the first bytes inside a gzipped file, empty where they cannot be unpacked."""
    try:
        with gzip.open(path, "rb") as handle:
            return handle.read(512)
    except (EOFError, OSError, zlib.error):
        return b""


def _superblock(path: Path) -> int | None:
    """Return where HDF5 begins: byte 0, or 512, 1024, ... behind a user block (MATLAB)."""
    size, at = path.stat().st_size, 0
    with open(path, "rb") as handle:
        while at < min(size, 1 << 20):
            handle.seek(at)
            if handle.read(8) == HDF5_MAGIC:
                return at
            at = at * 2 or 512
    return None


def _end_of_file(path: Path, start: int) -> int | None:
    """Return the size that the superblock says; None for a version that came later."""
    with open(path, "rb") as handle:
        handle.seek(start)
        block = handle.read(96)
    if len(block) < 48:
        return start + 96
    version = block[8]
    if version > 3:
        return None
    width = block[13] if version < 2 else block[9]
    first = {0: 24, 1: 28}.get(version, 12)
    if width not in (4, 8):
        return None
    base, _, end = struct.unpack_from("<3" + ("Q" if width == 8 else "I"), block, first)
    return end if base in (0, start) else end + start


def _locked(path: Path) -> tuple[str, str] | None:
    """Return that another process holds the file, or that its file system knows no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    remedy = "set HDF5_USE_FILE_LOCKING=FALSE in the environment"
    with open(path, "rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(handle, fcntl.LOCK_UN)
        except BlockingIOError:
            return "a file that another program holds open for writing (it is locked)", (
                f"Close that program (a notebook?), or {remedy} if nothing is writing to it."
            )
        except OSError:
            return "a file system that knows no locks", f"{remedy[0].upper()}{remedy[1:]}, or copy the file."
    return None


def _contents(path: Path) -> tuple[str, str] | None:
    """Open the file and go through its data sets; return the first that cannot be read and why."""
    import h5py

    try:
        handle = h5py.File(path, "r")
    except OSError:
        with open(path, "rb") as plain:
            plain.seek(_superblock(path))
            block = plain.read(12)
        if block[8] == 3 and block[11] & 5:
            return "an HDF5 file that was not closed by the program that wrote it", (
                f"Close that program, or, if it crashed: h5clear -s {path.name}"
            )
        return "a damaged HDF5 file (its first part cannot be decoded)", ""
    with handle:
        return hdf5_faults(handle)


def missing_source(handle) -> tuple[str, str] | None:
    """Return (what was found, what to do) where values are kept in a file that is not there.

    The library reads such values as zeros, without an error.
    """
    import h5py

    def look(name: str, item) -> tuple[str, str] | None:
        return _elsewhere(item, item.id.get_create_plist(), f"/{name}") if isinstance(item, h5py.Dataset) else None

    return handle.visititems(look)


def hdf5_faults(handle) -> tuple[str, str] | None:
    """Return (what was found, what to do) for the first part of an open HDF5 file that cannot be read."""
    import h5py

    def walk(group) -> tuple[str, str] | None:
        place = group.name or "/"
        try:
            for name in group:
                place = f"{(group.name or '').rstrip('/')}/{name}"
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.ExternalLink) and group.get(name) is None:
                    return f"{place}, kept in another file ({link.filename}), which is not there", (
                        f"Add {link.filename}."
                    )
                item = group[name]
                found = walk(item) if isinstance(item, h5py.Group) else _dataset(item, place)
                if found:
                    return found
        except (KeyError, OSError, RuntimeError, ValueError):
            return f"{place}, which is damaged: it cannot be opened", ""
        return None

    return walk(handle)


def _dataset(item, place: str) -> tuple[str, str] | None:
    """Return why one data set cannot be read, or None."""
    import h5py

    if not isinstance(item, h5py.Dataset):
        return None
    stored = item.id.get_create_plist()
    for i in range(stored.get_nfilters()):
        code, _, _, label = stored.get_filter(i)
        if not h5py.h5z.filter_avail(code):
            name = FILTERS.get(code) or label.decode("utf-8", "replace").split("\0")[0] or "unknown"
            found = f"{place} compressed with {name} (HDF5 filter {code}), which cannot be read here"
            return found, "Write the file again with gzip or lzf compression, where its filter is installed."
    if found := _elsewhere(item, stored, place):
        return found
    if item.shape and item.size:
        try:
            for _ in _parts(item):
                pass
        except (OSError, RuntimeError):
            return f"{place}, whose values are damaged", "Download or copy the file again."
    return None


def _elsewhere(item, stored, place: str) -> tuple[str, str] | None:
    """Return which file that the values of a data set are kept in is missing."""
    folder = Path(item.file.filename).parent
    names = [stored.get_external(i)[0] for i in range(stored.get_external_count())]
    if item.is_virtual:
        names += [source.file_name for source in item.virtual_sources()]
    for name in dict.fromkeys(n.decode() if isinstance(n, bytes) else str(n) for n in names):
        if name != "." and not (folder / name).exists() and not Path(name).exists():
            return f"{place}, whose values are kept in another file ({name}), which is not there", f"Add {name}."
    return None


def _parts(item) -> Iterator[object]:
    """Yield a data set's values chunk by chunk, to hold little of it."""
    if item.chunks:
        for chunk in item.iter_chunks():
            yield item[chunk]
        return
    rows = max(1, 2_000_000 // max(1, item.size // item.shape[0]))
    for start in range(0, item.shape[0], rows):
        yield item[start : start + rows]
