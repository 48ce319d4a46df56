"""Tables that come with an atlas: names of genes, positions, the structure tree, lists of volumes, expression."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from histoweft.errors import Faults, InputError, nearest

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
GENE = ("gene", "gene_symbol", "symbol", "acronym")
#: Our name of a column of the list of volumes -> what it may be called.
GENE_TABLE = {
    "gene": GENE,
    "path": ("path", "file"),
    "experiment": ("experiment", "section_data_id", "section_data_set_id"),
    "plane": ("plane", "cutting_plane", "plane_of_section"),
    "sha256": ("sha256",),
}
STRUCTURES = {
    "id": ("id",),
    "acronym": ("acronym",),
    "name": ("name", "safe_name"),
    "parent": ("parent", "parent_id", "parent_structure_id"),
    "colour": ("colour", "color", "color_hex_triplet"),
}
_ROWS = 2_000
_SHOWN = 5


def is_text(path: str | os.PathLike) -> bool:
    """Return whether a file's name is that of a table."""
    return str(path).lower().endswith(TEXT_SUFFIXES)


def first_line(path: str | os.PathLike, where: str = "") -> str:
    """Return the first line of a table.

    Raises
    ------
    InputError
        The file cannot be read or is empty.
    """
    where = where or str(path)
    opener = gzip.open if str(path).lower().endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as handle:
            line = handle.readline().rstrip("\r\n")
    except FileNotFoundError:
        raise InputError.one(where, f"{path}, which does not exist", "a table", "Check the path.") from None
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise InputError.one(where, f"a file that cannot be read ({error})", "a table in plain text (UTF-8)") from error
    if not line.strip():
        raise InputError.one(where, "an empty first line", "a table with a header line")
    return line


def separator(line: str) -> str:
    """Return what separates the columns of a line: a tab, a comma, or white space."""
    return "\t" if "\t" in line else "," if "," in line else r"\s+"


def columns(path: str | os.PathLike, where: str = "") -> list[str]:
    """Return the names in a table's header line."""
    line = first_line(path, where)
    mark = separator(line)
    cells = line.split() if mark == r"\s+" else next(csv.reader([line], delimiter=mark))
    return [cell.strip().strip('"') for cell in cells]


def is_gene_table(path: str | os.PathLike) -> bool:
    """Return whether a table lists a volume a gene, and is not itself the expression."""
    names = {name.lower() for name in columns(path)}
    return any(name in names for name in GENE) and any(
        name in names for key in ("path", "experiment") for name in GENE_TABLE[key]
    )


def read_text(path: str | os.PathLike, where: str = "") -> pd.DataFrame:
    """Read a table with every cell as text: a gene may be called NA and an identifier may start with 0.

    Raises
    ------
    InputError
        The file cannot be read, or its lines differ in length.
    """
    where = where or str(path)
    header = columns(path, where)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, **_layout(path, where))
    except pd.errors.EmptyDataError:
        return pd.DataFrame(columns=header, dtype=str)
    except (OSError, ValueError, EOFError) as error:
        raise InputError.one(where, f"a table that cannot be read ({error})", "columns of equal length") from error
    return table.set_axis(_full_header(header, table, where), axis=1)


def _layout(path: str | os.PathLike, where: str) -> dict:
    """Return how pandas is to read a table's rows: without the header line, and without guessing at row names."""
    mark = separator(first_line(path, where))
    return {"sep": mark, "header": None, "skiprows": 1, "index_col": False, "encoding": "utf-8-sig"}


def _full_header(header: list[str], rows: pd.DataFrame, where: str) -> list[str]:
    """Return a name for each column: a header one short leaves out that of the row names, as R writes tables.

    Raises
    ------
    InputError
        Rows and header differ otherwise.
    """
    width = rows.shape[1]
    if len(header) == width:
        return header
    last = rows.iloc[:, -1]
    if len(header) == width - 1 and not (last.isna() | (last == "")).all():
        return ["", *header]
    hint = "Is there a separator at the end of the lines?" if len(header) == width - 1 else ""
    raise InputError.one(where, f"{len(header)} names over {width} columns", "a name over each column", hint)


