"""The pyramid of maps: windows and points agree, tissue only, strips without seams; the footprints of spots."""

import dataclasses

import histology_cases as cases
import numpy as np
import pytest

from histoweft.errors import InputError
from histoweft.histology import context
from histoweft.histology.stain import REFERENCE


def build(rgb, mask, **options):
    return context.build(rgb, cases.UM_PER_PX, mask, REFERENCE, cases.SPOT_UM, **{"levels": cases.LEVELS} | options)


def same(a, b):
    """Whether two pyramids are equal up to rounding in float16."""
    pairs = zip(a.levels, b.levels, strict=True)
    return np.array_equal(a.edge, b.edge) and all(
        np.allclose(one.maps.astype(np.float32), other.maps.astype(np.float32), atol=2e-3)
        and np.allclose(one.tissue, other.tissue)
        for one, other in pairs
    )


@pytest.mark.parametrize(
    "where", [(slice(0, 40), slice(0, 25)), (slice(91, 130), slice(7, 60)), (slice(170, 205),) * 2]
)
def test_windows_equal_points(where):
    pyramid = cases.pyramid()
    rows, cols = (np.arange(205)[part] for part in where)
    factor = pyramid.levels[0].factor
    x, y = np.meshgrid((cols + 0.5) * factor - 0.5, (rows + 0.5) * factor - 0.5)
    points = pyramid.sample(np.stack([x.ravel(), y.ravel()], axis=1))
    window = pyramid.window(*where)
    assert window.shape == (len(pyramid.features), len(rows), len(cols)) == (94, len(rows), len(cols))
    assert window.dtype == points.dtype == np.float32
    np.testing.assert_allclose(window.reshape(len(window), -1).T, points, atol=2e-3)
    # These pixels are not all alike.
    assert points.std(axis=0)[: len(context.BASE)].max() > 0.1


def test_points_between_pixels_are_interpolated_and_beyond_the_image_the_nearest():
    pyramid = cases.pyramid()
    at = np.array([[200.5, 300.5], [202.5, 300.5], [201.5, 300.5]])
    one, other, between = pyramid.sample(at)[:, : len(context.BASE)]
    np.testing.assert_allclose(between, (one + other) / 2, atol=2e-3)
    inside, outside = pyramid.sample(np.array([[0.5, 300.5], [-90.0, 300.5]]))
    np.testing.assert_allclose(inside, outside)


