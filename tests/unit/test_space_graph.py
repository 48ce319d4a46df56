"""Spatial neighbours: lattices, cells, and what cannot be connected."""

import numpy as np
import pytest

from histoweft.errors import InputError
from histoweft.io import CountsFile, CsrWriter
from histoweft.space.graph import Section, cautions, describe, lattice, read_section, row_normalised, spatial_graph


def hexagonal(rows=12, columns=14, pitch=100.0):
    r, c = np.divmod(np.arange(rows * columns), columns)
    return np.column_stack([pitch * (c + 0.5 * (r % 2)), pitch * r * np.sqrt(3) / 2])


def square(side=12, pitch=8.0):
    return pitch * np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)


def cells(n=300, seed=0):
    return np.random.default_rng(seed).uniform(0, 500, (n, 2))


def check(xy, connectivities, distances):
    """Symmetric, no diagonal, ones, distances of the points joined, the same structure."""
    assert (connectivities != connectivities.T).nnz == 0
    assert connectivities.diagonal().sum() == 0
    assert set(connectivities.data) == {1.0}
    assert np.array_equal(connectivities.indptr, distances.indptr)
    assert np.array_equal(connectivities.indices, distances.indices)
    rows = np.repeat(np.arange(len(xy)), np.diff(distances.indptr))
    expected = np.hypot(*(xy[rows] - xy[distances.indices]).T)
    assert np.allclose(distances.data, expected, rtol=1e-5)


def test_lattices_are_recognised():
    rng = np.random.default_rng(0)
    assert lattice(hexagonal() + rng.normal(0, 1, (168, 2))) == 6
    assert lattice(square()) == 8
    assert lattice(cells()) == 0
    assert lattice(square(3)) == 0  # too few to tell


@pytest.mark.parametrize(("neighbours", "inner", "corner"), [(None, 8, 3), (8, 8, 3), (4, 4, 2)])
def test_square_grid(neighbours, inner, corner):
    xy = square()
    kind, connectivities, distances = spatial_graph(Section(xy, True, "visium_hd"), neighbours=neighbours)
    check(xy, connectivities, distances)
    degree = np.diff(connectivities.indptr)
    assert kind == "grid"
    assert degree[0] == corner
    assert degree[12 * 6 + 6] == inner


@pytest.mark.parametrize(("rings", "inner"), [(1, 6), (2, 18), (3, 36)])
def test_hexagonal_rings(rings, inner):
    xy = hexagonal()
    _, connectivities, distances = spatial_graph(Section(xy, True, "visium"), rings=rings)
    check(xy, connectivities, distances)
    assert np.diff(connectivities.indptr)[14 * 6 + 7] == inner
    assert distances.data.max() <= rings * 100.001


def test_a_lattice_in_an_h5ad_is_taken_for_one_and_cells_are_not():
    assert spatial_graph(Section(hexagonal(), False, "h5ad"))[0] == "grid"
    assert spatial_graph(Section(cells(), False, "h5ad"))[0] == "delaunay"


def test_knn_is_the_union_of_nearest_neighbours():
    xy = cells(80)
    _, connectivities, distances = spatial_graph(Section(xy, True, "xenium"), "knn", neighbours=4)
    check(xy, connectivities, distances)
    gaps = np.hypot(*(xy[:, None] - xy[None]).T)
    np.fill_diagonal(gaps, np.inf)
    near = gaps <= np.sort(gaps, axis=1)[:, [3]]
    assert np.array_equal(connectivities.toarray() > 0, near | near.T)


def test_radius():
    xy = cells(120)
    _, connectivities, distances = spatial_graph(Section(xy, True, "xenium"), "radius", radius_um=60.0)
    check(xy, connectivities, distances)
    gaps = np.hypot(*(xy[:, None] - xy[None]).T)
    np.fill_diagonal(gaps, np.inf)
    assert np.array_equal(connectivities.toarray() > 0, gaps <= 60)


def test_delaunay_has_no_edge_across_a_gap():
    left = cells(150)
    xy = np.concatenate([left, left + np.array([2_000, 0])])
    _, connectivities, distances = spatial_graph(Section(xy, True, "xenium"))
    check(xy, connectivities, distances)
    assert connectivities[:150, 150:].nnz == 0
    assert 5 < np.diff(connectivities.indptr).mean() < 6.1
    short = spatial_graph(Section(xy, True, "xenium"), "delaunay", radius_um=20.0)[2]
    assert 0 < short.nnz < distances.nnz
    assert short.data.max() <= 20


def test_points_at_one_place_and_on_a_line():
    xy = cells(60)
    xy[1] = xy[0]
    _, connectivities, distances = spatial_graph(Section(xy, True, "xenium"))
    assert connectivities[0, 1] == 1
    assert distances.nnz == connectivities.nnz  # the distance 0 is stored
    line = np.column_stack([np.arange(10.0), np.zeros(10)])
    _, connectivities, _ = spatial_graph(Section(line, True, "xenium"), "delaunay")
    assert connectivities[4].indices.tolist() == [3, 5]
    assert (
        "on one line: neighbours lie along it only" in cautions(Section(line, True, "xenium"), connectivities, "knn")[0]
    )


