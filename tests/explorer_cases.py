"""A small study as the explorer is given it: two sections and a sample of cells, everything in them known."""

import functools

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

NASTY = "<img src=x onerror=window.harmed=1>"
GENES = ["GRADIENT", "UNIFORM", NASTY, *[f"GENE{i}" for i in range(1, 30)]]
SAMPLES = {"one": (200, True), "two": (200, True), "cells": (120, False)}
MPP, SPOT_UM, PITCH_UM = 0.5, 55.0, 100.0
COLUMNS = 20
MIDDLE_UM = (COLUMNS / 2) * PITCH_UM + 50
EXTENT_UM = (COLUMNS + 1) * PITCH_UM, 11 * PITCH_UM


def spatial(name):
    """Return positions in full-resolution pixels: a grid of 20 x 10 spots."""
    index = np.arange(SAMPLES[name][0])
    return np.column_stack([(index % COLUMNS + 1) * PITCH_UM, (index // COLUMNS + 1) * PITCH_UM]) / MPP


def labels(name):
    """Return west or east of the middle, a few points without a label."""
    index = np.arange(SAMPLES[name][0])
    return np.where(index % COLUMNS < COLUMNS / 2, "west", "east")


def umap(name):
    """Return an embedding."""
    return np.random.default_rng(SAMPLES[name][0]).normal(size=(SAMPLES[name][0], 2)).astype(np.float32)


@functools.cache
def expression(name):
    """Return log-normalised expression, points x genes: one gene that rises to the east, one the same everywhere."""
    n = SAMPLES[name][0]
    draw = np.random.default_rng(7)
    values = np.where(draw.random((n, len(GENES))) < 0.3, draw.gamma(2.0, 0.6, (n, len(GENES))), 0.0)
    values[:, 0] = np.arange(n) % COLUMNS / 5
    values[:, 1] = 1.5
    return pd.DataFrame(values.astype(np.float32), columns=GENES)


def assembled(name):
    """Return the assembled sample."""
    n, placed = SAMPLES[name]
    barcodes = [f"spot-{i}" for i in range(n)]
    obs = pd.DataFrame(
        {
            "label": pd.Categorical(labels(name)),
            "leiden": pd.Categorical([str(i % 3) for i in range(n)]),
            "n_counts": np.arange(n, dtype=float),
            "sample": pd.Categorical([name] * n),
            "doublet_score": np.where(np.arange(n) % 7 == 0, np.nan, 0.25),
        },
        index=barcodes,
    )
    var = pd.DataFrame({"highly_variable": np.arange(len(GENES)) < 10}, index=GENES)
    adata = anndata.AnnData(sp.csr_matrix(expression(name).to_numpy()), obs=obs, var=var)
    adata.obsm["X_umap"] = umap(name)
    adata.uns["histoweft"] = {"sample": name, "patient": "P1", "platform": "visium" if placed else "scrna"}
    adata.uns["label_colors"] = ["#0072b2", "#e69f00"]
    if placed:
        adata.obsm["spatial"] = spatial(name)
        adata.obsm["proportions"] = np.tile(np.float32([0.25, 0.75]), (n, 1))
        adata.uns["proportions"] = {"types": np.array(["tumour", "stroma"], dtype=object)}
        adata.uns["histoweft"] |= {"mpp": MPP, "spot_diameter_um": SPOT_UM}
    return adata


def picture():
    """Return an image of 2 um a pixel whose red grows to the right and whose green grows downwards."""
    width, height = (int(side / 2) for side in EXTENT_UM)
    rgb = np.full((height, width, 3), 200, np.uint8)
    rgb[:, :, 0] = np.linspace(40, 250, width).astype(np.uint8)
    rgb[:, :, 1] = np.linspace(40, 250, height).astype(np.uint8)[:, None]
    return rgb


def write_painted(path):
    """Write a store of two painted genes, 4 um a pixel, the first rising to the right; the left tenth is no tissue."""
    import zarr

    width, height = (int(side / 4) for side in EXTENT_UM)
    root = zarr.open_group(str(path), mode="w")
    root.attrs["histoweft"] = {"um_per_px": 4.0, "origin_um": [0.0, 0.0], "model": "context"}
    group = root.create_group("images/expression")
    channels = [{"label": name} for name in ("GRADIENT", "UNIFORM")]
    group.attrs["ome"] = {"multiscales": [{"datasets": [{"path": "s0"}]}], "omero": {"channels": channels}}
    maps = np.stack([np.tile(np.linspace(0, 4, width), (height, 1)), np.full((height, width), 1.5)])
    group.create_array("s0", data=maps.astype(np.float16), chunks=(1, 64, 64))
    tissue = np.ones((height, width), np.uint8)
    tissue[:, : width // 10] = 0
    root.create_group("labels/tissue").create_array("s0", data=tissue)
    return maps, tissue != 0


def inputs(folder, name):
    """Write what the explorer reads of a sample; return it by name."""
    from PIL import Image

    from histoweft.ingest.image import write_working_image

    own = folder / name
    own.mkdir(parents=True)
    assembled(name).write_h5ad(own / "sample.h5ad")
    found = {"h5ad": own / "sample.h5ad", "image": None, "painted": None, "joint": None}
    if SAMPLES[name][1]:
        Image.fromarray(picture()).save(own / "he.png")
        write_working_image(own / "he.png", own / "image.tif", MPP, MPP / 2.0, 2.0)
        write_painted(own / "expression.zarr")
        found |= {"image": own / "image.tif", "painted": own / "expression.zarr"}
    return found


def joint(path):
    """Write clusters of all samples together."""
    names = [f"{name}:spot-{i}" for name, (n, _) in SAMPLES.items() for i in range(n)]
    at = np.arange(len(names), dtype=np.float32)
    table = pd.DataFrame({"leiden": [str(i % 4) for i in range(len(names))], "umap_1": at, "umap_2": -at}, index=names)
    table.rename_axis(index="barcode").to_parquet(path)
    return path


def site(folder):
    """Write the whole explorer of the study; return its folder."""
    from pathlib import Path

    from histoweft import explorer
    from histoweft.explorer import sample, site

    table = joint(folder.parent / "joint.parquet")
    about = [
        sample.write_sample(
            folder / "data" / name,
            sample=name,
            **inputs(folder.parent / "inputs", name) | {"joint": table},
            wanted="all",
        )
        for name in SAMPLES
    ]
    web = sorted((Path(explorer.__file__).parent / "web").iterdir())
    told = site.study_about(about, "study", "A & B <i>study</i>")
    site.write_site(told, web=web, page=[folder / path.name for path in web], study=folder / "data" / "study.js")
    return folder
