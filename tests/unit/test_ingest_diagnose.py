"""What is said of a file that cannot be read: the cause is looked for in the file itself."""

import fcntl
import gzip
import os
import zipfile

import h5py
import ingest_cases as cases
import numpy as np
import pandas as pd
import pytest

from histoweft.errors import Faults
from histoweft.ingest import features, tables


def told(path, read):
    """Return the one fault of reading a file."""
    faults = Faults()
    with tables.attempt(faults, path, "what is wanted"):
        read(path)
    (fault,) = faults.items
    return fault


def h5(path, **options):
    with h5py.File(path, "w") as handle:
        handle.create_dataset("group/values", data=np.arange(1000), **options)
    return path


def read_h5(path):
    with h5py.File(path, "r") as handle:
        return handle["group/values"][:]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page (HTML)"),
        (gzip.compress(b"\x89HDF\r\n\x1a\n" + b"x" * 99, mtime=0), "gzip-compressed data, not an HDF5 file"),
        (gzip.compress(b"RDX3\nX\n"), "gzip-compressed data (an R file (RData) inside), not an HDF5 file"),
        (b"PK\x03\x04" + b"\0" * 99, "a zip archive, not an HDF5 file"),
        (b"\0" * 4096, "zero bytes, as a download leaves that was not finished, not an HDF5 file"),
        (b"gene\tcell\n", "plain text, not an HDF5 file"),
        (b"", "an empty file (0 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        (b"/annex/objects/SHA256E-s1--ab.h5\n", "a git-annex pointer"),
    ],
)
def test_what_is_no_hdf5_is_called_by_what_it_is(tmp_path, content, words):
    (tmp_path / "a.h5").write_bytes(content)
    assert words in told(tmp_path / "a.h5", read_h5).found


def test_truncated_hdf5_names_both_sizes(tmp_path):
    path = h5(tmp_path / "a.h5")
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:3000])
    fault = told(path, read_h5)
    assert fault.found == f"a truncated HDF5 file (3000 of {whole} bytes are there)"
    assert fault.hint.startswith("The file is cut short")


def test_locked_hdf5_is_not_called_damaged(tmp_path):
    path = h5(tmp_path / "a.h5")
    with open(path, "rb+") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        fault = told(path, read_h5)
    assert "another program holds open" in fault.found
    assert "HDF5_USE_FILE_LOCKING=FALSE" in fault.hint


