"""Inputs that cannot be used: each has its own clear message, no traceback of a library, and leaves no file behind."""

import hashlib
import os
import stat

import h5py
import ingest_cases as cases
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from histoweft import download
from histoweft.errors import InputError
from histoweft.ingest.image import write_working_image
from histoweft.ingest.readers import SampleInput, discover, read, write_counts

LINE = "config/samples.tsv, line 4"


def sheet(platform, path, **columns):
    return SampleInput("s1", platform, path, where=LINE, **columns)


def ingest(sample, results):
    """Do what the ingest rules do."""
    section = read(sample)
    if section.image is not None:
        write_working_image(section.image, results / "image.tif", section.mpp, section.image_scale, 1.0)
    write_counts(section, results / "counts.h5ad")


CASES = {}


def case(*words):
    """Register a builder of a bad sample; the message must hold all `words`."""

    def register(build):
        CASES[build.__name__] = (build, words)
        return build

    return register


# ------------------------------------------------------------------------------------------- unreadable files


@case("filtered_feature_bc_matrix.h5", "truncated", "cut short")
def truncated_h5(tmp):
    path = cases.visium(tmp) / "filtered_feature_bc_matrix.h5"
    path.write_bytes(path.read_bytes()[:3000])
    return sheet("visium", tmp)


@case("filtered_feature_bc_matrix.h5", "not an HDF5 file", "error page")
def html_saved_as_h5(tmp):
    (cases.visium(tmp) / "filtered_feature_bc_matrix.h5").write_text("<html>404</html>")
    return sheet("visium", tmp)


@case("filtered_feature_bc_matrix.h5", "groups ['table']", "a 10x HDF5 matrix")
def h5_that_is_not_10x(tmp):
    with h5py.File(cases.visium(tmp) / "filtered_feature_bc_matrix.h5", "w") as handle:
        handle["table/values"] = [1, 2, 3]
    return sheet("visium", tmp)


@case("an AnnData file", "Use platform h5ad")
def h5ad_called_10x(tmp):
    cases.h5ad(cases.visium(tmp) / "filtered_feature_bc_matrix.h5")
    return sheet("visium", tmp)


@case("no indptr", "a 10x HDF5 matrix")
def h5_without_a_part(tmp):
    with h5py.File(cases.visium(tmp) / "filtered_feature_bc_matrix.h5", "a") as handle:
        del handle["matrix/indptr"]
    return sheet("visium", tmp)


@case("index arrays that do not fit a matrix of 36 x 8")
def h5_with_damaged_indices(tmp):
    with h5py.File(cases.visium(tmp) / "filtered_feature_bc_matrix.h5", "a") as handle:
        handle["matrix/indices"][3] = 1000
    return sheet("visium", tmp)


@case("barcodes.tsv.gz", "not gzipped: rename it")
def gz_that_is_not_gz(tmp):
    cases.visium(tmp, "trio3")
    (tmp / "filtered_feature_bc_matrix" / "barcodes.tsv.gz").write_text("\n".join(cases.barcodes()))
    return sheet("visium", tmp)


@case("A1.tsv.gz", "cut short")
def truncated_gz(tmp):
    path, _, _ = cases.st(tmp)
    path.write_bytes(path.read_bytes()[:-40])
    return sheet("st", path)


@case("scalefactors_json.json", "Space Ranger's scale factors")
def broken_json(tmp):
    cases.text(cases.visium(tmp) / "spatial" / "scalefactors_json.json", '{"tissue_hires_scalef": 0.2')
    return sheet("visium", tmp)


@case("a.h5ad", "not an HDF5 file")
def text_called_h5ad(tmp):
    return sheet("h5ad", cases.text(tmp / "a.h5ad", "gene\tcell"))


@case("a.loom", "a loom file (matrix, row_attrs, col_attrs)")
def h5_called_loom(tmp):
    with h5py.File(tmp / "a.loom", "w") as handle:
        handle["matrix"] = np.ones((2, 2))
    return sheet("h5ad", tmp / "a.loom")


# ------------------------------------------------------------------------------------------------- wrong layout


@case(f"{LINE}, column path", "which does not exist", "Did you mean 'section_A'?")
def path_with_a_typing_error(tmp):
    cases.visium(tmp / "section_A")
    return sheet("visium", tmp / "secton_A")


@case("a file", "Give the folder that holds it")
def file_where_a_folder_is_expected(tmp):
    return sheet("visium", cases.visium(tmp) / "filtered_feature_bc_matrix.h5")


@case("a folder", "the counts table itself", "A1.tsv.gz")
def folder_where_a_file_is_expected(tmp):
    cases.st(tmp)
    return sheet("st", tmp)


