"""Which methods the config submits; standard library only, so that a Snakefile can read it."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histoweft.errors import Faults, nearest

DOMAINS, DECONVOLUTION, ANNOTATION = "domains", "deconvolution", "annotation"
FUNCTIONS = {DOMAINS: "domains", DECONVOLUTION: "proportions", ANNOTATION: "annotate"}
"""Stage to the function that a submission's file defines."""

OWN = {
    DOMAINS: ("consensus", "spread", "leiden", "smoothed_pca", "coordinates_knn", "logistic"),
    DECONVOLUTION: ("poisson", "nnls", "mean", "misfit"),
    ANNOTATION: ("logistic", "knn", "transformer", "gnn", "majority", "distance", "probability"),
}
"""Names that rows of the workflow's own methods and floors bear."""

DEFAULTS = {"environment": "peers", "options": {}, "seeds": 1}
_WITHOUT = {
    DOMAINS: "a study without sections on tissue",
    DECONVOLUTION: "a study that deconvolves no sample",
    ANNOTATION: "a study without an annotated sample",
}
_HINTS = {
    DOMAINS: "Name sections in the sample sheet.",
    DECONVOLUTION: "It needs annotation.reference and spots (or annotation.deconvolve: always).",
    ANNOTATION: "Set annotation.reference.",
}


def environment_file(name: str, folder: Path) -> Path:
    """Return the conda file of an environment: ``<folder>/<name>.yaml``, or the path itself where it is one."""
    if name.endswith((".yaml", ".yml")):
        return Path(os.path.expanduser(name)).absolute()
    return folder / f"{name}.yaml"


def complete(config: dict[str, Any], environments: Path, source: str = "config") -> Faults:
    """Fill in what submissions leave out, and collect what a schema cannot say of them.

    Parameters
    ----------
    config
        Of the study; its ``submissions`` are completed in place. Entries that the schema refuses stay as they are.
    environments
        Folder of the workflow's conda files.
    source
        How messages call the config.

    Returns
    -------
    Faults
        Files and environments that are not there, names that something else bears.
    """
    faults, seen = Faults(), set()
    entries = config.get("submissions")
    for number, entry in enumerate(entries if isinstance(entries, list) else []):
        if not _readable(entry):
            continue
        for option, value in DEFAULTS.items():
            entry.setdefault(option, copy.deepcopy(value))
        entry["file"] = os.path.expanduser(entry["file"])
        where = f"{source}: submissions[{number}]"
        stage, name = entry["stage"], entry["name"]
        if name in OWN[stage]:
            hint = "Rows of both would bear one name."
            faults.add(f"{where}.name", repr(name), f"a name that no method of the stage {stage} has", hint)
        if (stage, name) in seen:
            faults.add(f"{where}.name", f"{name!r} once more", f"each name once in the stage {stage}")
        seen.add((stage, name))
        _check_file(where, entry["file"], faults)
        _check_environment(where, entry["environment"], environments, faults)
        if entry["seeds"] > 1 and stage != DOMAINS:
            hint = "The intervals of the other stages come from resampling."
            faults.add(f"{where}.seeds", entry["seeds"], f"1 for the stage {stage}", hint)
    return faults


def _readable(entry: Any) -> bool:
    """Return whether an entry has what the schema asks for."""
    if not isinstance(entry, dict) or not isinstance(entry.get("stage"), str) or entry["stage"] not in FUNCTIONS:
        return False
    texts = all(isinstance(entry.get(option, ""), str) for option in ("name", "file", "environment"))
    return {"name", "file"} <= set(entry) and texts and isinstance(entry.get("seeds", 1), int)


def _check_file(where: str, name: str, faults: Faults) -> None:
    path, there = Path(name), os.path.isfile(name)
    if there and path.suffix == ".py":
        return
    found = f"{name}, which is no Python file" if there else f"{name}, which does not exist"
    near = nearest(path.name, [p.name for p in path.parent.glob("*.py")] if os.path.isdir(path.parent) else [])
    hint = near or f"Relative paths start from the working folder, {Path.cwd()}."
    faults.add(f"{where}.file", found, "a file that ends in .py", hint)


def _check_environment(where: str, name: str, folder: Path, faults: Faults) -> None:
    if os.path.isfile(environment_file(name, folder)):
        return
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    hint = nearest(name, known) or "A conda file of your own is given by its path."
    faults.add(f"{where}.environment", repr(name), f"one of {', '.join(known)}, or the path of a .yaml file", hint)


def check_stages(entries: list[Mapping[str, Any]], works: Mapping[str, bool], source: str = "config") -> Faults:
    """Collect submissions to stages that have nothing to do in this study.

    Parameters
    ----------
    entries
        Of the config, completed.
    works
        Stage to whether it works on any sample of the study.
    source
        How messages call the config.
    """
    faults = Faults()
    for number, entry in enumerate(entries):
        stage = entry["stage"]
        if not works[stage]:
            where = f"{source}: submissions[{number}].stage"
            faults.add(where, f"{stage} in {_WITHOUT[stage]}", "a stage that this study runs", _HINTS[stage])
    return faults
