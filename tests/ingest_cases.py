"""Tiny inputs of every platform, written on the spot, for the tests of the ingest stage."""

import gzip
import io
import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from scipy import sparse

ROWS, COLS = 6, 6
GENES = ["ACTB", "GAPDH", "MOBP", "SNAP25", "CD3E", "EPCAM", "COL1A1", "MT-CO1"]
IDS = [f"ENSG{i:011d}" for i in range(1, 9)]
SIDE = 800  # full-resolution image, pixels; one pixel is one um
TYPES = ["Gene Expression"] * 8


def counts(n=ROWS * COLS, g=8, seed=0):
    """Return (n, g) counts, no row empty."""
    values = np.random.default_rng(seed).poisson(1.5, (n, g))
    values[:, 0] += 1
    return sparse.csr_matrix(values.astype(np.int32))


def barcodes(n=ROWS * COLS, suffix="-1"):
    letters = np.array(list("ACGT"))
    return ["".join(letters[[(i >> (2 * k)) & 3 for k in range(8)]]) + suffix for i in range(n)]


def write_h5(path, matrix, cells, ids=IDS, names=GENES, types=TYPES, version=3, library="lib1"):
    path.parent.mkdir(parents=True, exist_ok=True)
    matrix = sparse.csr_matrix(matrix)
    with h5py.File(path, "w") as handle:
        group = handle.create_group("matrix" if version == 3 else "GRCh38")
        group["barcodes"] = np.array(cells, dtype="S")
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        group["shape"] = np.array(matrix.shape[::-1], dtype=np.int32)
        if version == 3:
            features = group.create_group("features")
            for key, values in (
                ("id", ids),
                ("name", names),
                ("feature_type", types),
                ("genome", ["GRCh38"] * len(ids)),
            ):
                features[key] = np.array(values, dtype="S")
            handle.attrs["library_ids"] = np.array([library], dtype="S")
        else:
            group["genes"], group["gene_names"] = np.array(ids, dtype="S"), np.array(names, dtype="S")
    return path


def text(path, content):
    """Write text, gzipped when the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def write_trio(folder, matrix, cells, version=3, prefix="", ids=IDS, names=GENES):
    from scipy.io import mmwrite

    gz = ".gz" if version == 3 else ""
    buffer = io.BytesIO()
    mmwrite(buffer, sparse.coo_matrix(sparse.csr_matrix(matrix).T), field="integer")
    text(folder / f"{prefix}matrix.mtx{gz}", buffer.getvalue().decode())
    text(folder / f"{prefix}barcodes.tsv{gz}", "".join(f"{c}\n" for c in cells))
    if version == 3:
        lines = [f"{i}\t{n}\tGene Expression\n" for i, n in zip(ids, names)]
    else:
        lines = [f"{i}\t{n}\n" for i, n in zip(ids, names)]
    text(folder / f"{prefix}{'features' if version == 3 else 'genes'}.tsv{gz}", "".join(lines))


def positions(off=0):
    """Return Visium positions on a hexagonal grid of 100 px pitch (1 um a pixel); the last `off` are off tissue."""
    rows, cols = np.divmod(np.arange(ROWS * COLS), COLS)
    array_col = 2 * cols + rows % 2
    frame = pd.DataFrame(
        {
            "barcode": barcodes(),
            "in_tissue": 1,
            "array_row": rows,
            "array_col": array_col,
            "pxl_row_in_fullres": 60 + rows * 100 * 3**0.5 / 2,
            "pxl_col_in_fullres": 90 + array_col * 50.0,
        }
    )
    if off:
        frame.loc[frame.index[-off:], "in_tissue"] = 0
    return frame


def picture(path, width=200, height=200, mode="RGB", seed=0):
    """Write a picture with some texture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    values = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(values).save(path)
    return path


