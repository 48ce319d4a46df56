"""Scores of held-out voxels, the study's table, and what the verdict says."""

import atlas_cases as cases
import numpy as np
import pandas as pd
import pytest

from histoweft.atlas import score, summary
from histoweft.atlas.results import FoldResult, Result
from histoweft.metrics import check_metrics


@pytest.fixture(scope="module")
def atlas():
    """Return the simulated organ."""
    return cases.atlas()


def _result(method, rng, n_test, error=1.0, **more):
    """Return a method whose 5 genes have a squared error of `error` times the variance."""
    return Result(
        method, n=np.full(5, n_test), error=np.full(5, error * n_test), total=np.full(5, float(n_test)),
        pearson=np.full(5, 0.5), unit_error=0.01 * n_test, voxel_error=np.full(n_test, error, np.float32),
        shown=rng.normal(size=(n_test, 1)).astype(np.float16), facts={"seconds": 2.0, "device": "cuda"},
        **more,
    )  # fmt: skip


def _folds(atlas, protocol, errors, shifts, seed=0):
    """Return folds whose methods have these errors of the reconstruction and of the place (along z)."""
    rng = np.random.default_rng(seed)
    found = []
    for number, test in enumerate(np.array_split(np.arange(atlas.n), 4)):
        wobble = 0.01 * rng.normal()
        results = [
            _result(method, rng, len(test), error + wobble * (method != "floor:pca"))
            for method, error in errors.items()
        ]
        for method, shift in shifts.items():
            place = atlas.position[test] + [shift + wobble, 0, 0]
            results.append(Result(method, place=place.astype(np.float32)))
        merged: dict[str, Result] = {}
        for one in results:
            known = merged.get(one.method)
            merged[one.method] = one if known is None else Result(**(vars(known) | {"place": one.place}))
        shown = np.array(["g"])
        truth = rng.normal(size=(len(test), 1)).astype(np.float16)
        found.append(
            FoldResult(
                protocol, f"{protocol}_{number}", test, np.array(list("abcde")), shown, truth, list(merged.values())
            )
        )
    return found


def test_tally_in_pieces_against_whole_arrays():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(200, 6)).astype(np.float32)
    guess = (0.7 * truth + 0.3 * rng.normal(size=truth.shape)).astype(np.float32)
    guess[:, 5] = 0.25
    truth[rng.random(truth.shape) < 0.1] = np.nan
    factor = rng.uniform(0.1, 1, (200, 6)).astype(np.float32)
    tally = score.Tally(6)
    for rows in np.array_split(np.arange(200), 7):
        tally.add(truth[rows], guess[rows], factor[rows])
    there = ~np.isnan(truth)
    missed = np.where(there, guess - truth, 0)
    found = score.reconstruction_scores(tally.error, tally.total, tally.n, tally.pearson(), tally.unit_error)
    assert found["r2"] == pytest.approx(1 - (missed**2).sum() / np.nansum(truth**2), abs=1e-5)
    assert found["mse"] == pytest.approx(((missed * factor) ** 2).sum() / there.sum(), rel=1e-4)
    r = [np.corrcoef(truth[there[:, gene], gene], guess[there[:, gene], gene])[0, 1] for gene in range(5)]
    assert np.allclose(tally.pearson()[:5], r, atol=1e-4)
    assert np.isnan(tally.pearson()[5])
    assert found["pearson"] == pytest.approx(np.sum(r) / 6, abs=1e-4)
    assert np.allclose(np.concatenate(tally.voxel_error), (missed**2).sum(axis=1) / there.sum(axis=1), atol=1e-5)


def test_places_by_hand(atlas):
    truth = atlas.position[:50]
    guess = truth.copy()
    guess[:, 0] += 3
    guess[:, 1] += 4
    found = score.place_scores(guess, truth, atlas)
    assert found["euclid_voxels"] == pytest.approx(5)
    assert found["euclid_um"] == pytest.approx(1_000)
    assert found["rmse"] == pytest.approx(np.sqrt(25 / 3))
    assert found["r2_x"] == pytest.approx(1)
    mirrored = truth * [1, 1, -1] + [0, 0, 2 * atlas.midline]
    folded = score.place_scores(mirrored, truth, atlas)
    assert folded["euclid_folded_voxels"] == pytest.approx(0, abs=1e-4)
    assert folded["euclid_voxels"] == pytest.approx(2 * np.abs(truth[:, 2] - atlas.midline).mean(), rel=1e-4)


def test_regions_are_looked_up_where_a_voxel_is_placed(atlas):
    labels = atlas.ancestors(2)
    assert np.array_equal(score.region_of(atlas.position, atlas, labels), labels)
    mirrored = atlas.position * [1, 1, -1] + [0, 0, 2 * atlas.midline]
    assert (score.region_of(mirrored, atlas, labels) == labels).mean() > 0.95


def test_depths_tell_structures_apart(atlas):
    assert score.depths_of(atlas) == [1, 2]
    assert score.depths_of(type(atlas)(atlas.expression, atlas.position, atlas.genes, 200.0)) == []


