"""Reading matrices and tables, with every library's traceback turned into a fault that names the file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from histoweft import plaintext
from histoweft.errors import Faults, InputError
from histoweft.ingest import diagnose
from histoweft.ingest.layout import nearest_there
from histoweft.ingest.section import Notes

log = logging.getLogger(__name__)

LOOKED_AT = 30  # lines by which the separator of a table is found
EMPTY_H5 = "a 10x HDF5 matrix (group 'matrix' with barcodes, data, indices, indptr, shape, features)"


def stop(where: object, found: object, expected: str = "", hint: str = "") -> None:
    """Raise one fault at once."""
    raise InputError.one(where, found, expected, hint)


@contextmanager
def attempt(faults: Faults, path: Path, expected: str, hint: str = "") -> Iterator[None]:
    """Run a read; whatever it raises becomes a fault naming `path`, and the caller goes on.

    Only faults of the input are swallowed: running out of memory is passed on.
    """
    try:
        yield
    except InputError as error:
        faults.extend(error.faults)
    except MemoryError:
        raise
    except Exception as error:
        log.info("reading %s: %s: %s", path, type(error).__name__, error)
        log.debug("reading %s", path, exc_info=True)
        found, remedy = diagnose.explain(path, error)
        faults.add(str(path), found, expected, remedy or hint)


def open_text(path: Path) -> io.TextIOBase:
    """Open a text file, gzipped or not, by its content; UTF-8, or UTF-16 where the file begins with its mark."""
    with open(path, "rb") as handle:
        head = handle.read(512)
    zipped = head.startswith(b"\x1f\x8b")
    if path.name.endswith(".gz") and not zipped:
        raise gzip.BadGzipFile(f"Not a gzipped file ({head[:2]!r})")
    if zipped:
        with gzip.open(path, "rb") as handle:
            head = handle.read(512)
    encoding = plaintext.encoding_of(head)
    magic = head[:2]
    if encoding == "utf-8" and b"\0" in magic:  # a letter and a zero byte
        found = "text with a zero byte beside each letter (UTF-16 without its mark)"
        order = "UTF-16BE" if magic.startswith(b"\0") else "UTF-16LE"
        stop(path, found, "text in UTF-8", f"Convert it: iconv -f {order} -t UTF-8 {path.name} > utf8.txt")
    if (kind := diagnose.describe(head)).startswith("a web page"):
        stop(path, kind, "the file itself", diagnose.LOGIN)
    return (gzip.open if zipped else open)(path, "rt", encoding=encoding, newline="")


def sniff_separator(lines: list[str]) -> str:
    """Return the separator that gives every line the same number of fields (R writes one fewer in the header)."""
    for fewer in (0, 1):
        for separator in ("\t", ",", ";", " "):
            rows = csv.reader(lines, delimiter=separator, skipinitialspace=separator == " ")
            widths = [len(row) for row in rows if row]
            body = widths[1:] or widths
            if body and min(body) == max(body) > 1 and widths[0] == body[0] - fewer:
                return separator
    counts = {sep: lines[0].count(sep) for sep in ("\t", ",", ";")}
    best = max(counts, key=counts.get)
    return best if counts[best] else r"\s+"


def read_table(path: Path, **kwargs) -> pd.DataFrame:
    """Read a tsv or csv (gzipped or not; separator found by its first lines) or a parquet table."""
    path = Path(path)
    if path.name.endswith(".parquet"):
        frame = pd.read_parquet(path)
        text = [c for c in frame.columns if isinstance(next(iter(frame[c]), None), bytes)]
        return frame.assign(**{c: decode(frame[c].to_numpy()) for c in text})
    with open_text(path) as handle:
        first = [line for line in islice(handle, LOOKED_AT) if line.strip()]
        if not first:
            stop(path, "an empty file", "a table")
        handle.seek(0)
        separator = sniff_separator(first)
        engine = "python" if separator == r"\s+" else "c"
        try:
            frame = pd.read_csv(handle, sep=separator, engine=engine, **kwargs)
        except pd.errors.ParserError:
            handle.seek(0)
            _check_widths(path, handle, separator)
            raise
    if kwargs.get("header", 0) is not None:
        header = next(csv.reader(first[:1], delimiter="\t" if engine == "python" else separator), [])
        frame.attrs["twice"] = sorted({name.strip() for name in header if name.strip() and header.count(name) > 1})
    blank = [c for c in frame.columns if str(c).startswith("Unnamed: ") and frame[c].isna().all()]
    return frame.drop(columns=blank[-1:]) if len(blank) == 1 and blank[0] == frame.columns[-1] else frame


def _check_widths(path: Path, handle: io.TextIOBase, separator: str) -> None:
    """Raise a fault naming the first line with more fields than those before it."""
    widest = 0
    for number, line in enumerate(handle, 1):
        width = len(line.split() if separator == r"\s+" else next(csv.reader([line], delimiter=separator), []))
        if number > 2 and width > widest:
            stop(f"{path}, line {number}", f"{width} fields where the lines above have {widest}", "equally many fields")
        widest = max(widest, width)


def read_json(path: Path) -> dict:
    """Read a json object."""
    with open_text(path) as handle:
        found = json.load(handle)
    if not isinstance(found, dict):
        stop(path, type(found).__name__, "a JSON object")
    return found


def decode(values: np.ndarray) -> np.ndarray:
    """Return an array of str from HDF5 strings of either kind."""
    if getattr(values, "dtype", None) is not None and values.dtype.kind == "S":
        return np.char.decode(values, "utf-8").astype(object)
    return np.array([v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values], object)


@contextmanager
def open_h5(path: Path) -> Iterator:
    """Open an HDF5 file for reading; one whose values are kept in a file that is missing would be read as zeros."""
    import h5py

    with h5py.File(path, "r") as handle:
        if found := diagnose.missing_source(handle):
            stop(path, found[0], "a file that holds its values, or lies beside the one that does", found[1])
        yield handle


def read_10x_h5(path: Path) -> dict:
    """Read a 10x HDF5 matrix, version 3 (group ``matrix``) or 2 (one group per genome).

    Returns
    -------
    dict
        counts ((barcodes, features) CSR), barcodes, gene_ids, gene_names, feature_types, genomes, library_ids.

    Raises
    ------
    InputError
        The file is HDF5 but not a 10x matrix, or its parts do not fit one another.
    """
    # not scanpy.read_10x_h5: importing scanpy costs 6 s a sample, and it drops library_ids
    import h5py

    with open_h5(path) as handle:
        if "matrix" in handle:
            group = handle["matrix"]
            features = group["features"] if "features" in group else None
        else:
            genomes = [k for k in handle if isinstance(handle[k], h5py.Group) and "gene_names" in handle[k]]
            if len(genomes) > 1:
                stop(path, f"{len(genomes)} genomes: {', '.join(genomes)}", "one genome", "Split the matrix by genome.")
            if not genomes:
                kind = "an AnnData file" if {"obs", "var"} <= set(handle) else f"groups {sorted(handle)[:6]}"
                hint = "Use platform h5ad for an AnnData file." if "obs" in handle else ""
                stop(path, kind, EMPTY_H5, hint)
            group, features = handle[genomes[0]], None
        missing = {"barcodes", "data", "indices", "indptr", "shape"} - set(group)
        if missing or (features is None and "gene_names" not in group):
            stop(path, f"no {', '.join(sorted(missing) or ['features'])}", EMPTY_H5)
        barcodes = decode(group["barcodes"][:])
        if features is not None:
            names, ids = decode(features["name"][:]), decode(features["id"][:])
            types = decode(features["feature_type"][:]) if "feature_type" in features else None
            genomes_col = decode(features["genome"][:]) if "genome" in features else None
        else:
            names, ids, types = decode(group["gene_names"][:]), decode(group["genes"][:]), None
            genomes_col = np.array([group.name.strip("/")] * len(names), object)
        shape = tuple(int(v) for v in group["shape"][:])
        # stored features x barcodes in CSC, so the same arrays are barcodes x features in CSR
        counts = build_csr(path, group["data"][:], group["indices"][:], group["indptr"][:], shape[::-1])
        libraries = handle.attrs.get("library_ids")
    check_shape(path, counts, barcodes, ids)
    return {
        "counts": counts,
        "barcodes": barcodes,
        "gene_ids": ids,
        "gene_names": names,
        "feature_types": types,
        "genomes": genomes_col,
        "library_ids": [] if libraries is None else list(decode(np.atleast_1d(libraries))),
    }


def build_csr(path: Path, data, indices, indptr, shape) -> sparse.csr_matrix:
    """Build a CSR matrix after looking at its index arrays, so that a damaged file cannot crash later steps."""
    n, g = shape
    fits = len(indptr) == n + 1 and len(data) == len(indices) and (n == 0 or int(indptr[-1]) == len(data))
    if not fits or (len(indices) and (int(indices.max()) >= g or int(indices.min()) < 0)):
        stop(path, f"index arrays that do not fit a matrix of {n} x {g}", "a consistent sparse matrix")
    if g < 2**31 and len(data) < 2**31:  # half the memory, and what scipy's C code prefers
        indices, indptr = indices.astype(np.int32, copy=False), indptr.astype(np.int32, copy=False)
    matrix = sparse.csr_matrix((data, indices, indptr), shape=shape)
    matrix.sort_indices()
    return matrix


def check_shape(path: Path, counts, barcodes, genes) -> None:
    """Raise when a matrix is empty or does not fit its names."""
    if counts.shape != (len(barcodes), len(genes)):
        stop(
            path,
            f"a matrix of {counts.shape[1]} genes x {counts.shape[0]} barcodes beside "
            f"{len(genes)} gene names and {len(barcodes)} barcodes",
            "equal numbers",
            "The files belong to different samples or one is cut short.",
        )
    if 0 in counts.shape:
        stop(path, f"an empty matrix ({counts.shape[1]} genes x {counts.shape[0]} barcodes)", "at least one of each")


def read_matrix(roles: dict[str, Path], faults: Faults, notes: Notes) -> dict | None:
    """Read the matrix that discovery found, h5 or trio; None with faults noted when it cannot be read."""
    from histoweft.ingest import mtx

    path, found = roles["matrix"], None
    if "barcodes" in roles:
        found = mtx.read(path, roles["barcodes"], roles["features"], faults, notes)
    else:
        with attempt(faults, path, EMPTY_H5):
            found = read_10x_h5(path)
            named = mtx.gene_names(found["gene_ids"], found["gene_names"], path, notes)
            found["gene_ids"], found["gene_names"] = named
    return found


def read_dense_counts(path: Path, what: str) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Read a table of counts with row and column names.

    Returns
    -------
    counts, rows, columns
        CSR in the orientation of the file, and its names.

    Raises
    ------
    InputError
        A cell is not a number: the fault names its row, column and value.
    """
    frame = read_table(path, index_col=0, low_memory=False)
    if frame.shape[1] == 0:
        stop(path, "one column", what, "Columns must be separated by tabs or commas.")
    frame.index = frame.index.astype(str)
    columns = _names_as_written(frame)
    text = [i for i, kind in enumerate(frame.dtypes) if kind.kind not in "iufb"]
    if text:
        column = frame.iloc[:, text[0]]
        numbers = pd.to_numeric(column, errors="coerce")
        row = int(np.flatnonzero((numbers.isna() & column.notna()).to_numpy())[0])
        stop(
            f"{path}, row {frame.index[row]}, column {columns[text[0]]}",
            repr(column.iloc[row]),
            "a number",
            comma_hint(column.iloc[row])
            or (f"{len(text)} of {frame.shape[1]} columns hold text." if len(text) > 1 else ""),
        )
    values = frame.to_numpy()
    counts = sparse.csr_matrix(values)
    return counts, frame.index.to_numpy(object), columns


