"""Tissue is told from what else lies on a slide; the stains put in come out; tiles cover the image, blur is seen."""

import json
import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from histoweft.errors import InputError
from histoweft.histology.stain import REFERENCE, Stain, densities, estimate, normalise, target, white_point
from histoweft.histology.tiles import contact_sheet, grid, in_words, quality, rates
from histoweft.histology.tissue import (
    draw_discs,
    edge_distance,
    find_tissue,
    otsu,
    read_mask,
    shrink,
    tissue_mask,
    write_mask,
)  # fmt: skip

UM = 4.0
SIDE = 500
MATRIX = np.array([[0.72, 0.64, 0.27], [0.30, 0.88, 0.36]])
OTHER = np.array([[0.60, 0.72, 0.35], [0.15, 0.93, 0.33]])


def unit(matrix):
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def disc(y, x, radius, side=SIDE):
    rows, columns = np.mgrid[:side, :side]
    return (rows + 0.5 - y) ** 2 + (columns + 0.5 - x) ** 2 <= radius**2


def amounts(mask, seed=0):
    """Haematoxylin in nuclei, eosin around them; h x w x 2."""
    random = np.random.default_rng(seed)
    nuclei = gaussian_filter(random.random(mask.shape), 1.5)
    nuclei = (nuclei > np.quantile(nuclei, 0.8)) * random.uniform(0.5, 1.2, mask.shape)
    ground = gaussian_filter(random.random(mask.shape), 6) / 0.5
    return np.stack([nuclei, ground * 0.4 * (nuclei == 0)], axis=-1) * mask[..., None]


def paint(stained, matrix=MATRIX, glass=(240, 240, 240)):
    light = np.exp(-(stained @ unit(matrix))) * (np.array(glass) + 1) - 1
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def section():
    mask = disc(250, 250, 180)
    return paint(amounts(mask)), mask


def agreement(one, other):
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


# ------------------------------------------------------------------------------------------------------------ tissue


@pytest.mark.parametrize("um", [0.9, 4.0, 16.0])
def test_tissue_is_found_at_any_pixel_size(um, section):
    rgb, mask = section
    wrong = tissue_mask(rgb, um) ^ mask
    # The blur may move the outline, but by no more than its own width.
    assert np.abs(edge_distance(mask, um)[wrong]).mean() < max(10, um)
    assert np.abs(edge_distance(mask, um)[wrong]).max() < max(20, 3 * um)


@pytest.mark.parametrize("glass", [(255, 255, 255), (174, 178, 176), (244, 243, 255)])
def test_glass_may_be_grey_or_tinted(glass):
    mask = disc(250, 250, 180)
    assert agreement(tissue_mask(paint(amounts(mask), glass=glass), UM), mask) > 0.95


def test_shadows_haze_bubbles_and_specks_are_not_tissue(section):
    rgb, mask = section
    rgb = rgb.copy()
    rgb[:40] = 120  # the shadow of a frame
    rgb[disc(450, 60, 30) & ~disc(450, 60, 24)] = 90  # a bubble
    rgb[460:, 300:] = (250, 238, 248)  # haze of eosin
    speck = disc(60, 440, 6)
    rgb[speck] = paint(np.full((SIDE, SIDE, 2), 0.5))[speck]
    found = tissue_mask(rgb, UM)
    assert agreement(found, mask) > 0.95
    assert not found[~disc(250, 250, 200)].any()


def test_black_surroundings_and_an_inset_without_spots_are_dropped(section):
    rgb, mask = section
    rgb = rgb.copy()
    rgb[~disc(250, 250, 195)] = 0
    rgb[:110, 390:] = 230
    inset = disc(55, 445, 40)
    rgb[inset] = paint(amounts(inset))[inset]
    spots = np.argwhere(mask)[::997, ::-1]
    assert tissue_mask(rgb, UM)[inset].mean() > 0.9
    found = find_tissue(rgb, UM, spots, 20)
    assert not found.mask[inset].any()
    assert agreement(found.mask, mask) > 0.95
    assert found.spots_outside < 0.02
    assert found.warnings == []


