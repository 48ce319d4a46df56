"""Whether an image belongs to its section: alignment of Xenium, size against scale factors, orientation, looks."""

import json

import ingest_cases as cases
import numpy as np
import pytest
import tifffile
from PIL import Image

from histoweft.errors import InputError
from histoweft.ingest import alignment, image_checks
from histoweft.ingest.readers import SampleInput, discover, read, write_counts
from histoweft.ingest.section import Notes
from histoweft.io import CountsFile


def refused(**columns):
    columns = {"platform": "xenium", "sample": "s1"} | columns
    with pytest.raises(InputError) as caught:
        read(SampleInput(where="config/samples.tsv, line 2", **columns))
    return str(caught.value)


def codes(section):
    return [note.code for note in section.warnings]


# ------------------------------------------------------------------------------------------------- Xenium alignment


def aligned(root, name="s_he_image.ome.tif", beside="s_he_imagealignment.csv", mpp=0.425, **matrix):
    """Write a Xenium folder with an H&E of 0.425 um per pixel; return its cells and the matrix."""
    frame = cases.xenium(root)
    picture = np.random.default_rng(0).integers(120, 250, (800, 900, 3), np.uint8)
    facts = {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
    tifffile.imwrite(root / name, picture, photometric="rgb", metadata=facts)
    # cells span 300 x 200 um, 1412 x 941 pixels of the morphology image
    matrix = cases.alignment(root / beside, **({"shift": (1500.0, -100.0)} | matrix))
    return frame, matrix


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("s_he_image.ome.tif", "s_he_imagealignment.csv"),
        ("he.tif", "he_alignment.csv"),
        ("he.tif", "he_imagealignment.csv"),
        ("he.png.tif", "matrix.csv"),
        ("he.tif", "he_matrix.csv"),
    ],
)
def test_the_matrix_beside_an_image_brings_cells_onto_it(tmp_path, name, beside):
    frame, matrix = aligned(tmp_path, name, beside)
    section = read(SampleInput("s1", "xenium", tmp_path, image=tmp_path / name))
    back = np.column_stack([section.xy_px, np.ones(len(frame))]) @ matrix.T
    np.testing.assert_allclose(back[:, :2] * 0.2125, frame[["x_centroid", "y_centroid"]], atol=1e-8)
    assert section.mpp == pytest.approx(0.425)
    assert beside in section.read_as["alignment"]
    distance = np.linalg.norm(section.xy_px[0] - section.xy_px[1]) * section.mpp
    xy_um = frame[["x_centroid", "y_centroid"]].to_numpy()
    assert distance == pytest.approx(np.linalg.norm(xy_um[0] - xy_um[1]))


def test_the_matrix_may_be_named_in_the_sheet_and_the_run_says_its_pixel(tmp_path):
    frame, _ = aligned(tmp_path, mpp=1.0)
    matrix = cases.alignment(tmp_path / "elsewhere" / "a.csv", zoom=2.0, shift=(700.0, -50.0))
    (tmp_path / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.5}))
    image = tmp_path / "s_he_image.ome.tif"
    section = read(SampleInput("s1", "xenium", tmp_path, image=image, alignment=tmp_path / "elsewhere" / "a.csv"))
    back = np.column_stack([section.xy_px, np.ones(len(frame))]) @ matrix.T
    np.testing.assert_allclose(back[:, :2] * 0.5, frame[["x_centroid", "y_centroid"]], atol=1e-8)
    assert section.mpp == pytest.approx(1.0)


def test_an_image_without_matrix_is_refused_unless_the_sheet_vouches_for_it(tmp_path):
    frame = cases.xenium(tmp_path)
    picture = cases.picture(tmp_path / "he.png", 1300, 900)
    message = refused(path=tmp_path, image=picture, mpp=0.25)
    assert "column alignment: found nothing, and no alignment matrix beside he.png" in message
    cases.alignment(tmp_path / "other_he_imagealignment.csv")
    assert "other_he_imagealignment.csv there is named after another" in refused(path=tmp_path, image=picture, mpp=0.25)
    for word in ("none", "identity"):
        section = read(SampleInput("s1", "xenium", tmp_path, image=picture, mpp=0.25, alignment=word))
        np.testing.assert_allclose(section.xy_px, frame[["x_centroid", "y_centroid"]] / 0.25)


