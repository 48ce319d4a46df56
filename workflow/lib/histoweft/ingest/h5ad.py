"""AnnData (.h5ad) and loom files, with or without coordinates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histoweft.errors import Faults
from histoweft.ingest.layout import PACKED, check_file, check_readable, given_image, unpack_hint
from histoweft.ingest.section import NAN, Discovery, Notes, RawSection, SampleInput

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from histoweft.ingest.geometry import Library

SYMBOLS = (
    "genesymbols",
    "genesymbol",
    "symbol",
    "symbols",
    "hgncsymbol",
    "mgisymbol",
    "genename",
    "genenames",
    "realgenename",
    "externalgenename",
    "featurename",
    "geneshortname",
    "gene",
    "genes",
    "feature",
    "features",
    "name",
    "names",
)
"""Columns of symbols, the likeliest first; without case and punctuation, as `IDS`."""
IDS = (
    "geneids",
    "geneid",
    "ensembl",
    "ensemblid",
    "ensemblids",
    "ensemblgeneid",
    "accession",
    "featureid",
)
TYPES = ("feature_types", "feature_type")
ORGANISMS = {"homo sapiens": "human", "mus musculus": "mouse", "rattus norvegicus": "rat", "danio rerio": "zebrafish",
             "ncbitaxon:9606": "human", "ncbitaxon:10090": "mouse", "ncbitaxon:10116": "rat",
             "ncbitaxon:7955": "zebrafish"}  # fmt: skip
VELOCITY = ("spliced", "unspliced")
_ID = r"ENS[A-Z]{0,6}G\d{11}(?:\.\d+)?"
_JOINED = re.compile(rf"(?:(?P<id>{_ID})[_|:;-]+(?P<name>\S+)|(?P<first>\S+?)[_|:;-]+(?P<last>{_ID}))$")
_BIN = re.compile(r"s_(\d{3})um_\d{5}_\d{5}")


def discover(path: Path, image: str | Path = "", where: str = "", subset: str = "", **options) -> Discovery:
    """Check that the file is there and is called ``.h5ad`` or ``.loom``; take the image inside it, if it is to be had.

    Only for a file that holds images is anything but the standard library needed, and the file opened.
    """
    found = Discovery()
    if check_file(path, where, found.faults, "an .h5ad or .loom file"):
        if path.suffix.lower() not in (".h5ad", ".loom"):
            packed = unpack_hint(PACKED.sub("", path.name), [path.name])
            found.faults.add(where, path.name, "an .h5ad or .loom file", packed or "Is the column platform right?")
        found.roles["matrix"] = path
    if not given_image(image, where, found) and not found.faults and path.suffix.lower() == ".h5ad":
        _image_inside(path, subset or "", found)
    check_readable(found, where)
    return found


def _image_inside(path: Path, subset: str, found: Discovery) -> None:
    """Take the image of the file's library, with the scale the file gives it."""
    try:
        from histoweft.ingest import geometry
        from histoweft.ingest.embedded import EmbeddedImage

        inside = geometry.embedded_image(path, subset)
    except ImportError:  # planning may run where only Snakemake is installed; the job then finds no image either
        return
    if inside is not None:
        found.image_kind = inside[0]
        found.image = EmbeddedImage(path, inside[1])
        found.notes.choose("image", f"{inside[1]}, inside {path.name}")


def read(
    sample: SampleInput, found: Discovery, faults: Faults, notes: Notes, spatial: bool = True
) -> RawSection | None:
    """Read one AnnData or loom file; nothing is judged yet that a rule `subset` may leave out.

    The counts are the matrix that `matrices.choose` finds, or the one that the sheet names.
    """
    from histoweft.ingest import tables

    path = found.roles["matrix"]
    raw = None
    with tables.attempt(faults, path, "an AnnData file" if path.suffix == ".h5ad" else "a loom file"):
        reader = read_loom if path.suffix.lower() == ".loom" else read_anndata
        raw = _assemble(path, reader(path, sample, notes, spatial), notes)
    return raw


