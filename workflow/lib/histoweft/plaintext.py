"""Text files from editors and spreadsheets: the encoding by its mark, what is no text by its first bytes."""

from __future__ import annotations

import codecs

from histoweft.errors import Faults

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16's mark, so it is asked for first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
WORKBOOK = "Open it in the spreadsheet program and save it as tab-separated text or as CSV (UTF-8)."
BINARY = (
    (b"PK\x03\x04", "a workbook (.xlsx or .ods) or another zip archive under this name", WORKBOOK),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls) under this name", WORKBOOK),
    (b"\x1f\x8b", "a gzip file under this name", "Unpack it with gunzip."),
    (b"%PDF", "a PDF under this name", "Save the table itself as plain text."),
    (b"{\\rtf", "rich text (RTF) under this name", "Save it as plain text; in TextEdit, Format > Make Plain Text."),
    (
        b"\x89HDF",
        "an HDF5 file under this name",
        "Give the text file; HDF5 files are named in the sheet's column path.",
    ),
)
EXPECTED = "plain text"


def encoding_of(data: bytes) -> str:
    """Return the encoding that the mark at the beginning names; UTF-8 without a mark."""
    return next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")


def decode(data: bytes, where: str, faults: Faults) -> str | None:
    """Return the text of a file, or note why it is none.

    Parameters
    ----------
    data
        The file's bytes.
    where
        How faults call the file.
    """
    for start, kind, hint in BINARY:
        if data.startswith(start):
            faults.add(where, kind, EXPECTED, hint)
            return None
    try:
        text = data.decode(encoding_of(data))
    except UnicodeDecodeError as error:
        _say_not_text(data, error, where, faults)
        return None
    if "\0" not in text:
        return text
    if _without_mark(data):
        faults.add(where, "UTF-16 text without its mark", EXPECTED, "Save it as UTF-8.")
    else:
        faults.add(where, "binary content", EXPECTED, "Is it a spreadsheet with another name?")
    return None


def _without_mark(data: bytes) -> bool:
    """Return whether every other byte of the beginning is zero, as in Latin letters written in UTF-16."""
    start = data[:200]
    return len(start) >= 8 and any(not any(start[i::2]) and all(start[1 - i :: 2]) for i in (0, 1))


def _say_not_text(data: bytes, error: UnicodeDecodeError, where: str, faults: Faults) -> None:
    """Name the line whose bytes are no text, and how it reads in the encoding of western Windows."""
    encoding = encoding_of(data)
    if encoding.startswith(("utf-16", "utf-32")):
        faults.add(where, f"{encoding.upper()} text that is cut off or damaged", EXPECTED, "Save it as UTF-8.")
        return
    before, rest = data[: error.start], data[error.start :]
    number = before.count(b"\n") + 1
    start = max(before.rfind(b"\n"), before.rfind(b"\t"), before.rfind(b",")) + 1
    word = (before[start:] + rest.splitlines()[0])[:40]
    hint = 'Export it as UTF-8 (in Excel: "CSV UTF-8").'
    shown = word.decode("cp1252", "replace").split("\t")[0].strip()
    if shown.isprintable() and "\ufffd" not in shown:
        hint = f"In Windows-1252 (Latin-1) it reads {shown!r}. {hint} iconv -f WINDOWS-1252 -t UTF-8 does it too."
    faults.add(f"{where}, line {number}", "bytes that are not UTF-8 text", EXPECTED, hint)
