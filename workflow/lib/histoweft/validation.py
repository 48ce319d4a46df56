"""Reads a sample sheet and says everything that is wrong with it at once."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from histoweft import plaintext
from histoweft.errors import Faults, nearest
from histoweft.paths import plain

SEPARATORS = {".tsv": "\t", ".tab": "\t", ".csv": ",", ".txt": ""}
"""Ending of the file's name to its separator; a .txt has the one that its header shows."""
RESERVED = ("index", "study", "all", "counts", "filtered", "features")
"""Sample names that files of the results have already (pages, means over samples, `<sample>/<sample>.h5ad`)."""
SEPARATOR_WORDS = {"\t": "a tab", ",": "a comma", ";": "a semicolon", "|": "a bar"}
PATHS = ("path", "image", "labels", "positions", "alignment")
WITHIN = ("labels_column", "subset")
"""Columns that speak of what is written in the files."""
NO_WIDTH = "\u200b\u200e\u200f\u2060\ufeff"
MARKUP = ("<!doctype", "<html", "<?xml", "<table")

ERROR = re.compile(r"#(REF|NAME|VALUE|NULL|NUM|SPILL|CALC|DIV/0)[!?]|#N/A|#{4,}")
"""What a spreadsheet writes where a formula failed or a column was too narrow."""
SCIENTIFIC = re.compile(r"\d+([.,]\d+)?E\+\d+")
MONTHS = "jan|feb|mar|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
DATE = re.compile(rf"\d{{1,2}}[-. ]+({MONTHS})|({MONTHS})[-. ]+\d{{2}}|\d{{4}}-\d\d-\d\d 00:00:00", re.I)
"""What a spreadsheet makes of a name such as 1-3 or of a number such as 1.5."""
AS_TEXT = "Format the column as text before the names are typed in or imported."
MISSING = ("NA", "N/A", "<NA>", "NaN", "nan", "NULL", "null", "None")
"""What R, pandas and databases write for an empty cell."""
LETTERS = "letters, digits, '_', '.' or '-', not starting with a sign"


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
    lines = _split(text, path, schema, faults)
    if not lines:
        return [], faults
    (_, header), *body = lines
    header = _header(header, schema)
    if _has_row_names(header, body):
        hint = "Write it with row.names=FALSE in R, or with index=False in pandas."
        faults.add(f"{path}, header", "a column of row numbers without a name", "named columns alone", hint)
        return [], faults
    _check_header(header, path, schema, faults)
    if not body:
        faults.add(str(path), "a header and no rows", "one row a sample")
    rows = [_row(cells, number, header, path, schema, faults) for number, cells in body]
    _check_unique(rows, path, faults)
    _check_alike(body, header, path, faults)
    return rows, faults


def _header(cells: list[str], schema: dict) -> list[str]:
    """Return the header with known columns under the schema's names: ``Sample`` and ``LABELS COLUMN`` are such."""
    known, names = schema["properties"], []
    for cell in cells:
        name = _name_of_column(cell)
        names.append(name if name in known else plain(cell))
    return names


