"""Readers of every platform, on tiny inputs of every layout and on real data."""

import subprocess
import sys
import time

import h5py
import ingest_cases as cases
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from histoweft.errors import InputError
from histoweft.ingest.readers import PLATFORMS, SampleInput, discover, read, write_counts


def codes(section):
    return {w.code for w in section.warnings}


def failing(**sheet):
    with pytest.raises(InputError) as caught:
        read(SampleInput("s1", **sheet))
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------ Visium


@pytest.mark.parametrize("matrix", ["h5", "h5v2", "trio3", "trio2"])
@pytest.mark.parametrize("table", ["csv", "csv_noheader", "list", "list.gz", "parquet"])
def test_visium_layouts_give_the_same_section(tmp_path, matrix, table):
    section = read(SampleInput("s1", "visium", cases.visium(tmp_path, matrix, table)))
    assert (section.counts != cases.counts()).nnz == 0
    assert section.counts.dtype == np.int32
    assert list(section.obs.index) == cases.barcodes()
    assert list(section.var.index) == cases.GENES
    assert list(section.var["gene_id"]) == cases.IDS
    frame = cases.positions()
    np.testing.assert_allclose(section.xy_px, frame[["pxl_col_in_fullres", "pxl_row_in_fullres"]])
    assert section.mpp == pytest.approx(1.0, rel=1e-3)
    assert section.spot_diameter_um == 55
    assert (section.image_kind, section.image_scale, section.image_size) == ("hires", 0.25, (200, 200))
    assert list(section.obs["array_col"]) == list(frame["array_col"])
    assert section.species == "human"


def test_visium_outs_folder_is_found(tmp_path):
    cases.visium(tmp_path / "run" / "outs")
    found = discover("visium", tmp_path / "run")
    assert not found.faults
    assert found.roles["matrix"] == tmp_path / "run/outs/filtered_feature_bc_matrix.h5"
    assert read(SampleInput("s1", "visium", tmp_path / "run")).counts.shape == (36, 8)


def test_visium_with_lowres_image_only(tmp_path):
    section = read(SampleInput("s1", "visium", cases.visium(tmp_path, images=("lowres",))))
    assert (section.image_kind, section.image_scale, section.image_size) == ("lowres", 0.075, (60, 60))


def test_visium_image_none_and_own_fullres_image(tmp_path):
    cases.visium(tmp_path / "v")
    assert read(SampleInput("s1", "visium", tmp_path / "v", image="none")).image is None
    own = cases.picture(tmp_path / "slide.png", cases.SIDE, cases.SIDE)
    section = read(SampleInput("s1", "visium", tmp_path / "v", image=own))
    assert (section.image, section.image_kind, section.image_scale) == (own, "fullres", 1.0)


def test_visium_missing_hires_factor_is_worked_out_from_lowres(tmp_path):
    section = read(SampleInput("s1", "visium", cases.visium(tmp_path, factors={"tissue_hires_scalef": None})))
    assert section.image_scale == pytest.approx(0.25)
    assert "scale_factor" in codes(section)


def test_visium_without_any_factor_is_a_fault_unless_the_option_says_it(tmp_path):
    cases.visium(tmp_path, images=("hires",), factors={"tissue_hires_scalef": None, "tissue_lowres_scalef": None})
    assert "no tissue_hires_scalef" in failing(platform="visium", path=tmp_path)
    assert read(SampleInput("s1", "visium", tmp_path, options={"image_scale": 0.25})).image_scale == 0.25


def test_visium_off_tissue_spots_are_dropped_or_kept(tmp_path):
    cases.visium(tmp_path, "raw_h5", off=5)
    section = read(SampleInput("s1", "visium", tmp_path))
    assert section.counts.shape[0] == 31
    assert section.dropped == {"off_tissue": 5}
    assert {"off_tissue", "raw_matrix"} <= codes(section)
    kept = read(SampleInput("s1", "visium", tmp_path, options={"keep_off_tissue": True}))
    assert kept.counts.shape[0] == 36


def test_visium_matrix_and_spatial_folder_downloaded_apart(tmp_path):
    """10x Genomics hands out the matrix and the folder spatial/ one by one; the section is the same."""
    whole = read(SampleInput("s1", "visium", cases.visium(tmp_path / "whole")))
    apart = cases.visium(tmp_path / "apart", images=("lowres",))
    matrix = (apart / "filtered_feature_bc_matrix.h5").rename(tmp_path / "V1_Brain_filtered_feature_bc_matrix.h5")
    image = cases.picture(tmp_path / "V1_Brain_image.tif", cases.SIDE, cases.SIDE)
    for folder in (apart, apart / "spatial"):
        section = read(SampleInput("s1", "visium", matrix, positions=folder))
        assert (section.image.name, section.image_scale) == ("tissue_lowres_image.png", 0.075)
        assert (section.counts != whole.counts).nnz == 0
        np.testing.assert_array_equal(section.xy_px, whole.xy_px)
    section = read(SampleInput("s1", "visium", matrix, positions=apart, image=image))
    assert (section.image_kind, section.image_scale) == ("fullres", 1.0)
    assert "raw_matrix" not in codes(section)


def test_visium_positions_column_goes_before_the_folders_own(tmp_path):
    moved = cases.positions()
    moved["pxl_col_in_fullres"] += 7
    cases.visium(tmp_path / "other", frame=moved)
    whole = read(SampleInput("s1", "visium", cases.visium(tmp_path / "whole")))
    section = read(SampleInput("s1", "visium", tmp_path / "whole", positions=tmp_path / "other" / "spatial"))
    np.testing.assert_allclose(section.xy_px, whole.xy_px + np.array([7, 0]))


def test_visium_matrix_by_itself_says_what_is_missing(tmp_path):
    def fault(path, **sheet):
        (one,) = discover("visium", path, where="s.tsv, line 2", **sheet).faults.items
        return one

    matrix = cases.visium(tmp_path / "a") / "filtered_feature_bc_matrix.h5"
    assert fault(matrix).expected.endswith("or a count matrix (.h5) with its spatial/ in the column positions")
    assert fault(matrix).hint == f"Give the folder that holds it: {tmp_path / 'a'}"
    absent = fault(matrix, positions=tmp_path / "b")
    assert absent.where == "s.tsv, line 2, column positions"
    assert absent.found.endswith("b, which does not exist")
    assert fault(tmp_path / "a" / "filtered.h5", positions=tmp_path / "a").found.endswith("which does not exist")
    raw = cases.visium(tmp_path / "c", matrix="raw_h5") / "raw_feature_bc_matrix.h5"
    assert [note.code for note in discover("visium", raw, positions=tmp_path / "c").notes.items] == ["raw_matrix"]


