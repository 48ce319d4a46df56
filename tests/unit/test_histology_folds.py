"""Spots of sections, folds of them, what is learned in a fold; and that nothing learned has seen a test spot."""

import dataclasses

import histology_cases as cases
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from histoweft import floors
from histoweft.errors import HistoweftError, InputError, NotComputed
from histoweft.histology import context, evaluate, folds, spots
from histoweft.histology.network import Options
from histoweft.histology.plan import ACROSS, ALL, BLOCK, RANDOM, Fit
from histoweft.splits import Fold

SMALL = Options(members=3, hidden=16, steps=40, batch=32, points=2)
GROUPS = {"s0": "P", "s1": "P", "s2": "Q"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Keep the numerical libraries from waiting for busy cores."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    """Return s0 and its serial section s1, and s2 of another patient."""
    folder = tmp_path_factory.mktemp("sections")
    return [cases.read(folder, seed, look) for seed, look in ((0, 0), (1, 0), (2, 2))]


@pytest.fixture(scope="module")
def alone(sections):
    """Return the spots of s0."""
    return spots.join(sections[:1])


@pytest.fixture(scope="module")
def both(sections):
    """Return the serial sections s0 and s1 in one frame."""
    return spots.join(sections[:2], registered(sections[:2]))


def registered(sections, frame="P", shift=1000.0):
    parts = [
        pd.DataFrame(section.xy + shift, columns=["x", "y"], index=[f"{section.name}:{b}" for b in section.barcodes])
        for section in sections
    ]
    return pd.concat(parts).assign(frame=frame)


def scrambled(given, rows):
    """Give some spots other counts, and another depth."""
    counts = given.counts.tolil()
    counts[rows] = np.random.default_rng(0).poisson(40, (len(rows), counts.shape[1]))
    totals = given.totals.copy()
    totals[rows] *= 7
    return dataclasses.replace(given, counts=sparse.csr_matrix(counts), totals=totals)


def block(given, number=2):
    return folds.within(given, BLOCK, 5, 1.0, seed=0)[number]


# ------------------------------------------------------------------------------------------------------ spots


def test_a_section_is_read_with_its_footprints(sections):
    section, one = sections[0], cases.section(0)
    assert section.name == "s0"
    assert list(section.genes) == cases.GENES
    assert (section.counts != one.counts).nnz == 0
    assert np.array_equal(section.totals, one.counts.sum(axis=1).A1)
    assert np.array_equal(section.xy, one.xy_um)
    assert section.pixels.shape == (cases.SPOTS, context.POINTS, 94)
    assert section.pixels.dtype == np.float16
    means = section.means
    stains = [section.features.index(f"{name}@{2**k}") for name in context.BASE[:6] for k in range(cases.LEVELS)]
    assert np.abs(means[:, stains].mean(axis=0)).max() < 0.01
    assert means[:, stains].std(axis=0) == pytest.approx(1, abs=0.01)
    assert np.abs(section.pixels).max() == context.CLIP
    # Footprints lie where the spots do: the stain under them drives the programmes.
    for stain, column in (("haematoxylin@1", 0), ("eosin@1", 1)):
        seen = means[:, section.features.index(stain)]
        assert np.corrcoef(seen, one.programmes[:, column])[0, 1] > 0.95
    back = means * section.spread + section.centre
    points = context.footprints(one.xy_um / cases.UM_PER_PX, cases.SPOT_UM / cases.UM_PER_PX)
    expected = cases.pyramid(0, 0).sample(points.reshape(-1, 2)).reshape(*points.shape[:2], -1).mean(axis=1)
    shown = [section.features.index(name) for name in ("haematoxylin@1", "eosin@4", "tissue@16", "edge_1000")]
    np.testing.assert_allclose(back[:, shown], expected[:, shown], atol=5e-3)


def test_the_footprint_of_the_config_replaces_the_platform(tmp_path):
    counts, features = cases.write(tmp_path)
    narrow, wide = spots.read_section(counts, features, 4, footprint_um=1.0), spots.read_section(counts, features, 4)
    assert narrow.pixels.shape == wide.pixels.shape == (cases.SPOTS, 4, 94)
    within = [section.pixels[..., 4].astype(float).std(axis=1).mean() for section in (narrow, wide)]
    assert within[0] < 0.1 * within[1]


@pytest.mark.parametrize(
    ("about", "size"),
    [
        ({"spot_diameter_um": 55.0}, (55.0, False)),
        ({"spot_diameter_um": 8, "platform": "visium_hd"}, (8.0, True)),
        ({"spot_diameter_um": 100, "platform": "st"}, (100.0, False)),
    ],
)
def test_spots_are_discs_and_bins_are_squares(about, size):
    assert spots.footprint_of(about, "s1") == size
    assert spots.footprint_of(about, "s1", 40.0) == (40.0, size[1])


@pytest.mark.parametrize("about", [{}, {"spot_diameter_um": 0}, {"spot_diameter_um": None}])
def test_an_unknown_footprint_is_asked_for(about):
    with pytest.raises(InputError, match=r"s1: found no spot diameter and no bin size.*histology\.footprint_um"):
        spots.footprint_of(about, "s1")


def test_spots_off_the_image_are_noticed(tmp_path):
    _, features = cases.write(tmp_path)
    wrong = cases.write_counts(tmp_path / "wrong.h5ad", cases.section(), mpp=20 * cases.MPP)
    with pytest.raises(InputError, match=r"wrong\.h5ad: found 14\d of 144 spots off the image of 410 x 410 px.*mpp"):
        spots.read_section(wrong, features)


def test_points_are_fewer_for_many_spots():
    assert spots.points_each(100) == context.POINTS
    assert spots.points_each(60_000) == 10
    assert spots.points_each(10**7) == 4


def test_sections_are_joined_on_the_genes_they_share(sections):
    a, b = sections[:2]
    kept = [5, 3, 30]
    b = dataclasses.replace(b, counts=b.counts[:, kept], genes=b.genes[kept])
    joined = spots.join([a, b])
    assert list(joined.genes) == ["A3", "A5", "N6"]
    assert np.array_equal(joined.counts[cases.SPOTS :].toarray(), b.counts[:, [1, 0, 2]].toarray())
    assert np.array_equal(joined.counts[: cases.SPOTS].toarray(), a.counts[:, [3, 5, 30]].toarray())
    # Totals are of all genes of a section.
    assert np.array_equal(joined.totals, np.concatenate([a.totals, b.totals]))
    scaled = joined.normalised(500.0)
    assert scaled[0, 1] == pytest.approx(np.log1p(a.counts[0, 5] * 500 / a.totals[0]))
    assert joined.samples == ["s0", "s1"]
    assert np.array_equal(joined.section, np.repeat([0, 1], cases.SPOTS))
    assert np.isnan(joined.registered).all()
    assert set(joined.frame) == {""}


def test_sections_without_a_common_gene_are_refused(sections):
    other = dataclasses.replace(sections[1], genes=pd.Index([f"other{i}" for i in range(len(cases.GENES))]))
    with pytest.raises(InputError, match="sections s0, s1: found no gene in common"):
        spots.join([sections[0], other])


def test_registered_positions_are_found_by_sample_and_barcode(sections):
    table = registered(sections[:2]).sample(frac=1, random_state=0)
    joined = spots.join(sections, table)
    assert np.array_equal(joined.registered[: 2 * cases.SPOTS], joined.xy[: 2 * cases.SPOTS] + 1000)
    assert np.isnan(joined.registered[2 * cases.SPOTS :]).all()
    assert joined.frame.tolist() == ["P"] * (2 * cases.SPOTS) + [""] * cases.SPOTS


def test_sections_with_few_spots_are_left_out_in_words():
    evaluate.check_spots(50)
    with pytest.raises(NotComputed, match=r"49 spots after QC.*needs 50.*left out.*expression\.qc"):
        evaluate.check_spots(49)


def test_spots_of_a_fit_are_read_and_registered(tmp_path, sections):
    paths = [cases.write(tmp_path, seed, 0) for seed in (0, 1)]
    table = tmp_path / "registered.parquet"
    registered(sections[:2]).to_parquet(table)
    read = evaluate.read_spots(*zip(*paths), registered=table)
    joined = spots.join(sections[:2], registered(sections[:2]))
    assert np.array_equal(read.registered, joined.registered)
    assert np.array_equal(read.pixels, joined.pixels)


# ------------------------------------------------------------------------------------------------------ folds


def test_a_patient_is_never_on_both_sides(sections):
    every = spots.join(sections)
    fold = folds.across(every, GROUPS, ["P"])
    assert fold.name == "P"
    assert set(every.section[fold.test]) == {0, 1}
    assert set(every.section[fold.train]) == {2}
    assert len(fold.train) + len(fold.test) == len(every.xy)
    by_section = folds.across(every, {name: name for name in GROUPS}, ["s2", "s0"])
    assert by_section.name == "s2+s0"
    assert set(every.section[by_section.train]) == {1}


@pytest.mark.parametrize(("held_out", "side"), [(["P", "Q"], "training"), (["R"], "test")])
def test_a_fold_with_an_empty_side_is_refused(sections, held_out, side):
    with pytest.raises(HistoweftError, match=f"no {side} rows"):
        folds.across(spots.join(sections), GROUPS, held_out)


def test_blocks_keep_a_buffer_of_spots(alone):
    tested = []
    for fold in folds.within(alone, BLOCK, 4, 2.0, seed=0):
        gaps = np.linalg.norm(alone.xy[fold.train][:, None] - alone.xy[fold.test][None], axis=2)
        assert gaps.min() >= 2 * cases.PITCH_UM * (1 - 1e-9)
        tested += [*fold.test]
    assert sorted(tested) == list(range(cases.SPOTS))


def test_folds_follow_the_plan(sections, alone):
    options = {"folds": 3, "buffer_spots": 1.0}
    everything = evaluate.folds_of(alone, Fit(ALL, ALL, ("s0",)), {}, options, 0)
    assert len(everything) == 1
    assert len(everything[0].train) == cases.SPOTS
    assert len(everything[0].test) == 0
    random = evaluate.folds_of(alone, Fit("random-s0", RANDOM, ("s0",)), {}, options, 5)
    assert [fold.name for fold in random] == ["random_1", "random_2", "random_3"]
    assert all(len(fold.train) + len(fold.test) == cases.SPOTS for fold in random)
    again = folds.within(alone, RANDOM, 3, 1.0, seed=6)
    assert not np.array_equal(random[0].test, again[0].test)
    (across,) = evaluate.folds_of(
        spots.join(sections), Fit("across-2", ACROSS, tuple(GROUPS), ("Q",)), GROUPS, options, 0
    )
    assert across.name == "Q"
    assert len(across.test) == cases.SPOTS


@pytest.mark.parametrize("held_out", ["P", "Q"])
def test_nothing_is_held_out_where_one_section_is_left(alone, held_out):
    """The other sections of the fit could not be computed."""
    fit = Fit("across-1", ACROSS, ("s0", "s9"), (held_out,))
    with pytest.raises(NotComputed, match=f"there is only s0; holding out {held_out} needs one on each side"):
        evaluate.folds_of(alone, fit, {"s0": "P", "s9": "Q"}, {}, 0)


# ----------------------------------------------------------------------------------------------- what is learned


def test_the_target_has_no_difference_between_sections(sections):
    every = spots.join(sections)
    # One section is much richer in the noise genes.
    counts = every.counts.toarray()
    counts[every.section == 2, cases.NOISE] *= 5
    every = dataclasses.replace(every, counts=sparse.csr_matrix(counts))
    fold = folds.across(every, {name: name for name in GROUPS}, ["s0"])
    goal = folds.target(every, fold, n_components=6)
    own = every.section[fold.train]
    for number in (1, 2):
        assert np.abs(goal.scores[own == number].mean(axis=0)).max() < 1e-4
        assert np.abs(goal.components.scores[own == number].mean(axis=0)).max() > 1
    assert goal.scores.shape == (2 * cases.SPOTS, 6)
    assert goal.median_total == np.median(every.totals[fold.train])
    # The components lead back to expression: the planted programmes are most of it.
    expression = goal.components.decompress(goal.components.scores).genes(slice(None))
    true = goal.expression.toarray()
    for gene in (0, 12):
        assert np.corrcoef(expression[:, gene], true[:, gene])[0, 1] > 0.85
    # Hyper-parameters: a section is left out; parts: of one section each, eight of them.
    assert {tuple(np.unique(own[inner.test])) for inner in goal.inner} == {(1,), (2,)}
    for number in (1, 2):
        assert set(goal.parts[own == number]) == set(range(folds.MEMBER_PARTS))


def test_inner_folds_and_parts_of_one_section_are_blocks(alone):
    goal = folds.target(alone, block(alone))
    assert len(goal.inner) == 5
    xy = alone.xy[goal.fold.train]
    for part in range(folds.MEMBER_PARTS):
        own = xy[goal.parts == part]
        assert np.ptp(own, axis=0).max() < 8 * cases.PITCH_UM


# ---------------------------------------------------------------------------------------------------- no leakage


def test_the_target_does_not_see_test_spots(alone):
    fold = block(alone)
    a, b = (folds.target(given, fold) for given in (alone, scrambled(alone, fold.test)))
    assert a.median_total == b.median_total
    assert np.array_equal(a.scores, b.scores)
    assert np.array_equal(a.components.axes, b.components.axes)
    assert np.array_equal(a.components.mean, b.components.mean)
    assert (a.expression != b.expression).nnz == 0
    assert np.array_equal(a.parts, b.parts)
    # The test can fail: training spots are seen.
    assert not np.array_equal(a.scores, folds.target(scrambled(alone, fold.train[:9]), fold).scores)


def test_floors_and_the_bar_do_not_see_test_spots(alone, monkeypatch):
    monkeypatch.setattr(folds, "_TREES", 1)
    fold = block(alone)
    found = []
    for given in (alone, scrambled(alone, fold.test)):
        found.append(folds.floor_predictions(given, folds.target(given, fold, 5), seed=3))
    a, b = ({name: one.genes(slice(None)) for name, one in predictions.items()} for predictions in found)
    names = ["floor:mean", "floor:library_size", "floor:coordinates", "floor:ridge_patch", "floor:ridge_context"]
    assert list(a) == [*names, "bar:ensemble"]
    # The floor of the spot's total is an oracle: it is told.
    assert [name for name in a if not np.array_equal(a[name], b[name])] == ["floor:library_size"]
    # What they predict is worth something, but for the mean.
    truth = alone.normalised(folds.target(alone, fold).median_total)[fold.test].toarray()
    for name in ("floor:coordinates", "floor:ridge_context", "bar:ensemble"):
        r = [np.corrcoef(truth[:, gene], a[name][:, gene])[0, 1] for gene in range(24)]
        assert np.mean(r) > (0.1 if name == "floor:coordinates" else 0.5), name
    assert np.ptp(a["floor:mean"], axis=0).max() == 0


def test_models_do_not_see_test_spots(alone):
    fold = block(alone)
    found = []
    for given in (alone, scrambled(alone, fold.test), scrambled(alone, fold.train[:30])):
        goal = folds.target(given, fold, 5)
        model, _ = folds.fit_context(given, goal, SMALL, seed=0)
        found.append(goal.decompress(folds.predict_fold(given, goal, model)[0]).genes(slice(None)))
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2], atol=1e-3)


def test_tuning_does_not_see_test_spots(alone):
    fold = block(alone)
    options = Options(members=2, hidden=8, steps=20, batch=32, points=2)
    scores = [
        evaluate.tune(given, [fold], options, seed=0, device="cpu", threads=1)
        for given in (alone, scrambled(alone, fold.test))
    ]
    assert scores[0] == scores[1]
    assert 0.1 < scores[0][0] < 1


# ---------------------------------------------------------------------------------------------- serial sections


@pytest.fixture(scope="module")
def held_out(both):
    """Return the fold that tests s1 on s0, and its target."""
    fold = folds.across(both, {"s0": "s0", "s1": "s1"}, ["s1"])
    return folds.target(both, fold, 5)


def test_serial_neighbours_do_not_see_test_spots(both, held_out):
    other = scrambled(both, held_out.fold.test)
    a, b = folds.serial(both, held_out), folds.serial(other, folds.target(other, held_out.fold, 5))
    assert a.k == b.k
    for side in ("train", "test", "gain"):
        assert np.array_equal(getattr(a, side), getattr(b, side))


def test_serial_neighbours_tell_the_expression_of_a_serial_section(both, held_out):
    near = folds.serial(both, held_out)
    assert near.test.shape == (cases.SPOTS, 5)
    assert near.k in folds.NEIGHBOURS
    assert ((near.gain >= 0) & (near.gain <= 1)).all()
    truth = held_out.components.compress(both.normalised(held_out.median_total)[held_out.fold.test])
    for column in (0, 1):
        assert np.corrcoef(near.test[:, column], truth[:, column])[0, 1] > 0.7
    assert near.gain[0] > 0.5 > near.gain[-1]


def test_a_section_alone_in_its_frame_lends_its_own_spots(both, held_out, monkeypatch):
    monkeypatch.setattr(folds, "NEIGHBOURS", (4,))
    near = folds.serial(both, held_out)
    middle = 5 * cases.SIDE + 5
    around = [middle - 1, middle + 1, middle - cases.SIDE, middle + cases.SIDE]
    assert near.train[middle] == pytest.approx(held_out.scores[around].mean(axis=0), abs=1e-5)
    # A test spot has the spot at its own place among its neighbours: that one and three of these four.
    total = held_out.scores[[middle, *around]].sum(axis=0)
    left_out = [np.abs((total - held_out.scores[one]) / 4 - near.test[middle]).max() for one in around]
    assert min(left_out) < 1e-5


def test_positions_without_a_frame_are_not_compared(sections, alone, both):
    assert folds.serial(alone, folds.target(alone, block(alone), 5)) is None
    # A frame of the test spots that no training spot lies in.
    table = registered(sections[:2])
    table.loc[[name.startswith("s1:") for name in table.index], "frame"] = "other"
    apart = spots.join(sections[:2], table)
    fold = folds.across(apart, {"s0": "s0", "s1": "s1"}, ["s1"])
    assert folds.serial(apart, folds.target(apart, fold, 5)) is None
    # One test spot without a frame is enough.
    frame = both.frame.copy()
    frame[-1] = ""
    assert folds.serial(dataclasses.replace(both, frame=frame), folds.target(both, fold, 5)) is None


def test_training_spots_have_neighbours_in_other_sections_only(sections):
    three = [*sections[:2], dataclasses.replace(sections[2], name="s2")]
    every = spots.join(three, registered(three))
    fold = Fold("s2", np.arange(2 * cases.SPOTS), np.arange(2 * cases.SPOTS, 3 * cases.SPOTS))
    goal = folds.target(every, fold, 2)
    # Scores that say which section a spot belongs to.
    section = every.section[fold.train]
    told = np.stack([section == 0, section == 1], axis=1).astype(np.float32)
    near = folds.serial(every, dataclasses.replace(goal, scores=told))
    for number in (0, 1):
        assert (near.train[section == number, number] == 0).all()
        assert (near.train[section == number, 1 - number] == 1).all()
    # A test spot sees both.
    assert near.test.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.05)
    assert near.test.sum(axis=1) == pytest.approx(1)


def test_training_spots_without_a_frame_have_no_neighbours(sections):
    every = spots.join(sections, registered(sections[:2]))
    fold = folds.across(every, {name: name for name in GROUPS}, ["s1"])
    goal = folds.target(every, fold, 3)
    near = folds.serial(every, goal)
    own = every.section[fold.train]
    assert (near.train[own == 2] == 0).all()
    assert (near.train[own == 0] != 0).any(axis=1).all()


def test_with_neighbours_the_floor_of_coordinates_is_theirs(both, held_out, monkeypatch):
    monkeypatch.setattr(folds, "_bar", lambda X, X_test, goal, ridge, seed: ridge)
    near = folds.serial(both, held_out)
    found = folds.floor_predictions(both, held_out, near, coordinates=False)
    expected = near.test @ held_out.components.axes + held_out.components.mean
    np.testing.assert_allclose(found["floor:coordinates"].genes(slice(None)), expected, atol=1e-4)
    assert "floor:coordinates" not in folds.floor_predictions(both, held_out, None, coordinates=False)


def test_the_network_starts_from_its_neighbours(both, held_out):
    near = folds.serial(both, held_out)
    # Next to nothing left to learn: the prediction is the neighbours'.
    noise = 1e-3 * np.random.default_rng(0).standard_normal(held_out.scores.shape).astype(np.float32)
    exact = dataclasses.replace(near, train=held_out.scores + noise, gain=np.ones(5, np.float32))
    model, _ = folds.fit_context(both, held_out, SMALL, seed=0, neighbours=exact)
    test, train = folds.predict_fold(both, held_out, model, exact)
    np.testing.assert_allclose(test, near.test, atol=0.02)
    np.testing.assert_allclose(train, held_out.scores, atol=0.02)
    # With what is left: better than a shrunken neighbourhood mean alone on the spots it learned from.
    model, _ = folds.fit_context(both, held_out, SMALL, seed=0, neighbours=near)
    train = folds.predict_fold(both, held_out, model, near)[1]
    assert folds.agreement(held_out.scores, train) > folds.agreement(held_out.scores, near.gain * near.train) + 0.005


# ------------------------------------------------------------------------------------------------------ models


def test_the_whole_share_to_the_ridge_is_the_ridge(alone):
    goal = folds.target(alone, block(alone), 5)
    options = dataclasses.replace(SMALL, steps=20, ridge_share=1.0)
    model, _ = folds.fit_context(alone, goal, options, seed=0)
    test, train = folds.predict_fold(alone, goal, model)
    ridge = floors.Ridge(goal.inner).fit(alone.means[goal.fold.train], goal.scores)
    np.testing.assert_allclose(test, ridge.predict(alone.means[goal.fold.test]), atol=5e-3)
    np.testing.assert_allclose(train, ridge.predict(alone.means[goal.fold.train]), atol=5e-3)


def test_without_a_share_there_is_no_ridge(alone):
    goal = folds.target(alone, block(alone), 5)
    model, _ = folds.fit_context(alone, goal, dataclasses.replace(SMALL, steps=20, ridge_share=0.0), seed=0)
    assert not model.ridge.any()
    assert not model.ridge_offset.any()
    assert model.ridge.shape == (94, 5)


def test_many_spots_are_predicted_in_parts(alone, monkeypatch):
    goal = folds.target(alone, block(alone), 5)
    model, _ = folds.fit_context(alone, goal, dataclasses.replace(SMALL, steps=20), seed=0)
    whole = folds.predict_context(model, alone.pixels)
    assert whole.shape == (cases.SPOTS, 5)
    many = np.tile(alone.pixels, (30, 1, 1))
    np.testing.assert_allclose(folds.predict_context(model, many), np.tile(whole, (30, 1)), atol=1e-4)


def test_the_patch_is_what_lies_under_the_spot():
    names = ["od_red@1", "eosin@8", "eosin@16", "tissue@4", "tissue@128", "edge_log", "edge_300"]
    assert [name for name in names if folds._is_patch(name)] == ["od_red@1", "eosin@8", "tissue@4"]


def test_agreement_is_the_correlation_weighted_by_variance():
    random = np.random.default_rng(0)
    truth = random.standard_normal((200, 3)) * [3, 1, 0]
    given = np.stack([truth[:, 0] * 5 + 1, -truth[:, 1], random.standard_normal(200)], axis=1)
    weights = truth.var(axis=0)
    assert folds.agreement(truth, given) == pytest.approx((weights[0] - weights[1]) / weights.sum())
    assert folds.agreement(truth, np.zeros((200, 3))) == 0
