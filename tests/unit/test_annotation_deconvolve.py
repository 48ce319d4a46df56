"""Deconvolution of spots: solver, signatures, the models, intervals, the flag for missing types, tables and words."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from scipy.optimize import nnls as one_problem

from histoweft import io
from histoweft.annotation import deconvolve_inputs, deconvolve_sample, deconvolve_score, deconvolve_summary
from histoweft.annotation import deconvolve_poisson as poisson
from histoweft.annotation import deconvolve_selftest as selftest
from histoweft.annotation import deconvolve_unexplained as unexplained
from histoweft.annotation.deconvolve import MEAN, NNLS, POISSON, Options, Proportions, deconvolve, fit
from histoweft.annotation.deconvolve_figures import commonest, proportions_figure
from histoweft.annotation.deconvolve_signature import informative_genes, learn_signature
from histoweft.annotation.deconvolve_simulate import simulate_spots
from histoweft.annotation.deconvolve_solve import solve_nonnegative
from histoweft.errors import InputError
from histoweft.metrics import check_metrics

GENES, TYPES = 240, 4
SIZES = np.array([900.0, 1200.0, 2400.0, 600.0])
OPTIONS = {"method": "auto", "genes": 2000, "cell_sizes": True, "cells_per_spot": [], "missing_rate": 0.05}


def profiles():
    """Four types with 20 markers each among 240 genes; the types' cells differ in their counts."""
    rates = np.tile(np.random.default_rng(5).gamma(1.0, 1.0, GENES) + 0.05, (TYPES, 1))
    for k in range(TYPES):
        rates[k, 20 * k : 20 * (k + 1)] *= 8
    return rates / rates.sum(axis=1, keepdims=True)


def draw_cells(rng, n, dispersion=0.2):
    """Counts of cells whose genes vary around their type's rate with the given dispersion."""
    codes = np.arange(n) % TYPES
    depth = SIZES[codes] * np.exp(0.2 * rng.standard_normal(n))
    mean = depth[:, None] * profiles()[codes]
    return sp.csr_matrix(rng.poisson(mean * rng.gamma(1 / dispersion, dispersion, mean.shape))), codes


@pytest.fixture(scope="module")
def case():
    """A reference, and spots of other cells of the same types with gene-wise differences between platforms."""
    rng = np.random.default_rng(0)
    cells, codes = draw_cells(rng, 400)
    others, other_codes = draw_cells(rng, 400)
    spots = simulate_spots(others, other_codes, TYPES, 200, depth=0.5, platform_sd=0.4, seed=1)
    signature = learn_signature(cells, codes, TYPES)
    return SimpleNamespace(cells=cells, codes=codes, others=others, other_codes=other_codes, spots=spots,
                           signature=signature, fit=fit(spots.counts, signature, Options()))  # fmt: skip


# ------------------------------------------------------------------------------------------------------- solver


def test_many_non_negative_problems_agree_with_the_one_by_one_solver():
    rng = np.random.default_rng(0)
    designs, right = rng.standard_normal((60, 12, 5)), rng.standard_normal((60, 12))
    hessian = np.einsum("nij,nik->njk", designs, designs)
    found, free = solve_nonnegative(hessian, np.einsum("nij,ni->nj", designs, right))
    expected = np.array([one_problem(a, b)[0] for a, b in zip(designs, right, strict=True)])
    assert np.allclose(found, expected, atol=1e-6)
    assert (found[~free] == 0).all()
    assert (expected == 0).any()


def test_problems_may_share_a_matrix_and_start_anywhere():
    rng = np.random.default_rng(1)
    design, right = rng.random((30, 4)), rng.standard_normal((8, 30))
    expected = np.array([one_problem(design, b)[0] for b in right])
    for start in (None, np.zeros((8, 4), dtype=bool)):
        found, _ = solve_nonnegative((design.T @ design)[None], right @ design, start)
        assert np.allclose(found, expected, atol=1e-6)


def test_two_equal_columns_have_a_finite_solution():
    found, _ = solve_nonnegative(np.ones((1, 2, 2)), np.array([[3.0, 3.0]]))
    assert np.isclose(found.sum(), 3.0, rtol=1e-4)


# -------------------------------------------------------------------------------------------------- signatures


