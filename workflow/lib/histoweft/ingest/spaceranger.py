"""Space Ranger folders: Visium (spots on a hexagonal grid) and Visium HD (square bins)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from histoweft.errors import Faults
from histoweft.ingest.layout import (
    MATRIX_H5,
    TRIO,
    Folder,
    check_file,
    check_prefixes,
    check_readable,
    column,
    find_matrix,
    given_image,
    image_kind,
    matrix_hint,
    nearest_there,
    one_prefix,
    open_folder,
    prefix_of,
    unpack_hint,
)
from histoweft.ingest.section import NAN, Discovery, Notes, RawSection, SampleInput

if TYPE_CHECKING:
    import pandas as pd

POSITIONS = re.compile(r"tissue_positions(?:_list)?\.(?:csv|txt|tsv|parquet)(?:\.gz)?$", re.I)
SCALEFACTORS = re.compile(r"scalefactors_json\.json(?:\.gz)?$", re.I)
IMAGE = re.compile(r"tissue_(?:hires|lowres)_image\.(?:png|jpe?g|tiff?)(?:\.gz)?$", re.I)
SEGMENTED = re.compile(r"(?:filtered|raw)_feature_cell_matrix", re.I)
BIN = re.compile(r"square_(\d{3})um$")
COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
MISSING_SHARE = 0.05  # of the spots under tissue, from which their lack in the matrix is told
OTHER_NAMES = {
    "barcodes": "barcode", "tissue": "in_tissue", "row": "array_row", "col": "array_col", "imagerow":
    "pxl_row_in_fullres", "imagecol": "pxl_col_in_fullres", "pxl_row": "pxl_row_in_fullres", "pxl_col":
    "pxl_col_in_fullres",
}  # fmt: skip
VISIUM_PITCH_UM = 100.0  # centre to centre of neighbouring spots (10x Genomics Visium slide specification)
DIAMETERS = (0.4, 0.9)  # what Space Ranger's versions call a spot's diameter, as a share of the pitch (0.55 to 0.73)
VISIUM_SPOT_UM = 55.0  # spot diameter, same source


def discover(path: Path, image: str | Path = "", where: str = "", positions: str | Path = "", **options) -> Discovery:
    """Find the files of one Visium sample.

    `path` is its folder, the ``outs`` in it, ``folder/prefix_``, or the count matrix alone (``.h5``); `positions` is
    the folder ``spatial/``, where it does not lie beside the counts.
    """
    found = Discovery()
    if str(positions) and path.suffix.lower() == ".h5" and not path.is_dir():
        if check_file(path, where, found.faults, "a Space Ranger output folder, or its count matrix (.h5)"):
            found.roles["matrix"] = path
            _note_raw(found, path.name)
            _fill_spatial(found, _given_spatial(positions, found, where), [], image, where)
        return found
    expected = (
        "a Space Ranger output folder (or its outs/), folder/prefix of prefixed files, or a count matrix (.h5) with "
        "its spatial/ in the column positions"
    )
    folder = open_folder(path, where, found.faults, expected, prefix_ok=True)
    if folder is None:
        return found
    if "outs" in folder.folders and not _holds_matrix(folder):
        folder = open_folder(path / "outs", where, found.faults, expected)
        if folder is None:
            return found
    if "binned_outputs" in folder.folders:
        found.faults.add(where, f"binned_outputs/ in {folder.path}", "a Visium folder", "Use platform visium_hd.")
        return found
    if _is_segmented(found, folder, where, "a Visium folder"):
        return found
    _fill_matrix(found, folder, where)
    spatial = _given_spatial(positions, found, where) if str(positions) else _spatial(folder, _prefix(found))
    _fill_spatial(found, spatial, [], image, where)
    _note_shared(found, folder, spatial)
    return found


def _note_shared(found: Discovery, folder: Folder, spatial: Folder | None) -> None:
    """Say that a folder with several samples' matrices has one spatial/ without prefix: whose it is nobody knows."""
    matrices = [Path(name) for name in folder.names if MATRIX_H5.search(name)]
    prefixes = {prefix_of(path, MATRIX_H5) for path in matrices}
    if folder.prefix and len(prefixes) > 1 and spatial is not None and not spatial.prefix and found.roles:
        notes = f"{spatial.path} carries no prefix, and {folder.path} holds {len(prefixes)} samples"
        found.notes.add("unproven_positions", f"{notes}: whose positions and image these are is not proven")


