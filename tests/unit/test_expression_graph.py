"""Neighbours, their graph, clusters and layout: against plain computations and against the packages they follow."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.graph import leiden as clustering
from histoweft.graph import neighbours
from histoweft.graph.umap import embedding_table, umap
from histoweft.metrics import adjusted_rand_index


@pytest.fixture(scope="module")
def groups():
    return np.random.default_rng(1).integers(5, size=600)


@pytest.fixture(scope="module")
def points(groups):
    random = np.random.default_rng(0)
    return (4 * random.normal(size=(5, 10))[groups] + random.normal(size=(600, 10))).astype(np.float32)


@pytest.fixture(scope="module")
def graph(points):
    return neighbours.neighbour_graph(points, 15)


def plain(points, k):
    gaps = points.astype(float)[:, None] - points.astype(float)[None]
    distances = np.sqrt((gaps**2).sum(axis=2))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)


@pytest.mark.parametrize("backend", ["numpy", "sklearn"])
def test_exact_neighbours_are_the_nearest(points, monkeypatch, backend):
    monkeypatch.setattr(neighbours, "_PLAIN_CELLS", 10_000 if backend == "numpy" else 0)
    monkeypatch.setattr(neighbours, "_BLOCK_VALUES", 50_000)
    indices, distances = neighbours.exact_neighbours(points + 1000, 12)
    expected, gaps = plain(points + 1000, 12)
    assert np.array_equal(indices, expected)
    assert np.allclose(distances, gaps, atol=1e-4)


@pytest.mark.slow  # pynndescent compiles for 20 s
def test_approximate_neighbours_are_mostly_the_nearest_and_repeatable(points):
    indices, distances = neighbours.approximate_neighbours(points, 12, seed=3)
    again, _ = neighbours.approximate_neighbours(points, 12, seed=3)
    expected, _ = plain(points, 12)
    shared = np.mean([len(set(a) & set(b)) / 12 for a, b in zip(indices, expected)])
    assert shared > 0.95
    assert np.array_equal(indices, again)
    assert np.array_equal(indices[:, 0], np.arange(600))
    assert (distances[:, 0] == 0).all()
    assert (np.diff(distances, axis=1) >= 0).all()


def test_a_point_missing_from_its_own_row_is_put_first():
    indices = np.array([[1, 0, 2], [1, 2, 0], [0, 1, 3], [0, 1, 2]], dtype=np.int32)
    distances = np.array([[0, 0, 1], [0, 2, 3], [1, 2, 3], [4, 5, 6]], dtype=np.float32)
    indices, distances = neighbours._self_first(indices, distances)
    assert indices.tolist() == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [3, 0, 1]]
    assert distances.tolist() == [[0, 0, 1], [0, 2, 3], [0, 1, 2], [0, 4, 5]]


def test_the_search_switches_by_size(points, monkeypatch):
    called = []
    monkeypatch.setattr(neighbours, "approximate_neighbours", lambda *a: called.append(a) or ("i", "d"))
    assert neighbours.nearest_neighbours(points, 5, exact_cells=599) == ("i", "d")
    assert neighbours.nearest_neighbours(points, 5, exact_cells=600)[0].shape == (600, 5)
    assert len(called) == 1


def test_cells_at_the_same_place_stay_their_own_neighbours():
    points = np.zeros((40, 3), dtype=np.float32)
    indices, distances = neighbours.exact_neighbours(points, 5)
    assert np.array_equal(indices[:, 0], np.arange(40))
    assert (distances == 0).all()
    connectivities, _ = neighbours.neighbour_graph(points, 5)
    assert np.isfinite(connectivities.data).all()


def test_the_graph_equals_umaps(points):
    from umap.umap_ import fuzzy_simplicial_set

    twice = np.vstack([points, points[:20]])
    indices, distances = neighbours.nearest_neighbours(twice, 15)
    state = np.random.RandomState(0)
    expected, *_ = fuzzy_simplicial_set(twice, 15, state, "euclidean", knn_indices=indices, knn_dists=distances)
    mine = neighbours.fuzzy_union(indices, distances)
    assert abs(mine - expected.tocsr()).max() < 2e-4
    assert mine.dtype == np.float32
    assert abs(mine - mine.T).max() < 1e-6
    assert mine.diagonal().sum() == 0
    assert mine.nnz == pytest.approx(expected.nnz, abs=4)


def test_memberships_sum_to_their_target(points):
    _, distances = neighbours.nearest_neighbours(points, 15)
    nearest, scale = neighbours.membership_scales(distances)
    total = np.exp(-np.maximum(distances[:, 1:] - nearest[:, None], 0) / scale[:, None]).sum(axis=1)
    assert np.allclose(total, np.log2(15), atol=1e-4)
    assert np.allclose(nearest, distances[:, 1])


def test_distances_keep_each_neighbour_once(points, graph):
    _, distances = graph
    indices, gaps = neighbours.nearest_neighbours(points, 15)
    assert (np.diff(distances.indptr) == 14).all()
    row = distances[7].toarray().ravel()
    assert np.allclose(row[indices[7, 1:]], gaps[7, 1:])
    before = indices.copy()
    neighbours.fuzzy_union(indices, gaps)
    assert np.array_equal(indices, before)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_tiny_samples_get_through_to_clusters_and_layout(n):
    points = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    connectivities, distances = neighbours.neighbour_graph(points, 15)
    assert connectivities.shape == distances.shape == (n, n)
    table = clustering.cluster(connectivities, [f"b{i}" for i in range(n)], (0.5, 1.0))
    assert len(table) == n
    placed = umap(connectivities, points)
    assert placed.shape == (n, 2)
    assert np.isfinite(placed).all()


def test_leiden_finds_planted_groups_and_names_them_by_size(graph, groups):
    barcodes = [f"b{i}" for i in range(600)]
    table = clustering.cluster(graph[0], barcodes, (0.25, 0.5), chosen=0.5)
    assert table.columns.tolist() == ["leiden_0.25", "leiden_0.5", "leiden"]
    assert table["leiden"].equals(table["leiden_0.5"].rename("leiden"))
    assert table.index.name == "barcode"
    assert adjusted_rand_index(table["leiden"], groups) > 0.95
    sizes = table["leiden"].value_counts()
    assert sizes.loc[[str(i) for i in range(len(sizes))]].is_monotonic_decreasing


def test_leiden_equals_scanpys(graph):
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(np.zeros((600, 1), dtype=np.float32))
    sc.tl.leiden(adata, 1.0, adjacency=graph[0], flavor="igraph", n_iterations=-1, directed=False)
    mine = clustering.leiden(clustering.as_igraph(graph[0]), 1.0, n_iterations=-1)
    assert adjusted_rand_index(mine, adata.obs["leiden"]) > 0.95


def test_leiden_is_repeatable_and_does_not_disturb_other_random_numbers(graph):
    import random

    made = clustering.as_igraph(graph[0])
    random.seed(5)
    expected = random.random()
    random.seed(5)
    first = clustering.leiden(made, 2.0, seed=4)
    assert random.random() == expected
    assert np.array_equal(first, clustering.leiden(made, 2.0, seed=4))


def test_threads_do_not_change_the_clusters(points):
    random = np.random.default_rng(0)
    many = random.normal(size=(36_000, 3)).astype(np.float32)
    indices = (np.arange(36_000)[:, None] + random.integers(1, 200, (36_000, 20))) % 36_000
    graph = sp.csr_matrix((np.ones(indices.size), indices.ravel(), np.arange(0, indices.size + 1, 20)))
    graph = ((graph + graph.T) > 0).astype(np.float32)
    assert graph.nnz > 1_000_000
    barcodes = np.arange(len(many)).astype(str)
    one, two = (clustering.cluster(graph, barcodes, (0.01, 0.02), threads=n) for n in (1, 2))
    pd.testing.assert_frame_equal(one, two)


def test_a_resolution_that_was_not_computed_cannot_be_chosen(graph):
    with pytest.raises(ValueError, match="not one of"):
        clustering.cluster(graph[0], range(600), (0.5, 1.0), chosen=0.7)


def test_stability_is_the_agreement_of_all_pairs(graph):
    table = clustering.stability(graph[0], (0.2, 3.0), seeds=(1, 2, 3))
    names = [str(number) for number in range(graph[0].shape[0])]
    first = clustering.cluster(graph[0], names, (0.2, 3.0), chosen=0.2, seed=1)
    pd.testing.assert_frame_equal(clustering.stability(graph[0], (0.2, 3.0), seeds=(1, 2, 3), first=first), table)
    made = clustering.as_igraph(graph[0])
    runs = [clustering.leiden(made, 3.0, seed=seed) for seed in (1, 2, 3)]
    pairs = [adjusted_rand_index(runs[a], runs[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    row = table.set_index("resolution").loc[3.0]
    assert row["ari_mean"] == pytest.approx(np.mean(pairs))
    assert row["ari_min"] == pytest.approx(min(pairs))
    assert row["clusters_max"] == max(run.max() + 1 for run in runs)
    assert table["ari_mean"].iloc[0] > row["ari_mean"]
    assert clustering.stability(graph[0], (0.2,), seeds=(1,))["ari_mean"].isna().all()


def test_umap_keeps_groups_apart_and_repeats(points, graph, groups):
    table = embedding_table(graph[0], points, [f"b{i}" for i in range(600)], seed=1, n_epochs=100)
    again = umap(graph[0], points, seed=1, n_epochs=100)
    assert np.array_equal(table.to_numpy(), again)
    assert table.columns.tolist() == ["umap_1", "umap_2"]
    centres = np.array([again[groups == g].mean(axis=0) for g in range(5)])
    nearest = ((again[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == groups).mean() > 0.95