def test_the_matrix_of_an_image_whose_name_begins_alike_is_not_taken(tmp_path):
    aligned(tmp_path, "he.tif", "he_2_imagealignment.csv")
    cases.picture(tmp_path / "he_2_image.tif")
    assert "he_2_imagealignment.csv there is named after another image" in refused(
        path=tmp_path, image=tmp_path / "he.tif"
    )
    cases.alignment(tmp_path / "he_alignment.csv")
    cases.alignment(tmp_path / "he_matrix.csv")
    assert "2 alignment matrices beside he.tif" in refused(path=tmp_path, image=tmp_path / "he.tif")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1,0,0\n0,1,0\n", "2 lines of 3/3 values"),
        ("1,0\n0,1\n0,0\n", "3 lines of 2/2/2 values"),
        ("0.2,0,0\n0,0,0\n0,0,1\n", "a matrix without inverse"),
        ("nan,0,0\n0,1,0\n0,0,1\n", "not finite"),
        ("2,0,0\n0,2,0\n0.001,0,1\n", "a last line of 0.001, 0, 1"),
        ("2,0,0\n0,2,0\n0,0,0\n", "a last line of 0, 0, 0"),
        ("4,0,0\n0,2,0\n0,0,1\n", "stretches the image 2 times more along one side"),
        ("fixedX,fixedY,alignmentX,alignmentY\n1,2,3,4\n", "pairs of key points"),
        ("a,b,c\n1,2,3\n", "text that is no number"),
        ("5,0,0\n0,5,0\n0,0,1\n", "a pixel of the image has 1.062 um; expected the 0.425 um"),
        ("0.5,0,0\n0,0.5,0\n0,0,1\n", "It fits the other way round"),
    ],
)
def test_matrices_that_cannot_be_used(tmp_path, content, words):
    aligned(tmp_path)
    cases.text(tmp_path / "s_he_imagealignment.csv", content)
    assert words in refused(path=tmp_path, image=tmp_path / "s_he_image.ome.tif")


def test_a_matrix_scaled_as_a_whole_is_the_same(tmp_path):
    _, matrix = aligned(tmp_path)
    cases.text(tmp_path / "b.csv", "\n".join(";".join(str(2 * v) for v in row) for row in matrix))
    np.testing.assert_allclose(alignment.read(tmp_path / "b.csv"), matrix)


@pytest.mark.parametrize(
    "name", ["morphology.ome.tif", "morphology_mip.ome.tif", "morphology_focus.ome.tif",
             "morphology_focus_0001.ome.tif", "ch0000_dapi.ome.tif"]
)  # fmt: skip
def test_the_run_s_own_images_are_fluorescence(tmp_path, name):
    aligned(tmp_path, name, "matrix.csv")
    assert "the run's own fluorescence image" in refused(path=tmp_path, image=tmp_path / name)


def test_an_image_that_is_no_h_and_e_is_told_before_its_alignment(tmp_path):
    cases.xenium(tmp_path)
    tifffile.imwrite(tmp_path / "if.ome.tif", np.zeros((2, 50, 50), np.uint16), photometric="minisblack",
                     metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}})  # fmt: skip
    message = refused(path=tmp_path, image=tmp_path / "if.ome.tif")
    assert "DAPI, CD3" in message
    assert "alignment" not in message
    (fault,) = plan("xenium", tmp_path, image=tmp_path / "if.ome.tif")
    assert "DAPI, CD3" in fault


def test_other_platforms_take_no_alignment(tmp_path):
    cases.visium(tmp_path)
    assert "column alignment: found a.csv; expected nothing" in refused(
        platform="visium", path=tmp_path, alignment="a.csv"
    )


# ------------------------------------------------------------------------------------------- size against scale


def rescale(root, kind, side):
    cases.picture(root / "spatial" / f"tissue_{kind}_image.png", *((side, side) if isinstance(side, int) else side))


def test_hires_and_lowres_must_be_of_one_picture(tmp_path):
    cases.visium(tmp_path)
    rescale(tmp_path, "lowres", 61)  # rounding to whole pixels
    read(SampleInput("s1", "visium", tmp_path))
    rescale(tmp_path, "lowres", 66)
    message = refused(platform="visium", path=tmp_path)
    assert "tissue_hires_image.png: found an image of a picture of 800 x 800 pixels by its scale factor" in message
    assert "tissue_lowres_image.png is of one of 880 x 880 (1.1 times as wide)" in message


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((400, 400), "slide.png is 2 times smaller than that picture"),
        ((1600, 1600), "slide.png is 2 times larger than that picture"),
        ((820, 820), "slide.png is 1.03 times larger"),
        ((800, 640), "Its sides are in another proportion"),
        ((200, 200), "It has the size of tissue_hires_image.png: write 0.25 in the column image_scale"),
    ],
)
def test_a_full_image_of_another_size_is_told_by_how_much(tmp_path, size, words):
    cases.visium(tmp_path)
    picture = cases.picture(tmp_path / "slide.png", *size)
    assert words in refused(platform="visium", path=tmp_path, image=picture)


