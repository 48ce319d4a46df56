"""h5ad files as many programs write them: geometry, sections, matrices and names, each read by what the file says."""

import h5py
import ingest_cases as cases
import numpy as np
import pandas as pd
import pytest

from histoweft.errors import InputError
from histoweft.ingest import checks, geometry, sections
from histoweft.ingest.image import write_working_image
from histoweft.ingest.readers import SampleInput, read, write_counts
from histoweft.io import CountsFile

GRID = 64


def place(path, xy, obs=None, uns=None, obsm=None, values=None, **more):
    """Write an h5ad whose observations lie at given places."""
    import anndata as ad

    n = len(xy)
    values = cases.counts(n) if values is None else values
    obs = pd.DataFrame(index=cases.barcodes(n)) if obs is None else obs
    data = ad.AnnData(values.astype(np.float32), obs=obs, var=pd.DataFrame(index=cases.GENES), uns=uns or {})
    data.obsm["spatial"] = xy
    for name, array in (obsm or {}).items():
        data.obsm[name] = array
    for name, layer in more.get("layers", {}).items():
        data.layers[name] = layer
    data.write_h5ad(path)
    return path


def visium_grid(pitch_px=100.0, turn=0.3):
    """Return array_row, array_col and pixels of 8 x 8 spots on a turned hexagonal grid."""
    rows, cols = np.divmod(np.arange(GRID), 8)
    array_col = 2 * cols + rows % 2
    x, y = array_col * pitch_px / 2, rows * pitch_px * 3**0.5 / 2
    turned = np.column_stack([np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y]) + 900
    return rows, array_col, turned


def square_grid(pitch_px):
    rows, cols = np.divmod(np.arange(GRID), 8)
    return rows, cols, np.column_stack([cols, rows]) * pitch_px + 50


def array_obs(rows, cols, **more):
    return pd.DataFrame({"array_row": rows, "array_col": cols, **more}, index=cases.barcodes(len(rows)))


def library(image=None, kind="hires", **factors):
    entry = {"scalefactors": factors}
    return entry | ({"images": {kind: image}} if image is not None else {})


def refused(path, **options):
    with pytest.raises(InputError) as error:
        read(SampleInput("s1", "h5ad", path, **options))
    return str(error.value)


def codes(section):
    return {note.code for note in section.warnings}


# ------------------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize(
    "spatial",
    [
        {"is_single": True, "lib": library(spot_diameter_fullres=55.0, tissue_hires_scalef=0.1)},
        {"note": "text", "numbers": np.arange(3), "lib": library(tissue_hires_scalef=0.1)},
        {"run": {"lib": library(tissue_hires_scalef=0.1)}},  # a library called run/lib becomes nested groups
        {"scalefactors": {"tissue_hires_scalef": 0.1}},
        {"empty": {}, "is_single": np.float32(1)},
    ],
)
def test_whatever_stands_beside_the_library_is_left_alone(tmp_path, spatial):
    rows, cols, xy = visium_grid()
    section = read(
        SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", xy, array_obs(rows, cols), {"spatial": spatial}))
    )
    assert section.counts.shape[0] == GRID
    assert section.mpp == pytest.approx(1.0)