@pytest.mark.parametrize("noise", [1e-9, 1e-4])
def test_a_line_within_rounding_has_no_triangles(noise):
    line = np.column_stack([np.arange(50.0), np.random.default_rng(0).normal(0, noise, 50)])
    _, connectivities, _ = spatial_graph(Section(line, True, "xenium"))
    assert connectivities[4].indices.tolist() == [3, 5]


def two_sections(shift):
    return np.vstack([hexagonal(), hexagonal() + shift])


@pytest.mark.parametrize(
    ("xy", "platform", "words"),
    [
        (two_sections(0), "visium", "on a place that another one holds"),
        (two_sections((30, 10)), "visium", "two lattices on one another"),
        (two_sections((30, 10)), "h5ad", "two lattices on one another"),
        (np.vstack([cells(100)] * 3), "xenium", "200 of 300 observations on a place"),
        (np.zeros((40, 2)), "xenium", "all 40 observations on one point"),
        (np.repeat(np.column_stack([np.arange(10.0), np.zeros(10)]), 2, axis=0), "xenium", "on one line"),
    ],
)
@pytest.mark.parametrize("kind", ["auto", "knn"])
def test_places_that_are_not_those_of_one_section_are_refused(xy, platform, words, kind):
    with pytest.raises(InputError, match=f"{words}.*subset"):
        spatial_graph(Section(xy, True, platform), kind)


def test_scattered_spots_and_shared_places_are_told():
    section = Section(hexagonal()[::7], True, "visium")
    kind, graph, _ = spatial_graph(section)
    assert "where the lattice has 6" in cautions(section, graph, kind)[0]
    section = Section(np.vstack([cells(100), cells(100)[:5]]), True, "xenium")
    kind, graph, _ = spatial_graph(section)
    assert cautions(section, graph, kind)[0].startswith("5 of 105 observations on a place that another one holds")
    section = Section(cells(100), True, "xenium")
    kind, graph, _ = spatial_graph(section, "radius", radius_um=1e-3)
    assert cautions(section, graph, kind)[0].startswith("100% of the 100 observations have no neighbour")
    section = Section(hexagonal(), True, "visium")
    kind, graph, _ = spatial_graph(section)
    assert cautions(section, graph, kind) == []


def test_points_without_a_place_are_refused():
    xy = cells(30)
    xy[3, 1] = np.nan
    with pytest.raises(InputError, match="1 of 30 observations without a place"):
        spatial_graph(Section(xy, True, "xenium"))


@pytest.mark.parametrize(
    ("section", "options", "words"),
    [
        (Section(cells(), True, "xenium"), {"kind": "grid"}, "points lie on a lattice"),
        (Section(hexagonal(), True, "visium"), {"neighbours": 8}, "6 on this lattice"),
        (Section(cells(), True, "xenium"), {"kind": "radius"}, "radius_um"),
        (Section(cells(), False, "h5ad"), {"kind": "radius", "radius_um": 20.0}, "um per pixel"),
        (Section(cells(3_000), True, "xenium"), {"kind": "radius", "radius_um": 400.0}, "neighbours of a point"),
    ],
)
def test_options_that_do_not_fit_are_refused(section, options, words):
    with pytest.raises(InputError, match=words):
        spatial_graph(section, **options)


def test_row_normalised_leaves_lonely_points_empty():
    xy = np.array([[0.0, 0], [1, 0], [100, 100]])
    _, connectivities, _ = spatial_graph(Section(xy, True, "xenium"), "radius", radius_um=2.0)
    assert row_normalised(connectivities).sum(axis=1).ravel().tolist() == [[1, 1, 0]]
    assert describe(connectivities) == "3 points, 1 edges; median 1 neighbours, 1 without any"


def counts_file(path, obsm):
    import pandas as pd
    import scipy.sparse as sp

    with CsrWriter(path, 1) as writer:
        writer.append(sp.csr_matrix(np.ones((3, 1), np.float32)))
        obs, var = pd.DataFrame(index=["a", "b", "c"]), pd.DataFrame(index=["gene"])
        writer.finish(obs, var, obsm=obsm, uns={"histoweft": {"platform": "visium"}})
    return path


def test_positions_are_read_in_um_where_there_are_any(tmp_path):
    pixels, um = np.ones((3, 2)), np.arange(6.0).reshape(3, 2)
    with CountsFile(counts_file(tmp_path / "a.h5ad", {"spatial": pixels, "spatial_um": um})) as counts:
        section = read_section(counts)
    assert section.in_um
    assert section.platform == "visium"
    assert np.array_equal(section.xy, um)
    with CountsFile(counts_file(tmp_path / "b.h5ad", {"spatial": pixels})) as counts:
        assert not read_section(counts).in_um


def test_missing_positions_are_named(tmp_path):
    holes = np.array([[0.0, 0], [np.nan, 1], [2, 2]])
    with (
        CountsFile(counts_file(tmp_path / "a.h5ad", {"spatial": holes})) as counts,
        pytest.raises(InputError, match=r"1 of 3 positions missing \(e\.g\. b\)"),
    ):
        read_section(counts)
    with CountsFile(counts_file(tmp_path / "b.h5ad", {})) as counts, pytest.raises(InputError, match="no coordinates"):
        read_section(counts)