def _assemble(path: Path, parts: dict[str, Any], notes: Notes) -> RawSection:
    """Turn the parts of a file into a `RawSection` without places."""
    import pandas as pd

    from histoweft.ingest import matrices, tables

    counts, obs, var = parts["counts"], parts["obs"], parts["var"]
    barcodes = obs.index.astype(str).to_numpy(object)
    tables.check_shape(path, counts, barcodes, var.index)
    ids, names = gene_columns(var, notes)
    return RawSection(
        counts=counts,
        barcodes=barcodes,
        gene_ids=ids,
        gene_names=names,
        feature_types=_types(var),
        obs=obs.set_axis(pd.Index(barcodes, name="barcode")),
        layers=parts["layers"],
        counts_where=f"{path}, {parts['matrix']}",
        counts_advice=matrices.advice(parts["matrix"], parts["looked"]),
        logged=parts["logged"],
        species=parts["species"],
        stored={name: parts.get(name, "") for name in ("obsm", "obsm_names", "libraries", "region_key")},
    )


def _types(var: pd.DataFrame) -> np.ndarray | None:
    """Return what the file calls its features."""
    lower = {str(c).casefold(): c for c in var.columns}
    column = next((lower[name] for name in TYPES if name in lower), None)
    return None if column is None else var[column].astype(object).fillna("").astype(str).to_numpy(object)


def locate(sample: SampleInput, found: Discovery, raw: RawSection, faults: Faults, notes: Notes) -> None:
    """Give the observations that the sheet keeps their places and scale."""
    from histoweft.ingest import tables

    with tables.attempt(faults, found.roles["matrix"], "an AnnData file with places"):
        _locate(sample, found, raw, notes)


def _locate(sample: SampleInput, found: Discovery, raw: RawSection, notes: Notes) -> None:
    import numpy as np
    import pandas as pd

    from histoweft.ingest import sections, tables

    path, obs = found.roles["matrix"], raw.obs
    xy = _places(raw, path, notes)
    if xy.shape[1] > 2 and sections.PLANE not in obs:
        raw.obs[sections.PLANE] = xy[:, 2]
    frame = pd.DataFrame({"x": xy[:, 0], "y": xy[:, 1]}, index=pd.Index(raw.barcodes, name="barcode"))
    for name in ("array_row", "array_col"):
        if name in obs:
            numbers = pd.to_numeric(obs[name].astype(object), errors="coerce").to_numpy(float)
            if np.isfinite(numbers).any():
                frame[name] = numbers
    if "in_tissue" in obs:
        frame["in_tissue"] = _in_tissue(obs["in_tissue"], path, notes)
    lost = ~np.isfinite(xy[:, :2]).all(axis=1)
    if lost.all():
        tables.stop(path, "no observation with coordinates", "a position for each")
    if lost.any():
        notes.add(
            "without_position",
            f"{_some(raw.barcodes[lost])} of {len(lost)} without coordinates: dropped."
            " If they belong to the tissue, read the positions again and write the file anew",
        )
        frame = frame[~lost]
    raw.positions = frame
    library = _library(raw, obs)
    _scale(sample, found, raw, library, notes)
    inside = [place for one in raw.stored["libraries"].values() for place in one.images.values()]
    if found.image is None and inside and str(sample.image).lower() != "none":
        why = "it does not follow from the file and the sheet which library is meant, or its scale"
        notes.add("embedded_image", f"the images in the file ({', '.join(inside[:3])}) are not used: {why}")
    if found.image is not None:
        raw.image_scale = _image_scale(sample, found, library, notes)


def _places(raw: RawSection, path: Path, notes: Notes) -> np.ndarray:
    """Return (n, 2) or (n, 3) coordinates: by name, those of the whole section before those of a field of view."""
    import numpy as np

    from histoweft.ingest import geometry, sections, tables

    obs = raw.obs
    sets = geometry.candidates(raw.stored["obsm"], obs, path)
    if not sets:
        tables.stop(
            path,
            f"no coordinates (obsm: {', '.join(raw.stored['obsm_names']) or 'none'}; "
            f"obs: {', '.join(map(str, obs.columns[:10])) or 'none'})",
            "obsm['spatial'], or obs columns x and y",
            _where_places_may_be(raw, obs),
        )
    fov = geometry.fov_column(obs)
    apart = [entry for entry in sets if fov is None or not sections.overlaid(obs[fov], entry[1])]
    label, xy = (apart or sets)[0]
    if pair := (geometry.exchanged(obs, xy) if label.startswith("obsm") and "columns" not in label else ""):
        xy = xy[:, [1, 0, *range(2, xy.shape[1])]]
        notes.add("axes", f"{label} holds y before x, as the obs columns {pair} show: exchanged")
    unset = geometry.placeholders(xy[:, :2])
    if unset.any() and not unset.all():
        point = ", ".join(f"{value:g}" for value in xy[unset][0, :2])
        notes.add("placeholders", f"{_some(raw.barcodes[unset])} on the point ({point}): taken as without coordinates")
        xy = np.where(unset[:, None], np.nan, xy)
    notes.choose("coordinates", label if fov is None else f"{label}; fields of view: {fov}")
    return xy


