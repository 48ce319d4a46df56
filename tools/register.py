"""Download files once and write their sha256 into the data registry, so that every later run checks it.

./histoweft register URL [URL ...] [--licence TEXT] [--description TEXT] [--registry FILE]
./histoweft register --from config/studies/<study>/downloads.tsv [--registry FILE]
"""

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "workflow" / "lib"))


def main(arguments):
    """Register what the command line names."""
    from histoweft.errors import HistoweftError
    from histoweft.ingest.fetch import Entry, load_downloads
    from histoweft.ingest.register import register

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="*")
    parser.add_argument("--from", dest="table", type=Path, metavar="TABLE", help="tsv: key, url, licence, description")
    parser.add_argument("--registry", type=Path, default=Path("resources/registry.tsv"), help="default: %(default)s")
    parser.add_argument("--licence", default="", help="of the urls given here")
    parser.add_argument("--description", default="", help="of the urls given here")
    given = parser.parse_args(arguments)
    if not given.url and given.table is None:
        parser.error("nothing to register: give urls, or --from a table")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    wanted = {}
    for url in given.url:
        entry = Entry("", url, "", licence=given.licence, description=given.description)
        wanted[url] = replace(entry, key=entry.file_name)
    try:
        if given.table is not None:
            listed, faults = load_downloads(given.table)
            faults.raise_if_any()
            wanted |= listed
        for done in register(wanted.values(), given.registry):
            print(done, flush=True)
    except (HistoweftError, OSError) as error:
        sys.exit(f"register: {error}")
    except KeyboardInterrupt:
        sys.exit("register: stopped; what was registered before stays so, and the same call goes on from there")


if __name__ == "__main__":
    main(sys.argv[1:])
