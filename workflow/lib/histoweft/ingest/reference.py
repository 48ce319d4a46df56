"""The labelled reference of the annotation stage, read by the readers of the samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from histoweft.errors import Faults
from histoweft.ingest import readers
from histoweft.ingest.section import Discovery, SampleInput, Section
from histoweft.paths import labels_is_table, resolve

NAME = "reference"
WHERE = "config: annotation"


def located(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that say what the reference is, their paths placed below the data root.

    Parameters
    ----------
    config
        Of the study; may be incomplete where it has faults.

    Returns
    -------
    Empty where the study has no reference.
    """
    options = config.get("annotation")
    if not isinstance(options, dict) or not isinstance(options.get("reference"), str) or not options["reference"]:
        return {}
    found = {name: options[name] for name in ("labels", "labels_column", "batch", "subset", "counts", "spatial")}
    found["layer"] = options.get("layer", "")
    root = Path(str(config["data_root"])).expanduser()
    found["path"] = str(resolve(root / options["reference"]))
    if labels_is_table(options["labels"], options["reference"]):
        found["labels"] = str(resolve(root / options["labels"]))
    return found


def discover(source: Mapping[str, Any], simulated: str) -> Discovery:
    """Find the reference's files.

    Parameters
    ----------
    source
        From `located`.
    simulated
        Folder of what the study simulates; a reference there need not exist yet.
    """
    faults = Faults()
    if not source["labels"]:
        expected = "an obs column of the reference, or a table with a barcode column"
        faults.add(f"{WHERE}.labels", "nothing", expected, "A reference without labels teaches nothing.")
    if Path(source["path"]).is_relative_to(simulated):
        found = Discovery({"matrix": Path(source["path"])})
    else:
        found = readers.discover(_platform(source), source["path"], labels=source["labels"], where=f"{WHERE}.reference")
    found.faults.extend(faults)
    return found


def _platform(source: Mapping[str, Any]) -> str:
    """Return the reader: positions are read where the tissue is to be looked at."""
    return "h5ad" if source["spatial"] else "scrna"


def read(source: Mapping[str, Any]) -> Section:
    """Read and check the reference.

    Parameters
    ----------
    source
        From `located`.

    Returns
    -------
    Section
        Its obs has ``label`` and, where a batch column is given, ``batch``. The columns of ``batch`` and ``subset``
        are those of the file's obs or of the labels table.

    Raises
    ------
    InputError
        With every fault found.
    """
    sample = SampleInput(
        NAME,
        _platform(source),
        source["path"],
        labels=source["labels"],
        labels_column=source["labels_column"],
        layer=source.get("layer", ""),
        subset=source["subset"],
        options={"counts": source["counts"], "obs_columns": [source["batch"]] if source["batch"] else ()},
        where=WHERE,
    )
    section = readers.read(sample)
    return replace(section, obs=section.obs.rename(columns={source["batch"]: "batch"}))
