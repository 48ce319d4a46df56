"""How large a study's inputs are, by the headers of its files: no counts and no pixels are read."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histoweft.report.costs import Size, counts_size

FILLED = 0.2
"""Share of a table's cells that are taken to hold a count, where no header tells."""

PACKED = 4.0
"""Bytes of text for a byte of gzip, where no header tells."""

SIMULATED_VALUES, SIMULATED_PIXELS = 770.0, 1.6e-3
"""Stored counts, and million pixels, for each spot of a simulated section."""


def section_size(roles: Mapping[str, Path], image: Path | None, mpp: float | None, working_mpp: float) -> Size:
    """Return the size of a section.

    Parameters
    ----------
    roles
        Role to file, as the ingest stage found them: ``matrix`` and its companions.
    image
        Its image, or None.
    mpp
        Micrometres per pixel of that image; None unknown, in which case it is taken to stay as it is.
    working_mpp
        Micrometres per pixel of the working image.

    Raises
    ------
    OSError, ValueError, KeyError
        A header cannot be read.
    """
    matrix = next((Path(roles[role]) for role in ("matrix", "counts", "path") if role in roles), None)
    size = (matrix_size(matrix) if matrix else Size()) + Size(sections=1)
    if image is None:
        return size
    shrink = 1.0 if mpp is None or not math.isfinite(mpp) else min(1.0, mpp / working_mpp)
    return size + Size(megapixels=image_pixels(image) / 1e6 * shrink**2)


def matrix_size(path: Path) -> Size:
    """Return the size of a count matrix: 10x h5, h5ad, loom, mtx, or a table (then roughly)."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".h5", ".h5ad", ".loom")):
        return _hdf5_size(path)
    return _mtx_size(path) if name.endswith(".mtx") else _table_size(path)


def _hdf5_size(path: Path) -> Size:
    import h5py

    with h5py.File(path, "r") as file:
        if "X" not in file:
            matrix = file["matrix"]
            if isinstance(matrix, h5py.Dataset):  # loom: genes x cells
                return Size(values=FILLED * math.prod(matrix.shape) / 1e6, spots=matrix.shape[1] / 1e3)
            return Size(values=matrix["data"].shape[0] / 1e6, spots=int(matrix["shape"][1]) / 1e3)  # 10x
    return counts_size(path)


def _open(path: Path) -> Any:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    return opener(path, "rt", encoding="utf-8", errors="replace")


def _mtx_size(path: Path) -> Size:
    """Return what the size line of a MatrixMarket file says: genes, barcodes, stored values."""
    with _open(path) as stream:
        line = next(line for line in stream if not line.startswith("%"))
    _, barcodes, values = map(int, line.split())
    return Size(values=values / 1e6, spots=barcodes / 1e3)


def _table_size(path: Path) -> Size:
    """Guess the size of a spots x genes table from its first two lines and its bytes."""
    with _open(path) as stream:
        header, first = stream.readline(), stream.readline()
    columns = len(re.split(r"[\t,]", header.strip()))
    size = path.stat().st_size * (PACKED if path.name.lower().endswith(".gz") else 1.0)
    rows = max(1.0, (size - len(header)) / max(len(first), 1))
    return Size(values=FILLED * rows * columns / 1e6, spots=rows / 1e3)


def image_pixels(path: Path) -> int:
    """Return how many pixels an image has; one inside an HDF5 file says which ``dataset`` it is."""
    if dataset := getattr(path, "dataset", ""):
        import h5py

        with h5py.File(path.path, "r") as file:
            return math.prod(sorted(file[dataset].shape)[-2:])
    if re.search(r"\.(tiff?|svs|btf|ndpi)$", path.name, re.IGNORECASE):
        import tifffile

        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            axes = series.axes.upper()
            return int(series.shape[axes.index("Y")]) * int(series.shape[axes.index("X")])
    import warnings

    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(path) as image:
                return image.width * image.height
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def image_mpp(scalefactors: Path | None, kind: str, given: float | None) -> float | None:
    """Return the micrometres per pixel of an image, from the sheet or Space Ranger's scale factors; None unknown."""
    facts = {}
    if scalefactors is not None and scalefactors.is_file():
        facts = json.loads(scalefactors.read_text(encoding="utf-8"))
    mpp = given or facts.get("microns_per_pixel")
    if mpp is None and facts.get("spot_diameter_fullres"):
        mpp = 55.0 / float(facts["spot_diameter_fullres"])
    if mpp is None:
        return None
    scale = facts.get({"hires": "tissue_hires_scalef", "lowres": "tissue_lowres_scalef"}.get(kind, ""), 1.0)
    return float(mpp) / float(scale or 1.0)


def simulated_size(spots: int) -> Size:
    """Return about how large a simulated section is."""
    return Size(
        values=spots * SIMULATED_VALUES / 1e6, spots=spots / 1e3, megapixels=spots * SIMULATED_PIXELS, sections=1
    )