def test_visium_prefixed_names_of_two_samples_in_one_folder(tmp_path):
    for name, seed in (("GSM1_A_", 1), ("GSM2_B_", 2)):
        cases.write_h5(tmp_path / f"{name}filtered_feature_bc_matrix.h5", cases.counts(seed=seed), cases.barcodes())
        cases.text(
            tmp_path / f"{name}tissue_positions_list.csv.gz", cases.positions().to_csv(index=False, header=False)
        )
        cases.scalefactors(tmp_path).rename(tmp_path / f"{name}scalefactors_json.json")
        cases.picture(tmp_path / f"{name}tissue_hires_image.png")
    message = failing(platform="visium", path=tmp_path)
    assert "2 samples" in message
    assert str(tmp_path / "GSM1_A_") in message
    section = read(SampleInput("s1", "visium", f"{tmp_path}/GSM2_B_"))
    assert (section.counts != cases.counts(seed=2)).nnz == 0
    assert section.image.name == "GSM2_B_tissue_hires_image.png"


def geo(root, samples=("GSM1_S0_", "GSM2_S1_"), inner="spatial"):
    """Write Visium samples as GEO holds them: prefixed matrices, and prefixed files together in spatial/."""
    for i, name in enumerate(samples):
        cases.write_h5(root / f"{name}filtered_feature_bc_matrix.h5", cases.counts(seed=i), cases.barcodes())
        moved = cases.positions()
        moved["pxl_col_in_fullres"] += 10 * i
        cases.text(root / inner / f"{name}tissue_positions_list.csv", moved.to_csv(index=False, header=False))
        factors = cases.scalefactors(root / inner, tissue_hires_scalef=0.25 + 0.05 * i)
        factors.rename(root / inner / f"{name}scalefactors_json.json")
        cases.picture(root / inner / f"{name}tissue_hires_image.png", seed=i, width=300, height=300)
    return root


def test_visium_prefix_goes_into_the_spatial_folder(tmp_path):
    geo(tmp_path)
    for i, name in enumerate(("GSM1_S0_", "GSM2_S1_")):
        section = read(SampleInput("s1", "visium", f"{tmp_path}/{name}"))
        assert (section.counts != cases.counts(seed=i)).nnz == 0
        assert section.image_scale == 0.25 + 0.05 * i
        assert section.image.name == f"{name}tissue_hires_image.png"
        assert section.xy_px[0, 0] == 90 + 10 * i


def test_visium_prefix_of_the_one_matrix_narrows_the_spatial_folder(tmp_path):
    (geo(tmp_path) / "GSM1_S0_filtered_feature_bc_matrix.h5").unlink()
    section = read(SampleInput("s1", "visium", tmp_path))
    assert (section.image_scale, section.xy_px[0, 0]) == (0.3, 100)


@pytest.mark.parametrize("name", ["scalefactors_json.json", "tissue_hires_image.png", "tissue_positions_list.csv"])
def test_visium_files_of_two_samples_are_never_mixed(tmp_path, name):
    geo(tmp_path, ["GSM2_S1_"])
    (tmp_path / "spatial" / f"GSM2_S1_{name}").rename(tmp_path / "spatial" / f"GSM1_S0_{name}")
    found = discover("visium", tmp_path)  # by the prefix of its matrix
    assert not any(path.name.startswith("GSM1") for path in found.files)
    (tmp_path / "GSM2_S1_filtered_feature_bc_matrix.h5").rename(tmp_path / "filtered_feature_bc_matrix.h5")
    assert "files of 2 samples" in failing(platform="visium", path=tmp_path)


def test_visium_one_spatial_folder_for_two_samples_is_a_warning(tmp_path):
    cases.visium(geo(tmp_path, inner="other"), "none")
    assert "unproven_positions" in codes(read(SampleInput("s1", "visium", f"{tmp_path}/GSM1_S0_")))


def test_visium_spatial_as_a_part_of_the_name(tmp_path):
    """GEO flattens folders: GSM1_spatial_scalefactors_json.json beside GSM1_filtered_feature_bc_matrix.h5."""
    geo(tmp_path, ["GSM1_"])
    for path in list((tmp_path / "spatial").iterdir()):
        path.rename(tmp_path / path.name.replace("GSM1_", "GSM1_spatial_"))
    (tmp_path / "spatial").rmdir()
    assert read(SampleInput("s1", "visium", tmp_path)).image_scale == 0.25


def test_trio_lists_of_another_sample_are_not_taken(tmp_path):
    for name in ("A_", "B_"):
        cases.write_trio(tmp_path, cases.counts(), cases.barcodes(), prefix=name)
    assert "2 samples" in failing(platform="scrna", path=tmp_path)
    found = discover("scrna", f"{tmp_path}/B_")
    assert {path.name[:2] for path in found.roles.values()} == {"B_"}
    (tmp_path / "A_barcodes.tsv.gz").unlink()
    (tmp_path / "B_matrix.mtx.gz").unlink()
    assert "no count matrix" in failing(platform="scrna", path=tmp_path)


def halves(root, name="filtered_feature_bc_matrix.h5", cells=slice(0, 18), tissue=slice(9, 27)):
    """Write a matrix of some spots beside positions that call others tissue."""
    frame = cases.positions()
    frame["in_tissue"] = 0
    frame.iloc[tissue, 1] = 1
    cases.visium(root, "none", images=(), frame=frame)
    cases.write_h5(root / name, cases.counts()[cells], cases.barcodes()[cells])
    return root


def test_visium_positions_of_another_section_are_a_fault(tmp_path):
    message = failing(platform="visium", path=halves(tmp_path / "a"))
    assert "filtered_feature_bc_matrix.h5 and" in message
    assert "tissue_positions.csv: found 9 of 18 barcodes" in message
    assert "9 of 18 spots under tissue without a barcode" in message
    section = read(SampleInput("s", "visium", tmp_path / "a", options={"keep_off_tissue": True}))
    assert section.counts.shape[0] == 18
    raw = read(SampleInput("s", "visium", halves(tmp_path / "raw_", "raw_feature_bc_matrix.h5")))
    assert raw.counts.shape[0] == 9


def test_visium_matrix_with_fewer_spots_than_tissue_is_a_warning(tmp_path):
    section = read(SampleInput("s", "visium", halves(tmp_path, cells=slice(9, 20))))
    assert "tissue_without_counts" in codes(section)
    whole = read(SampleInput("s", "visium", halves(tmp_path, cells=slice(9, 27))))
    assert codes(whole) == set()


