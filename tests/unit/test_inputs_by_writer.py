"""AnnData files as their writers lay them out are read alike; docs/inputs.md names a test for each kind of input."""

import re
from dataclasses import replace

import generators as g
import h5py
import numpy as np
import pytest

from histoweft.ingest.readers import SampleInput, read

BASE = g.Encoding("h5ad", matrix=g.Matrix("h5ad", dtype="float32"))
TRUTH = g.Truth(rows=5, cols=5, genes=6)


def lay_out(dtype="float32", **choices):
    """Return an encoding by what an AnnData file may choose."""
    return replace(BASE, matrix=replace(BASE.matrix, dtype=dtype), h5ad=g.H5ad(**choices))


def add(**values):
    """Return a change that writes values into the file."""

    def change(handle):
        for name, value in values.items():
            handle[name.replace("__", "/")] = value

    return change


def named(old, new):
    """Return a change that renames a column of var, also of raw."""

    def change(handle):
        for frame in (handle["var"], handle.get("raw/var")):
            if frame is not None:
                frame.move(old, new)
                frame.attrs["column-order"] = [new if c == old else c for c in frame.attrs["column-order"]]

    return change


WRITERS = {
    "scanpy": (lay_out(), None),
    "anndata 0.7": (lay_out(frames="0.7"), None),
    "anndata before 0.7": (lay_out(frames="compound"), None),
    "SeuratDisk": (lay_out("float64", frames="0.7", place="raw/X", sparse="csr"), None),
    "sceasy": (lay_out("float64", sparse="csr", coordinates="obs_rowcol"), None),
    "zellkonverter": (lay_out("float64", sparse="dense"), add(uns__X_name="counts")),
    "anndataR": (lay_out("float64", sparse="csc", label_kind="string"), None),
    "CELLxGENE": (lay_out(place="raw/X", names="ids"), named("gene_symbols", "feature_name")),
    "stereopy": (lay_out(names="ids", coordinates="obs_xy"), named("gene_symbols", "real_gene_name")),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_as_each_writer_lays_it_out(writer, tmp_path):
    encoding, change = WRITERS[writer]
    row = g.write(tmp_path, TRUTH, encoding)
    with h5py.File(row["path"], "r+") as handle:
        if change is not None:
            change(handle)
        if writer == "CELLxGENE":
            handle["uns/spatial/is_single"] = True
    section = read(SampleInput("s1", **row))
    wanted = g.expected(TRUTH, encoding)
    places = {name: i for i, name in enumerate(section.obs.index)}
    rows = [places[name] for name in wanted["counts"].index]
    genes = [section.var.index.get_loc(name) for name in wanted["counts"].columns]
    assert (section.counts.toarray()[np.ix_(rows, genes)] == wanted["counts"].to_numpy()).all()
    np.testing.assert_allclose(section.xy_px[rows], wanted["xy"].to_numpy())


def table_rows(page):
    """Return the rows of a page's tables, as lists of cells, heads left out."""
    rows = []
    for line in page.splitlines():
        if not line.startswith("|"):
            table_begins = True
        elif table_begins or set(line) <= set("|-"):
            table_begins = False
        else:
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_every_row_of_the_page_names_tests_that_exist(repo):
    rows = table_rows((repo / "docs/inputs.md").read_text(encoding="utf-8"))
    assert len(rows) > 60
    for row in rows:
        named_tests = re.findall(r"`(test_\w+\.py)::(\w+)(?:\[(.*?)\])?`", row[-1])
        assert named_tests or any("not met" in cell for cell in row), f"no test: {row}"
        assert len(named_tests) == row[-1].count("::"), f"a test not written as `file.py::name`: {row}"
        for file, name, case in named_tests:
            (path,) = [p for p in (repo / "tests").rglob(file) if ".venv" not in p.parts]
            source = path.read_text(encoding="utf-8")
            assert f"def {name}(" in source, f"{file} has no {name}"
            if case:  # as it is registered there, or "property-platform"
                assert re.search(rf"\b{re.escape(case)}\b", source) or case.split("-")[1] in g.PLATFORMS, (
                    f"{file}: {case}"
                )