@case("an empty folder", "filtered_feature_bc_matrix.h5", "no spot positions")
def empty_folder(tmp):
    (tmp / "v").mkdir()
    return sheet("visium", tmp / "v")


@case("no count matrix", "The nearest name there is 'filtered_feature_bc_matrx.h5'")
def misspelt_matrix(tmp):
    matrix = cases.visium(tmp) / "filtered_feature_bc_matrix.h5"
    matrix.rename(tmp / "filtered_feature_bc_matrx.h5")
    return sheet("visium", tmp)


@case("no spot positions", "tissue_positions.csv")
def missing_positions(tmp):
    return sheet("visium", cases.visium(tmp, table="none"))


@case("column platform", "Did you mean 'visium_hd'?")
def unknown_platform(tmp):
    return sheet("visium-hd", cases.visium_hd(tmp))


@case("binned_outputs/", "Use platform visium_hd")
def hd_called_visium(tmp):
    return sheet("visium", cases.visium_hd(tmp))


@case("no square_004um", "Bin sizes present: 2, 8, 16")
def hd_bin_size_not_present(tmp):
    return sheet("visium_hd", cases.visium_hd(tmp), options={"bin_um": 4})


@case("no cells table", "cells.parquet or cells.csv.gz")
def xenium_without_cells(tmp):
    cases.xenium(tmp, cells="")
    return sheet("xenium", tmp)


@case("cells.csv, column x_centroid", "The nearest name there is 'x_center'")
def xenium_cells_without_coordinates(tmp):
    frame = cases.xenium(tmp, cells="csv").rename(columns={"x_centroid": "x_center"})
    cases.text(tmp / "cells.csv", frame.to_csv(index=False))
    return sheet("xenium", tmp)


@case("no coordinates", "obsm['spatial']", "platform scrna")
def h5ad_without_spatial(tmp):
    return sheet("h5ad", cases.h5ad(tmp / "a.h5ad", spatial=False))


@case("no coordinates table beside A1.tsv.gz", "alignment_table_A1.tsv")
def st_image_without_positions(tmp):
    return sheet("st", cases.st(tmp, table=None)[0])


@case("a link to ../.git/annex/objects/ab/m.h5, which is not there", "git annex get, or datalad get")
def annex_link_in_a_folder(tmp):
    matrix = cases.visium(tmp) / "filtered_feature_bc_matrix.h5"
    matrix.unlink()
    matrix.symlink_to("../.git/annex/objects/ab/m.h5")
    return sheet("visium", tmp)


@case(f"{LINE}, column path", "a link to /data/.dvc/cache/files/md5/ab/cd, which is not there", "dvc pull")
def dvc_link(tmp):
    (tmp / "a.h5ad").symlink_to("/data/.dvc/cache/files/md5/ab/cd")
    return sheet("h5ad", tmp / "a.h5ad")


@case("a link to gone/v, which is not there")
def link_to_a_folder_that_is_gone(tmp):
    (tmp / "v").symlink_to("gone/v")
    return sheet("visium", tmp / "v")


@case("a link to ../.git/annex/objects/ab/a.h5ad that was written as a text", "git annex get")
def link_checked_out_as_text(tmp):
    return sheet("h5ad", cases.text(tmp / "a.h5ad", "../.git/annex/objects/ab/a.h5ad"))


