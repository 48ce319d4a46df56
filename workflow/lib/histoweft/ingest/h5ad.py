"""AnnData (.h5ad) and loom files, with or without coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from histoweft.errors import Faults
from histoweft.ingest.layout import check_file, check_readable, given_image
from histoweft.ingest.section import Discovery, Notes, RawSection, SampleInput

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

OBSM = ("spatial", "X_spatial", "X_spatial_coords", "spatial_um")
OBS_XY = (
    ("x_centroid", "y_centroid"),
    ("center_x", "center_y"),
    ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("x", "y"),
    ("X", "Y"),
    ("spatial_x", "spatial_y"),
)
MATRICES = ("X", "layers/counts", "layers/raw_counts", "raw/X")
SYMBOLS = (
    "gene_symbols",
    "gene_symbol",
    "symbol",
    "symbols",
    "gene_name",
    "gene_names",
    "feature_name",
    "gene_short_name",
)
IDS = ("gene_ids", "gene_id", "ensembl", "ensembl_id", "ensembl_ids", "Accession", "feature_id")
VELOCITY = ("spliced", "unspliced")


def discover(path: Path, image: str | Path = "", where: str = "", **options) -> Discovery:
    """Check that the file is there and is called ``.h5ad`` or ``.loom``."""
    found = Discovery()
    if check_file(path, where, found.faults, "an .h5ad or .loom file"):
        if path.suffix.lower() not in (".h5ad", ".loom"):
            found.faults.add(where, path.name, "an .h5ad or .loom file", "Is the column platform right?")
        found.roles["matrix"] = path
    given_image(image, where, found)
    check_readable(found, where)
    return found


def read(
    sample: SampleInput, found: Discovery, faults: Faults, notes: Notes, spatial: bool = True
) -> RawSection | None:
    """Read one AnnData or loom file.

    Counts are the first of X, ``layers['counts']``, ``layers['raw_counts']`` and ``raw`` that holds integers only.
    """
    from histoweft.ingest import tables

    path = found.roles["matrix"]
    raw = None
    with tables.attempt(faults, path, "an AnnData file" if path.suffix == ".h5ad" else "a loom file"):
        parts = read_loom(path) if path.suffix.lower() == ".loom" else read_anndata(path, notes)
        raw = _assemble(path, parts, sample, found, notes, spatial)
    return raw


def _assemble(
    path, parts: dict[str, Any], sample: SampleInput, found: Discovery, notes: Notes, spatial: bool
) -> RawSection:
    """Turn the parts of a file into a `RawSection`."""
    import numpy as np
    import pandas as pd

    from histoweft.ingest import checks, tables

    counts, obs, var = parts["counts"], parts["obs"], parts["var"]
    barcodes = obs.index.astype(str).to_numpy(object)
    tables.check_shape(path, counts, barcodes, var.index)
    ids, names = gene_columns(var)
    raw = RawSection(
        counts=counts,
        barcodes=barcodes,
        gene_ids=ids,
        gene_names=names,
        obs=obs.set_axis(pd.Index(barcodes, name="barcode")),
        layers=parts["layers"],
        counts_where=f"{path}, {parts['matrix']}",
    )
    if not spatial:
        return raw
    xy = parts["xy"] if parts["xy"] is not None else _obs_xy(obs)
    if xy is None:
        tables.stop(
            path,
            f"no coordinates (obsm: {', '.join(parts['obsm']) or 'none'}; "
            f"obs: {', '.join(map(str, obs.columns[:10])) or 'none'})",
            "obsm['spatial'], or obs columns x and y",
            "For single-cell data without coordinates use platform scrna.",
        )
    frame = pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1]}, index=pd.Index(barcodes, name="barcode"))
    if not np.isfinite(xy).all():
        bad = np.flatnonzero(~np.isfinite(xy).all(axis=1))
        tables.stop(path, f"{len(bad)} spots without coordinates (first: {barcodes[bad[0]]})", "a position for each")
    for name in ("array_row", "array_col"):
        if name in obs and pd.api.types.is_numeric_dtype(obs[name]):
            frame[name] = obs[name].to_numpy()
    if "in_tissue" in obs:
        frame["in_tissue"] = pd.to_numeric(obs["in_tissue"], errors="coerce").to_numpy() > 0
    if {"array_row", "array_col"} <= set(frame) and parts["libraries"]:
        pitch = float(sample.option("spot_pitch_um") or 100.0)  # written by a Visium reader
        raw.mpp_estimate = checks.mpp_from_lattice(frame, row_um=pitch * 3**0.5 / 2, col_um=pitch / 2)
        raw.mpp_source = f"the spot pitch ({pitch:g} um)"
        raw.spot_diameter_um = 0.55 * pitch
    raw.spot_diameter_um = float(sample.option("spot_diameter_um") or raw.spot_diameter_um)
    raw.positions = frame
    raw.library_ids = parts["libraries"]
    if found.image is not None:
        raw.image_scale = float(sample.option("image_scale") or 1.0)
    elif parts["images"]:
        notes.add("embedded_image", "the images inside uns['spatial'] are not used: give the image file in the sheet")
    return raw


def _obs_xy(obs: pd.DataFrame) -> np.ndarray | None:
    import pandas as pd

    for pair in OBS_XY:
        if set(pair) <= set(obs.columns) and all(pd.api.types.is_numeric_dtype(obs[c]) for c in pair):
            return obs[list(pair)].to_numpy(float)
    return None


def gene_columns(var: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return gene identifiers and symbols from a var frame, whichever of the two its index holds."""
    from histoweft.ingest.checks import ENSEMBL

    index = var.index.astype(str).to_numpy(object)
    lower = {str(c).casefold(): c for c in var.columns}
    symbols = next((lower[c] for c in SYMBOLS if c in lower), None)
    ids = next((lower[c.casefold()] for c in IDS if c.casefold() in lower), None)
    sampled = index[:200]
    is_ensembl = len(sampled) and sum(bool(ENSEMBL.match(v)) for v in sampled) > len(sampled) / 2
    if is_ensembl:
        return index, (
            var[symbols].astype(object).fillna("").astype(str).to_numpy(object) if symbols is not None else index
        )
    return (var[ids].astype(str).to_numpy(object) if ids is not None else index), index


