"""The explorer's data files: positions, groups, genes, tiles and painted maps."""

import base64
import io
import json
import re
import zlib

import explorer_cases as cases
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histoweft.errors import InputError
from histoweft.explorer import genes, payload, pictures, points, sample, site
from histoweft.io import CountsFile
from histoweft.plotting import UNLABELLED


def handed(path):
    """Return the key and the object that a script hands to the page."""
    found = re.fullmatch(r"explorerData\((\".*?\"),(.*)\);\n", path.read_text(), flags=re.S)
    return json.loads(found[1]), json.loads(found[2])


def unpacked(packed):
    return np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), dtype=packed["type"])


def numbers(codes, low, high):
    return np.where(codes == 0xFFFF, np.nan, low + codes.astype(float) * (high - low) / 65_534)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of one section, and what it says of itself."""
    root = tmp_path_factory.mktemp("explorer")
    given = cases.inputs(root / "inputs", "one") | {"joint": cases.joint(root / "joint.parquet")}
    about = sample.write_sample(root / "one", sample="one", **given, wanted="all")
    return root / "one", about


# ---------------------------------------------------------------------------------------------------------- payload


def test_scripts_hand_over_what_was_packed(tmp_path):
    array = np.array([[1, 2], [3, 65_535]], dtype=np.uint16)
    payload.write(tmp_path, "a/piece", {"x": payload.pack(array), "name": "</script>\u2028'\""})
    key, value = handed(tmp_path / "piece.js")
    assert key == "a/piece"
    assert unpacked(value["x"]).tolist() == [1, 2, 3, 65_535]
    assert value["name"] == "</script>\u2028'\""
    assert (tmp_path / "piece.js").read_bytes().isascii()


def test_names_are_a_line_each():
    assert unpacked(payload.pack_text(["MALAT1", "é"])).tobytes().decode() == "MALAT1\né"


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="int64"):
        payload.pack(np.arange(3))


def test_numbers_that_are_not_finite_are_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        payload.write(tmp_path, "a/b", {"x": float("nan")})


def test_quantised_numbers_come_back():
    values = np.array([3.0, np.nan, -7.5, 1e3, np.inf])
    codes, low, high = payload.quantise(values)
    assert (low, high) == (-7.5, 1000.0)
    assert codes[[1, 4]].tolist() == [65_535, 65_535]
    assert np.abs(numbers(codes, low, high)[[0, 2, 3]] - values[[0, 2, 3]]).max() < 1007.5 / 65_534


@pytest.mark.parametrize("values", [[np.nan, np.nan], [2.0, 2.0]])
def test_nothing_to_spread(values):
    codes, low, high = payload.quantise(np.array(values))
    back = numbers(codes, low, high)
    assert np.array_equal(back, values, equal_nan=True)


# ----------------------------------------------------------------------------------------------------------- points


def test_positions_are_micrometres_with_y_downwards(made):
    folder, about = made
    _, content = handed(folder / "points.js")
    x0, y0, x1, y1 = about["bounds"]["tissue"]
    truth = cases.spatial("one") * cases.MPP
    got = [numbers(unpacked(content["tissue"][axis]), *ends) for axis, ends in (("x", (x0, x1)), ("y", (y0, y1)))]
    assert np.abs(np.column_stack(got) - truth).max() < 0.05
    x0, y0, x1, y1 = about["bounds"]["umap"]
    y = numbers(unpacked(content["umap"]["y"]), y0, y1)
    assert np.abs(y + cases.umap("one")[:, 1]).max() < 1e-3
    assert about["unit"] == "um"
    assert about["diameter"] == cases.SPOT_UM


def test_a_point_without_a_place_is_missing_on_both_axes():
    content, bounds = points.positions(np.array([[1.0, 2.0], [np.nan, 5.0], [3.0, 4.0]]))
    assert bounds == [1.0, 2.0, 3.0, 4.0]
    assert unpacked(content["y"])[1] == unpacked(content["x"])[1] == 65_535


def test_cells_fill_most_of_the_way_to_their_neighbours():
    xy = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]])
    assert points.diameter({}, xy, True) == pytest.approx(8.5)
    assert points.diameter({"spot_diameter_um": 55.0}, xy, True) == 55.0
    assert points.diameter({"spot_diameter_um": 55.0}, xy, False) == pytest.approx(8.5)


def test_columns_say_what_points_can_be_coloured_by(made):
    _, about = made
    found = {(column["heading"], column["title"]): column for column in about["columns"]}
    assert next(iter(found)) == ("Expert", "Expert label")
    assert found["Clusters", "Cluster, all sections together"]["categories"] == ["0", "1", "2", "3"]
    assert found["Quality", "Counts"]["kind"] == "number"
    assert found["Share of cell types", "stroma"]["limits"] == [0.75, 0.75]
    assert found["Further", "doublet score"]["kind"] == "number"
    assert not any(title in ("sample", "Sample") for _, title in found)


def test_group_codes_lead_to_their_names(made):
    folder, about = made
    column = about["columns"][0]
    _, content = handed(folder / f"{column['file']}.js")
    names = np.array(column["categories"])[unpacked(content["codes"])]
    assert np.array_equal(names, cases.labels("one"))
    assert column["colours"] == {"east": "#0072b2", "west": "#e69f00"}


def test_missing_labels_have_no_group_and_unused_names_go():
    values = pd.Series(pd.Categorical(["b", None, "unlabelled", "a"], categories=["a", "unlabelled", "b", "never"]))
    about, content = points.encoded(values)
    assert about["categories"] == ["a", "b"]
    assert unpacked(content["codes"]).tolist() == [1, 255, 255, 0]


def test_names_of_single_points_are_no_groups():
    assert points.encoded(pd.Series([f"name {i}" for i in range(500)])) is None
    assert points.encoded(pd.Series([None, None], dtype=object)) is None
    assert points.encoded(pd.Series([np.nan, np.nan])) is None


def test_truth_values_are_groups():
    about, content = points.encoded(pd.Series([True, False, True]))
    assert about["categories"] == ["False", "True"]
    assert unpacked(content["codes"]).tolist() == [1, 0, 1]


def test_limits_leave_out_the_outermost_hundredths():
    about, _ = points.encoded(pd.Series([*range(1, 200), 1e6]))
    assert about["high"] == 1e6
    assert about["limits"][1] < 300
    assert points.encoded(pd.Series([0.0] * 999 + [5.0]))[0]["limits"] == [0.0, 5.0]


def test_scheme_keeps_the_colours_that_all_samples_agree_on():
    columns = [
        {"categories": ["10", "2"], "colours": {"2": "#111111", "10": "#222222"}},
        {"categories": ["2", "unknown"], "colours": {"2": "#111111", "unknown": "#333333"}},
    ]
    scheme = points.category_scheme(columns)
    assert list(scheme.items()) == [("2", "#111111"), ("10", "#222222"), ("unknown", UNLABELLED)]


def test_scheme_is_made_anew_where_samples_disagree():
    columns = [
        {"categories": ["a"], "colours": {"a": "#0072b2"}},
        {"categories": ["b"], "colours": {"b": "#0072b2"}},
        {"categories": ["c"]},
    ]
    assert points.category_scheme(columns) == {"a": "#0072b2", "b": "#e69f00", "c": "#009e73"}


# ------------------------------------------------------------------------------------------------------------ genes


def test_genes_come_back_within_a_step(made):
    folder, about = made
    truth = cases.expression("one")
    _, listed = handed(folder / "genes.js")
    names = unpacked(listed["names"]).tobytes().decode().split("\n")
    tops = unpacked(listed["tops"])
    assert names == list(truth.columns)
    assert np.array_equal(tops, truth.max().to_numpy())
    assert about["genes"] == {"count": len(names), "of": len(names), "per_file": 256}
    _, content = handed(folder / "genes-0.js")
    got = unpacked(content).reshape(len(names), -1) * (tops / 255)[:, None]
    assert np.abs(got.T - truth.to_numpy()).max() <= tops.max() / 255
    assert np.array_equal(got.T > 0, truth.to_numpy() > 0)


@pytest.mark.parametrize("band_bytes", [1, 1_500, 1 << 28])
def test_passes_over_the_matrix_do_not_change_the_files(tmp_path, monkeypatch, band_bytes):
    cases.assembled("one").write_h5ad(tmp_path / "a.h5ad")
    monkeypatch.setattr(genes, "FILE_BYTES", 1_000)
    monkeypatch.setattr(genes, "BAND_BYTES", band_bytes)
    chosen = np.array([0, 3, 4, 8, 9, 11, 20])
    with CountsFile(tmp_path / "a.h5ad") as counts:
        about = genes.write_genes(tmp_path, "one", counts, chosen)
    assert about == {"count": 7, "of": len(cases.GENES), "per_file": 5}
    got = np.concatenate([unpacked(handed(tmp_path / f"genes-{k}.js")[1]) for k in (0, 1)]).reshape(7, -1)
    truth = cases.expression("one").to_numpy()[:, chosen]
    assert np.array_equal(got.T, np.ceil(np.round(truth / truth.max(axis=0) * 255 + 1e-9, 0)).astype(np.uint8))
    assert not (tmp_path / "genes-2.js").exists()


def test_smallest_values_are_not_rounded_away(tmp_path):
    import anndata
    import scipy.sparse as sp

    adata = anndata.AnnData(sp.csr_matrix(np.float32([[1000.0, 0.0], [0.01, 0.0]])))
    adata.write_h5ad(tmp_path / "a.h5ad")
    with CountsFile(tmp_path / "a.h5ad") as counts:
        (band,) = genes.bands(counts, np.array([0, 1]), genes.highest(counts), 10)
    assert band.tolist() == [[255, 1], [0, 0]]


def test_which_genes_are_offered(monkeypatch):
    var = cases.assembled("one").var
    everything = len(var)
    assert len(genes.chosen(var, 200, "all", [])) == everything
    assert genes.chosen(var, 200, "variable", ["GENE20"]).tolist() == [*range(10), cases.GENES.index("GENE20")]
    monkeypatch.setattr(genes, "MOST_VALUES", 200 * everything - 1)
    assert genes.chosen(var, 200, "all", []).tolist() == list(range(10))


# --------------------------------------------------------------------------------------------------------- pictures


def test_tiles_put_together_are_the_image(tmp_path):
    from histoweft.images import read_image
    from histoweft.ingest.image import write_working_image

    rng = np.random.default_rng(0)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 255, (5, 8, 3), dtype=np.uint8)).resize((1300, 700)))
    Image.fromarray(smooth).save(tmp_path / "he.png")
    write_working_image(tmp_path / "he.png", tmp_path / "image.tif", 0.5, 0.25, 2.0)
    about = pictures.write_tiles(tmp_path / "tiles", tmp_path / "image.tif")
    assert about["scale"] == pytest.approx(0.25)
    assert about["levels"][0] == [1300, 700]
    for number, (width, height) in enumerate(about["levels"]):
        whole = np.zeros((height, width, 3), np.uint8)
        for path in (tmp_path / "tiles" / str(number)).iterdir():
            row, column = (int(part) * about["tile"] for part in path.stem.split("_"))
            tile = np.asarray(Image.open(path))
            whole[row : row + tile.shape[0], column : column + tile.shape[1]] = tile
        truth = read_image(tmp_path / "image.tif", level=number)[0]
        assert np.abs(whole.astype(int) - truth).mean() < 2


def test_image_is_placed_in_micrometres(made):
    _, about = made
    assert about["image"]["step"] == pytest.approx(2.0)
    assert about["image"]["levels"][0] == [cases.picture().shape[1], cases.picture().shape[0]]


def test_painted_maps_keep_their_ends_and_their_tissue(made, tmp_path):
    folder, about = made
    maps, tissue = cases.write_painted(tmp_path / "store.zarr")
    painted = about["painted"]
    assert painted["genes"] == ["GRADIENT", "UNIFORM"]
    assert painted["step"] == 4.0
    assert painted["size"] == [tissue.shape[1], tissue.shape[0]]
    low, high = painted["ends"][0]
    assert (low, high) == pytest.approx(np.percentile(maps[0][tissue], (2, 99.5)), abs=0.01)
    _, content = handed(folder / "painted-0.js")
    bytes_ = np.asarray(Image.open(io.BytesIO(base64.b64decode(content["png"])))).astype(float)
    assert np.array_equal(bytes_ == 0, ~tissue)
    back = low + (bytes_ - 1) / 254 * (high - low)
    inside = tissue & (maps[0] > low) & (maps[0] < high)
    assert np.abs(back - maps[0])[inside].max() < 0.02


def test_a_map_without_contrast_or_tissue():
    flat, ends = pictures.grey(np.full((2, 2), 3.0), np.ones((2, 2), bool))
    assert ends == [3.0, 4.0]
    assert (flat == 1).all()
    empty, ends = pictures.grey(np.full((2, 2), 3.0), np.zeros((2, 2), bool))
    assert ends == [0.0, 1.0]
    assert (empty == 0).all()


def test_large_maps_come_from_a_coarser_level(tmp_path, monkeypatch):
    import zarr

    cases.write_painted(tmp_path / "store.zarr")
    root = zarr.open_group(str(tmp_path / "store.zarr"), mode="a")
    fine = root["images/expression/s0"][:]
    root["images/expression"].create_array("s1", data=fine[:, ::2, ::2])
    root["labels/tissue"].create_array("s1", data=root["labels/tissue/s0"][::2, ::2])
    about = root["images/expression"].attrs["ome"]
    about["multiscales"][0]["datasets"].append({"path": "s1"})
    root["images/expression"].attrs["ome"] = about
    monkeypatch.setattr(pictures, "MAX_SIDE", fine.shape[2] - 1)
    maps, tissue, found = pictures.read_maps(tmp_path / "store.zarr")
    assert maps.shape[1:] == tissue.shape == fine[:, ::2, ::2].shape[1:]
    assert found["step"] == 8.0


def test_many_genes_do_not_make_a_map_coarse(tmp_path):
    import zarr

    cases.write_painted(tmp_path / "store.zarr")
    root = zarr.open_group(str(tmp_path / "store.zarr"), mode="a")
    group = root["images/expression"]
    group.create_array("s1", data=np.zeros((2, 5, 5), np.float16))
    group.create_array("s0", data=np.zeros((pictures.MAX_SIDE + 1, 9, 9), np.float16), overwrite=True)
    root["labels/tissue"].create_array("s0", data=np.ones((9, 9), np.uint8), overwrite=True)
    about = group.attrs["ome"]
    about["multiscales"][0]["datasets"].append({"path": "s1"})
    group.attrs["ome"] = about
    assert pictures.read_maps(tmp_path / "store.zarr")[0].shape[1:] == (9, 9)


def test_no_store_is_said(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.zarr.*a store of painted maps.*rule paint"):
        pictures.read_maps(tmp_path / "nothing.zarr")


# ------------------------------------------------------------------------------------------------- samples and study


def test_tables_of_further_stages_are_shown_in_the_order_of_the_points(tmp_path):
    given = cases.inputs(tmp_path / "inputs", "one")
    table = pd.DataFrame({"muscle": np.linspace(0, 1, 200)}, index=[f"spot-{i}" for i in range(200)]).iloc[::-1]
    table.rename_axis(index="barcode").to_parquet(tmp_path / "fates.parquet")
    about = sample.write_sample(
        tmp_path / "one", sample="one", **given, wanted="variable", tables={"fates": tmp_path / "fates.parquet"}
    )
    column = about["columns"][-1]
    assert (column["heading"], column["title"]) == ("Fate", "muscle")
    codes = unpacked(handed(tmp_path / "one" / f"{column['file']}.js")[1]["codes"])
    assert np.abs(numbers(codes, column["low"], column["high"]) - np.linspace(0, 1, 200)).max() < 1e-4


def test_a_sample_without_coordinates_has_its_embedding_alone(tmp_path):
    about = sample.write_sample(
        tmp_path / "cells", sample="cells", **cases.inputs(tmp_path / "inputs", "cells"), wanted="variable"
    )
    assert about["bounds"]["tissue"] is None
    assert about["bounds"]["joint"] is None
    assert about["image"] is about["painted"] is about["diameter"] is None
    assert about["genes"]["count"] == 10


def test_without_a_scale_units_are_pixels_and_maps_are_left_out(tmp_path):
    given = cases.inputs(tmp_path / "inputs", "one")
    adata = cases.assembled("one")
    adata.uns["histoweft"]["mpp"] = float("nan")
    adata.write_h5ad(given["h5ad"])
    about = sample.write_sample(tmp_path / "one", sample="one", **given, wanted="all")
    assert about["unit"] == "px"
    assert about["painted"] is None
    assert about["bounds"]["tissue"][2] == pytest.approx(cases.spatial("one")[:, 0].max())
    assert about["image"]["step"] == pytest.approx(2.0 / cases.MPP)


def test_clusters_made_from_other_barcodes(tmp_path):
    given = cases.inputs(tmp_path / "inputs", "one") | {"joint": cases.joint(tmp_path / "joint.parquet")}
    with pytest.raises(InputError, match=r"joint\.parquet.*no row for 200 of 200"):
        sample.write_sample(tmp_path / "x", sample="other", **given, wanted="all")


def test_same_input_gives_the_same_files(made, tmp_path):
    folder, _ = made
    given = cases.inputs(tmp_path / "inputs", "one") | {"joint": cases.joint(tmp_path / "joint.parquet")}
    sample.write_sample(tmp_path / "one", sample="one", **given, wanted="all")
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(
        path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()
    )
    assert all((folder / name).read_bytes() == (tmp_path / "one" / name).read_bytes() for name in names)


def test_page_is_told_of_every_sample(made, tmp_path):
    folder, about = made
    assert site.read_about(folder) == json.loads(json.dumps(about))
    told = site.study_about([about, {**about, "name": "again"}], "study", "")
    assert told["title"] == "study"
    assert [entry["name"] for entry in told["samples"]] == ["one", "again"]
    assert told["schemes"]["Expert: Expert label"] == [("east", "#0072b2"), ("west", "#e69f00")]
    assert not any("colours" in column for entry in told["samples"] for column in entry["columns"])
    assert told["map"][0] == "#440154"
    (tmp_path / "index.html").write_text("a page")
    site.write_site(
        told, web=[tmp_path / "index.html"], page=[tmp_path / "out.html"], study=tmp_path / "data" / "study.js"
    )
    assert (tmp_path / "out.html").read_text() == "a page"
    assert handed(tmp_path / "data" / "study.js") == ("study", json.loads(json.dumps(told)))


def test_half_a_folder_is_said(tmp_path):
    (tmp_path / "sample.json").write_text('{"name": ')
    with pytest.raises(InputError, match=r"sample\.json.*explorer_sample.*Delete the folder"):
        site.read_about(tmp_path)


def test_page_asks_for_nothing_from_elsewhere():
    """No address of another machine, and no markup made from data."""
    from pathlib import Path

    web = Path(site.__file__).parent / "web"
    text = "\n".join(path.read_text() for path in web.iterdir())
    assert not re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text)
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text)
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]*)"', (web / "index.html").read_text())[1]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?:|\*|unsafe", policy)