def _has_row_names(header: list[str], body: list[tuple[int, list[str]]]) -> bool:
    """Return whether a program wrote the numbers of rows as a first column without a name."""
    if not body or not (header[0] == "" or all(len(cells) == len(header) + 1 for _, cells in body)):
        return False
    first = [cells[0] for _, cells in body]
    return any(first == [str(n + start) for n in range(len(first))] for start in (0, 1))


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
        data = path.read_bytes()
    except FileNotFoundError:
        near = nearest(path.name, [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else [])
        faults.add("config: samples", f"{path}, which does not exist", "the path of a sample sheet", near)
        return None
    except OSError as error:
        faults.add(f"sample sheet {path}", f"a file that cannot be read ({error.strerror})", "a readable text file")
        return None
    except ValueError as error:  # a name that no file can have
        faults.add("config: samples", f"{str(path)!a} ({error})", "the path of a sample sheet")
        return None
    text = plaintext.decode(data, str(path), faults)
    if text is not None and text.lstrip().lower().startswith(MARKUP):
        faults.add(str(path), "a web page or XML under this name", "plain text", plaintext.WORKBOOK)
        return None
    return text


def _split(text: str, path: Path, schema: dict, faults: Faults) -> list[tuple[int, list[str]]]:
    """Return (line number, cells) of the header and each row."""
    separator, skipped = _separator(text, path, schema)
    try:
        lines, comments = _lines(text, separator, skipped)
    except csv.Error as error:
        faults.add(str(path), f"a cell that does not end ({error})", "cells", "A quotation mark is not closed.")
        return []
    if not lines:
        faults.add(f"sample sheet {path}", "no lines", "a header line and one row a sample")
        return []
    for number, cells in lines:
        if any("\n" in cell and separator in cell for cell in cells):
            hint = "A quotation mark opens in this line and is not closed in it."
            faults.add(f"{path}, line {number}", "a cell that holds several lines", "one line a row", hint)
            return []
    if _is_misread(lines, comments, separator, path, schema, faults):
        return []
    return _without_empty_columns(lines)


def _separator(text: str, path: Path, schema: dict) -> tuple[str, int]:
    """Return the separator of a sheet, and how many lines to skip: Excel reads a first line ``sep=;``, and so do we."""
    first = text.lstrip("\ufeff").split("\n", 1)[0].strip()
    if re.fullmatch(r"sep=[\t,;|]", first):
        return first[-1], 1
    separator = SEPARATORS[path.suffix.lower()]
    if separator:
        return separator, 0
    header = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    return max(SEPARATOR_WORDS, key=lambda one: len(_known(header.split(one), schema))), 0


def _lines(text: str, separator: str, skipped: int) -> tuple[list[tuple[int, list[str]]], list[list[str]]]:
    """Return the lines that hold something, each with its number and clean cells, and the comments."""
    reader = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""), delimiter=separator)
    lines, comments, start = [], [], 1
    for cells in reader:
        cells = [_clean(cell) for cell in cells]
        if start > skipped and any(cells):
            comment = cells[0].startswith("#") and not ERROR.fullmatch(cells[0])
            if comment:
                comments.append([cells[0].lstrip("# "), *cells[1:]])
            else:
                lines.append((start, cells))
        start = reader.line_num + 1
    return lines, comments


def _clean(cell: str) -> str:
    """Return a cell without the blanks, characters of no width and curly quotes around it."""
    bare = re.sub(rf"^[\s{NO_WIDTH}]+|[\s{NO_WIDTH}]+$", "", cell)
    quoted = len(bare) > 1 and bare[0] in "\u201c\u201d\u201e" and bare[-1] in "\u201c\u201d"
    return bare[1:-1].strip() if quoted else bare


def _name_of_column(text: str) -> str:
    """Return a column's name as the schema would write it: lower case, underscores for blanks."""
    return re.sub(r"[\s-]+", "_", plain(text).strip().casefold())


def _known(cells: Iterable[str], schema: dict) -> list[str]:
    """Return the cells that name columns of the schema."""
    return [cell for cell in cells if _name_of_column(cell) in schema["properties"]]


def _is_misread(
    lines: list[tuple[int, list[str]]],
    comments: list[list[str]],
    separator: str,
    path: Path,
    schema: dict,
    faults: Faults,
) -> bool:
    """Return whether the header shows that the table was taken apart wrongly, and say how."""
    number, header = lines[0]
    where, ending = f"{path}, line {number}", f"{SEPARATOR_WORDS[separator]} in a {path.suffix} file"
    remedy = "Rename the file or change the separator."
    if len(header) == 1:
        if separator in header[0]:
            faults.add(where, "the whole line in quotes, as one cell", "quotes around single cells", "Take them away.")
            return True
        other = next((s for s in SEPARATOR_WORDS if s != separator and s in header[0]), None)
        if other:
            faults.add(where, f"columns separated by {SEPARATOR_WORDS[other]}", ending, remedy)
            return True
        if len(_known(header[0].split(), schema)) > 1:
            faults.add(where, "columns separated by spaces", ending, "Put one tab (or comma) between two columns.")
            return True
    for cell in header:
        parts = re.split(r"[\s,;|]+", cell)
        if len(parts) > 1 and len(_known(parts, schema)) == len(parts):
            faults.add(
                where, f"the columns {', '.join(parts)} in one cell", f"{SEPARATOR_WORDS[separator]} between them"
            )
            return True
    return _lacks_header(lines, comments, path, schema, faults)


