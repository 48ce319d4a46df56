"""Pictures: colours, discs to scale, scale bars, files."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_hex, to_rgba

from histoweft import plotting


def grid(n=6, pitch=100.0):
    gx, gy = np.meshgrid(np.arange(n), np.arange(n))
    return np.column_stack([gx.ravel(), gy.ravel()]) * pitch + 50


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_colours_follow_the_order_and_spare_the_unlabelled():
    colours = plotting.category_colours(["a", "unlabelled", "b", float("nan"), "a"])
    again = plotting.category_colours(["x", "y"])
    assert [colours["a"], colours["b"]] == [again["x"], again["y"]]
    assert colours["unlabelled"] == colours["nan"] == plotting.UNLABELLED
    assert len(colours) == 4


def test_thirty_two_colours_differ_from_each_other():
    colours = plotting.category_colours([str(i) for i in range(32)])
    assert len(set(colours.values())) == 32
    assert plotting.UNLABELLED not in colours.values()


def oklab(colours, sight=None):
    """Colours in Oklab x 100, as seen with the given sight (linear RGB matrix)."""
    rgb = np.array([to_rgba(c)[:3] for c in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    if sight is not None:
        linear = np.clip(linear @ np.array(sight).T, 0, 1)
    cones = np.array([[0.41222, 0.53633, 0.05145], [0.21190, 0.68070, 0.10740], [0.08830, 0.28172, 0.62998]])
    to_lab = np.array([[0.21045, 0.79362, -0.00407], [1.97800, -2.42859, 0.45059], [0.02590, 0.78277, -0.80868]])
    return 100 * np.cbrt(linear @ cones.T) @ to_lab.T


@pytest.mark.parametrize(
    "sight",
    [
        None,
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],  # no green cones
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],  # no red cones
    ],
)
def test_the_first_twelve_colours_can_be_told_apart_by_colour_blind_readers(sight):
    lab = oklab(list(plotting.category_colours("abcdefghijkl").values()), sight)
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert apart[np.triu_indices(12, 1)].min() > 7  # 2 is about a just noticeable difference


def test_discs_are_drawn_to_scale():
    _, axes = plotting.new_figure()
    discs = plotting.tissue(axes[0, 0], grid(), np.arange(36.0), mpp=0.5, spot_diameter_um=30)
    assert isinstance(discs, EllipseCollection)
    assert np.allclose(discs.get_widths(), 60)
    assert np.allclose(discs.get_array(), np.arange(36))
    assert axes[0, 0].yaxis_inverted()


@pytest.mark.parametrize(("fallback", "share"), [(True, 0.85), (False, 0.35)])
def test_without_a_known_size_dots_follow_the_spacing(fallback, share):
    _, axes = plotting.new_figure()
    discs = plotting.tissue(axes[0, 0], grid(pitch=10), np.zeros(36), size_fallback=fallback)
    assert np.allclose(discs.get_widths(), 10 * share)


def test_many_points_become_a_rasterised_scatter():
    rng = np.random.default_rng(0)
    _, axes = plotting.new_figure(ncols=2)
    n = plotting.MAX_DISCS + 1
    drawn = plotting.tissue(axes[0, 0], rng.random((n, 2)), rng.random(n))
    assert drawn.get_rasterized()
    assert not isinstance(drawn, EllipseCollection)
    named = plotting.tissue(axes[0, 1], rng.random((n, 2)), np.where(np.arange(n) % 2, "a", "b"))
    assert len(named.get_offsets()) == n


def test_categories_keep_their_order_and_colours():
    _, axes = plotting.new_figure(ncols=3)
    plain = np.array(["10", "2", "1"] * 12)
    discs = plotting.tissue(axes[0, 0], grid(), plain, alpha=1)
    assert legend_texts(axes[0, 0]) == ["1", "2", "10"]
    expected = plotting.category_colours(["1", "2", "10"])
    assert [to_hex(c) for c in discs.get_facecolor()[:3]] == [expected[v] for v in plain[:3]]

    ordered = pd.Categorical(["WM", "L1", None] * 12, categories=["WM", "L2", "L1"])
    plotting.tissue(axes[0, 1], grid(), pd.Series(ordered))
    assert legend_texts(axes[0, 1]) == ["WM", "L1", "unlabelled"]

    own = plotting.tissue(axes[0, 2], grid(), plain, colours={"1": "#123456"}, legend=False, alpha=1)
    assert to_hex(own.get_facecolor()[2]) == "#123456"
    assert axes[0, 2].get_legend() is None


def test_a_section_that_lacks_a_category_keeps_the_colours_of_the_others():
    _, axes = plotting.new_figure(ncols=2)
    names = ["L1", "L2", "L3"]
    drawn = [
        plotting.tissue(ax, grid(), pd.Series(pd.Categorical(values * 18, categories=names)), alpha=1)
        for ax, values in zip(axes.flat, (["L1", "L3"], ["L2", "L3"]))
    ]
    of_third = {to_hex(discs.get_facecolor()[1]) for discs in drawn}
    assert of_third == {plotting.category_colours(names)["L3"]}
    assert legend_texts(axes[0, 1]) == ["L2", "L3"]


def test_colours_of_a_study_do_not_depend_on_order_or_on_what_was_refused():
    given = plotting.shared_colours(["vein", "10", "2", "artery", "vein", None])
    assert list(given) == ["2", "10", "artery", "vein"]
    assert given == plotting.category_colours(["2", "10", "artery", "vein"])
    refused = plotting.shared_colours(["vein", "unknown", "artery", "2", float("nan"), "10"])
    assert refused == given | {"unknown": plotting.UNLABELLED}


def test_missing_numbers_are_grey_and_out_of_the_scale():
    values = np.arange(36.0)
    values[:3] = np.nan
    _, axes = plotting.new_figure()
    drawn = plotting.tissue(axes[0, 0], grid(), values)
    grey = axes[0, 0].collections[0]
    assert len(grey.get_offsets()) == 3
    assert to_hex(grey.get_facecolor()[0]) == plotting.UNLABELLED
    assert drawn.get_clim() == (3, 35)


def test_the_image_lies_under_the_spots_in_full_resolution_pixels():
    image = np.full((40, 60, 3), 255, np.uint8)
    image[20, 30] = 0  # full-resolution x 300, y 200
    _, axes = plotting.new_figure()
    xy = np.array([[300.0, 200.0], [100, 50], [550, 350]])
    plotting.tissue(axes[0, 0], xy, ["a"] * 3, image=image, image_scale=0.1)
    shown = axes[0, 0].get_images()[0]
    left, right, bottom, top = shown.get_extent()
    patch = np.asarray(shown.get_array())
    row, col = np.argwhere(patch[..., 0] == 0)[0]
    assert left + (col + 0.5) * (right - left) / patch.shape[1] == pytest.approx(305)
    assert top + (row + 0.5) * (bottom - top) / patch.shape[0] == pytest.approx(205)


def test_a_large_image_is_thinned_without_moving_it():
    image = np.zeros((5_000, 4_100), np.uint8)
    image[2_500:, :] = 200
    _, axes = plotting.new_figure()
    plotting.tissue(axes[0, 0], np.array([[10.0, 10], [4_090, 4_990]]), [1, 2], image=image)
    shown = axes[0, 0].get_images()[0]
    patch = np.asarray(shown.get_array())
    assert max(patch.shape) <= plotting.MAX_IMAGE_SIDE
    _, _, bottom, top = shown.get_extent()
    edge = top + np.argmax(patch[:, 5] > 0) * (bottom - top) / patch.shape[0]
    assert edge == pytest.approx(2_500, abs=3)


@pytest.mark.parametrize(
    ("width", "um_per_unit", "um"),
    [(1_000, 1, 200), (13_000, 0.5, 1_000), (500, 1, 100), (26_000, 0.5, 2_000)],
)
def test_the_scale_bar_spans_about_a_fifth(width, um_per_unit, um):
    _, axes = plotting.new_figure()
    ax = axes[0, 0]
    ax.set_xlim(0, width)
    assert plotting.scale_bar(ax, um_per_unit) == pytest.approx(um)
    x = ax.lines[0].get_xdata()
    assert (x[1] - x[0]) * um_per_unit == pytest.approx(um)
    assert 0.1 < (x[1] - x[0]) / width < 0.35
    assert ax.get_xlim() == (0, width)
    assert ax.texts[0].get_text() == (f"{um} µm" if um < 1000 else f"{um // 1000} mm")


def test_no_scale_bar_where_the_size_of_a_pixel_is_unknown():
    _, axes = plotting.new_figure()
    plotting.tissue(axes[0, 0], grid(), np.zeros(36), mpp=float("nan"), spot_diameter_um=55)
    assert not axes[0, 0].lines


def test_positions_that_are_missing_are_left_out_and_wrong_shapes_refused():
    xy = grid()
    xy[0] = np.nan
    _, axes = plotting.new_figure()
    assert len(plotting.tissue(axes[0, 0], xy, np.arange(36)).get_offsets()) == 35
    assert plotting.tissue(axes[0, 0], np.full((2, 2), np.nan), [1, 2]) is None
    with pytest.raises(ValueError, match="n x 2"):
        plotting.tissue(axes[0, 0], xy[:, :1], np.arange(36))
    with pytest.raises(ValueError, match="35 values for 36 positions"):
        plotting.tissue(axes[0, 0], xy, np.arange(35))


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_figure_gives_the_same_file(tmp_path, suffix):
    def draw(name):
        fig, axes = plotting.new_figure(ncols=2)
        plotting.tissue(axes[0, 0], grid(), np.arange(36.0), mpp=1, title="t")
        plotting.tissue(axes[0, 1], grid(), ["a", "b"] * 18)
        path = tmp_path / "sub" / f"{name}.{suffix}"
        plotting.save(fig, path)
        assert not fig.axes
        return path.read_bytes()

    assert draw("one") == draw("two")
    assert sorted(p.name for p in (tmp_path / "sub").iterdir()) == [f"one.{suffix}", f"two.{suffix}"]


def test_another_suffix_is_refused(tmp_path):
    fig, _ = plotting.new_figure()
    with pytest.raises(ValueError, match="jpeg"):
        plotting.save(fig, tmp_path / "figure.jpeg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["pdf", "svg"])
def test_a_vector_figure_lies_beside_the_png_when_asked_for(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HISTOWEFT_VECTOR", kind)
    fig, axes = plotting.new_figure()
    axes[0, 0].set_title("words")
    plotting.save(fig, tmp_path / "figure.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["figure.png", f"figure.{kind}"])
    drawn = (tmp_path / f"figure.{kind}").read_bytes()
    assert drawn.startswith(b"%PDF") if kind == "pdf" else b">words<" in drawn
    plotting.save(plotting.new_figure()[0], tmp_path / "other.svg")
    assert not (tmp_path / "other.pdf").exists()


def test_axes_come_as_a_grid():
    fig, axes = plotting.new_figure(ncols=3, nrows=2, panel=(2, 1))
    assert axes.shape == (2, 3)
    assert tuple(fig.get_size_inches()) == (6, 2)


def test_importing_is_light_and_drawing_leaves_pyplot_out(repo):
    code = """
import sys
from histoweft import plotting
assert "matplotlib" not in sys.modules, "matplotlib imported at the top"
fig, axes = plotting.new_figure()
plotting.tissue(axes[0, 0], [[0, 0], [1, 1]], ["a", "b"], mpp=1)
print("matplotlib.pyplot" in sys.modules)
"""
    path = str(repo / "workflow" / "lib")
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_type_has_one_colour_in_every_kind_of_picture():
    """Labels on tissue, shares in spots and the assembled file agree, whatever a section holds."""
    from histoweft.annotation.figures import label_colours
    from histoweft.report.assemble import _colours

    types = ["b_cell", "tumour", "vein"]
    labels = label_colours(types)
    assert {name: labels[name] for name in types} == plotting.shared_colours(types)
    obs = pd.DataFrame({"cell_type": pd.Categorical(["vein", "unknown"], categories=[*types, "unknown"])})
    assert _colours(obs)["cell_type_colors"] == [*(labels[name] for name in types), plotting.UNLABELLED]
