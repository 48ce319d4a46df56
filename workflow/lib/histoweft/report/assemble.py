"""One AnnData file a sample, with the slots that scanpy, squidpy and cellxgene look for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

HIRES, LOWRES = 2_000, 600
"""Longest sides of the two images, pixels, as Space Ranger has them."""

FIDUCIAL_PER_SPOT = 105 / 65
"""Diameter of a Visium fiducial by that of a spot, as Space Ranger's scale factors give them."""

ADDED = {
    "domains": {"domain": "domain"},
    "niches": {"niche": "niche"},
    "annotation": {"label": "cell_type", "probability": "cell_type_probability"},
    "states": {name: name for name in ("phase", "persister_score", "persister", "rare", "transitional")},
    "fates": {"pseudotime": "pseudotime", "terminal": "terminal_state", "fate_entropy": "fate_entropy"},
}
"""Table of a stage -> its columns that are kept, and their names in obs."""

_COLOURED = ("label", "domain", "niche", "cell_type")
_DESCRIBED = ("sample", "patient", "batch", "condition")


def log_normalised(chunk: sp.csr_matrix, target_sum: float) -> sp.csr_matrix:
    """Scale each row to a sum and take log(1 + x).

    Parameters
    ----------
    chunk
        rows x genes, counts of all genes.
    target_sum
        The sum; rows of zeros stay.

    Returns
    -------
    rows x genes, float32, on new arrays.
    """
    values = chunk.data.astype(np.float64)
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    totals = sums[chunk.indptr[1:]] - sums[chunk.indptr[:-1]]
    factors = np.divide(target_sum, totals, out=np.zeros(len(totals)), where=totals > 0)
    values *= np.repeat(factors, np.diff(chunk.indptr))
    return sp.csr_matrix(
        (np.log1p(values, out=values).astype(np.float32), chunk.indices, chunk.indptr), shape=chunk.shape
    )


def assemble(
    output: str | os.PathLike,
    *,
    sample: str,
    filtered: str | os.PathLike,
    features: str | os.PathLike,
    graph: str | os.PathLike,
    clusters: str | os.PathLike,
    umap: str | os.PathLike,
    image: str | os.PathLike | None,
    target_sum: float,
    neighbours: int,
    added: Mapping[str, str | os.PathLike] | None = None,
    spatial_graph: str | os.PathLike | None = None,
    proportions: str | os.PathLike | None = None,
) -> None:
    """Write everything known about a sample into one h5ad file.

    Memory grows with the neighbour graph and the embeddings; counts pass through in chunks of rows.

    Parameters
    ----------
    output
        The file. X: log-normalised values of all kept genes (CSR, float32); layers: counts; obs: quality control,
        labels, clusters, domains, niches, cell types, sample, patient, batch, condition; var: what is known of the
        genes, ``highly_variable``; obsm: spatial (full-resolution pixels), spatial_um, X_pca, X_umap; varm: PCs; obsp:
        connectivities and distances, in expression and (``spatial_``) on the tissue; uns: neighbors, pca, log1p, hvg,
        colours of groups, spatial (image and scale factors), histoweft.
    sample
        Its name, also the key in ``uns['spatial']``.
    filtered, features, graph, clusters, umap, image
        Outputs of the earlier steps; `image` None or empty where there is none.
    target_sum
        Counts each row is scaled to.
    neighbours
        Number of neighbours the graph was made with.
    added
        Names of `ADDED` to the tables of further stages.
    spatial_graph
        Neighbours on the tissue, where there are any.
    proportions
        Share of each cell type in each spot, where spots were deconvolved; obsm ``proportions``, its columns named in
        ``uns['proportions']``.

    Raises
    ------
    InputError
        A file cannot be read, or was made from other barcodes.
    """
    from histoweft import io

    with io.CountsFile(filtered) as counts:
        obs, var, about = counts.obs(), counts.var(), dict(counts.uns.get("histoweft", {}))
        obsm = {name: counts.obsm(name) for name in ("spatial", "spatial_um") if name in counts.obsm_names()}
        table = io.read_table(clusters, obs.index)
        obs = _described(obs, table, about, sample)
        for name, path in (added or {}).items():
            found = io.read_table(path, obs.index)
            for column, known_as in ADDED[name].items():
                obs[known_as] = found[column]
        obsm["X_umap"] = io.read_table(umap, obs.index).to_numpy(dtype=np.float32)
        with io.CountsFile(features) as chosen:
            var, pca = _genes(var, chosen)
            # Rows are the barcodes of `filtered` in its order; the sizes are checked when the file is finished.
            obsm["X_pca"] = chosen.obsm("X_pca")
        uns = {
            "log1p": {},
            "hvg": {"flavor": "histoweft"},
            "pca": pca.pop("uns"),
            "neighbors": _neighbours(neighbours),
            "histoweft": about,
            **_colours(obs),
        }
        if proportions:
            shares = io.read_table(proportions, obs.index)
            types = [column for column in shares if f"low:{column}" in shares]
            obsm["proportions"] = shares[types].to_numpy(dtype=np.float32)
            uns["proportions"] = {"types": np.array(types, dtype=object)}
        if image and "spatial" in obsm:
            uns["spatial"] = {sample: spatial_slot(image, about, obsm["spatial"])}
        with io.CsrWriter(output, counts.n_vars, np.float32) as writer:
            for _, chunk in counts.chunks():
                writer.append(log_normalised(chunk, target_sum))
            writer.finish(obs, var, obsm=obsm, uns=uns, varm=pca)
    _add_matrices(output, filtered, {"": graph, "spatial_": spatial_graph})