def test_a_full_image_of_the_right_size(tmp_path):
    cases.visium(tmp_path)
    for side in (800, 803, 796):
        section = read(SampleInput("s1", "visium", tmp_path, image=cases.picture(tmp_path / "a.png", side, side)))
        assert (section.image_kind, section.image_scale) == ("fullres", 1.0)
    half = cases.picture(tmp_path / "half.png", 400, 400)
    section = read(SampleInput("s1", "visium", tmp_path, image=half, options={"image_scale": 0.5}))
    assert section.image_scale == 0.5


# --------------------------------------------------------------------------------------------------- orientation


def with_tag(path, width, height, tag):
    data = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    tifffile.imwrite(path, data, photometric="rgb", metadata=None, extratags=[(274, 3, 1, tag, True)])
    return path


@pytest.mark.parametrize("tag", [2, 3, 4, 6])
def test_a_tag_that_nothing_speaks_for_or_against_is_applied_with_a_warning(tmp_path, tag):
    cases.visium(tmp_path, images=())
    section = read(SampleInput("s1", "visium", tmp_path, image=with_tag(tmp_path / "a.tif", 800, 800, tag)))
    assert section.image_orientation == tag
    told = next(str(note) for note in section.warnings if note.code == "orientation")
    assert image_checks.TURNED[tag] in told
    assert "nothing in the files tells whether the places were measured on the image turned or not" in told
    write_counts(section, tmp_path / "counts.h5ad")
    with CountsFile(tmp_path / "counts.h5ad") as counts:
        assert counts.uns["histoweft"]["image_orientation"] == tag


@pytest.mark.parametrize(("size", "orientation"), [((800, 520), 1), ((520, 800), 6)])
def test_the_places_tell_whether_a_picture_is_turned(tmp_path, size, orientation):
    """The spots span 690 x 490 pixels: only an image that lies on its long side holds them."""
    cases.visium(tmp_path, images=())
    section = read(SampleInput("s1", "visium", tmp_path, image=with_tag(tmp_path / "a.tif", *size, 6)))
    assert section.image_orientation == orientation
    assert section.image_size == (800, 520)
    assert codes(section) == ["orientation"]


def test_space_ranger_s_images_tell_it_too(tmp_path):
    cases.visium(tmp_path)
    rescale(tmp_path, "hires", (200, 240))
    rescale(tmp_path, "lowres", (60, 72))
    section = read(SampleInput("s1", "visium", tmp_path, image=with_tag(tmp_path / "a.tif", 800, 960, 8)))
    assert (section.image_orientation, section.image_size) == (1, (800, 960))


def test_an_image_without_tag_is_left_alone(tmp_path):
    section = read(SampleInput("s1", "visium", cases.visium(tmp_path)))
    assert section.image_orientation == 1
    assert "orientation" not in codes(section)


# ------------------------------------------------------------------------------------------------- what it shows


def seen(rgb, xy=None):
    notes = Notes()
    image_checks.look(np.asarray(rgb, np.uint8), xy, notes, "he.png")
    return [note.code for note in notes.items]


def tissue(height=200, width=300, where=slice(100, 250)):
    rgb = np.random.default_rng(0).normal(245, 2, (height, width, 3))
    rgb[40:160, where] = np.random.default_rng(1).normal((190, 120, 170), 15, (120, len(range(width)[where]), 3))
    return np.clip(rgb, 0, 255)


def test_what_an_image_shows():
    spots = np.stack(np.meshgrid(np.arange(110, 240, 10), np.arange(50, 150, 10)), -1).reshape(-1, 2)
    assert seen(tissue(), spots) == []
    assert seen(tissue()) == []
    for blank in (255, 0, 128):
        assert seen(np.full((50, 60, 3), blank)) == ["blank_image"]
    glass = np.random.default_rng(0).normal(235, 3, (200, 300, 3))
    assert seen(np.clip(glass, 0, 255), spots) == ["no_tissue"]
    stars = np.zeros((200, 300, 3))
    stars[::4, ::4] = 220
    assert seen(stars) == ["dark_image"]
    assert seen(tissue(where=slice(0, 90)), spots) == ["tissue_elsewhere"]
    grey = np.repeat(tissue().mean(axis=2, keepdims=True), 3, axis=2)
    assert seen(grey, spots) == ["grey_image"]


