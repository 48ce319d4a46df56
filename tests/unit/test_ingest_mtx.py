"""The mtx trio in the forms that programs and people write it."""

import gzip

import ingest_cases as cases
import numpy as np
import pytest

from histoweft.errors import InputError
from histoweft.ingest.readers import SampleInput, read

CELLS = cases.barcodes(36)


@pytest.fixture
def trio(tmp_path):
    cases.write_trio(tmp_path, cases.counts(), CELLS, version=2)
    return tmp_path


def section(folder):
    return read(SampleInput("s", "scrna", folder))


def same(found):
    """Check that every count lies at its own barcode and gene."""
    frame = np.zeros((36, 8), int)
    rows = [list(found.obs.index).index(cell) for cell in CELLS]
    columns = [list(found.var["gene_id"]).index(gene) for gene in cases.IDS]
    frame[:] = found.counts.toarray()[np.ix_(rows, columns)]
    np.testing.assert_array_equal(frame, cases.counts().toarray())
    return {w.code for w in found.warnings}


def lines(*columns, sep="\t", head="", end="\n"):
    return head + "".join(sep.join(row) + end for row in zip(*columns))


GENES = [
    ("plain", lines(cases.IDS, cases.GENES), set()),
    ("windows", lines(cases.IDS, cases.GENES, end="\r\n"), set()),
    ("old mac", lines(cases.IDS, cases.GENES, end="\r"), set()),
    ("trailing blank", lines(cases.IDS, cases.GENES) + "\n\n", set()),
    ("header", lines(cases.IDS, cases.GENES, head="gene_id\tgene_name\n"), set()),
    ("quoted", lines([f'"{i}"' for i in cases.IDS], [f'"{n}"' for n in cases.GENES], head='"V1"\t"V2"\n'), set()),
    ("whole rows quoted", lines([f'"{i}' for i in cases.IDS], cases.GENES, [f'{t}"' for t in cases.TYPES]), set()),
    ("exchanged", lines(cases.GENES, cases.IDS), {"gene_columns"}),
    ("types first", lines(cases.TYPES, cases.IDS, cases.GENES), set()),
    ("types second", lines(cases.IDS, cases.TYPES, cases.GENES), set()),
    ("numbered", lines([str(i) for i in range(1, 9)], cases.IDS, cases.GENES), set()),
    ("commas", lines(cases.IDS, cases.GENES, sep=","), set()),
    ("spaces", lines(cases.IDS, cases.GENES, sep=" "), set()),
]  # fmt: skip


@pytest.mark.parametrize(("content", "codes"), [c[1:] for c in GENES], ids=[c[0] for c in GENES])
def test_lists_of_genes(trio, content, codes):
    (trio / "genes.tsv").write_bytes(content.encode())
    found = section(trio)
    assert same(found) == codes
    assert list(found.var.index) == cases.GENES


BARCODES = [
    ("header", "x\n" + "\n".join(CELLS)),
    ("R's row names", '"x"\n' + "".join(f'"{i}"\t"{c}"\n' for i, c in enumerate(CELLS, 1))),
    ("numbered from 0", "".join(f"{i},{c}\n" for i, c in enumerate(CELLS))),
    ("pandas header", "0\n" + "\n".join(CELLS) + "\n"),
    ("metadata beside", "barcode\tdonor\n" + "".join(f"{c}\td1\n" for c in CELLS)),
]


@pytest.mark.parametrize("content", [c[1] for c in BARCODES], ids=[c[0] for c in BARCODES])
def test_lists_of_barcodes(trio, content):
    cases.text(trio / "barcodes.tsv", content)
    assert same(section(trio)) == set()


def test_a_dropped_header_is_told(trio):
    cases.text(trio / "barcodes.tsv", "barcode\n" + "\n".join(CELLS))
    assert "barcode" in section(trio).read_as["header of barcodes.tsv"]


def test_quotes_inside_names_stay(trio):
    names = ['"odd', "GAPDH", "5'-nuc", 'odd2"', *cases.GENES[4:]]
    cases.text(trio / "genes.tsv", lines(cases.IDS, names))
    found = section(trio)
    same(found)
    assert list(found.var.index) == names


def test_a_matrix_of_cells_by_genes_is_read_with_a_warning(trio):
    from scipy.io import mmwrite

    mmwrite(trio / "matrix.mtx", cases.counts().tocoo(), field="integer")
    assert same(section(trio)) == {"transposed"}


def test_a_square_matrix_is_read_with_a_warning(tmp_path):
    cases.write_trio(tmp_path, cases.counts(8), CELLS[:8], version=2)
    found = section(tmp_path)
    assert [w.code for w in found.warnings] == ["square_matrix"]
    np.testing.assert_array_equal(found.counts.toarray(), cases.counts(8).toarray())