def test_features_are_named_in_their_order():
    pyramid = cases.pyramid()
    assert pyramid.features[:2] == ["od_red@1", "od_green@1"]
    assert pyramid.features[len(context.BASE)] == "tissue@1"
    assert pyramid.features[-5:] == ["tissue@16", "edge_log", "edge_300", "edge_1000", "edge_3000"]
    assert len(set(pyramid.features)) == len(pyramid.features)
    values = dict(zip(pyramid.features, pyramid.sample(np.array([[204.5, 204.5]]))[0]))
    depth = cases.section().depth[204, 204]
    assert values["edge_300"] == 1
    assert values["edge_1000"] == pytest.approx(depth / 1000, abs=0.02)
    assert values["edge_log"] == pytest.approx(np.log1p(depth / 100), abs=0.02)
    assert values["tissue@1"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("paint", ["black", "noise"])
def test_what_lies_well_off_the_tissue_changes_nothing(paint):
    from scipy.ndimage import distance_transform_edt

    one = cases.section()
    rgb = one.rgb.copy()
    # Texture filters at the tissue's edge read as far as four times the widest of them.
    off = distance_transform_edt(~one.mask) > 4 * 4 * context.FINEST_TEXTURE_UM
    rgb[off] = 0 if paint == "black" else np.random.default_rng(0).integers(0, 256, (off.sum(), 3))
    assert same(build(rgb, one.mask), cases.pyramid())
    # The test can fail: what lies on the tissue matters.
    rgb[150:160, 150:160] = 0
    assert not same(build(rgb, one.mask), cases.pyramid())


class Encoder:
    """A stand-in: the mean of what a pixel sees around it, which needs a margin."""

    names = ("around", "row")
    margin = 12

    def encode(self, rgb, top, mask):
        from scipy.ndimage import uniform_filter

        around = uniform_filter(rgb.mean(axis=2), 13, mode="nearest")
        return np.stack([around, np.arange(top, top + len(rgb))[:, None] + np.zeros(rgb.shape[:2])]).astype(np.float32)


def test_strips_give_what_one_pass_gives(monkeypatch):
    one = cases.section()
    whole = build(one.rgb, one.mask, encoder=Encoder())
    assert whole.names == (*context.BASE, "around", "row")
    monkeypatch.setattr(context, "_STRIP", 410 * 30)
    assert len(list(context._strips(one.rgb.shape, 2, 4))) == 14
    assert same(build(one.rgb, one.mask, encoder=Encoder()), whole)


def test_maps_are_standardised_over_the_tissue():
    one = cases.section()
    pyramid = cases.pyramid()
    finest = pyramid.levels[0].maps.astype(np.float32)
    inside = one.mask[::2, ::2][:205, :205]
    assert np.abs(finest[:, inside].mean(axis=1)).max() < 0.1
    assert finest[:, inside].std(axis=1).max() < 1.05  # smoothed by a pixel: less than 1
    assert finest[list(context.BASE).index("haematoxylin"), inside].std() > 0.8
    assert np.abs(finest[:, :4]).max() == 0


def test_standardising_looks_at_the_tissue_only_and_limits_what_is_far_off():
    random = np.random.default_rng(0)
    tissue = np.where(random.random((40, 50)) < 0.5, 1.0, 0.0).astype(np.float32)
    tissue[0] = 0.25
    maps = random.normal([[[5.0]], [[-2.0]]], [[[3.0]], [[0.1]]], (2, 40, 50)).astype(np.float32)
    maps[:, tissue == 0] = 1e6
    maps[0, 5, 5], tissue[5, 5] = 1e4, 1
    context._standardise(maps, tissue)
    assert maps[0, 5, 5] == 6
    assert np.abs(maps[:, tissue == 0]).max() == 0
    assert maps[1][tissue == 1].mean() == pytest.approx(0, abs=0.01)
    assert maps[1][tissue == 1].std() == pytest.approx(1, abs=0.01)
    assert 0.15 < maps[1][tissue == 0.25].std() < 0.35  # weighted by the share of tissue
    flat = np.full((1, 40, 50), 7.0, np.float32)
    context._standardise(flat, tissue)
    assert np.abs(flat).max() == 0


def test_features_do_not_depend_on_how_dark_the_section_was_stained():
    one = cases.section()
    glass = REFERENCE.background
    density = np.log((glass + 1) / (one.rgb.astype(float) + 1))
    paler = np.rint((glass + 1) * np.exp(-0.7 * density) - 1).astype(np.uint8)
    stained = dataclasses.replace(REFERENCE, maximum=0.7 * REFERENCE.maximum)
    other = context.build(paler, cases.UM_PER_PX, one.mask, stained, cases.SPOT_UM, levels=cases.LEVELS)
    at = one.xy_um / cases.UM_PER_PX
    scale_free = [i for i, name in enumerate(other.features) if not name.startswith(("nuclei", "saturation"))]
    a, b = (features.sample(at)[:, scale_free] for features in (cases.pyramid(), other))
    assert np.abs(a - b).max() < 0.2


def test_the_grid_is_a_sixteenth_of_a_spot_and_coarser_where_the_image_is_large(monkeypatch):
    assert context.grid_factor((500, 500), 0.5, 100.0) == 12
    assert context.grid_factor((500, 500), 40.0, 100.0) == 1
    assert context.grid_factor((40_000, 30_000), 0.5, 55.0) == 10
    monkeypatch.setattr(context, "MOST_PIXELS", 10_000)
    factor = context.grid_factor((410, 410), 4.0, 100.0)
    assert (410 // factor) ** 2 <= 10_000


def test_levels_halve_and_average_over_the_tissue_only():
    pyramid = cases.pyramid()
    assert [level.factor for level in pyramid.levels] == [2, 4, 8, 16, 32]
    assert [level.maps.shape[1:] for level in pyramid.levels] == [(n, n) for n in (205, 103, 52, 26, 13)]
    # A map that is constant on the tissue is so up to the edge, however coarse the grid and however little tissue.
    tissue = np.zeros((64, 64), np.float32)
    tissue[10:40, 5:30] = 1
    for level in context._levels(np.full((1, 64, 64), 3.0, np.float32) * tissue, tissue, 1, 4):
        assert np.allclose(level.maps[0][level.tissue > 0.01], 3, atol=0.01)


def test_distance_to_the_edge_is_in_um():
    one = cases.section()
    edge = cases.pyramid().edge
    depth = one.depth[::2, ::2][:205, :205]
    assert np.abs(edge - depth).max() < 2 * cases.pyramid().grid_um
    # A piece cut out of the tissue has no edge; no corner of it may pass for one.
    whole = build(one.rgb[100:200, 100:180], np.ones((100, 80), bool), levels=2)
    assert (whole.edge == 3000).all()


def test_no_tissue_is_an_error():
    one = cases.section()
    with pytest.raises(InputError, match=r"tissue mask: found no tissue; expected at least some.*contact sheet"):
        build(one.rgb, np.zeros_like(one.mask))


# ---------------------------------------------------------------------------------------------------- on disk


def test_what_is_saved_comes_back(tmp_path):
    pyramid = cases.pyramid()
    context.save(pyramid, tmp_path / "features")
    back = context.load(tmp_path / "features")
    assert same(back, pyramid)
    assert (back.um_per_px, back.names, back.features) == (pyramid.um_per_px, pyramid.names, pyramid.features)
    where = (slice(50, 70), slice(30, 60))
    assert np.array_equal(back.window(*where), pyramid.window(*where))
    assert isinstance(back.levels[0].maps, np.memmap)


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("maps_1.npy", lambda path: path.unlink()),
        ("maps_0.npy", shorten),
        ("tissue_0.npy", lambda path: path.write_bytes(b"")),
        ("edge.npy", lambda path: path.write_bytes(b"")),
        ("context.json", lambda path: path.write_text("{}")),
        ("context.json", lambda path: path.write_text("{")),
        ("context.json", lambda path: path.unlink()),
    ],
)
def test_a_broken_folder_is_named(tmp_path, file, harm):
    context.save(cases.pyramid(), tmp_path / "features")
    harm(tmp_path / "features" / file)
    with pytest.raises(InputError, match=r"features: .*expected the image features of a sample.*Delete the folder"):
        context.load(tmp_path / "features")