def _is_segmented(found: Discovery, folder: Folder, where: str, expected: str) -> bool:
    """Note that a folder holds the segmented cells of Space Ranger 4, and no spots or bins."""
    here = [name for name in folder.names + folder.folders if SEGMENTED.search(name)]
    if _holds_matrix(folder) or not (here or "segmented_outputs" in folder.folders):
        return False
    top = folder.path.parent if here else folder.path
    bins = top / "binned_outputs"
    there = (
        f"Use platform visium_hd with path {top}, which reads {bins.name}/ there"
        if bins.is_dir()
        else ("Use platform visium_hd with the folder that holds binned_outputs/")
    )
    found.faults.add(
        where,
        f"segmented cells of Space Ranger 4 ({here[0] if here else 'segmented_outputs/'}) in {folder.path}, which "
        "are not read",
        expected,
        f"{there}, or write the cells with their places as an .h5ad.",
    )
    return True


def _prefix(found: Discovery) -> str:
    """Return the prefix of the matrix that was found; empty without one."""
    matrix = found.roles.get("matrix")
    return prefix_of(matrix, TRIO["matrix"] if "barcodes" in found.roles else MATRIX_H5) if matrix else ""


def _given_spatial(positions: str | Path, found: Discovery, where: str) -> Folder | None:
    """Open the folder that the sheet's column positions names: ``spatial/``, or one that holds it."""
    expected = "the section's folder spatial/"
    folder = open_folder(Path(positions), column(where, "positions"), found.faults, expected)
    return None if folder is None else _spatial(folder)


def discover_hd(path: Path, image: str | Path = "", where: str = "", bin_um: int = 8, **options) -> Discovery:
    """Find the files of one Visium HD sample at one bin size; any level of the folder tree may be given."""
    found = Discovery()
    expected = "a Space Ranger output folder with binned_outputs/"
    folder = open_folder(path, where, found.faults, expected)
    if folder is None:
        return found
    top = [folder]
    for name in ("outs", "binned_outputs"):
        if name in folder.folders:
            folder = open_folder(folder.path / name, where, found.faults, expected)
            if folder is None:
                return found
            top.append(folder)
    if _is_segmented(found, folder, where, expected):
        return found
    wanted = f"square_{int(bin_um):03d}um"
    if not BIN.search(folder.path.name):
        bins = [name for name in folder.folders if BIN.search(name)]
        if wanted not in bins:
            has = ", ".join(bins)
            hint = f"Bin sizes present: {', '.join(str(int(BIN.search(b).group(1))) for b in bins)}." if bins else ""
            missing = f"no {wanted} ({has})" if bins else f"no {wanted} {folder.summary()}"
            found.faults.add(column(where, "bin_um"), missing, expected, hint)
            return found
        folder = open_folder(folder.path / wanted, where, found.faults, expected)
        if folder is None:
            return found
    elif folder.path.name != wanted:
        found.faults.add(where, f"{folder.path.name} with bin_um {bin_um}", wanted, "Make the two agree.")
        return found
    _fill_matrix(found, folder, where)
    _fill_spatial(found, _spatial(folder), list(reversed(top)), image, where)
    return found


def _holds_matrix(folder: Folder) -> bool:
    return bool(find_matrix(folder, Faults(), ""))


def _fill_matrix(found: Discovery, folder: Folder, where: str) -> None:
    """Fill in the matrix of an opened folder."""
    before = len(found.faults.items)
    found.roles.update(find_matrix(folder, found.faults, where))
    if not found.roles and len(found.faults.items) == before:
        found.faults.add(
            where,
            f"no count matrix {folder.summary()}",
            "filtered_feature_bc_matrix.h5, or the folder filtered_feature_bc_matrix/ with matrix.mtx.gz, "
            "barcodes.tsv.gz and features.tsv.gz",
            matrix_hint(folder, MATRIX_H5, "filtered_feature_bc_matrix.h5"),
        )
    if "matrix" in found.roles:
        _note_raw(found, str(found.roles["matrix"].relative_to(folder.path)))


def _note_raw(found: Discovery, matrix: str) -> None:
    """Say that spots off the tissue are in the matrix, where only the raw one is there."""
    if "raw_" in matrix:
        name = found.roles["matrix"].name
        found.notes.add("raw_matrix", f"only the raw matrix is there ({name}): kept in-tissue spots")