def gene_names(path: str | os.PathLike, where: str = "") -> np.ndarray:
    """Read the names of genes: a table with a column gene, or one name a line without a header.

    Raises
    ------
    InputError
        No column of names, an empty name, or a name given twice.
    """
    where = where or str(path)
    table = read_text(path, where)
    column = _column(table, GENE)
    if column is None and table.shape[1] > 1:
        listed = ", ".join(table.columns[:8])
        raise InputError.one(where, f"no column gene ({listed})", "a column gene, or one name a line")
    if column is None:  # no header: the first line is a gene
        names = np.array([table.columns[0], *table.iloc[:, 0]])
    else:
        names = table[column].to_numpy(str)
    return checked_names(names, where)


def checked_names(names: Sequence[str] | np.ndarray, where: str) -> np.ndarray:
    """Return the names of genes as text, each there and there once.

    Raises
    ------
    InputError
        An empty name, or names given twice.
    """
    names = np.char.strip(np.asarray(names, str))
    faults = Faults()
    if (names == "").any():
        at = np.flatnonzero(names == "")
        faults.add(where, f"{len(at)} genes without a name (the first is number {at[0] + 1})", "a name for each gene")
    unique, times = np.unique(names[names != ""], return_counts=True)
    if (times > 1).any():
        twice = unique[times > 1]
        listed = ", ".join(twice[:_SHOWN])
        hint = "Keep one of each, or give them different names."
        faults.add(where, f"{len(twice)} genes more than once ({listed})", "each gene once", hint)
    faults.raise_if_any()
    return names


