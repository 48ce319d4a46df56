"""Expression grids of single experiments, downloaded once and kept (Allen Mouse Brain Atlas, Lein et al. 2007)."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path

import pandas as pd

from histoweft import download
from histoweft.atlas.volumes import read_volume
from histoweft.errors import Faults, InputError
from histoweft.io import atomic

log = logging.getLogger(__name__)

#: A 200 um grid has 0.4 MB packed; more than this is no such grid.
MAX_BYTES = 50 * 10**6
#: Experiments that fail one after another before the rest is given up.
PATIENCE = 5
CHECKSUMS = "sha256.tsv"


def fetch_experiments(table: pd.DataFrame, cache: str | os.PathLike, url: str, **options) -> pd.DataFrame:
    """Download the grid of every experiment that the cache lacks.

    A file is kept only when it is a zip with one volume in it and, where its sha256 is known (from the table or from an
    earlier run), the same as then. What was downloaded before an error stays, so that the next run goes on from there.

    Parameters
    ----------
    table
        As `tables.gene_table` gives it; rows that have a path are left as they are.
    cache
        Folder of ``<experiment>.zip``; its sha256.tsv lists the digest of each.
    url
        Address to which ``<experiment>?include=energy`` is appended.
    options
        tries, wait and timeout of `download.fetch`.

    Returns
    -------
    DataFrame
        The table with the path and the sha256 of each experiment.

    Raises
    ------
    InputError
        Experiments that could not be had, all together.
    """
    cache = Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    known = _read_checksums(cache)
    done = table.copy()
    todo = table[table["path"] == ""]
    faults, failed_in_a_row = Faults(), 0
    for number, row in enumerate(todo.itertuples(), 1):
        path = cache / f"{row.experiment}.zip"
        try:
            digest = _fetch_one(url, row.experiment, path, row.sha256.lower() or known.get(row.experiment), **options)
        except InputError as error:
            faults.extend(error.faults)
            failed_in_a_row += 1
            if failed_in_a_row == PATIENCE:
                hint = "Run again when the server answers: what has been downloaded is kept."
                faults.add("atlas.input", f"{len(todo) - number} experiments not tried", "downloads that succeed", hint)
                break
            continue
        failed_in_a_row = 0
        done.loc[row.Index, ["path", "sha256"]] = [str(path), digest]
        if known.get(row.experiment) != digest:
            known[row.experiment] = digest
            _write_checksums(cache, known)
        if number % 50 == 0:
            log.info("%d of %d experiments looked at", number, len(todo))
    faults.raise_if_any()
    return done


def _fetch_one(url: str, experiment: str, path: Path, expected: str | None, **options) -> str:
    """Return the digest of one experiment, downloaded unless it is there; a file that is no grid is not kept."""
    if path.is_file():
        digest = download.sha256(path)
        if digest == (expected or digest):
            return digest
        log.warning("%s is not the file it was; it is downloaded again", path)
    address = f"{url.rstrip('/')}/{experiment}?include=energy"
    with atomic(path) as partial:
        digest = download.fetch(address, expected, partial, max_bytes=MAX_BYTES, **options)
        if not zipfile.is_zipfile(partial):
            hint = "Is the experiment's number right, and does it have an expression grid?"
            raise InputError.one(address, "no zip archive", "the zip of an expression grid", hint)
        read_volume(partial, address)
    return digest


def _read_checksums(cache: Path) -> dict[str, str]:
    path = cache / CHECKSUMS
    if not path.is_file():
        return {}
    listed = pd.read_csv(path, sep="\t", dtype=str)
    return dict(zip(listed["experiment"], listed["sha256"], strict=True))


def _write_checksums(cache: Path, known: dict[str, str]) -> None:
    with atomic(cache / CHECKSUMS) as partial:
        pd.DataFrame({"experiment": list(known), "sha256": list(known.values())}).to_csv(partial, sep="\t", index=False)


def write_table(table: pd.DataFrame, path: str | os.PathLike) -> None:
    """Write the list of volumes, with their paths relative to its own folder."""
    folder = Path(path).resolve().parent
    relative = [os.path.relpath(Path(cell).resolve(), folder) for cell in table["path"]]
    table.assign(path=relative).to_csv(path, sep="\t", index=False)