def test_the_pitch_is_assumed_on_a_hexagonal_lattice_only(tmp_path):
    rows, cols, xy = visium_grid(200.0)
    hexagonal = read(SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", xy, array_obs(rows, cols))))
    assert (hexagonal.mpp, hexagonal.spot_diameter_um) == (pytest.approx(0.5), pytest.approx(55))
    rows, cols, xy = square_grid(16.0)
    square = read(SampleInput("s", "h5ad", place(tmp_path / "b.h5ad", xy, array_obs(rows, cols))))
    assert np.isnan(square.mpp)
    assert any("give mpp in the sheet" in note.message for note in square.warnings)
    cells = np.random.default_rng(0).uniform(0, 900, (GRID, 2))
    loose = read(SampleInput("s", "h5ad", place(tmp_path / "c.h5ad", cells, array_obs(rows, cols))))
    assert np.isnan(loose.mpp)


def test_scale_factors_go_before_pitches(tmp_path):
    rows, cols, xy = square_grid(16.0)
    stated = {"hd": library(microns_per_pixel=0.5, bin_size_um=8.0, spot_diameter_fullres=16.0)}
    section = read(SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", xy, array_obs(rows, cols), {"spatial": stated})))
    assert (section.mpp, section.spot_diameter_um, section.mpp_source) == (0.5, 8, "platform files")
    by_bin = {"hd": library(bin_size_um=8.0)}
    section = read(SampleInput("s", "h5ad", place(tmp_path / "b.h5ad", xy, array_obs(rows, cols), {"spatial": by_bin})))
    assert section.mpp == pytest.approx(0.5)
    assert section.mpp_source == "the bin size (8 um)"
    cells = {"x": library(microns_per_pixel=0.25, spot_diameter_fullres=40.0)}
    xy = np.random.default_rng(0).uniform(0, 900, (GRID, 2))
    section = read(SampleInput("s", "h5ad", place(tmp_path / "c.h5ad", xy, uns={"spatial": cells})))
    assert (section.mpp, section.spot_diameter_um) == (0.25, 10)


def test_the_image_inside_the_file_is_used_with_its_own_scale(tmp_path):
    rows, cols, xy = visium_grid()
    picture = np.full((200, 200, 3), 200, np.uint8)
    picture[:, :100] = (150, 60, 150)
    spatial = {"lib": library(picture, tissue_hires_scalef=0.1, spot_diameter_fullres=55.0)}
    section = read(
        SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", xy, array_obs(rows, cols), {"spatial": spatial}))
    )
    assert section.image_scale == 0.1
    assert section.image_kind == "hires"
    made = write_working_image(section.image, tmp_path / "image.tif", section.mpp, section.image_scale, 1.0)
    assert (made.width, made.height, made.um_per_px) == (200, 200, pytest.approx(10))
    write_counts(section, tmp_path / "counts.h5ad")
    with CountsFile(tmp_path / "counts.h5ad") as counts:
        about = counts.uns["histoweft"]
        assert about["image_dataset"] == "uns/spatial/lib/images/hires"
        assert about["read_as"]["image"].startswith("uns/spatial/lib/images/hires")
    none = read(SampleInput("s", "h5ad", tmp_path / "a.h5ad", image="none"))
    assert none.image is None


def test_a_thumbnail_or_an_image_without_scale_is_no_image(tmp_path):
    rows, cols, xy = visium_grid()
    for number, entry in enumerate(
        (library(np.zeros((4, 4, 3), np.uint8), tissue_hires_scalef=0.1), library(np.zeros((200, 200, 3), np.uint8)))
    ):
        path = place(tmp_path / f"{number}.h5ad", xy, array_obs(rows, cols), {"spatial": {"lib": entry}})
        assert read(SampleInput("s", "h5ad", path)).image is None


def test_the_library_left_by_a_selection_is_the_one_that_obs_names(tmp_path):
    rows, cols, xy = visium_grid()
    picture = np.full((90, 80, 3), 0.5, np.float32)
    uns = {"spatial": {name: library(picture, tissue_hires_scalef=scale) for name, scale in (("A", 0.05), ("B", 0.02))}}
    for values in (["B"] * GRID, pd.Categorical(["B"] * GRID, categories=["A", "B"])):
        path = place(tmp_path / "a.h5ad", xy, array_obs(rows, cols, library_id=values), uns)
        section = read(SampleInput("s", "h5ad", path))
        assert (section.image_kind, section.image_scale) == ("hires", 0.02)


def test_coordinates_of_a_smaller_image_are_not_scaled_twice(tmp_path):
    rows, cols, xy = visium_grid()
    picture = np.full((200, 200, 3), 0.5, np.float32)
    uns = {"spatial": {"L": library(picture, tissue_hires_scalef=0.1, spot_diameter_fullres=60.0)}}
    assert read(SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", xy, array_obs(rows, cols), uns))).image_scale == 0.1
    scaled = place(tmp_path / "b.h5ad", xy * 0.1, array_obs(rows, cols), uns)
    message = refused(scaled)
    assert "spot_diameter_fullres 60 while neighbouring spots lie 10 apart" in message
    assert "multiplied by tissue_hires_scalef already" in message
    told = read(SampleInput("s", "h5ad", scaled, options={"image_scale": 1.0}))
    assert (told.image_scale, round(told.mpp, 3)) == (1.0, 10.0)
    other = {"spatial": {"L": library(picture, tissue_hires_scalef=0.1, spot_diameter_fullres=300.0)}}
    assert "of another section" in refused(place(tmp_path / "c.h5ad", xy, array_obs(rows, cols), other))


def test_names_of_bins_say_their_size(tmp_path):
    rows, cols, xy = square_grid(7.3)
    names = [f"s_002um_{row:05d}_{col:05d}-1" for row, col in zip(rows, cols)]
    path = place(tmp_path / "a.h5ad", xy, array_obs(rows, cols).set_axis(names))
    section = read(SampleInput("s", "h5ad", path))
    assert section.mpp == pytest.approx(2 / 7.3)
    assert section.spot_diameter_um == 2


def test_of_several_libraries_the_one_of_the_subset_counts(tmp_path):
    rows, cols, xy = visium_grid()
    obs = pd.concat([array_obs(rows, cols, lib="L1"), array_obs(rows, cols, lib="L2")])
    picture = np.full((200, 200, 3), 180, np.uint8)
    spatial = {
        "L1": library(picture, tissue_hires_scalef=0.1),
        "L2": library(picture, tissue_hires_scalef=0.05, microns_per_pixel=1.0),
    }
    both = np.vstack([xy, xy])
    path = place(tmp_path / "a.h5ad", both, obs, {"spatial": spatial}, values=cases.counts(2 * GRID))
    message = refused(path)
    assert "lib=L1" in message
    assert message.startswith("1 fault")
    section = read(SampleInput("s", "h5ad", path, subset="lib=L2"))
    assert section.image_scale == 0.05
    assert section.library_ids == ["L2"]
    assert section.image.dataset == "uns/spatial/L2/images/hires"


@pytest.mark.parametrize("names", [("imagerow", "imagecol"), ("pxl_row_in_fullres", "pxl_col_in_fullres"), ("y", "x")])
def test_columns_of_a_frame_are_taken_by_name(tmp_path, names):
    xy = np.random.default_rng(0).uniform(0, 900, (36, 2))
    frame = pd.DataFrame({names[0]: xy[:, 1], names[1]: xy[:, 0]}, index=cases.barcodes())
    section = read(SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", frame, pd.DataFrame(index=frame.index))))
    np.testing.assert_array_equal(section.xy_px, xy)
    by_obs = cases.h5ad(tmp_path / "b.h5ad", spatial=False, obs=frame)
    np.testing.assert_array_equal(read(SampleInput("s", "h5ad", by_obs)).xy_px, xy)


def test_names_that_say_neither_are_refused(tmp_path):
    xy = pd.DataFrame(np.random.default_rng(0).uniform(0, 9, (36, 2)), cases.barcodes(), ["left", "down"])
    message = refused(place(tmp_path / "a.h5ad", xy, pd.DataFrame(index=xy.index)))
    assert "columns left, down" in message
    numbered = xy.set_axis(["spatial_1", "spatial_2"], axis=1)
    section = read(SampleInput("s", "h5ad", place(tmp_path / "b.h5ad", numbered, pd.DataFrame(index=xy.index))))
    np.testing.assert_array_equal(section.xy_px, xy.to_numpy())


def test_an_array_with_y_first_is_found_by_the_named_columns(tmp_path):
    xy = np.random.default_rng(0).uniform(0, 900, (36, 2))
    obs = pd.DataFrame({"pxl_row_in_fullres": xy[:, 1], "pxl_col_in_fullres": xy[:, 0]}, index=cases.barcodes())
    section = read(SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", xy[:, ::-1], obs)))
    np.testing.assert_array_equal(section.xy_px, xy)
    assert "axes" in codes(section)
    assert "axes" not in codes(read(SampleInput("s", "h5ad", place(tmp_path / "b.h5ad", xy, obs))))


def test_spots_without_a_place_are_named_and_left_out(tmp_path):
    rows, cols, xy = visium_grid()
    obs = array_obs(rows.astype(float), cols.astype(float), in_tissue=1.0)
    obs.iloc[0] = np.nan
    section = read(SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", xy, obs)))
    assert section.counts.shape[0] == GRID
    assert section.mpp == pytest.approx(1.0)
    assert any(cases.barcodes()[0] in note.message for note in section.warnings if note.code == "array_positions")
    xy = xy.copy()
    xy[0] = np.nan
    section = read(SampleInput("s", "h5ad", place(tmp_path / "b.h5ad", xy, obs)))
    assert section.counts.shape[0] == GRID - 1
    assert any(cases.barcodes()[0] in note.message for note in section.warnings if note.code == "without_position")


@pytest.mark.parametrize("value", [0, -1])
def test_a_point_that_stands_for_no_place_is_told(tmp_path, value):
    rows, cols, xy = visium_grid()
    xy[:4] = value
    section = read(SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", xy, array_obs(rows, cols))))
    assert section.counts.shape[0] == GRID - 4
    assert section.mpp == pytest.approx(1)
    assert "placeholders" in codes(section)
    crowded = np.rint(np.random.default_rng(0).uniform(0, 5, (GRID, 2)))  # every place is held by many
    assert not geometry.placeholders(crowded).any()


@pytest.mark.parametrize(
    "names", [("x", "y"), ("X", "Y"), ("Pos_X", "Pos_Y"), ("CenterX_Global_px", "CenterY_Global_px")]
)
@pytest.mark.parametrize("kind", [str, pd.Categorical])
def test_columns_of_places_are_numbers_however_stored(tmp_path, kind, names):
    obs = pd.DataFrame(index=[f"c{i}" for i in range(40)])
    for name, values in zip(names, CELLS.round(1).T):
        obs[name] = values.astype(str) if kind is str else pd.Categorical(values)
    path = place(tmp_path / "a.h5ad", CELLS, obs)
    with h5py.File(path, "r+") as handle:
        del handle["obsm/spatial"]
    np.testing.assert_allclose(read(SampleInput("s", "h5ad", path)).xy_px, CELLS.round(1))


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("spatial", np.array([[b"left", b"top"]] * 40), "texts, such as 'left'"),
        ("spatial", np.ones((40, 5)), "an array of (40, 5); expected 40 rows of x and y (and z)"),
        ("Coordinates", np.ones((40, 2)), "If obsm['Coordinates'] holds the places"),
    ],
)
def test_arrays_that_are_no_known_places(tmp_path, name, array, words):
    path = place(tmp_path / "a.h5ad", CELLS, pd.DataFrame(index=[f"c{i}" for i in range(40)]))
    with h5py.File(path, "r+") as handle:
        del handle["obsm/spatial"]
        handle[f"obsm/{name}"] = array
    assert words in refused(path)


@pytest.mark.parametrize("words", [("True", "False"), ("yes", "no"), ("1", "0"), (1.0, 0.0), (True, False)])
def test_in_tissue_in_any_words(tmp_path, words):
    rows, cols, xy = visium_grid()
    obs = array_obs(rows, cols, in_tissue=[words[0]] * 60 + [words[1]] * 4)
    section = read(SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", xy, obs)))
    assert section.counts.shape[0] == 60
    obs["in_tissue"] = ["under"] * GRID
    assert "'under'" in refused(place(tmp_path / "b.h5ad", xy, obs))


# ------------------------------------------------------------------------------------------------------- sections


def two(xy, names=("L1", "L2"), column="library_id", barcodes=None):
    n = len(xy)
    index = cases.barcodes(n) * 2 if barcodes is None else barcodes
    return pd.DataFrame({column: np.repeat(names, n)}, index=index), np.vstack([xy, xy + 1.5])


CELLS = np.random.default_rng(1).uniform(0, 900, (40, 2))


@pytest.mark.parametrize("column", ["library_id", "sample", "slide", "fov", "Bregma", "orig.ident", "batch", "plane",
                                    "Slide.name", "Library ID", "brain_section_label", "slide_ID_numeric"])  # fmt: skip
def test_parts_on_one_another_name_the_column_to_subset_by(tmp_path, column):
    names = [f"{cell}-{part}" for part in (1, 2) for cell in range(40)]
    obs, xy = two(CELLS, column=column, barcodes=names)
    path = place(tmp_path / "a.h5ad", xy, obs, values=cases.counts(80))
    message = refused(path)
    assert f"{column}=L1" in message
    assert "./histoweft split" in message
    for part in ("L1", "L2"):
        section = read(SampleInput("s", "h5ad", path, subset=f"{column}={part}"))
        assert section.counts.shape[0] == 40


@pytest.mark.parametrize("suffix", [("-1", "-2"), ("-1-L1", "-1-L2"), ("-1", "-1-1"), ("-1_1", "-1_2")])
def test_barcodes_tell_sections_apart(tmp_path, suffix):
    plain = cases.barcodes(40, suffix="")
    names = [f"{barcode}{end}" for end in suffix for barcode in plain]
    path = place(tmp_path / "a.h5ad", np.vstack([CELLS, CELLS]), pd.DataFrame(index=names), values=cases.counts(80))
    message = refused(path)
    value = suffix[1].strip("-_")
    assert "barcode_suffix" in message
    section = read(SampleInput("s", "h5ad", path, subset=f"barcode_suffix={value}"))
    assert list(section.obs.index) == names[40:]


@pytest.mark.parametrize("name", ["s_008um_{:05d}_{:05d}", "cellid_{:09d}", "{}"])
def test_names_of_bins_and_numbered_cells_tell_sections_apart(tmp_path, name):
    names = [f"{name.format(i, i)}-{part}" for part in (1, 2) for i in range(40)]
    xy = np.vstack([CELLS, CELLS + 1.5])
    path = place(tmp_path / "a.h5ad", xy, pd.DataFrame(index=names), values=cases.counts(80))
    assert "barcode_suffix=1" in refused(path)
    assert list(read(SampleInput("s", "h5ad", path, subset="barcode_suffix=2")).obs.index) == names[40:]


def test_an_array_position_held_twice_is_two_sections(tmp_path):
    rows, cols, xy = visium_grid()
    obs = pd.concat([array_obs(rows, cols)] * 2).set_axis(cases.barcodes(2 * GRID))
    both, values = np.vstack([xy, xy[:, ::-1] + 7]), cases.counts(2 * GRID)
    assert "on an array position that another one holds" in refused(
        place(tmp_path / "a.h5ad", both, obs, values=values)
    )
    obs["patient"] = np.repeat(["p1", "p2"], GRID)
    path = place(tmp_path / "b.h5ad", both, obs, values=values)
    assert "Write patient=p1 into" in refused(path)
    assert read(SampleInput("s", "h5ad", path, subset="patient=p2")).counts.shape[0] == GRID
    cells = np.random.default_rng(0).uniform(0, 900, (2 * GRID, 2))  # cells that keep the array position of their spot
    assert read(SampleInput("s", "h5ad", place(tmp_path / "d.h5ad", cells, obs, values=values))).counts.shape[0] == 128
    apart = place(tmp_path / "c.h5ad", np.vstack([xy, xy + 2000]), obs, values=values)
    assert read(SampleInput("s", "h5ad", apart, subset="patient=p1|p2")).counts.shape[0] == 2 * GRID


def test_spots_of_one_lattice_are_one_section_whatever_their_batch(tmp_path):
    rows, cols, xy = visium_grid()
    batch = np.random.default_rng(0).choice(["a", "b"], GRID)
    path = place(tmp_path / "a.h5ad", xy, array_obs(rows, cols, batch=batch))
    assert read(SampleInput("s", "h5ad", path)).counts.shape[0] == GRID


def test_regions_of_spatialdata_on_one_another_are_sections(tmp_path):
    obs = pd.DataFrame({"part": pd.Categorical(np.repeat(["r1", "r2"], 40))}, index=[f"c{i}" for i in range(80)])
    uns, values = {"spatialdata_attrs": {"region_key": "part", "region": ["r1", "r2"]}}, cases.counts(80)
    assert "part=r1" in refused(place(tmp_path / "a.h5ad", np.vstack([CELLS, CELLS + 1.5]), obs, uns, values=values))
    tiles = place(tmp_path / "b.h5ad", np.vstack([CELLS, CELLS + 1000]), obs, uns, values=values)
    assert read(SampleInput("s", "h5ad", tiles)).counts.shape[0] == 80


def test_planes_of_a_third_coordinate_are_sections(tmp_path):
    xyz = np.vstack([np.column_stack([CELLS, np.full(40, z)]) for z in (0.0, 200.0, 400.0)])
    path = place(tmp_path / "a.h5ad", xyz, pd.DataFrame(index=[f"c{i}" for i in range(120)]), values=cases.counts(120))
    assert "z=0.0" in refused(path)
    section = read(SampleInput("s", "h5ad", path, subset="z=200.0"))
    np.testing.assert_array_equal(section.xy_px, CELLS)
    depth = np.column_stack([CELLS, np.random.default_rng(0).uniform(0, 8, 40)])
    thick = place(tmp_path / "b.h5ad", depth, pd.DataFrame(index=[f"c{i}" for i in range(40)]))
    assert read(SampleInput("s", "h5ad", thick)).counts.shape[0] == 40


def test_fields_of_view_side_by_side_are_one_section(tmp_path):
    xy = np.vstack([CELLS, CELLS + np.array([900, 0]), CELLS + np.array([0, 900])])
    obs = pd.DataFrame({"fov": np.repeat(["1", "2", "3"], 40)}, index=[f"c{i}" for i in range(120)])
    section = read(SampleInput("s", "h5ad", place(tmp_path / "a.h5ad", xy, obs, values=cases.counts(120))))
    assert section.counts.shape[0] == 120
    local = np.vstack([CELLS] * 3)
    path = place(tmp_path / "b.h5ad", local, obs, obsm={"spatial_fov": xy}, values=cases.counts(120))
    np.testing.assert_array_equal(read(SampleInput("s", "h5ad", path)).xy_px, xy)
    named = obs.assign(CenterX_global_px=xy[:, 0], CenterY_global_px=xy[:, 1])
    path = place(tmp_path / "c.h5ad", local, named, values=cases.counts(120))
    np.testing.assert_array_equal(read(SampleInput("s", "h5ad", path)).xy_px, xy)


def test_parts_side_by_side_may_be_put_together_by_name(tmp_path):
    xy = np.vstack([CELLS, CELLS + np.array([1000, 0])])
    obs = pd.DataFrame({"slide": np.repeat(["a", "b"], 40)}, index=[f"c{i}" for i in range(80)])
    path = place(tmp_path / "a.h5ad", xy, obs, values=cases.counts(80))
    assert "slide=a|b" in refused(path)
    assert read(SampleInput("s", "h5ad", path, subset="slide=a|b")).counts.shape[0] == 80


def test_places_that_no_section_has(tmp_path):
    names = pd.DataFrame(index=[f"c{i}" for i in range(40)])
    for number, (xy, words) in enumerate(
        [
            (np.zeros((40, 2)), "on one point"),
            (np.column_stack([np.arange(40.0), np.zeros(40)]), "on one line"),
            (np.column_stack([np.arange(40.0)] * 2), "on one line"),
            (np.vstack([CELLS[:8]] * 5), "on a place that another one holds"),
        ]
    ):
        assert words in refused(place(tmp_path / f"{number}.h5ad", xy, names))
    few = pd.DataFrame(index=[f"c{i}" for i in range(5)])
    assert "on one point" in refused(place(tmp_path / "few.h5ad", np.ones((5, 2)), few))
    pairs = place(tmp_path / "pairs.h5ad", np.repeat(CELLS[:20], 2, axis=0), names)
    assert "shared_places" in codes(read(SampleInput("s", "h5ad", pairs)))


def test_nothing_is_judged_that_the_subset_leaves_out(tmp_path):
    n = 40
    names = cases.barcodes(n) * 2  # barcodes repeat between the parts
    obs = pd.DataFrame({"part": np.repeat(["good", "bad"], n)}, index=names)
    values = cases.counts(2 * n).astype(np.float32).tolil()
    values[n + 1, 0] = 0.5
    values[n + 2, 1] = -3
    xy = np.vstack([CELLS, np.full((n, 2), np.nan)])
    path = place(tmp_path / "a.h5ad", xy, obs, values=values.tocsr())
    section = read(SampleInput("s", "h5ad", path, subset="part=good"))
    assert section.counts.shape[0] == n
    assert section.dropped == {"subset": n}
    assert codes(section) <= {"mpp"}
    message = refused(path)
    assert "more than once" in message
    assert message.count("more than once") == 1


# ------------------------------------------------------------------------------------------- matrices and genes


def test_every_matrix_is_listed_where_none_holds_counts(tmp_path):
    values = cases.counts().astype(np.float32)
    path = cases.h5ad(
        tmp_path / "a.h5ad", values.log1p(), layers={"UMI": values, "scaled": values * 0.3, "none": values * 0}
    )
    message = refused(path)
    assert "layers['UMI'] (whole numbers: yes)" in message
    assert "layers['scaled'] (whole numbers: no)" in message
    assert "layers['none'] (empty)" in message
    assert "write UMI into the sheet's column layer" in message
    assert "round" not in message.split("Rounding")[0].rsplit("expected", 1)[-1]
    section = read(SampleInput("s", "h5ad", path, layer="UMI"))
    assert (section.counts != values).nnz == 0
    assert "Did you mean 'UMI'?" in refused(path, layer="UMIs")


def test_an_empty_matrix_never_wins(tmp_path):
    values = cases.counts().astype(np.float32)
    in_layer = cases.h5ad(tmp_path / "a.h5ad", values * 0, layers={"counts": values})
    assert (read(SampleInput("s", "h5ad", in_layer)).counts != values).nnz == 0
    in_raw = cases.h5ad(tmp_path / "b.h5ad", values * 0, raw=values, layers={"counts": values * 0})
    assert (read(SampleInput("s", "h5ad", in_raw)).counts != values).nnz == 0


def test_ones_and_zeros_of_what_raw_holds_are_no_counts(tmp_path):
    import anndata as ad

    values = cases.counts(40)
    data = ad.AnnData((values > 0).astype(np.float32), obs=pd.DataFrame(index=cases.barcodes(40)))
    data.var_names = cases.GENES
    data.obsm["spatial"] = CELLS
    data.raw = ad.AnnData(values.astype(np.float32), obs=data.obs, var=data.var)
    data.write_h5ad(tmp_path / "a.h5ad")
    section = read(SampleInput("s", "h5ad", tmp_path / "a.h5ad"))
    assert section.counts.sum() == values.sum()
    assert "counts_from" in codes(section)


def test_what_else_is_there_is_told_of_a_layer_that_the_sheet_names(tmp_path):
    values = cases.counts(40)
    names = pd.DataFrame(index=cases.barcodes(40))
    path = place(tmp_path / "a.h5ad", CELLS, names, layers={"logcounts": values.astype(np.float32).log1p()})
    assert "write X into the sheet's column layer" in refused(path, layer="logcounts")
    empty = place(tmp_path / "b.h5ad", CELLS, names, values=values * 0, layers={"UMI": values})
    message = refused(empty, layer="X")
    assert "Every value is zero" in message
    assert "write UMI into" in message


def test_a_layer_called_counts_goes_before_another_x_of_whole_numbers(tmp_path):
    values = cases.counts().astype(np.float32)
    path = cases.h5ad(tmp_path / "a.h5ad", values.minimum(1), layers={"counts": values})
    section = read(SampleInput("s", "h5ad", path))
    assert (section.counts != values).nnz == 0
    assert "counts_from" in codes(section)


@pytest.mark.parametrize("policy", ["refuse", "round", "as_is"])
@pytest.mark.parametrize("kind", ["log1p", "log2", "log10", "cp10k", "subset of cp10k", "stated"])
def test_logarithms_are_neither_rounded_nor_logged_again(tmp_path, policy, kind):
    values = cases.counts(60).astype(np.float64).toarray()
    scaled = 1e4 * values / values.sum(axis=1, keepdims=True)
    noisy = values * np.random.default_rng(0).uniform(0.5, 1.5, values.shape)
    made = {
        "log1p": np.log1p(values),
        "log2": np.log2(values + 1),
        "log10": np.log10(values + 1),
        "cp10k": np.log1p(scaled),
        "subset of cp10k": np.log1p(scaled) * ([1] * 7 + [0]),
        "stated": np.log1p(noisy),
    }[kind]
    uns = {"log1p": {"base": 2}} if kind == "stated" else None
    path = cases.h5ad(tmp_path / "a.h5ad", made.astype(np.float32), uns=uns)
    message = refused(path, options={"counts": policy})
    assert "logarithms" in message
    assert "Rounding cannot make counts" in message


def test_fractions_that_are_no_logarithms_follow_the_policy(tmp_path):
    values = cases.counts(60).astype(np.float32).toarray()
    divided = values / np.random.default_rng(0).integers(2, 9, (60, 1))  # counts divided by the volume of a cell
    path = cases.h5ad(tmp_path / "a.h5ad", divided.astype(np.float32))
    section = read(SampleInput("s", "h5ad", path, options={"counts": "as_is"}))
    np.testing.assert_allclose(section.counts.toarray(), divided, rtol=1e-6)
    assert checks.log_evidence(section.counts) == ""


@pytest.mark.parametrize("column", ["gene_symbols", "feature_name", "real_gene_name", "Gene Symbol", "gene.name"])
@pytest.mark.parametrize("index", ["{}", "FBgn{:07d}", "ENSMUSG{:011d}", "WBGene{:08d}", "ENSG{:011d}.4"])
def test_symbols_are_used_wherever_the_index_holds_none(tmp_path, column, index):
    var = pd.DataFrame({column: cases.GENES}, index=[index.format(i) for i in range(8)])
    section = read(SampleInput("s", "h5ad", cases.h5ad(tmp_path / "a.h5ad", var=var)))
    assert list(section.var.index) == cases.GENES
    assert column in section.read_as["gene names"]


@pytest.mark.parametrize("form", ["{id}_{name}", "{name}_{id}", "{id}.4|{name}"])
def test_identifiers_and_symbols_joined_in_one_name_are_taken_apart(tmp_path, form):
    names = [form.format(id=i, name=name) for i, name in zip(cases.IDS, cases.GENES)]
    section = read(SampleInput("s", "h5ad", cases.h5ad(tmp_path / "a.h5ad", var=pd.DataFrame(index=names))))
    assert list(section.var.index) == cases.GENES
    assert list(section.var["gene_id"]) == cases.IDS


def test_names_that_are_numbers_are_told_where_nothing_else_is_there(tmp_path):
    var = pd.DataFrame({"length": np.arange(8)}, index=[str(i) for i in range(8)])
    section = read(SampleInput("s", "h5ad", cases.h5ad(tmp_path / "a.h5ad", var=var)))
    assert "gene_numbers" in codes(section)
    var = pd.DataFrame({"gene_name": ["1", "2"] * 4}, index=cases.GENES)  # a column called so that holds none
    section = read(SampleInput("s", "h5ad", cases.h5ad(tmp_path / "b.h5ad", var=var)))
    assert list(section.var.index) == cases.GENES


def test_feature_types_and_control_names_are_honoured(tmp_path):
    names = [*cases.GENES[:5], "NegPrb3", "Blank-7", "Unassigned_2"]
    section = read(SampleInput("s", "h5ad", cases.h5ad(tmp_path / "a.h5ad", var=pd.DataFrame(index=names))))
    assert list(section.var.index) == cases.GENES[:5]
    stated = pd.DataFrame({"feature_types": ["Gene Expression"] * 6 + ["Antibody Capture"] * 2}, index=cases.GENES)
    section = read(SampleInput("s", "h5ad", cases.h5ad(tmp_path / "b.h5ad", var=stated)))
    assert list(section.var.index) == cases.GENES[:6]
    assert "antibody_capture_counts" in section.obs


def test_the_species_that_a_file_states_is_taken(tmp_path):
    obs = pd.DataFrame({"organism": ["Mus musculus"] * 36}, index=cases.barcodes())
    section = read(SampleInput("s", "h5ad", cases.h5ad(tmp_path / "a.h5ad", obs=obs)))
    assert section.species == "mouse"
    assert section.read_as["species"] == "mouse, as the file says"


def test_a_gene_name_with_a_tab_is_a_fault(tmp_path):
    var = pd.DataFrame(index=[f"{name}\tGene Expression" for name in cases.GENES])
    assert "without tabs" in refused(cases.h5ad(tmp_path / "a.h5ad", var=var))


def test_planning_finds_the_image_without_reading_more(tmp_path):
    path = place(
        tmp_path / "a.h5ad", CELLS, uns={"spatial": {"l": library(np.zeros((60, 60, 3)), tissue_hires_scalef=1.0)}}
    )
    assert geometry.embedded_image(path, "") == ("hires", "uns/spatial/l/images/hires")
    with h5py.File(path, "r+") as handle:
        handle.copy("uns/spatial/l", "uns/spatial/other")
    assert geometry.embedded_image(path, "") is None
    assert geometry.embedded_image(path, "library_id=other") == ("hires", "uns/spatial/other/images/hires")
    (tmp_path / "text.h5ad").write_text("no HDF5")
    assert geometry.embedded_image(tmp_path / "text.h5ad", "") is None


def test_suffixes_around_barcodes():
    assert list(sections.suffixes(["ACGTACGT-1", "S2_ACGTACGT-1"])) == ["1", "S2_-1"]
    assert sections.suffixes(["cell_1", "cell_2"]) is None


def test_real_files_hold_what_they_hold(real_data):
    folder = real_data / "merfish_hypothalamus" / "merfish_hypothalamus.h5ad"
    assert "bregma=" in refused(folder, options={"counts": "as_is"})
    seen = read(SampleInput("b", "h5ad", real_data / "starmap_visual_cortex_BY3_1k" / "starmap_BY3_1k.h5ad", mpp=0.1))
    assert seen.counts.shape == (1549, 1020)


def test_frames_of_the_first_anndata_versions(tmp_path):
    path = cases.h5ad(tmp_path / "a.h5ad")
    obs = np.array(
        [(name.encode(), i % 2) for i, name in enumerate(cases.barcodes())], [("index", "S16"), ("type", "i1")]
    )
    var = np.array(
        [(gene.encode(), b"ENSG%011d" % i) for i, gene in enumerate(cases.GENES)],
        [("index", "S16"), ("gene_ids", "S16")],
    )
    with h5py.File(path, "r+") as handle:
        del handle["obs"], handle["var"]
        handle["obs"], handle["var"] = obs, var
        handle["uns/type_categories"] = np.array([b"neuron", b"glia"])
    section = read(SampleInput("s", "h5ad", path, labels="type"))
    assert list(section.obs["label"][:3]) == ["neuron", "glia", "neuron"]
    assert list(section.var["gene_id"][:2]) == ["ENSG00000000000", "ENSG00000000001"]
