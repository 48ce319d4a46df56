"""The inputs of a whole study, looked at before a job runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from histoweft.errors import Faults
from histoweft.ingest import fetch, image_checks
from histoweft.ingest.alignment import ALIGNED
from histoweft.ingest.readers import PLATFORMS, discover
from histoweft.ingest.section import Discovery
from histoweft.study import Study, is_url

FETCHED = "resources/data/fetched"
UNPACKED = "resources/data/unpacked"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
PATH_VARIABLE = re.compile(r"<[a-z][a-z0-9_]*>|[{}]")
COMPANIONS = ("labels", "positions", "alignment")
URL_COLUMNS = ("path", "image", *COMPANIONS)


def discover_all(
    study: Study, planned: dict[str, Discovery], check: bool = True
) -> tuple[dict[str, Discovery], Faults]:
    """Find the files of every sample.

    Parameters
    ----------
    study
        Checked study. Registered urls in its rows are replaced by the place they are downloaded to.
    planned
        Samples whose inputs a rule of the workflow makes.
    check
        Whether a missing file is a fault; a job that runs beside others need not look again.

    Returns
    -------
    discoveries
        Sample name -> its files.
    faults
        What is missing or cannot be read, over all samples.
    """
    faults = Faults()
    registry: dict[str, fetch.Entry] = {}
    if any(is_url(row[column]) for row in study.samples.values() for column in URL_COLUMNS):
        registry, registry_faults = fetch.load_registry(Path(str(study.config["registry"])))
        faults.extend(registry_faults)
    found = {}
    for sample, row in study.samples.items():
        if row["platform"] not in PLATFORMS or not row["path"]:
            continue  # the sheet's own check has said so
        where = f"{study.config['samples']}, line {row['line']}"
        downloads = _localise(row, registry, study.config, where, faults)
        if is_url(row["path"]):
            continue  # not registered, as has been said
        if sample in planned:
            found[sample] = planned[sample]
        elif "path" in downloads or ("positions" in downloads and row["platform"] == "visium"):
            found[sample] = _to_come(row, downloads)
        else:
            found[sample] = _present(sample, row, downloads, where)
            if check:
                faults.extend(found[sample].faults)
                faults.extend(image_checks.planned(found[sample], where, float(row["image_scale"] or 0)))
        _refuse_variables([row["path"], *found[sample].files], where, faults)
    return found, faults


def _refuse_variables(paths: Iterable[str | Path], where: str, faults: Faults) -> None:
    """Refuse names that Snakemake would not take as they are: it fills in ``<name>`` and ``{name}`` in any path."""
    for path in paths:
        if PATH_VARIABLE.search(str(path)):
            hint = "Rename it, or link to it under another name: Snakemake takes these for variables."
            faults.add(where, str(path), "a path without <...> and {...}", hint)


def download_path(entry: fetch.Entry) -> str:
    """Return where a registered file is kept, or the folder its archive is unpacked to.

    Its hash is in the path, so another version is another file.
    """
    if entry.file_name.lower().endswith(ARCHIVES):
        return f"{UNPACKED}/{entry.sha256[:16]}/{entry.file_name}"
    return fetched_path(entry)


def fetched_path(entry: fetch.Entry) -> str:
    """Return where a registered file is downloaded to."""
    return f"{FETCHED}/{entry.sha256[:16]}/{entry.file_name}"


def _localise(row: dict, registry: dict, config: dict, where: str, faults: Faults) -> dict[str, Path]:
    """Replace urls in a row by the files they are fetched to, and return those."""
    downloads = {}
    listed = Path(str(config["samples"])).with_name("downloads.tsv")
    for column in URL_COLUMNS:
        url = row[column]
        if not is_url(url):
            continue
        if url not in registry:
            what = f"--from {shlex.quote(str(listed))}" if listed.is_file() else shlex.quote(url)
            faults.add(
                f"{where}, column {column}",
                url,
                f"a url that {config['registry']} lists",
                f"Register it, so that what is analysed is known: `./histoweft register {what}` downloads it once and "
                "writes down its sha256.",
            )
            continue
        row[column] = download_path(registry[url])
        downloads[column] = Path(row[column])
    return downloads


def _to_come(row: dict, downloads: dict[str, Path]) -> Discovery:
    """Return the inputs of a sample that is downloaded first; its files are looked at when they are there."""
    roles = {"path": Path(row["path"])}
    roles |= {column: downloads[column] for column in COMPANIONS if column in downloads}
    image = Path(row["image"]) if row["image"] not in ("", "none") else None
    return Discovery(roles=roles, image=image, image_kind="given" if image else "")


def _present(sample: str, row: dict, downloads: dict[str, Path], where: str) -> Discovery:
    """Return the files of a sample that lies on disk, but for companions that are downloaded first."""
    given = {column: "" if column in downloads else row[column] for column in ("image", *COMPANIONS)}
    if "image" in downloads or "alignment" in downloads:  # looked at when they are there
        given["alignment"] = "none" if given["alignment"] or "alignment" in downloads else ""
    found = discover(
        row["platform"],
        row["path"],
        sample=sample,
        where=where,
        options={"bin_um": row["bin_um"], "subset": row["subset"]},
        **given,
    )
    found.roles.update({column: path for column, path in downloads.items() if column != "image"})
    if "image" in downloads:
        found.image, found.image_kind = downloads["image"], "given"
        if row["platform"] == "xenium" and not row["alignment"]:
            found.faults.add(
                f"{where}, column alignment",
                "nothing, for an image that is downloaded",
                "the matrix that lays it on the run, or none if it shares the cells' axes",
            )
        if row["alignment"] and row["alignment"].lower() not in ALIGNED:
            found.roles["alignment"] = Path(row["alignment"])
    return found