def test_visium_positions_columns_are_found_by_name(tmp_path):
    whole = read(SampleInput("s", "visium", cases.visium(tmp_path / "a")))
    frame = cases.positions().iloc[:, [5, 3, 1, 4, 2, 0]]
    frame["in_tissue"] = "TRUE"
    names = {"pxl_row_in_fullres": "imagerow", "pxl_col_in_fullres": "imagecol", "in_tissue": "tissue"}
    other = cases.visium(tmp_path / "b", table="none")
    lines = frame.rename(columns=names).to_csv(index=False, quoting=1, sep=";").encode("utf-8-sig")
    (other / "spatial" / "tissue_positions.csv").write_bytes(lines)
    np.testing.assert_array_equal(read(SampleInput("s", "visium", other)).xy_px, whole.xy_px)


def test_visium_in_tissue_in_words(tmp_path):
    frame = cases.positions().astype({"in_tissue": object})
    frame["in_tissue"] = ["True"] * 35 + ["False"]
    section = read(SampleInput("s", "visium", cases.visium(tmp_path / "a", frame=frame)))
    assert section.dropped["off_tissue"] == 1
    frame.iloc[3, 1] = "maybe"
    message = failing(platform="visium", path=cases.visium(tmp_path / "b", frame=frame))
    assert "tissue_positions.csv, line 5, column in_tissue: found 'maybe'" in message


def test_visium_one_prefixed_sample_and_prefixed_trio(tmp_path):
    cases.write_trio(tmp_path, cases.counts(), cases.barcodes(), prefix="GSM9_")
    cases.text(tmp_path / "GSM9_tissue_positions.csv", cases.positions().to_csv(index=False))
    section = read(SampleInput("s1", "visium", tmp_path))
    assert section.counts.shape == (36, 8)
    assert section.image is None


def test_visium_barcode_suffix_is_repaired(tmp_path):
    frame = cases.positions()
    frame["barcode"] = frame["barcode"].str.removesuffix("-1")
    section = read(SampleInput("s1", "visium", cases.visium(tmp_path, frame=frame)))
    assert "barcode_suffix" in codes(section)
    assert section.obs.index[0].endswith("-1")
    np.testing.assert_allclose(section.xy_px[:, 0], frame["pxl_col_in_fullres"])


def test_visium_positions_that_lack_spots_of_the_matrix_are_a_fault(tmp_path):
    """The two are written by one run: places were dropped with a warning before."""
    with pytest.raises(InputError, match="6 of 36 barcodes of the matrix without a row"):
        read(SampleInput("s1", "visium", cases.visium(tmp_path, frame=cases.positions().iloc[:30])))


@pytest.mark.parametrize("platform", ["visium", "visium_hd", "st"])
@pytest.mark.parametrize("there", [1e9, -1e6, 700.0])
def test_a_place_off_the_array_is_a_fault(platform, there, tmp_path):
    if platform == "st":
        path, _, frame = cases.st(tmp_path, image=False)
        frame.loc[3, "pixel_y"] = there
        cases.text(tmp_path / "A1_selection.tsv", frame.to_csv(sep="\t", index=False))
    else:
        path = cases.visium_hd(tmp_path) if platform == "visium_hd" else cases.visium(tmp_path, images=())
        frame = cases.positions()
        table = next(tmp_path.rglob("*008um/**/*.parquet"), tmp_path / "spatial" / "tissue_positions.csv")
        frame = pd.read_parquet(table) if platform == "visium_hd" else frame
        frame.loc[3, "pxl_row_in_fullres"] = there
        frame.to_parquet(table) if platform == "visium_hd" else cases.text(table, frame.to_csv(index=False))
    with pytest.raises(InputError, match=r"pixels off the array \(1 of"):
        read(SampleInput("s1", platform, path, image="none"))


def test_places_that_a_person_moved_a_little_are_no_fault(tmp_path):
    frame = cases.positions()
    moved = np.random.default_rng(0).uniform(-20, 20, (len(frame), 2))
    frame[["pxl_row_in_fullres", "pxl_col_in_fullres"]] += moved
    assert read(SampleInput("s1", "visium", cases.visium(tmp_path, frame=frame))).counts.shape[0] == 36


def test_scale_factors_of_another_magnification_are_a_fault(tmp_path):
    with pytest.raises(InputError, match="spot_diameter_fullres 130; expected about 55"):
        read(SampleInput("s1", "visium", cases.visium(tmp_path / "a", factors={"spot_diameter_fullres": 130})))
    path = cases.visium_hd(tmp_path / "b")
    cases.scalefactors(next(path.rglob("*008um/spatial")), microns_per_pixel=0.25)
    with pytest.raises(InputError, match=r"microns_per_pixel 0\.25; expected about 0\.5"):
        read(SampleInput("s1", "visium_hd", path))


def test_xenium_cells_of_another_sample_are_a_fault(tmp_path):
    frame = cases.xenium(tmp_path)
    frame["transcript_counts"] = cases.counts(20).toarray().sum(axis=1)
    cases.text(tmp_path / "cells.csv.gz", frame.to_csv(index=False))
    assert read(SampleInput("s1", "xenium", tmp_path)).counts.shape == (20, 8)
    frame["transcript_counts"] = frame["transcript_counts"].to_numpy()[::-1]
    cases.text(tmp_path / "cells.csv.gz", frame.to_csv(index=False))
    with pytest.raises(InputError, match="another number of transcripts"):
        read(SampleInput("s1", "xenium", tmp_path))


def test_visium_positions_in_another_order_are_matched_by_barcode(tmp_path):
    frame = cases.positions().sample(frac=1, random_state=0)
    section = read(SampleInput("s1", "visium", cases.visium(tmp_path, frame=frame)))
    expected = frame.set_index("barcode").loc[cases.barcodes(), "pxl_row_in_fullres"]
    np.testing.assert_allclose(section.xy_px[:, 1], expected)


def test_empty_spots_are_dropped_with_a_warning(tmp_path):
    values = cases.counts().toarray()
    values[3] = 0
    section = read(SampleInput("s1", "visium", cases.visium(tmp_path, values=sparse.csr_matrix(values))))
    assert section.dropped == {"empty": 1}
    assert cases.barcodes()[3] not in section.obs.index


def test_antibody_features_are_summed_into_obs(tmp_path):
    cases.visium(tmp_path, "none")
    types = [*cases.TYPES[:6], "Antibody Capture", "Antibody Capture"]
    cases.write_h5(tmp_path / "filtered_feature_bc_matrix.h5", cases.counts(), cases.barcodes(), types=types)
    section = read(SampleInput("s1", "visium", tmp_path))
    assert list(section.var.index) == cases.GENES[:6]
    expected = cases.counts().toarray()[:, 6:].sum(axis=1)
    np.testing.assert_array_equal(section.obs["antibody_capture_counts"], expected)


# --------------------------------------------------------------------------------------------------- Visium HD