def test_spots_off_the_tissue_are_counted_and_kept(section):
    rgb, _ = section
    on = [[250, 250], [200, 220], [300, 260]]
    found = find_tissue(rgb, UM, np.array([*on, [30, 40]]), 20)
    assert found.spots_outside == pytest.approx(0.25)
    assert found.mask[disc(40, 30, 9)].all()
    assert not found.mask[disc(40, 30, 30) & ~disc(40, 30, 16)].any()
    # Off the image they count too, and are warned about.
    found = find_tissue(rgb, UM, np.array([*on, [30, 40], [-9, 1], [9, 9_000]]), float("nan"))
    assert found.spots_outside == pytest.approx(0.5)
    assert "50% of the spots" in found.warnings[0]


def test_small_holes_are_filled_and_large_ones_kept(section):
    rgb, _ = section
    rgb = rgb.copy()
    small, large = disc(200, 200, 11), disc(300, 300, 35)
    rgb[small | large] = 240
    found = tissue_mask(rgb, UM)
    assert found[small].all()
    assert found[large].mean() < 0.25


def test_images_without_tissue_scale_or_spots_are_refused(section):
    rgb, _ = section
    with pytest.raises(InputError, match=r"no tissue on it.*right image"):
        tissue_mask(np.full((200, 200, 3), 240, dtype=np.uint8), UM)
    with pytest.raises(InputError, match="no tissue on it"):
        tissue_mask(np.zeros((200, 200, 3), dtype=np.uint8), UM)
    with pytest.raises(InputError, match=r"um per pixel: found nan.*column mpp"):
        tissue_mask(rgb, float("nan"))
    with pytest.raises(InputError, match=r"none of 2 spots on the image.*500 x 500"):
        tissue_mask(rgb, UM, np.array([[900, 10], [700, 800]]), 20)


def test_otsu_equals_trying_every_threshold():
    random = np.random.default_rng(1)
    values = np.concatenate([random.normal(0.1, 0.03, 900), random.normal(0.5, 0.1, 300)])

    def between(threshold):
        low, high = values[values <= threshold], values[values > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = max(np.linspace(values.min() + 0.01, values.max() - 0.01, 500), key=between)
    assert otsu(values) == pytest.approx(best, abs=0.02)


def test_discs_have_their_area_and_end_at_the_border():
    mask = np.zeros((100, 120), dtype=bool)
    draw_discs(mask, np.array([[60.0, 50.0], [0.0, 0.0]]), 30)
    assert mask[30:70].sum() == pytest.approx(np.pi * 15**2, rel=0.02)
    assert mask[:16, :16].sum() == pytest.approx(np.pi * 15**2 / 4, rel=0.05)
    single = np.zeros((9, 9), dtype=bool)
    draw_discs(single, np.array([[3.9, 5.1]]), 0)
    assert np.argwhere(single).tolist() == [[5, 3]]


def test_shrinking_averages_blocks_and_keeps_what_is_left_over():
    array = np.arange(35, dtype=np.uint8).reshape(5, 7)
    small = shrink(array, 2)
    assert small.shape == (3, 4)
    assert small[0, 0] == round((0 + 1 + 7 + 8) / 4)
    assert small[2, 3] == 34
    assert shrink(array > 3, 1).tolist() == ((array > 3) * 255).tolist()


def test_distance_to_the_edge_is_in_micrometres_and_signed():
    distance = edge_distance(disc(250, 250, 100), 2.0)
    assert distance.dtype == np.float32
    assert distance[250, 250] == pytest.approx(200, abs=3)
    assert distance[250, 20] == pytest.approx(-260, abs=3)
    assert edge_distance(np.ones((50, 90), dtype=bool), 2.0).max() == pytest.approx(50, abs=1)
    with pytest.raises(ValueError, match="no tissue"):
        edge_distance(np.zeros((5, 5), dtype=bool), 1)


def test_masks_go_to_disk_and_back(tmp_path, section):
    _, mask = section
    odd = mask[:, :-3]
    write_mask(tmp_path / "mask.npz", odd, UM)
    again, um = read_mask(tmp_path / "mask.npz")
    assert um == UM
    assert again.dtype == bool
    assert np.array_equal(again, odd)
    assert (tmp_path / "mask.npz").stat().st_size < 5_000
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="no tissue mask"):
        read_mask(tmp_path / "bad.npz")


# ------------------------------------------------------------------------------------------------------------- stain


def degrees(one, other):
    return np.degrees(np.arccos(np.clip((unit(one) * unit(other)).sum(axis=1), -1, 1)))


