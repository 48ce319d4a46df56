"""Show the sections that one file holds, and write one line of a sample sheet for each.

./histoweft split FILE [--by COLUMN] [--sheet OUT.tsv] [--data-root FOLDER]

FILE is an h5ad or loom file, or the folder (or matrix) of a platform. Without --sheet the lines go to the screen.
A file that is there is never written over.
"""

import argparse
import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "workflow" / "lib"))


def as_sheet_path(path: Path, data_root: str) -> str:
    """Return a path as a sheet names it: from the data root where it lies below, else in full."""
    root = Path(data_root).expanduser().resolve()
    whole = Path(os.path.abspath(path))
    return str(whole.relative_to(root)) if whole.is_relative_to(root) else str(whole)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet."""
    from histoweft.errors import InputError

    try:
        with open(path, "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        hint = "Nothing was written: name another file, or add the lines by hand."
        raise InputError.one("split --sheet", f"{path}, which is there already", "a new file", hint) from None


def main(arguments):
    """Say what the file holds and write the lines."""
    from histoweft.errors import HistoweftError
    from histoweft.ingest import split
    from histoweft.paths import resolve

    parser = argparse.ArgumentParser(
        prog="histoweft split", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--by", default="", metavar="COLUMN", help="the column whose values are sections")
    parser.add_argument("--sheet", type=Path, metavar="OUT", help="a new sample sheet (.tsv)")
    parser.add_argument("--data-root", default=".", help="of the study; paths in the sheet start there")
    given = parser.parse_args(arguments)
    path = resolve(given.file)
    try:
        contents = split.look(path)
        found = split.ways(contents, given.by)
        print(split.describe(given.file, contents, found), file=sys.stderr)
        if not found:
            sys.exit(1)
        lines = split.sheet(as_sheet_path(path, given.data_root), path.stem, contents.platform, found[0])
        if given.sheet:
            write_new(given.sheet, lines)
        else:
            print(lines, end="")
    except (HistoweftError, OSError) as error:
        sys.exit(f"split: {error}")
    chosen = f"Taken apart by {found[0].column}{' (--by takes another)' if len(found) > 1 else ''}."
    print(f"{chosen} Fill in the column patient where parts come from one patient.", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