def read_anndata(path: Path, notes: Notes) -> dict[str, Any]:
    """Read from an h5ad only what is needed; matrices that are not used stay on disk."""
    # not anndata.read_h5ad: it loads every layer and raw as well, several times the memory of the one matrix used
    import h5py

    from histoweft.ingest import tables
    from histoweft.io import read_element

    with h5py.File(path, "r") as handle:
        if not {"obs", "var"} <= set(handle):
            hint = "Use platform visium or scrna for a 10x matrix." if "matrix" in handle else ""
            tables.stop(
                path, f"groups {', '.join(sorted(handle)[:6]) or 'none'}", "an AnnData file (obs, var, X)", hint
            )
        obs, var = _frame(handle, "obs"), _frame(handle, "var")
        present = [name for name in MATRICES if name in handle]
        if not present:
            tables.stop(path, "no matrix", "X, layers['counts'] or raw")
        chosen = next((name for name in present if _all_integer(handle[name])), present[0])
        if chosen != "X":
            notes.add("counts_from", f"X does not hold integers: counts are read from {chosen}")
        if chosen == "raw/X":
            var = _frame(handle["raw"], "var")
        counts = _matrix(handle[chosen], path)
        layers = {n: _matrix(handle[f"layers/{n}"], path) for n in VELOCITY if f"layers/{n}" in handle}
        layers = {n: m for n, m in layers.items() if m.shape == counts.shape}
        obsm = list(handle["obsm"]) if "obsm" in handle and isinstance(handle["obsm"], h5py.Group) else []
        stored = next((handle[f"obsm/{name}"] for name in OBSM if name in obsm), None)
        xy = stored[()] if isinstance(stored, h5py.Dataset) else stored
        if xy is not None and not hasattr(xy, "dtype"):  # a frame
            xy = read_element(xy).to_numpy(dtype=float)
        libraries = list(handle["uns/spatial"]) if "uns/spatial" in handle else []
        images = any("images" in handle[f"uns/spatial/{name}"] for name in libraries)
    return {
        "counts": counts,
        "obs": obs,
        "var": var,
        "xy": None if xy is None else xy[:, :2].astype(float),
        "obsm": obsm,
        "layers": layers,
        "libraries": libraries,
        "images": images,
        "matrix": chosen,
    }


