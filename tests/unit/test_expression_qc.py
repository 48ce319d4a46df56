"""QC: what is measured, what is removed and why, and what is said when nothing is left."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.expression.qc import QcOptions, adaptive_threshold, filter_counts, mitochondrial
from histoweft.io import CountsFile

LOOSE = {"min_genes": 0, "max_counts": None, "min_spots": 0}


def write(path, matrix, names=None, **obsm):
    n, g = matrix.shape
    var = pd.DataFrame({"gene_id": [f"E{i}" for i in range(g)]}, index=names or [f"g{i}" for i in range(g)])
    obs = pd.DataFrame({"label": pd.Categorical(["x"] * n)}, index=[f"b{i}" for i in range(n)])
    made = anndata.AnnData(sp.csr_matrix(matrix), obs=obs, var=var, obsm=obsm)
    made.uns["histoweft"] = {"sample": "s"}
    made.write_h5ad(path)
    return path


@pytest.fixture
def random_counts():
    return np.random.default_rng(0).poisson(0.6, (300, 40)).astype(np.int32)


@pytest.fixture
def path(tmp_path, random_counts):
    names = ["MT-1", "mt-2", *(f"g{i}" for i in range(36)), "Mt-3", "MTOR"]
    return write(tmp_path / "in.h5ad", random_counts, names, spatial=np.arange(600.0).reshape(300, 2))


def test_metrics_equal_the_plain_sums_whatever_the_chunks(path, random_counts, tmp_path, monkeypatch):
    monkeypatch.setattr("histoweft.io.NNZ_BUDGET", 50)
    result = filter_counts(path, tmp_path / "out.h5ad", QcOptions(**LOOSE))
    found = result.barcodes
    assert np.array_equal(found["n_genes"], (random_counts > 0).sum(axis=1))
    assert np.array_equal(found["n_counts"], random_counts.sum(axis=1))
    share = 100 * random_counts[:, [0, 1, 38]].sum(axis=1) / random_counts.sum(axis=1)
    assert np.allclose(found["pct_mito"], share)
    assert np.array_equal(result.genes["n_spots"], (random_counts > 0).sum(axis=0))
    assert (found["reason"] == "").all()


def test_filters_apply_in_order_and_genes_are_judged_by_kept_barcodes(path, random_counts, tmp_path):
    options = QcOptions(min_genes=17, max_counts=30, max_pct_mito=15.0, min_spots=100)
    result = filter_counts(path, tmp_path / "out.h5ad", options)
    few = (random_counts > 0).sum(axis=1) < 17
    many = random_counts.sum(axis=1) > 30
    mito = result.barcodes["pct_mito"].to_numpy() > 15
    kept = ~(few | many | mito)
    genes = (random_counts[kept] > 0).sum(axis=0) >= 100
    table = result.table.set_index("filter")
    assert list(table.index) == ["min_genes", "max_counts", "max_pct_mito", "min_spots"]
    assert table["removed_alone"].tolist()[:3] == [few.sum(), many.sum(), mito.sum()]
    assert table["removed"].tolist() == [
        few.sum(),
        (many & ~few).sum(),
        (mito & ~few & ~many).sum(),
        (~genes).sum(),
    ]
    assert table["remaining"].tolist()[-2:] == [kept.sum(), genes.sum()]
    assert table.loc["min_spots", "removed_alone"] == ((random_counts > 0).sum(axis=0) < 100).sum()
    assert 0 < genes.sum() < 40
    reason = result.barcodes["reason"].to_numpy()
    assert set(reason[few]) == {"fewer than 17 genes"}
    assert set(reason[many & ~few]) == {"more than 30 counts"}
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert np.array_equal(out.X.toarray(), random_counts[kept][:, genes])
    assert out.X.dtype == np.int32
    assert out.obs_names.tolist() == [f"b{i}" for i in np.flatnonzero(kept)]
    assert np.array_equal(out.obsm["spatial"], np.arange(600.0).reshape(300, 2)[kept])
    assert {"label", "n_genes", "n_counts", "pct_mito"} <= set(out.obs.columns)
    assert out.uns["histoweft"]["sample"] == "s"


def test_the_table_equals_scanpys_filters(path, random_counts, tmp_path):
    import scanpy as sc

    filter_counts(path, tmp_path / "out.h5ad", QcOptions(min_genes=17, max_counts=30, min_spots=100))
    adata = anndata.read_h5ad(path)
    sc.pp.filter_cells(adata, min_genes=17)
    sc.pp.filter_cells(adata, max_counts=30)
    sc.pp.filter_genes(adata, min_cells=100)
    mine = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert (mine.X != adata.X).nnz == 0
    assert mine.var_names.equals(adata.var_names)


def test_explicit_zeros_are_no_genes(tmp_path):
    matrix = sp.csr_matrix(np.ones((4, 5), dtype=np.int32))
    matrix.data[:3] = 0
    anndata.AnnData(matrix).write_h5ad(tmp_path / "in.h5ad")
    result = filter_counts(tmp_path / "in.h5ad", tmp_path / "out.h5ad", QcOptions(min_genes=3, min_spots=0))
    assert result.barcodes["n_genes"].tolist() == [2, 5, 5, 5]
    assert result.genes["n_spots"].tolist() == [3, 3, 3, 3, 3]


def test_adaptive_thresholds_remove_outliers_and_correct_the_genes(tmp_path):
    counts = np.random.default_rng(1).poisson(5, (200, 30)).astype(np.int32)
    counts[:5] = 0
    counts[:5, 0] = 1
    counts[5:, 0] = 0
    path = write(tmp_path / "in.h5ad", counts)
    result = filter_counts(path, tmp_path / "out.h5ad", QcOptions(min_genes=0, max_counts=None, min_spots=1, mads=5))
    assert np.flatnonzero(~result.barcodes["kept"]).tolist() == [0, 1, 2, 3, 4]
    assert set(result.barcodes["reason"][:5]) == {"unusually few counts"}
    assert result.genes["n_spots"].iloc[0] == 0
    assert not result.genes["kept"].iloc[0]
    assert result.genes["kept"].iloc[1:].all()
    assert result.notes == ["No mitochondrial gene was measured, so the mitochondrial filter removes nothing."]


def test_adaptive_threshold_follows_its_definition():
    values = np.array([1, 2, 3, 4, 100.0])
    assert adaptive_threshold(values, 2, 1, logarithmic=False) == pytest.approx(3 + 2 * 1.4826)
    logs = np.log1p(values)
    low = np.median(logs) - 3 * 1.4826 * np.median(abs(logs - np.median(logs)))
    assert adaptive_threshold(values, 3, -1, logarithmic=True) == pytest.approx(np.expm1(low))
    assert adaptive_threshold(np.array([0, 0, 0, 5.0]), 3, 1, logarithmic=False) == np.inf
    assert adaptive_threshold(np.array([np.nan]), 3, -1, logarithmic=False) == -np.inf


def test_mitochondrial_genes_by_name_or_list():
    names = pd.Index(["MT-CO1", "mt-Nd1", "MTOR", "Mt-Co2", "Actb"])
    assert mitochondrial(names).tolist() == [True, True, False, True, False]
    assert mitochondrial(names, ["Actb"]).tolist() == [False, False, False, False, True]
    assert mitochondrial(names, []).tolist() == [True, True, False, True, False]


def test_nothing_left_names_filter_range_and_remedy(path, random_counts, tmp_path):
    with pytest.raises(InputError) as caught:
        filter_counts(path, tmp_path / "out.h5ad", QcOptions(min_genes=200))
    genes = (random_counts > 0).sum(axis=1)
    message = str(caught.value)
    assert "expression.qc.min_genes = 200" in message
    assert "fewer than 200 genes removed 300 of 300" in message
    assert f"median {np.median(genes):.4g}, largest {genes.max()}" in message
    keeps = int(message.split("A value of ")[1].split(" ")[0])
    assert 0.85 < (genes >= keeps).mean() <= 0.97
    assert not (tmp_path / "out.h5ad").exists()


def test_no_gene_left_names_the_option(path, tmp_path):
    with pytest.raises(InputError, match=r"expression\.qc\.min_spots = 301.*no gene left"):
        filter_counts(path, tmp_path / "out.h5ad", QcOptions(min_genes=1, min_spots=301))
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_values_that_are_no_counts_are_refused(tmp_path, bad):
    matrix = np.ones((4, 5), dtype=np.float32)
    matrix[2, 3] = bad
    path = write(tmp_path / "in.h5ad", matrix)
    with pytest.raises(InputError, match="counts, zero or more"):
        filter_counts(path, tmp_path / "out.h5ad", QcOptions(**LOOSE))


def test_non_integer_counts_keep_their_type(tmp_path):
    matrix = np.random.default_rng(0).random((20, 6)).astype(np.float32)
    path = write(tmp_path / "in.h5ad", matrix)
    filter_counts(path, tmp_path / "out.h5ad", QcOptions(**LOOSE))
    with CountsFile(tmp_path / "out.h5ad") as out:
        assert out.dtype == np.float32
        assert np.array_equal(out.matrix().toarray(), matrix)


def test_doublets_are_found_among_mixed_cells(tmp_path):
    random = np.random.default_rng(3)
    profiles = random.gamma(0.3, 1, (6, 400))
    profiles *= 800 / profiles.sum(axis=1, keepdims=True)
    singles = random.poisson(profiles[random.integers(6, size=500)])
    pairs = np.array([random.choice(6, 2, replace=False) for _ in range(40)])
    doublets = random.poisson(profiles[pairs[:, 0]] + profiles[pairs[:, 1]])
    path = write(tmp_path / "in.h5ad", np.vstack([singles, doublets]).astype(np.int32))
    options = {"min_genes": 1, "max_counts": None}
    flagged = filter_counts(path, tmp_path / "flag.h5ad", QcOptions(**options, doublets="flag"))
    assert flagged.barcodes["kept"].all()
    score, called = flagged.barcodes["doublet_score"], flagged.barcodes["doublet"]
    assert score[500:].median() > 3 * score[:500].median()
    assert called[500:].mean() > 0.5 > 0.1 > called[:500].mean()
    removed = filter_counts(path, tmp_path / "out.h5ad", QcOptions(**options, doublets="remove"))
    assert (~removed.barcodes["kept"]).equals(called)
    assert removed.table.set_index("filter").loc["doublets", "removed"] == called.sum()
    assert set(removed.barcodes["reason"][called]) == {"doublet"}


def joined_twice(n, genes, rate):
    counts = np.random.default_rng(1).poisson(rate, (n, genes)).astype(np.int32)
    return np.vstack([counts, counts[: n // 2]])


def test_exact_copies_of_barcodes_are_removed_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr("histoweft.io.NNZ_BUDGET", 500)
    counts = joined_twice(60, 200, 0.5)
    counts[3] = 0
    counts[3, :30] = 1
    result = filter_counts(write(tmp_path / "in.h5ad", counts), tmp_path / "out.h5ad", QcOptions(**LOOSE))
    copied = np.arange(90) >= 60
    copied[63] = False  # its twin was changed
    assert ((result.barcodes["reason"] == "exact copy of another barcode") == copied).all()
    assert result.table.set_index("filter").loc["copies", "removed"] == 29
    assert "29 of 90 barcodes are exact copies" in result.notes[0]
    assert np.array_equal(result.genes["n_spots"], (counts[~copied] > 0).sum(axis=0))


@pytest.mark.parametrize(("genes", "rate"), [(30, 3.0), (2_000, 0.004)])
def test_equal_barcodes_of_small_panels_and_shallow_bins_are_kept(tmp_path, genes, rate):
    path = write(tmp_path / "in.h5ad", joined_twice(60, genes, rate))
    result = filter_counts(path, tmp_path / "out.h5ad", QcOptions(**LOOSE))
    assert result.barcodes["kept"].all()
    assert "copies" not in set(result.table["filter"])
    assert result.notes == []