def _where_places_may_be(raw: RawSection, obs: pd.DataFrame) -> str:
    """Return what to do about a file without coordinates under a name that is known."""
    embeddings = re.compile(r"(?i)pca|umap|tsne|scvi|harmony|diffmap|fa2|phate|lsi|svd|nmf|draw_graph|latent|embed")
    others = [name for name in raw.stored["obsm_names"] if not embeddings.search(name)]
    if others:
        return f"If obsm['{others[0]}'] holds the places, save it as obsm['spatial'], x first."
    if {"array_row", "array_col"} <= set(obs):
        return (
            "It has array positions only: read the pixels of tissue_positions.csv again and save them as "
            "obsm['spatial'], x (pxl_col_in_fullres) first."
        )
    return "For single-cell data without coordinates use platform scrna."


def _in_tissue(values: pd.Series, path: Path, notes: Notes) -> np.ndarray:
    """Return which spots are on tissue, in whatever words; those of which nothing is said are taken to be."""
    import numpy as np

    from histoweft.ingest import tables

    known, wrong = values.notna().to_numpy(), Faults()
    found = np.ones(len(values), bool)
    found[known] = tables.booleans(values[known], f"{path}, obs", wrong)
    wrong.raise_if_any()
    if not known.all():
        notes.add("in_tissue", f"in_tissue says nothing of {_some(values.index[~known])}: taken as on the tissue")
    return found


def _some(names) -> str:
    """Return how many observations, and the first of them."""
    return f"{len(names)} observation{'s' if len(names) > 1 else ''} (first: {names[0]})"


def _library(raw: RawSection, obs: pd.DataFrame) -> Library | None:
    """Return the library of these observations, and note its name; None where several, or none, may be theirs."""
    from histoweft.ingest import sections

    known: dict[str, Library] = raw.stored["libraries"]
    names = list(known)
    key = raw.stored["region_key"]
    placed = raw.positions[["x", "y"]].reindex(obs.index).to_numpy(float) if not known and key in obs else None
    if placed is not None and sections.overlaid(obs[key], placed):
        # the elements that SpatialData's table annotates: side by side they may be tiles of one section
        names = sorted(obs[key].dropna().astype(str).unique())
        raw.library_ids = names
        return None
    for column in obs.columns if len(names) > 1 else ():
        values = obs[column].dropna().astype(str).unique()
        if len(values) and set(values) <= set(names):
            names = sorted(values)
            break
    raw.library_ids = names
    same = {tuple(sorted(known[name].scalefactors.items())) for name in names}
    return known[names[0]] if len(same) == 1 else None