@pytest.mark.parametrize(("code", "name"), [(32015, "zstd"), (32001, "Blosc"), (307, "bzip2"), (32004, "LZ4")])
def test_missing_filter_is_named_with_its_data_set(tmp_path, code, name):
    """The filter is optional when written, so the library lets it pass; reading is refused by what is stored."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as handle:
        stored = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        stored.set_chunk((10,))
        stored.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (3,))
        space = h5py.h5s.create_simple((10,))
        group = handle.create_group("X")
        h5py.h5d.create(group.id, b"data", h5py.h5t.NATIVE_INT32, space, stored)

    def fail(path):
        raise OSError("Can't synchronously read data (can't open directory)")

    fault = told(path, fail)
    assert fault.found == f"/X/data compressed with {name} (HDF5 filter {code}), which cannot be read here"
    assert "gzip or lzf" in fault.hint


def test_damaged_chunk_names_the_data_set(tmp_path):
    path = h5(tmp_path / "a.h5", chunks=(100,), fletcher32=True)
    with h5py.File(path, "r") as handle:
        place = handle["group/values"].id.get_chunk_info(3).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 5] ^= 255
    path.write_bytes(data)
    assert told(path, read_h5).found == "/group/values, whose values are damaged"


def test_values_in_a_file_that_is_missing_are_never_read_as_zeros(tmp_path):
    h5(tmp_path / "source.h5")
    layout = h5py.VirtualLayout(shape=(1000,), dtype=int)
    layout[:] = h5py.VirtualSource(str(tmp_path / "source.h5"), "group/values", shape=(1000,))
    with h5py.File(tmp_path / "a.h5", "w") as handle:
        handle.create_virtual_dataset("v", layout)
    with tables.open_h5(tmp_path / "a.h5") as handle:
        assert handle["v"][-1] == 999
    (tmp_path / "source.h5").unlink()
    fault = told(tmp_path / "a.h5", lambda path: tables.open_h5(path).__enter__())
    assert "/v, whose values are kept in another file" in fault.found
    assert "source.h5" in fault.found


def test_a_file_that_opens_is_never_called_no_hdf5(tmp_path):
    def fail(path):
        raise KeyError("Unable to open file: signature not found, truncated, not a gzip")

    fault = told(h5(tmp_path / "a.h5"), fail)
    assert fault.found == "content that could not be decoded (KeyError; the log says where)"
    assert fault.hint == ""


def test_gzip_cut_short_and_damaged_are_told_apart(tmp_path):
    data = gzip.compress(os.urandom(5000))
    for name, content, words in (("a", data[:-300], "truncated"), ("b", data[:-8] + b"\0" * 8, "damaged")):
        path = tmp_path / f"{name}.csv.gz"
        path.write_bytes(content)
        assert words in told(path, lambda path: gzip.open(path).read()).found


def test_parquet_and_json_say_where(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"a": range(99)}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "a truncated Parquet file" in told(path, tables.read_table).found
    cut = cases.text(tmp_path / "a.json", '{"a": 1,\n"b": 2')
    assert told(cut, tables.read_json).found == "JSON that ends too early, in line 2"
    assert "line 2, column 6" in told(cases.text(cut, '{"a": 1,\n"b": x}'), tables.read_json).found


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_latin_1_is_named_with_the_word_and_the_remedy(tmp_path, suffix):
    content = "barcode,label\nA,tumour\nB,Müller glia\n".encode("latin-1")
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    fault = told(path, tables.read_table)
    assert fault.found == "byte 0xFC in line 3, byte 4, which is not UTF-8"
    assert "'Müller'" in fault.hint
    assert "iconv -f WINDOWS-1252 -t UTF-8" in fault.hint


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_utf_16_and_32_are_read_by_their_mark(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes("a;b\nü;2\n".encode(encoding))
    assert tables.read_table(path).iloc[0].tolist() == ["ü", 2]


def test_a_web_page_called_csv(tmp_path):
    fault = told(cases.text(tmp_path / "a.csv", "<!DOCTYPE html>\n<html><body>a, b</body></html>\n"), tables.read_table)
    assert fault.found.startswith("a web page (HTML)")
    assert "logged in" in fault.hint


def test_commas_inside_of_columns_that_semicolons_separate(tmp_path):
    path = cases.text(tmp_path / "a.csv", "barcode;label\nA;glia, big\nB;glia, small\n")
    assert tables.read_table(path)["label"].tolist() == ["glia, big", "glia, small"]
    path = cases.text(tmp_path / "r.csv", '"label"\n"A","x"\n"B","y"\n')
    assert tables.read_table(path)["label"].tolist() == ["x", "y"]


def test_excel_file_called_csv(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
        archive.writestr("xl/workbook.xml", b"\xff\xfe" * 99)
    assert "a zip archive" in told(tmp_path / "a.csv", tables.read_table).found


# ---------------------------------------------------------------------------------------------------- words, names


def test_booleans_in_every_spelling():
    faults = Faults()
    for yes, no in (
        ("true", "false"),
        ("TRUE", "FALSE"),
        ("Yes", "no"),
        (1, 0),
        (1.0, 0.0),
        ("1.0", "0"),
        (True, False),
    ):
        assert tables.booleans(pd.Series([yes, no, yes], dtype=object), "f", faults).tolist() == [True, False, True]
    assert not faults


def test_other_words_are_faults_with_their_row():
    faults = Faults()
    tables.booleans(pd.Series(["1", "maybe", "2"], name="in_tissue", index=[2, 3, 4]), "a.csv", faults)
    tables.booleans(pd.Series([1, np.nan], name="in_tissue", index=["s1", "s2"]), "a.h5ad", faults)
    assert [(f.where, f.found) for f in faults.items] == [
        ("a.csv, line 3, column in_tissue", "'maybe', and 1 more rows"),
        ("a.h5ad, row s2, column in_tissue", "nothing"),
    ]


CONTROLS = """NegPrb01 NegPrb1 NegControlProbe_00001 NegControlCodeword_0500 Negative01 Negative NegProbe-WTX NegAdd1
    Blank-1 BLANK_0006 blank1 Blank_12 SystemControl12 antisense_PROKR2 UnassignedCodeword_0000
    DeprecatedCodeword_0104 Intergenic_Region_12 FalseCode1 Genomic_Control_1""".split()
REAL = """BLNK Blnk blanks NEGR1 Negr1 neg-1 NELFE Neto1 ANTXR1 INTS1 INTU DEPP1 DEPDC1 SYS1 SYCP1 FALZ UNC13A UNC5B
    GENE1 NEB Neg CNTN1 BLM GAPDH ERCC1""".split()


def test_controls_are_known_by_name_and_genes_never_match():
    assert features.feature_types(CONTROLS).tolist() == ["Control"] * len(CONTROLS)
    assert features.feature_types(REAL).tolist() == ["Gene Expression"] * len(REAL)


def test_stated_feature_types_hold():
    found = features.feature_types(
        ["CD3", "A", "B", "C", "NegPrb1"], types=["Antibody Capture", "gene", None, "", "Gene"]
    )
    assert found.tolist() == ["Antibody Capture", *["Gene Expression"] * 3, "Control"]