def _lacks_header(
    lines: list[tuple[int, list[str]]], comments: list[list[str]], path: Path, schema: dict, faults: Faults
) -> bool:
    """Return whether the first line is no header, and say so."""
    number, header = lines[0]
    required = schema["required"]
    if _known(header, schema):
        return False
    if any(set(required) <= {_name_of_column(cell) for cell in cells} for cells in comments):
        faults.add(f"{path}, header", "a header that begins with '#', as comments do", "a header", "Take the '#' away.")
        return True
    if set(header) & set(schema["properties"]["platform"]["enum"]):
        expected = f"a header, at least: {', '.join(required)}"
        faults.add(f"{path}, line {number}", "a sample in the first line", expected, "Put the header above it.")
        return True
    return False


def _without_empty_columns(lines: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Leave out columns without a name and without content, which spreadsheets append, and empty cells at line ends."""
    (number, header), *body = lines
    width = len(header)
    body = [(n, cells if any(cells[width:]) else cells[:width]) for n, cells in body]
    empty = {i for i, name in enumerate(header) if not name and not any(i < len(c) and c[i] for _, c in body)}
    return [(n, [cell for i, cell in enumerate(cells) if i not in empty]) for n, cells in [(number, header), *body]]


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
            # One for a required column has been named with the column that is lacking.
            _suspect(column, [*header, *schema["required"]], path, known, faults)


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
        found, expected = f"{len(cells)} cells", f"{len(header)}, as in the header"
        faults.add(f"{path}, line {number}", found, expected, _why_other_number(cells, len(header)))
        faults = Faults()  # the cells stand under other columns: what is wrong in them says nothing
    given = dict(zip(header, cells, strict=False))
    row: dict = {"line": number, "clinical": {}}
    for column, part in schema["properties"].items():
        if column in schema["required"] and column not in header:
            row[column] = ""  # the check of the header has said so
            continue
        where = f"{path}, line {number}, column {column}"
        row[column] = _cell(given.get(column, ""), column, part, where, schema, faults)
    for column in schema["properties"]:
        if row[column] == "{sample}":
            row[column] = row["sample"]
    row["clinical"] = {c: plain(given.get(c, "")) for c in header if c and c not in schema["properties"]}
    return row


def _is_mangled(value: str, column: str, part: dict, where: str, faults: Faults) -> bool:
    """Return whether a cell holds what a program made of another one, and say so."""
    if ERROR.fullmatch(value):
        hint = "A spreadsheet writes this for an error, or where a column is too narrow."
        faults.add(where, repr(value), "a value", hint)
    elif value in MISSING and "number" not in part["type"] and column not in ("sample", "condition"):
        hint = "R and pandas write it for an empty cell; as text it would be a name like any other."
        faults.add(where, repr(value), "a value or an empty cell", hint)
    elif column in ("sample", "patient") and (SCIENTIFIC.fullmatch(value) or DATE.fullmatch(value)):
        kind = "number" if SCIENTIFIC.fullmatch(value) else "date"
        faults.add(where, f"{value!r}, a {kind} that a spreadsheet has made of a name", "the name itself", AS_TEXT)
    else:
        return False
    return True


def _why_other_number(cells: list[str], wanted: int) -> str:
    """Return why a line has more or fewer cells than the header."""
    for pattern, what in (
        (r"\s{2,}", "Blanks stand"),
        (r"\s+", "A blank stands"),
        (r";", "A semicolon stands"),
        (r",", "A comma stands"),
    ):
        if sum(len(re.split(pattern, cell)) for cell in cells) == wanted:
            return f"{what} where the separator of columns belongs."
    return "A separator is missing or one too many."


def _cell(value: str, column: str, part: dict, where: str, schema: dict, faults: Faults) -> str | float | None:
    if value == "":
        if column in schema["required"]:
            allowed = f"one of {', '.join(part['enum'])}" if "enum" in part else "a value"
            faults.add(where, "an empty cell", allowed)
        return part.get("default", "")
    if _is_mangled(value, column, part, where, faults):
        return None if "number" in part["type"] else value
    if "number" in part["type"]:
        return _number(value, part, where, faults)
    if column not in (*PATHS, *WITHIN) and "pattern" not in part:
        value = plain(value)
    if "enum" in part and value not in part["enum"]:
        faults.add(where, repr(value), f"one of {', '.join(part['enum'])}", nearest(value, part["enum"]))
    if "pattern" in part and not re.fullmatch(part["pattern"].strip("^$"), value):
        faults.add(where, repr(value), LETTERS, f"Such as {safe_name(value)!r}.")
    if len(value) > part.get("maxLength", len(value)):
        found = f"{value[:20]!r}... of {len(value)} characters"
        faults.add(where, found, f"at most {part['maxLength']}", "It names folders and files.")
    return value


def safe_name(text: str) -> str:
    """Return a name like the text that a sample may have."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", bare).strip("_.-")[:100] or "sample"