def positions(
    path: str | os.PathLike, wanted: Sequence[str], n_rows: int | None = None, where: str = ""
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read where voxels lie.

    Parameters
    ----------
    path
        A table with a header.
    wanted
        Its columns for z, y and x.
    n_rows
        Rows to use, from the first on; all when None.
    where
        What messages call the file.

    Returns
    -------
    position
        float32, voxels x 3: z, y, x.
    names
        The first column where it is text, else None.

    Raises
    ------
    InputError
        A column is not there, a cell is no finite number, or there are fewer rows than wanted.
    """
    where = where or str(path)
    table = read_text(path, where)
    faults = Faults()
    for name in wanted:
        if name not in table.columns:
            hint = nearest(name, table.columns) or "Say which columns are z, y and x: atlas.coordinates."
            faults.add(where, f"no column {name!r} ({', '.join(table.columns[:8])})", "the columns z, y and x", hint)
    if n_rows is not None and len(table) < n_rows:
        faults.add(where, f"{len(table)} rows", f"{n_rows} or more (atlas.positions_rows)")
    faults.raise_if_any()
    table = table.iloc[:n_rows]
    names = table.iloc[:, 0] if table.columns[0] not in wanted else None
    if names is not None and pd.to_numeric(names, errors="coerce").notna().all():
        names = None
    numbers = table[list(wanted)].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    return finite_positions(numbers, where), None if names is None else names.to_numpy(str)


def finite_positions(numbers: np.ndarray, where: str) -> np.ndarray:
    """Return positions as float32.

    Raises
    ------
    InputError
        One of them is not a finite number.
    """
    bad = np.flatnonzero(~np.isfinite(numbers).all(1))
    if len(bad):
        found = f"no finite number in {len(bad)} of {len(numbers)} rows (the first is number {bad[0] + 1})"
        raise InputError.one(where, found, "z, y and x of every row")
    return numbers.astype(np.float32)


def structures(path: str | os.PathLike, where: str = "") -> pd.DataFrame:
    """Read a structure tree.

    Returns
    -------
    DataFrame
        id, acronym, name, parent (0 for a root), depth (0 for a root), and colour (``#rrggbb``) where the file has
        colours. The id 0, which means outside, is left out.

    Raises
    ------
    InputError
        A column is missing, an id is no whole number or given twice, a parent is unknown, or the tree has a circle.
    """
    where = where or str(path)
    table = read_text(path, where)
    found = {name: _column(table, aliases) for name, aliases in STRUCTURES.items()}
    faults = Faults()
    for name in ("id", "acronym", "parent"):
        if found[name] is None:
            listed = ", ".join(table.columns[:8])
            faults.add(where, f"no column {name} ({listed})", " or ".join(STRUCTURES[name]))
    faults.raise_if_any()
    tree = pd.DataFrame({"id": _whole(table[found["id"]], f"{where}, column {found['id']}")})
    tree["acronym"] = table[found["acronym"]]
    tree["name"] = table[found["name"]] if found["name"] else tree["acronym"]
    parents = table[found["parent"]].replace("", "0")
    tree["parent"] = _whole(parents, f"{where}, column {found['parent']}")
    if found["colour"]:
        tree["colour"] = [f"#{cell.lstrip('#')}" if cell else "" for cell in table[found["colour"]]]
    tree = tree[tree["id"] != 0].reset_index(drop=True)
    _check_tree(tree, where)
    tree.insert(4, "depth", _depths(tree, where))
    return tree


def _whole(cells: pd.Series, where: str) -> np.ndarray:
    """Return whole numbers that fit into 32 bits."""
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(float)
    bad = np.flatnonzero(~(np.abs(numbers) <= np.iinfo(np.int32).max) | (numbers != np.floor(numbers)))
    if len(bad):
        hint = "Ids of more than 31 bits must be renumbered, in the annotation too."
        raise InputError.one(where, repr(cells.iloc[bad[0]]), "a whole number of at most 2147483647", hint)
    return numbers.astype(np.int64)


def _check_tree(tree: pd.DataFrame, where: str) -> None:
    faults = Faults()
    twice = tree["id"][tree["id"].duplicated()]
    if len(twice):
        faults.add(where, f"the id {twice.iloc[0]} more than once", "each id once")
    unknown = sorted(set(tree["parent"]) - set(tree["id"]) - {0})
    if unknown:
        listed = ", ".join(map(str, unknown[:_SHOWN]))
        faults.add(where, f"{len(unknown)} parents that are no structures ({listed})", "ids of the table, or nothing")
    faults.raise_if_any()


def _depths(tree: pd.DataFrame, where: str) -> np.ndarray:
    """Return how many structures lie above each."""
    parent = dict(zip(tree["id"].tolist(), tree["parent"].tolist()))
    above = np.array(tree["parent"], np.int64)
    depth = np.zeros(len(tree), np.int64)
    while (above != 0).any():
        depth += above != 0
        above = np.array([parent.get(i, 0) for i in above.tolist()], np.int64)
        if depth.max() >= len(tree):
            at = tree["id"][depth.argmax()]
            raise InputError.one(where, f"the structure {at} above itself", "a tree: every line of parents ends")
    return depth


def gene_table(path: str | os.PathLike, where: str = "") -> pd.DataFrame:
    """Read a list of volumes or of experiments.

    Returns
    -------
    DataFrame
        Text columns gene, path (joined to the table's folder), experiment, plane (lower case) and sha256, empty where
        not given; one row a volume. A gene may have several.

    Raises
    ------
    InputError
        A row without gene, without path and experiment, an experiment that is no number, or an unknown plane.
    """
    where = where or str(path)
    table = read_text(path, where)
    given = {name: _column(table, aliases) for name, aliases in GENE_TABLE.items()}
    listed = pd.DataFrame(
        {name: table[column].str.strip() if column else "" for name, column in given.items()}, index=table.index
    )
    listed["plane"] = listed["plane"].str.lower()
    faults = Faults()
    checks = {
        "a row without a gene": listed["gene"] == "",
        "a row without path or experiment": (listed["path"] == "") & (listed["experiment"] == ""),
        "an experiment that is no number": ~listed["experiment"].str.fullmatch(r"\d*"),
        "a plane that is neither coronal nor sagittal": ~listed["plane"].isin(["", "coronal", "sagittal"]),
        "a sha256 that is not 64 hexadecimal digits": ~listed["sha256"].str.fullmatch(r"(?:[0-9a-fA-F]{64})?"),
    }
    for problem, wrong in checks.items():
        if wrong.any():
            at = listed.index[wrong]
            faults.add(f"{where}, line {at[0] + 2}", f"{problem} ({len(at)} in all)", "gene, and path or experiment")
    if listed.empty:
        faults.add(where, "a header and no rows", "one row a volume")
    faults.raise_if_any()
    folder = Path(path).parent
    listed["path"] = [str(folder / cell) if cell else "" for cell in listed["path"]]
    return listed


def _column(table: pd.DataFrame, aliases: Sequence[str]) -> str | None:
    """Return the column that has one of the names, in any case; the names earlier in the list first."""
    by_name = {str(name).lower(): name for name in reversed(list(table.columns))}
    return next((by_name[alias] for alias in aliases if alias in by_name), None)


def matrix(path: str | os.PathLike, n_rows: int, where: str = "") -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read expression as text: one row a position, one column a gene, a header with the genes' names.

    Parameters
    ----------
    path
        ``.csv``, ``.tsv``, ``.txt``, or one of them with ``.gz``. The first column may hold the rows' names.
    n_rows
        Rows there must be.
    where
        What messages call the file.

    Returns
    -------
    values
        float32, positions x genes; NaN where a cell is empty.
    genes
        Their names.
    names
        The rows' names where the first column holds some, else None.

    Raises
    ------
    InputError
        Rows of other number than positions, cells that are no numbers, genes named twice or not at all.
    """
    where = where or str(path)
    layout = _layout(path, where)
    try:
        head = pd.read_csv(path, nrows=_ROWS // 10, dtype=str, keep_default_na=False, **layout)
    except ValueError as error:
        raise InputError.one(where, f"no rows that can be read ({error})", "one row a position") from error
    header = _full_header(columns(path, where), head, where)
    named = header[0] == "" or bool(pd.to_numeric(head.iloc[:, 0], errors="coerce").isna().all())
    genes = checked_names(header[int(named) :], f"{where}, header")
    types = {column: str if named and column == 0 else np.float32 for column in head.columns}
    values = np.empty((n_rows, len(genes)), np.float32)
    names, done = [], 0
    try:
        with pd.read_csv(path, dtype=types, chunksize=_ROWS, **layout) as reader:
            for chunk in reader:
                if named:
                    names.extend(chunk.pop(0).astype(str))
                fits = max(0, min(len(chunk), n_rows - done))
                values[done : done + fits] = chunk.to_numpy(np.float32)[:fits]
                done += len(chunk)
    except ValueError as error:
        raise _no_number(path, layout, genes, where, error) from error
    if done != n_rows:
        hint = "Each row of the expression needs its row of atlas.positions (see atlas.positions_rows)."
        raise InputError.one(where, f"{done} rows", f"{n_rows}, as there are positions", hint)
    return values, genes, np.array(names) if named else None


def _no_number(path: str | os.PathLike, layout: dict, genes: np.ndarray, where: str, error: Exception) -> InputError:
    """Return the error that names the first cell which is no number."""
    done = 0
    try:
        for chunk in pd.read_csv(path, dtype=str, chunksize=_ROWS, **layout):
            cells = chunk.iloc[:, -len(genes) :]
            wrong = (cells.notna() & cells.apply(pd.to_numeric, errors="coerce").isna()).to_numpy()
            if wrong.any():
                row, column = np.argwhere(wrong)[0]
                at = f"{where}, line {done + row + 2}, column {genes[column]}"
                return InputError.one(at, repr(cells.iat[row, column]), "a number, or nothing")
            done += len(chunk)
    except ValueError:
        pass  # lines of unequal length: the first error says so
    return InputError.one(where, f"a table that cannot be read ({error})", "columns of equal length, in numbers")
