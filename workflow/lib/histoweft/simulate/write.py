"""Lay a simulated study out on disk: Space Ranger folders, reference, atlas, truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from histoweft.simulate.atlas import STRUCTURES, VOXEL_UM
from histoweft.simulate.genes import CELL_TYPES, INTERACTIONS
from histoweft.simulate.layout import MPP
from histoweft.simulate.study import Section, Study

#: Space Ranger writes the diameter of a 65 um disc here although the spots measure 55 um.
SCALEFACTOR_SPOT_UM = 65.0
SCALEFACTOR_FIDUCIAL_UM = 105.0
LOWRES_PIXELS = 600
GENOME = "simulated"


def write_study(study: Study, folder: str | Path) -> list[Path]:
    """Write every file of the study below `folder` and return their paths.

    The files are those of `layout.study_files`; nothing is pickled. Images are left out when the study has none.
    """
    folder = Path(folder)
    for name, section in study.sections.items():
        _write_section(study, section, folder / name)
    _write_reference(study, folder / "reference")
    _write_atlas(study, folder / "atlas")
    _write_truth(study, folder / "truth")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _write_tsv(path: Path, columns: Mapping[str, np.ndarray], separator: str = "\t") -> None:
    """Write a table; numbers to six digits, booleans as True/False, NaN as an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = []
    for values in columns.values():
        values = np.asarray(values)
        if values.dtype.kind == "f":
            text.append(["" if value != value else f"{value:.6g}" for value in values.tolist()])
        else:
            text.append([str(value) for value in values.tolist()])
    lines = [separator.join(columns), *(separator.join(row) for row in zip(*text))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_section(study: Study, section: Section, folder: Path) -> None:
    (folder / "spatial").mkdir(parents=True, exist_ok=True)
    _write_10x(study, section, folder / "filtered_feature_bc_matrix.h5")
    spots, xy = section.spots, section.xy_px
    _write_tsv(
        folder / "spatial" / "tissue_positions.csv",
        {
            "barcode": spots.barcode,
            "in_tissue": section.in_tissue.astype(int),
            "array_row": spots.array_row,
            "array_col": spots.array_col,
            "pxl_row_in_fullres": np.rint(xy[:, 1]).astype(int),
            "pxl_col_in_fullres": np.rint(xy[:, 0]).astype(int),
        },
        separator=",",
    )
    _write_tsv(folder / "labels.tsv", {"barcode": section.barcode, "label": section.labels})
    if section.image is not None:
        _write_images(section, folder / "spatial")


def _write_images(section: Section, folder: Path) -> None:
    from PIL import Image

    hires = Image.fromarray(section.image)
    side = hires.size[0]
    low = min(LOWRES_PIXELS, side)
    hires.save(folder / "tissue_hires_image.png", compress_level=1)
    hires.resize((low, low), Image.Resampling.BOX).save(folder / "tissue_lowres_image.png", compress_level=1)
    scale = MPP / section.image_um_per_pixel
    factors = {
        "spot_diameter_fullres": SCALEFACTOR_SPOT_UM / MPP,
        "tissue_hires_scalef": scale,
        "fiducial_diameter_fullres": SCALEFACTOR_FIDUCIAL_UM / MPP,
        "tissue_lowres_scalef": scale * low / side,
    }
    (folder / "scalefactors_json.json").write_text(json.dumps(factors), encoding="utf-8")


def _write_10x(study: Study, section: Section, path: Path) -> None:
    """Write the matrix as Space Ranger does (10x HDF5, version 3): genes x barcodes, compressed by column."""
    import h5py

    genes, counts = study.genes, section.counts
    with h5py.File(path, "w") as file:
        file.attrs["filetype"] = "matrix"
        file.attrs["version"] = 2
        matrix = file.create_group("matrix")
        matrix["barcodes"] = section.barcode.astype("S")
        matrix.create_dataset("data", data=counts.data.astype(np.int32), compression="gzip", compression_opts=1)
        matrix.create_dataset("indices", data=counts.indices.astype(np.int64), compression="gzip", compression_opts=1)
        matrix["indptr"] = counts.indptr.astype(np.int64)
        matrix["shape"] = np.array([len(genes), len(section.barcode)], np.int32)
        features = matrix.create_group("features")
        features["_all_tag_keys"] = np.array([b"genome"])
        features["id"] = genes.gene_id.astype("S")
        features["name"] = genes.symbol.astype("S")
        features["feature_type"] = np.full(len(genes), b"Gene Expression")
        features["genome"] = np.full(len(genes), GENOME.encode())


def _write_reference(study: Study, folder: Path) -> None:
    """Write reference.h5ad in AnnData's on-disk format 0.1.0 by hand: importing anndata costs as much as simulating."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    reference = study.reference
    with h5py.File(folder / "reference.h5ad", "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        matrix = file.create_group("X")
        shape = np.array(reference.counts.shape, np.int64)
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
        for part in ("data", "indices", "indptr"):
            values = getattr(reference.counts, part).astype(np.int32)
            matrix.create_dataset(part, data=values, compression="gzip", compression_opts=1)
        obs = dict(reference.obs)
        _write_frame(file, "obs", obs.pop("barcode"), obs, categorical=True)
        feature_type = np.full(len(study.genes), "Gene Expression")
        columns = {"gene_id": study.genes.gene_id, "feature_type": feature_type}
        _write_frame(file, "var", study.genes.symbol, columns, categorical=False)
        for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            file.create_group(name).attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})


def _write_frame(file, name: str, index: np.ndarray, columns: Mapping[str, np.ndarray], *, categorical: bool) -> None:
    group = file.create_group(name)
    group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    group.attrs["column-order"] = np.array(list(columns), dtype=object)
    _write_strings(group, "_index", index)
    for key, values in columns.items():
        if not categorical:
            _write_strings(group, key, values)
            continue
        categories, codes = np.unique(values, return_inverse=True)
        column = group.create_group(key)
        column.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        _write_strings(column, "categories", categories)
        column["codes"] = codes.astype(np.int8)
        column["codes"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def _write_strings(group, name: str, values: np.ndarray) -> None:
    import h5py

    data = group.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
    data.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def _write_atlas(study: Study, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    atlas = study.atlas
    np.savez(
        folder / "expression.npz",
        expression=atlas.expression,
        coordinates=atlas.coordinates,
        shape=np.array(atlas.annotation.shape, np.int64),
        voxel_um=np.float64(VOXEL_UM),
    )
    _write_tsv(folder / "genes.tsv", {"gene": atlas.genes})
    np.save(folder / "annotation.npy", atlas.annotation, allow_pickle=False)
    identifier, acronym, name, parent = zip(*STRUCTURES)
    _write_tsv(folder / "structures.tsv", {"id": identifier, "acronym": acronym, "name": name, "parent_id": parent})


def _write_truth(study: Study, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, section in study.sections.items():
        _write_tsv(folder / f"{name}.tsv", section.truth)
        cells = section.cells
        np.savez(
            folder / f"{name}.cells.npz",
            x_um=cells.xy_um[:, 0].astype(np.float32),
            y_um=cells.xy_um[:, 1].astype(np.float32),
            cell_type=cells.kind.astype(np.int8),
            cell_type_names=np.array(CELL_TYPES),
            pseudotime=cells.pseudotime.astype(np.float32),
            cycling=cells.cycling,
            persister=cells.persister,
        )
    genes = study.genes
    factors = {f"log2_batch_{name}": np.log2(values) for name, values in study.batch_factors.items()}
    _write_tsv(
        folder / "genes.tsv",
        {"gene": genes.symbol, "gene_id": genes.gene_id, "role": genes.role, "group": genes.group, **factors},
    )
    ligand, receptor, sender, receiver, place = (np.array(column) for column in zip(*INTERACTIONS))
    on = study.parameters["interaction_effect"] > 0
    # without persisters there is nobody to receive in their niche
    planted = on & (place != "")
    planted &= (place != "persister_niche") | (study.parameters["persister_effect"] > 0)
    _write_tsv(
        folder / "interactions.tsv",
        {
            "ligand": ligand,
            "receptor": receptor,
            "sender": sender,
            "receiver": receiver,
            "planted": planted,
            "place": np.where(planted, place, ""),
            "log2_fold": np.where(planted, float(study.parameters["interaction_effect"]), 0.0),
        },
    )
    _write_tsv(folder / "reference.tsv", study.reference.truth)
    _write_tsv(folder / "atlas_genes.tsv", study.atlas.truth)
    (folder / "simulate.json").write_text(json.dumps(study.parameters, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(README, encoding="utf-8")


README = """# The truth behind the simulated study

Made by `histoweft.simulate`; `simulate.json` holds the seed and every setting. Simulated data show that a method
works as intended; they are no evidence about tissue.

## `<section>.tsv`: one row per spot on tissue, in the order of the count matrix

| column | meaning |
|---|---|
| barcode | barcode of the spot; the same place of the array has the same barcode in every section |
| domain | layer at the spot's centre: tumour_core, invasive_margin, immune_band, stroma, muscle |
| cell_type | most frequent cell type in the spot |
| n_cells | cells whose centre lies within the spot's 55 um disc |
| prop_<type> | share of those cells that are of this type; the shares of a row add up to 1 |
| depth | place across the layers, 0 (deep in the tumour) to 1 (far end of the muscle), uniform over the area |
| pseudotime | mean differentiation of the spot's tumour cells, 0 (progenitor) to 1 (mature); empty without any |
| branch | trunk (pseudotime below 0.55), absorptive or secretory; empty without tumour cells |
| cycling_fraction | share of the spot's tumour cells that divide |
| persister_fraction | share of the spot's tumour cells that are drug-tolerant persisters |
| niche | within 230 um of the centre of a persister niche (macrophages and endothelium are enriched there) |
| lr_active | CXCL12 and CXCR4 are raised here: immune-stroma border, fibroblasts and T cells within reach |
| niche_lr_active | GAS6 and AXL are raised here: niche spots whose tumour cells persist |
| low_quality | empty, few_genes or high_mito: spots spoilt on purpose |

## `<section>.cells.npz`: every cell of the section, whether under a spot or not

x_um, y_um (micrometres from the image's top left corner), cell_type (index into cell_type_names), pseudotime (NaN
but for tumour cells), cycling, persister. The H&E was painted from these cells.

## Other tables

- `genes.tsv`: gene, gene_id, role (marker, mitochondrial, proliferation, persister, gradient, ligand, receptor,
  housekeeping, background), group (cell type, programme or pair), log2_batch_<batch> (the batch's gene-wise factor).
- `interactions.tsv`: ligand, receptor, sender, receiver, planted (raised at a place beyond what the cell types
  express; pairs that are not planted are decoys which co-occur by composition alone), place, log2_fold.
- `reference.tsv`: the reference's cells with the pseudotime, branch and cycling state that its file withholds. Mast
  cells and persisters are in the tissue but not in the reference.
- `atlas_genes.tsv`: gene, kind (smooth, structure, both, noise), structure (id whose voxels express more; 0 for
  none), wavelength_voxels.

`labels.tsv` in each section is an expert-like annotation: the domains with borders a little off, some spots left empty.
"""