def _fill_spatial(
    found: Discovery, spatial: Folder | None, image_homes: list[Folder], image: str | Path, where: str
) -> None:
    """Fill in positions, scale factors and image from the folder with the positions; images also from further ones."""
    if spatial is not None:
        _fill_positions(found, spatial, where)
    if not given_image(image, where, found) and spatial is not None:
        for home in [spatial, *map(_spatial, image_homes)]:
            images = sorted(home.matching(IMAGE), key=lambda p: "lowres" in p.name)
            image_file = one_prefix(images, IMAGE, found.faults, where, "images")
            if image_file is not None:
                found.image, found.image_kind = image_file, image_kind(image_file.name)
            if images:
                break
    if found.image is not None and found.image_kind == "given":
        found.image_kind = "fullres"  # a file of one's own is taken as the picture Space Ranger was given
    matrix = (found.roles.get("matrix"), TRIO["matrix"] if "barcodes" in found.roles else MATRIX_H5)
    roles = [matrix, (found.roles.get("positions"), POSITIONS), (found.roles.get("scalefactors"), SCALEFACTORS)]
    if found.image_kind in ("hires", "lowres"):
        roles.append((found.image, IMAGE))
    check_prefixes([(path, pattern) for path, pattern in roles if path], where, found.faults)
    check_readable(found, where)


def _fill_positions(found: Discovery, spatial: Folder, where: str) -> None:
    """Fill in the positions and the scale factors of an opened folder."""
    before = len(found.faults.items)
    positions = one_prefix(
        sorted(spatial.matching(POSITIONS), key=_preference), POSITIONS, found.faults, where, "positions"
    )
    if positions is not None:
        found.roles["positions"] = positions
    elif len(found.faults.items) == before or not spatial.matching(POSITIONS):
        found.faults.add(
            where,
            f"no spot positions {spatial.summary()}",
            "spatial/tissue_positions.csv (or tissue_positions_list.csv, or .parquet)",
            unpack_hint("spatial", spatial.names)
            or unpack_hint(POSITIONS, spatial.names)
            or nearest_there("tissue_positions.csv", spatial.names),
        )
    scale = one_prefix(spatial.matching(SCALEFACTORS), SCALEFACTORS, found.faults, where, "scale factors")
    if scale is not None:
        found.roles["scalefactors"] = scale


def _preference(path: Path) -> tuple:
    name = path.name.lower()
    return ("parquet" in name, "_list" in name, name)


def _spatial(folder: Folder, prefix: str = "") -> Folder:
    """Return the folder with the positions: ``spatial/``, ``<prefix>spatial/``, or the folder itself.

    The sample's prefix (the path's, or that of the matrix) goes along where files in it carry it.
    """
    prefix = folder.prefix or prefix
    names = [n for n in folder.folders if n.lower() == "spatial" and not folder.prefix]
    names += [n for n in folder.folders if n.startswith(folder.prefix) and n.lower().endswith("spatial")]
    names += [n for n in folder.folders if n.lower() == "spatial"]
    for name in names:
        try:
            inner = Folder.list(folder.path / name)
        except OSError:
            continue
        inner.prefix = prefix if any(n.startswith(prefix) for n in inner.names) else ""
        return inner
    if not folder.prefix and any(POSITIONS.search(n) and n.startswith(prefix) for n in folder.names):
        folder = Folder(folder.path, prefix, folder.names, folder.folders)
    return folder


def read(sample: SampleInput, found: Discovery, faults: Faults, notes: Notes) -> RawSection | None:
    """Read one Visium sample: matrix, positions, scale factors."""
    import numpy as np

    from histoweft.ingest import checks

    raw = _read(sample, found, faults, notes)
    if raw is None:
        return None
    pitch = float(sample.option("spot_pitch_um") or VISIUM_PITCH_UM)
    raw.spot_diameter_um = float(sample.option("spot_diameter_um") or VISIUM_SPOT_UM * pitch / VISIUM_PITCH_UM)
    checks.check_lattice(raw.positions, str(found.roles["positions"]), faults)
    # neighbours in one row are two columns apart; rows lie pitch * sqrt(3) / 2 apart
    raw.mpp_estimate = checks.mpp_from_lattice(raw.positions, row_um=pitch * 3**0.5 / 2, col_um=pitch / 2, notes=notes)
    raw.mpp_source = f"the spot pitch ({pitch:g} um)"
    spot = raw.spot_px * raw.mpp_estimate / pitch
    if np.isfinite(spot) and sample.option("spot_pitch_um") is None and not DIAMETERS[0] < spot < DIAMETERS[1]:
        _other_scale(found, f"spot_diameter_fullres {raw.spot_px:.4g}", raw.spot_px / spot * 0.55, faults)
    return raw


