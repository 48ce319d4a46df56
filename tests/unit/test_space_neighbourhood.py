"""Neighbour counts against random labels, and pairs over distance."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from histoweft.errors import InputError
from histoweft.io import CountsFile, CsrWriter, write_table
from histoweft.space.graph import Section, spatial_graph
from histoweft.space.neighbourhood import (
    Shape,
    cooccurrence,
    deal_labels,
    enrichment,
    expected_counts,
    neighbour_counts,
    pair_counts,
)
from histoweft.space.values import read_labels


def graph_of(n=120, seed=0):
    xy = np.random.default_rng(seed).uniform(0, 1_000, (n, 2))
    return xy, spatial_graph(Section(xy, True, "xenium"))[1]


def test_moments_equal_those_of_all_relabellings():
    _, graph = graph_of(8)
    codes = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    every = {tuple(codes[list(order)]) for order in permutations(range(8))}
    seen = np.array([neighbour_counts(graph, np.array(labels), 3) for labels in every])
    mean, variance = expected_counts(Shape.of(graph), np.bincount(codes))
    assert np.allclose(mean, seen.mean(axis=0))
    assert np.allclose(variance, seen.var(axis=0))


def test_counts_are_those_of_the_edges():
    _, graph = graph_of(40)
    codes = np.random.default_rng(1).integers(0, 3, 40)
    expected = np.zeros((3, 3))
    for i, j in zip(*graph.nonzero()):
        expected[codes[i], codes[j]] += 1
    assert np.array_equal(neighbour_counts(graph, codes, 3), expected)


def test_z_equals_squidpy_up_to_its_draws():
    anndata, sq = pytest.importorskip("anndata"), pytest.importorskip("squidpy")
    xy, graph = graph_of(200)
    labels = pd.Categorical(np.where(xy[:, 0] < 500, "left", np.where(xy[:, 1] < 500, "low", "high")))
    adata = anndata.AnnData(np.zeros((200, 1), np.float32), obs=pd.DataFrame({"label": labels}))
    adata.obsp["spatial_connectivities"] = graph
    peer = sq.gr.nhood_enrichment(
        adata, "label", n_perms=2_000, n_jobs=1, seed=0, copy=True, show_progress_bar=False, backend="threading"
    )
    ours = enrichment(graph, labels)
    z = ours.pivot(index="a", columns="b", values="z").to_numpy()
    count = ours.pivot(index="a", columns="b", values="count").to_numpy()
    assert np.array_equal(count, peer.counts)
    assert np.abs(z - peer.zscore).max() < 5 * np.sqrt((1 + np.abs(z).max() ** 2 / 2) / 2_000)


def test_regions_are_enriched_in_themselves_and_strangers_avoid_each_other():
    xy, graph = graph_of(400)
    third = pd.Categorical(np.digitize(xy[:, 0], [333, 667]).astype(str))
    table = enrichment(graph, third).set_index(["a", "b"])
    for name in "012":
        assert table.loc[(name, name), "z"] > 10
    assert table.loc[("0", "2"), "z"] < -5
    assert table.loc[("0", "2"), "q"] < 1e-6
    assert table.loc[("0", "2"), "z"] == table.loc[("2", "0"), "z"]


def test_random_labels_give_uniform_p_values():
    _, graph = graph_of(300)
    rng = np.random.default_rng(0)
    p = []
    for _ in range(60):
        table = enrichment(graph, pd.Categorical(rng.choice(list("abcde"), 300)))
        p += table.loc[table["a"] <= table["b"], "p"].tolist()
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(p) == pytest.approx(0.5, abs=0.04)


def test_dealt_counts_have_the_exact_moments():
    _, graph = graph_of(90)
    codes = np.repeat([0, 1, 2], [50, 35, 5])
    sizes = np.bincount(codes)
    drawn = deal_labels(graph, sizes, 2, 6_000, np.random.default_rng(0))
    mean, variance = expected_counts(Shape.of(graph), sizes)
    assert np.allclose(drawn.mean(axis=0), mean[2], atol=4 * np.sqrt(variance[2].max() / 6_000))
    assert np.allclose(drawn.var(axis=0) / variance[2], 1, atol=0.12)


def test_small_groups_are_tested_by_permutation_and_unlabelled_points_left_out():
    xy, graph = graph_of(200)
    nearest = np.argsort(np.hypot(*(xy - xy.mean(axis=0)).T))
    names = np.full(200, "many", dtype=object)
    names[nearest[:6]] = "few"  # six cells side by side
    names[nearest[150:]] = None
    labels = pd.Categorical(names, categories=["few", "many"])
    table = enrichment(graph, labels, draws=2_000, seed=1).set_index(["a", "b"])
    assert table.loc[("few", "few"), "test"] == "permutation"
    assert table.loc[("many", "many"), "test"] == "normal"
    assert table.loc[("few", "few"), "p"] == pytest.approx(2 / 2_001)
    assert table["n_b"].max() == 144
    keep = np.sort(np.concatenate([nearest[:150]]))
    direct = enrichment(graph[keep][:, keep], labels[keep], draws=2_000, seed=1).set_index(["a", "b"])
    pd.testing.assert_frame_equal(table, direct)


def test_pair_counts_equal_all_distances():
    xy, _ = graph_of(80)
    codes = np.random.default_rng(2).integers(0, 3, 80)
    edges = np.array([0.0, 100, 250, 400])
    gaps = np.hypot(*(xy[:, None] - xy[None]).T)
    np.fill_diagonal(gaps, np.inf)
    found = pair_counts(xy, codes, 3, edges)
    for a in range(3):
        for b in range(3):
            block = gaps[codes == a][:, codes == b]
            assert np.array_equal(found[a, b], np.histogram(block[np.isfinite(block)], edges)[0])


def test_cooccurrence_is_the_conditional_over_the_marginal_probability():
    xy, _ = graph_of(150)
    codes = np.random.default_rng(0).integers(0, 3, 150)
    table = cooccurrence(xy, pd.Categorical(np.array(list("abc"))[codes]), 0, bands=4, band_um=100.0)
    gaps = np.hypot(*(xy[:, None] - xy[None]).T)
    np.fill_diagonal(gaps, np.inf)
    for row in table.itertuples():
        i, j = np.nonzero((gaps > row.from_um) & (gaps <= row.to_um))
        a, b = "abc".index(row.a), "abc".index(row.b)
        among_a = codes[j][codes[i] == a]
        assert row.ratio == pytest.approx((among_a == b).mean() / (codes[j] == b).mean(), rel=1e-3)


def test_cooccurrence_falls_from_a_patch_outwards():
    xy, _ = graph_of(600)
    inside = np.hypot(*(xy - 500).T) < 200
    table = cooccurrence(xy, pd.Categorical(np.where(inside, "patch", "rest")), 30)
    own = table[(table["a"] == "patch") & (table["b"] == "patch")]["ratio"].to_numpy()
    assert own[0] > 3
    assert own[-1] < 0.3
    assert table["to_um"].max() == 600


def labelled_file(path, label=None):
    import scipy.sparse as sp

    obs = pd.DataFrame(index=["a", "b", "c", "d"])
    if label is not None:
        obs["label"] = label
    with CsrWriter(path, 1) as writer:
        writer.append(sp.csr_matrix(np.ones((4, 1), np.float32)))
        writer.finish(obs, pd.DataFrame(index=["gene"]))
    return path


def test_labels_from_every_source(tmp_path):
    table = tmp_path / "clusters.parquet"
    write_table(pd.DataFrame({"leiden": ["10", "2", "2", "10"]}, index=list("dcba")), table)
    with CountsFile(labelled_file(tmp_path / "a.h5ad", ["x", "", "y", "y"])) as counts:
        clusters = read_labels("clusters", counts, table)
        expert = read_labels("labels", counts, None)
        with pytest.raises(InputError, match="a column 'label'"):
            read_labels("annotation", counts, table)
    assert clusters.categories.tolist() == ["2", "10"]  # by number
    assert clusters.tolist() == ["10", "2", "2", "10"]
    assert expert.codes.tolist() == [0, -1, 1, 1]


def test_labels_that_are_missing_or_all_alike_are_refused(tmp_path):
    with (
        CountsFile(labelled_file(tmp_path / "a.h5ad")) as counts,
        pytest.raises(InputError, match=r"space\.labels.*does not have"),
    ):
        read_labels("labels", counts, None)
    with (
        CountsFile(labelled_file(tmp_path / "b.h5ad", ["x"] * 4)) as counts,
        pytest.raises(InputError, match="at least two groups"),
    ):
        read_labels("labels", counts, None)