def test_the_table_has_folds_means_gains_and_the_leakage_gap(atlas):
    shifts = {"floor:ridge": 3.0, "floor:knn": 4.0, "residual": 1.0}
    found = _folds(atlas, "block", {"floor:pca": 0.5, "residual": 0.3}, shifts)
    found += _folds(
        atlas, "random", {"floor:pca": 0.2, "residual": 0.1}, {name: one / 2 for name, one in shifts.items()}
    )
    made = summary.summarise(found, atlas, "s", "residual")
    rows = check_metrics(made.rows)

    def value(**wanted):
        part = rows
        for column, word in wanted.items():
            part = part[part[column] == word]
        assert len(part) == 1, wanted
        return part.iloc[0]

    seconds = rows[rows["metric"] == "seconds"]
    assert len(seconds)
    assert seconds["note"].str.contains("device cuda").all()
    assert not rows.loc[rows["metric"] == "r2", "note"].str.contains("device").any()
    mean = value(task="voxel_reconstruction", method="residual", protocol="block", metric="r2", fold="all")
    assert mean["value"] == pytest.approx(0.7, abs=0.02)
    assert mean["low"] < mean["value"] < mean["high"]
    assert mean["n"] == atlas.n
    assert mean["note"] == "default"
    folds = rows[(rows["method"] == "floor:pca") & (rows["metric"] == "r2") & (rows["protocol"] == "block")]
    assert len(folds) == 5
    gain = value(task="voxel_position", method="residual", protocol="block", metric="gain_euclid_folded_voxels")
    assert gain["value"] == pytest.approx(2.0, abs=0.05)
    assert "floor:ridge" in gain["note"]
    gap = value(task="voxel_reconstruction", method="floor:pca", metric="leakage_gap")
    assert gap["value"] == pytest.approx(0.3, abs=0.01)
    assert set(made.along_z["method"]) == set(shifts)
    assert made.verdict["defaults"] == {"voxel_reconstruction": "residual", "voxel_position": "residual"}
    assert made.verdict["warnings"] == []
    assert any("ahead of it" in text and "contiguous blocks" in text for text in made.verdict["texts"])
    assert any(text.startswith("Leakage gap of residual, R2") for text in made.verdict["texts"])


def test_a_model_that_loses_is_said_to_lose(atlas):
    found = _folds(atlas, "block", {"floor:pca": 0.3, "residual": 0.5}, {"floor:knn": 1.0, "residual": 2.0})
    verdict = summary.summarise(found, atlas, "s", "residual").verdict
    assert verdict["defaults"] == {"voxel_reconstruction": "floor:pca", "voxel_position": "floor:knn"}
    assert verdict["default"] == "floor:pca"
    assert sum("no model does better than the baseline" in text for text in verdict["warnings"]) == 2
    assert any("(behind it" in text for text in verdict["texts"])


def test_blocks_decide_whatever_random_folds_say(atlas):
    found = _folds(atlas, "random", {"floor:pca": 0.5, "residual": 0.1}, {"floor:knn": 2.0, "residual": 1.0})
    found += _folds(atlas, "block", {"floor:pca": 0.3, "residual": 0.5}, {"floor:knn": 1.0, "residual": 2.0})
    assert summary.summarise(found, atlas, "s", "residual").verdict["default"] == "floor:pca"
    assert summary.honest_protocol(found) == "block"


def test_interval_is_that_of_students_t():
    from scipy.stats import ttest_1samp

    values = np.array([0.2, 0.5, 0.4, 0.35])
    expected = ttest_1samp(values, 0).confidence_interval()
    assert np.allclose(summary.interval(values), (values.mean(), expected.low, expected.high))
    assert np.isnan(summary.interval(values[:1])[1])


def test_intervals_stay_within_what_a_score_can_be():
    near_one, near_zero = np.array([0.7, 0.99, 1.0]), np.array([0.0, 0.1, 1.5])
    assert summary.interval(near_one)[2] > 1
    assert summary.interval(near_one, *summary._possible("region_accuracy_depth2"))[2] == 1
    assert summary.interval(near_one, *summary._possible("r2_z"))[2] == 1
    assert summary.interval(near_zero, *summary._possible("euclid_voxels"))[1] == 0


def test_clusters_of_a_latent_that_knows_the_structures(atlas):
    labels = atlas.ancestors(2)
    latent = np.eye(labels.max() + 1)[labels] * 5 + 0.1 * np.random.default_rng(0).normal(
        size=(atlas.n, labels.max() + 1)
    )
    rows = np.arange(atlas.n)
    job = FoldResult("random", "random_1", rows, np.array(["a"]), np.array([], str), np.zeros((atlas.n, 0)),
                     [Result("residual", latent=latent.astype(np.float16))])  # fmt: skip
    scores, clusters = summary.latent_clusters([job], atlas)
    assert scores["residual"] > 0.95
    assert len(clusters["residual"][1]) == atlas.n


def test_error_along_z_is_where_it_is(atlas):
    rows = np.arange(atlas.n)
    place = atlas.position.copy()
    front = place[:, 0] < np.median(place[:, 0])
    place[front, 1] += 6
    job = FoldResult("random", "random_1", rows, np.array(["a"]), np.array([], str), np.zeros((atlas.n, 0)),
                     [Result("reference_front", place=place)])  # fmt: skip
    table = summary.along_z([job], atlas)
    middle = np.median(atlas.position[:, 0])
    assert np.allclose(table.loc[table["z"] < middle, "euclid_voxels"], 6)
    assert np.allclose(table.loc[table["z"] >= middle, "euclid_voxels"], 0)
    assert table["n"].sum() == atlas.n
    assert isinstance(table, pd.DataFrame)
