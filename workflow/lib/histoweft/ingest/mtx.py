"""The mtx trio: a Matrix Market matrix beside its list of barcodes and its list of genes, as many programs write it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice, product
from pathlib import Path

import numpy as np
from scipy import sparse

from histoweft.errors import Faults
from histoweft.ingest import checks, tables
from histoweft.ingest.section import Notes

HEADERS = set(
    "x v1 v2 0 barcode barcodes cell cells cell_id cell_ids cellid cell_barcode cell_barcodes spot spots spot_id gene "
    "genes gene_id gene_ids geneid gene_name gene_names gene_symbol gene_symbols gene_short_name symbol symbols "
    "feature features feature_id feature_name ensembl ensembl_id id ids name names index row.names unnamed: 0".split()
)
KNOWN_TYPES = re.compile(
    r"^(?:gene ?expression|gene|(?:antibody|crispr guide|multiplexing|antigen) capture|custom|peaks|protein expression"
    r"|.*\b(?:control|codeword|probe)\b.*)$",
    re.I,
)
# Ensembl, FlyBase, WormBase, yeast, TAIR
STABLE_ID = re.compile(
    r"^(?:ENS[A-Z]*G\d{11}(?:\.\d+)?(?:_\w+)?|FBgn\d{7}|WBGene\d{8}|Y[A-P][LR]\d{3}[WC](?:-\w)?|AT[1-5CM]G\d{5})$"
)
LOOKED_AT = 2000  # lines of a matrix looked at before it is read
BREAKS = re.compile(r"\r\n|\n|\r")


def read(matrix: Path, barcodes: Path, features: Path, faults: Faults, notes: Notes) -> dict | None:
    """Read the trio; None when a part could not be read (its faults are collected).

    A header line, an index column, quotes round names and a matrix of cells x genes are found by what fits the
    matrix, and told.

    Returns
    -------
    dict
        As `tables.read_10x_h5`.
    """
    counts = cells = genes = None
    with tables.attempt(faults, matrix, "a Matrix Market file (genes x barcodes)"):
        counts = read_matrix(matrix)
    with tables.attempt(faults, barcodes, "one barcode a line"):
        cells = read_lines(barcodes)
    with tables.attempt(faults, features, "gene id, gene name and feature type, tab-separated"):
        genes = read_lines(features)
    if counts is None or cells is None or genes is None:
        return None
    with tables.attempt(faults, matrix, "a matrix that fits its names"):
        counts, cells, genes = _fit(matrix, counts, (barcodes, cells), (features, genes), notes)
        names = _barcode_column(cells)
        ids, symbols, types = _gene_columns(genes, features, notes)
        counts = sparse.csr_matrix(counts.T)
        tables.check_shape(matrix, counts, names, ids)
        counts.sort_indices()
        return {
            "counts": counts,
            "barcodes": names,
            "gene_ids": ids,
            "gene_names": symbols,
            "feature_types": types,
            "genomes": None,
            "library_ids": [],
        }
    return None


# ----------------------------------------------------------------------------------------------------------- matrix


def read_matrix(path: Path) -> sparse.coo_matrix:
    """Read a Matrix Market file of counts; a fault names the first line that is wrong."""
    # not scanpy.read_10x_mtx: it insists on exact file names, and importing scanpy costs 6 s
    from scipy.io import mmread

    with tables.open_text(path) as handle:  # names the wrong .gz before scipy sees it
        header = handle.readline()
    words = header.casefold().split()
    if not header.startswith("%%MatrixMarket") or len(words) < 5:
        tables.stop(path, "no %%MatrixMarket line", "a Matrix Market file (genes x barcodes)")
    if words[3] not in ("real", "integer", "double", "unsigned-integer") or words[4] != "general":
        meaning = {"pattern": "only which entries are there, without counts"}.get(words[3], "no matrix of counts")
        tables.stop(f"{path}, line 1", f"a {' '.join(words[3:5])} matrix ({meaning})", "an integer general matrix")
    if words[2] == "coordinate":
        _check_lines(path, LOOKED_AT)  # scipy reads 3,5 as 3
    try:
        return sparse.coo_matrix(mmread(path))
    except (ValueError, OverflowError):
        _check_lines(path)
        raise


def _check_lines(path: Path, first: int | None = None) -> None:
    """Raise a fault at the first wrong line of a Matrix Market file, looking at its first ones or at all."""
    with tables.open_text(path) as handle:
        place, found, expected = _wrong_line(path, islice(handle, first), whole=first is None)
    if found:
        tables.stop(place, found, expected)


def _wrong_line(path: Path, lines: Iterable[str], whole: bool) -> tuple[str, str, str]:
    """Return where a Matrix Market file is wrong, what stands there and what is expected."""
    size, entries = None, 0
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or line.startswith("%"):
            continue
        if size is None:
            if len(words) != 3 or not all(word.isdigit() for word in words):
                return f"{path}, line {number}", repr(line.strip()[:60]), "rows, columns and number of entries"
            size = [int(word) for word in words]
            continue
        entries += 1
        if wrong := _wrong_entry(words, size):
            return f"{path}, line {number}", repr(line.strip()[:60]), wrong
    if whole and size is None:
        return str(path), "no line with the size", "rows, columns and number of entries"
    if whole and entries != size[2]:
        found = f"{entries} entries where its head says {size[2]}"
        return str(path), found + (": the file is cut short" if entries < size[2] else ""), "equal numbers"
    return "", "", ""


def _wrong_entry(words: list[str], size: list[int]) -> str:
    """Return what was expected in place of an entry that is wrong; empty where it is right."""
    if len(words) != 3 or not (words[0].isdigit() and words[1].isdigit()):
        return "row, column and count, separated by spaces"
    for index, limit in zip(words[:2], size):
        if not 1 <= int(index) <= limit:
            return f"a row of 1 to {size[0]} and a column of 1 to {size[1]} (they count from 1)"
    try:
        float(words[2])
    except ValueError:
        return "a number" + (", with a point for decimals" if "," in words[2] else "")
    return ""


def _fit(path: Path, counts, cells: tuple[Path, list], genes: tuple[Path, list], notes: Notes):
    """Return matrix (genes x barcodes) and lists that fit one another, with what had to be done for it told."""
    listed = [cells[1], genes[1]]
    heads = [[False, True] if rows and _is_header(rows[0]) else [False] for rows in listed]
    for turned, drop in product([False, True], product(*heads)):
        n_cells, n_genes = (len(rows) - cut for rows, cut in zip(listed, drop))
        if counts.shape != ((n_cells, n_genes) if turned else (n_genes, n_cells)):
            continue
        if turned:
            notes.add("transposed", f"{path.name} holds barcodes x genes, as its lists show: read so")
        elif n_cells == n_genes:
            notes.add(
                "square_matrix",
                f"{path.name} has as many genes as barcodes ({n_genes}): read as genes x barcodes, as 10x writes it, "
                "which nothing in the file proves; if it is the other way round, transpose the matrix",
            )
        for (file, rows), cut in zip((cells, genes), drop):
            if cut:
                notes.choose(f"header of {file.name}", f"its first line ({', '.join(rows[0])}) is a header: left out")
        return (counts.T if turned else counts), cells[1][drop[0] :], genes[1][drop[1] :]
    return counts, cells[1], genes[1]


def _is_header(row: list[str]) -> bool:
    return row[0].strip('" ').casefold() in HEADERS | {""}


# ------------------------------------------------------------------------------------------------------------ names


def read_lines(path: Path) -> list[list[str]]:
    """Read a list of names: one row a line, its fields split at tabs (or what else divides every line alike).

    Quotes are part of a name (5'-nucleotidase), unless they stand round every line or round every field of a column.
    """
    with tables.open_text(path) as handle:
        lines = [line for line in BREAKS.split(handle.read()) if line.strip()]
    if not lines:
        tables.stop(path, "an empty file", "one name a line")
    rows = _fields(lines)
    widths = [len(row) for row in rows]
    usual = max(set(widths[1:] or widths), key=widths.count)
    for number, (row, width) in enumerate(zip(rows[1:], widths[1:]), 2):
        if width != usual:
            found = f"{width} field{'s' if width > 1 else ''} ({', '.join(row)[:60]}) where most lines have {usual}"
            tables.stop(f"{path}, line {number}", found, "equally many fields", "The file is cut short or was edited.")
    return rows


def _fields(lines: list[str]) -> list[list[str]]:
    """Return the fields of each line without quotes round them."""
    if all(map(_is_quoted, lines)) and not any('"' in line[1:-1].replace('""', "") for line in lines):
        lines = [line[1:-1].replace('""', '"') for line in lines]
    separator = "\t"
    if not any("\t" in line for line in lines):
        counts = {s: {line.count(s) for line in lines[1:] or lines} for s in (",", ";", " ")}
        separator = next((s for s, n in counts.items() if len(n) == 1 and n != {0} and _tells(lines, s)), "\t")
    rows = [[field.strip() for field in line.split(separator)] for line in lines]
    for column in range(max(map(len, rows))):
        _unquote([row for row in rows if len(row) > column], column)
    return rows


def _tells(lines: list[str], separator: str) -> bool:
    """Return whether what stands before a separator still tells every line from the others."""
    return len({line.split(separator)[0] for line in lines}) == len(lines)


def _is_quoted(field: str) -> bool:
    return len(field) > 1 and field[0] == field[-1] == '"'


def _unquote(rows: list[list[str]], column: int) -> None:
    """Take away the quotes round a column's fields, in place, where all fields below its first have them."""
    body = [row[column] for row in (rows[1:] or rows)]
    if all(_is_quoted(field) or field.casefold() in checks.NO_NAME for field in body):
        for row in rows:
            if _is_quoted(row[column]):
                row[column] = row[column][1:-1].replace('""', '"')


def _columns(rows: list[list[str]]) -> list[list[str]]:
    """Return the columns of a list, without one that only numbers its rows."""
    width = min(map(len, rows)) if rows else 0
    columns = [[row[i] for row in rows] for i in range(width)]
    if width > 1 and is_running(columns[0]):
        return columns[1:]
    return columns


def is_running(values: list[str]) -> bool:
    """Return whether texts number their rows, from 0 or from 1."""
    first = str(values[0]) if len(values) else ""
    if first not in ("0", "1"):
        return False
    start = int(first)
    return all(str(value) == str(start + i) for i, value in enumerate(values))


def _barcode_column(rows: list[list[str]]) -> np.ndarray:
    columns = _columns(rows)
    return np.array(columns[0] if columns else [], dtype=object)


def _gene_columns(rows: list[list[str]], path: Path, notes: Notes):
    """Return identifiers, symbols and feature types (or None) of a list of genes, each found by what it holds."""
    columns = _columns(rows)
    stated = [i for i, column in enumerate(columns) if _share(KNOWN_TYPES, column) > 0.9]
    stated = stated[-1] if stated and len(columns) > 1 else 2 if len(columns) > 2 else None
    types = None if stated is None else np.array(columns[stated], dtype=object)
    names = [np.array(column, dtype=object) for i, column in enumerate(columns) if i != stated] or [
        np.array([], object)
    ]
    ids, symbols = gene_names(names[0], names[1] if len(names) > 1 else names[0], path, notes)
    return ids, symbols, types


def gene_names(ids: np.ndarray, symbols: np.ndarray, path: Path, notes: Notes) -> tuple[np.ndarray, np.ndarray]:
    """Return identifiers and symbols the right way round; a symbol that says "none" is empty."""
    for values in (ids, symbols):
        inner = [value for value in values if "\t" in str(value) or "\n" in str(value)]
        if inner:
            tables.stop(path, f"a tab or line break inside {len(inner)} gene names ({inner[0]!r})", "one name a field")
    if _share(STABLE_ID, symbols) > 0.5 > _share(STABLE_ID, ids):
        notes.add("gene_columns", f"{path.name} has the identifiers in the column of names: the two are exchanged")
        ids, symbols = symbols, ids
    if ids is not symbols:
        missing = np.array([str(s).strip().casefold() in checks.NO_NAME and i != s for i, s in zip(ids, symbols)], bool)
        symbols = np.where(missing, "", symbols).astype(object)
    return ids, symbols


def _share(pattern: re.Pattern, values) -> float:
    return sum(bool(pattern.match(str(v).strip())) for v in values) / len(values) if len(values) else 0.0
