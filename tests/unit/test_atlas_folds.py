"""Folds of an atlas and what a fold learns from: nothing of a held-out voxel."""

import atlas_cases as cases
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from histoweft.atlas import data, folds, plan, scaling
from histoweft.errors import InputError


@pytest.fixture(scope="module")
def atlas():
    """Return the simulated organ."""
    return cases.atlas()


def test_random_folds_have_the_published_sizes(atlas):
    made = folds.make(atlas, "random", 5, 0.0, 0)
    assert np.array_equal(np.sort(np.concatenate([one.test for one in made])), np.arange(atlas.n))
    for one in made:
        assert np.allclose(
            [len(one.fitting), len(one.validation), len(one.test)], np.multiply([0.64, 0.16, 0.2], atlas.n), atol=2
        )


@pytest.mark.parametrize("buffer", [0.0, 2.0])
def test_blocks_are_held_out_with_their_mirror_image_and_a_buffer(atlas, buffer):
    mirrored = atlas.position * [1, 1, -1] + [0, 0, 2 * atlas.midline]
    where = {tuple(place): row for row, place in enumerate(np.round(atlas.position, 3))}
    for one in folds.make(atlas, "block", 4, buffer, 0):
        assert cdist(atlas.folded()[one.train], atlas.folded()[one.test]).min() >= max(buffer, 0)
        twins = [where[key] for key in map(tuple, np.round(mirrored[one.test], 3)) if key in where]
        assert not np.isin(twins, one.train).any() or buffer == 0


@pytest.mark.parametrize("protocol", ["block", "hemisphere"])
def test_validation_lies_inside_training_and_apart_from_what_is_fitted(atlas, protocol):
    for one in folds.make(atlas, protocol, 3, 2.0, 0):
        assert np.isin(one.validation, one.train).all()
        assert np.isin(one.fitting, one.train).all()
        assert cdist(atlas.folded()[one.fitting], atlas.folded()[one.validation]).min() >= 2.0


def test_hemispheres_leave_the_midline_out(atlas):
    first, second = folds.make(atlas, "hemisphere", 5, 2.0, 0)
    side = atlas.hemisphere()
    assert set(side[first.test]) == {0}
    assert set(side[first.train]) == {1}
    assert set(side[second.test]) == {1}
    assert np.abs(atlas.position[first.train, 2] - atlas.midline).min() >= 2.0


def test_an_organ_without_halves_cannot_hold_one_out(atlas):
    whole = type(atlas)(atlas.expression, atlas.position, atlas.genes, 200.0)
    with pytest.raises(InputError, match=r"an atlas without a midline.*Set atlas.midline"):
        folds.make(whole, "hemisphere", 5, 2.0, 0)
    with pytest.raises(InputError, match=r"smaller atlas.buffer_voxels"):
        folds.make(atlas, "hemisphere", 5, 500.0, 0)


def test_the_published_validation_is_the_front_of_the_organ(atlas):
    one = folds.make(atlas, "random", 5, 0.0, 0)[0]
    front = folds.first_fifth(atlas, one)
    z = atlas.position[:, 0]
    assert z[front.validation].max() <= z[front.fitting].min()
    assert np.array_equal(np.sort(np.concatenate([front.validation, front.fitting])), one.train)
    assert len(front.validation) == len(one.train) // 5


def test_jobs_of_a_study():
    jobs = plan.jobs(cases.OPTIONS)
    assert jobs.count(("random", 1, "reference_front")) == 1
    assert len(jobs) == (3 + 3 + 2) * 3 + 1
    assert plan.jobs(cases.OPTIONS | {"input": ""}) == []
    assert {one[0] for one in plan.jobs(cases.OPTIONS | {"midline": None})} == {"random", "block"}


def test_scaling_knows_training_voxels_only(atlas):
    train = np.arange(0, atlas.n, 2)
    fitted = scaling.fit_scaling(atlas.expression, train, 80)
    changed = atlas.expression.copy()
    changed[1::2] = 1e6
    again = scaling.fit_scaling(changed, train, 80)
    for name in ("genes", "low", "high", "mean", "sd"):
        assert np.array_equal(getattr(fitted, name), getattr(again, name)), name