def read_hd(sample: SampleInput, found: Discovery, faults: Faults, notes: Notes) -> RawSection | None:
    """Read one Visium HD sample at one bin size."""
    from histoweft.ingest import checks

    raw = _read(sample, found, faults, notes)
    if raw is None:
        return None
    bin_um = float(sample.option("bin_um"))
    raw.spot_diameter_um = float(sample.option("spot_diameter_um") or bin_um)
    checks.check_lattice(raw.positions, str(found.roles["positions"]), faults)
    raw.mpp_estimate = checks.mpp_from_lattice(raw.positions, row_um=bin_um, col_um=bin_um, notes=notes)
    raw.mpp_source = f"the bin size ({bin_um:g} um)"
    if (said := raw.stored["bin_size_um"]) > 0 and said != bin_um:
        faults.add(
            str(found.roles["scalefactors"]),
            f"bin_size_um {said:g}",
            f"{bin_um:g}, as the bins beside it",
            "These are the scale factors of another bin size: give those written with the positions.",
        )
    if abs(raw.mpp / raw.mpp_estimate - 1) > float(sample.option("mpp_tolerance")):
        _other_scale(found, f"microns_per_pixel {raw.mpp:.4g}", raw.mpp_estimate, faults)
    return raw


def _other_scale(found: Discovery, said: str, wanted: float, faults: Faults) -> None:
    """Note that the scale factors are of a section under another magnification than the positions."""
    faults.add(
        str(found.roles["scalefactors"]),
        said,
        f"about {wanted:.4g}, as the distances in {found.roles['positions'].name} say",
        "These are the scale factors of another section: give those written with the positions.",
    )


def _read(sample: SampleInput, found: Discovery, faults: Faults, notes: Notes) -> RawSection | None:
    """Read what Visium and Visium HD share; None when a part could not be read."""
    from histoweft.ingest import image_checks, tables

    matrix = tables.read_matrix(found.roles, faults, notes)
    positions = None
    with tables.attempt(faults, found.roles["positions"], f"six columns: {', '.join(COLUMNS)}"):
        positions = read_positions(found.roles["positions"])
    scale: dict | None = {}
    if "scalefactors" in found.roles:
        scale = None
        with tables.attempt(faults, found.roles["scalefactors"], "Space Ranger's scale factors (JSON)"):
            scale = tables.read_json(found.roles["scalefactors"])
    image_scale, frame = NAN, None
    if found.image is not None and scale is not None:
        frame = image_checks.check_scales(found, scale, float(sample.option("image_scale") or 0), faults)
        with tables.attempt(faults, found.image, "an image whose scale is known"):
            image_scale = image_scale_for(found, scale, sample, notes)
    if matrix is None or positions is None or faults:
        return None
    if "raw_" not in "/".join(found.roles["matrix"].parts[-2:]) and not sample.option("keep_off_tissue"):
        _check_tissue(matrix["barcodes"], positions, found, faults, notes)
    return RawSection(
        **matrix,
        positions=positions,
        mpp=_positive(scale.get("microns_per_pixel")),
        spot_px=_positive(scale.get("spot_diameter_fullres")),
        stored={"bin_size_um": _positive(scale.get("bin_size_um"))},
        image_scale=image_scale,
        image_frame=frame,
        counts_where=str(found.roles["matrix"]),
    )


def _check_tissue(barcodes, positions: pd.DataFrame, found: Discovery, faults: Faults, notes: Notes) -> None:
    """Note a fault where a matrix holds other spots than those its positions call under tissue.

    All slides share their barcodes: that these meet proves nothing. Space Ranger's filtered matrix holds the spots
    under tissue and no others; a matrix of all spots is a raw one, whatever its name.
    """
    import pandas as pd

    from histoweft.ingest.checks import without_suffix

    tissue = positions["in_tissue"].to_numpy()
    names, others = pd.Index(barcodes), positions.index
    if not tissue.all() and not others.isin(names).any():
        names, others = without_suffix(names), without_suffix(others)
    if tissue.all() or others.isin(names).all():
        return
    off, under = int(names.isin(others[~tissue]).sum()), int(tissue.sum())
    missing = int((~others[tissue].isin(names)).sum())
    if off:
        faults.add(
            f"{found.roles['matrix']} and {found.roles['positions']}",
            f"{off} of {len(names)} barcodes of the matrix on spots that the positions call off tissue (in_tissue 0), "
            f"and {missing} of {under} spots under tissue without a barcode",
            "the matrix and the positions of one section: a filtered matrix holds spots under tissue only",
            "Find the positions that Space Ranger wrote with this matrix. If in_tissue was changed by hand, give the "
            "raw matrix, of which the spots under tissue are taken.",
        )
    elif missing > MISSING_SHARE * under:
        notes.add("tissue_without_counts", f"{missing} of {under} spots under tissue have no barcode in the matrix")