@pytest.mark.parametrize("level", ["", "binned_outputs", "binned_outputs/square_008um"])
def test_visium_hd_from_any_level(tmp_path, level):
    cases.visium_hd(tmp_path)
    section = read(SampleInput("s1", "visium_hd", tmp_path / level))
    assert (section.counts != cases.counts(seed=8)).nnz == 0
    assert section.mpp == 0.5
    assert section.spot_diameter_um == 8
    assert (section.image is None) == (level == "binned_outputs/square_008um" or level == "binned_outputs")


def test_visium_hd_scale_factors_of_another_bin_size_are_a_fault(tmp_path):
    root = cases.visium_hd(tmp_path / "a")
    other = root / "binned_outputs" / "square_016um" / "spatial" / "scalefactors_json.json"
    (root / "binned_outputs" / "square_008um" / "spatial" / other.name).write_bytes(other.read_bytes())
    with pytest.raises(InputError, match=r"found bin_size_um 16; expected 8, as the bins beside it"):
        read(SampleInput("s", "visium_hd", root))


def test_visium_hd_bin_sizes(tmp_path):
    cases.visium_hd(tmp_path, bins=(2, 16))
    section = read(SampleInput("s1", "visium_hd", tmp_path, options={"bin_um": 16}))
    assert section.obs.index[0].startswith("s_016um")
    message = failing(platform="visium_hd", path=tmp_path)
    assert "no square_008um" in message
    assert "Bin sizes present: 2, 16" in message


# ------------------------------------------------------------------------------------------------------ Xenium


@pytest.mark.parametrize(("cells", "matrix"), [("csv.gz", "h5"), ("csv", "h5"), ("parquet", "h5"), ("csv.gz", "trio")])
def test_xenium_layouts(tmp_path, cells, matrix):
    frame = cases.xenium(tmp_path, cells, matrix)
    section = read(SampleInput("s1", "xenium", tmp_path))
    assert list(section.var.index) == cases.GENES
    np.testing.assert_allclose(section.xy_px, frame[["x_centroid", "y_centroid"]])
    assert section.mpp == 1
    assert section.spot_diameter_um == pytest.approx(10)  # the disc of a cell of 25 pi um2
    control = [c for c in section.obs if c.endswith("_counts")]
    assert section.obs[control].sum(axis=1).eq(2).all()


def test_xenium_with_an_image_needs_its_pixel_size(tmp_path):
    frame = cases.xenium(tmp_path)
    aligned = {"image": cases.picture(tmp_path / "he.png", 1300, 900), "alignment": "none"}
    assert "micrometres per pixel of the image" in failing(platform="xenium", path=tmp_path, **aligned)
    section = read(SampleInput("s1", "xenium", tmp_path, mpp=0.25, **aligned))
    np.testing.assert_allclose(section.xy_px, frame[["x_centroid", "y_centroid"]] / 0.25)
    assert section.mpp == 0.25


# --------------------------------------------------------------------------------------------------- legacy ST


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("table", ["selection", "alignment", "coordinates"])
def test_st_layouts(tmp_path, transpose, table):
    path, values, frame = cases.st(tmp_path, transpose=transpose, table=table, off=3)
    section = read(SampleInput("s1", "st", path))
    assert section.dropped == {"off_tissue": 3}
    assert list(section.obs.index) == list(values.index[3:])
    np.testing.assert_array_equal(section.counts.toarray(), values.to_numpy()[3:])
    np.testing.assert_allclose(section.xy_px, frame[["pixel_x", "pixel_y"]].iloc[3:])
    assert section.mpp == pytest.approx(4.0)  # 200 um are 50 px
    assert section.image.name == "A1.jpg"


def test_st_checkerboard_arrays_have_half_the_pitch(tmp_path):
    path, _, _ = cases.st(tmp_path, checkerboard=True)
    assert read(SampleInput("s1", "st", path)).mpp == pytest.approx(4.0)


def test_st_stretched_pixels_are_said(tmp_path):
    path, _, frame = cases.st(tmp_path, image=False)
    frame["pixel_x"] *= 0.9
    cases.text(tmp_path / "A1_selection.tsv", frame.to_csv(sep="\t", index=False))
    section = read(SampleInput("s1", "st", path))
    assert "stretched" in codes(section)
    assert section.mpp == pytest.approx(4 / 0.9**0.5)


def test_st_positions_column_and_several_sections_in_one_folder(tmp_path):
    path, _, _ = cases.st(tmp_path, "A1")
    cases.st(tmp_path, "B2", table=None, image=False)
    other, _, _ = cases.st(tmp_path / "x", "C3", table="spots_of_C3", image=False)
    assert discover("st", path).roles["positions"].name == "A1_selection.tsv"
    assert discover("st", tmp_path / "B2.tsv.gz").image is None
    given = tmp_path / "x" / "C3_spots_of_C3.tsv"
    assert read(SampleInput("s1", "st", other, positions=given)).mpp == pytest.approx(4.0)


def test_st_without_table_uses_the_names(tmp_path):
    path, _, frame = cases.st(tmp_path, table=None, image=False)
    section = read(SampleInput("s1", "st", path))
    assert "no_positions" in codes(section)
    np.testing.assert_array_equal(section.xy_px, frame[["x", "y"]])
    assert section.mpp == pytest.approx(200.0)


def test_st_scale_factor_applies_to_the_hires_image_only(tmp_path):
    path, _, _ = cases.st(tmp_path, image=False)
    cases.text(tmp_path / "scalefactors_json.json", '{"tissue_hires_scalef": 0.5}')
    cases.picture(tmp_path / "image_hires.png", 300, 300)
    section = read(SampleInput("s1", "st", path))
    assert section.image_scale == 0.5
    full = cases.picture(tmp_path / "slide" / "full.png", 600, 600)
    assert read(SampleInput("s1", "st", path, image=full)).image_scale == 1.0


# ------------------------------------------------------------------------------------------- h5ad, loom, scRNA


def test_h5ad_takes_the_first_integer_matrix(tmp_path):
    values = cases.counts()
    logged = values.astype(np.float32).log1p()
    in_layer = cases.h5ad(tmp_path / "layer.h5ad", logged, layers={"counts": values.astype(np.float32)})
    section = read(SampleInput("s1", "h5ad", in_layer, mpp=1, labels="cell_type"))
    assert (section.counts != values).nnz == 0
    assert "counts_from" in codes(section)
    assert list(section.obs["label"].iloc[:2]) == ["a", "b"]
    in_raw = cases.h5ad(tmp_path / "raw.h5ad", logged, raw=values.astype(np.float32))
    assert (read(SampleInput("s1", "h5ad", in_raw)).counts != values).nnz == 0


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_h5ad_matrix_kinds(tmp_path, kind):
    values = cases.counts()
    stored = {"csr": values, "csc": values.tocsc(), "dense": values.toarray().astype(np.float32)}[kind]
    section = read(SampleInput("s1", "h5ad", cases.h5ad(tmp_path / "a.h5ad", stored)))
    np.testing.assert_array_equal(section.counts.toarray(), values.toarray())