def test_signature_holds_rates_sizes_and_dispersion(case):
    own = case.signature
    assert np.allclose(own.rates.sum(axis=1), 1)
    assert np.corrcoef(own.rates.ravel(), profiles().ravel())[0, 1] > 0.99
    totals = np.asarray(case.cells.sum(axis=1)).ravel()
    assert np.allclose(own.sizes, [totals[case.codes == k].mean() for k in range(TYPES)])
    spread = [totals[case.codes == k].var() / totals[case.codes == k].mean() ** 2 for k in range(TYPES)]
    assert np.allclose(own.size_variation, spread)
    assert np.median(own.dispersion) == pytest.approx(0.2, abs=0.06)
    assert own.rates.min() > 0


def test_sampling_variance_of_rates_is_that_of_repeated_references():
    drawn = [learn_signature(*draw_cells(np.random.default_rng(seed), 80), TYPES) for seed in range(40)]
    seen = np.var([own.rates for own in drawn], axis=0)
    said = np.mean([own.variance for own in drawn], axis=0)
    assert np.median(said / seen) == pytest.approx(1.0, abs=0.25)


def test_a_type_without_counts_is_refused():
    with pytest.raises(ValueError, match="type 1 has no counts"):
        learn_signature(sp.csr_matrix([[3, 1], [0, 0]]), np.array([0, 1]), 2)


def test_informative_genes_are_the_markers(case):
    found = informative_genes(case.signature, 80, 1_000.0)
    assert np.isin(np.arange(80), found).mean() > 0.85
    assert (np.diff(found) > 0).all()
    assert len(informative_genes(case.signature, 1_000, 1_000.0)) == GENES


# ----------------------------------------------------------------------------------------------- mixed spots


def test_mixed_spots_hold_the_cells_they_say(case):
    one_of_each = sp.csr_matrix(np.diag([10, 20, 30, 40]))
    spots = simulate_spots(one_of_each, np.arange(4), 4, 50, cells_per_spot=(3, 3), seed=2)
    cells = spots.counts.toarray() / [10, 20, 30, 40]
    assert (cells.sum(axis=1) == 3).all()
    assert np.allclose(cells / 3, spots.proportions)


def test_mixed_spots_are_thinned_to_the_totals_wanted_and_repeat_with_the_seed(case):
    wanted = np.full(60, 500.0)
    first, second = (
        simulate_spots(case.others, case.other_codes, TYPES, 60, depth=wanted, platform_sd=0.3, seed=3) for _ in "ab"
    )
    assert (first.counts != second.counts).nnz == 0
    totals = np.asarray(first.counts.sum(axis=1)).ravel()
    assert totals.mean() == pytest.approx(500, rel=0.06)
    absent = simulate_spots(case.others, case.other_codes, TYPES + 1, 20, seed=3)
    assert (absent.proportions[:, TYPES] == 0).all()


# ------------------------------------------------------------------------------------------------------ models


def test_poisson_beats_least_squares_which_beats_the_mean(case):
    error = {}
    for method in (POISSON, NNLS, MEAN):
        found = deconvolve(case.spots.counts, case.signature, Options(method=method), case.fit)
        assert np.allclose(found.values.sum(axis=1), 1)
        assert (found.values >= 0).all()
        error[method] = deconvolve_score.scores(case.spots.proportions, found.values)["rmse"]
    assert error[POISSON] < 0.85 * error[NNLS]
    assert error[NNLS] < 0.6 * error[MEAN]
    assert error[POISSON] < 0.09


def test_platform_factors_are_recovered():
    rng = np.random.default_rng(4)
    cells, codes = draw_cells(rng, 400)
    factor = np.exp(0.5 * rng.standard_normal(GENES))
    truth = rng.dirichlet(np.full(TYPES, 0.5), 300)
    counts = sp.csr_matrix(rng.poisson(5_000 * (truth @ profiles()) * factor))
    platform = poisson.learn_platform(counts, learn_signature(cells, codes, TYPES), 0)
    assert np.corrcoef(np.log(platform.factor), np.log(factor))[0, 1] > 0.95
    assert platform.log_sd == pytest.approx(0.5, abs=0.12)