def _number(value: str, part: dict, where: str, faults: Faults) -> float | None:
    try:
        number = float(value.replace("_", "?"))  # Python would read 1_000
    except ValueError:
        faults.add(where, repr(value), "a number", _why_no_number(value))
        return None
    low = part.get("exclusiveMinimum")
    if number != number or abs(number) == float("inf") or (low is not None and number <= low):
        faults.add(where, repr(value), "a finite number" if low is None else f"a finite number above {low}")
    return number


def _why_no_number(value: str) -> str:
    """Return what to do about a cell that should hold a number, where its cause is in sight."""
    if value in MISSING:
        return "Leave the cell empty where nothing is known."
    if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?", value):
        return "Write no separator of thousands; if the comma is the decimal sign, write a point."
    if re.fullmatch(r"-?\d+,\d+", value):
        return "Write the decimal sign as a point."
    if re.fullmatch(r"\d{1,3}([.' ]\d{3})+(,\d+)?", plain(value)):
        return "Write no separator of thousands, and the decimal sign as a point."
    if re.fullmatch(r"[\u2212\u2013\u2014]\s*[\d.]+", value):
        return "Write the minus sign as a plain hyphen."
    if DATE.fullmatch(value):
        return f"A spreadsheet has made a date of a number. {AS_TEXT}"
    if re.fullmatch(r"[-+]?\d+(\.\d+)?\s*[^\d\s.,][^\d,]*", value):
        return "Write the number alone, without its unit."
    return ""


def _check_alike(body: list[tuple[int, list[str]]], header: list[str], path: Path, faults: Faults) -> None:
    """Refuse two writings of what looks like one name: 1 and 1.0, 001 and 1, Treated and treated."""
    for column in ("patient", "batch", "condition"):
        if header.count(column) != 1:
            continue
        place, first, told = header.index(column), {}, set()
        for number, cells in body:
            value = plain(cells[place]) if place < len(cells) else ""
            line, other = first.setdefault(meaning(value), (number, value))
            if other != value and value not in told:
                told.add(value)
                where = f"{path}, line {number}, column {column}"
                hint = "If they are two, give them names that differ in more than that."
                faults.add(where, f"{value!r}, and {other!r} in line {line}", "one writing of one name", hint)


def meaning(value: str) -> str:
    """Return what two writings of one name have in common."""
    text = " ".join(value.casefold().strip("'").split())
    return re.sub(r"^0+(?=\d)", "", text.removesuffix(".0")) if re.fullmatch(r"\d+(\.0)?", text) else text


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
