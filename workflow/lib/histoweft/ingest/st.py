"""Legacy Spatial Transcriptomics: a table of counts named by array position (``10x13``) and a coordinates table.

The sheet's `path` is the counts table; its name without suffix is the section's name, and the coordinates table
(``alignment_table_<name>.tsv``, ``<name>_selection.tsv``, ``<name>_coordinates.tsv`` ...) and the image
(``<name>.jpg``) lie beside it, unless the sheet's `positions` and `image` say otherwise.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from histoweft.errors import Faults
from histoweft.ingest.layout import IMAGE_SUFFIXES, Folder, check_file, check_readable, column, given_image
from histoweft.ingest.section import NAN, Discovery, Notes, RawSection, SampleInput

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TABLE = re.compile(r"\.(?:tsv|csv|txt)(?:\.gz)?$", re.I)
COUNT_SUFFIX = re.compile(r"[._-](?:stdata(?:_filtered)?|counts?|count[_-]matrix|filtered)$", re.I)
SPOT = re.compile(r"^(?:.*[_:.-])?(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)$")
ST_PITCH_UM = 200.0  # centre to centre along the array's axes (Stahl et al., Science 2016)
ST_SPOT_UM = 100.0  # spot diameter, same source


def section_name(path: Path) -> str:
    """Return the section's name: the counts file's without suffixes (``A1.tsv.gz`` -> ``A1``)."""
    return COUNT_SUFFIX.sub("", TABLE.sub("", path.name))


def discover(path: Path, image: str | Path = "", where: str = "", positions: str | Path = "", **options) -> Discovery:
    """Find the coordinates table, image and scale factors beside a counts table."""
    found = Discovery()
    if not check_file(path, where, found.faults, "the counts table itself (spots x genes, .tsv or .tsv.gz)"):
        return found
    found.roles["matrix"] = path
    name = section_name(path)
    folder = Folder.list(path.parent)
    beside = {entry.casefold(): entry for entry in folder.names}
    if str(positions):
        if check_file(Path(positions), column(where, "positions"), found.faults, "a coordinates table"):
            found.roles["positions"] = Path(positions)
    else:
        for stem in _position_stems(name):
            hits = [
                beside[c]
                for s in (".tsv", ".csv", ".txt")
                for z in ("", ".gz")
                if (c := f"{stem}{s}{z}".casefold()) in beside
            ]
            hits = [h for h in hits if h != path.name]
            if hits:
                found.roles["positions"] = path.parent / hits[0]
                break
    for entry in (f"{name}_scalefactors.json", f"{name}_scalefactors_json.json", "scalefactors_json.json"):
        if entry.casefold() in beside:
            found.roles["scalefactors"] = path.parent / beside[entry.casefold()]
            break
    if not given_image(image, where, found):
        _image_beside(found, name, folder)
    if "positions" not in found.roles and found.image is not None and not str(positions):
        stems = ", ".join(f"{stem}.tsv" for stem in _position_stems(name)[:3])
        found.faults.add(
            where,
            f"no coordinates table beside {path.name} ({folder.summary()})",
            f"one of {stems}, or the sheet's column positions",
            "Without it the spots cannot be placed on the image; set image to none to use the array positions.",
        )
    check_readable(found, where)
    return found


def _position_stems(name: str) -> list[str]:
    kinds = ("selection", "coordinates", "positions", "spots", "alignment_table", "spot_data", "coords")
    return [
        f"alignment_table_{name}",
        *(f"{name}_{kind}" for kind in kinds),
        *(f"{prefix}-{name}" for prefix in ("spot_data-selection", "spot_data-all")),
        *(f"{kind}_{name}" for kind in kinds),
        f"{name}_labeled_coordinates",
    ]


def _image_beside(found: Discovery, name: str, folder: Folder) -> None:
    """Take ``<name>.jpg`` and the like; where the folder holds this section alone, its one hires image."""
    images = [n for n in folder.names if n.lower().endswith(IMAGE_SUFFIXES)]
    stems = {Path(n).stem.casefold(): n for n in images}
    for stem in (name, f"{name}_HE", f"HE_{name}", f"{name}_image", f"{name}_hires"):
        if stem.casefold() in stems:
            found.image = folder.path / stems[stem.casefold()]
            break
    else:
        alone = [n for n in images if re.match(r"(?:tissue_|image_)?(?:hires|image|HE)(?:_image)?\.", n, re.I)]
        if len(alone) == 1:
            found.image = folder.path / alone[0]
    if found.image is not None:
        found.image_kind = "given"


def spot_xy(names: np.ndarray) -> np.ndarray | None:
    """Return (n, 2) array positions from names such as ``10x13`` (rounded); None when one is no such name."""
    import numpy as np

    matches = [SPOT.match(str(name)) for name in names]
    if not matches or not all(matches):
        return None
    return np.array([[round(float(m.group(1))), round(float(m.group(2)))] for m in matches], dtype=np.int64)


def key(xy: np.ndarray) -> np.ndarray:
    """Return ``XxY`` names of array positions."""
    import numpy as np

    return np.array([f"{x}x{y}" for x, y in xy], dtype=object)


def read(sample: SampleInput, found: Discovery, faults: Faults, notes: Notes) -> RawSection | None:
    """Read one legacy ST section."""
    import numpy as np
    import pandas as pd

    from histoweft.ingest import checks, tables

    path = found.roles["matrix"]
    counts = positions = None
    with tables.attempt(faults, path, "a table of counts, spots x genes or genes x spots"):
        counts, spots, genes = tables.read_dense_counts(path, "spots x genes, tab-separated")
        xy = spot_xy(spots)
        if xy is None:
            xy = spot_xy(genes)
            if xy is None:
                shown = f"rows {', '.join(spots[:2])} and columns {', '.join(genes[:2])}"
                tables.stop(path, shown, "rows (or columns) named by array position, like 10x13")
            counts, spots, genes = counts.T.tocsr(), genes, spots
        tables.check_shape(path, counts, spots, genes)
    if "positions" in found.roles:
        with tables.attempt(faults, found.roles["positions"], "columns x, y, pixel_x, pixel_y, selected"):
            positions = read_positions(found.roles["positions"], need_pixels=found.image is not None)
    elif counts is not None:
        notes.add("no_positions", "no coordinates table: array positions are taken from the spot names")
        positions = _frame(xy, xy * 1.0)
    scale = _scale(sample, found, faults)
    if counts is None or positions is None or faults:
        return None
    pitch = float(sample.option("spot_pitch_um") or ST_PITCH_UM)
    # arrays with ~2000 spots interleave two lattices: only every second place of their finer grid holds a spot
    parity = (positions["array_row"] + positions["array_col"]) % 2
    unit = pitch / 2 if len(parity) > 1 and parity.nunique() == 1 else pitch
    checks.check_lattice(positions, str(found.roles.get("positions", path)), faults)
    estimate = checks.mpp_from_lattice(positions, row_um=unit, col_um=unit, notes=notes)
    normal = key(xy)
    checks.check_duplicates(normal, str(path), faults)
    if len(set(normal)) == len(normal):
        # positions are looked up by array position; the spot keeps the name its table gave it
        renamed = dict(zip(normal, spots))
        positions.index = pd.Index([renamed.get(k, k) for k in positions.index], name="barcode")
    return RawSection(
        counts=counts,
        barcodes=np.asarray(spots, dtype=object),
        gene_ids=genes,
        gene_names=genes,
        positions=positions,
        mpp_estimate=estimate,
        mpp_source=f"the spot pitch ({pitch:g} um)",
        spot_diameter_um=float(sample.option("spot_diameter_um") or ST_SPOT_UM * pitch / ST_PITCH_UM),
        image_scale=scale,
        counts_where=str(path),
    )


def _scale(sample: SampleInput, found: Discovery, faults: Faults) -> float:
    """Return image pixels per ``pixel_x`` unit: the option, the scale factor of a hires or lowres image, else 1."""
    from histoweft.ingest import tables

    if found.image is None:
        return NAN
    if sample.option("image_scale"):
        return float(sample.option("image_scale"))
    match = re.search(r"hires|lowres", found.image.name, re.I)
    if match and "scalefactors" in found.roles:
        name = f"tissue_{match.group().lower()}_scalef"
        with tables.attempt(faults, found.roles["scalefactors"], f"a JSON object with {name}"):
            factors = tables.read_json(found.roles["scalefactors"])
            if name in factors:
                return float(factors[name])
    return 1.0


def _frame(array_xy: np.ndarray, pixels: np.ndarray, selected: np.ndarray | None = None) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    return pd.DataFrame(
        {
            "in_tissue": np.ones(len(array_xy), bool) if selected is None else selected,
            "array_row": array_xy[:, 1].astype("int32"),
            "array_col": array_xy[:, 0].astype("int32"),
            "x": pixels[:, 0].astype(float),
            "y": pixels[:, 1].astype(float),
        },
        index=pd.Index(key(array_xy), name="barcode"),
    )


def read_positions(path: Path, need_pixels: bool = True) -> pd.DataFrame:
    """Read a coordinates table.

    Columns ``x``, ``y`` (array position; or a column of names like ``10x13``), ``pixel_x``, ``pixel_y`` and,
    optionally, ``selected`` (1 under tissue). Without pixel columns the array positions stand in, unless
    `need_pixels`.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``XxY``: in_tissue, array_row (y), array_col (x), x, y in pixels.
    """
    import numpy as np

    from histoweft.ingest import tables

    frame = tables.read_table(path)
    frame.columns = [str(c).strip() for c in frame.columns]
    frame.index = frame.index + 2 if frame.index.dtype.kind == "i" else frame.index  # line numbers for messages
    lower = {c.casefold(): c for c in frame.columns}
    if {"x", "y"} <= set(lower):
        array = np.rint(tables.numeric_columns(frame, [lower["x"], lower["y"]], path).to_numpy()).astype(int)
    else:
        named = (spot_xy(frame[c].to_numpy()) for c in frame.columns)
        array = next((places for places in named if places is not None), None)
        if array is None:
            tables.require_columns(frame, ["x", "y"], path, "Columns must be separated by tabs or commas.")
    pixel = next((p for p in (("pixel_x", "pixel_y"), ("imagecol", "imagerow")) if set(p) & set(lower)), None)
    if pixel:
        tables.require_columns(frame, [lower.get(p, p) for p in pixel], path)
        pixels = tables.numeric_columns(frame, [lower[p] for p in pixel], path).to_numpy()
    elif need_pixels:
        tables.require_columns(frame, ["pixel_x", "pixel_y"], path)
    else:
        pixels = array.astype(float)
    selected = None
    if "selected" in lower:
        faults = Faults()
        selected = tables.booleans(frame[lower["selected"]], str(path), faults)
        faults.raise_if_any()
    return _frame(array, pixels, selected)