# ------------------------------------------------------------------------------------------------------ planning


def plan(platform, path, scale=0.0, **columns):
    found = discover(platform, path, where="line 2", **columns)
    return [str(fault) for fault in [*found.faults.items, *image_checks.planned(found, "line 2", scale).items]]


def test_images_are_judged_before_the_first_job(tmp_path):
    cases.visium(tmp_path)
    assert plan("visium", tmp_path) == []
    tifffile.imwrite(tmp_path / "if.ome.tif", np.zeros((2, 50, 50), np.uint16), photometric="minisblack",
                     metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}})  # fmt: skip
    (fault,) = plan("visium", tmp_path, image=tmp_path / "if.ome.tif")
    assert "DAPI, CD3" in fault
    (fault,) = plan("visium", tmp_path, image=cases.picture(tmp_path / "half.png", 400, 400))
    assert "2 times smaller than that picture: if it shows the same, write 0.5 in the column image_scale" in fault
    assert plan("visium", tmp_path, 0.5, image=tmp_path / "half.png") == []
    (fault,) = plan("visium", tmp_path, 2.0, image=tmp_path / "half.png")
    assert "found image_scale 2; expected about 0.5, as tissue_hires_image.png and scalefactors_json.json say" in fault
    assert plan("visium", tmp_path, 0.5, image=cases.picture(tmp_path / "cropped.png", 400, 300)) == []
    (tmp_path / "bad.png").write_bytes(b"no image")
    (fault,) = plan("visium", tmp_path, image=tmp_path / "bad.png")
    assert "bad.png: found an unreadable image" in fault


def test_alignments_are_judged_before_the_first_job(tmp_path):
    aligned(tmp_path)
    assert plan("xenium", tmp_path, image=tmp_path / "s_he_image.ome.tif") == []
    cases.text(tmp_path / "s_he_imagealignment.csv", "1,0\n0,1\n")
    (fault,) = plan("xenium", tmp_path, image=tmp_path / "s_he_image.ome.tif")
    assert "2 lines of 2/2 values" in fault
    (fault,) = plan("xenium", tmp_path, image=cases.picture(tmp_path / "sub" / "he.png"))
    assert "no alignment matrix beside he.png" in fault


def test_planning_reads_no_pixels(tmp_path, monkeypatch):
    cases.visium(tmp_path)
    monkeypatch.setattr(Image.Image, "convert", None)
    monkeypatch.setattr(tifffile.TiffPage, "segments", None)
    assert plan("visium", tmp_path, image=with_tag(tmp_path / "a.tif", 800, 800, 1)) == []


@pytest.mark.parametrize(("um_per_px", "expected", "told"), [(0.5, 0.5, False), (0.505, 0.5, False), (1.0, 0.5, True),
                                                             (1.0, None, False), (np.nan, 0.5, False)])  # fmt: skip
def test_an_image_too_coarse_for_the_encoder_is_told(um_per_px, expected, told):
    notes = Notes()
    image_checks.check_resolution(um_per_px, expected, notes, "he.png")
    assert [note.code for note in notes.items] == (["coarse_image"] if told else [])
    if told:
        assert "1 um per pixel, the encoder expects 0.5: its pixels are enlarged 2 times" in str(notes.items[0])


@pytest.mark.parametrize(
    ("own", "columns", "told"),
    [
        (1.0, {}, None),
        (1.1, {}, None),
        (0.5, {}, "It is 2 times finer: give the one that was analysed, or write 2 in the column image_scale"),
        (4.0, {}, "It is 4 times coarser"),
        (1.3, {}, "warning"),
        (0.5, {"mpp": 1.0}, "warning"),
    ],
)
def test_the_image_s_own_pixel_size_is_held_against_the_places(tmp_path, own, columns, told):
    cases.visium(tmp_path, images=())
    facts = {"axes": "YXS", "PhysicalSizeX": own, "PhysicalSizeY": own}
    picture = np.random.default_rng(0).integers(0, 255, (800, 800, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", picture, photometric="rgb", metadata=facts)
    columns = {"image": tmp_path / "a.ome.tif"} | columns
    if told in (None, "warning"):
        section = read(SampleInput("s1", "visium", tmp_path, **columns))
        assert codes(section) == ([] if told is None else ["pixel_size"])
    else:
        assert told in refused(platform="visium", path=tmp_path, **columns)