def test_genes_without_symbol_are_called_by_their_identifier(trio):
    names = ["NA", "nan", "-", "None", *cases.GENES[4:]]
    cases.text(trio / "genes.tsv", lines(cases.IDS, names))
    assert list(section(trio).var.index) == [*cases.IDS[:4], *cases.GENES[4:]]


def test_single_column_of_genes(trio):
    cases.text(trio / "genes.tsv", lines(cases.GENES))
    assert list(section(trio).var["gene_id"]) == cases.GENES


def test_a_tab_inside_a_name_of_an_h5_is_a_fault(tmp_path):
    names = ["A\tB", *cases.GENES[1:]]
    path = cases.write_h5(tmp_path / "a.h5", cases.counts(), CELLS, names=names)
    with pytest.raises(InputError, match="a tab or line break inside 1 gene names"):
        section(path)


def test_controls_in_a_matrix_without_types_are_no_genes(trio):
    controls = ["NegPrb01", "Blank-1"]
    cases.text(trio / "genes.tsv", lines([*cases.IDS[:6], *controls], [*cases.GENES[:6], *controls]))
    found = section(trio)
    assert list(found.var.index) == cases.GENES[:6]
    np.testing.assert_array_equal(found.obs["control_counts"], cases.counts().toarray()[:, 6:].sum(axis=1))


HEAD = "%%MatrixMarket matrix coordinate integer general\n8 36 3\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEAD + "1 1 2\n0 1 3\n2 2 1\n", ["line 4", "'0 1 3'", "count from 1"]),
        (HEAD + "1 1 2\n9 1 3\n2 2 1\n", ["line 4", "a row of 1 to 8"]),
        (HEAD + "1 1 2\n2 1 3\n", ["2 entries where its head says 3", "cut short"]),
        (HEAD + "1 1 2\n2 1 3\n2 2 1\n3 3 1\n", ["4 entries where its head says 3"]),
        (HEAD + "1 1 2\n2 1 3,5\n2 2 1\n", ["line 4", "a point for decimals"]),
        (HEAD.replace("integer", "pattern") + "1 1\n2 1\n2 2\n", ["line 1", "without counts"]),
        (HEAD.replace("general", "symmetric") + "1 1 2\n", ["line 1", "an integer general matrix"]),
    ],
)
def test_a_damaged_matrix_names_its_line(trio, content, words):
    cases.text(trio / "matrix.mtx", content)
    with pytest.raises(InputError) as caught:
        section(trio)
    for word in words:
        assert word in str(caught.value)


def test_real_and_array_matrices_are_read(trio):
    from scipy.io import mmwrite

    mmwrite(trio / "matrix.mtx", cases.counts().T.toarray().astype(float))
    assert "array real" in (trio / "matrix.mtx").read_text()[:60]
    assert same(section(trio)) == set()


def test_utf_16_and_latin_1_lists(trio):
    (trio / "genes.tsv").write_bytes(lines(cases.IDS, cases.GENES).encode("utf-16"))
    assert same(section(trio)) == set()
    (trio / "genes.tsv").write_bytes(gzip.compress(lines(cases.IDS, ["Gén", *cases.GENES[1:]]).encode("latin-1")))
    with pytest.raises(InputError, match="byte 0xE9 in line 1"):
        section(trio)


def test_a_line_of_names_that_is_cut_short_is_a_fault(tmp_path):
    cases.write_trio(tmp_path, cases.counts(12), cases.barcodes(12), version=2)
    path = tmp_path / "genes.tsv"
    path.write_text(path.read_text()[: -len("11\tMT-CO1\n") - 6])
    with pytest.raises(InputError, match=r"genes.tsv, line 8: found 1 field .* where most lines have 2"):
        read(SampleInput("s1", "scrna", tmp_path))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_told(encoding, tmp_path):
    cases.write_trio(tmp_path, cases.counts(12), cases.barcodes(12), version=2)
    (tmp_path / "barcodes.tsv").write_bytes("\n".join(cases.barcodes(12)).encode(encoding))
    with pytest.raises(InputError, match="UTF-16 without its mark"):
        read(SampleInput("s1", "scrna", tmp_path))


def test_a_zero_byte_inside_a_name_is_a_fault(tmp_path):
    cases.write_trio(tmp_path, cases.counts(12), ["AC\0G", *cases.barcodes(11)], version=2)
    with pytest.raises(InputError, match="barcode 1: found the name"):
        read(SampleInput("s1", "scrna", tmp_path))