def _scale(sample: SampleInput, found: Discovery, raw: RawSection, library: Library | None, notes: Notes) -> None:
    """Fill in um per pixel and the size of a spot: what the file says, else what its lattice says."""
    from histoweft.ingest import checks, geometry

    frame = raw.positions
    pitch = float(sample.option("spot_pitch_um") or 100.0)
    shape = geometry.lattice_of(frame) if {"array_row", "array_col"} <= set(frame) else ""
    bin_um = NAN if library is None else library.number("bin_size_um")
    named = {match.group(1) if match else "" for match in map(_BIN.match, frame.index)}
    if not bin_um > 0 and len(named) == 1 and (digits := named.pop()):
        bin_um = float(digits)  # Visium HD says the size in the name of each bin: s_008um_00012_00345-1
    if library is not None:
        raw.mpp = library.number("microns_per_pixel")
    if shape and len(_known(frame)) < len(frame):
        unknown = frame.index.difference(_known(frame).index, sort=False)
        told = f"{_some(unknown)} of {len(frame)} without array_row or array_col: left out of the scale's estimate"
        # the header of a positions table taken for a spot, or its first spot for the header
        cause = ". One spot is lost where a first line is read as a header: read tissue_positions.csv again"
        notes.add("array_positions", told + (cause if len(unknown) == 1 else ""))
    if shape == "hexagonal":
        raw.on_lattice = True
        raw.mpp_estimate = checks.mpp_from_lattice(_known(frame), row_um=pitch * 3**0.5 / 2, col_um=pitch / 2)
        raw.mpp_source = f"the spot pitch ({pitch:g} um)"
        raw.spot_diameter_um = 0.55 * pitch
        if library is not None and found.image is not None and not sample.option("image_scale"):
            _check_scaled(library, pitch / raw.mpp_estimate, found)
    elif shape == "square":
        raw.on_lattice = True
        if bin_um > 0:
            raw.mpp_estimate = checks.mpp_from_lattice(_known(frame), row_um=bin_um, col_um=bin_um)
            raw.mpp_source = f"the bin size ({bin_um:g} um)"
            raw.spot_diameter_um = bin_um
    if not raw.spot_diameter_um > 0 and library is not None:
        mpp = sample.mpp or raw.mpp
        diameter = library.number("spot_diameter_fullres")
        # readers of imaging data write a diameter of 1 pixel where there are no spots
        raw.spot_diameter_um = bin_um if bin_um > 0 else diameter * (mpp if diameter > 1 else NAN)
    raw.spot_diameter_um = float(sample.option("spot_diameter_um") or raw.spot_diameter_um)
    notes.choose("lattice", shape or "none: cells, or places without array_row and array_col")


def _check_scaled(library: Library, pitch_px: float, found: Discovery) -> None:
    """Stop where spots are larger than they can lie apart: the coordinates are not in full-resolution pixels."""
    from histoweft.ingest import tables

    diameter = library.number("spot_diameter_fullres")
    if not diameter > 1 or 0.3 < diameter / pitch_px < 1:
        return
    told = f"spot_diameter_fullres {diameter:.4g} while neighbouring spots lie {pitch_px:.4g} apart"
    # a spot is 55 to 65 um wide, 100 um from the next
    factor = next(
        (name for name, value in library.scalefactors.items() if 0.45 < value * diameter / pitch_px < 0.75), None
    )
    hint = "These are the scale factors, or the coordinates, of another section."
    if factor is not None:
        hint = (
            f"The coordinates seem to be multiplied by {factor} already: keep full-resolution pixels in obsm, or say "
            "in the sheet's column image_scale how many of the image's pixels one coordinate unit is."
        )
    where = f"{found.roles['matrix']}, uns['spatial'], library {library.name}"
    tables.stop(where, told, "spots a little more than half as wide as they lie apart", hint)