# ------------------------------------------------------------------------------------------------- footprints


def test_a_disc_is_covered_evenly():
    centres = np.array([[10.0, -4.0], [100.0, 50.0]])
    points = context.footprints(centres, 30.0)
    assert points.shape == (2, context.POINTS, 2)
    offsets = points - centres[:, None]
    np.testing.assert_allclose(offsets[0], offsets[1], atol=1e-9)
    radius = np.hypot(*offsets[0].T)
    assert radius.max() < 15
    # The means over the points are those over the disc: of x and y 0, of the squared radius half the largest one's.
    assert np.abs(offsets[0].mean(axis=0)).max() < 0.03 * 15
    assert (radius**2).mean() == pytest.approx(15**2 / 2)
    assert (offsets[0] ** 2).mean(axis=0) == pytest.approx([15**2 / 4] * 2, rel=0.05)
    assert (radius < 7.5).sum() == context.POINTS / 4


def test_the_mean_over_a_footprint_is_the_mean_of_the_disc():
    pyramid, one = cases.pyramid(), cases.section()
    at = one.xy_um[[30, 66, 100]] / cases.UM_PER_PX
    size = cases.SPOT_UM / cases.UM_PER_PX
    sampled = pyramid.sample(context.footprints(at, size).reshape(-1, 2)).reshape(3, context.POINTS, -1).mean(axis=1)
    y, x = np.mgrid[:410, :410]
    disc = [(x - cx) ** 2 + (y - cy) ** 2 <= (size / 2) ** 2 for cx, cy in at]
    every = np.stack([pyramid.sample(np.argwhere(one)[:, ::-1].astype(float)).mean(axis=0) for one in disc])
    spread = pyramid.sample(one.xy_um / cases.UM_PER_PX).std(axis=0) + 0.1
    assert np.abs((sampled - every) / spread).mean() < 0.1
    assert np.abs((sampled - every) / spread).max() < 0.6


def test_bins_are_squares():
    offsets = context.footprints(np.zeros((1, 2)), 8.0, square=True)[0]
    assert offsets.shape == (25, 2)
    line = (np.arange(5) - 2) * 1.6
    assert sorted(map(tuple, offsets.round(6))) == sorted((x, y) for x in line.round(6) for y in line.round(6))
    assert context.footprints(np.zeros((1, 2)), 8.0, square=True, points=4).shape == (1, 4, 2)
