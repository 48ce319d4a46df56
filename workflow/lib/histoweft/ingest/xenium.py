"""Xenium output folders: cell_feature_matrix and the cells table (coordinates in micrometres)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from histoweft.errors import Faults
from histoweft.ingest import alignment
from histoweft.ingest.layout import (
    Folder,
    check_prefixes,
    check_readable,
    given_image,
    nearest_there,
    one_prefix,
    open_folder,
    trio_below,
    unpack_hint,
)
from histoweft.ingest.section import NAN, Discovery, Notes, RawSection, SampleInput

if TYPE_CHECKING:
    import pandas as pd

MATRIX = re.compile(r"cell_feature_matrix\.h5$", re.I)
EXPERIMENT = re.compile(r"experiment\.xenium$", re.I)
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
            unpack_hint(MATRIX, folder.names)
            or unpack_hint("cell_feature_matrix", folder.names)
            or nearest_there("cell_feature_matrix.h5", folder.names),
        )
    cells = _find_cells(found, folder, where)
    if matrix is not None and cells is not None:
        check_prefixes([(matrix, MATRIX), (cells, CELLS)], where, found.faults)
    given_image(image, where, found)
    alignment.find(found, options.get("alignment", ""), where)
    if "alignment" in found.roles and (facts := folder.matching(EXPERIMENT)):
        found.roles["experiment"] = facts[0]
    check_readable(found, where)
    return found


def _find_cells(found: Discovery, folder: Folder, where: str) -> Path | None:
    """Fill in the cells table of an opened folder, and return it."""
    cells = sorted(folder.matching(CELLS), key=lambda p: "parquet" not in p.name)
    cells = one_prefix(cells, CELLS, found.faults, where, "cells tables")
    if cells is not None:
        found.roles["cells"] = cells
    elif not folder.matching(CELLS):
        found.faults.add(
            where,
            f"no cells table {folder.summary()}",
            "cells.parquet or cells.csv.gz",
            unpack_hint(CELLS, folder.names) or nearest_there("cells.csv.gz", folder.names),
        )
    return cells


def read(sample: SampleInput, found: Discovery, faults: Faults, notes: Notes) -> RawSection | None:
    """Read one Xenium sample.

    Coordinates are micrometres: one "pixel" is one micrometre without an image. With one, cells are brought to its
    pixels by its alignment matrix; or, where the sheet says that it shares their axes, by its pixel size alone.
    """
    import numpy as np
    import pandas as pd

    from histoweft.ingest import tables

    matrix = tables.read_matrix(found.roles, faults, notes)
    cells = xy = None
    path = found.roles["cells"]
    with tables.attempt(faults, path, "a table with cell_id, x_centroid, y_centroid"):
        cells = tables.read_table(path)
        cells = cells if "cell_id" in cells or cells.index.name != "cell_id" else cells.reset_index()
        tables.require_columns(cells, ["cell_id", "x_centroid", "y_centroid"], path)
        ids = tables.decode(cells["cell_id"].to_numpy())
        cells.index = pd.Index(ids, name="barcode")
        xy = tables.numeric_columns(cells, ["x_centroid", "y_centroid"], path)
    mpp = NAN
    if xy is not None:
        xy = xy.rename(columns={"x_centroid": "x", "y_centroid": "y"})
        positions, mpp = _placed(sample, found, xy, faults, notes)
    if matrix is None or xy is None or faults:
        return None
    if "transcript_counts" in cells:
        _check_transcripts(matrix, pd.to_numeric(cells["transcript_counts"], errors="coerce"), found, faults)
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


def _check_transcripts(matrix: dict, told: pd.Series, found: Discovery, faults: Faults) -> None:
    """Note a fault where the cells table counts other transcripts than the matrix: it is that of another sample.

    Cells of different samples may have the same names; ``transcript_counts`` is the sum of a cell's genes.
    """
    import numpy as np

    from histoweft.ingest import features

    types = features.feature_types(matrix["gene_names"], matrix["gene_ids"], matrix["feature_types"])
    genes = np.flatnonzero(types == features.GENE)
    if told.index.has_duplicates or not len(genes):
        return
    sums = np.asarray(matrix["counts"][:, genes].sum(axis=1)).ravel()
    told = told.reindex(matrix["barcodes"].astype(str)).to_numpy(float)
    known = np.isfinite(told)
    other = known & (told != sums)
    if other.sum() > 0.1 * max(known.sum(), 1):
        first = int(np.flatnonzero(other)[0])
        faults.add(
            f"{found.roles['cells']} and {found.roles['matrix']}",
            f"{int(other.sum())} of {int(known.sum())} cells with another number of transcripts in the one than in the "
            f"other (cell {matrix['barcodes'][first]}: {told[first]:.0f} and {sums[first]:.0f})",
            "the cells table and the matrix of one run: transcript_counts is the sum of a cell's genes",
            "Give the two files of one run.",
        )


def _placed(
    sample: SampleInput, found: Discovery, xy: pd.DataFrame, faults: Faults, notes: Notes
) -> tuple[pd.DataFrame, float]:
    """Return the cells in pixels of the image, and micrometres per pixel."""
    from histoweft.ingest import image, tables

    if found.image_faults:
        with tables.attempt(faults, found.image, "an image"):
            image.image_size(found.image)
            faults.extend(found.image_faults)
        return xy, NAN
    if "alignment" not in found.roles:
        mpp = pixel_size(sample, found, faults)
        return xy / mpp, mpp
    path, mpp = found.roles["alignment"], NAN
    with tables.attempt(faults, path, "an alignment matrix"):
        matrix = alignment.read(path)
        pixel_um = alignment.morphology_um(found.roles.get("experiment"))
        xy, mpp = alignment.to_image(xy, matrix, pixel_um)
        said = sample.mpp or image.image_mpp(found.image) * float(sample.option("image_scale") or 1.0)
        _check_pixel_size(path, mpp, float(said), pixel_um, float(sample.option("mpp_tolerance")))
        taken = f"{path.name}, which gives {mpp:.4g} um per pixel of {found.image.name}"
        notes.choose("alignment", taken)
        if alignment.determinant(matrix) < 0:
            notes.add("mirrored", f"{path.name} mirrors the image: was it taken from the other side of the slide?")
    return xy, mpp


def _check_pixel_size(path: Path, mpp: float, said: float, pixel_um: float, tolerance: float) -> None:
    """Refuse a matrix whose scale contradicts what image or sheet say of a pixel."""
    from histoweft.ingest import tables

    if not said > 0 or abs(mpp / said - 1) <= tolerance:
        return
    other_way = pixel_um**2 / mpp
    hint = "Is it the matrix of another image, or of another resolution of this one?"
    if abs(other_way / said - 1) <= tolerance:
        hint = "It fits the other way round: give its inverse."
    found = f"a matrix by which a pixel of the image has {mpp:.4g} um"
    tables.stop(path, found, f"the {said:.4g} um that the image or the sheet say", hint)


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