@case("a Git LFS pointer", "git lfs pull")
def lfs_pointer(tmp):
    cases.visium(tmp)
    cases.text(tmp / "spatial" / "tissue_hires_image.png", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    return sheet("visium", tmp)


@case("GSM1_filtered_feature_bc_matrix.h5.gz is compressed: gunzip GSM1_filtered_feature_bc_matrix.h5.gz")
def gzipped_matrix_of_geo(tmp):
    matrix = cases.visium(tmp) / "filtered_feature_bc_matrix.h5"
    matrix.rename(tmp / "GSM1_filtered_feature_bc_matrix.h5.gz")
    return sheet("visium", tmp)


@case("filtered_feature_bc_matrix.tar.gz is compressed: tar xf filtered_feature_bc_matrix.tar.gz", "spatial.tar.gz is")
def archives_of_the_download_page(tmp):
    for name in ("filtered_feature_bc_matrix.tar.gz", "spatial.tar.gz"):
        cases.text(tmp / name, "x")
    return sheet("visium", tmp)


@case("a.h5ad, which does not exist", "a.h5ad.gz is compressed: gunzip a.h5ad.gz")
def gzipped_h5ad_beside(tmp):
    cases.text(tmp / "a.h5ad.gz", "x")
    return sheet("h5ad", tmp / "a.h5ad")


@case("a.h5ad.gz; expected an .h5ad or .loom file. a.h5ad.gz is compressed: gunzip a.h5ad.gz")
def gzipped_h5ad(tmp):
    return sheet("h5ad", cases.text(tmp / "a.h5ad.gz", "x"))


@case("cell_feature_matrix.tar.gz is compressed")
def packed_xenium(tmp):
    cases.xenium(tmp)
    (tmp / "cell_feature_matrix.h5").rename(tmp / "cell_feature_matrix.tar.gz")
    return sheet("xenium", tmp)


@case("The folder is not complete: found in", "barcodes.tsv.gz, matrix.mtx.gz")
def folder_without_genes(tmp):
    cases.visium(tmp, "trio3")
    (tmp / "filtered_feature_bc_matrix" / "features.tsv.gz").unlink()
    return sheet("visium", tmp)


def segmented(tmp, bins=False):
    if bins:
        cases.visium_hd(tmp)
    cases.text(tmp / "segmented_outputs" / "filtered_feature_cell_matrix.h5", "x")
    return tmp / "segmented_outputs"


@case("segmented cells of Space Ranger 4 (filtered_feature_cell_matrix.h5)", "the folder that holds binned_outputs/")
def segmented_called_visium(tmp):
    return sheet("visium", segmented(tmp))


@case("segmented cells of Space Ranger 4", "platform visium_hd with path", "reads binned_outputs/ there")
def segmented_beside_bins(tmp):
    return sheet("visium_hd", segmented(tmp, bins=True))


@case("segmented cells of Space Ranger 4 (segmented_outputs/)")
def segmented_from_above(tmp):
    segmented(tmp)
    return sheet("visium_hd", tmp)


@case("several sections in one sample", "barcode_suffix", "./histoweft split")
def spaceranger_aggr(tmp):
    cells = [*cases.barcodes(18), *cases.barcodes(18, "-2")]
    cases.visium(tmp, "none", frame=cases.positions().assign(barcode=cells))
    cases.write_h5(tmp / "filtered_feature_bc_matrix.h5", cases.counts(), cells)
    (tmp / "spatial" / "tissue_positions.csv").rename(tmp / "spatial" / "aggr_tissue_positions.csv")
    return sheet("visium", tmp)


# ------------------------------------------------------------------------------------------------------- tables


@case("tissue_positions_list.csv, line 1", "1 column", "Columns must be separated by commas")
def wrong_separator_in_positions(tmp):
    cases.visium(tmp, table="none")
    lines = cases.positions().to_csv(index=False, header=False).replace(",", "|")
    cases.text(tmp / "spatial" / "tissue_positions_list.csv", lines)
    return sheet("visium", tmp)


@case("5 columns", "six: barcode, in_tissue, array_row")
def positions_with_wrong_column_count(tmp):
    return sheet("visium", cases.visium(tmp, table="list", frame=cases.positions().drop(columns="array_col")))


@case("tissue_positions.csv, line 8, column pxl_row_in_fullres", "'12,5'", "a number")
def positions_with_text(tmp):
    frame = cases.positions().astype(object)
    frame.loc[6, "pxl_row_in_fullres"] = "12,5"
    return sheet("visium", cases.visium(tmp, frame=frame))


@case("tissue_positions_list.csv", "an empty file")
def empty_positions(tmp):
    cases.visium(tmp, table="none")
    cases.text(tmp / "spatial" / "tissue_positions_list.csv", "")
    return sheet("visium", tmp)


@case("A1.tsv.gz, row 4x5, column MOBP", "'n.d.'", "a number")
def st_table_with_text(tmp):
    path, values, _ = cases.st(tmp)
    values = values.astype(object)
    values.loc["4x5", "MOBP"] = "n.d."
    cases.text(path, values.to_csv(sep="\t"))
    return sheet("st", path)


@case("rows s0, s1 and columns ACTB, GAPDH", "like 10x13")
def st_table_without_positions_in_names(tmp):
    path, values, _ = cases.st(tmp)
    values.index = [f"s{i}" for i in range(len(values))]
    cases.text(path, values.to_csv(sep="\t"))
    return sheet("st", path)


@case("A1_selection.tsv, column pixel_x", "no such column")
def st_positions_without_pixels(tmp):
    path, _, frame = cases.st(tmp)
    cases.text(tmp / "A1_selection.tsv", frame.drop(columns="pixel_x").to_csv(sep="\t", index=False))
    return sheet("st", path)


@case("8 genes x 36 barcodes beside 8 gene names and 35 barcodes", "equal numbers")
def mtx_with_mismatched_dimensions(tmp):
    cases.visium(tmp, "trio3")
    folder = tmp / "filtered_feature_bc_matrix"
    cases.text(folder / "barcodes.tsv.gz", "\n".join(cases.barcodes()[:-1]))
    return sheet("visium", tmp)


@case("matrix.mtx", "no %%MatrixMarket line")
def mtx_that_is_a_table(tmp):
    cases.visium(tmp, "trio3")
    cases.text(tmp / "filtered_feature_bc_matrix" / "matrix.mtx.gz", "gene\tcell\n1\t2\n")
    return sheet("visium", tmp)


# ------------------------------------------------------------------------------------------------------- values


@case("a count that is not an integer: 2.5", "for gene", "ingest.counts: round")
def non_integer_counts(tmp):
    values = cases.counts().astype(np.float32)
    values.data[4] = 2.5
    return sheet("visium", cases.visium(tmp, values=values))


@case("a negative count: -3 for gene GAPDH in")
def negative_counts(tmp):
    values = cases.counts().toarray()
    values[2, 1] = -3
    return sheet("visium", cases.visium(tmp, values=sparse.csr_matrix(values)))


@case("NaN", "for gene SNAP25", "a.h5ad")
def nan_counts(tmp):
    values = cases.counts().toarray().astype(np.float32)
    values[2, 3] = np.nan
    return sheet("h5ad", cases.h5ad(tmp / "a.h5ad", values))


@case("1 barcodes more than once", "each barcode once")
def duplicate_barcodes(tmp):
    cases.visium(tmp)
    cells = cases.barcodes()
    cells[5] = cells[4]
    cases.write_h5(tmp / "filtered_feature_bc_matrix.h5", cases.counts(), cells)
    return sheet("visium", tmp)


@case("no barcode shared between matrix", "and positions (OTHER", "two different samples")
def no_shared_barcodes(tmp):
    frame = cases.positions()
    frame["barcode"] = [f"OTHER{i}" for i in range(len(frame))]
    return sheet("visium", cases.visium(tmp, frame=frame))


@case("an empty matrix (8 genes x 0 barcodes)")
def empty_matrix(tmp):
    cases.visium(tmp)
    cases.write_h5(tmp / "filtered_feature_bc_matrix.h5", sparse.csr_matrix((0, 8), dtype=np.int32), [])
    return sheet("visium", tmp)


@case("no spot left of 36", "dropped: empty 36")
def matrix_of_zeros(tmp):
    return sheet("visium", cases.visium(tmp, values=sparse.csr_matrix((36, 8), dtype=np.int32)))


@case("no spot left of 36", "off_tissue 36")
def everything_off_tissue(tmp):
    return sheet("visium", cases.visium(tmp, off=36))


@case("1 genes without a name (row 3)")
def gene_without_a_name(tmp):
    cases.visium(tmp)
    ids, names = list(cases.IDS), list(cases.GENES)
    ids[2] = names[2] = ""
    cases.write_h5(tmp / "filtered_feature_bc_matrix.h5", cases.counts(), cases.barcodes(), ids, names)
    return sheet("visium", tmp)


# -------------------------------------------------------------------------------------------- image and geometry


@case(f"{LINE}, column image", "no_such.png, which does not exist")
def missing_image(tmp):
    return sheet("visium", cases.visium(tmp), image=tmp / "no_such.png")


@case("tissue_hires_image.png", "an unreadable image")
def corrupt_image(tmp):
    (cases.visium(tmp) / "spatial" / "tissue_hires_image.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 300)
    return sheet("visium", tmp)


@case("tissue_hires_image.png", "an unreadable image", "cut short")
def truncated_image(tmp):
    path = cases.visium(tmp) / "spatial" / "tissue_hires_image.png"
    path.write_bytes(path.read_bytes()[:60_000])
    return sheet("visium", tmp)


@case("slide.tif", "truncated image", "cut short")
def truncated_tiff(tmp):
    import tifffile

    cases.visium(tmp)
    tifffile.imwrite(tmp / "slide.tif", np.zeros((800, 800, 3), np.uint8), photometric="rgb")
    (tmp / "slide.tif").write_bytes((tmp / "slide.tif").read_bytes()[:-5000])
    return sheet("visium", tmp, image=tmp / "slide.tif")


@case("slide.pdf", "one of .png")
def image_of_an_unknown_kind(tmp):
    cases.visium(tmp)
    return sheet("visium", tmp, image=cases.text(tmp / "slide.pdf", "%PDF"))


@case("outside the image of 200 x 200 pixels", "at most 1.0% outside", "A scale of at most")
def spots_outside_the_image(tmp):
    cases.visium(tmp, images=())
    return sheet("visium", tmp, image=cases.picture(tmp / "small.png", 200, 200))


@case("With x and y swapped they would lie inside")
def swapped_x_and_y(tmp):
    path, _, frame = cases.st(tmp, image=False)
    frame["pixel_x"] *= 2
    cases.picture(tmp / "A1.jpg", 1200, 600)
    frame[["pixel_x", "pixel_y"]] = frame[["pixel_y", "pixel_x"]].to_numpy()
    cases.text(tmp / "A1_selection.tsv", frame.to_csv(sep="\t", index=False))
    return sheet("st", path)


@case(f"{LINE}, column mpp", "0.5 um per pixel", "about 1, as the spot pitch (100 um) says")
def wrong_mpp(tmp):
    return sheet("visium", cases.visium(tmp), mpp=0.5)


# ----------------------------------------------------------------------------------------------- labels, options


@case("labels.csv", "no column shares a value with the barcodes", "the table of another sample")
def labels_of_another_sample(tmp):
    path = cases.text(tmp / "labels.csv", "barcode,label\nX,a\nY,b\n")
    return sheet("visium", cases.visium(tmp / "v"), labels=path)


@case("labels.csv", "a barcode column")
def labels_without_barcodes(tmp):
    path = cases.text(tmp / "labels.csv", "label,score\na,1\nb,2\n")
    return sheet("visium", cases.visium(tmp / "v"), labels=path)


@case("column labels_column", "one of: region, cluster")
def labels_with_two_columns(tmp):
    rows = pd.DataFrame({"barcode": cases.barcodes(), "region": "a", "cluster": "b"})
    path = cases.text(tmp / "labels.csv", rows.to_csv(index=False))
    return sheet("visium", cases.visium(tmp / "v"), labels=path)


@case(f"{LINE}, column labels", "nothing.csv, which does not exist")
def missing_labels(tmp):
    return sheet("visium", cases.visium(tmp), labels=tmp / "nothing.csv")


@case(f"{LINE}, column labels", "Did you mean 'cell_type'?")
def h5ad_label_column_misspelt(tmp):
    return sheet("h5ad", cases.h5ad(tmp / "a.h5ad"), labels="celltype")


@case(f"{LINE}, column subset", "which no spot has", "one of: a, b")
def subset_of_nothing(tmp):
    return sheet("h5ad", cases.h5ad(tmp / "a.h5ad"), subset="cell_type=c")


@pytest.mark.parametrize("name", CASES)
def test_bad_input(tmp_path, name):
    build, words = CASES[name]
    data, results = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    with pytest.raises(InputError) as caught:
        ingest(build(data), results)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert "Traceback" not in message
    left = sorted(p.name for p in results.rglob("*")) if results.exists() else []
    assert left == []


def test_messages_are_all_different(tmp_path):
    """A message that fits several causes helps with none."""
    seen = {}
    for name, (build, _) in CASES.items():
        data = tmp_path / name
        data.mkdir()
        with pytest.raises(InputError) as caught:
            ingest(build(data), tmp_path / "results")
        text = str(caught.value).replace(str(data), "")
        assert text not in seen, f"{name} and {seen.get(text)}"
        seen[text] = name


def test_unreadable_path(tmp_path, monkeypatch):
    """Root may read everything, so refusal is simulated where the tests run as root."""
    cases.visium(tmp_path)
    matrix = tmp_path / "filtered_feature_bc_matrix.h5"
    if os.geteuid() == 0:
        before = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(matrix) and before(path, mode))
    else:
        matrix.chmod(0)
    found = discover("visium", tmp_path, where=LINE)
    (fault,) = found.faults.items
    assert fault.found == f"{matrix}, which may not be read"
    assert fault.hint == f"Allow reading: chmod u+r {matrix}"
    matrix.chmod(stat.S_IRUSR | stat.S_IWUSR)


def test_unreadable_folder(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    (fault,) = discover("visium", tmp_path, where=LINE).faults.items
    assert "which may not be read" in fault.found
    assert "chmod u+rx" in fault.hint


def test_sha_mismatch_leaves_nothing(tmp_path, monkeypatch):
    content = b"another file"

    def stream(url, path, *limits):
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest(), len(content)

    monkeypatch.setattr(download, "_stream", stream)
    with pytest.raises(InputError) as caught:
        download.fetch("https://example.org/a.h5", "1" * 64, tmp_path / "out" / "a.h5")
    assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert "1" * 64 in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []
