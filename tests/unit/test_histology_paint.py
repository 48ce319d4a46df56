"""Painted maps: no seams, no rims, whole stores that other software reads; and the pictures made from them."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from histoweft import plotting
from histoweft.errors import HistoweftError, InputError
from histoweft.histology import figures
from histoweft.histology.paint import check_store, default_levels, paint, read_mask, read_painted

GENES = ["Penk", "Doc2g", "Kctd12"]
SHAPE = (150, 203)


def field(shape=SHAPE, n=3):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([2 + np.sin(y / (9 + gene)) + np.cos(x / 13) for gene in range(n)]).astype(np.float32)


def disc(shape=SHAPE):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (y - 70) ** 2 + (x - 90) ** 2 < 60**2


def sliced(values, calls=None):
    def predict(rows, cols):
        if calls is not None:
            calls.append((rows, cols))
        return values[:, rows, cols]

    return predict


def painted(path, predict=None, **options):
    options = {"genes": GENES, "shape": SHAPE, "um_per_px": 4.0, "window": 64} | options
    paint(path, predict or sliced(field()), **options)
    return path


# ------------------------------------------------------------------------------------------------------------ painting


@pytest.mark.parametrize(("window", "overlap"), [(64, 0), (64, 20), (64, 64), (50, 7), (512, 100), (149, 3)])
def test_what_the_model_says_everywhere_is_what_is_painted(tmp_path, window, overlap):
    calls = []
    painted(tmp_path / "x.zarr", sliced(field(), calls), window=window, overlap=overlap, mask=disc())
    maps, genes, um = read_painted(tmp_path / "x.zarr")
    assert genes == GENES
    assert um == 4
    np.testing.assert_allclose(maps, field() * disc(), atol=2e-3)
    assert all(one.stop - one.start <= window + overlap for area in calls for one in area)


def test_windows_that_disagree_are_blended_by_a_raised_cosine(tmp_path):
    def own_number(rows, cols):
        block = np.zeros((3, rows.stop - rows.start, cols.stop - cols.start))
        block[0], block[1], block[2] = cols.start / 64, rows.start / 64, 1
        return block

    painted(tmp_path / "hard.zarr", own_number)
    painted(tmp_path / "soft.zarr", own_number, overlap=16)
    hard, soft = (read_painted(tmp_path / name)[0] for name in ("hard.zarr", "soft.zarr"))
    assert hard[0, 5, 63:65].tolist() == [0, 1]
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(16) + 0.5) / 16)
    np.testing.assert_allclose(soft[0, 70, 64:80], rise, atol=1e-3)
    np.testing.assert_allclose(soft[1, 128:144, 70], 1 + rise, atol=2e-3)
    assert (soft[0, :, 80:128] == 1).all()
    assert (soft[2] == 1).all()  # the weights sum to one, in corners as well


def test_windows_without_tissue_are_not_predicted_and_what_lies_off_it_does_not_matter(tmp_path):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[10:50, 10:50] = True
    calls, values = [], field()
    values[:, ~mask] = np.nan
    painted(tmp_path / "x.zarr", sliced(values, calls), mask=mask, overlap=8)
    assert calls == [(slice(0, 72), slice(0, 72))]
    maps = read_painted(tmp_path / "x.zarr")[0]
    assert (maps[:, ~mask] == 0).all()
    assert (maps[:, mask] > 0).all()
    assert np.array_equal(read_mask(tmp_path / "x.zarr"), mask)


def test_levels_are_means_over_the_tissue_alone(tmp_path):
    values = np.full((3, *SHAPE), 3.0)
    values[1] = field()[1]
    painted(tmp_path / "x.zarr", sliced(values), mask=disc(), levels=4)
    finer, finer_mask = values[1] * disc(), disc()
    for level in range(1, 4):
        maps, _, um = read_painted(tmp_path / "x.zarr", level=level)
        mask = read_mask(tmp_path / "x.zarr", level=level)
        assert um == 4 * 2**level
        assert maps.shape[1:] == mask.shape == tuple(-(-side // 2**level) for side in SHAPE)
        assert (maps[0] == 3 * mask).all()  # neither a dark rim nor paint off the tissue
        y, x = 9, 11
        four = np.s_[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        expected = finer[four].sum() / max(finer_mask[four].sum(), 1) if mask[y, x] else 0
        assert maps[1, y, x] == pytest.approx(expected, abs=4e-3)
        finer, finer_mask = maps[1], mask


def test_the_last_row_of_an_odd_side_is_averaged_by_itself(tmp_path):
    values = np.arange(15, dtype=np.float32).reshape(1, 3, 5)
    painted(tmp_path / "x.zarr", sliced(values), genes=["a"], shape=(3, 5), levels=2)
    assert read_painted(tmp_path / "x.zarr", level=1)[0].tolist() == [[[3, 5, 6.5], [10.5, 12.5, 14]]]
    assert read_mask(tmp_path / "x.zarr") is None


def test_sizes_beyond_float16_are_cut_and_told(tmp_path, caplog):
    values = field()
    values[1, 3, 4], values[1, 5, 6] = 1e6, -1e6
    with caplog.at_level(logging.WARNING, logger="histoweft"):
        painted(tmp_path / "x.zarr", sliced(values), levels=1)
    assert "Doc2g" in caplog.text
    maps = read_painted(tmp_path / "x.zarr")[0]
    assert [maps[1, 3, 4], maps[1, 5, 6]] == [65504, -65504]


def test_a_model_that_breaks_is_named_with_gene_and_place(tmp_path):
    values = field()
    values[2, 100, 150] = np.nan
    with pytest.raises(HistoweftError, match=r"nan for gene Kctd12 at pixel row 100, column 150"):
        painted(tmp_path / "x.zarr", sliced(values))
    with pytest.raises(HistoweftError, match=r"returned \(2, 64, 64\) where \(3, 64, 64\)"):
        painted(tmp_path / "x.zarr", sliced(values[:2]))


def test_options_that_do_not_fit_are_refused_together(tmp_path):
    with pytest.raises(InputError) as caught:
        painted(
            tmp_path / "x.zarr", genes=["a", "a"], um_per_px=0, window=700, overlap=900, mask=disc((9, 9)),
            he=np.zeros((*SHAPE, 4), np.uint8), levels=0,
        )  # fmt: skip
    assert len(caught.value.faults) == 7
    message = str(caught.value)
    assert "'a' more than once" in message
    assert "found 700; expected 1 to 512 pixels, or a multiple of 512" in message
    assert "(9, 9)" in message
    assert not (tmp_path / "x.zarr").exists()


# --------------------------------------------------------------------------------------------------------------- store


def test_number_of_levels_brings_the_map_down_to_a_chunk():
    assert [default_levels(shape) for shape in [(1, 1), (512, 300), (513, 2), (20_000, 20_000)]] == [1, 1, 2, 7]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    he = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp("painted") / "x.zarr"
    options = {"mask": disc(), "he": he, "levels": 3, "origin_um": (100.0, 40.0), "overlap": 10}
    return painted(path, attributes={"sample": "MOB1"}, **options)


def test_spatialdata_opens_it_in_micrometres(store):
    spatialdata = pytest.importorskip("spatialdata")
    data = spatialdata.read_zarr(store)
    assert set(data.images) == {"expression", "he"}
    assert set(data.labels) == {"tissue"}
    assert data.attrs["histoweft"]["sample"] == "MOB1"
    finest = data["expression"]["scale0"]["image"]
    assert finest.dims == ("c", "y", "x")
    assert finest.coords["c"].values.tolist() == GENES
    assert finest.dtype == np.float16
    assert len(data["expression"]) == 3
    extent = spatialdata.get_extent(data["expression"])
    assert extent["x"] == pytest.approx((100, 100 + 4 * 203))
    assert extent["y"] == pytest.approx((40, 40 + 4 * 150))
    assert extent == spatialdata.get_extent(data["tissue"])


def test_ome_zarr_reads_levels_names_units_and_contrast(store):
    reader = pytest.importorskip("ome_zarr.reader")
    from ome_zarr.io import parse_url

    (node,) = reader.Reader(parse_url(str(store / "images" / "expression")))()
    assert [level.shape for level in node.data] == [(3, 150, 203), (3, 75, 102), (3, 38, 51)]
    assert node.metadata["channel_names"] == GENES
    assert [axis.get("unit") for axis in node.metadata["axes"]] == [None, "micrometer", "micrometer"]
    scale, translation = node.metadata["coordinateTransformations"][1]
    assert scale["scale"] == [1, 8, 8]
    assert translation["translation"] == [0, 44, 104]  # centre of the first pixel, y before x
    low, high = node.metadata["contrast_limits"][0]
    on_tissue = field()[0][disc()]
    assert (low, high) == pytest.approx(tuple(np.percentile(on_tissue, (2, 99.5))), abs=0.05)
    (he,) = reader.Reader(parse_url(str(store / "images" / "he")))()
    assert he.data[0].shape == (3, *SHAPE)
    assert he.data[0].dtype == np.uint8


def test_contrast_comes_from_a_regular_grid_of_pixels_over_all_windows(tmp_path, monkeypatch):
    import zarr

    from histoweft.histology import paint as module

    values = np.zeros((1, *SHAPE))
    values[:, ::8, ::8] = 7  # 30,450 pixels, every 8th in both directions is looked at
    monkeypatch.setattr(module, "_SAMPLES", 500)
    painted(tmp_path / "x.zarr", sliced(values), genes=["a"], window=50)
    (channel,) = zarr.open_group(tmp_path / "x.zarr")["images/expression"].attrs["ome"]["omero"]["channels"]
    assert channel["window"]["start"] == 7


def test_painting_needs_no_spatialdata():
    code = (
        "import sys, tempfile, numpy as np; from histoweft.histology.paint import paint\n"
        "with tempfile.TemporaryDirectory() as d:\n"
        "    paint(d + '/x.zarr', lambda r, c: np.ones((1, 4, 4)), genes=['a'], shape=(4, 4), um_per_px=1)\n"
        "print({'spatialdata', 'dask', 'xarray', 'torch', 'anndata'} & set(sys.modules))"
    )
    library = Path(figures.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=library, check=True)
    assert done.stdout.strip() == "set()"


def test_a_store_with_a_gap_is_not_taken_for_whole(store, tmp_path):
    import zarr

    check_store(store, shape=SHAPE, genes=GENES, levels=3)
    with pytest.raises(HistoweftError, match=r"3 genes .*; expected the 2 painted"):
        check_store(store, genes=GENES[:2])
    with pytest.raises(HistoweftError, match=r"found 3 levels; expected 4"):
        check_store(store, levels=4)
    with pytest.raises(HistoweftError, match=r"s1: found shape \(3, 75, 102\); expected \(3, 76, 102\)"):
        check_store(store, shape=(151, 203))

    broken = tmp_path / "chunk.zarr"
    shutil.copytree(store, broken)
    (broken / "images/expression/s0/c/1/2/0").unlink()
    with pytest.raises(HistoweftError, match=r"s0: found 35 chunks; expected 36"):
        check_store(broken)

    broken = tmp_path / "value.zarr"
    shutil.copytree(store, broken)
    zarr.open_group(str(broken), mode="r+")["images/expression/s2"][2, 7, 7] = np.inf
    with pytest.raises(HistoweftError, match=r"s2: found values that are not finite in channel 2"):
        check_store(broken)

    broken = tmp_path / "level.zarr"
    shutil.copytree(store, broken)
    shutil.rmtree(broken / "labels/tissue/s1")
    with pytest.raises(HistoweftError, match="labels/tissue"):
        check_store(broken)


def test_a_store_with_chunks_cut_short_is_named_with_what_to_do(store, tmp_path):
    damaged = tmp_path / "damaged.zarr"
    shutil.copytree(store, damaged)
    for chunk in [path for path in damaged.rglob("*") if path.is_file() and path.suffix != ".json"]:
        chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    with pytest.raises(InputError, match=r"damaged\.zarr.*delete the folder and start again"):
        read_painted(damaged)
    with pytest.raises(InputError, match="cannot be read"):
        read_mask(damaged)


def test_genes_and_levels_that_are_not_there(store, tmp_path):
    maps, genes, um = read_painted(store, ["Kctd12", "Penk"], max_px=60)
    assert genes == ["Kctd12", "Penk"]
    assert maps.shape == (2, 38, 51)
    assert um == 16
    assert np.array_equal(maps[1], read_painted(store, level=2)[0][0])
    small, _, um = read_painted(store, ["Penk"], max_px=20)
    assert small.shape[1:] == read_mask(store, max_px=20).shape == (10, 13)
    assert um == 64
    assert ((small[0] != 0) == read_mask(store, max_px=20)).all()
    with pytest.raises(InputError) as caught:
        read_painted(store, ["penk2", "Penk", "Xyz"])
    assert "Did you mean 'Penk'?" in str(caught.value)
    assert "Painted: Penk, Doc2g, Kctd12" in str(caught.value)
    with pytest.raises(InputError, match="found level 3; expected 0 to 2"):
        read_painted(store, level=3)
    with pytest.raises(InputError, match="found nothing there; expected a store of painted maps"):
        read_painted(tmp_path / "none.zarr")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(InputError, match="expected a store of painted maps"):
        read_painted(tmp_path / "empty.zarr")


# ------------------------------------------------------------------------------------------------------------- figures


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they were when saved."""
    kept, save = [], plotting.save

    def keep(fig, path, dpi=140):
        kept.append(fig)
        clear, fig.clear = fig.clear, lambda: None
        save(fig, path, dpi)
        fig.clear = clear

    monkeypatch.setattr(plotting, "save", keep)
    return kept


def spots():
    x, y = np.meshgrid(np.arange(60, 660, 60.0), np.arange(60, 500, 60.0))
    xy = np.column_stack([x.ravel(), y.ravel()])
    maps = field()
    return xy, maps[:, (xy[:, 1] / 4).astype(int), (xy[:, 0] / 4).astype(int)].T


def gene_page(path, **options):
    xy, measured = spots()
    given = {
        "rgb": np.full((75, 102, 3), 200, np.uint8), "rgb_um_per_px": 8.0, "maps": field(), "um_per_px": 4.0,
        "genes": GENES, "xy_um": xy, "measured": measured, "held_out": None, "mask": disc(),
        "spot_diameter_um": 55.0, "path": path,
    }  # fmt: skip
    figures.gene_figure(**(given | options))


def test_measured_and_painted_share_one_scale_and_only_held_out_r_is_shown(tmp_path, drawn):
    gene_page(tmp_path / "without.png")
    gene_page(tmp_path / "with.png", held_out=np.array([0.514, 0.2, np.nan]))
    assert (tmp_path / "with.png").stat().st_size > 10_000
    without, having = ([ax.get_title() for ax in fig.axes if ax.get_title()] for fig in drawn)
    assert without == ["measured in spots", "painted"] * 3
    assert having[1] == "painted; held-out r = 0.51"
    assert having[5] == "painted; no held-out r"
    left, right = drawn[1].axes[:2]
    assert left.collections[0].get_clim() == right.images[-1].get_clim()
    assert left.get_xlim() == right.get_xlim()
    assert np.array_equal(right.images[-1].get_array().mask, ~disc())
    assert left.get_ylabel() == "Penk"


def test_gene_pages_that_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match="9 genes on one figure; 1 to 8 fit"):
        gene_page(tmp_path / "x.png", genes=list("abcdefghi"))
    with pytest.raises(ValueError, match=r"maps: 3 where 2 is needed"):
        gene_page(tmp_path / "x.png", genes=["a", "b"])
    with pytest.raises(ValueError, match=r"held_out: \(4,\)"):
        gene_page(tmp_path / "x.png", held_out=np.zeros(4))
    with pytest.raises(ValueError, match=r"a mask of \(9, 9\)"):
        gene_page(tmp_path / "x.png", mask=disc((9, 9)))


def test_colours_of_a_composite_add_up_on_the_tissue_only(tmp_path):
    maps = np.zeros((2, *SHAPE))
    maps[0, 40:80, 60:100] = 5
    maps[1, 60:100, 60:100] = 2
    light = figures.composite(maps, ["A", "B"], 4.0, tmp_path / "c.png", colours=["#ff0000", "#0000ff"], mask=disc())
    assert light[50, 80].tolist() == [1, 0, 0]
    assert light[90, 80].tolist() == [0, 0, 1]
    assert light[70, 80].tolist() == [1, 0, 1]
    assert not light[~disc()].any()
    assert (tmp_path / "c.png").stat().st_size > 3_000
    with pytest.raises(ValueError, match="not 1 maps, 1 names"):
        figures.composite(maps[:1], ["A"], 4.0, tmp_path / "c.png")


