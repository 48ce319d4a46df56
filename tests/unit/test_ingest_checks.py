"""The checks at load, one by one."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from histoweft.errors import Faults
from histoweft.ingest import checks
from histoweft.ingest.section import Notes


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture
def notes():
    return Notes()


def names(n):
    return np.array([f"g{i}" for i in range(n)], object)


def counted(values, policy, faults, notes):
    matrix = sparse.csr_matrix(values)
    return checks.check_counts(matrix, ["b0", "b1"], ["g0", "g1", "g2"], policy, "file", faults, notes)


def test_integer_floats_become_int32(faults, notes):
    out = counted(np.array([[1.0, 0, 2], [0, 3, 0]]), "refuse", faults, notes)
    assert out.dtype == np.int32
    assert not faults
    np.testing.assert_array_equal(out.toarray(), [[1, 0, 2], [0, 3, 0]])


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (-2.0, "a negative count: -2"),
        (np.nan, "NaN"),
        (np.inf, "a value that is no number"),
        (1.5, "not an integer: 1.5"),
    ],
)
def test_first_offender_is_named(faults, notes, value, word):
    counted(np.array([[1.0, 0, 2], [0, 3, value]]), "refuse", faults, notes)
    (fault,) = faults.items
    assert word in fault.found
    assert "for gene g2 in b1" in fault.found


def test_negative_integers_are_a_fault_under_every_policy(notes):
    for policy in checks.POLICIES:
        faults = Faults()
        counted(np.array([[1, 0, 2], [0, -3, 0]]), policy, faults, notes)
        assert "a negative count: -3 for gene g1 in b1" in faults.items[0].found


def test_rounding_drops_what_becomes_zero(faults, notes):
    out = counted(np.array([[0.4, 0, 2.6], [0, 3, 0]]), "round", faults, notes)
    assert out.nnz == 2
    assert out.toarray().tolist() == [[0, 0, 3], [0, 3, 0]]
    assert notes.items[0].code == "counts_rounded"
    assert "2 of 3" in notes.items[0].message


def test_unknown_policy(faults, notes):
    counted(np.eye(2, 3), "maybe", faults, notes)
    assert faults.items[0].expected == "refuse | round | as_is"


def test_genes_empty_name_takes_the_id_and_neither_is_a_fault(faults, notes):
    ids = np.array(["ENSG00000000001", "", "ENSG00000000003"], object)
    var, _ = checks.check_genes(ids, np.array(["A", "B", ""], object), "file", faults, notes)
    assert list(var.index) == ["A", "B", "ENSG00000000003"]
    assert list(var["gene_id"]) == ["ENSG00000000001", "B", "ENSG00000000003"]
    assert not faults
    checks.check_genes(np.array(["x", ""], object), np.array(["A", " "], object), "file", faults, notes)
    assert "1 genes without a name (row 2)" in faults.items[0].found


def test_unique_names_never_collide():
    out, changed = checks.make_unique(["A", "A", "A-1", "A", "B"])
    assert list(out) == ["A", "A-2", "A-1", "A-3", "B"]
    assert changed == 2


def test_par_y_and_versions():
    out, n = checks.strip_versions(np.array(["ENSG00000182378.15_PAR_Y", "ENSG00000182378.15", "A.1"], object))
    assert list(out) == ["ENSG00000182378_PAR_Y", "ENSG00000182378", "A.1"]
    assert n == 2


def test_mixed_identifiers_and_dates_are_said(faults, notes):
    values = np.array(["ENSG00000000001", "ACTB", "2-Sep", "CD4"], object)
    checks.check_genes(values, values, "file", faults, notes)
    assert {n.code for n in notes.items} == {"gene_mixture", "gene_dates"}


@pytest.mark.parametrize(
    ("values", "genomes", "expected"),
    [
        ([f"ENSMUSG{i:011d}" for i in range(5)], None, "mouse"),
        ([f"ENSG{i:011d}" for i in range(5)], None, "human"),
        ([f"Gene{i}" for i in range(30)], None, "mouse"),
        ([f"GENE{i}" for i in range(30)], None, "human"),
        (["A"], ["mm10", "GRCh38"], "mixed"),
        (["A"], ["mm10"], "mouse"),
        (["A", "B"], None, ""),
    ],
)
def test_species(values, genomes, expected):
    assert checks.guess_species(values, values, genomes) == expected


def test_barcodes_of_another_sample(faults, notes):
    assert checks.match_barcodes(["A-1", "C-1"], ["G-1", "T-1"], "positions", "p.csv", faults, notes) is None
    (fault,) = faults.items
    assert "matrix (A-1, C-1) and positions (G-1, T-1)" in fault.found


def test_barcodes_of_two_wells_are_not_merged(faults, notes):
    """Without their suffix A-1 and A-2 would be one: no repair."""
    assert checks.match_barcodes(["A-1", "A-2"], ["A"], "positions", "p.csv", faults, notes) is None


def grid(angle=0.0, mirrored=False, pitch=137.0):
    rows, cols = np.divmod(np.arange(120), 12)
    array_col = 2 * cols + rows % 2
    x, y = array_col * pitch / 2, rows * pitch * 3**0.5 / 2
    if mirrored:
        x = -x
    c, s = np.cos(angle), np.sin(angle)
    return pd.DataFrame({"array_row": rows, "array_col": array_col, "x": c * x - s * y + 5, "y": s * x + c * y + 9})


@pytest.mark.parametrize(("angle", "mirrored"), [(0, False), (0.4, False), (np.pi / 2, True), (3.0, True)])
def test_pitch_whatever_the_orientation(angle, mirrored):
    frame = grid(angle, mirrored)
    assert checks.mpp_from_lattice(frame, 50 * 3**0.5, 50) == pytest.approx(100 / 137)


def test_pitch_needs_two_rows_and_columns():
    assert np.isnan(checks.mpp_from_lattice(grid().iloc[:12], 50 * 3**0.5, 50))
    assert np.isnan(checks.mpp_from_lattice(grid().iloc[:0], 50 * 3**0.5, 50))


def test_mpp_precedence_and_tolerance(faults, notes):
    def call(sheet, stated, estimate):
        return checks.check_mpp(sheet, stated, estimate, "the pitch", 0.15, "line 2, column mpp", faults, notes)

    assert call(0.5, 0.52, 0.51) == (0.5, "sheet")
    assert call(None, 0.52, 0.51) == (0.52, "platform files")
    assert call(None, np.nan, 0.51) == (0.51, "the pitch")
    assert not faults
    call(0.25, np.nan, 0.51)
    assert "0.25 um per pixel" in faults.items[0].found
    assert "about 0.51" in faults.items[0].expected
    value, source = call(None, np.nan, np.nan)
    assert np.isnan(value)
    assert source == "unknown"
    call(-1, np.nan, np.nan)
    assert "above 0" in faults.items[1].expected


def test_inside_image(faults, notes):
    xy = np.array([[10.0, 10], [90, 40], [50, 30]])
    checks.check_inside(xy, (100, 50), 1.0, 0.01, "img", faults, notes)
    assert not faults
    checks.check_inside(xy[:, ::-1], (100, 50), 1.0, 0.01, "img", faults, notes)
    assert "x and y swapped" in faults.items[0].hint
    checks.check_inside(xy * 10, (100, 50), 1.0, 0.01, "img", faults, notes)
    assert "at most 0.1111" in faults.items[1].hint
    many = np.vstack([np.full((999, 2), 10.0), [[500, 500]]])
    checks.check_inside(many, (100, 50), 1.0, 0.01, "img", faults, notes)
    assert len(faults.items) == 2
    assert notes.items[-1].message == "1 spots lie outside the image"


def test_subset_rules(faults):
    obs = pd.DataFrame({"a": ["x", "y", "z"], "n": [1, 2, 2]})
    assert checks.select(obs, "a=x|z; n!=1", "w", faults).tolist() == [False, False, True]
    assert checks.select(obs, "n=2", "w", faults).tolist() == [False, True, True]
    assert not faults
    checks.select(obs, "nonsense", "w", faults)
    assert faults.items[0].expected == "column=value or column!=value"


def test_spots_in_a_corner_of_the_image_are_said(faults, notes):
    xy = np.array([[10.0, 10], [90, 40]])
    checks.check_inside(xy, (5000, 4000), 1.0, 0.01, "img", faults, notes)
    assert not faults
    assert "2% of the image's width and 1% of its height" in notes.items[0].message


def test_blocks_give_the_same_answer(faults, notes, monkeypatch):
    monkeypatch.setattr(checks, "BLOCK", 3)
    values = sparse.csr_matrix(np.arange(1, 11, dtype=np.float32).reshape(2, 5))
    out = checks.check_counts(values, ["b0", "b1"], names(5), "refuse", "file", faults, notes)
    assert out.toarray().tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]
    values = np.arange(1, 11.0).reshape(2, 5)
    values[1, 2:] += 0.25
    checks.check_counts(sparse.csr_matrix(values), ["b0", "b1"], names(5), "refuse", "file", faults, notes)
    assert "8.25 for gene g2 in b1 (3 of 10" in faults.items[0].found


def test_counts_beyond_32_bits(faults, notes):
    counted(np.array([[1, 0, 2], [0, 2**40, 0]]), "round", faults, notes)
    assert "too large for 32 bits" in faults.items[0].found


NAMED = pd.DataFrame(
    {
        "cell.type": ["T cell", "B;x", "a|b", "Müller"],
        "a=b": ["1", "2", "1=2", "3"],
        "fov": pd.Categorical([1.0, 2.0, 1.0, 3.0]),
        "Gro\u0308ße": list("abcd"),
    }
)


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("cell.type=T cell", [0]),
        ('cell.type="T cell"', [0]),
        ("cell.type=B;x", [1]),
        ("cell.type=a|b", [2]),
        ("cell.type=Mu\u0308ller", [3]),
        ("cell.type=T cell|Müller; fov=3", [3]),
        ("a=b=1", [0]),
        ("a=b=1=2", [2]),
        ("a=b!=1", [1, 2, 3]),
        ("fov=1", [0, 2]),
        ("fov!=1.0", [1, 3]),
        ("Größe=a|b", [0, 1]),
    ],
)
def test_a_subset_names_columns_and_values_of_any_characters(faults, rule, kept):
    assert np.flatnonzero(checks.select(NAMED, rule, "w", faults)).tolist() == kept
    assert not faults