@pytest.mark.parametrize(("mpp", "told"), [(0.5, False), (500.0, True), (0.0005, True)])
def test_h5ad_mpp_in_another_unit_is_told(tmp_path, mpp, told):
    section = read(SampleInput("s1", "h5ad", cases.h5ad(tmp_path / "a.h5ad"), mpp=mpp))
    assert ("mpp" in codes(section)) == told


def test_a_loom_file_called_h5ad(tmp_path):
    cases.loom(tmp_path / "a.h5ad")
    assert "It is a loom file: rename it to a.loom" in failing(platform="h5ad", path=tmp_path / "a.h5ad")


def test_h5ad_coordinates_from_obs_and_subset(tmp_path):
    obs = pd.DataFrame({"x": np.arange(36.0), "y": 2.0, "section": ["a"] * 18 + ["b"] * 18}, index=cases.barcodes())
    path = cases.h5ad(tmp_path / "a.h5ad", spatial=False, obs=obs)
    section = read(SampleInput("s1", "h5ad", path, subset="section=b", options={"obs_columns": ["section"]}))
    assert section.dropped == {"subset": 18}
    np.testing.assert_array_equal(section.xy_px[:, 0], np.arange(18, 36))
    assert set(section.obs["section"]) == {"b"}
    message = failing(platform="h5ad", path=path, subset="section=c")
    assert "section=c, which no spot has" in message
    assert "one of: a, b" in message
    assert "Did you mean 'section'?" in failing(platform="h5ad", path=path, subset="sectoin=a")


def test_h5ad_ensembl_index_with_symbol_column(tmp_path):
    var = pd.DataFrame({"gene_symbols": [*cases.GENES[:7], "ACTB"]}, index=[f"{i}.2" for i in cases.IDS])
    section = read(SampleInput("s1", "h5ad", cases.h5ad(tmp_path / "a.h5ad", var=var)))
    assert list(section.var.index) == [*cases.GENES[:7], "ACTB-1"]
    assert list(section.var["gene_id"]) == cases.IDS
    assert {"gene_versions", "gene_duplicates"} <= codes(section)


def test_h5ad_keeps_velocity_layers(tmp_path):
    values = cases.counts()
    path = cases.h5ad(tmp_path / "a.h5ad", layers={"unspliced": values * 2, "other": values})
    section = read(SampleInput("s1", "h5ad", path))
    assert list(section.layers) == ["unspliced"]
    write_counts(section, tmp_path / "counts.h5ad")
    import anndata as ad

    back = ad.read_h5ad(tmp_path / "counts.h5ad")
    np.testing.assert_array_equal(back.layers["unspliced"].toarray(), 2 * values.toarray())


def test_non_integer_counts_policies(tmp_path):
    values = cases.counts().astype(np.float32)
    values.data[0] = 1.4
    path = cases.h5ad(tmp_path / "a.h5ad", values)
    message = failing(platform="h5ad", path=path)
    assert "1.4 for gene" in message
    assert "ingest.counts: round" in message
    rounded = read(SampleInput("s1", "h5ad", path, options={"counts": "round"}))
    assert rounded.counts.dtype == np.int32
    assert rounded.counts.toarray().sum() == np.rint(values.data).sum()
    kept = read(SampleInput("s1", "h5ad", path, options={"counts": "as_is"}))
    assert kept.counts.dtype == np.float32
    assert kept.counts.data[0] == np.float32(1.4)
    assert {"counts_as_is"} <= codes(kept)


def test_loom(tmp_path):
    values = cases.loom(tmp_path / "a.loom")
    section = read(SampleInput("s1", "h5ad", tmp_path / "a.loom", labels="Region", subset="Region!=Excluded", mpp=0.5))
    np.testing.assert_array_equal(section.counts.toarray(), values[:7])
    np.testing.assert_array_equal(section.xy_px[:, 0], np.arange(7) * 3.0)
    assert list(section.obs["label"].cat.categories) == ["in"]


def test_scrna_forms_agree(tmp_path):
    values, cells = cases.counts(), cases.barcodes()
    cases.write_h5(tmp_path / "a.h5", values, cells)
    cases.write_trio(tmp_path / "trio", values, cells)
    cases.h5ad(tmp_path / "a.h5ad", spatial=False)
    table = pd.DataFrame(values.toarray().T, index=cases.GENES, columns=cells)
    cases.text(tmp_path / "a.csv.gz", table.to_csv())
    cases.text(tmp_path / "r.csv", table.to_csv().removeprefix(","))  # as R writes it: no name above the row names
    for name in ("a.h5", "trio", "a.h5ad", "a.csv.gz", "r.csv"):
        section = read(SampleInput("s1", "scrna", tmp_path / name))
        np.testing.assert_array_equal(section.counts.toarray(), values.toarray(), err_msg=name)
        assert list(section.obs.index) == cells, name
        assert list(section.var.index) == cases.GENES, name
        assert section.xy_px is None


def test_scrna_table_with_genes_in_columns(tmp_path):
    values, cells = cases.counts(), cases.barcodes()
    cases.text(tmp_path / "a.csv", pd.DataFrame(values.toarray(), index=cells, columns=cases.IDS).to_csv())
    section = read(SampleInput("s1", "scrna", tmp_path / "a.csv"))
    np.testing.assert_array_equal(section.counts.toarray(), values.toarray())


# ------------------------------------------------------------------------------------------------------ labels


def test_labels_by_barcode_with_missing_rows(tmp_path):
    cases.visium(tmp_path / "v")
    rows = pd.DataFrame({"barcode": cases.barcodes()[:30], "layer": ["L1"] * 20 + ["NA"] * 10})
    cases.text(tmp_path / "labels.tsv.gz", rows.to_csv(sep="\t", index=False))
    section = read(SampleInput("s1", "visium", tmp_path / "v", labels=tmp_path / "labels.tsv.gz"))
    assert section.obs["label"].isna().sum() == 16
    assert section.obs["label"].value_counts().to_dict() == {"L1": 20}
    assert "labels_partial" in codes(section)
    none = cases.text(tmp_path / "none.csv", rows.assign(layer="NA").to_csv(index=False))
    assert "labels_empty" in codes(read(SampleInput("s1", "visium", tmp_path / "v", labels=none)))