def _positive(value: object) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return NAN
    return number if number > 0 else NAN


def image_scale_for(found: Discovery, scale: dict, sample: SampleInput, notes: Notes) -> float:
    """Return the image's pixels per full-resolution pixel.

    A missing ``tissue_hires_scalef`` is worked out from the other image's factor and the two images' sizes.
    """
    from histoweft.ingest import image, tables

    if sample.option("image_scale"):
        return float(sample.option("image_scale"))
    if found.image_kind not in ("hires", "lowres"):
        return 1.0
    key = f"tissue_{found.image_kind}_scalef"
    if _positive(scale.get(key)) > 0:
        return float(scale[key])
    other = "lowres" if found.image_kind == "hires" else "hires"
    beside = found.image.with_name(found.image.name.replace(found.image_kind, other))
    factor = _positive(scale.get(f"tissue_{other}_scalef"))
    if factor > 0 and beside.is_file():
        factor *= max(image.image_size(found.image)) / max(image.image_size(beside))
        notes.add("scale_factor", f"{key} is missing; worked out {factor:.6g} from the {other} image")
        return factor
    tables.stop(
        found.roles.get("scalefactors", found.image.parent / "scalefactors_json.json"),
        f"no {key}" if scale else "no scale factors",
        f"{key} for {found.image.name}",
        "Add it, give the column image_scale (image pixels per full-resolution pixel), or set image to none.",
    )
    return NAN


def read_positions(path: Path) -> pd.DataFrame:
    """Read Space Ranger spot positions, with or without header, csv or parquet, gzipped or not.

    Returns
    -------
    pandas.DataFrame
        Indexed by barcode: in_tissue (bool), array_row, array_col (int), x, y (full-resolution pixels).
    """
    import pandas as pd

    from histoweft.ingest import tables

    frame = _positions_table(path)
    tables.require_columns(frame, COLUMNS, path)
    faults = Faults()
    tissue = tables.booleans(frame["in_tissue"], str(path), faults)
    with tables.attempt(faults, path, "numbers"):
        numbers = tables.numeric_columns(frame, COLUMNS[2:], path)
    faults.raise_if_any()
    return pd.DataFrame(
        {
            "in_tissue": tissue,
            "array_row": numbers["array_row"].to_numpy().astype("int32"),
            "array_col": numbers["array_col"].to_numpy().astype("int32"),
            "x": numbers["pxl_col_in_fullres"].to_numpy(),
            "y": numbers["pxl_row_in_fullres"].to_numpy(),
        },
        index=pd.Index(frame["barcode"].astype(str).str.strip(), name="barcode"),
    )


def _positions_table(path: Path) -> pd.DataFrame:
    """Return the table with Space Ranger's columns, found by their names where it has a header, else by place."""
    import pandas as pd

    from histoweft.ingest import tables

    if ".parquet" in path.name:
        frame = tables.read_table(path)
        frame = frame if "barcode" in frame.columns else frame.reset_index(names="barcode")
        return frame.rename(columns={c: _column_name(c) for c in frame.columns})
    frame = tables.read_table(path, header=None, dtype=str)
    first = frame.iloc[0].fillna("").astype(str).str.strip().tolist()
    named = [_column_name(v) for v in first]
    if pd.to_numeric(frame.iloc[0, 1:], errors="coerce").isna().any() and set(named) & set(COLUMNS):
        if "barcode" not in named and named[0] not in COLUMNS:  # the row names of pandas or R
            named[0] = "barcode"
        frame = frame.iloc[1:].set_axis(named, axis=1)
    elif frame.shape[1] == len(COLUMNS):
        frame.columns = COLUMNS
    else:
        hint = "Columns must be separated by commas." if frame.shape[1] == 1 else ""
        shown = ", ".join(first)[:120]
        count = f"{frame.shape[1]} column{'s' if frame.shape[1] > 1 else ''} (first line: {shown})"
        tables.stop(f"{path}, line 1", count, f"six: {', '.join(COLUMNS)}", hint)
    frame.index += 1
    twice = [name for name in COLUMNS if list(frame.columns).count(name) > 1]
    if twice:
        tables.stop(f"{path}, line 1", f"column {twice[0]} twice", "each column once")
    return frame


def _column_name(name: object) -> str:
    """Return Space Ranger's name of a column that Seurat, Giotto or another program named otherwise."""
    folded = str(name).strip().casefold()
    return OTHER_NAMES.get(folded, folded)
