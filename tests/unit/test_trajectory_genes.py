"""Velocity, driver genes and trends against other computations and planted truth."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.io import CountsFile, CsrWriter, add_elements, atomic
from histoweft.normalise import normalise
from histoweft.trajectory import cells, drivers, pseudotime, velocity


def write_counts(path, counts, obs=None, layers=None, genes=None):
    n, g = counts.shape
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n)]) if obs is None else obs
    genes = [f"gene{j}" for j in range(g)] if genes is None else genes
    with atomic(path) as partial:
        with CsrWriter(partial, g, np.int32) as writer:
            for start in range(0, n, 17):
                writer.append(sp.csr_matrix(counts[start : start + 17]))
            writer.finish(obs, pd.DataFrame(index=genes))
        add_elements(partial, {f"layers/{name}": sp.csr_matrix(layer) for name, layer in (layers or {}).items()})
    return path


# -------------------------------------------------------------------------------------------------------- velocity


def splicing(n=300, genes=30, seed=0):
    """Return spliced and unspliced counts of genes that are switched on along time, their slopes, and time.

    One more gene fills every cell up to the same total, so that scaling to it changes nothing.
    """
    rng = np.random.default_rng(seed)
    time = np.sort(rng.random(n))
    slope = rng.uniform(0.3, 0.8, genes)
    rate = rng.uniform(20, 60, genes)
    steady = np.clip(time[:, None] * 2 - 0.3 * rng.random(genes), 0, 1)
    spliced = rate * steady
    unspliced = slope * spliced
    layers = []
    for layer in (spliced, unspliced):
        counts = rng.poisson(layer)
        total = counts.sum(axis=1)
        layers.append(np.column_stack([counts, total.max() + 10 - total]))
    return *layers, slope, time


def averaging(n, width=10):
    """Return weights over the neighbours in time of cells ordered by it."""
    offsets = [k for k in range(-width, width + 1) if k]
    return pseudotime.neighbour_weights(sp.diags([1.0] * len(offsets), offsets, shape=(n, n), format="csr"))


def test_scaling_to_the_median_total():
    layer = sp.csr_matrix([[1, 3], [8, 0], [0, 0], [1, 1]])
    np.testing.assert_allclose(velocity.scale_to_median(layer).toarray(), [[1, 3], [4, 0], [0, 0], [2, 2]])


@pytest.mark.parametrize("mode", velocity.MODES)
def test_slopes_of_a_steady_state_are_recovered(mode):
    spliced, unspliced, slope, _ = splicing()
    found = velocity.estimate(sp.csr_matrix(spliced), sp.csr_matrix(unspliced), averaging(300), mode)
    kept = found.genes < 30
    assert kept.sum() == 30
    assert found.velocity.shape == found.state.shape == (300, len(found.genes))
    np.testing.assert_allclose(found.slope[kept], slope, rtol=0.25)
    assert np.median(np.abs(found.slope[kept] / slope - 1)) < 0.06
    assert np.abs(found.velocity[:, kept].mean(axis=0)).max() < 0.1 * found.state[:, kept].mean()


def test_deterministic_velocity_equals_the_definition_gene_by_gene():
    spliced, unspliced, _, _ = splicing(genes=5)
    weights = averaging(300)
    found = velocity.estimate(sp.csr_matrix(spliced), sp.csr_matrix(unspliced), weights, "deterministic")
    s = weights @ velocity.scale_to_median(sp.csr_matrix(spliced)).toarray()
    u = weights @ velocity.scale_to_median(sp.csr_matrix(unspliced)).toarray()
    for column, gene in enumerate(found.genes):
        size = s[:, gene] / s[:, gene].max() + u[:, gene] / u[:, gene].max()
        top = size >= np.percentile(size, 95)
        slope = (s[top, gene] @ u[top, gene]) / (s[top, gene] @ s[top, gene])
        assert found.slope[column] == pytest.approx(slope, rel=1e-4)
        np.testing.assert_allclose(found.velocity[:, column], u[:, gene] - slope * s[:, gene], atol=1e-3)


def test_switched_on_genes_have_positive_velocity_and_noise_is_left_out():
    rng = np.random.default_rng(0)
    time = np.sort(rng.random(300))
    on = 60 * np.clip(time - 0.2, 0, None)
    lagging = 60 * np.clip(time - 0.4, 0, None)
    spliced = rng.poisson(np.column_stack([lagging, np.full(300, 30), np.full(300, 40)]))
    unspliced = rng.poisson(np.column_stack([on, np.full(300, 20), np.zeros(300)]))
    found = velocity.estimate(sp.csr_matrix(spliced), sp.csr_matrix(unspliced), averaging(300))
    assert 0 in found.genes
    assert 2 not in found.genes
    column = list(found.genes).index(0)
    assert found.velocity[(time > 0.3) & (time < 0.7), column].min() > 0


def test_no_gene_with_a_signal():
    zeros = sp.csr_matrix((40, 6))
    found = velocity.estimate(zeros, zeros, averaging(40))
    assert found.state.shape == (40, 0)
    assert len(found.genes) == 0


def test_deterministic_velocity_equals_scvelo():
    scvelo = pytest.importorskip("scvelo")
    import anndata

    spliced, unspliced, _, _ = splicing(200, 20)
    weights = averaging(200)
    ours = velocity.estimate(sp.csr_matrix(spliced), sp.csr_matrix(unspliced), weights, "deterministic")
    adata = anndata.AnnData(sp.csr_matrix(spliced, dtype=np.float32))
    for name, layer in (("Ms", spliced), ("Mu", unspliced)):
        scaled = velocity.scale_to_median(sp.csr_matrix(layer))
        adata.layers[name] = (weights @ scaled).toarray()
        adata.layers[{"Ms": "spliced", "Mu": "unspliced"}[name]] = scaled
    scvelo.settings.verbosity = 0
    scvelo.tl.velocity(adata, mode="deterministic", use_raw=False)
    np.testing.assert_allclose(ours.velocity, adata.layers["velocity"][:, ours.genes], atol=2e-3)


def test_layers_are_read_by_name_and_x_stands_in_for_spliced(tmp_path):
    spliced, unspliced, _, _ = splicing(30, 6)
    both = write_counts(tmp_path / "a.h5ad", spliced + unspliced, layers={"spliced": spliced, "unspliced": unspliced})
    one = write_counts(tmp_path / "b.h5ad", spliced, layers={"unspliced": unspliced})
    barcodes, genes = pd.Index(["cell7", "cell2"]), pd.Index(["gene5", "gene0", "gene1"])
    for path in (both, one):
        s, u = cells.read_layers(path, barcodes, genes)
        np.testing.assert_array_equal(s.toarray(), spliced[[7, 2]][:, [5, 0, 1]])
        np.testing.assert_array_equal(u.toarray(), unspliced[[7, 2]][:, [5, 0, 1]])
    with CountsFile(both) as counts:
        assert sorted(counts.layer_names()) == ["spliced", "unspliced"]
        with pytest.raises(KeyError):
            counts.layer("ambiguous")


def test_velocity_without_layers_is_an_error(tmp_path):
    path = write_counts(tmp_path / "c.h5ad", np.ones((5, 3), dtype=int))
    with pytest.raises(InputError, match=r"(?s)layers: found none.*spliced and unspliced.*trajectory.kernels"):
        cells.read_layers(path, pd.Index(["cell0"]), pd.Index(["gene0"]))


# ---------------------------------------------------------------------------------------------------------- drivers


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    rng = np.random.default_rng(0)
    time, fate = rng.random(400), rng.random(400)
    rates = np.full((400, 12), 3.0)
    rates[:, 0] = 10 * fate
    rates[:, 1] = 10 * (1 - fate)
    rates[:, 2] = 10 * time
    counts = rng.poisson(rates)
    counts[:, 11] = 0
    path = write_counts(tmp_path_factory.mktemp("drivers") / "filtered.h5ad", counts)
    fates = pd.DataFrame({"one": fate, "two": 1 - fate})
    return {"path": path, "counts": counts, "time": time, "fates": fates}


def test_drivers_equal_pearson_and_scipy(planted):
    from scipy.stats import pearsonr

    rows = np.arange(0, 400, 2)
    with CountsFile(planted["path"]) as counts:
        table = drivers.driver_genes(counts, rows, planted["fates"].iloc[rows], 1e4)
    assert tuple(table.columns) == drivers.DRIVER_COLUMNS
    values = normalise(sp.csr_matrix(planted["counts"]), 1e4).toarray()[rows]
    for one in table.itertuples():
        gene = int(one.gene.removeprefix("gene"))
        found = pearsonr(values[:, gene].astype(float), planted["fates"][one.fate].to_numpy()[rows])
        low, high = found.confidence_interval(0.95)
        assert one.correlation == pytest.approx(found.statistic, abs=1e-6)
        assert (one.low, one.high) == pytest.approx((low, high), abs=1e-6)
        if found.pvalue > 1e-12:
            assert one.p == pytest.approx(found.pvalue, rel=0.1, abs=0.01)
    first = table.groupby("fate")["gene"].first()
    assert first["one"] == "gene0"
    assert first["two"] == "gene1"
    assert "gene11" not in set(table["gene"])
    assert (table["n"] == 200).all()
    assert table.groupby("fate")["correlation"].apply(lambda column: column.is_monotonic_decreasing).all()


def test_cells_without_fate_are_left_out(planted):
    fates = planted["fates"].copy()
    fates.iloc[100:] = np.nan
    with CountsFile(planted["path"]) as counts:
        whole = drivers.driver_genes(counts, np.arange(400), fates, 1e4)
        part = drivers.driver_genes(counts, np.arange(100), planted["fates"].iloc[:100], 1e4)
    pd.testing.assert_frame_equal(whole, part)


def test_a_fate_that_is_the_same_everywhere_has_no_drivers(planted):
    with CountsFile(planted["path"]) as counts:
        table = drivers.driver_genes(counts, np.arange(400), pd.DataFrame({"only": np.ones(400)}), 1e4)
    assert len(table) == 0
    assert tuple(table.columns) == drivers.DRIVER_COLUMNS


def test_committing_cells_are_the_later_ones():
    time = np.array([0.1, 0.2, np.nan, 0.3, 0.4])
    assert drivers.committing(time, 0.5).tolist() == [False, False, False, True, True]
    assert drivers.committing(time, 0).tolist() == [True, True, False, True, True]


def test_genes_are_read_in_order_and_scaled_by_all_genes(planted):
    with CountsFile(planted["path"]) as counts:
        found = drivers.read_genes(counts, np.array([5, 2]), ["gene2", "absent", "gene0"], 1e4)
    expected = normalise(sp.csr_matrix(planted["counts"]), 1e4).toarray()[[5, 2]][:, [2, 0]]
    np.testing.assert_allclose(found[:, [0, 2]], expected, rtol=1e-6)
    assert np.isnan(found[:, 1]).all()


def test_trend_recovers_a_curve_with_intervals_that_hold_it():
    rng = np.random.default_rng(0)
    grid = np.linspace(0.05, 0.95, 30)
    held = []
    for _ in range(40):
        time = rng.random(300)
        value = 2 + np.sin(4 * time) + 0.3 * rng.standard_normal(300)
        mean, error = drivers.gene_trends(time, value[:, None], np.ones(300), grid)
        truth = 2 + np.sin(4 * grid)
        held.append(np.abs(mean[:, 0] - truth) < 1.96 * error[:, 0])
        assert np.abs(mean[:, 0] - truth).max() < 0.25
    assert 0.88 < np.mean(held) < 0.99


def test_trend_follows_the_cells_that_have_the_weight():
    rng = np.random.default_rng(0)
    time, fate = rng.random(400), rng.random(400) < 0.5
    value = np.where(fate, 4 * time, 1.0)
    fates = pd.DataFrame({"a": fate.astype(float), "b": 1.0 - fate})
    table = drivers.trend_table(time, fates, pd.DataFrame({"gene": value}))
    assert tuple(table.columns) == drivers.TREND_COLUMNS
    assert len(table) == 2 * drivers.GRID
    a, b = (table[table["fate"] == name] for name in "ab")
    np.testing.assert_allclose(a["mean"], 4 * a["pseudotime"], atol=0.1)
    np.testing.assert_allclose(b["mean"], 1, atol=0.05)
    assert (table["low"] <= table["mean"]).all()
    assert (table["mean"] <= table["high"]).all()


def test_no_genes_no_trends():
    time = np.linspace(0, 1, 50)
    table = drivers.trend_table(time, pd.DataFrame({"only": np.ones(50)}), pd.DataFrame(index=range(50)))
    assert len(table) == 0
    assert tuple(table.columns) == drivers.TREND_COLUMNS


def test_trends_end_where_the_fate_ends():
    time = np.linspace(0, 1, 400)
    fates = pd.DataFrame({"early": (time < 0.4).astype(float), "late": np.ones(400)})
    table = drivers.trend_table(time, fates, pd.DataFrame({"gene": time}))
    ends = table.groupby("fate")["pseudotime"].max()
    assert ends["early"] == pytest.approx(0.4, abs=0.01)
    assert ends["late"] == pytest.approx(0.99, abs=0.01)