def _described(obs: pd.DataFrame, clusters: pd.DataFrame, about: dict[str, Any], sample: str) -> pd.DataFrame:
    """Return obs with clusters as ordered-by-number categories and the columns that tell samples apart."""
    obs = obs.copy()
    for column in clusters:
        names = clusters[column].astype(str)
        order = sorted(
            names.unique(), key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)
        )
        obs[column] = pd.Categorical(names.to_numpy(), categories=order)
    for column in _DESCRIBED:
        value = sample if column == "sample" else str(about.get(column) or "")
        obs[column] = pd.Categorical([value] * len(obs), categories=[value])
    return obs


def _genes(var: pd.DataFrame, features: Any) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return var with what is known of the variable genes, and the loadings spread over all genes."""
    known = features.var()
    at = var.index.get_indexer(known.index)
    var = var.copy()
    flag = np.zeros(len(var), dtype=bool)
    flag[at] = True
    var["highly_variable"] = flag
    for column in known.columns.difference(var.columns, sort=False):
        # What steps say of the chosen genes only; missing for the others.
        name = "highly_variable_rank" if column == "rank" else column
        values = pd.to_numeric(known[column], errors="coerce").to_numpy(dtype=np.float64)
        spread = np.full(len(var), np.nan)
        spread[at] = values
        var[name] = spread
    loadings = features.varm("PCs")
    wide = np.zeros((len(var), loadings.shape[1]), dtype=np.float32)
    wide[at] = loadings
    return var, {"PCs": wide, "uns": dict(features.uns.get("pca", {}))}


def _neighbours(neighbours: int) -> dict[str, Any]:
    """Return the description that scanpy's tools need to use the graph."""
    return {
        "connectivities_key": "connectivities",
        "distances_key": "distances",
        "params": {"n_neighbors": int(neighbours), "method": "umap", "metric": "euclidean", "use_rep": "X_pca"},
    }


def _colours(obs: pd.DataFrame) -> dict[str, list[str]]:
    """Return the colours of each categorical column that figures show, so that every figure agrees."""
    from histoweft.plotting import UNLABELLED, shared_colours

    found = {}
    for column in obs:
        shown = column in _COLOURED or str(column).startswith("leiden")
        if shown and isinstance(obs[column].dtype, pd.CategoricalDtype):
            names = obs[column].cat.categories
            colours = shared_colours(names)
            found[f"{column}_colors"] = [colours.get(str(name), UNLABELLED) for name in names]
    return found


def spatial_slot(image: str | os.PathLike, about: dict[str, Any], xy: np.ndarray) -> dict[str, Any]:
    """Return the image of a section as scanpy and squidpy expect it.

    Parameters
    ----------
    image
        The working image, pyramidal.
    about
        ``uns['histoweft']``: mpp, spot_diameter_um, platform.
    xy
        n x 2, full-resolution pixels; spacing gives the diameter where it is not known.

    Returns
    -------
    dict
        images (hires, lowres; uint8 RGB), scalefactors, metadata.
    """
    from histoweft.images import read_image

    picture, _, hires = read_image(image, max_px=HIRES)
    small = _resized(picture, LOWRES)
    diameter, known = _spot_diameter(about, xy)
    factors = {
        "tissue_hires_scalef": hires,
        "tissue_lowres_scalef": hires * small.shape[1] / picture.shape[1],
        "spot_diameter_fullres": diameter,
    }
    if about.get("platform") == "visium":
        factors["fiducial_diameter_fullres"] = diameter * FIDUCIAL_PER_SPOT
    metadata = {"platform": str(about.get("platform", "")), "spot_diameter": "known" if known else "from the spacing"}
    mpp = about.get("mpp")
    if mpp is not None and np.isfinite(mpp):
        metadata["mpp"] = float(mpp)
    return {"images": {"hires": picture, "lowres": small}, "scalefactors": factors, "metadata": metadata}


def _spot_diameter(about: dict[str, Any], xy: np.ndarray) -> tuple[float, bool]:
    """Return the diameter of a spot in full-resolution pixels, and whether it was known."""
    from histoweft.places import spacing

    mpp, um = about.get("mpp"), about.get("spot_diameter_um")
    if mpp and um and np.isfinite(mpp) and np.isfinite(um):
        return float(um / mpp), True
    return 0.85 * spacing(xy[np.isfinite(xy).all(axis=1)]), False


def _resized(picture: np.ndarray, longest: int) -> np.ndarray:
    from PIL import Image

    if max(picture.shape[:2]) <= longest:
        return np.ascontiguousarray(picture)
    shrunk = Image.fromarray(picture)
    factor = longest / max(shrunk.size)
    size = tuple(max(1, round(side * factor)) for side in shrunk.size)
    return np.asarray(shrunk.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def _add_matrices(
    output: str | os.PathLike, filtered: str | os.PathLike, graphs: Mapping[str, str | os.PathLike | None]
) -> None:
    """Add the counts as a layer, copied inside HDF5, and the neighbour graphs, their names begun as given."""
    import h5py

    from histoweft import io

    with h5py.File(output, "r+") as file, h5py.File(filtered, "r") as source:
        source.copy("X", file["layers"], name="counts")
        for begin, path in graphs.items():
            matrices = zip(("connectivities", "distances"), io.read_graph(path) if path else ())
            for name, matrix in matrices:
                if matrix is not None:
                    _write_sparse(file["obsp"], begin + name, matrix)


def _write_sparse(parent: Any, name: str, matrix: sp.csr_matrix) -> None:
    group = parent.create_group(name)
    group.attrs["encoding-type"], group.attrs["encoding-version"] = "csr_matrix", "0.1.0"
    group.attrs["shape"] = np.array(matrix.shape, dtype=np.int64)
    for part in ("data", "indices", "indptr"):
        group.create_dataset(part, data=getattr(matrix, part))
