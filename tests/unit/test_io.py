"""The files between rules: written whole or not at all, read back as written, refused with a remedy when broken."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.io import (
    CountsFile,
    CsrWriter,
    add_elements,
    archive,
    atomic,
    read_graph,
    read_table,
    write_graph,
    write_table,
)


@pytest.fixture
def adata():
    import anndata

    n, g = 50, 12
    random = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "label": pd.Categorical.from_codes(random.integers(-1, 3, n), ["a", "b", "c"]),
            "array_row": random.integers(0, 9, n),
            "text": [f"t{i}" for i in range(n)],
            "share": random.random(n),
            "in_tissue": random.random(n) > 0.5,
            "gaps": pd.array([None, 1] * (n // 2), dtype="Int64"),
        },
        index=[f"BC{i}" for i in range(n)],
    )
    var = pd.DataFrame({"gene_id": [f"E{i}" for i in range(g)]}, index=[f"g{i}" for i in range(g)])
    counts = sp.csr_matrix(random.poisson(0.7, (n, g)).astype(np.int32))
    made = anndata.AnnData(counts, obs=obs, var=var, obsm={"spatial": random.random((n, 2))})
    made.uns["histoweft"] = {
        "sample": "s1",
        "mpp": 0.5,
        "image": True,
        "scale": np.nan,
        "library_ids": np.array(["x", "y"], dtype=object),
        "nothing": None,
        "nested": {"n": 3},
    }
    return made


@pytest.fixture
def counts_path(adata, tmp_path):
    path = tmp_path / "counts.h5ad"
    adata.write_h5ad(path)
    return path


def test_counts_file_reads_what_anndata_wrote(adata, counts_path):
    with CountsFile(counts_path) as counts:
        assert (counts.n_obs, counts.n_vars, counts.nnz) == (50, 12, adata.X.nnz)
        assert list(counts.obs_names) == list(adata.obs_names)
        assert list(counts.var_names) == list(adata.var_names)
        pd.testing.assert_frame_equal(counts.obs(), adata.obs)
        pd.testing.assert_frame_equal(counts.var(), adata.var)
        assert np.array_equal(counts.obsm("spatial"), adata.obsm["spatial"])
        uns = counts.uns["histoweft"]
        assert (uns["sample"], uns["mpp"], uns["image"], uns["nothing"]) == ("s1", 0.5, True, None)
        assert np.isnan(uns["scale"])
        assert list(uns["library_ids"]) == ["x", "y"]
        assert uns["nested"] == {"n": 3}


@pytest.mark.parametrize("how", [{"rows": 7}, {"nnz": 40}, {"nnz": 1}, {}])
def test_chunks_put_together_are_the_matrix(adata, counts_path, how):
    with CountsFile(counts_path) as counts:
        chunks = list(counts.chunks(**how))
    assert [where.start for where, _ in chunks] == [0, *(where.stop for where, _ in chunks[:-1])]
    assert chunks[-1][0].stop == 50
    whole = sp.vstack([chunk for _, chunk in chunks])
    assert (whole != adata.X).nnz == 0
    if how.get("nnz") == 40:
        assert all(chunk.nnz <= 40 for _, chunk in chunks)
        assert len(chunks) < 50


def test_rows_without_values_get_through(tmp_path):
    import anndata

    matrix = sp.csr_matrix(np.array([[0, 0], [0, 0], [1, 2], [0, 0]], dtype=np.int32))
    anndata.AnnData(matrix).write_h5ad(tmp_path / "a.h5ad")
    with CountsFile(tmp_path / "a.h5ad") as counts:
        assert np.array_equal(np.vstack([c.toarray() for _, c in counts.chunks(nnz=1)]), matrix.toarray())


def test_writer_output_is_read_by_anndata(adata, tmp_path):
    import anndata

    path = tmp_path / "out.h5ad"
    obs = adata.obs.assign(loose=[None, "x"] * 25)
    with CsrWriter(path, adata.n_vars, np.int32) as writer:
        for start in (0, 20, 40):
            writer.append(adata.X[start : start + 20])
        writer.finish(obs, adata.var, obsm={"spatial": adata.obsm["spatial"]}, uns=dict(adata.uns))
    back = anndata.read_h5ad(path)
    assert (back.X != adata.X).nnz == 0
    assert back.X.dtype == np.int32
    assert back.X.indices.dtype == back.X.indptr.dtype == np.int32
    pd.testing.assert_frame_equal(back.obs[adata.obs.columns], adata.obs)
    assert back.obs["loose"].isna().sum() == 25
    pd.testing.assert_frame_equal(back.var, adata.var)
    assert np.array_equal(back.obsm["spatial"], adata.obsm["spatial"])
    assert back.uns["histoweft"]["library_ids"].tolist() == ["x", "y"]
    assert back.uns["histoweft"]["image"]
    back.write_h5ad(tmp_path / "again.h5ad")


def test_writer_refuses_tables_of_another_length(adata, tmp_path):
    with CsrWriter(tmp_path / "out.h5ad", adata.n_vars, np.int32) as writer:
        writer.append(adata.X[:20])
        with pytest.raises(ValueError, match="obs has 50 rows, X asks for 20"):
            writer.finish(adata.obs, adata.var)
        with pytest.raises(ValueError, match="3 columns, not 12"):
            writer.append(sp.csr_matrix((2, 3), dtype=np.int32))


def test_elements_are_added_in_place(counts_path):
    import anndata

    add_elements(counts_path, {"obsm/X_pca": np.ones((50, 3), np.float32), "uns/pca": {"variance": np.arange(3.0)}})
    back = anndata.read_h5ad(counts_path)
    assert back.obsm["X_pca"].shape == (50, 3)
    assert back.uns["pca"]["variance"].tolist() == [0, 1, 2]
    assert back.uns["histoweft"]["sample"] == "s1"


def test_missing_and_truncated_files_are_refused(counts_path, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        CountsFile(tmp_path / "absent.h5ad")
    cut = tmp_path / "cut.h5ad"
    cut.write_bytes(counts_path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"cut\.h5ad.*copy or make it again"):
        CountsFile(cut)


@pytest.mark.parametrize("kind", ["dense", "csc"])
def test_other_layouts_are_refused(adata, tmp_path, kind):
    adata.X = adata.X.toarray() if kind == "dense" else adata.X.tocsc()
    adata.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(InputError, match="compressed sparse rows"):
        CountsFile(tmp_path / "other.h5ad")


def test_half_written_matrix_is_refused(adata, counts_path):
    import h5py

    with h5py.File(counts_path, "r+") as file:
        data = file["X/data"][:-5]
        del file["X/data"]
        file["X/data"] = data
    with pytest.raises(InputError, match="not written to its end"):
        CountsFile(counts_path)


def test_a_file_without_obs_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        file["Y"] = 1
    with pytest.raises(InputError) as caught:
        CountsFile(tmp_path / "x.h5ad")
    assert [fault.found for fault in caught.value.faults] == ["no element 'X'", "no element 'obs'", "no element 'var'"]


def test_atomic_replaces_on_success_and_keeps_the_old_on_failure(tmp_path):
    path = tmp_path / "deep" / "table.tsv.gz"
    with atomic(path) as partial:
        assert partial.parent == path.parent
        assert partial.name.endswith(".tsv.gz")
        partial.write_text("one")
    assert path.read_text() == "one"

    def fail():
        with atomic(path) as partial:
            partial.write_text("two")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic(tmp_path / "none"):
        pass


def test_atomic_swaps_directories(tmp_path):
    path = tmp_path / "store.zarr"
    for content in ("one", "two"):
        with atomic(path) as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["two"]
    assert [p.name for p in tmp_path.iterdir()] == ["store.zarr"]


def test_graph_survives_without_pickle(tmp_path):
    first = sp.random(30, 30, 0.2, format="csr", random_state=0, dtype=np.float32)
    second = sp.random(30, 30, 0.1, format="csr", random_state=1, dtype=np.float32)
    write_graph(tmp_path / "g.npz", first, second)
    a, b = read_graph(tmp_path / "g.npz")
    assert (a != first).nnz == 0
    assert (b != second).nnz == 0
    assert a.dtype == np.float32
    write_graph(tmp_path / "h.npz", first)
    assert read_graph(tmp_path / "h.npz")[1] is None
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(InputError, match="Delete it and run again"):
        read_graph(tmp_path / "bad.npz")


def test_tables_are_aligned_to_barcodes(tmp_path):
    table = pd.DataFrame({"leiden": ["0", "1", "0"]}, index=["a", "b", "c"])
    write_table(table, tmp_path / "t.parquet")
    back = read_table(tmp_path / "t.parquet", ["c", "a"])
    assert back["leiden"].tolist() == ["0", "0"]
    assert back.index.tolist() == ["c", "a"]
    assert back.index.name == "barcode"
    with pytest.raises(InputError, match=r"no row for 1 of 2 barcodes \(e.g. z\)"):
        read_table(tmp_path / "t.parquet", ["a", "z"])
    with pytest.raises(ValueError, match="twice"):
        write_table(pd.concat([table, table]), tmp_path / "u.parquet")


@pytest.mark.parametrize("damage", ["cut", "text", "absent", "other"])
def test_a_damaged_archive_is_named_with_what_to_do(tmp_path, damage):
    path = tmp_path / "a.npz"
    np.savez(path, wanted=np.arange(1000))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "absent":
        path.unlink()
    name = "unwanted" if damage == "other" else "wanted"
    with (
        pytest.raises(InputError, match=r"(?s)a\.npz: .*expected numbers of a step.*Delete it and run again"),
        archive(path, "numbers of a step") as stored,
    ):
        stored[name]


def test_an_archive_gives_its_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", wanted=np.arange(3))
    with archive(tmp_path / "a.npz", "numbers") as stored:
        assert stored["wanted"].tolist() == [0, 1, 2]