def test_spots_of_one_type_are_of_that_type_and_cell_sizes_matter(case):
    counts = sp.csr_matrix(np.vstack([3_000 * profiles(), 3_000 * profiles()]).round())
    found = deconvolve(counts, case.signature, Options()).values
    assert (found.argmax(axis=1) == np.tile(np.arange(TYPES), 2)).all()
    assert found.max(axis=1).min() > 0.9
    # As many counts from a type of large cells as from one of small cells: fewer cells of it.
    rng = np.random.default_rng(6)
    half = sp.csr_matrix(rng.poisson(np.tile(30_000 * (profiles()[2] + profiles()[3]), (5, 1))))
    of_cells = deconvolve(half, case.signature, Options(method=NNLS)).values[0]
    of_counts = deconvolve(half, case.signature, Options(method=NNLS, cell_sizes=False)).values[0]
    assert of_counts[2] / of_counts[3] == pytest.approx(1.0, abs=0.15)
    ratio = case.signature.sizes[2] / case.signature.sizes[3]
    assert of_cells[3] / of_cells[2] == pytest.approx(ratio * of_counts[3] / of_counts[2], rel=1e-6)


def test_a_spot_without_counts_has_no_composition(case):
    counts = sp.vstack([case.spots.counts[:30], sp.csr_matrix((1, GENES), dtype=np.int64)], format="csr")
    for method in (POISSON, NNLS, MEAN):
        found = deconvolve(counts, case.signature, Options(method=method))
        assert np.isnan(found.values[-1]).all()
        assert np.isfinite(found.values[:-1]).all()
    assert np.isnan(deconvolve(counts, case.signature, Options()).error[-1]).all()


def test_no_counts_at_all_and_unknown_methods_are_refused(case):
    with pytest.raises(InputError, match="no spot with a count in a gene of the reference"):
        deconvolve(sp.csr_matrix((3, GENES), dtype=np.int64), case.signature, Options())
    with pytest.raises(InputError, match="'magic'; expected poisson, nnls, mean"):
        deconvolve(case.spots.counts, case.signature, Options(method="magic"))


def test_blocks_do_not_change_the_result(case, monkeypatch):
    with monkeypatch.context() as small:
        small.setattr(poisson, "_BLOCK_VALUES", 7 * GENES)
        again = fit(case.spots.counts, case.signature, Options())
    assert np.allclose(again.weights, case.fit.weights, rtol=1e-6, atol=1e-6)
    one, other = (deconvolve(case.spots.counts, case.signature, Options(), made) for made in (again, case.fit))
    assert np.allclose(one.error, other.error, rtol=1e-5)


def test_weights_are_a_maximum_of_the_weighted_likelihood(case):
    """At the solution the score is zero for the types present and negative for those at zero."""
    noise, weights = case.fit.chosen, case.fit.weights
    counts = case.spots.counts.toarray()[:, case.fit.genes]
    slope = ((counts - noise.mean(weights)) * noise.precision(weights)) @ noise.axes.T
    information = np.concatenate([part for _, part in poisson.information(weights, noise)])
    scale = np.sqrt(np.diagonal(information, axis1=1, axis2=2))
    assert np.abs(np.where(weights > 0, slope, 0) / scale).max() < 0.1
    assert (np.where(weights == 0, slope, 0) / scale).max() < 0.1


# --------------------------------------------------------------------------------------- intervals and the trial


@pytest.fixture(scope="module")
def trial(case):
    totals = np.asarray(case.spots.counts.sum(axis=1)).ravel()
    setting = selftest.Setting((2, 15), totals, 0.4, 200, 0.05, 3)
    halves = selftest.halve(case.codes, None, 0)
    return SimpleNamespace(
        setting=setting, result=selftest.run_trial(case.cells, case.codes, halves, setting, Options())
    )


def test_intervals_scaled_on_mixed_spots_hold_the_truth_of_other_spots(case, trial):
    tried = trial.result.found[POISSON]
    scale, coverage = deconvolve_sample.scale_and_coverage(trial.result.truth, tried)
    assert coverage == pytest.approx(0.95, abs=0.03)
    low, high = deconvolve(case.spots.counts, case.signature, Options(), case.fit).interval(scale)
    held = (case.spots.proportions >= low) & (case.spots.proportions <= high)
    assert 0.92 < held.mean() <= 1
    assert (high - low).mean() < 0.5


def test_interval_scale_is_the_quantile_of_errors():
    rng = np.random.default_rng(0)
    found = Proportions(np.full((4_000, 2), 0.5), np.full((4_000, 2), 0.01))
    truth = 0.5 + 0.03 * rng.standard_normal((4_000, 2))
    assert selftest.interval_scale(truth, found) == pytest.approx(3.0, rel=0.05)
    assert selftest.interval_scale(0.5 + 0.1 * (truth - 0.5), found) == 1.0