def test_labels_without_suffix_and_named_column(tmp_path):
    cases.visium(tmp_path / "v")
    names = [b.removesuffix("-1") for b in cases.barcodes()]
    rows = pd.DataFrame({"Barcode": names, "region": ["r"] * 36, "cluster": ["c"] * 36})
    path = cases.text(tmp_path / "labels.csv", rows.to_csv(index=False))
    section = read(SampleInput("s1", "visium", tmp_path / "v", labels=path, labels_column="cluster"))
    assert set(section.obs["label"]) == {"c"}
    message = failing(platform="visium", path=tmp_path / "v", labels=path)
    assert "one of: region, cluster" in message
    assert "Did you mean 'region'?" in failing(
        platform="visium", path=tmp_path / "v", labels=path, labels_column="regoin"
    )


def test_labels_by_rounded_array_position(tmp_path):
    path, values, frame = cases.st(tmp_path / "st", image=False)
    rows = pd.DataFrame(
        {
            "Row.names": [f"{i}x{i}" for i in range(1000, 1000 + len(frame))],
            "x": frame["x"] + 0.02,
            "y": frame["y"] - 0.02,
            "label": [f"l{x}" for x in frame["x"]],
        }
    ).sample(frac=1, random_state=1)
    table = cases.text(tmp_path / "labels.tsv", rows.to_csv(sep="\t", index=False))
    section = read(SampleInput("s1", "st", path, labels=table))
    assert list(section.obs["label"]) == [f"l{name.split('x')[0]}" for name in values.index]


def numbered(tmp_path, frame, index=True, n=20, ids=None, **how):
    """Label n cells called 1, 2, ... (or `ids`) by a table; return the labels, or the message."""
    ids = [str(i) for i in range(1, n + 1)] if ids is None else ids
    obs = pd.DataFrame({"donor": "d"}, index=ids)
    path = cases.h5ad(tmp_path / "a.h5ad", cases.counts(n), obs=obs)
    frame.to_csv(tmp_path / "labels.csv", index=index, **how)
    try:
        sheet = SampleInput("s", "h5ad", path, mpp=1, labels=tmp_path / "labels.csv", labels_column="label")
        section = read(sheet)
    except InputError as error:
        return str(error)
    return dict(section.obs["label"].astype(object)), section


RIGHT = {str(i): f"type {i}" for i in range(1, 21)}
TYPED = pd.DataFrame({"label": RIGHT.values()})


def test_labels_named_key_goes_before_an_unnamed_running_number(tmp_path):
    found, section = numbered(tmp_path, TYPED.assign(cell_id=list(RIGHT)))
    assert found == RIGHT
    assert section.read_as["labels key"] == "column 'cell_id' of labels.csv"


def test_labels_are_not_matched_by_row_numbers_that_are_one_off(tmp_path):
    assert "'Unnamed: 0' only numbers the rows" in numbered(tmp_path, TYPED)
    groups = pd.DataFrame({"label": RIGHT.values(), "cluster": [1, 2, 3, 4] * 5, "total_counts": range(10, 30)})
    assert "'Unnamed: 0' only numbers the rows" in numbered(tmp_path, groups)


def test_labels_by_a_default_index_that_the_counts_have_too(tmp_path):
    found, _ = numbered(tmp_path, TYPED, ids=[str(i) for i in range(20)])
    assert found == {str(i): f"type {i + 1}" for i in range(20)}


def test_labels_refuse_two_keys_that_differ(tmp_path):
    frame = TYPED.assign(cell=list(RIGHT), cell_id=list(RIGHT)[::-1])
    assert "name different rows: 'cell' and 'cell_id'" in numbered(tmp_path, frame)
    found, _ = numbered(tmp_path, TYPED.assign(cell=list(RIGHT), cell_id=list(RIGHT)))
    assert found == RIGHT


@pytest.mark.parametrize("write", ["{}.0", "000{}"])
def test_labels_match_numbers_written_otherwise(tmp_path, write):
    found, section = numbered(tmp_path, TYPED.assign(cell_id=[write.format(i) for i in RIGHT]), index=False)
    assert found == RIGHT
    assert "as numbers" in section.read_as["labels key"]


@pytest.mark.parametrize("write", ["S1_{}-1", "{}-1_1", "{}-1-S1", "{}", "sample#{}-1", "{}.1"])
def test_labels_match_barcodes_with_one_prefix_or_suffix(tmp_path, write):
    cells = cases.barcodes(20)
    other = [write.format(cell.removesuffix("-1")) for cell in cells]
    found, section = numbered(tmp_path, TYPED.assign(barcode=other), index=False, ids=cells)
    assert list(found.values()) == list(RIGHT.values())
    assert "before and behind" in section.read_as["labels key"]


def test_labels_of_several_samples_are_not_mixed(tmp_path):
    cells = cases.barcodes(20)
    both = TYPED.assign(barcode=[f"S{i % 2}_{cell}" for i, cell in enumerate(cells)])
    assert "no column shares a value" in numbered(tmp_path, both, index=False, ids=cells)
    twice = pd.concat([TYPED.assign(barcode=cells), TYPED[::-1].assign(barcode=cells)])
    assert "20 barcodes with more than one label" in numbered(tmp_path, twice, index=False, ids=cells)


def test_labels_that_meet_few_are_of_another_sample(tmp_path):
    cells = cases.barcodes(20)
    frame = TYPED.assign(barcode=[cells[0], *(f"other{i}" for i in range(19))])
    assert "only 1 of 20 barcodes" in numbered(tmp_path, frame, index=False, ids=cells)
    found, _ = numbered(tmp_path, TYPED.assign(barcode=cells)[:2], index=False, ids=cells)  # two cells were labelled
    assert [found[c] for c in cells[:2]] == ["type 1", "type 2"]


def test_labels_written_by_r_with_row_names_and_a_short_header(tmp_path):
    cells = cases.barcodes(20)
    cases.h5ad(tmp_path / "a.h5ad", cases.counts(20), obs=pd.DataFrame({"donor": "d"}, index=cells))
    rows = "".join(f'"{c}"\t"type {i}"\n' for i, c in enumerate(cells, 1))
    cases.text(tmp_path / "l.tsv", '"label"\n' + rows)
    section = read(SampleInput("s", "h5ad", tmp_path / "a.h5ad", mpp=1, labels=tmp_path / "l.tsv"))
    assert list(section.obs["label"]) == list(RIGHT.values())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("form", ["plain", "short header", "quoted numbers", "semicolons", "trailing separator", "R"])