def test_reconstruction_names_the_similarity_on_tissue(tmp_path, drawn):
    image = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
    similarity = np.where(disc(), 0.75, 0.1)
    figures.reconstruction_figure(image, image, 4.0, similarity, tmp_path / "r.png", mask=disc())
    titles = [ax.get_title() for ax in drawn[0].axes]
    assert "SSIM, mean on tissue 0.75" in titles
    assert sum(any(line.get_gid() == "scale_bar" for line in ax.lines) for ax in drawn[0].axes) == 6
    with pytest.raises(ValueError, match="sizes differ"):
        figures.reconstruction_figure(image, image[1:], 4.0, similarity, tmp_path / "r.png")


def score_rows():
    methods = {
        "floor:mean": 0.0, "floor:ridge_context": 0.58, "bar:ensemble": 0.64, "ceiling:thinning": 0.86, "net": 0.66,
        "autoencoder": -0.08,
    }  # fmt: skip
    rows = [
        {
            "study": "mob", "method": method, "sample": sample, "protocol": protocol, "fold": "all",
            "metric": "pearson_top50", "value": value, "low": value - 0.02, "high": value + 0.03,
            "panel": "top50 (50)", "note": "default" if method == "net" else "",
        }
        for method, value in methods.items() for protocol in ("section", "block") for sample in ("s1", "s2", "all")
        if not (protocol == "block" and sample == "all")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_scores_are_sorted_and_told_apart(tmp_path, drawn):
    figures.score_figure(score_rows(), tmp_path / "s.png", "top50")
    panels = [ax for ax in drawn[0].axes if ax.get_title()]
    assert [ax.get_title() for ax in panels] == [
        "mob: whole sections held out\nmean of 2 sections", "mob: blocks held out\ns1", "mob: blocks held out\ns2",
    ]  # fmt: skip
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    assert names == ["autoencoder", "mean (floor)", "ridge context (floor)", "ensemble (bar)", "★ net"]
    colours = [bar.get_facecolor()[:3] for bar in panels[0].patches]
    assert colours[1] == colours[2] == pytest.approx(to_rgb("#b8b8b8"))
    assert len(set(colours)) == 4
    assert "ceiling 0.86" in [text.get_text() for text in panels[0].texts]
    with pytest.raises(ValueError, match=r"no rows of pearson_all .* there are pearson_top50"):
        figures.score_figure(score_rows(), tmp_path / "s.png", "all")


def test_the_best_epoch_is_the_one_of_least_held_out_loss(tmp_path, drawn):
    history = pd.DataFrame({"epoch": [0, 1, 2, 3], "train": [4, 3, 2, 1], "held_out": [5, 2.5, np.nan, 3]})
    figures.training_figure(history, tmp_path / "t.png")
    labels = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert labels == ["training", "held out", "best: epoch 1, 2.5"]
    with pytest.raises(ValueError, match="no held_out in the training history"):
        figures.training_figure(history[["epoch", "train"]], tmp_path / "t.png")


def test_what_is_left_of_a_training_score_is_said(tmp_path, drawn):
    table = pd.DataFrame(
        [("MOB1", "net", 0.7, 0.63), ("MOB1", "autoencoder", 0.85, 0.08), ("A1", "net", 0.4, -0.1)],
        columns=["sample", "method", "training", "held_out"],
    )
    figures.overfit_figure(table, tmp_path / "o.png")
    first, second = drawn[0].axes
    assert [t.get_text() for t in first.get_xticklabels()] == ["autoencoder\nkeeps 9%", "net\nkeeps 90%"]
    assert [t.get_text() for t in second.get_xticklabels()] == ["net\nkeeps 0%"]
    with pytest.raises(ValueError, match="no held_out"):
        figures.overfit_figure(table.drop(columns="held_out"), tmp_path / "o.png")
