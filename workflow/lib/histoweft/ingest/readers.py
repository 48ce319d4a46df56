"""One reader interface over all platforms: `discover` (cheap), `read` (checked), `write_counts`.

A platform is a module with ``discover(path, image, where, **options)`` and ``read(sample, found, faults, notes)``;
what every platform shares (checks, labels, off-tissue and empty spots, scale) happens here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histoweft.errors import Faults, nearest
from histoweft.ingest import h5ad, scrna, spaceranger, st, xenium
from histoweft.ingest.layout import check_file
from histoweft.ingest.section import NAN, OPTIONS, Discovery, Note, Notes, RawSection, SampleInput, Section
from histoweft.paths import labels_is_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["OPTIONS", "PLATFORMS", "Discovery", "Note", "SampleInput", "Section", "discover", "read", "write_counts"]

_PLATFORMS: dict[str, tuple[Callable[..., Discovery], Callable[..., RawSection | None]]] = {
    "visium": (spaceranger.discover, spaceranger.read),
    "visium_hd": (spaceranger.discover_hd, spaceranger.read_hd),
    "xenium": (xenium.discover, xenium.read),
    "st": (st.discover, st.read),
    "h5ad": (h5ad.discover, h5ad.read),
    "scrna": (scrna.discover, scrna.read),
}
PLATFORMS = tuple(_PLATFORMS)
_LOCATE = {"h5ad": h5ad.locate}
"""Platforms that place observations in a second step, when it is known which ones the sheet keeps."""
# platforms whose run writes a place for every barcode of its matrix
_COMPLETE = ("visium", "visium_hd", "xenium")
_ON_LATTICE = ("visium", "visium_hd", "st")


def discover(
    platform: str,
    path: str | Path,
    image: str | Path = "",
    *,
    labels: str | Path = "",
    positions: str | Path = "",
    alignment: str | Path = "",
    where: str = "",
    sample: str = "",
    options: Mapping[str, Any] | None = None,
) -> Discovery:
    """Find the files that `read` will open, without opening any (standard library only).

    Parameters
    ----------
    platform
        One of `PLATFORMS`.
    path, image, labels, positions, alignment
        As in the sheet.
    where
        How faults name the sheet line; ``sample <name>`` when empty.
    options
        Only ``bin_um`` (Visium HD) and ``subset`` (which library's image) matter here.

    Returns
    -------
    Discovery
        With ``faults`` filled where something is missing; nothing is raised.
    """
    where = where or (f"sample {sample}" if sample else "sample sheet")
    if platform not in _PLATFORMS:
        found = Discovery()
        found.faults.add(
            f"{where}, column platform", repr(platform), ", ".join(PLATFORMS), nearest(platform, PLATFORMS)
        )
        return found
    if not str(path):
        found = Discovery()
        found.faults.add(f"{where}, column path", "nothing", "where the sample's data lie")
        return found
    bin_um = (options or {}).get("bin_um") or OPTIONS["bin_um"]
    found = _PLATFORMS[platform][0](
        Path(path),
        image,
        where=f"{where}, column path",
        positions=positions,
        bin_um=bin_um,
        subset=(options or {}).get("subset", ""),
        alignment=alignment,
    )
    if str(alignment) and platform != "xenium":
        found.faults.add(f"{where}, column alignment", str(alignment), "nothing: only platform xenium takes it")
    if labels_is_table(labels, path):
        if check_file(Path(labels), f"{where}, column labels", found.faults, "a table of labels"):
            found.roles["labels"] = Path(labels)
    return found


def read(sample: SampleInput) -> Section:
    """Read and check one sample.

    Raises
    ------
    InputError
        With every fault found in the sample's files.
    """
    unknown = set(sample.options) - set(OPTIONS)
    faults, notes = Faults(), Notes()
    notes.choices.update(sample.read_as)
    for name in sorted(unknown):
        faults.add(f"config: ingest.{name}", "an unknown option", ", ".join(OPTIONS), nearest(name, OPTIONS))
    found = discover(
        sample.platform,
        sample.path,
        sample.image,
        positions=sample.positions,
        alignment=sample.alignment,
        labels=sample.labels,
        options={**sample.options, "subset": sample.subset},
        where=sample.where or f"sample {sample.sample}",
    )
    faults.extend(found.faults)
    faults.raise_if_any()
    notes.extend(found.notes)
    for role, path in found.roles.items():
        notes.choose(f"file of {role}", Path(path).name)
    raw = _PLATFORMS[sample.platform][1](sample, found, faults, notes)
    size = _image_size(found, faults)
    if raw is None:
        faults.raise_if_any()
        raise AssertionError(f"platform {sample.platform} returned neither data nor faults")
    section = _check(sample, found, raw, size, faults, notes)
    faults.raise_if_any()
    return section


def _image_size(found: Discovery, faults: Faults) -> tuple[int, int] | None:
    """Return the image's width and height, or note that it cannot be opened."""
    from histoweft.ingest import image, tables

    if found.image is None:
        return None
    with tables.attempt(faults, found.image, "an image (png, jpg, tif, svs)"):
        return image.image_size(found.image)
    return None


def _check(sample: SampleInput, found: Discovery, raw: RawSection, size, faults: Faults, notes: Notes) -> Section:
    """Run every check, drop what has to be dropped, and put the section together."""
    import numpy as np
    import pandas as pd

    from histoweft.ingest import checks, image_checks, sections

    where = raw.counts_where
    dropped: dict[str, int] = {}
    _add_table_columns(sample, found, raw, faults)
    _keep_subset(sample, raw, dropped, faults)
    if sample.platform in _LOCATE and not faults:
        _LOCATE[sample.platform](sample, found, raw, faults, notes)
    checks.check_duplicates(
        raw.barcodes, where, faults, sections.repeats_hint(raw.obs, raw.barcodes, sample.at("subset"))
    )
    checks.check_printable(raw.barcodes, "barcode", where, faults)
    obs = pd.DataFrame(index=pd.Index(raw.barcodes.astype(str), name="barcode"))
    keep = np.ones(len(obs), bool)
    if raw.positions is not None:
        keep = _place(sample, found, raw, obs, keep, dropped, faults, notes)
        _check_sections(sample, found, raw, obs, keep, faults, notes)
    features = _drop_other_features(raw, obs, notes)
    counts = checks.check_counts(
        raw.counts,
        raw.barcodes,
        raw.gene_names,
        sample.option("counts"),
        where,
        faults,
        notes,
        raw.counts_advice,
        raw.logged,
    )
    var, species = checks.check_genes(raw.gene_ids, raw.gene_names, where, faults, notes, features, raw.genomes)
    species = _species(raw.species, species, notes)
    _label(sample, found, raw, obs, faults, notes)
    for column in sample.option("obs_columns") or ():
        if raw.obs is None or column not in raw.obs:
            listed = ", ".join(map(str, [] if raw.obs is None else raw.obs.columns[:12])) or "none"
            faults.add("config: ingest.obs_columns", repr(column), f"one of: {listed}")
        else:
            obs[column] = raw.obs[column].to_numpy()
    empty = np.asarray(counts.sum(axis=1)).ravel() == 0
    if (empty & keep).any():
        dropped["empty"] = int((empty & keep).sum())
        notes.add("empty_spots", f"{dropped['empty']} of {int(keep.sum())} spots have no counts: dropped")
        keep &= ~empty
    if not keep.any() and not faults:
        steps = ", ".join(f"{name} {n}" for name, n in dropped.items()) or "nothing"
        zeros = f"Every value is zero: is this the matrix of the counts? {raw.counts_advice}".strip()
        hint = zeros if empty.all() else "Check subset and positions."
        faults.add(where, f"no spot left of {len(keep)} (dropped: {steps})", "at least one", hint)
    mpp, source = NAN, "unknown"
    xy, orientation = None, 1
    if raw.positions is not None:
        mpp, source = checks.check_mpp(
            sample.mpp,
            raw.mpp,
            raw.mpp_estimate,
            raw.mpp_source,
            float(sample.option("mpp_tolerance")),
            sample.at("mpp"),
            faults,
            notes,
        )
        notes.choose("scale", f"{mpp:.4g} um per pixel, from {source}" if np.isfinite(mpp) else "unknown")
        xy = obs[["x", "y"]].to_numpy(float)[keep]
        checks.check_spacing(xy, mpp, source, notes)
        if size is not None and not faults:
            told = sample.mpp is not None or sample.option("image_scale") is not None
            vouched = told or raw.image_frame is not None
            image_checks.check_own_pixel(found.image, mpp, raw.image_scale, vouched, faults, notes)
            size, orientation = image_checks.settle(found.image, xy, raw.image_scale, raw.image_frame, notes)
            tolerance = float(sample.option("outside_image_tolerance"))
            checks.check_inside(xy, size, raw.image_scale, tolerance, str(found.image), faults, notes)
    obs = obs[keep].drop(columns=["x", "y", "in_tissue"], errors="ignore")
    if "label" in obs:
        obs["label"] = obs["label"].cat.remove_unused_categories()
    every = bool(keep.all())
    return Section(
        sample=sample.sample,
        platform=sample.platform,
        counts=counts if every else counts[keep],
        obs=obs,
        var=var,
        xy_px=xy,
        mpp=mpp,
        mpp_source=source,
        spot_diameter_um=raw.spot_diameter_um,
        image=found.image,
        image_kind=found.image_kind,
        image_scale=raw.image_scale,
        image_size=size,
        image_orientation=orientation,
        layers={name: layer if every else layer[keep] for name, layer in raw.layers.items()},
        species=species,
        library_ids=raw.library_ids,
        patient=sample.patient,
        batch=sample.batch,
        condition=sample.condition,
        dropped=dropped,
        warnings=notes.items,
        read_as=notes.choices,
    )


def _add_table_columns(sample: SampleInput, found: Discovery, raw: RawSection, faults: Faults) -> None:
    """Let `subset` and ``obs_columns`` name columns of the labels table, and what stands around barcodes.

    What there is to say about the labels table is said later, of the observations that are kept.
    """
    import pandas as pd

    from histoweft.ingest import checks, labels, sections

    wanted = [*checks.subset_columns(sample.subset), *(sample.option("obs_columns") or ())]
    lacking = [name for name in wanted if raw.obs is None or name not in raw.obs]
    obs = pd.DataFrame(index=pd.Index(raw.barcodes, name="barcode")) if raw.obs is None else raw.obs.copy()
    if sections.SUFFIX in lacking and (tags := sections.suffixes(raw.barcodes)) is not None:
        obs[sections.SUFFIX] = tags
        lacking.remove(sections.SUFFIX)
    if sections.PLANE in lacking and (z := _third_coordinate(raw)) is not None:
        obs[sections.PLANE] = z
        lacking.remove(sections.PLANE)
    table = found.roles.get("labels")
    for name in lacking if table else ():
        values = labels.from_table(table, raw.barcodes, None, name, sample.at("subset"), faults, Notes())
        obs[name] = None if values is None else values.to_numpy(object)
    raw.obs = obs if len(obs.columns) else raw.obs


def _third_coordinate(raw: RawSection) -> np.ndarray | None:
    """Return the third column of a file's places, where they have one."""
    arrays = [values for values in raw.stored.get("obsm", {}).values() if not hasattr(values, "columns")]
    return next((values[:, 2] for values in arrays if values.shape[1] > 2), None)


def _keep_subset(sample: SampleInput, raw: RawSection, dropped: dict[str, int], faults: Faults) -> None:
    """Leave out what the sheet leaves out, before anything is judged."""
    import pandas as pd

    from histoweft.ingest import checks

    if not sample.subset:
        return
    obs = pd.DataFrame(index=pd.Index(raw.barcodes, name="barcode")) if raw.obs is None else raw.obs
    keep = checks.select(obs, sample.subset, sample.at("subset"), faults)
    dropped["subset"] = int((~keep).sum())
    if not keep.all() and keep.any():
        raw.keep(keep)


def _species(stated: str, guessed: str, notes: Notes) -> str:
    """Return the species: the file's word, else what its genes' names show."""
    if stated and guessed and guessed != stated:
        notes.add("species", f"the file says {stated}, its genes' names say {guessed}: took the file's word")
    species = stated or guessed
    how = "as the file says" if stated else "from the names of genes"
    notes.choose("species", f"{species}, {how}" if species else "unknown: names of genes do not tell")
    return species


def _check_sections(
    sample: SampleInput,
    found: Discovery,
    raw: RawSection,
    obs: pd.DataFrame,
    keep: np.ndarray,
    faults: Faults,
    notes: Notes,
) -> None:
    """Refuse several sections in one sample, and places that no section has."""
    import pandas as pd

    from histoweft.ingest import checks, sections

    if faults or not keep.any():
        return
    columns = pd.DataFrame(index=obs.index) if raw.obs is None else raw.obs
    sections.check(
        columns[keep],
        obs[["x", "y"]].to_numpy(float)[keep],
        raw.barcodes[keep],
        raw.library_ids if sample.platform == "h5ad" else [],
        checks.subset_columns(sample.subset),
        raw.on_lattice or sample.platform in _ON_LATTICE,
        str(found.roles["matrix"]),
        sample.at("subset"),
        raw.counts_where,
        faults,
        notes,
    )


def _place(
    sample, found, raw: RawSection, obs: pd.DataFrame, keep: np.ndarray, dropped: dict, faults: Faults, notes: Notes
):
    """Put positions into obs; return which spots stay (placed, and on tissue unless asked otherwise)."""
    import numpy as np

    from histoweft.ingest import checks

    where = str(found.roles.get("positions") or found.roles.get("cells") or raw.counts_where)
    complete = sample.platform in _COMPLETE
    rows = checks.match_barcodes(raw.barcodes, raw.positions.index, "positions", where, faults, notes, complete)
    if rows is None:
        for name in ("x", "y"):
            obs[name] = np.nan
        return keep
    placed = rows >= 0
    for name in raw.positions.columns:
        values = raw.positions[name].to_numpy()[np.maximum(rows, 0)]
        obs[name] = values
    if (keep & ~placed).any():
        dropped["without_position"] = int((keep & ~placed).sum())
    keep = keep & placed
    if "in_tissue" in obs and not sample.option("keep_off_tissue"):
        off = keep & ~obs["in_tissue"].to_numpy(bool)
        if off.any():
            dropped["off_tissue"] = int(off.sum())
            notes.add("off_tissue", f"{int(off.sum())} of {int(keep.sum())} spots lie off the tissue: dropped")
            keep = keep & ~off
    return keep


def _drop_other_features(raw: RawSection, obs: pd.DataFrame, notes: Notes) -> np.ndarray | None:
    """Leave genes only in `raw`; what else was counted (controls, antibodies) is summed into obs columns."""
    import re

    import numpy as np

    from histoweft.ingest import features

    types = features.feature_types(raw.gene_names, raw.gene_ids, raw.feature_types)
    gene = types == features.GENE
    if gene.all() or not gene.any():  # a panel that names its features otherwise is left as it is
        return types
    for kind in sorted(set(types[~gene])):
        name = re.sub(r"\W+", "_", str(kind).strip().lower()) + "_counts"
        obs[name] = np.asarray(raw.counts[:, np.flatnonzero(types == kind)].sum(axis=1)).ravel()
    listed = ", ".join(f"{int((types == kind).sum())} {kind}" for kind in sorted(set(types[~gene])))
    notes.add("other_features", f"{int((~gene).sum())} features that are no genes ({listed}): summed into obs, dropped")
    raw.counts = raw.counts[:, np.flatnonzero(gene)]
    raw.layers = {name: layer[:, np.flatnonzero(gene)] for name, layer in raw.layers.items()}
    raw.gene_ids, raw.gene_names = raw.gene_ids[gene], raw.gene_names[gene]
    if raw.genomes is not None:
        raw.genomes = raw.genomes[gene]
    return types[gene]


def _label(
    sample: SampleInput, found: Discovery, raw: RawSection, obs: pd.DataFrame, faults: Faults, notes: Notes
) -> None:
    """Add the column ``label`` where the sheet gives labels."""
    from histoweft.ingest import labels

    if not str(sample.labels):
        return
    if "labels" in found.roles:
        spots = None
        if "array_col" in obs and sample.platform == "st" and obs["array_col"].notna().all():
            spots = st.key(obs[["array_col", "array_row"]].to_numpy())
        values = labels.from_table(
            found.roles["labels"], raw.barcodes, spots, sample.labels_column, sample.at("labels_column"), faults, notes
        )
    else:
        values = labels.from_column(raw.obs, str(sample.labels), sample.at("labels"), faults)
    if values is not None:
        if broken := [label for label in values.cat.categories if "\0" in str(label)]:
            faults.add(sample.at("labels"), f"the label {broken[0]!r}", "text without zero bytes")
        obs["label"] = values.array


def write_counts(section: Section, path: str | Path, clinical: Mapping[str, Any] | None = None) -> None:
    """Write ``counts.h5ad``; the file appears only when complete.

    Parameters
    ----------
    section
        From `read`.
    clinical
        Further columns of the sheet, kept under ``uns['histoweft']['clinical']``.
    """
    import numpy as np

    from histoweft.io import CsrWriter, add_elements, atomic

    obsm = {}
    if section.xy_px is not None:
        obsm["spatial"] = np.ascontiguousarray(section.xy_px, dtype=np.float64)
        if np.isfinite(section.mpp):
            obsm["spatial_um"] = obsm["spatial"] * section.mpp
    about = {
        "sample": section.sample,
        "patient": section.patient,
        "batch": section.batch,
        "condition": section.condition,
        "platform": section.platform,
        "mpp": float(section.mpp),
        "mpp_source": section.mpp_source,
        "spot_diameter_um": float(section.spot_diameter_um),
        "image": section.image is not None,
        "source_image_scale": float(section.image_scale),
        "image_kind": section.image_kind,
        "image_dataset": getattr(section.image, "dataset", ""),
        "image_orientation": int(section.image_orientation),
        "species": section.species,
        "counts": "as_is" if section.counts.dtype.kind == "f" else "integer",
        "library_ids": np.array([str(v) for v in section.library_ids], dtype=object),
        "warnings": np.array([str(w) for w in section.warnings], dtype=object),
        "read_as": {topic.replace("/", "_"): taken for topic, taken in section.read_as.items()},
        "dropped": {name: int(n) for name, n in section.dropped.items()},
        # A slash in a name would make a group of its own in the file.
        "clinical": {name.replace("/", "_"): value for name, value in (clinical or {}).items()},
    }
    with atomic(path) as partial:
        with CsrWriter(partial, section.counts.shape[1], section.counts.dtype) as writer:
            writer.append(section.counts)
            writer.finish(section.obs, section.var, obsm=obsm, uns={"histoweft": about})
        add_elements(partial, {f"layers/{name}": layer for name, layer in section.layers.items()})