def test_tables_of_counts_in_every_form(tmp_path, turned, form):
    frame = pd.DataFrame(cases.counts(12).toarray(), index=cases.barcodes(12), columns=cases.GENES)
    table = frame if turned else frame.T
    how = {"quoted numbers": {"quoting": 1}, "semicolons": {"sep": ";"}, "R": {"sep": " ", "quoting": 2}}
    lines = table.to_csv(**{"sep": ",", **how.get(form, {})})
    if form in ("short header", "R"):
        lines = lines.removeprefix('""' if form == "R" else "")[1:]
    if form == "trailing separator":
        lines = lines.replace("\n", ",\n")
    section = read(SampleInput("s", "scrna", cases.text(tmp_path / "a.csv", lines)))
    np.testing.assert_array_equal(section.counts.toarray(), frame.to_numpy())
    assert list(section.obs.index) == cases.barcodes(12)
    assert ("transposed" in codes(section)) == turned


def test_tables_with_repeated_names_and_uneven_lines(tmp_path):
    lines = "gene,c1,c1,c2\nACTB,1,2,3\nGAPDH,1,2,3\n"
    assert "1 barcodes more than once (c1)" in failing(platform="scrna", path=cases.text(tmp_path / "a.csv", lines))
    uneven = cases.text(tmp_path / "b.csv", lines.replace(",c1,c1", ",c0,c1").replace("ACTB,1,2,3", "ACTB,1,2,3,4") * 2)
    message = failing(platform="scrna", path=uneven)
    assert "b.csv" in message
    assert "Error tokenizing" not in message
    thousands = cases.text(tmp_path / "c.tsv", "gene\tc1\tc2\nACTB\t1,000\t2\n")
    assert "without thousands separators" in failing(platform="scrna", path=thousands)
    cells = cases.xenium(tmp_path / "x", cells="")
    doubled = cells.assign(other=1.0).rename(columns={"other": "x_centroid"})
    cases.text(tmp_path / "x" / "cells.csv", doubled.to_csv(index=False))
    assert "column x_centroid: found this name twice" in failing(platform="xenium", path=tmp_path / "x")


def test_st_selected_in_words(tmp_path):
    path, _, frame = cases.st(tmp_path, image=False)
    frame["selected"] = ["no", *["yes"] * (len(frame) - 1)]
    cases.text(tmp_path / "A1_selection.tsv", frame.to_csv(sep="\t", index=False))
    assert read(SampleInput("s", "st", path)).dropped == {"off_tissue": 1}


# ---------------------------------------------------------------------------------------- discovery and writing


def test_discovery_imports_nothing_heavy(repo):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from histoweft.ingest import readers;"
        "readers.discover('visium', '/nowhere'); readers.discover('st', '/nowhere');"
        "print([m for m in ('numpy', 'pandas', 'scipy', 'h5py', 'anndata', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(repo / "workflow" / "lib")], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_discovery_is_quick(tmp_path):
    cases.visium(tmp_path)
    discover("visium", tmp_path)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        discover("visium", tmp_path)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.003


def test_discovery_lists_every_file_that_is_read(tmp_path):
    cases.visium(tmp_path / "v")
    labels = cases.text(tmp_path / "l.tsv", "barcode\tlabel\n")
    found = discover("visium", tmp_path / "v", labels=labels)
    names = [p.name for p in found.files]
    assert names == [
        "filtered_feature_bc_matrix.h5",
        "tissue_positions.csv",
        "scalefactors_json.json",
        "l.tsv",
        "tissue_hires_image.png",
    ]


def test_unknown_platform_names_the_nearest():
    found = discover("visum", "/nowhere", where="samples.tsv, line 3")
    (fault,) = found.faults.items
    assert fault.where == "samples.tsv, line 3, column platform"
    assert fault.hint == "Did you mean 'visium'?"
    assert all(name in fault.expected for name in PLATFORMS)


def test_written_counts_follow_the_contract(tmp_path):
    import anndata as ad

    cases.visium(tmp_path / "v", off=2)
    rows = pd.DataFrame({"barcode": cases.barcodes()[:30], "layer": "L1"})
    labels = cases.text(tmp_path / "l.csv", rows.to_csv(index=False))
    sheet = SampleInput("s1", "visium", tmp_path / "v", patient="p", batch="b", condition="c", labels=labels, mpp=1.02)
    section = read(sheet)
    out = tmp_path / "out" / "counts.h5ad"
    write_counts(section, out, {"age": "71", "ER/PR": "positive"})
    data = ad.read_h5ad(out)
    assert dict(data.uns["histoweft"]["clinical"]) == {"age": "71", "ER_PR": "positive"}
    assert data.X.format == "csr"
    assert data.X.dtype == np.int32
    assert list(data.obs.columns) == ["array_row", "array_col", "label"]
    assert isinstance(data.obs["label"].dtype, pd.CategoricalDtype)
    assert data.obs["label"].isna().sum() == 4
    assert list(data.var.columns) == ["gene_id", "feature_type"]
    np.testing.assert_array_equal(data.obsm["spatial"], section.xy_px)
    np.testing.assert_allclose(data.obsm["spatial_um"], section.xy_px * 1.02)
    about = data.uns["histoweft"]
    assert (about["sample"], about["patient"], about["batch"], about["condition"]) == ("s1", "p", "b", "c")
    assert (about["mpp"], about["image"], about["platform"]) == (1.02, True, "visium")
    assert about["source_image_scale"] == 0.25
    assert list(about["library_ids"]) == ["lib1"]
    assert any(w.startswith("off_tissue") for w in about["warnings"])
    assert [p.name for p in out.parent.iterdir()] == ["counts.h5ad"]


def test_written_scrna_has_no_coordinates(tmp_path):
    cases.write_h5(tmp_path / "a.h5", cases.counts(), cases.barcodes())
    write_counts(read(SampleInput("s1", "scrna", tmp_path / "a.h5")), tmp_path / "counts.h5ad")
    with h5py.File(tmp_path / "counts.h5ad") as handle:
        assert list(handle["obsm"]) == []
        assert not handle["uns/histoweft/image"][()]
        assert np.isnan(handle["uns/histoweft/mpp"][()])


def test_every_fault_of_a_sample_is_reported_at_once(tmp_path):
    cases.visium(tmp_path, images=())
    cases.text(tmp_path / "spatial" / "tissue_positions.csv", "a,b\n1,2\n")
    (tmp_path / "filtered_feature_bc_matrix.h5").write_bytes(b"not hdf5")
    cases.text(tmp_path / "spatial" / "scalefactors_json.json", "{")
    message = failing(platform="visium", path=tmp_path)
    assert message.startswith("3 faults")


def test_unknown_option_names_the_nearest(tmp_path):
    assert "Did you mean 'bin_um'?" in failing(platform="visium", path=cases.visium(tmp_path), options={"bin_umm": 8})


# --------------------------------------------------------------------------------------------------- real data


def test_real_visium_sections(real_data):
    folder = real_data / "dlpfc_visium_libd" / "151673"
    section = read(SampleInput("151673", "visium", folder, labels=folder / "layer_labels.tsv"))
    assert section.counts.shape == (3639, 5000)
    assert section.obs["label"].notna().sum() == 3611
    assert section.image_kind == "lowres"
    assert section.mpp == pytest.approx(0.7245, abs=1e-3)
    assert section.species == "human"


