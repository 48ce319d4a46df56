"""Normalisation, variable genes and components equal those of a plain computation on the dense matrix."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import InputError, NotComputed
from histoweft.expression.features import FeatureOptions, extract_features, rank_genes
from histoweft.io import CountsFile
from histoweft.normalise import normalise


@pytest.fixture(scope="module")
def counts():
    random = np.random.default_rng(0)
    profiles = random.gamma(0.4, 1, (4, 300)) * random.lognormal(0, 1, 300)
    depth = random.lognormal(0, 0.4, (500, 1))
    return random.poisson(2 * depth * profiles[random.integers(4, size=500)]).astype(np.int32)


@pytest.fixture(scope="module")
def path(counts, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "filtered.h5ad"
    obs = pd.DataFrame(index=[f"b{i}" for i in range(len(counts))])
    var = pd.DataFrame({"gene_id": "E"}, index=[f"g{i}" for i in range(counts.shape[1])])
    anndata.AnnData(sp.csr_matrix(counts), obs=obs, var=var).write_h5ad(out)
    return out


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr("histoweft.io.NNZ_BUDGET", 5000)


def scanpy_data(counts):
    import scanpy as sc

    adata = anndata.AnnData(sp.csr_matrix(counts.astype(np.float32)))
    adata.var_names = [f"g{i}" for i in range(counts.shape[1])]
    adata.layers["counts"] = adata.X.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def test_normalise_is_log1p_of_counts_per_total(counts):
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 5_000)
    assert np.allclose(normalise(sp.csr_matrix(counts), 5_000).toarray(), expected, rtol=1e-6)
    empty = normalise(sp.csr_matrix((2, 3), dtype=np.int32))
    assert empty.dtype == np.float32
    assert np.isfinite(empty.toarray()).all()


@pytest.mark.parametrize("n_top", [50, 300, 1000])
def test_seurat_equals_scanpy(path, counts, small_chunks, n_top):
    import scanpy as sc

    adata = scanpy_data(counts)
    sc.pp.highly_variable_genes(adata, n_top_genes=min(n_top, 299), flavor="seurat")
    with CountsFile(path) as file:
        table, totals = rank_genes(file, FeatureOptions(n_top=n_top))
    assert np.array_equal(totals, counts.sum(axis=1))
    for column in ("means", "dispersions", "dispersions_norm"):
        assert np.allclose(table[column], adata.var[column], rtol=1e-4, atol=1e-4, equal_nan=True), column
    if n_top < 300:
        assert set(table.index[table["variable"]]) == set(adata.var_names[adata.var["highly_variable"]])
    assert table["variable"].sum() == min(n_top, 300)


def test_seurat_v3_equals_scanpy(path, counts, small_chunks):
    import scanpy as sc

    adata = scanpy_data(counts)
    sc.pp.highly_variable_genes(adata, n_top_genes=50, flavor="seurat_v3", layer="counts")
    with CountsFile(path) as file:
        table, _ = rank_genes(file, FeatureOptions(n_top=50, flavour="seurat_v3"))
    assert np.allclose(table["variances_norm"], adata.var["variances_norm"], rtol=1e-5)
    assert set(table.index[table["variable"]]) == set(adata.var_names[adata.var["highly_variable"]])


def test_pearson_residuals_equal_scanpy(path, counts, small_chunks):
    import scanpy as sc

    adata = scanpy_data(counts)
    kwargs = {"n_top_genes": 50, "layer": "counts", "inplace": False}
    expected = sc.experimental.pp.highly_variable_genes(adata, **kwargs)
    with CountsFile(path) as file:
        table, _ = rank_genes(file, FeatureOptions(n_top=50, flavour="pearson"))
    assert np.allclose(table["residual_variances"], expected["residual_variances"], rtol=1e-4)
    assert set(table.index[table["variable"]]) == set(table.index[expected["highly_variable"]])


def test_an_unknown_flavour_is_refused(path):
    with CountsFile(path) as file, pytest.raises(InputError, match="one of seurat, seurat_v3, pearson"):
        rank_genes(file, FeatureOptions(flavour="cell_ranger"))


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("way", ["genes", "cells", "lanczos"])
def test_components_equal_a_dense_decomposition(path, counts, tmp_path, small_chunks, monkeypatch, way, scale):
    n_top = 100
    if way == "cells":
        path, counts = cut(counts, 80, tmp_path)
    if way == "lanczos":
        monkeypatch.setattr("histoweft.expression.features.COVARIANCE_GENES", 50)
    out = tmp_path / "features.h5ad"
    result = extract_features(path, out, FeatureOptions(n_top=n_top, n_components=10, scale=scale))
    adata = anndata.read_h5ad(out)
    chosen = result.genes["variable"].to_numpy()
    dense = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)[:, chosen]
    assert np.allclose(adata.X.toarray(), dense, rtol=1e-5)
    assert adata.X.dtype == np.float32
    dense = dense - dense.mean(axis=0)
    if scale:
        dense /= dense.std(axis=0, ddof=1)
    _, values, axes = np.linalg.svd(dense, full_matrices=False)
    variance = values**2 / (len(dense) - 1)
    assert np.allclose(result.variance, variance[:10], rtol=1e-4)
    assert np.allclose(result.variance_ratio, (variance / variance.sum())[:10], rtol=1e-4)
    loadings = adata.varm["PCs"]
    assert (loadings[np.abs(loadings).argmax(axis=0), range(10)] > 0).all()
    assert np.allclose(np.abs((loadings * axes[:10].T).sum(axis=0)), 1, atol=1e-3)
    assert np.allclose(adata.obsm["X_pca"], dense @ loadings, atol=1e-3)
    assert np.allclose(adata.uns["pca"]["variance"], result.variance)
    assert adata.obs_names[0] == "b0"
    assert {"gene_id", "means", "dispersions_norm", "rank"} <= set(adata.var.columns)


def cut(counts, n, tmp_path):
    counts = counts[:n]
    obs = pd.DataFrame(index=[f"b{i}" for i in range(n)])
    var = pd.DataFrame({"gene_id": "E"}, index=[f"g{i}" for i in range(counts.shape[1])])
    anndata.AnnData(sp.csr_matrix(counts), obs=obs, var=var).write_h5ad(tmp_path / "few.h5ad")
    return tmp_path / "few.h5ad", counts


@pytest.mark.parametrize(("cells", "genes", "components"), [(6, 300, 5), (500, 4, 4), (2, 3, 1)])
def test_components_are_reduced_where_there_is_too_little(counts, tmp_path, cells, genes, components):
    small = np.ascontiguousarray(counts[:cells, :genes]) + 1
    small[0, 0] += 3
    anndata.AnnData(sp.csr_matrix(small)).write_h5ad(tmp_path / "in.h5ad")
    result = extract_features(tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    adata = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert adata.obsm["X_pca"].shape == (cells, components)
    assert len(result.variance) == components
    assert np.isfinite(adata.obsm["X_pca"]).all()
    assert adata.n_vars == genes


def test_one_barcode_is_refused_and_leaves_nothing(tmp_path):
    anndata.AnnData(sp.csr_matrix(np.ones((1, 4), dtype=np.int32))).write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(NotComputed, match="1 barcodes and 4 genes left after QC"):
        extract_features(tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


def test_two_runs_write_the_same(path, tmp_path):
    for name in ("a", "b"):
        extract_features(path, tmp_path / f"{name}.h5ad", FeatureOptions(n_top=100))
    first, second = (anndata.read_h5ad(tmp_path / f"{name}.h5ad").obsm["X_pca"] for name in "ab")
    assert np.array_equal(first, second)