@pytest.mark.parametrize("matrix", [MATRIX, OTHER])
def test_stains_put_in_come_out(matrix):
    mask = disc(250, 250, 180)
    stained = amounts(mask)
    stain, warnings = estimate(paint(stained, matrix), mask, seed=3)
    assert warnings == []
    assert degrees(stain.matrix, matrix).max() < 3
    assert stain.background == pytest.approx([240, 240, 240], abs=1)
    assert stain.maximum == pytest.approx(np.percentile(stained[mask], 99, axis=0), rel=0.1)
    found = densities(paint(stained, matrix), stain)
    assert found.dtype == np.float32
    for number in range(2):
        r = np.corrcoef(found[mask][:, number], stained[mask][:, number])[0, 1]
        assert r > 0.95
        assert np.percentile(found[mask][:, number], 99) == pytest.approx(1, rel=0.05)


def test_the_same_seed_gives_the_same_stain(section):
    first, second = (estimate(*section, seed=5)[0] for _ in range(2))
    assert first.to_json() == second.to_json()


def test_normalisation_makes_two_scans_of_one_section_alike():
    mask = disc(250, 250, 180)
    stained = amounts(mask)
    one, two = paint(stained), paint(stained * (1.4, 0.7), OTHER, glass=(200, 205, 203))
    stains = [estimate(rgb, mask, seed=0)[0] for rgb in (one, two)]
    to = target(stains)
    a, b = (normalise(rgb, stain, to, mask).astype(int) for rgb, stain in zip((one, two), stains))

    def apart(x, y):
        return np.abs(x - y)[mask].mean()

    assert apart(a, b) < 0.15 * apart(one.astype(int), two.astype(int))
    assert np.array_equal(a[0, 0], np.rint(to.background))
    itself = normalise(one, stains[0], stains[0]).astype(int)
    assert apart(itself, one.astype(int)) < 3


def test_the_target_is_the_median_or_the_one_section_given():
    def stain(maximum):
        return Stain(unit(MATRIX), np.array([maximum, 1.0]), np.full(3, 200 + maximum))

    middle = target([stain(1.0), stain(9.0), stain(2.0)])
    assert middle.maximum.tolist() == [2, 1]
    assert np.linalg.norm(middle.matrix, axis=1) == pytest.approx([1, 1])
    assert target([stain(9.0)]).to_json() == stain(9.0).to_json()
    with pytest.raises(ValueError, match="no stain"):
        target([])


def test_sections_that_show_no_two_stains_get_the_reference_and_say_so():
    mask = disc(250, 250, 180)
    stained = amounts(mask)
    grey = np.repeat(paint(stained).mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    one = paint(np.stack([stained.sum(axis=2), 0 * stained[..., 1]], axis=-1))
    green = paint(stained, np.array([[0.7, 0.1, 0.7], [0.2, 0.9, 0.4]]))
    few = np.zeros_like(mask)
    few[250, 240:260] = True
    for rgb, where, words in (
        (grey, mask, "grey"),
        (one, mask, "one stain only"),
        (green, mask, "no haematoxylin"),
        (paint(stained), few, "only .* pixels of tissue are stained"),
        (np.zeros_like(grey), mask, "only 0 pixels"),
    ):
        stain, warnings = estimate(rgb, where, seed=0)
        assert stain.matrix == pytest.approx(REFERENCE.matrix)
        assert len(warnings) == 1
        assert re.search(f"{words}.*reference stain vectors", warnings[0])


def test_stains_go_to_json_and_back():
    again = Stain.from_json(json.loads(json.dumps({**REFERENCE.to_json(), "n_tiles": 3})))
    assert again.to_json() == REFERENCE.to_json()
    with pytest.raises(ValueError, match="maximum must hold finite numbers"):
        Stain(REFERENCE.matrix, [1, np.nan], REFERENCE.background)


def test_white_is_not_taken_from_tissue_or_black():
    pixels = np.array([[0, 0, 0]] * 50 + [[90, 20, 80]] * 30 + [[230, 228, 231]] * 20, dtype=np.uint8)
    assert white_point(pixels).tolist() == [230, 228, 231]
    assert white_point(pixels[:80]).tolist() == [90, 90, 90]
    assert white_point(pixels[:50]).tolist() == [255, 255, 255]


# ------------------------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize(
    ("shape", "tile", "overlap"), [((500, 730), 256, 32), ((512, 512), 512, 0), ((90, 400), 512, 100)]
)
def test_tiles_cover_every_pixel_and_stay_inside(shape, tile, overlap):
    tiles = grid(shape, UM, tile, overlap)
    covered = np.zeros(shape, dtype=int)
    for box in tiles.itertuples():
        covered[box.y0 : box.y1, box.x0 : box.x1] += 1
        assert (box.x1 - box.x0, box.y1 - box.y0) == (min(tile / UM, shape[1]), min(tile / UM, shape[0]))
    assert covered.min() == 1
    assert tiles.index.is_unique
    assert tiles[["y0", "x0"]].to_numpy().min() == 0
    assert tiles["x1"].max() == shape[1]
    assert tiles["y1"].max() == shape[0]
    assert tiles["x_um"].iloc[0] == tiles["x1"].iloc[0] / 2 * UM
    if overlap == 0:
        assert covered.max() == 1