def _names_as_written(frame: pd.DataFrame) -> np.ndarray:
    """Return the columns' names without the numbers that pandas puts behind repeated ones."""
    names = frame.columns.astype(str).to_numpy(object)
    twice = frame.attrs.get("twice", [])
    for i, name in enumerate(names):
        bare, _, number = name.rpartition(".")
        names[i] = bare if number.isdigit() and bare in twice else name
    return names


def _once(frame: pd.DataFrame, names: list[str], path: Path) -> None:
    """Raise a fault where a column that is wanted stands twice in a table."""
    if twice := [name for name in names if name in frame.attrs.get("twice", [])]:
        stop(f"{path}, column {twice[0]}", "this name twice", "each column once", "Remove or rename one of the two.")


def comma_hint(value: object) -> str:
    """Return what to do about a number with a comma in it; empty for any other text."""
    comma = re.fullmatch(r"\s*-?[\d.]*\d,\d[\d.,]*\s*", str(value))
    return "Write numbers with a point for decimals and without thousands separators." if comma else ""


def require_columns(frame: pd.DataFrame, wanted: list[str], path: Path, hint: str = "") -> None:
    """Raise a fault listing each missing column with the nearest one found."""
    _once(frame, wanted, path)
    faults = Faults()
    for name in wanted:
        if name not in frame.columns:
            listed = ", ".join(map(str, frame.columns[:10]))
            faults.add(
                f"{path}, column {name}",
                f"no such column (has: {listed})",
                name,
                nearest_there(name, [str(c) for c in frame.columns if c not in wanted]) or hint,
            )
    faults.raise_if_any()


