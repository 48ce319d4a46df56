"""Spatially variable genes: exact moments, agreement with squidpy, calibration."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.io import CountsFile, CsrWriter
from histoweft.normalise import normalise
from histoweft.significance import adjust, cauchy, two_sided, upper_tail
from histoweft.space.graph import Section, spatial_graph
from histoweft.space.svg import (
    SectionTests,
    count_patterns,
    kernels,
    mean_product,
    normal_variance,
    permutation_moments,
    variable_genes,
    weights_of,
)


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    """Return a file of counts with a striped gene, a gradient and noise, its positions and graph."""
    rng = np.random.default_rng(0)
    r, c = np.divmod(np.arange(400), 20)
    xy = np.column_stack([100 * (c + 0.5 * (r % 2)), 86.6 * r]).astype(float)
    rates = rng.lognormal(-0.5, 1, (1, 60)) * np.ones((400, 1))
    rates[:, 0] = np.where(xy[:, 0] // 400 % 2 == 0, 4, 0.4)
    rates[:, 1] = 0.2 + 4 * xy[:, 1] / xy[:, 1].max()
    rates[:, 2] = 0
    rates[:, 3] = 0.004
    counts = sp.csr_matrix(rng.poisson(rates).astype(np.int32))
    path = tmp_path_factory.mktemp("svg") / "counts.h5ad"
    with CsrWriter(path, 60, np.int32) as writer:
        writer.append(counts)
        obs = pd.DataFrame(index=[f"b{i}" for i in range(400)])
        writer.finish(obs, pd.DataFrame(index=[f"g{i}" for i in range(60)]), obsm={"spatial_um": xy, "spatial": xy})
    return path, xy, spatial_graph(Section(xy, True, "visium"))[1], counts


def tiny(seed=0, n=6):
    rng = np.random.default_rng(seed)
    w = np.triu(rng.random((n, n)) * (rng.random((n, n)) < 0.7), 1)
    return w + w.T, rng.gamma(0.5, 1, n)


def test_moments_equal_those_of_all_permutations():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 10, (7, 2))
    weights = weights_of(spatial_graph(Section(xy, True, "xenium"), "knn", 2)[1])
    w = weights.matrix.toarray().astype(float)
    values = rng.gamma(0.5, 1, 7)
    z = values - values.mean()
    dealt = z[np.array(list(permutations(range(7))))]
    moran = 7 / w.sum() * np.einsum("pi,ij,pj->p", dealt, w, dealt) / (z**2).sum()
    mean, deviation, skewness = permutation_moments(weights, {k: np.array([(z**k).sum()]) for k in range(1, 7)})
    assert mean[0] == pytest.approx(-1 / 6)
    assert mean[0] == pytest.approx(moran.mean())
    assert deviation[0] == pytest.approx(moran.std(), rel=1e-5)
    third = ((moran - moran.mean()) ** 3).mean() / moran.std() ** 3
    assert skewness[0] == pytest.approx(third, rel=1e-4)


def test_patterns_equal_an_enumeration_of_edges():
    w, _ = tiny()
    edges = [(i, j, w[i, j]) for i in range(6) for j in range(i) if w[i, j]]
    found = count_patterns(sp.csr_matrix(w))
    expected = dict.fromkeys(("triangles", "stars", "paths", "bent_and_single", "single"), 0.0)
    for a, one in enumerate(edges):
        for b, two in enumerate(edges[:a]):
            for three in edges[:b]:
                ends = [set(edge[:2]) for edge in (one, two, three)]
                degrees = sorted(np.bincount([v for end in ends for v in end]).tolist(), reverse=True)
                degrees = tuple(d for d in degrees if d)
                kind = {
                    (2, 2, 2): "triangles", (3, 1, 1, 1): "stars", (2, 2, 1, 1): "paths",
                    (2, 1, 1, 1, 1): "bent_and_single", (1,) * 6: "single",
                }[degrees]  # fmt: skip
                expected[kind] += one[2] * two[2] * three[2]
    for kind, value in expected.items():
        assert getattr(found, kind) == pytest.approx(value, abs=1e-9), kind


def test_mean_product_over_different_points():
    z = np.random.default_rng(1).normal(size=5)
    sums = {k: (z**k).sum() for k in range(1, 7)}
    expected = np.mean([z[i] ** 2 * z[j] * z[k] for i, j, k in permutations(range(5), 3)])
    assert mean_product((2, 1, 1), sums, 5) == pytest.approx(expected)


def test_values_equal_squidpy(section):
    anndata, sq = pytest.importorskip("anndata"), pytest.importorskip("squidpy")
    path, xy, graph, counts = section
    adata = anndata.AnnData(normalise(counts), var=pd.DataFrame(index=[f"g{i}" for i in range(60)]))
    adata.obsp["spatial_connectivities"] = graph.astype(np.float64)
    adata.obs["x"] = 0.0
    with CountsFile(path) as file:
        ours = variable_genes(file, graph, xy, min_share=0).set_index("gene")
    tested = [gene for gene in adata.var_names if gene != "g2"]
    moran = sq.gr.spatial_autocorr(adata, genes=tested, mode="moran", copy=True)
    geary = sq.gr.spatial_autocorr(adata, genes=tested, mode="geary", copy=True)
    assert np.abs(ours["moran"].loc[moran.index] - moran["I"]).max() < 1e-6
    assert np.abs(ours["geary"].loc[geary.index] - geary["C"]).max() < 1e-6
    above = moran.index[moran["I"] > 0]  # below zero squidpy turns the tail around
    assert np.allclose(ours["p_normality"][above], moran["pval_norm"][above], rtol=1e-3, atol=1e-12)
    assert normal_variance(weights_of(graph)) == pytest.approx(moran["var_norm"].iloc[0], rel=1e-4)


def test_structured_genes_come_first_and_untested_last(section):
    path, xy, graph, _ = section
    with CountsFile(path) as file:
        table = variable_genes(file, graph, xy)
    assert set(table["gene"][:2]) == {"g0", "g1"}
    assert (table["q"][:2] < 1e-6).all()
    assert (table["sparkx_q"][:2] < 1e-6).all()
    assert (table["q"][2:].dropna() > 0.01).mean() > 0.9
    assert set(table.loc[table["p"].isna(), "gene"]) == {"g2", "g3"}  # never found, found too rarely
    assert table["rank"].tolist() == list(range(1, 61))


def test_blocks_of_genes_change_nothing(section, monkeypatch):
    path, xy, graph, _ = section
    with CountsFile(path) as file:
        whole = variable_genes(file, graph, xy)
        monkeypatch.setattr("histoweft.space.values.BLOCK_NNZ", 500)
        monkeypatch.setattr("histoweft.space.svg.DENSE_VALUES", 2_000)
        monkeypatch.setattr("histoweft.space.svg.gene_blocks.__defaults__", (500,))
        parts = variable_genes(file, graph, xy)
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-4)


def test_p_values_are_uniform_without_structure():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1_000, (600, 2))
    tests = SectionTests(spatial_graph(Section(xy, True, "xenium"))[1], xy)
    # Sparse and skewed: here the normal tail alone calls far too many.
    values = sp.csc_matrix((rng.random((600, 3_000)) < 0.03) * rng.gamma(1, 1, (600, 3_000)).astype(np.float32))
    found = tests.run(values)
    p = upper_tail(found.z, found.skewness)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.015)
    assert (p < 0.001).mean() < 0.003
    assert (upper_tail(found.z) < 0.001).mean() > (p < 0.001).mean()
    assert (found.sparkx_p < 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_regressing_the_total_takes_depth_out():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1_000, (500, 2))
    graph = spatial_graph(Section(xy, True, "xenium"))[1]
    depth = np.sin(xy[:, 0] / 150) + 0.1 * rng.normal(size=500)
    values = sp.csc_matrix(depth[:, None] + rng.normal(0, 0.3, (500, 5)) + 5)
    plain, regressed = SectionTests(graph, xy).run(values), SectionTests(graph, xy, depth).run(values)
    assert (plain.z > 10).all()
    assert (np.abs(regressed.z) < 4).all()
    assert (plain.sparkx_p < 1e-10).all()
    assert (regressed.sparkx_p > 1e-3).all()


def test_covariance_test_is_the_share_explained_by_each_kernel():
    from scipy.stats import chi2

    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 100, (200, 2))
    y = xy[:, 0] / 300 + rng.normal(size=200)
    tests = SectionTests(spatial_graph(Section(xy, True, "xenium"))[1], xy)
    p = []
    for kernel in kernels(xy):
        k, centred = kernel - kernel.mean(axis=0), y - y.mean()
        fitted = k @ np.linalg.lstsq(k, centred, rcond=None)[0]
        p.append(chi2.sf(200 * (fitted**2).sum() / (centred**2).sum(), 2))
    assert len(p) == 11
    assert tests.run(sp.csc_matrix(y[:, None])).sparkx_p[0] == pytest.approx(cauchy(np.array(p)), rel=1e-3)


def test_tails():
    from scipy.stats import norm, pearson3

    z = np.array([-3.0, 0.0, 2.0, 6.0, np.nan])
    assert np.allclose(upper_tail(z)[:4], norm.sf(z[:4]))
    for skew in (-1.5, -0.01, 0.3, 2.0):
        assert np.allclose(upper_tail(z, skew)[:4], pearson3.sf(z[:4], skew), atol=1e-9)
    assert np.isnan(upper_tail(z)[4])
    assert upper_tail(np.array([60.0]))[0] == 1e-300
    assert two_sided(np.array([-2.0]))[0] == pytest.approx(2 * norm.sf(2))


def test_adjusting_leaves_out_what_was_not_tested():
    p = np.array([[0.01, np.nan], [0.04, 0.03]])
    assert np.allclose(adjust(p), [[0.03, np.nan], [0.04, 0.04]], equal_nan=True)


def test_cauchy_of_equal_and_of_tiny_p_values():
    assert cauchy(np.full(5, 0.2)) == pytest.approx(0.2)
    assert cauchy(np.array([1e-200, 0.5])) == pytest.approx(2e-200)
