"""Where an image lies on a Xenium run: the matrix from its pixels to those of the run's morphology image.

Xenium Explorer and Xenium Ranger write it beside the image (``*_imagealignment.csv``, or ``matrix.csv`` when it is
exported): three lines of three numbers, the pixels of the image to the pixels of the morphology image.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from histoweft.errors import InputError
from histoweft.ingest.layout import check_file, column
from histoweft.ingest.section import Discovery

if TYPE_CHECKING:
    import pandas as pd

Matrix = tuple[tuple[float, float, float], ...]

MORPHOLOGY_UM = 0.2125
"""Micrometres per pixel of a Xenium run's morphology image, where ``experiment.xenium`` says nothing else."""
ALIGNED = ("none", "identity")
"""Words of the column alignment: the image shares the axes of the cells already."""
MOST_SKEWED = 1.1
"""A section on a slide is turned, moved and scaled; stretched more than this along one side it is no such section."""

_TABLE = re.compile(r"(?:alignment|matrix|transform\w*)[^/]*\.csv$", re.I)
_IMAGE_END = re.compile(r"(?:\.ome)?\.(?:tiff?|svs|btf|ndpi|png|jpe?g)(?:\.gz)?$", re.I)
_MORPHOLOGY = re.compile(r"(?:^|_)morphology(?:_focus|_mip)?(?:_\d+)?(?:\.ome)?\.tiff?$|^ch\d+_\w+\.ome\.tiff?$", re.I)
_EXPECTED = "three lines of three numbers with commas, image pixels to pixels of the run's morphology image"


def find(found: Discovery, given: str | Path, where: str) -> None:
    """Take the alignment of a Xenium image into the roles, or note that there is none.

    Parameters
    ----------
    found
        With its image; the role ``alignment`` is filled in where a matrix is to be used.
    given
        What the sheet's column alignment says: a file, ``none``, ``identity`` or nothing.
    where
        How faults name the sheet line.
    """
    text, place = str(given), column(where, "alignment")
    if found.image is None:
        if text and text.lower() not in ALIGNED and not found.faults:
            found.faults.add(place, f"{text}, without an image", "an image that it belongs to", "Fill in column image.")
        return
    if _MORPHOLOGY.search(found.image.name):
        found.image_faults.add(
            column(where, "image"),
            f"{found.image.name}, the run's own fluorescence image",
            "an H&E of the section, or nothing",
            "Fluorescence is no H&E: give the brightfield image taken after the run, with its alignment.",
        )
        return
    if text.lower() in ALIGNED:
        found.notes.choose("alignment", "the sheet says that image and cells share their axes")
        return
    if text:
        if check_file(Path(text), place, found.faults, "a csv with the alignment matrix"):
            found.roles["alignment"] = Path(text)
        return
    beside, others = _beside(found.image)
    if len(beside) == 1:
        found.roles["alignment"] = beside[0]
        return
    several = ", ".join(p.name for p in beside)
    belongs = f" ({', '.join(p.name for p in others[:3])} there is named after another image)" if others else ""
    found.image_faults.add(
        place,
        f"{len(beside)} alignment matrices beside {found.image.name}: {several}"
        if beside
        else f"nothing, and no alignment matrix beside {found.image.name}{belongs}",
        "the matrix that lays this image on the run (*_imagealignment.csv; Xenium Explorer exports it as matrix.csv)",
        "An H&E taken after the run is turned, moved and scaled against the cells: give the matrix, or `none` if this "
        "image was already brought to the cells' axes.",
    )


def _beside(image: Path) -> tuple[list[Path], list[Path]]:
    """Return the tables beside an image that are its alignment by name, and those of other images."""
    try:
        names = sorted(os.listdir(image.parent))
    except OSError:
        return [], []
    stem = _IMAGE_END.sub("", image.name).lower()
    stems = {stem, re.sub(r"[_-]image$", "", stem)}
    tables = [name for name in names if _TABLE.search(name) and "keypoint" not in name.lower()]
    own = [n for n in tables if any(n.lower().startswith(s) for s in stems)]
    # a longer name of another image may begin alike: he_2_imagealignment.csv is not that of he
    pictures = {_IMAGE_END.sub("", n).lower() for n in names if _IMAGE_END.search(n)} - {stem}
    pictures |= {re.sub(r"[_-]image$", "", p) for p in pictures} - stems
    longer = [p for p in pictures if any(p.startswith(s) and p != s for s in stems)]
    own = [n for n in own if not any(n.lower().startswith(p) for p in longer)]
    bare = [n for n in tables if re.fullmatch(r"(?:image)?(?:alignment|matrix|transform\w*)(?:_matrix)?\.csv", n, re.I)]
    taken = own or bare
    return [image.parent / n for n in taken], [image.parent / n for n in tables if n not in taken]


