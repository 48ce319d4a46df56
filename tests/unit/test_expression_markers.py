"""Markers equal a dense rank-sum test; figures of the stage are drawn for every kind of sample."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.expression import figures
from histoweft.expression.features import extract_features
from histoweft.expression.markers import marker_panel, marker_summary, rank_markers, top_markers
from histoweft.expression.qc import QcOptions, filter_counts
from histoweft.normalise import normalise


@pytest.fixture(scope="module")
def counts():
    random = np.random.default_rng(0)
    rates = random.gamma(0.8, 1, (3, 60))
    rates[:, 50:] = 0.02
    rates[:, 59] = 0
    return random.poisson(rates[random.integers(3, size=200)]).astype(np.int32)


@pytest.fixture(scope="module")
def labels(counts):
    names = np.random.default_rng(5).choice(["0", "1", "2", "10"], len(counts), p=[0.4, 0.3, 0.2, 0.1])
    names[counts[:, 0] > 2] = "1"
    return pd.Series(names, index=[f"b{i}" for i in range(len(counts))])


@pytest.fixture(scope="module")
def path(counts, labels, tmp_path_factory):
    out = tmp_path_factory.mktemp("markers") / "filtered.h5ad"
    var = pd.DataFrame({"gene_id": [f"E{i}" for i in range(60)]}, index=[f"g{i:02d}" for i in range(counts.shape[1])])
    made = anndata.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(index=labels.index), var=var)
    made.write_h5ad(out)
    return out


@pytest.fixture(scope="module")
def markers(path, labels):
    return rank_markers(path, labels)


def of(markers, cluster):
    return markers[markers["cluster"] == cluster].set_index("gene").sort_index()


def test_p_values_equal_scipys(counts, labels, markers):
    from scipy.stats import mannwhitneyu

    scaled = normalise(sp.csr_matrix(counts)).toarray()[:, :59]
    for cluster in ("0", "10"):
        inside = (labels == cluster).to_numpy()
        options = {"use_continuity": False, "method": "asymptotic"}
        expected = mannwhitneyu(scaled[inside], scaled[~inside], **options)
        mine = of(markers, cluster)[:59]
        assert np.allclose(mine["p_value"], expected.pvalue)
        assert np.allclose(mine["auroc"], expected.statistic / (inside.sum() * (~inside).sum()))


@pytest.mark.slow  # numba compiles scanpy's ranking for 15 s
def test_scores_equal_scanpys_wilcoxon(counts, labels, markers):
    import scanpy as sc

    adata = anndata.AnnData(normalise(sp.csr_matrix(counts)))
    adata.obs_names, adata.var_names = labels.index, [f"g{i:02d}" for i in range(60)]
    adata.obs["leiden"] = pd.Categorical(labels)
    adata.uns["log1p"] = {}
    sc.tl.rank_genes_groups(adata, "leiden", method="wilcoxon", tie_correct=True, pts=True)
    for cluster in ("0", "1", "2", "10"):
        theirs = sc.get.rank_genes_groups_df(adata, cluster).set_index("names").sort_index()
        mine = of(markers, cluster)
        assert np.allclose(mine["score"], theirs["scores"], atol=1e-3)
        assert np.allclose(mine["p_value"], theirs["pvals"], rtol=1e-3)
        assert np.allclose(mine["p_adjusted"], theirs["pvals_adj"], rtol=1e-3)
        assert np.allclose(mine["pct_in"], 100 * theirs["pct_nz_group"])
        assert np.allclose(mine["pct_out"], 100 * theirs["pct_nz_reference"])


def test_auroc_equals_scikit_learns(counts, labels, markers):
    from sklearn.metrics import roc_auc_score

    scaled = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    for cluster in ("0", "10"):
        expected = [roc_auc_score(labels == cluster, scaled[:, gene]) for gene in range(60)]
        assert np.allclose(of(markers, cluster)["auroc"], expected, atol=1e-6)


def test_fold_change_is_that_of_mean_scaled_counts(counts, labels, markers):
    scaled = counts / counts.sum(axis=1, keepdims=True) * 1e4
    inside = (labels == "2").to_numpy()
    mine = of(markers, "2")
    assert np.allclose(mine["mean_in"], scaled[inside].mean(axis=0), rtol=1e-4)
    assert np.allclose(mine["mean_out"], scaled[~inside].mean(axis=0), rtol=1e-4)
    expected = np.log2((scaled[inside].mean(axis=0) + 0.1) / (scaled[~inside].mean(axis=0) + 0.1))
    assert np.allclose(mine["log2_fold_change"], expected, atol=1e-3)


@pytest.mark.parametrize("budget", [1, 500])
def test_blocks_and_chunks_do_not_change_the_result(path, labels, markers, monkeypatch, budget):
    monkeypatch.setattr("histoweft.io.NNZ_BUDGET", 300)
    pd.testing.assert_frame_equal(rank_markers(path, labels, block_nnz=budget), markers)


def test_rows_are_ranked_best_first_in_the_order_of_clusters(markers):
    assert list(dict.fromkeys(markers["cluster"])) == ["0", "1", "2", "10"]
    for _, table in markers.groupby("cluster"):
        assert table["rank"].tolist() == list(range(1, 61))
        assert table["score"].is_monotonic_decreasing
    silent = markers[markers["gene"] == "g59"]
    assert (silent["score"] == 0).all()
    assert (silent["p_value"] == 1).all()
    assert (silent["auroc"] == 0.5).all()
    assert set(silent["gene_id"]) == {"E59"}


def test_top_markers_qualify_and_the_panel_is_distinct(markers):
    top = top_markers(markers, per_cluster=4, min_pct=20)
    assert top.groupby("cluster").size().max() <= 4
    assert (top["pct_in"] >= 20).all()
    assert (top["log2_fold_change"] > 0).all()
    first = of(markers, "1").sort_values("rank")
    first = first[(first["pct_in"] >= 20) & (first["log2_fold_change"] > 0)]
    assert top[top["cluster"] == "1"]["gene"].tolist() == first.index[:4].tolist()
    shared = pd.concat([markers.assign(cluster=name) for name in ("0", "1", "2")])
    shared = shared[shared["gene"].isin(["g00", "g01"])].drop_duplicates(["cluster", "gene"])
    shared = shared.assign(pct_in=50.0, log2_fold_change=1.0, score=3.0)
    panel = marker_panel(shared)
    assert panel["gene"].is_unique
    assert panel["cluster"].tolist() == ["0", "1"]


def test_one_cluster_has_no_markers(path, labels):
    table = rank_markers(path, pd.Series("0", index=labels.index))
    assert table.empty
    assert "auroc" in table
    assert top_markers(table).empty
    assert marker_panel(table).empty


def test_a_barcode_without_cluster_is_refused(path, labels):
    with pytest.raises(ValueError, match="3 barcodes have no cluster"):
        rank_markers(path, labels.iloc[3:])


def test_summary_is_the_mean_of_each_cluster(path, counts, labels):
    table = marker_summary(path, labels, ["g03", "g01"])
    scaled = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    found = table.set_index(["cluster", "gene"])
    inside = (labels == "10").to_numpy()
    assert found.loc[("10", "g01"), "mean"] == pytest.approx(scaled[inside, 1].mean(), rel=1e-5)
    assert found.loc[("10", "g03"), "pct"] == pytest.approx(100 * (counts[inside, 3] > 0).mean())
    with pytest.raises(ValueError, match="no gene 'nope'"):
        marker_summary(path, labels, ["g01", "nope"])


def picture(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("placed", [True, False])
def test_every_figure_is_drawn_with_and_without_positions(counts, labels, tmp_path, placed):
    made = anndata.AnnData(sp.csr_matrix(counts), obs=pd.DataFrame(index=labels.index))
    made.var_names = ["MT-1", *(f"g{i:02d}" for i in range(1, 60))]
    if placed:
        grid = np.stack(np.meshgrid(np.arange(20), np.arange(10)), axis=-1).reshape(-1, 2)
        made.obsm["spatial"] = grid * 100.0
    made.uns["histoweft"] = {"mpp": 0.5, "spot_diameter_um": 40.0}
    made.write_h5ad(tmp_path / "counts.h5ad")
    result = filter_counts(tmp_path / "counts.h5ad", tmp_path / "filtered.h5ad", QcOptions(min_genes=22, mads=3))
    assert 0 < (~result.barcodes["kept"]).sum() < 150
    figures.qc_figure(tmp_path / "counts.h5ad", result.barcodes, result.table, tmp_path / "qc.png")
    features = extract_features(tmp_path / "filtered.h5ad", tmp_path / "features.h5ad")
    figures.features_figure(features, tmp_path / "features.png")
    kept = result.barcodes.index[result.barcodes["kept"]]
    umap = pd.DataFrame(np.random.default_rng(0).random((len(kept), 2)), kept, ["umap_1", "umap_2"])
    figures.clusters_figure(tmp_path / "filtered.h5ad", labels, umap, tmp_path / "clusters.png")
    top = top_markers(rank_markers(tmp_path / "filtered.h5ad", labels[kept]))
    summary = marker_summary(tmp_path / "filtered.h5ad", labels[kept], list(dict.fromkeys(top["gene"])))
    figures.markers_figure(summary, top, tmp_path / "markers.png")
    shapes = {name: picture(tmp_path / f"{name}.png") for name in ("qc", "features", "clusters", "markers")}
    assert all(np.unique(image.reshape(-1, 3), axis=0).shape[0] > 20 for image in shapes.values())
    wide, tall = shapes["clusters"].shape[1], shapes["clusters"].shape[0]
    assert (wide / tall > 1.6) is placed


def test_figures_say_so_where_there_is_nothing_to_show(path, labels, tmp_path):
    stable = pd.DataFrame(
        {"resolution": [0.5, 1.0], "ari_mean": np.nan, "ari_min": np.nan, "clusters_median": [3.0, 4.0],
         "clusters_min": [3, 4], "clusters_max": [3, 4], "seeds": 1}
    )  # fmt: skip
    figures.stability_figure(stable, tmp_path / "one.png", chosen=1.0)
    figures.stability_figure(stable.assign(ari_mean=0.9, ari_min=0.8, seeds=3), tmp_path / "three.png", chosen=1.0)
    assert picture(tmp_path / "one.png").shape != (0,)
    blue = (picture(tmp_path / "three.png") == [0, 114, 178]).all(axis=2).sum()
    assert blue > 50 > (picture(tmp_path / "one.png") == [0, 114, 178]).all(axis=2).sum()
    empty = rank_markers(path, pd.Series("0", index=labels.index))
    figures.markers_figure(marker_summary(path, labels, []), empty, tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 0
