"""What a result came from: the code it ran, the versions it used."""

from __future__ import annotations

import ast
import hashlib
import os
from functools import cache
from pathlib import Path

LIBRARY = Path(__file__).resolve().parent


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """Return the library files that a source file imports, at module level or inside functions."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            found.update(_files(name))
    return tuple(sorted(found))


def _files(name: str) -> list[Path]:
    """Return the files of a dotted library module: itself and the packages above it."""
    head, *rest = name.split(".")
    if head != LIBRARY.name:
        return []
    files, place = [LIBRARY / "__init__.py"], LIBRARY
    for part in rest:
        place = place / part
        files += [p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()]
    return files


def library_files(script: str | os.PathLike) -> list[Path]:
    """Return the library modules that a script reaches, directly or through other modules.

    Parameters
    ----------
    script
        A Python source file.
    """
    seen: set[Path] = set()
    queue = list(_imports(Path(script).resolve()))
    while queue:
        path = queue.pop()
        if path not in seen:
            seen.add(path)
            queue.extend(_imports(path))
    return sorted(seen)


@cache
def library_hash(script: str | os.PathLike) -> str:
    """Return a short hash of every library module a script reaches.

    Snakemake sees a changed script but not a changed module it imports; with this hash among a rule's params, an
    edited module reruns exactly the rules that use it.
    """
    digest = hashlib.sha256()
    for path in library_files(script):
        digest.update(path.relative_to(LIBRARY).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def versions(packages: list[str]) -> dict[str, str]:
    """Return the installed version of each package that is installed, in the given order."""
    from importlib import metadata

    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
