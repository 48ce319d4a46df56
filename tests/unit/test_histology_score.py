"""Panels find what varies, scores equal their formulas, intervals are paired, verdicts say who won."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import HistoweftError, InputError
from histoweft.floors import Factored, library_size, mean_floor
from histoweft.histology import score
from histoweft.histology.ceiling import thinning_ceiling
from histoweft.histology.panels import Panel, all_genes, markers, top_variable
from histoweft.metrics import METRICS, check_metrics
from histoweft.normalise import normalise
from histoweft.splits import partition

GENES = 30


@pytest.fixture
def random():
    return np.random.default_rng(1)


def dense_prediction(values):
    """Any matrix as a prediction."""
    return Factored(np.asarray(values, float), np.eye(values.shape[1]), np.zeros(values.shape[1]))


# ---------------------------------------------------------------------------------------------------- panels


def counts_with_structure(random, n=200, genes=GENES):
    """Poisson counts of equal means; genes 3 and 11 differ between two halves of the spots, 20 has no counts."""
    mean = np.full((n, genes), 20.0) * random.uniform(0.5, 2, size=(n, 1))
    mean[: n // 2, 3] *= 4
    mean[n // 2 :, 11] *= 3
    mean[:, 20] = 0
    return sp.csr_matrix(random.poisson(mean))


def test_top_variable_finds_the_genes_that_vary(random, monkeypatch):
    counts = counts_with_structure(random)
    panel = top_variable(counts, 2)
    assert set(panel.genes) == {3, 11}
    assert panel.label == "top2 (2)"
    assert 20 not in top_variable(counts, GENES).genes
    # Chunks change nothing.
    whole = top_variable(counts, 10).genes
    monkeypatch.setattr("histoweft.histology.panels._VALUES", 700)
    assert np.array_equal(top_variable(counts, 10).genes, whole)


def test_residual_variance_is_that_of_the_paper(random):
    counts = counts_with_structure(random, 60)
    dense = counts.toarray().astype(float)
    expected = np.outer(dense.sum(axis=1), dense.sum(axis=0)) / dense.sum()
    there = dense.sum(axis=0) > 0
    residual = (dense - expected)[:, there] / np.sqrt(expected + expected**2 / 100)[:, there]
    variance = np.clip(residual, -np.sqrt(60), np.sqrt(60)).var(axis=0)
    order = np.flatnonzero(there)[np.argsort(-variance)]
    assert np.array_equal(top_variable(counts, GENES).genes, order)


def test_markers_tell_the_clusters_apart(random):
    counts = counts_with_structure(random)
    panel = markers(normalise(counts), n_clusters=2, per_cluster=1)
    assert set(panel.genes) == {3, 11}
    assert len(set(markers(normalise(counts), 4, 3).genes)) == 12
    with pytest.raises(InputError, match=r"5 training spots for 8 clusters; expected at least 16"):
        markers(normalise(counts[:5]))


def test_all_genes_are_the_detected_ones():
    counts = sp.csr_matrix(np.array([[1, 0, 2, 1], [1, 0, 0, 0], [3, 1, 0, 0], [1, 0, 0, 0]]))
    counts.data[counts.indices == 3] = 0  # a zero that is stored is none that was counted
    assert all_genes(counts, 0.25).genes.tolist() == [0, 1, 2]
    assert all_genes(counts, 0.5).label == "all (1)"
    with pytest.raises(InputError, match=r"no gene in 50% of 2 training spots \(the most common: 0 spots\).*Lower"):
        all_genes(sp.csr_matrix((2, 3)), 0.5)


# --------------------------------------------------------------------------------------------------- ceiling


def test_ceiling_is_the_correlation_of_counts_with_their_mean(random):
    n = 3_000
    spread = np.array([0.0, 0.2, 0.4, 0.8])
    mean = 8 * np.exp(spread * random.standard_normal((n, 4)))
    rest = 4_000 - mean.sum(axis=1, keepdims=True)
    counts = random.poisson(np.hstack([mean, rest]))
    totals = counts.sum(axis=1)
    median = np.median(totals)
    expected = [np.corrcoef(np.log1p(counts[:, g] / totals * median), np.log1p(mean[:, g]))[0, 1] for g in (1, 2, 3)]
    found = thinning_ceiling(sp.csr_matrix(counts), totals, median, np.arange(4))
    assert found[0] < 0.25
    np.testing.assert_allclose(found[1:], expected, atol=0.05)


def test_ceiling_takes_genes_in_any_order_and_totals_beyond_the_table(random):
    counts = counts_with_structure(random)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    genes = np.array([11, 20, 3])
    found = thinning_ceiling(counts, totals, 100, genes, seed=4)
    assert np.isnan(found[1])
    assert (found[[0, 2]] > 0.7).all()
    assert np.array_equal(found, thinning_ceiling(counts, totals, 100, genes, seed=4), equal_nan=True)
    assert thinning_ceiling(counts, totals + 50, 100, genes)[0] == pytest.approx(found[0], abs=0.1)
    with pytest.raises(InputError, match=r"counts that are not whole numbers.*raw counts"):
        thinning_ceiling(counts * 0.5, totals, 100, genes)
    with pytest.raises(InputError, match=r"a total of 1 for counts that sum to .* \(test spot 0\)"):
        thinning_ceiling(counts, np.ones(200), 100, genes)


# ---------------------------------------------------------------------------------------------------- scores


def test_gene_scores_are_their_formulas(random, monkeypatch):
    n = 50
    depth = random.standard_normal(n)
    truth = np.maximum(random.standard_normal((n, 7)) + depth[:, None], 0)
    predicted = 0.5 * truth + random.standard_normal((n, 7)) + 0.3 * depth[:, None]
    mean = random.random(7)
    genes = np.array([6, 0, 3])
    found = score.gene_scores(sp.csr_matrix(truth), dense_prediction(predicted), depth, genes, mean)
    assert found.index.tolist() == [6, 0, 3]
    design = np.column_stack([np.ones(n), depth])

    def residual(values):
        return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]

    for g in genes:
        row = found.loc[g]
        assert row["pearson"] == pytest.approx(np.corrcoef(truth[:, g], predicted[:, g])[0, 1], abs=1e-5)
        partial = np.corrcoef(residual(truth[:, g]), residual(predicted[:, g]))[0, 1]
        assert row["pearson_depth"] == pytest.approx(partial, abs=1e-5)
        assert row["mse"] == pytest.approx(((truth - predicted)[:, g] ** 2).mean(), rel=1e-4)
        assert row["mse_ratio"] == pytest.approx(row["mse"] / ((truth[:, g] - mean[g]) ** 2).mean(), rel=1e-4)
    monkeypatch.setattr(score, "_CHUNK", n)
    pd.testing.assert_frame_equal(
        found, score.gene_scores(sp.csr_matrix(truth), dense_prediction(predicted), depth, genes, mean)
    )


def test_constant_predictions_score_zero_and_constant_genes_are_left_out(random):
    truth = random.random((20, 3))
    truth[:, 1] = 2.5
    depth = random.random(20)
    Y = sp.csr_matrix(truth)
    genes = np.arange(3)
    flat = score.gene_scores(Y, mean_floor(Y, 20), depth, genes, truth.mean(axis=0))
    assert flat.loc[[0, 2], ["pearson", "pearson_depth", "better"]].eq(0).all().all()
    assert flat.loc[[0, 2], "mse_ratio"].to_numpy() == pytest.approx(1)
    assert flat.loc[1].isna().all()
    # Nothing of the library size is left once depth is regressed out.
    oracle = score.gene_scores(Y, library_size(depth, Y, depth), depth, genes, truth.mean(axis=0))
    assert (oracle.loc[[0, 2], "pearson"] > 0).all()
    assert (oracle.loc[[0, 2], "pearson_depth"] == 0).all()


def test_chance_is_better_than_permutation_in_five_percent(random):
    n, genes = 60, 4_000
    truth = sp.csr_matrix(random.exponential(size=(n, genes)))
    guess = Factored(random.standard_normal((n, genes)), sp.identity(genes, format="csc"), np.zeros(genes))
    found = score.gene_scores(truth, guess, random.random(n), np.arange(genes), np.ones(genes))
    assert found["better"].mean() == pytest.approx(0.05, abs=0.015)
    assert found["pearson"].var() == pytest.approx(1 / (n - 1), rel=0.1)


def test_scores_refuse_what_does_not_fit(random):
    truth = sp.csr_matrix(random.random((2, 3)))
    with pytest.raises(HistoweftError, match="2 test spots in one section or block cannot be correlated"):
        score.gene_scores(truth, mean_floor(truth, 2), np.ones(2), np.arange(3), np.ones(3))
    with pytest.raises(ValueError, match="do not match"):
        score.gene_scores(truth, mean_floor(truth, 3), np.ones(2), np.arange(3), np.ones(3))


def test_patch_replicates_equal_copying_the_spots(random):
    n = 60
    truth = random.random((n, 6))
    predicted = truth + random.standard_normal((n, 6))
    patches = partition(random.random((n, 2)), 6)
    found = score.patch_replicates(
        sp.csr_matrix(truth), dense_prediction(predicted), np.array([4, 1]), patches, n_boot=5, seed=3
    )
    draws = np.vstack([np.ones((1, 6), int), np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=5)])
    for value, draw in zip(found, draws):
        rows = np.concatenate([np.repeat(np.flatnonzero(patches == p), times) for p, times in enumerate(draw)])
        expected = np.mean([np.corrcoef(truth[rows, g], predicted[rows, g])[0, 1] for g in (4, 1)])
        assert value == pytest.approx(expected, abs=1e-5)


# --------------------------------------------------------------------------------------------- folds and rows


def held_out(random, sample, fold, noise, n=80, ceiling=True, panels=None):
    """Spots with a signal that each method sees through its own noise."""
    xy = random.random((n, 2)) * 1_000
    signal = np.sin(xy[:, :1] / 150 + np.arange(GENES))
    truth = sp.csr_matrix(np.maximum(signal + 0.3 * random.standard_normal((n, GENES)) + 1, 0))
    mean = np.ones(GENES)
    predictions = {
        method: Factored(np.ones((n, 1)), mean[None], np.zeros(GENES))
        if size is None
        else dense_prediction(signal + size * random.standard_normal((n, GENES)))
        for method, size in noise.items()
    }
    panels = panels or [Panel("top50", np.arange(10)), Panel("all", np.arange(GENES))]
    top = np.full(GENES, 0.95) if ceiling else None
    return score.HeldOut(sample, fold, truth, random.random(n), xy, mean, panels, predictions, top)


NOISE = {"floor:mean": None, "floor:coordinates": 2.0, "bar:ensemble": 0.8, "net": 0.5}


@pytest.fixture
def folds(random):
    return [
        score.score_fold(held_out(random, sample, f"block_{i}", NOISE), n_boot=200)
        for sample in ("s1", "s2")
        for i in (1, 2, 3)
    ]


def test_rows_hold_folds_sections_and_the_study(folds):
    rows = pd.DataFrame(score.summarise(folds, "demo", "block", {"net": "default"}, n_boot=200))
    check_metrics(rows)
    assert set(rows["metric"]) <= set(METRICS)
    net = rows[(rows["method"] == "net") & (rows["metric"] == "pearson_top50")]
    assert net["note"].eq("default").all()
    assert net["panel"].eq("top50 (10)").all()
    assert net.loc[net["fold"] == "all", "sample"].tolist() == ["s1", "s2", "all"]
    by_hand = [fold.tables["net"]["pearson"].loc[np.arange(10)].mean() for fold in folds]
    values = net.set_index(["sample", "fold"])["value"]
    assert values["s1", "block_2"] == pytest.approx(by_hand[1])
    assert values["s2", "all"] == pytest.approx(np.mean(by_hand[3:]))
    assert values["all", "all"] == pytest.approx(np.mean(by_hand))
    whole = net[(net["sample"] == "all")].iloc[0]
    assert whole["low"] < whole["value"] < whole["high"]
    assert whole["n"] == 480
    ceiling = rows[rows["method"] == score.CEILING]
    assert set(ceiling["metric"]) == {"pearson_top50", "pearson_all"}
    assert ceiling["value"].to_numpy() == pytest.approx(0.95)
    floor = rows[(rows["method"] == "floor:mean") & (rows["metric"] == "pearson_top50")]
    assert (floor[["value", "low", "high"]] == 0).all().all()


def test_rows_are_the_same_for_the_same_seed(folds):
    first, again = (score.summarise(folds, "demo", "block", n_boot=50, seed=2) for _ in range(2))
    pd.testing.assert_frame_equal(pd.DataFrame(first), pd.DataFrame(again))


def test_panels_that_differ_between_folds_are_averaged_each_on_its_own_genes(random):
    parts = [
        score.score_fold(held_out(random, "s1", f"block_{i}", NOISE, panels=[Panel("all", genes)]), n_boot=20)
        for i, genes in enumerate((np.arange(5), np.arange(3, 12)))
    ]
    rows = pd.DataFrame(score.summarise(parts, "demo", "block", n_boot=50))
    whole = rows[(rows["method"] == "net") & (rows["metric"] == "pearson_all") & (rows["sample"] == "all")].iloc[0]
    assert whole["panel"] == "all (5 to 9)"
    assert whole["value"] == pytest.approx(np.mean([part.tables["net"]["pearson"].mean() for part in parts]))


def test_folds_scored_differently_are_refused(random, folds):
    odd = score.score_fold(held_out(random, "s3", "block_1", {"net": 1.0}), n_boot=10)
    with pytest.raises(HistoweftError, match=r"fold 'block_1' of s3 was scored on other methods .*bar:ensemble"):
        score.summarise([*folds, odd], "demo", "block")
    with pytest.raises(HistoweftError, match="no fold was scored"):
        score.summarise([], "demo", "block")


def test_gene_table_averages_over_folds(folds):
    names = [f"g{i}" for i in range(GENES)]
    table = score.gene_table(folds, names).set_index(["method", "gene"])
    expected = np.mean([fold.tables["net"].loc[4, "pearson"] for fold in folds])
    assert table.loc[("net", "g4"), "pearson"] == pytest.approx(expected)
    assert table.loc[("net", "g4"), "folds"] == 6


def test_paired_difference_sees_a_gain_and_no_gain(random):
    same = [
        score.score_fold(held_out(random, "s1", f"block_{i}", {"a": 1.0, "b": 1.0, "c": 0.5}), n_boot=300)
        for i in range(4)
    ]
    even = score.paired_difference(same, "a", "b")
    gain = score.paired_difference(same, "c", "a")
    assert not even.certain
    assert gain.certain
    assert 0 < gain.low < gain.value < gain.high
    assert gain.value == pytest.approx(np.mean([fold.replicates["c"][0] - fold.replicates["a"][0] for fold in same]))
    back = score.paired_difference(same, "a", "c")
    assert (back.low, back.high) == pytest.approx((-gain.high, -gain.low))
    # Pairing: the interval of the difference is narrower than that of either method.
    alone = np.mean([fold.replicates["a"][1:] for fold in same], axis=0)
    assert gain.high - gain.low < np.ptp(np.percentile(alone, [2.5, 97.5])) * 1.5
    with pytest.raises(HistoweftError, match="'d' was not scored in every fold; scored: a, b, c"):
        score.paired_difference(same, "a", "d")


def test_folds_draw_their_own_patches(random):
    one = held_out(random, "s1", "block_1", {"a": 1.0})
    first, same = (score.score_fold(one, n_boot=20).replicates["a"] for _ in range(2))
    other = score.score_fold(score.HeldOut(**{**vars(one), "fold": "block_2"}), n_boot=20).replicates["a"]
    assert np.array_equal(first, same)
    assert first[0] == other[0]
    assert not np.array_equal(first[1:], other[1:])


def metric(method, value, name="pearson_top50", protocol="block", **more):
    return score.metric_row(
        "demo", "histology", "expression_from_histology", method, more.pop("sample", "all"), protocol, name, value,
        **more,
    )  # fmt: skip


def test_leakage_gap_is_random_minus_honest():
    rows = [
        metric("net", 0.6), metric("net", 0.7, protocol="random"), metric("net", 0.3, fold="block_1"),
        metric("floor:coordinates", 0.3), metric("floor:coordinates", 0.62, protocol="random"),
        metric("only_random", 0.5, protocol="random"), metric("net", 0.5, protocol="section"),
    ]  # fmt: skip
    found = {row["method"]: row for row in score.leakage_gap(rows)}
    assert set(found) == {"net", "floor:coordinates"}
    assert found["floor:coordinates"]["value"] == pytest.approx(0.32)
    assert found["net"]["note"] == "pearson_top50: 0.700 random, 0.600 block"
    assert score.leakage_gap(rows, "section")[0]["value"] == pytest.approx(0.2)
    check_metrics(pd.DataFrame(found.values()))


def test_a_default_that_wins_says_by_how_much(folds):
    rows = score.summarise(folds, "demo", "block", n_boot=100)
    rows += score.gain_rows(folds, "demo", "block", "net", ["floor:coordinates", "bar:ensemble", "net"])
    found = score.verdict(rows, "net")
    assert (found.winner, found.beats_floors, found.meets_bar) == ("net", True, True)
    assert "beats the best floor, floor:coordinates" in found.text
    assert "95 % interval +" in found.text
    assert "at or above the bar" in found.text
    assert not {"gain_top50"} - set(METRICS)


def test_a_default_that_loses_says_so_and_the_winner_takes_over():
    rows = [
        metric("net", 0.40), metric("floor:ridge_patch", 0.45), metric("bar:ensemble", 0.43),
        metric("ceiling:thinning", 0.9), metric("floor:library_size", 0.6),
        metric("net", -0.05, "gain_top50", low=-0.08, high=0.01, note="against floor:ridge_patch"),
        metric("net", -0.03, "gain_top50", low=-0.05, high=-0.01, note="against bar:ensemble"),
    ]  # fmt: skip
    found = score.verdict([row for row in rows if row["method"] != "floor:library_size"], "net")
    assert (found.winner, found.beats_floors, found.meets_bar) == ("floor:ridge_patch", False, False)
    assert found.text == (
        "net (0.400) does not beat the best floor, floor:ridge_patch (0.450), by -0.050 (95 % interval -0.080 to "
        "+0.010, which may be chance); it is below the bar, bar:ensemble (0.430), by -0.030 (95 % interval -0.050 to "
        "-0.010). floor:ridge_patch (0.450) is best and becomes the default."
    )
    # The library size is the best floor, but needs the counts it predicts: it cannot be the default.
    found = score.verdict(rows, "net")
    assert "floor:library_size (0.600, an oracle)" in found.text
    assert found.winner == "floor:ridge_patch"


def test_a_verdict_needs_the_default_and_a_floor():
    with pytest.raises(HistoweftError, match="no pearson_top50 of 'net' on protocol 'block'; scored: floor:mean"):
        score.verdict([metric("floor:mean", 0.0)], "net")
    with pytest.raises(HistoweftError, match="of any floor on protocol 'block'"):
        score.verdict([metric("net", 0.1)], "net")