def _known(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the spots of which place and array position are known."""
    return frame.dropna(subset=["x", "y", "array_row", "array_col"])


def _image_scale(sample: SampleInput, found: Discovery, library: Library | None, notes: Notes) -> float:
    """Return the image's pixels per coordinate unit: the sheet's, the library's for this kind of image, else 1."""
    if sample.option("image_scale"):
        return float(sample.option("image_scale"))
    factor = NAN if library is None else library.number(f"tissue_{found.image_kind}_scalef")
    if factor > 0:
        notes.choose(
            "image scale", f"{factor:g}, tissue_{found.image_kind}_scalef of the file's library {library.name}"
        )
        return factor
    return 1.0


def gene_columns(var: pd.DataFrame, notes: Notes | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return gene identifiers and symbols from a var frame, whichever of the two its index holds.

    An index of symbols is kept. Where it holds identifiers or running numbers, symbols come from the first column that
    is called so and holds names.
    """
    notes = Notes() if notes is None else notes
    index = var.index.astype(str).to_numpy(object)
    lower = {re.sub(r"[\W_]+", "", str(c).casefold()): c for c in reversed(var.columns)}
    ids = next((_words(var[lower[c]]) for c in IDS if c in lower), None)
    kind = name_kind(index)
    if (split := _joined_names(index)) is not None:
        notes.choose("gene names", f"the index of var, which joins identifiers and symbols (first: {index[0]})")
        return split
    if kind == "symbols":
        notes.choose("gene names", "the index of var")
        return (index if ids is None else ids), index
    symbols = next((lower[c] for c in SYMBOLS if c in lower and name_kind(_words(var[lower[c]])) == "symbols"), None)
    taken = f"var['{symbols}']" if symbols is not None else "the index of var, as no column holds symbols"
    notes.choose("gene names", f"{taken} (the index holds {kind})")
    if kind == "running numbers":
        fallback = index if ids is None else ids
        return fallback, (fallback if symbols is None else _words(var[symbols]))
    return index, (index if symbols is None else _words(var[symbols]))


def _joined_names(index: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return identifiers and symbols of an index that joins both (ENSG00000075624_ACTB, ACTB|ENSG00000075624)."""
    import numpy as np

    found = [_JOINED.match(name) for name in index]
    if sum(map(bool, found)) <= len(index) / 2:
        return None
    ids = [name if match is None else match["id"] or match["last"] for name, match in zip(index, found)]
    names = [name if match is None else match["name"] or match["first"] for name, match in zip(index, found)]
    return np.array(ids, object), np.array(names, object)


def _words(values: pd.Series) -> np.ndarray:
    return values.astype(object).fillna("").astype(str).to_numpy(object)


def name_kind(names: np.ndarray) -> str:
    """Return ``identifiers``, ``running numbers`` or ``symbols``: what most of some names are."""
    from histoweft.ingest.checks import is_identifier, is_number

    sampled = [str(name) for name in names[:: max(1, len(names) // 500)] if str(name).strip()]
    if not sampled:
        return "running numbers"
    for kind, test in (("identifiers", is_identifier), ("running numbers", is_number)):
        if sum(map(test, sampled)) > len(sampled) / 2:
            return kind
    return "symbols"


def read_anndata(path: Path, sample: SampleInput, notes: Notes, spatial: bool = True) -> dict[str, Any]:
    """Read from an h5ad only what is needed; matrices that are not used stay on disk."""
    # not anndata.read_h5ad: it loads every layer and raw as well, several times the memory of the one matrix used
    import h5py

    from histoweft.ingest import geometry, matrices, tables

    with tables.open_h5(path) as handle:
        if not {"obs", "var"} <= set(handle):
            hint = "Use platform visium or scrna for a 10x matrix." if "matrix" in handle else ""
            if {"matrix", "row_attrs", "col_attrs"} <= set(handle):
                hint = f"It is a loom file: rename it to {path.stem}.loom."
            tables.stop(
                path, f"groups {', '.join(sorted(handle)[:6]) or 'none'}", "an AnnData file (obs, var, X)", hint
            )
        obs, var = _frame(handle, "obs"), _frame(handle, "var")
        chosen, looked = matrices.choose(handle, path, sample.layer, sample.at("layer"), notes)
        if chosen in ("raw/X", "raw.X"):
            var = _with_columns(_frame(handle["raw"], "var") if chosen == "raw/X" else _frame(handle, "raw.var"), var)
        counts = _matrix(handle[chosen], path)
        layers = {n: _matrix(handle[f"layers/{n}"], path) for n in VELOCITY if f"layers/{n}" in handle}
        obsm = list(handle["obsm"]) if isinstance(handle.get("obsm"), h5py.Group) else []
        return {
            "counts": counts,
            "obs": obs,
            "var": var,
            "obsm": _stored_places(handle, path, len(obs)) if spatial else {},
            "obsm_names": obsm,
            "layers": {n: m for n, m in layers.items() if m.shape == counts.shape},
            "libraries": geometry.libraries(handle) if spatial else {},
            "region_key": _text(handle, "uns/spatialdata_attrs/region_key"),
            "matrix": chosen,
            "looked": looked,
            "logged": "log1p" in handle.get("uns", ()) and not chosen.startswith("layers/"),
            "species": _organism(handle, obs),
        }


def _with_columns(raw: pd.DataFrame, var: pd.DataFrame) -> pd.DataFrame:
    """Return raw's var with the columns that only var has, where both know the gene."""
    lacking = [column for column in var.columns if column not in raw]
    return raw.join(var[lacking]) if lacking and var.index.is_unique and raw.index.is_unique else raw


def _organism(handle, obs: pd.DataFrame) -> str:
    """Return the species that the file states for all its observations, or an empty string."""
    import h5py

    from histoweft.ingest.tables import decode

    stated = []
    for name in ("organism_ontology_term_id", "organism"):
        if isinstance(handle.get(f"uns/{name}"), h5py.Dataset) and handle[f"uns/{name}"].shape == ():
            stated.append(str(decode([handle[f"uns/{name}"][()]])[0]))
        elif name in obs:
            stated += list(obs[name].dropna().astype(str).unique())
    found = {ORGANISMS[text.casefold()] for text in stated if text.casefold() in ORGANISMS}
    return found.pop() if len(found) == 1 else ""


def _text(handle, name: str) -> str:
    """Return a single text of an open file, empty where there is none."""
    import h5py

    from histoweft.ingest.tables import decode

    stored = handle.get(name)
    is_text = isinstance(stored, h5py.Dataset) and stored.shape == () and stored.dtype.kind in "OS"
    return str(decode([stored[()]])[0]) if is_text else ""


def _stored_places(handle, path: Path, n: int) -> dict[str, Any]:
    """Return the known sets of coordinates in obsm: arrays, and tables with their column names."""
    import h5py
    import pandas as pd

    from histoweft.ingest import geometry, tables
    from histoweft.io import read_element

    found = {}
    for name in geometry.OBSM:
        stored = handle.get(f"obsm/{name}")
        if stored is None:
            continue
        if isinstance(stored, h5py.Dataset):
            values = stored[()]
            values = pd.DataFrame(values) if values.dtype.names else values
        else:
            values = read_element(stored)
            values = values.toarray() if hasattr(values, "toarray") else values
        is_table = hasattr(values, "columns")
        if values.ndim != 2 or values.shape[0] != n or values.shape[1] < 2 or (values.shape[1] > 3 and not is_table):
            tables.stop(f"{path}, obsm['{name}']", f"an array of {values.shape}", f"{n} rows of x and y (and z)")
        try:
            found[name] = values if is_table else values.astype(float)
        except ValueError:
            tables.stop(
                f"{path}, obsm['{name}']",
                f"texts, such as {str(tables.decode(values[:1, 0])[0])!r}",
                "numbers: x and y",
            )
    return found


def _frame(handle, name: str) -> pd.DataFrame:
    """Read obs or var, also as written by anndata before 0.8 (categories kept apart, compound data sets)."""
    import h5py
    import pandas as pd

    from histoweft.ingest.tables import decode
    from histoweft.io import read_element

    group = handle[name]
    if isinstance(group, h5py.Dataset):  # anndata < 0.7: one compound data set, texts as bytes
        records = pd.DataFrame.from_records(group[:])
        for column in records.columns[[kind.kind == "O" for kind in records.dtypes]]:
            records[column] = decode(records[column].to_numpy())
        for column in records:  # categories of such files stand in uns, codes in the frame
            if name == "obs" and f"uns/{column}_categories" in handle:
                levels = decode(handle[f"uns/{column}_categories"][:])
                records[column] = pd.Categorical.from_codes(records[column].to_numpy(), levels)
        key = "index" if "index" in records else records.columns[0]
        return records.set_index(pd.Index(records[key])).drop(columns=key)
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


def read_loom(path: Path, sample: SampleInput, notes: Notes, spatial: bool = True) -> dict[str, Any]:
    """Read a loom file (genes x cells, attributes of rows and columns)."""
    # not anndata.read_loom: it needs loompy, one more dependency for a handful of HDF5 reads
    import pandas as pd
    from scipy import sparse

    from histoweft.ingest import matrices, tables

    with tables.open_h5(path) as handle:
        if not {"matrix", "row_attrs", "col_attrs"} <= set(handle):
            tables.stop(path, f"groups {', '.join(sorted(handle)[:6])}", "a loom file (matrix, row_attrs, col_attrs)")
        obs, var = _attributes(handle["col_attrs"]), _attributes(handle["row_attrs"])
        chosen, looked = matrices.choose(handle, path, sample.layer, sample.at("layer"), notes)
        matrix = handle[chosen]
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
        "obsm": {},
        "obsm_names": [],
        "layers": layers,
        "libraries": {},
        "matrix": chosen,
        "looked": looked,
        "logged": False,
        "species": "",
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
