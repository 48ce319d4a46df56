"""The page itself, and what it has to know of the study before it loads a sample."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from histoweft import plotting
from histoweft.errors import InputError
from histoweft.explorer import points
from histoweft.explorer.sample import ABOUT

MAP_STOPS = 32
"""Colours of the map of numbers that are handed to the page."""


def read_about(folder: str | os.PathLike) -> dict[str, Any]:
    """Read what a sample's folder says of itself.

    Raises
    ------
    InputError
        The folder was not written to its end.
    """
    path = Path(folder) / ABOUT
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        hint = "Delete the folder and run again."
        raise InputError.one(path, error, "what the rule explorer_sample writes", hint) from error


def study_about(samples: Sequence[Mapping[str, Any]], study: str, title: str) -> dict[str, Any]:
    """Return what the page is told first.

    Parameters
    ----------
    samples
        What each sample says of itself, in the order shown.
    study, title
        Name and title of the study.

    Returns
    -------
    dict
        study, title, samples, schemes (heading and title of a column -> pairs of group and colour), and colours
        of numbers (`map`, from low to high), of up to three genes (`channels`) and of what has no value (`missing`).
    """
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        for column in sample["columns"]:
            if column["kind"] == "category":
                grouped.setdefault(f"{column['heading']}: {column['title']}", []).append(column)
    return {
        "study": study,
        "title": title or study,
        "samples": [_without_colours(sample) for sample in samples],
        # Pairs, as names of an object have meanings of their own in JavaScript.
        "schemes": {name: list(points.category_scheme(columns).items()) for name, columns in grouped.items()},
        "map": _colour_map("viridis"),
        # As in the painted composites of the histology stage.
        "channels": ["#ff3ba7", "#3bff6b", "#4d7cff"],
        "missing": plotting.UNLABELLED,
    }


def _without_colours(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sample says of itself without its own colours, which the study's schemes replace."""
    columns = [{key: value for key, value in column.items() if key != "colours"} for column in sample["columns"]]
    return {**sample, "columns": columns}


def _colour_map(name: str) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps[name](i / (MAP_STOPS - 1))) for i in range(MAP_STOPS)]


def write_site(
    about: Mapping[str, Any],
    *,
    web: Sequence[str | os.PathLike],
    page: Sequence[str | os.PathLike],
    study: str | os.PathLike,
) -> None:
    """Write the page.

    Parameters
    ----------
    about
        Of `study_about`.
    web
        The page's own files.
    page
        Where each of them is put.
    study
        Where the script that hands over `about` is put.
    """
    Path(study).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(about, allow_nan=False, separators=(",", ":"))
    Path(study).write_text(f'explorerData("study",{text});\n', encoding="utf-8")
    for source, target in zip(web, page, strict=True):
        shutil.copyfile(source, target)