def read(path: Path) -> Matrix:
    """Read an alignment matrix.

    Raises
    ------
    InputError
        It is no 3 x 3 matrix of a plane that is turned, moved and scaled.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [re.split(r"[,;\t]|\s+", line.strip().strip(",;")) for line in text.splitlines() if line.strip(" ,;\t")]
    lines = [[value.strip().strip('"') for value in line if value.strip()] for line in lines]
    if lines and re.search(r"fixed_?x|alignment_?x", "".join(lines[0]), re.I):
        hint = "These are key points. Export the transformation matrix from Xenium Explorer."
        raise InputError.one(path, "pairs of key points", _EXPECTED, hint)
    try:
        rows = tuple(tuple(float(value) for value in line) for line in lines)
    except ValueError:
        raise InputError.one(path, f"text that is no number ({', '.join(lines[0])[:60]})", _EXPECTED) from None
    if [len(row) for row in rows] != [3, 3, 3]:
        raise InputError.one(path, f"{len(rows)} lines of {'/'.join(str(len(r)) for r in rows[:4])} values", _EXPECTED)
    return _checked(path, rows)


def _checked(path: Path, rows: Matrix) -> Matrix:
    if not all(math.isfinite(value) for row in rows for value in row):
        raise InputError.one(path, "a matrix with values that are not finite", _EXPECTED)
    last = rows[2]
    if last[2] == 0 or max(abs(last[0]), abs(last[1])) > 1e-9 * abs(last[2]):
        found = f"a last line of {last[0]:g}, {last[1]:g}, {last[2]:g}"
        raise InputError.one(path, found, "0, 0, 1", "The matrix holds a perspective, or is turned on its diagonal.")
    rows = tuple(tuple(value / last[2] for value in row) for row in rows)
    large, small = _scales(rows)
    if not small > 1e-9 * large:
        raise InputError.one(path, "a matrix without inverse", _EXPECTED, "It maps the image to a line or a point.")
    if large > MOST_SKEWED * small:
        found = f"a matrix that stretches the image {large / small:.3g} times more along one side than along the other"
        raise InputError.one(path, found, "one that turns, moves and scales it", "Align the image again.")
    return rows


def determinant(matrix: Matrix) -> float:
    """Return by how much areas grow."""
    (a, b, _), (c, d, _), _ = matrix
    return a * d - b * c


def _scales(matrix: Matrix) -> tuple[float, float]:
    """Return the largest and the smallest factor by which lengths grow (the singular values)."""
    (a, b, _), (c, d, _), _ = matrix
    mean = (a * a + b * b + c * c + d * d) / 2
    gap = math.sqrt(max(0.0, mean * mean - determinant(matrix) ** 2))
    return math.sqrt(mean + gap), math.sqrt(max(0.0, mean - gap))


def morphology_um(experiment: Path | None) -> float:
    """Return micrometres per pixel of the run's morphology image, from ``experiment.xenium``."""
    if experiment is None:
        return MORPHOLOGY_UM
    try:
        size = json.loads(experiment.read_text(encoding="utf-8")).get("pixel_size")
    except (ValueError, AttributeError):
        raise InputError.one(experiment, "text that is no JSON", "the run's facts, with pixel_size") from None
    if size is None:
        return MORPHOLOGY_UM
    if not isinstance(size, (int, float)) or not 0 < size < 100:
        raise InputError.one(experiment, f"a pixel_size of {size!r}", "micrometres per pixel of the morphology image")
    return float(size)


def to_image(xy_um: pd.DataFrame, matrix: Matrix, pixel_um: float) -> tuple[pd.DataFrame, float]:
    """Bring cells onto the image.

    Parameters
    ----------
    xy_um
        Columns x and y, micrometres of the run.
    matrix
        Pixels of the image to pixels of the morphology image.
    pixel_um
        Micrometres per pixel of the morphology image.

    Returns
    -------
    positions
        Columns x and y in pixels of the image.
    mpp
        Micrometres per pixel of the image.
    """
    import numpy as np

    inverse = np.linalg.inv(np.asarray(matrix, float))
    placed = xy_um[["x", "y"]].to_numpy(float) / pixel_um @ inverse[:2, :2].T + inverse[:2, 2]
    positions = xy_um.copy()
    positions["x"], positions["y"] = placed[:, 0], placed[:, 1]
    return positions, pixel_um * math.sqrt(abs(determinant(matrix)))
