"""Xenium output folders: cell_feature_matrix and the cells table (coordinates in micrometres)."""

from __future__ import annotations

import re
from pathlib import Path

from histoweft.errors import Faults
from histoweft.ingest.layout import check_readable, given_image, nearest_there, one_prefix, open_folder, trio_below
from histoweft.ingest.section import NAN, Discovery, Notes, RawSection, SampleInput

MATRIX = re.compile(r"cell_feature_matrix\.h5$", re.I)
CELLS = re.compile(r"cells\.(?:parquet|csv|csv\.gz)$", re.I)


def discover(path: Path, image: str | Path = "", where: str = "", **options) -> Discovery:
    """Find the matrix (h5 or mtx trio) and the cells table (parquet or csv) of a Xenium folder or its ``outs``."""
    found = Discovery()
    expected = "a Xenium output folder"
    folder = open_folder(path, where, found.faults, expected, prefix_ok=True)
    if folder is None:
        return found
    if "outs" in folder.folders and not folder.matching(MATRIX):
        folder = open_folder(path / "outs", where, found.faults, expected)
        if folder is None:
            return found
    matrix = one_prefix(folder.matching(MATRIX), MATRIX, found.faults, where, "matrices")
    trio = trio_below(folder.path / f"{folder.prefix}cell_feature_matrix") if matrix is None else None
    if matrix is not None:
        found.roles["matrix"] = matrix
    elif trio:
        found.roles.update(trio)
    elif not found.faults:
        found.faults.add(
            where,
            f"no count matrix {folder.summary()}",
            "cell_feature_matrix.h5, or the folder cell_feature_matrix/ with matrix.mtx.gz, barcodes.tsv.gz and "
            "features.tsv.gz",
            nearest_there("cell_feature_matrix.h5", folder.names + folder.folders),
        )
    cells = sorted(folder.matching(CELLS), key=lambda p: "parquet" not in p.name)
    cells = one_prefix(cells, CELLS, found.faults, where, "cells tables")
    if cells is not None:
        found.roles["cells"] = cells
    elif not folder.matching(CELLS):
        found.faults.add(
            where,
            f"no cells table {folder.summary()}",
            "cells.parquet or cells.csv.gz",
            nearest_there("cells.csv.gz", folder.names),
        )
    given_image(image, where, found)
    check_readable(found, where)
    return found


def read(sample: SampleInput, found: Discovery, faults: Faults, notes: Notes) -> RawSection | None:
    """Read one Xenium sample.

    Coordinates are micrometres: one "pixel" is one micrometre, unless the sheet's mpp (or the image's own
    metadata) says how many micrometres a pixel of the image has.
    """
    import numpy as np
    import pandas as pd

    from histoweft.ingest import tables

    matrix = tables.read_matrix(found.roles, faults, notes)
    cells = None
    path = found.roles["cells"]
    with tables.attempt(faults, path, "a table with cell_id, x_centroid, y_centroid"):
        cells = tables.read_table(path)
        tables.require_columns(cells, ["cell_id", "x_centroid", "y_centroid"], path)
        ids = tables.decode(cells["cell_id"].to_numpy())
        cells.index = pd.Index(ids, name="barcode")
        xy = tables.numeric_columns(cells, ["x_centroid", "y_centroid"], path)
    mpp = pixel_size(sample, found, faults)
    if matrix is None or cells is None or faults:
        return None
    positions = xy.rename(columns={"x_centroid": "x", "y_centroid": "y"}) / mpp
    diameter = NAN
    for name in ("cell_area", "nucleus_area"):
        if name in cells:
            positions[f"{name}_um2"] = pd.to_numeric(cells[name], errors="coerce").to_numpy(float)
    if "cell_area_um2" in positions:  # the disc of the median cell's area: only how large a cell is drawn
        diameter = float(2 * np.sqrt(np.nanmedian(positions["cell_area_um2"]) / np.pi))
    return RawSection(
        **matrix,
        positions=positions,
        mpp=mpp,
        spot_diameter_um=float(sample.option("spot_diameter_um") or diameter),
        image_scale=float(sample.option("image_scale") or 1.0) if found.image else NAN,
        counts_where=str(found.roles["matrix"]),
    )


def pixel_size(sample: SampleInput, found: Discovery, faults: Faults) -> float:
    """Return micrometres per pixel: the sheet's, the image's own, or 1 without an image."""
    from histoweft.ingest import image, tables

    if sample.mpp and sample.mpp > 0:
        return float(sample.mpp)
    if found.image is None:
        return 1.0
    size = NAN
    with tables.attempt(faults, found.image, "an image"):
        size = image.image_mpp(found.image)
        if not size > 0:
            tables.stop(
                sample.at("mpp"),
                f"nothing, and {found.image.name} does not say its pixel size",
                "micrometres per pixel of the image",
                "Cells are placed in micrometres: without it they cannot be put on the image.",
            )
    return size
