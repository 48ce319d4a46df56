"""The same seed gives the same tables: one section's chain run again elsewhere, rule by rule.

Elsewhere means another folder, one environment for all steps in place of one for each, and two threads in place of one.
A whole study is compared in test_reliability (ten kills).
"""

import h5py
import numpy as np
import pandas as pd
import pytest

SAMPLE = "results/demo/samples/P1_pre"
TABLES = (
    "clusters.parquet", "umap.parquet", "markers.parquet", "qc.tsv", "stability.tsv", "marker_panel.tsv",
    "svg.parquet", "neighbourhood.parquet", "interactions.parquet", "proportions.parquet",
)  # fmt: skip
#: Sums of several threads are rounded in another order.
ROUNDING = {"features.h5ad": 1e-6}
THREADED = ("features", "neighbours", "leiden", "umap", "svg", "interactions", "deconvolve")
STORES = {"counts.h5ad": ("X/data", "obsm/spatial"), "features.h5ad": ("X/data", "obsm/X_pca", "uns/pca/variance")}


@pytest.fixture(scope="module")
def again(repo, demo, tmp_path_factory):
    made = type(demo)(repo, tmp_path_factory.mktemp("again"))
    threads = [f"{rule}=2" for rule in THREADED]
    made.run("--set-threads", *threads, "--", *(f"{SAMPLE}/{name}" for name in (*TABLES, "neighbours.npz", *STORES)))
    return made


def read(path):
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, sep="\t")


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_same(demo, again, name):
    first, second = (read(made.root / SAMPLE / name) for made in (demo, again))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.mark.parametrize("name", STORES)
def test_stores_hold_the_same_numbers(demo, again, name):
    with h5py.File(demo.root / SAMPLE / name) as first, h5py.File(again.root / SAMPLE / name) as second:
        for item in STORES[name]:
            np.testing.assert_allclose(first[item][...], second[item][...], rtol=ROUNDING.get(name, 0.0), atol=0)


def test_the_graph_is_the_same(demo, again):
    first, second = (np.load(made.root / SAMPLE / "neighbours.npz", allow_pickle=False) for made in (demo, again))
    assert sorted(first.files) == sorted(second.files)
    for name in first.files:
        assert np.array_equal(first[name], second[name]), name