def test_real_cytassist_section(real_data):
    section = read(SampleInput("fetus", "visium", real_data / "visium_cytassist_mouse_fetus"))
    assert section.counts.shape == (2898, 19465)
    assert section.library_ids == ["Placenta_S3"]
    assert section.counts.sum() == pytest.approx(3.085e6, rel=1e-3)


@pytest.mark.parametrize(("name", "spots"), [("MOB1", 379), ("MOB2", 407), ("MOB3", 438)])
def test_real_st_bulb(real_data, name, spots):
    section = read(SampleInput(name, "st", real_data / "st_mouse_olfactory_bulb" / f"{name}.tsv.gz"))
    assert section.counts.shape == (spots, 1000)
    assert section.image_size == (1905, 1905)
    assert section.var.index[0] == "ENSMUSG00000064339"
    assert section.species == "mouse"


def test_real_her2st(real_data):
    folder = real_data / "her2st"
    a1 = read(SampleInput("A1", "st", folder / "A1/A1.tsv.gz", labels=folder / "A1/A1_labeled_coordinates.tsv"))
    assert a1.counts.shape == (346, 15045)
    assert a1.obs["label"].notna().all()
    assert a1.image_scale == pytest.approx(2000 / 6954)
    b1 = read(SampleInput("B1", "st", folder / "B1/B1.tsv.gz", labels=folder / "B1/B1_labeled_coordinates.tsv"))
    assert (b1.image, b1.counts.shape) == (None, (295, 15109))
    assert b1.obs["label"].nunique() == 5


def test_real_xenium(real_data):
    section = read(SampleInput("x", "xenium", real_data / "xenium_mouse_brain_tiny"))
    assert section.counts.shape == (36553, 248)
    assert section.dropped == {"empty": 49}
    cells = pd.read_csv(real_data / "xenium_mouse_brain_tiny" / "cells.csv.gz", index_col=0)
    cells.index = cells.index.astype(str)
    expected = cells.loc[section.obs.index, "transcript_counts"]
    np.testing.assert_array_equal(np.asarray(section.counts.sum(axis=1)).ravel(), expected)


def test_real_merfish_and_osmfish(real_data):
    path = real_data / "merfish_hypothalamus" / "merfish_hypothalamus.h5ad"
    assert "a count that is not an integer" in failing(platform="h5ad", path=path, subset="bregma=0.26", mpp=1)
    options = {"counts": "as_is"}
    merfish = read(SampleInput("m", "h5ad", path, subset="bregma=0.26", labels="Cell_class", mpp=1, options=options))
    assert merfish.counts.shape == (5584, 156)  # of 161, 5 are blanks
    assert merfish.obs["label"].nunique() == 16
    path = real_data / "osmfish_sscortex" / "osmFISH_SScortex_mouse_all_cells.loom"
    osmfish = read(SampleInput("o", "h5ad", path, subset="Region!=Excluded", labels="Region", mpp=0.065))
    assert osmfish.counts.shape == (4839, 33)
    assert osmfish.obs["label"].nunique() == 11


def test_real_scrna(real_data):
    pbmc = read(SampleInput("p", "scrna", real_data / "pbmc_facs_zheng" / "pbmc_facs.h5ad", labels="celltype_facs"))
    assert pbmc.counts.shape == (3774, 16791)
    assert pbmc.obs["label"].nunique() == 10
    folder = real_data / "sc_mixology" / "original"
    lines = read(
        SampleInput(
            "d",
            "scrna",
            folder / "sc_dropseq.count.csv.gz",
            labels=folder / "sc_dropseq.metadata.csv.gz",
            labels_column="cell_line_demuxlet",
        )
    )
    assert lines.counts.shape == (225, 15127)
    assert lines.obs["label"].value_counts().to_dict() == {"H1975": 86, "HCC827": 70, "H2228": 69}


# --------------------------------------------------------------------------------------- beside the field's readers


def same_as(adata, section):
    """Assert that a section holds the counts, barcodes and gene ids that another reader finds."""
    adata = adata[section.obs.index]
    np.testing.assert_array_equal(section.counts.toarray(), adata.X.toarray())
    assert list(section.var["gene_id"]) == list(adata.var["gene_ids"])


def test_10x_h5_equals_scanpys_reader(real_data):
    scanpy = pytest.importorskip("scanpy")
    folder = real_data / "visium_cytassist_mouse_fetus"
    adata = scanpy.read_10x_h5(folder / "filtered_feature_bc_matrix.h5")
    same_as(adata, read(SampleInput("fetus", "visium", folder)))


@pytest.mark.parametrize("layout", ["h5", "h5v2"])
def test_synthetic_10x_h5_equals_scanpys_reader(tmp_path, layout):
    scanpy = pytest.importorskip("scanpy")
    cases.visium(tmp_path / "v", matrix=layout)
    (path,) = (tmp_path / "v").glob("*.h5")
    same_as(scanpy.read_10x_h5(path), read(SampleInput("s1", "visium", tmp_path / "v")))


def test_the_mtx_trio_equals_scanpys_reader(tmp_path):
    scanpy = pytest.importorskip("scanpy")
    cases.visium(tmp_path / "v", matrix="trio3")
    adata = scanpy.read_10x_mtx(tmp_path / "v" / "filtered_feature_bc_matrix")
    same_as(adata, read(SampleInput("s1", "visium", tmp_path / "v")))


def test_h5ad_equals_anndatas_reader(real_data):
    anndata = pytest.importorskip("anndata")
    path = real_data / "pbmc_facs_zheng" / "pbmc_facs.h5ad"
    adata = anndata.read_h5ad(path)
    section = read(SampleInput("pbmc", "scrna", path, labels="celltype_facs"))
    adata = adata[section.obs.index]
    assert (section.counts != adata.X).nnz == 0
    assert list(section.obs["label"].astype(str)) == list(adata.obs["celltype_facs"].astype(str))


def test_row_names_with_gaps_name_a_part_of_numbered_cells(tmp_path):
    names = [str(i) for i in range(36)]
    path = cases.h5ad(tmp_path / "a.h5ad", obs=pd.DataFrame(index=names))
    kept = [i for i in range(36) if i % 3]
    rows = pd.DataFrame({"layer": [f"l{i}" for i in kept]}, index=kept)
    table = cases.text(tmp_path / "labels.csv", rows.to_csv())
    section = read(SampleInput("s1", "h5ad", path, labels=table, labels_column="layer"))
    assert section.obs["label"].dropna().to_dict() == {str(i): f"l{i}" for i in kept}