def test_tiles_that_cannot_be_are_refused_together():
    with pytest.raises(InputError) as caught:
        grid((500, 500), 16.0, 64, 64)
    message = str(caught.value)
    assert "tile_um: found 64 um (4 pixels)" in message
    assert "128 or more" in message
    assert "overlap_um" in message
    with pytest.raises(InputError, match="column mpp"):
        grid((500, 500), float("nan"), 64, 0)


def test_blank_and_blurred_tiles_are_told_from_good_ones(section):
    rgb, mask = section
    rgb = rgb.copy()
    rgb[300:400, 200:300] = gaussian_filter(rgb.astype(float), (1.6, 1.6, 0))[300:400, 200:300].astype(np.uint8)
    tiles = quality(rgb, mask, grid(rgb.shape, UM, 400, 0), UM, 0.25, 0.15)
    assert tiles.index[tiles["blurred"]].tolist() == ["0003x0002"]
    assert tiles.loc["0002x0002", "tissue"] == 1
    assert tiles.loc["0000x0000", "blank"]
    assert not tiles.loc["0000x0000", "kept"]
    assert (tiles["kept"] == ~(tiles["blank"] | tiles["blurred"])).all()
    found = rates(tiles)
    assert found["n_tiles"] == 25
    assert found["n_kept"] == 25 - tiles["blank"].sum() - 1
    assert found["blank_rate"] == tiles["blank"].mean()
    assert found["blurred_rate"] == pytest.approx(1 / (~tiles["blank"]).sum())
    assert f"{found['n_kept']} of 25 tiles kept" in in_words(tiles)


def test_pale_tissue_is_not_taken_for_blurred(section):
    mask = section[1]
    stained = amounts(mask)
    stained[:, 250:] *= 0.4
    tiles = quality(paint(stained), mask, grid(mask.shape, UM, 200, 0), UM)
    assert tiles["focus"].min() > 0.4


def test_focus_is_not_judged_on_coarse_images(section):
    rgb, mask = section
    tiles = quality(rgb, mask, grid(rgb.shape, 16.0, 400, 50), 16.0)
    assert tiles["focus"].isna().all()
    assert not tiles["blurred"].any()
    assert tiles["kept"].any()
    assert rates(tiles)["blurred_rate"] is None
    assert "focus not judged" in in_words(tiles)


def test_the_contact_sheet_shows_section_tiles_and_rates(section, tmp_path):
    from histoweft.plotting import save

    rgb, mask = section
    stain, _ = estimate(rgb, mask, seed=0)
    tiles = quality(rgb, mask, grid(rgb.shape, UM, 200, 25), UM)
    figure = contact_sheet(rgb, mask, tiles, UM, "P1_pre", stain)
    before, after = figure.axes[1:]
    assert "24 of the tiles kept" in before.get_title("left")
    assert before.images[0].get_array().shape == after.images[0].get_array().shape
    assert figure.get_suptitle() == f"P1_pre: {in_words(tiles)}"
    save(figure, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 50_000
    # A section without one good tile still gets its sheet.
    none = tiles.assign(blank=True, blurred=False, kept=False, focus=np.nan)
    save(contact_sheet(rgb, mask, none, UM, "P1_pre", stain), tmp_path / "none.png")
