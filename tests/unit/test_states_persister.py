"""Persisters: planted ones are found beyond their floors, nothing is called on the null, patients are the units."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.io import CountsFile
from histoweft.metrics import area_under_curve
from histoweft.states import contrast, cycle, persister, scores, signatures, simulate

PROGRAMMES = ("antioxidant_gpx4", "fatty_acid_oxidation", "diapause", "chromatin_kdm5a")


@pytest.fixture(scope="module")
def table(repo):
    return signatures.read_signatures(sorted((repo / "resources" / "signatures").glob("*.tsv")))


def found_in(table, path, *, n=1500, **planted):
    """Simulate one patient and find its persisters; return what was found, and the truth."""
    cells = simulate.draw_cells(table, PROGRAMMES, ("s_phase", "g2m_phase"), n=n, **planted)
    simulate.write(cells, path)
    panel = signatures.match(table, cells.genes, 5)
    with CountsFile(path) as counts:
        about = scores.moments(counts, 1e4)
        weights = sp.hstack([cycle.contrast(about.mean, panel.members(name)) for name in signatures.CYCLE])
        phases = np.concatenate([(v @ weights).toarray() for _, v in scores.normalised(counts, about.totals, 1e4)])
        kinds, _ = persister.composition(None, cells.truth["cell_type"], cells.truth["cell_type"])
        barred = np.concatenate([panel.members(name) for name in signatures.CYCLE])
        found = persister.find(
            scores.normalised(counts, about.totals, 1e4), about, panel.pick(PROGRAMMES).weights, barred,
            [phases, kinds], np.ones(n, dtype=bool), n_sets=100, fdr=0.05, seed=1,
        )  # fmt: skip
    return found, cells.truth["persister"].to_numpy(), about


def test_planted_persisters_are_found(table, tmp_path):
    found, truth, about = found_in(table, tmp_path / "c.h5ad", share=0.04, effect=1.5, seed=5)
    assert area_under_curve(truth, found.score) > 0.95
    assert area_under_curve(truth, -about.totals) > 0.6  # depth alone tells something: it is confounded
    called = found.called
    assert called[truth].mean() > 0.7
    assert (~truth[called]).mean() < 0.15
    assert found.threshold == found.score[called].min()
    assert 0 < found.false_positive_rate < 0.01


def test_nothing_is_called_on_the_null(table, tmp_path):
    for seed in range(3):
        found, truth, _ = found_in(table, tmp_path / "c.h5ad", share=0.04, effect=0, seed=seed)
        assert truth.any()
        assert not found.called.any()
        assert 0.01 < (found.p < 0.05).mean() < 0.1
        assert np.isnan(found.threshold)
        assert found.false_positive_rate == 0


def test_drawn_sets_are_alike_and_never_hold_barred_genes():
    rng = np.random.default_rng(0)
    mean = rng.lognormal(0, 1, 500)
    about = scores.Moments(np.ones(10), mean, mean * rng.uniform(1, 2, 500))
    genes = np.array([3, 70, 200, 411, 499])
    weights = sp.csc_matrix(([1.0, 1, -1, 1, 1], (genes, [0, 0, 0, 1, 1])), shape=(500, 2))
    barred = np.arange(100, 150)
    drawn = persister.matched_sets(about, weights, barred, 60, seed=2)
    assert drawn.shape == (500, 120)
    assert not set(drawn.indices) & {*genes, *barred}
    assert np.array_equal(np.diff(drawn.indptr), [3] * 60 + [2] * 60)  # no gene twice in a set
    assert (np.asarray(drawn[:, :60].sum(axis=0)).ravel() == 1).all()  # one of three genes keeps its minus
    ranks = mean.argsort().argsort()
    assert abs(ranks[drawn[:, 60:].indices].mean() - ranks[[411, 499]].mean()) < 25
    again = persister.matched_sets(about, weights, barred, 60, seed=2)
    assert (drawn != again).nnz == 0


def test_too_small_a_panel_is_not_scored():
    about = scores.Moments(np.ones(90), np.ones(42), np.ones(42))
    weights = sp.csc_matrix(np.eye(42)[:, :3].sum(axis=1, keepdims=True))
    assert len(persister.stand_ins(about, weights, np.array([10, 11]))) == 37
    found = persister.find([], about, weights, np.array([10, 11]), [], np.ones(90, bool), n_sets=50, fdr=0.05)
    assert found.sets == 0
    assert not found.called.any()


def test_corrections_leave_nothing_that_they_explain():
    rng = np.random.default_rng(0)
    depth, kind = rng.normal(size=200), np.eye(3)[rng.integers(0, 3, 200)]
    basis = persister.design([depth, kind, np.ones(200)])
    assert basis.shape == (200, 4)
    assert np.allclose(basis.T @ basis, np.eye(4))
    noise = rng.normal(size=(200, 2))
    explained = 3 * depth[:, None] + kind @ rng.normal(size=(3, 2)) + 7
    usual = rng.random(200) < 0.8
    left, plain = (persister.residuals(values, basis, usual) for values in (noise + explained, noise))
    assert np.allclose(left, plain)
    assert np.allclose(left[usual].T @ depth[usual], 0, atol=1e-9)


def test_only_eligible_barcodes_are_called():
    rng = np.random.default_rng(0)
    score, null = rng.normal(size=300), rng.normal(size=(300, 50))
    score[:40] = 8
    eligible = np.arange(300) >= 20
    found = persister.call(score, null, eligible, 0.001)
    assert np.array_equal(np.flatnonzero(found.called), np.arange(20, 40))
    assert np.isnan(found.score[:20]).all()
    assert np.isnan(found.p[:20]).all()


def test_many_persisters_do_not_hide_themselves():
    rng = np.random.default_rng(0)
    n, sets = 600, 60
    scores_, drawn = rng.normal(size=(n, 1)), rng.normal(size=(n, sets))
    scores_[:200] += 4
    basis = persister.design([rng.normal(size=n)])
    once = persister.call(*persister.joint(scores_, drawn, [10], basis, np.ones(n, bool)), np.ones(n, bool), 0.05)
    settled = persister._settle(scores_, drawn, np.array([10]), basis, np.ones(n, bool), 0.05)
    assert settled.called[:200].mean() > 0.9 > 0.8 > once.called[:200].mean()
    assert settled.called[200:].mean() < 0.05


def test_few_barcodes_are_not_scored():
    about = scores.Moments(np.ones(20), np.ones(5), np.ones(5))
    found = persister.find(
        [], about, sp.csc_matrix(np.ones((5, 1))), np.array([], int), [], np.ones(20, bool),
        n_sets=50, fdr=0.05,
    )  # fmt: skip
    assert found.sets == 0
    assert np.isnan(found.score).all()
    assert not found.called.any()


def test_sets_are_fewer_for_many_barcodes():
    assert persister.sets_for(1_000, 4, 200) == 200
    assert persister.sets_for(500_000, 4, 200) == 100
    assert persister.sets_for(50_000_000, 4, 200) == persister.FEWEST_SETS


def test_composition_takes_proportions_before_types_before_clusters():
    shares = pd.DataFrame({"a": [0.2, 1.0], "b": [0.8, 0.0]})
    labels, clusters = pd.Series(["a", None]), pd.Series(["0", "0"])
    columns, name = persister.composition(shares, labels, clusters)
    assert name == "proportions"
    assert np.array_equal(columns, shares)
    columns, name = persister.composition(None, labels, clusters)
    assert name == "annotation"
    assert columns.tolist() == [[1, 0], [0, 1]]
    assert persister.composition(None, None, clusters)[1] == "clusters"


# ------------------------------------------------------------------------------------------------- between patients


def sheet(n, paired=True):
    rows = {}
    for patient in range(n):
        for level in ("untreated", "treated") if paired else (("untreated", "treated")[patient % 2],):
            rows[f"P{patient}_{level}"] = {"patient": f"P{patient}", "condition": level}
    return rows


def compared(values, rows, seed=0):
    patients = {sample: row["patient"] for sample, row in rows.items()}
    conditions = {sample: row["condition"] for sample, row in rows.items()}
    return contrast.compare(pd.Series(values, index=list(rows)), patients, conditions, ["untreated", "treated"], seed)


def test_paired_patients_turn_signs_exactly():
    rows = sheet(6)
    gaps = np.array([1, 2, 3, 4, 5, -0.5])
    values = np.column_stack([np.zeros(6), gaps]).ravel()
    found = compared(values, rows)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1).T
    expected = (np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-9).mean()
    assert found["design"] == "paired"
    assert found["n_first"] == 6
    assert found["p"] == pytest.approx(expected) == pytest.approx(4 / 64)
    assert found["effect"] == pytest.approx(gaps.mean())
    from scipy.stats import ttest_1samp

    interval = ttest_1samp(gaps, 0).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def test_unpaired_patients_are_dealt_exactly():
    rows = sheet(8, paired=False)
    values = np.array([0.1, 0.9, 0.2, 0.8, 0.3, 0.25, 0.15, 0.7])
    found = compared(values, rows)
    treated = np.arange(8) % 2 == 1
    seen = abs(values[treated].mean() - values[~treated].mean())
    drawn = [abs(values[list(c)].mean() - np.delete(values, list(c)).mean()) for c in combinations(range(8), 4)]
    assert found["design"] == "unpaired"
    assert found["p"] == pytest.approx((np.array(drawn) >= seen - 1e-12).mean())
    from scipy.stats import ttest_ind

    interval = ttest_ind(values[treated], values[~treated], equal_var=False).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def test_no_test_where_even_the_clearest_difference_could_not_reach_the_level():
    found = compared([0, 1, 0, 1], sheet(2))
    assert np.isnan(found["p"])
    assert found["smallest_p"] == 0.5
    assert found["note"] == "no test possible: the smallest p so few patients can give is 0.5"


def test_sections_of_one_patient_count_once():
    rows = sheet(8, paired=False)
    values = list(np.linspace(0, 1, 8))
    more = rows | {f"copy{i}": rows["P1_treated"] for i in range(30)}
    assert compared(values + [values[1]] * 30, more)["p"] == compared(values, rows)["p"]


def test_p_values_are_uniform_where_treatment_does_nothing():
    from scipy.stats import kstest

    rng = np.random.default_rng(0)
    rows = sheet(10, paired=False)
    p = [compared(rng.beta(1, 20, 10), rows)["p"] for _ in range(300)]
    assert kstest(p, "uniform").pvalue > 0.05


def test_arms_of_the_comparison():
    rows = sheet(2)
    assert contrast.arms(rows, {}) == ("condition", ["untreated", "treated"])
    assert contrast.arms(rows, {"condition": ["treated", "untreated"]}) == ("condition", ["treated", "untreated"])
    assert contrast.arms({"a": {"condition": ""}}, {}) == ("condition", [])
    with pytest.raises(InputError, match=r"'conditon'.*Did you mean 'condition'"):
        contrast.arms(rows, {"conditon": ["a", "b"]})
    with pytest.raises(InputError, match=r"states\.contrast\.condition: found 'treatd'.*Did you mean 'treated'"):
        contrast.arms(rows, {"condition": ["untreated", "treatd"]})


def test_contrast_table_adjusts_over_measures():
    rows = sheet(8)
    rng = np.random.default_rng(0)
    measures = pd.DataFrame(rng.normal(size=(16, 3)), index=list(rows), columns=["a", "b", "c"])
    measures.loc[[s for s in rows if s.endswith("_treated")], "a"] += 5
    patients = {s: row["patient"] for s, row in rows.items()}
    conditions = {s: row["condition"] for s, row in rows.items()}
    table = contrast.contrast_table(measures, patients, conditions, ["untreated", "treated"])
    assert list(table.columns) == list(contrast.COLUMNS)
    row = table.set_index("measure").loc["a"]
    assert row["p"] == pytest.approx(2 / 256)
    assert row["q"] == pytest.approx(6 / 256)
    assert contrast.contrast_table(measures, patients, conditions, []).empty


def test_one_or_two_calls_are_no_finding():
    rng = np.random.default_rng(0)
    null, everything = rng.normal(size=(300, 50)), np.ones(300, dtype=bool)
    score = rng.normal(size=300).clip(max=2)
    for n, called in ((2, 0), (3, 3)):
        score[:n] = 9
        assert persister.call(score, null, everything, 0.03).called.sum() == called