def test_scaling_against_a_direct_computation(atlas):
    train = np.arange(300)
    fitted = scaling.fit_scaling(atlas.expression, train, 60, clip=4.0)
    raw = atlas.expression[train].astype(float)
    variance = np.nanvar(raw, axis=0)
    assert set(fitted.genes) == set(np.argsort(-variance)[:60])
    kept = raw[:, fitted.genes]
    median = np.nanmedian(kept, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(kept - median), axis=0)
    sd = np.nanstd(kept, axis=0)
    spread = np.where(spread * 3 > sd, spread, sd)
    clipped = np.clip(kept, median - 4 * spread, median + 4 * spread)
    values, least, span = fitted.apply(atlas.expression[train])
    expected = (clipped - np.nanmean(clipped, axis=0)) / np.nanstd(clipped, axis=0)
    assert np.array_equal(np.isnan(values), np.isnan(kept))
    assert np.allclose(values, expected, atol=1e-4, equal_nan=True)
    factor, offset = fitted.affine(least, span)
    unit = values * factor + offset
    assert np.allclose(np.nanmin(unit, axis=1), 0, atol=1e-5)
    assert np.allclose(np.nanmax(unit, axis=1), 1, atol=1e-5)


def test_minmax_scaling_is_the_same_unit(atlas):
    train = np.arange(300)
    fitted = scaling.fit_scaling(atlas.expression, train, 60, kind="voxel_minmax")
    values, least, span = fitted.apply(atlas.expression[train])
    factor, offset = fitted.affine(least, span)
    limited = np.clip(atlas.expression[train][:, fitted.genes], fitted.low, fitted.high)
    assert np.allclose(values * factor + offset, (limited - least) / span, atol=1e-4, equal_nan=True)
    assert np.allclose(np.nanmean(values, axis=0), 0, atol=1e-4)


def test_a_gene_of_few_voxels_is_not_cut_down():
    rng = np.random.default_rng(0)
    marker = np.abs(rng.normal(0, 0.01, (1_000, 1)))
    marker[:50] = 10
    fitted = scaling.fit_scaling(marker.astype(np.float32), np.arange(1_000), 1, clip=5.0)
    assert fitted.high[0] > 10


def test_genes_that_do_not_vary_are_refused():
    with pytest.raises(InputError, match="no gene that varies"):
        scaling.fit_scaling(np.full((20, 3), np.nan, np.float32), np.arange(20), 3)


def test_axes_without_gaps_are_those_of_a_decomposition(atlas):
    split = folds.make(atlas, "random", 3, 0.0, 0)[0]
    whole = np.nan_to_num(atlas.expression)
    prepared = data.prepare(type(atlas)(whole, atlas.position, atlas.genes, 200.0), split, 50, 10.0)
    axes = data.principal_axes(prepared, 5)
    values = prepared.rows(split.train).astype(float)
    _, size, right = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    assert np.allclose(np.abs(np.sum(axes.axes.T * right[:5], axis=1)), 1, atol=1e-3)
    assert np.allclose(axes.variance, size[:5] ** 2 / len(values), rtol=1e-3)
    assert axes.total == pytest.approx((size**2).sum() / len(values), rel=1e-3)


def test_gaps_are_filled_with_what_the_other_genes_say():
    rng = np.random.default_rng(1)
    loadings = np.linalg.qr(rng.normal(size=(40, 3)))[0].astype(np.float32)
    axes = data.Axes(loadings, np.zeros(40, np.float32), np.ones(3), 3.0)
    scores = rng.normal(size=(50, 3)).astype(np.float32)
    values = scores @ loadings.T
    values[rng.random(values.shape) < 0.1] = np.nan
    assert np.abs(axes.project(values) - scores).mean() < 0.02
    naive = np.nan_to_num(values) @ loadings
    assert np.abs(axes.project(values) - scores).mean() < 0.2 * np.abs(naive - scores).mean()
