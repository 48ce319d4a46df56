"""One file that holds several sections: what is shown of it, and sheet lines that read each part alone."""

import subprocess
import sys

import h5py
import ingest_cases as cases
import numpy as np
import pandas as pd
import pytest

from histoweft import config, validation
from histoweft.errors import InputError
from histoweft.ingest import split
from histoweft.ingest.readers import SampleInput, read

N = 80


def places(n=N // 2):
    return np.column_stack([np.arange(n) % 8 * 10.0, np.arange(n) // 8 * 10.0])


def joined(path, columns, xy=None, uns=None, suffixes=("-1", "-1")):
    """Write an h5ad of two halves, which lie on one another where nothing else is said."""
    import anndata as ad

    half = N // 2
    names = [*cases.barcodes(half, suffixes[0]), *[f"T{name}" for name in cases.barcodes(half, suffixes[1])]]
    obs = pd.DataFrame(columns, index=names)
    data = ad.AnnData(cases.counts(N), obs=obs, var=pd.DataFrame(index=cases.GENES), uns=uns or {})
    if xy is not False:
        data.obsm["spatial"] = np.vstack([places(), places()]) if xy is None else xy
    data.write_h5ad(path)
    return path


def lines_of(tmp_path, path, by=""):
    """Return the rows of the sheet that is written, and what is told."""
    contents = split.look(path)
    found = split.ways(contents, by)
    (tmp_path / "samples.tsv").write_text(split.sheet(str(path), path.stem, contents.platform, found[0]))
    rows, faults = validation.read_sheet(tmp_path / "samples.tsv", config.load_schema("samples"))
    assert not faults
    return rows, split.describe(path, contents, found)


def read_row(row):
    return read(SampleInput(**{name: row[name] for name in ("sample", "platform", "path", "subset")}))


HALVES = [0] * (N // 2) + [1] * (N // 2)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("library_id", ("A", "B")),
        ("slide", ("slide 1", "Schnitt ü")),
        ("section", (1, 2)),
        ("section", (1.0, 2.0)),
        ("sample", ("x;y", "x|z=1")),
        ("fov", (3, 4)),
        ("cell.section", ("a", "b")),
    ],
)
def test_each_line_reads_its_part_and_no_other(tmp_path, column, values):
    path = joined(tmp_path / "a.h5ad", {column: pd.Categorical.from_codes(HALVES, pd.Index(values))})
    rows, told = lines_of(tmp_path, path, column if column == "cell.section" else "")
    assert f"column {column}: 2 parts, which lie on one another" in told
    assert "40 observations, x 0 to 70, y 0 to 40" in told
    assert len(rows) == 2
    sections = [read_row(row) for row in rows]
    assert [section.counts.shape[0] for section in sections] == [40, 40]
    assert not set(sections[0].obs.index) & set(sections[1].obs.index)


def test_planes_of_a_third_coordinate(tmp_path):
    xyz = np.column_stack([np.vstack([places(), places()]), np.repeat([10.0, 20.0], N // 2)])
    rows, _ = lines_of(tmp_path, joined(tmp_path / "a.h5ad", {}, xy=xyz))
    assert [row["subset"] for row in rows] == ["z=10.0", "z=20.0"]
    assert [row["sample"] for row in rows] == ["a_10.0", "a_20.0"]
    assert [read_row(row).counts.shape[0] for row in rows] == [40, 40]


def test_the_suffixes_of_an_aggregate(tmp_path):
    frame = pd.concat([cases.positions(), cases.positions()], ignore_index=True)
    half = cases.ROWS * cases.COLS
    frame["barcode"] = [*cases.barcodes(half, "-1"), *cases.barcodes(half, "-2")]
    root = cases.visium(tmp_path / "aggr", images=(), values=cases.counts(2 * half), frame=frame)
    cases.write_h5(root / "filtered_feature_bc_matrix.h5", cases.counts(2 * half), list(frame["barcode"]))
    rows, _ = lines_of(tmp_path, root)
    assert [(row["sample"], row["platform"], row["subset"]) for row in rows] == [
        ("aggr_1", "visium", "barcode_suffix=1"),
        ("aggr_2", "visium", "barcode_suffix=2"),
    ]
    assert all(name.endswith("-2") for name in read_row(rows[1]).obs.index)


def test_a_loom_file_and_cells_without_places(tmp_path):
    with h5py.File(tmp_path / "a.loom", "w") as handle:
        handle["matrix"] = cases.counts(40).toarray().T
        handle["row_attrs/Gene"] = np.array(cases.GENES, dtype="S")
        handle["col_attrs/CellID"] = np.array([f"c{i}" for i in range(40)], dtype="S")
        handle["col_attrs/donor"] = np.array(["P1"] * 30 + ["P2"] * 10, dtype="S")
    rows, _ = lines_of(tmp_path, tmp_path / "a.loom", "donor")
    assert [(row["sample"], row["platform"]) for row in rows] == [("P1", "scrna"), ("P2", "scrna")]
    assert [read_row(row).counts.shape[0] for row in rows] == [30, 10]


def test_one_section_is_said_to_be_one_and_columns_are_offered(tmp_path):
    path = cases.h5ad(tmp_path / "a.h5ad")
    contents = split.look(path)
    told = split.describe(path, contents, split.ways(contents))
    assert "Nothing shows that it holds several sections." in told
    assert "--by takes it apart by a column: cell_type" in told
    with pytest.raises(InputError, match="found 'cell_typ'; expected a column of the file"):
        split.ways(contents, "cell_typ")


def test_suffixes_alone_are_no_samples_of_cells_without_places(tmp_path):
    path = joined(tmp_path / "a.h5ad", {"donor": ["P"] * N}, xy=False, suffixes=("-1", "-2"))
    contents = split.look(path)
    assert contents.platform == "scrna"
    assert not split.ways(contents)
    assert "by a column: barcode_suffix" in split.describe(path, contents, [])
    rows, _ = lines_of(tmp_path, path, "barcode_suffix")
    assert [read_row(row).counts.shape[0] for row in rows] == [40, 40]


def test_observations_without_a_value_are_told(tmp_path):
    values = ["A"] * 30 + [None] * 10 + ["B"] * 40
    path = joined(tmp_path / "a.h5ad", {"library_id": pd.Categorical(values)})
    rows, told = lines_of(tmp_path, path)
    assert "10 observations have no value there: no line reads them" in told
    assert [read_row(row).counts.shape[0] for row in rows] == [30, 40]


def test_names_are_safe_and_differ():
    names = split.sample_names(["1", "Müller 3", "müller/3", "index", "-", "Müller_3_2"], "my file")
    assert names == {
        "1": "my_file_1",
        "Müller 3": "Muller_3",
        "müller/3": "muller_3_2",
        "index": "my_file_index",
        "-": "my_file_sample",
        "Müller_3_2": "Muller_3_2_2",
    }


def test_what_is_no_data_is_said(tmp_path):
    with pytest.raises(InputError, match="which does not exist"):
        split.look(tmp_path / "a.h5ad")
    (tmp_path / "b.h5ad").write_text("no")
    with pytest.raises(InputError):
        split.look(tmp_path / "b.h5ad")
    with pytest.raises(InputError):
        split.look(tmp_path)


def test_the_command_writes_a_new_sheet_and_never_over_one(repo, tmp_path):
    (tmp_path / "data").mkdir()
    joined(tmp_path / "data" / "a.h5ad", {"library_id": pd.Categorical.from_codes(HALVES, pd.Index(["A", "B"]))})

    def call(*words):
        command = [sys.executable, repo / "tools" / "split.py", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = call("data/a.h5ad", "--data-root", "data")
    expected = "sample\tplatform\tpath\tsubset\nA\th5ad\ta.h5ad\tlibrary_id=A\nB\th5ad\ta.h5ad\tlibrary_id=B\n"
    assert (done.returncode, done.stdout) == (0, expected)
    assert "Taken apart by library_id" in done.stderr
    assert call("data/a.h5ad", "--sheet", "new.tsv").returncode == 0
    written = (tmp_path / "new.tsv").read_text()
    assert written == expected.replace("\ta.h5ad", "\tdata/a.h5ad")
    again = call("data/a.h5ad", "--sheet", "new.tsv")
    assert again.returncode == 1
    assert "new.tsv, which is there already; expected a new file" in again.stderr
    assert (tmp_path / "new.tsv").read_text() == written