TRUE, FALSE = {"true", "t", "yes", "y", "1", "1.0"}, {"false", "f", "no", "n", "0", "0.0"}


def booleans(values: pd.Series, where: str, faults: Faults) -> np.ndarray:
    """Return a column of yes and no as bool, however it is written: words in any case, 1 and 0, 1.0 and 0.0.

    Anything else, a missing value too, is a fault naming its row; it is then False in what is returned.

    Parameters
    ----------
    where
        The file; rows are named by the index of `values` (line numbers, where it holds integers).
    """
    if values.dtype.kind == "b" and values.dtype.name == "bool":
        return values.to_numpy()
    text = values.astype(object).map(lambda v: str(v).strip().casefold())
    yes = text.isin(TRUE).to_numpy()
    wrong = np.flatnonzero(~(yes | text.isin(FALSE).to_numpy()))
    if len(wrong):
        row = "line" if values.index.dtype.kind == "i" else "row"
        more = f", and {len(wrong) - 1} more rows" if len(wrong) > 1 else ""
        found = ("nothing" if pd.isna(values.iloc[wrong[0]]) else repr(values.iloc[wrong[0]])) + more
        place = f"{where}, {row} {values.index[wrong[0]]}, column {values.name}"
        faults.add(place, found, "true or false (also yes and no, 1 and 0)")
    return yes


def numeric_columns(frame: pd.DataFrame, columns: list[str], path: Path) -> pd.DataFrame:
    """Return the columns as float64; a cell that is not a number is a fault naming its row."""
    _once(frame, columns, path)
    faults = Faults()
    row = "line" if frame.index.dtype.kind == "i" else "row"  # readers of plain tables index by line number
    out = {}
    for name in columns:
        numbers = pd.to_numeric(frame[name], errors="coerce").astype(float)
        bad = np.flatnonzero(~np.isfinite(numbers.to_numpy()))
        if len(bad):
            more = f", and {len(bad) - 1} more rows" if len(bad) > 1 else ""
            value = repr(frame[name].iloc[bad[0]]) + more
            faults.add(
                f"{path}, {row} {frame.index[bad[0]]}, column {name}",
                value,
                "a number",
                comma_hint(frame[name].iloc[bad[0]]),
            )
        out[name] = numbers.to_numpy()
    faults.raise_if_any()
    return pd.DataFrame(out, index=frame.index)