def test_a_left_out_type_stands_out_and_explained_spots_do_not(trial):
    missing = trial.result.missing
    assert [one.left_out for one in missing] == list(range(TYPES))
    assert np.mean([one.auroc for one in missing]) > 0.85
    assert np.mean([one.falsely for one in missing]) < 0.08


def test_fully_explained_spots_are_rarely_flagged(case, trial):
    value, threshold = selftest.find_unexplained(case.spots.counts, case.fit, *trial.result.known, trial.setting)
    assert (value > threshold).mean() < 0.1
    assert (value >= 0).all()


def test_misfit_is_measured_in_units_of_chance_and_on_the_other_half():
    rng = np.random.default_rng(0)
    known = rng.standard_normal((2, 2_000, 5)) * 4 + 7
    spots = rng.standard_normal((2, 400, 5)) * 4 + 7
    spots[:, :40, 2] += 60
    value, threshold = unexplained.misfit(spots, known, 0.05)
    assert (value[:40] > threshold).all()
    assert (value[40:] > threshold).mean() < 0.1
    # Seen by its own half only, a spot does not count.
    own_half = rng.standard_normal((2, 400, 5))
    own_half[0, 0] += 100
    value, threshold = unexplained.misfit(own_half, rng.standard_normal((2, 2_000, 5)), 0.05)
    assert value[0] < threshold


def test_spots_scattered_to_both_sides_are_not_flagged():
    rng = np.random.default_rng(0)
    value, threshold = unexplained.misfit(
        8 * rng.standard_normal((2, 500, 5)), rng.standard_normal((2, 1_000, 5)), 0.05
    )
    assert (value > threshold).mean() < 0.1


def test_directions_point_to_the_planted_residual(case):
    changed = case.spots.counts.toarray()
    changed[::3, 200:220] += 40
    changed[1::3, 200:220] += 0
    counts = sp.csr_matrix(changed)
    model = fit(counts, case.signature, Options())
    found = unexplained.learn_directions(counts, model.weights, model.noise, model.genes, 0)
    planted = np.isin(found.genes, np.arange(200, 220))
    for half in (0, 1):
        share = (found.axes[half][planted] ** 2).sum(axis=0)
        assert share.max() > 0.4
        assert found.axes[half][planted][:, share.argmax()].sum() > 0
    scores = unexplained.score(counts, model.weights, model.noise, found)
    best = scores[0].var(axis=0).argmax()
    assert np.median(scores[0][::3, best]) > np.quantile(scores[0][1::3, best], 0.95)


def test_batches_are_held_out_where_they_share_the_types(case):
    groups = np.where(np.arange(400) // 4 % 2 == 0, "a", "b")
    halves = selftest.halve(case.codes, groups, 0)
    assert halves.protocol == "patient"
    assert len(set(groups[halves.train])) == 1
    assert set(groups[halves.train]).isdisjoint(groups[halves.test])
    # A small type of one batch alone takes no part.
    rare = np.arange(400) >= 380
    halves = selftest.halve(np.where(rare, 3, case.codes % 3), np.where(rare, "a", groups), 0)
    assert list(halves.types) == [0, 1, 2]
    assert not rare[np.concatenate([halves.train, halves.test])].any()


def test_batches_that_share_one_type_only_are_not_held_out():
    codes = np.repeat([0, 1], [95, 5])
    groups = np.where(np.arange(100) % 2 == 0, "a", "b")
    groups[95:] = "a"
    halves = selftest.halve(codes, groups, 0)
    assert halves.protocol == "random"
    assert list(halves.types) == [0, 1]


def test_cells_are_held_out_within_types_where_no_batch_is_known(case):
    halves = selftest.halve(case.codes, None, 0)
    assert halves.protocol == "random"
    assert len(np.intersect1d(halves.train, halves.test)) == 0
    assert (np.bincount(case.codes[halves.train]) == 50).all()
    assert (np.bincount(case.codes[halves.test]) == 50).all()


# ------------------------------------------------------------------------------------------ scores and tables


def test_scores_of_perfect_and_constant_answers():
    truth = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.25, 0.75]])
    perfect = deconvolve_score.scores(truth, truth)
    assert perfect["r2"] == 1
    assert perfect["rmse"] == 0
    assert perfect["jensen_shannon"] == 0
    constant = deconvolve_score.scores(truth, np.tile(truth.mean(axis=0), (4, 1)))
    assert constant["r2"] == pytest.approx(0)
    assert constant["pearson_type"] == 0
    assert deconvolve_score.jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))[0] == pytest.approx(1)
    unknown = np.vstack([truth[:3], [[np.nan, np.nan]]])
    assert deconvolve_score.scores(truth, unknown)["rmse"] == 0


