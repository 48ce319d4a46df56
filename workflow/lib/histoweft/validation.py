"""Reads a sample sheet and says everything that is wrong with it at once."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from histoweft.errors import Faults, nearest

SEPARATORS = {".tsv": "\t", ".csv": ","}
RESERVED = ("index", "study", "all", "counts", "filtered", "features")
"""Sample names that files of the results have already (pages, means over samples, `<sample>/<sample>.h5ad`)."""
SEPARATOR_WORDS = {"\t": "a tab", ",": "a comma", ";": "a semicolon"}


def read_sheet(path: Path, schema: dict) -> tuple[list[dict], Faults]:
    """Read a sample sheet and check every cell.

    Parameters
    ----------
    path
        ``.tsv`` or ``.csv``; lines that start with ``#`` are comments.
    schema
        The sheet's schema (workflow/schemas/samples.schema.yaml).

    Returns
    -------
    rows
        One dict a sample with defaults filled in; columns the schema does not know are under ``clinical``; ``line``
        is the row's line in the file.
    faults
        Everything found wrong; rows are incomplete when there are any.
    """
    faults = Faults()
    text = _read_text(path, faults)
    if text is None:
        return [], faults
    lines = _split(text, path, faults)
    if not lines:
        return [], faults
    (_, header), *body = lines
    _check_header(header, path, schema, faults)
    if not body:
        faults.add(str(path), "a header and no rows", "one row a sample")
    rows = [_row(cells, number, header, path, schema, faults) for number, cells in body]
    _check_unique(rows, path, faults)
    return rows, faults


def _read_text(path: Path, faults: Faults) -> str | None:
    if path.suffix.lower() not in SEPARATORS:
        faults.add(
            f"sample sheet {path}",
            f"a name ending in {path.suffix!r}",
            ".tsv or .csv",
            "Save it as plain text.",
        )
        return None
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        near = nearest(path.name, [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else [])
        faults.add("config: samples", f"{path}, which does not exist", "the path of a sample sheet", near)
        return None
    except OSError as error:
        faults.add(f"sample sheet {path}", f"a file that cannot be read ({error.strerror})", "a readable text file")
        return None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        faults.add(
            f"{path}, line {line}",
            "bytes that are not UTF-8 text",
            "plain text",
            "Export the sheet as UTF-8.",
        )
        return None
    except ValueError as error:  # a name that no file can have
        faults.add("config: samples", f"{str(path)!a} ({error})", "the path of a sample sheet")
        return None
    if "\0" in text:
        faults.add(f"sample sheet {path}", "binary content", "plain text", "Is it a spreadsheet with another name?")
        return None
    return text


def _split(text: str, path: Path, faults: Faults) -> list[tuple[int, list[str]]]:
    """Return (line number, cells) of the header and each row."""
    separator = SEPARATORS[path.suffix.lower()]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    lines, start = [], 1
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if any(cells) and not cells[0].startswith("#"):
            lines.append((start, cells))
        start = reader.line_num + 1
    if not lines:
        faults.add(f"sample sheet {path}", "no lines", "a header line and one row a sample")
    elif len(lines[0][1]) == 1:
        other = next((s for s in SEPARATOR_WORDS if s != separator and s in lines[0][1][0]), None)
        if other:
            faults.add(
                f"{path}, line {lines[0][0]}",
                f"columns separated by {SEPARATOR_WORDS[other]}",
                f"{SEPARATOR_WORDS[separator]} in a {path.suffix} file",
                "Rename the file or change the separator.",
            )
            return []
    return lines


def _check_header(header: list[str], path: Path, schema: dict, faults: Faults) -> None:
    known = schema["properties"]
    for column in sorted({c for c in header if header.count(c) > 1}):
        faults.add(f"{path}, header", f"the column {column!r} {header.count(column)} times", "each column once")
    for column in schema["required"]:
        if column not in header:
            unknown = [c for c in header if c not in known]
            hint = nearest(column, unknown).replace("Did you mean", "Is it the column") if unknown else ""
            faults.add(f"{path}, header", f"no column {column!r}", "a column of that name", hint)
    for column in header:
        if not column:
            faults.add(f"{path}, header", "a column without a name", "a name, or no column")
        elif column not in known:
            _suspect(column, header, path, known, faults)


def _suspect(column: str, header: list[str], path: Path, known: dict, faults: Faults) -> None:
    """Refuse a clinical column whose name is a slip of a known one that is absent."""
    hint = nearest(column, [name for name in known if name not in header])
    if hint:
        faults.add(
            f"{path}, header",
            f"the column {column!r}",
            "a known column, or a clinical column with a name unlike any",
            f"{hint} If it is a column of your own, name it differently.",
        )


def _row(cells: list[str], number: int, header: list[str], path: Path, schema: dict, faults: Faults) -> dict:
    if len(cells) != len(header):
        faults.add(
            f"{path}, line {number}",
            f"{len(cells)} cells",
            f"{len(header)}, as in the header",
            "A separator is missing or one too many.",
        )
    given = dict(zip(header, cells, strict=False))
    row: dict = {"line": number, "clinical": {}}
    for column, part in schema["properties"].items():
        row[column] = _cell(
            given.get(column, ""), column, part, f"{path}, line {number}, column {column}", schema, faults
        )
    for column in schema["properties"]:
        if row[column] == "{sample}":
            row[column] = row["sample"]
    row["clinical"] = {c: given.get(c, "") for c in header if c and c not in schema["properties"]}
    return row


def _cell(value: str, column: str, part: dict, where: str, schema: dict, faults: Faults) -> str | float | None:
    if value == "":
        if column in schema["required"]:
            allowed = f"one of {', '.join(part['enum'])}" if "enum" in part else "a value"
            faults.add(where, "an empty cell", allowed)
        return part.get("default", "")
    if "number" in part["type"]:
        return _number(value, part, where, faults)
    if "enum" in part and value not in part["enum"]:
        faults.add(where, repr(value), f"one of {', '.join(part['enum'])}", nearest(value, part["enum"]))
    if "pattern" in part and not re.fullmatch(part["pattern"].strip("^$"), value):
        faults.add(where, repr(value), "letters, digits, '_', '.' or '-', not starting with a sign")
    if len(value) > part.get("maxLength", len(value)):
        found = f"{value[:20]!r}... of {len(value)} characters"
        faults.add(where, found, f"at most {part['maxLength']}", "It names folders and files.")
    return value


def _number(value: str, part: dict, where: str, faults: Faults) -> float | None:
    try:
        number = float(value)
    except ValueError:
        hint = "Write the decimal sign as a point." if re.fullmatch(r"\d+,\d+", value) else ""
        faults.add(where, repr(value), "a number", hint)
        return None
    low = part.get("exclusiveMinimum")
    if number != number or abs(number) == float("inf") or (low is not None and number <= low):
        faults.add(where, repr(value), "a finite number" if low is None else f"a finite number above {low}")
    return number


def _check_unique(rows: list[dict], path: Path, faults: Faults) -> None:
    first: dict[str, tuple[int, str]] = {}
    for row in rows:
        if str(row["sample"]).casefold() in RESERVED:
            where = f"{path}, line {row['line']}, column sample"
            faults.add(where, repr(row["sample"]), "another name", "A file of the results is called so.")
        # Results are folders, and some file systems do not tell case apart.
        key = str(row["sample"]).casefold()
        if key and key in first:
            line, name = first[key]
            faults.add(
                f"{path}, line {row['line']}, column sample",
                repr(row["sample"]),
                "a name used once",
                f"Line {line} has {name!r} already.",
            )
        first.setdefault(key, (row["line"], row["sample"]))