def _frame(handle, name: str) -> pd.DataFrame:
    """Read obs or var, also as written by anndata before 0.8 (categories kept apart, compound data sets)."""
    import h5py
    import pandas as pd

    from histoweft.ingest.tables import decode
    from histoweft.io import read_element

    group = handle[name]
    if isinstance(group, h5py.Dataset):  # anndata < 0.7: one compound data set
        records = pd.DataFrame(group[:])
        key = "index" if "index" in records else records.columns[0]
        return records.set_index(pd.Index(decode(records[key].to_numpy()))).drop(columns=key)
    index = group.attrs.get("_index", "_index")
    if "encoding-type" in group[index].attrs:
        return read_element(group)
    frame = pd.DataFrame(index=pd.Index(decode(group[index][:])))
    for column in group:
        if column in ("__categories", index) or not isinstance(group[column], h5py.Dataset):
            continue
        values = group[column][:]
        if f"__categories/{column}" in group:
            categories = group[f"__categories/{column}"][:]
            categories = decode(categories) if categories.dtype.kind in "OS" else categories
            frame[column] = pd.Categorical.from_codes(values, categories)
        else:
            frame[column] = decode(values) if values.dtype.kind in "OS" else values
    return frame


def _all_integer(element, block: int = 5_000_000) -> bool:
    """Return whether a stored matrix holds integers only, reading block by block and stopping at the first fraction."""
    import h5py
    import numpy as np

    data = element["data"] if isinstance(element, h5py.Group) else element
    if data.dtype.kind in "iub":
        return True
    step = block if data.ndim == 1 else max(1, block // max(1, data.shape[1]))
    for start in range(0, data.shape[0], step):
        part = data[start : start + step]
        if not (np.isfinite(part) & (part == np.rint(part))).all():
            return False
    return True


def _matrix(element, path: Path):
    """Return a stored matrix as CSR; a dense one is turned sparse in bands of rows."""
    import h5py
    from scipy import sparse

    from histoweft.ingest import tables

    if isinstance(element, h5py.Group):
        attributes = element.attrs
        kind = str(attributes.get("encoding-type") or attributes.get("h5sparse_format", "csr"))
        shape = tuple(int(v) for v in attributes.get("shape", attributes.get("h5sparse_shape", ())))
        arrays = [element[name][:] for name in ("data", "indices", "indptr")]
        if kind.startswith("csc"):
            return tables.build_csr(path, *arrays, shape[::-1]).T.tocsr()
        return tables.build_csr(path, *arrays, shape)
    rows = max(1, 20_000_000 // max(1, element.shape[1]))
    bands = [sparse.csr_matrix(element[i : i + rows]) for i in range(0, element.shape[0], rows)]
    return sparse.vstack(bands, format="csr") if bands else sparse.csr_matrix(element.shape)


def read_loom(path: Path) -> dict[str, Any]:
    """Read a loom file (genes x cells, attributes of rows and columns)."""
    # not anndata.read_loom: it needs loompy, one more dependency for a handful of HDF5 reads
    import h5py
    import pandas as pd
    from scipy import sparse

    from histoweft.ingest import tables

    with h5py.File(path, "r") as handle:
        if not {"matrix", "row_attrs", "col_attrs"} <= set(handle):
            tables.stop(path, f"groups {', '.join(sorted(handle)[:6])}", "a loom file (matrix, row_attrs, col_attrs)")
        obs, var = _attributes(handle["col_attrs"]), _attributes(handle["row_attrs"])
        matrix = handle["matrix"]
        rows = max(1, 20_000_000 // max(1, matrix.shape[1]))
        bands = [sparse.csr_matrix(matrix[i : i + rows]) for i in range(0, matrix.shape[0], rows)]
        counts = sparse.vstack(bands, format="csr").T.tocsr()
        layers = {}
        for name in VELOCITY:
            if f"layers/{name}" in handle:
                layers[name] = sparse.csr_matrix(handle[f"layers/{name}"][:].T)
    for names, frame in ((("CellID", "cell_id", "obs_names", "barcode"), obs), (("Gene", "gene", "var_names"), var)):
        column = next((n for n in names if n in frame), None)
        frame.index = pd.Index(frame[column].astype(str)) if column else frame.index.astype(str)
    return {
        "counts": counts,
        "obs": obs,
        "var": var,
        "xy": None,
        "obsm": [],
        "layers": layers,
        "libraries": [],
        "images": False,
        "matrix": "matrix",
    }


def _attributes(group) -> pd.DataFrame:
    """Return a loom file's one-dimensional attributes as a frame."""
    import pandas as pd

    from histoweft.ingest.tables import decode

    columns = {}
    for name in group:
        if group[name].ndim == 1:
            values = group[name][:]
            columns[name] = decode(values) if values.dtype.kind in "OS" else values
    return pd.DataFrame(columns)