def scalefactors(folder, **changes):
    values = {
        "spot_diameter_fullres": 65.0,
        "tissue_hires_scalef": 0.25,
        "tissue_lowres_scalef": 0.075,
        "fiducial_diameter_fullres": 110.0,
    }
    values.update(changes)
    values = {k: v for k, v in values.items() if v is not None}
    return text(folder / "scalefactors_json.json", json.dumps(values))


def visium(root, matrix="h5", table="csv", images=("hires", "lowres"), off=0, factors=None, frame=None, values=None):
    """Write a Space Ranger folder.

    matrix: h5 | h5v2 | trio3 | trio2 | raw_h5 | none; table: csv | csv_noheader | list | list.gz | parquet | none.
    """
    values = counts() if values is None else values
    frame = positions(off) if frame is None else frame
    cells = barcodes(values.shape[0])
    if matrix in ("h5", "h5v2"):
        write_h5(root / "filtered_feature_bc_matrix.h5", values, cells, version=2 if matrix == "h5v2" else 3)
    elif matrix == "raw_h5":
        write_h5(root / "raw_feature_bc_matrix.h5", values, cells)
    elif matrix == "trio3":
        write_trio(root / "filtered_feature_bc_matrix", values, cells)
    elif matrix == "trio2":
        write_trio(root / "filtered_gene_bc_matrices" / "GRCh38", values, cells, version=2)
    spatial = root / "spatial"
    spatial.mkdir(parents=True, exist_ok=True)
    names = {
        "csv": ("tissue_positions.csv", True),
        "csv_noheader": ("tissue_positions.csv", False),
        "list": ("tissue_positions_list.csv", False),
        "list.gz": ("tissue_positions_list.csv.gz", False),
    }
    if table in names:
        name, header = names[table]
        text(spatial / name, frame.to_csv(index=False, header=header))
    elif table == "parquet":
        frame.to_parquet(spatial / "tissue_positions.parquet")
    for kind in images:
        side = int(SIDE * (0.25 if kind == "hires" else 0.075))
        picture(spatial / f"tissue_{kind}_image.png", side, side)
    scalefactors(spatial, **(factors or {}))
    return root


def visium_hd(root, bins=(2, 8, 16)):
    """Write binned outputs; the pixel size is 0.5 um."""
    for bin_um in bins:
        folder = root / "binned_outputs" / f"square_{bin_um:03d}um"
        n = ROWS * COLS
        names = [f"s_{bin_um:03d}um_{i // COLS:05d}_{i % COLS:05d}-1" for i in range(n)]
        rows, cols = np.divmod(np.arange(n), COLS)
        frame = pd.DataFrame(
            {
                "barcode": names,
                "in_tissue": 1,
                "array_row": rows,
                "array_col": cols,
                "pxl_row_in_fullres": 20 + rows * bin_um / 0.5,
                "pxl_col_in_fullres": 20 + cols * bin_um / 0.5,
            }
        )
        write_h5(folder / "filtered_feature_bc_matrix.h5", counts(seed=bin_um), names)
        (folder / "spatial").mkdir()
        frame.to_parquet(folder / "spatial" / "tissue_positions.parquet")
        scalefactors(folder / "spatial", bin_size_um=float(bin_um), microns_per_pixel=0.5)
    picture(root / "spatial" / "tissue_hires_image.png")
    return root


def xenium(root, cells="csv.gz", matrix="h5"):
    """Write a Xenium folder: 8 genes, a control probe and a blank codeword."""
    n = 20
    values = sparse.hstack([counts(n), sparse.csr_matrix(np.ones((n, 2), np.int32))]).tocsr()
    ids, names = [*IDS, "NegControlProbe_1", "BLANK_1"], [*GENES, "NegControlProbe_1", "BLANK_1"]
    names_cells = [f"cell{i}" for i in range(n)]
    types = [*TYPES, "Negative Control Probe", "Blank Codeword"]
    if matrix == "h5":
        write_h5(root / "cell_feature_matrix.h5", values, names_cells, ids, names, types)
    else:
        write_trio(root / "cell_feature_matrix", values, names_cells, version=2, ids=ids, names=names)
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "cell_id": names_cells,
            "x_centroid": rng.uniform(0, 300, n),
            "y_centroid": rng.uniform(0, 200, n),
            "cell_area": np.full(n, np.pi * 25),
        }
    )
    if cells == "parquet":
        frame.to_parquet(root / "cells.parquet")
    elif cells:
        text(root / f"cells.{cells}", frame.to_csv(index=False))
    return frame