def test_gain_over_least_squares_is_paired(trial):
    found = {name: result.values for name, result in trial.result.found.items()}
    table = deconvolve_score.with_intervals(trial.result.truth, found, 0)
    gain, low, high = table[POISSON]["rmse_gain"]
    assert gain == pytest.approx(table[NNLS]["rmse"][0] - table[POISSON]["rmse"][0])
    assert 0 < low < gain < high
    assert "rmse_gain" not in table[NNLS]


def test_the_floor_is_chosen_where_it_errs_less(trial):
    assert deconvolve_score.choose("auto", trial.result) == POISSON
    assert deconvolve_score.choose("nnls", trial.result) == NNLS
    found = trial.result.found
    swapped = SimpleNamespace(truth=trial.result.truth, found={POISSON: found[NNLS], NNLS: found[POISSON]})
    assert deconvolve_score.choose("auto", swapped) == NNLS


def write_counts(path, counts, obs, **uns):
    genes = [f"G{i}" for i in range(GENES)] + ["MT-CO1"]
    counts = sp.hstack([counts, np.full((counts.shape[0], 1), 500)], format="csr").astype(np.int32)
    xy = np.stack([np.arange(len(obs)) % 15, np.arange(len(obs)) // 15], axis=1) * 100.0
    with io.CsrWriter(path, GENES + 1, np.int32) as writer:
        writer.append(counts)
        writer.finish(obs, pd.DataFrame({"gene_id": genes}, index=genes), obsm={"spatial": xy}, uns={"histoweft": uns})
    return path


@pytest.fixture(scope="module")
def written(case, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deconvolve")
    labels = np.array(["b", "t", "epithelial", "zzz"])[case.codes].astype(object)
    labels[:3] = np.nan
    donors = np.where(np.arange(400) // 4 % 2 == 0, "D1", "D2")
    obs = pd.DataFrame({"label": pd.Categorical(labels), "batch": donors}, index=[f"c{i}" for i in range(400)])
    spots = pd.DataFrame(index=[f"s{i}" for i in range(200)])
    return SimpleNamespace(
        reference=write_counts(folder / "reference.h5ad", case.cells, obs),
        filtered=write_counts(folder / "filtered.h5ad", case.spots.counts, spots, mpp=1.0, spot_diameter_um=55.0),
        folder=folder,
    )


READING = {"min_genes": 50, "orthologs": "", "same_species": False, "min_cells": 10, "cells_per_type": 5_000}


@pytest.fixture(scope="module")
def result(written):
    inputs = deconvolve_inputs.read_inputs(written.reference, written.filtered, "s", READING, 0)
    found = deconvolve_sample.deconvolve_sample(inputs, OPTIONS, study="x", sample="s", platform="visium", seed=0)
    return SimpleNamespace(inputs=inputs, found=found)


def test_inputs_share_genes_without_mitochondrial_ones_and_unlabelled_cells(case, written, result):
    inputs = result.inputs
    assert inputs.types == ["b", "epithelial", "t", "zzz"]
    assert list(inputs.groups[:6]) == ["D1", "D2", "D2", "D2", "D2", "D1"]
    assert inputs.spots.shape == (200, GENES)
    assert (inputs.spots != case.spots.counts).nnz == 0
    assert inputs.cells.shape == (397, GENES)
    assert (inputs.cells != case.cells[3:]).nnz == 0
    assert any("3 of 400 reference cells have no label" in note for note in inputs.notes)


def test_table_of_a_sample(case, result):
    table, types = result.found.table, result.inputs.types
    order = [["b", "t", "epithelial", "zzz"].index(name) for name in types]
    truth = case.spots.proportions[:, order]
    assert list(table.index) == [f"s{i}" for i in range(200)]
    assert list(table.columns) == [
        *types, *(f"low:{t}" for t in types), *(f"high:{t}" for t in types), "misfit", "missing_type", "total"
    ]  # fmt: skip
    assert (table.drop(columns="missing_type").dtypes == np.float32).all()
    assert table["missing_type"].dtype == bool
    assert deconvolve_score.scores(truth, table[types].to_numpy())["r2"] > 0.85
    for name in types:
        assert (table[f"low:{name}"] <= table[name] + 1e-6).all()
        assert (table[name] <= table[f"high:{name}"] + 1e-6).all()
    assert np.allclose(table["total"], np.asarray(case.spots.counts.sum(axis=1)).ravel())
    assert result.found.facts["method"] == POISSON
    assert result.found.facts["genes"] == GENES


def test_rows_of_a_sample_are_metrics(result):
    rows = check_metrics(pd.DataFrame(result.found.rows))
    assert set(rows["method"]) == {"poisson", "floor:nnls", "floor:mean", "misfit"}
    assert rows["note"].str.contains("mixed reference cells; held out: whole batches (2)", regex=False).all()
    assert set(rows["task"]) == {"deconvolution"}
    assert set(rows["protocol"]) == {"truth"}
    default = rows[rows["note"].str.startswith("default")]
    assert set(default["method"]) == {"poisson"}
    assert {"r2", "rmse_gain", "coverage"} <= set(default["metric"])
    assert rows["panel"].str.startswith("without ").sum() == 3 * TYPES


def test_the_floor_gets_intervals_from_its_errors_on_mixed_spots(case, trial):
    found = deconvolve(case.spots.counts, case.signature, Options(method=NNLS))
    tried, own = deconvolve_sample.with_errors(trial.result, NNLS, found)
    expected = np.sqrt(((tried.values - trial.result.truth) ** 2).mean(axis=0))
    assert np.allclose(tried.error, expected)
    assert np.allclose(own.error, expected)
    _, coverage = deconvolve_sample.scale_and_coverage(trial.result.truth, tried)
    assert coverage == pytest.approx(0.95, abs=0.04)


def test_cells_per_spot_by_platform_or_by_config():
    assert deconvolve_sample.cells_per_spot([], "visium") == (2, 15)
    assert deconvolve_sample.cells_per_spot([], "h5ad") == deconvolve_sample.OTHER_PLATFORMS
    assert deconvolve_sample.cells_per_spot([4, 9], "st") == (4, 9)
    for wrong in ([3], [9, 4]):
        with pytest.raises(InputError, match=r"cells_per_spot: found .*the fewest and the most cells"):
            deconvolve_sample.cells_per_spot(wrong, "st")


# ------------------------------------------------------------------------------------------- words and pictures


def test_verdict_says_who_wins_and_warns(result):
    table = result.found.table
    metrics = check_metrics(pd.DataFrame(result.found.rows))
    shares = deconvolve_summary.composition({"s": table})
    assert shares.loc[0, "b"] == pytest.approx(table["b"].mean())
    assert shares.loc[0, "n_spots"] == 200
    said = deconvolve_summary.verdict(metrics, {"s": result.found.facts}, shares)
    assert said["default"] == POISSON
    assert said["warnings"] == []
    assert "errs less than least squares" in said["texts"][0]
    assert "(mean of 1 sample)" in said["texts"][0]
    assert "95 % intervals" in said["texts"][1]
    assert "AUROC" in said["texts"][2]

    worse = metrics.copy()
    gain = worse["metric"] == "rmse_gain"
    worse.loc[gain, ["value", "low", "high"]] = [-0.02, -0.03, -0.01]
    flagged = shares.assign(missing_type=0.6)
    said = deconvolve_summary.verdict(worse, {"s": {"method": NNLS}}, flagged)
    assert "errs more than least squares" in said["texts"][0]
    assert said["default"] == NNLS
    assert "60% of the spots of s are not explained" in said["warnings"][0]
    assert "least squares" in said["warnings"][1]
    worse.loc[gain, ["value", "low", "high"]] = [0.01, -0.01, 0.02]
    said = deconvolve_summary.verdict(worse, {"s": {"method": POISSON}}, shares)
    assert "cannot be told from" in said["texts"][0]
    assert "beyond doubt" in said["warnings"][0]


def test_commonest_type_and_figure(result, tmp_path):
    table = result.found.table.copy()
    table.iloc[0, :4] = np.nan
    first = commonest(table)
    assert pd.isna(first.iloc[0])
    names = table.columns[:4]
    assert (first.iloc[1:].astype(str) == names[table[names].iloc[1:].to_numpy().argmax(axis=1)]).all()
    xy = np.stack([np.arange(200) % 15, np.arange(200) // 15], axis=1) * 100.0
    proportions_figure(table, xy, tmp_path / "proportions.png", sample="s", mpp=1.0, spot_diameter_um=55.0)
    assert (tmp_path / "proportions.png").stat().st_size > 20_000
