"""Whether the environment that a job runs in holds what its lock file says."""

from __future__ import annotations

import importlib
import os
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from histoweft.errors import Faults, InputError

if TYPE_CHECKING:
    import pandas as pd

PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9_.-]+)(?:\[[^\]]+\])?==(?P<version>[^\s;\\]+)\s*(?:;\s*(?P<marker>[^\\]+?))?\s*\\?$"
)
NAME = re.compile(r"^[A-Za-z0-9_.-]+")
HINT = "Remove the environment's folder below .snakemake/conda, or call ./histoweft install, and start again."


def pinned(lock: str | os.PathLike) -> dict[str, str]:
    """Return package and version of every pin of a lock file that is meant for this platform."""
    from packaging.markers import Marker

    found = {}
    for line in Path(lock).read_text(encoding="utf-8").splitlines():
        match = PIN.match(line)
        if match and (not match["marker"] or Marker(match["marker"].strip()).evaluate()):
            found[match["name"]] = match["version"]
    return found


def required(requirements: str | os.PathLike) -> list[str]:
    """Return the packages that a requirements file (.in) names itself."""
    lines = (line.split("#")[0].strip() for line in Path(requirements).read_text(encoding="utf-8").splitlines())
    return [match[0] for line in lines if (match := NAME.match(line))]


def check(lock: str | os.PathLike, requirements: str | os.PathLike) -> pd.DataFrame:
    """Compare this interpreter's packages with a lock file, and import those that the requirements name.

    Parameters
    ----------
    lock
        Hashed pins, ``envs/<name>.lock.txt``.
    requirements
        What the pins were made from, ``envs/<name>.in``.

    Returns
    -------
    pandas.DataFrame
        package, pinned, found, folder (where it lies, relative to the environment).

    Raises
    ------
    InputError
        Every package that is missing, has another version, lies outside the environment or cannot be imported.
    """
    import pandas as pd

    faults, rows = Faults(), []
    for name, version in pinned(lock).items():
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            faults.add(f"{sys.prefix}: {name}", "not installed", version, HINT)
            continue
        if found.version != version:
            faults.add(f"{sys.prefix}: {name}", found.version, version, HINT)
        folder = Path(str(found.locate_file(""))).resolve()
        if not folder.is_relative_to(Path(sys.prefix).resolve()):
            faults.add(f"{sys.prefix}: {name}", f"it lies in {folder}", "a package of this environment", HINT)
            continue
        inside = folder.relative_to(Path(sys.prefix).resolve())
        rows.append({"package": name, "pinned": version, "found": found.version, "folder": str(inside)})
    _import(set(required(requirements)), faults)
    if faults:
        raise InputError(faults.items)
    return pd.DataFrame(rows, columns=["package", "pinned", "found", "folder"])


def _import(packages: set[str], faults: Faults) -> None:
    """Import the modules that these installed packages bring."""
    wanted = {_normal(name) for name in packages}
    for module, owners in metadata.packages_distributions().items():
        if module.startswith("_") or not wanted & {_normal(owner) for owner in owners}:
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken package raises nearly anything
            faults.add(f"{sys.prefix}: import {module}", f"{type(error).__name__}: {error}", "an import", HINT)


def _normal(package: str) -> str:
    """Return a package's name as comparisons need it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()