def alignment(path, angle=90.0, zoom=2.0, shift=(700.0, 20.0)):
    """Write a matrix that turns, enlarges and moves, as Xenium Explorer does; return it."""
    a = np.deg2rad(angle)
    matrix = np.array(
        [
            [zoom * np.cos(a), -zoom * np.sin(a), shift[0]],
            [zoom * np.sin(a), zoom * np.cos(a), shift[1]],
            [0, 0, 1],
        ]
    )
    text(path, "\n".join(",".join(map(repr, map(float, row))) for row in matrix) + "\n")
    return matrix


def st(
    root, name="A1", transpose=False, side=12, checkerboard=False, image=True, table="selection", off=0, pitch_px=50
):
    """Write a legacy ST section whose pixels are 200 um / pitch_px (100 um a step on a checkerboard)."""
    root.mkdir(parents=True, exist_ok=True)
    grid = [(x, y) for x in range(2, side) for y in range(2, side) if not checkerboard or (x + y) % 2 == 0]
    spots = [f"{x}x{y}" for x, y in grid]
    values = pd.DataFrame(counts(len(grid)).toarray(), index=spots, columns=GENES)
    text(root / f"{name}.tsv.gz", (values.T if transpose else values).to_csv(sep="\t"))
    step = pitch_px / 2 if checkerboard else pitch_px
    frame = pd.DataFrame(grid, columns=["x", "y"])
    frame["new_x"], frame["new_y"] = frame["x"] + 0.05, frame["y"] - 0.03
    frame["pixel_x"], frame["pixel_y"] = frame["x"] * step, frame["y"] * step
    frame["selected"] = 1
    if off:
        frame.loc[frame.index[:off], "selected"] = 0
    if table:
        stem = f"alignment_table_{name}" if table == "alignment" else f"{name}_{table}"
        text(root / f"{stem}.tsv", frame.to_csv(sep="\t", index=False))
    if image:
        picture(root / f"{name}.jpg", pitch_px * side, pitch_px * side)
    return root / f"{name}.tsv.gz", values, frame


def h5ad(path, values=None, spatial=True, obs=None, layers=None, raw=None, var=None, uns=None):
    """Write an AnnData file."""
    import anndata as ad

    values = counts() if values is None else values
    n = values.shape[0]
    frame = (
        pd.DataFrame({"cell_type": pd.Categorical(["a", "b"] * (n // 2))}, index=barcodes(n)) if obs is None else obs
    )
    genes = pd.DataFrame(index=GENES[: values.shape[1]]) if var is None else var
    data = ad.AnnData(values, obs=frame, var=genes, layers=layers or {}, uns=uns or {})
    if raw is not None:
        data.raw = ad.AnnData(raw, obs=frame, var=genes)
    if spatial:
        data.obsm["spatial"] = np.column_stack([np.arange(n) * 10.0, np.arange(n) % 7 * 10.0])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    data.write_h5ad(path)
    return Path(path)


def loom(path):
    """Write a loom file with coordinates."""
    values = counts(10).toarray()
    with h5py.File(path, "w") as handle:
        handle["matrix"] = values.T
        handle["row_attrs/Gene"] = np.array(GENES, dtype="S")
        handle["col_attrs/CellID"] = np.array([f"c{i}" for i in range(10)], dtype="S")
        handle["col_attrs/X"], handle["col_attrs/Y"] = np.arange(10) * 3.0, np.arange(10) * 2.0
        handle["col_attrs/Region"] = np.array(["in"] * 7 + ["Excluded"] * 3, dtype="S")
        handle.create_group("layers")
    return values
