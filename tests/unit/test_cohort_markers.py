"""Biomarkers and targets: estimates against independent ones, planted markers found, nothing where there is nothing."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.cohort import biomarkers, contrasts, differential, figures, groups, pages, prediction, simulate, targets
from histoweft.cohort import study as studies
from histoweft.cohort.features import feature_columns
from histoweft.errors import InputError

OPTIONS = {
    "positive": "R", "negative": "NR", "baseline": "", "genes": 100, "predictors": ["features", "expression"],
    "subsamples": 40, "top": 4,
}  # fmt: skip
SOURCES = {"places": "places.parquet", "genes": "genes.parquet", "differences": "microenvironment.tsv"}


def who(label, stratum=None, patient=None):
    index = [f"P{i}" for i in range(len(label))]
    patient = pd.Series(patient if patient is not None else index, index)
    stratum = pd.Series(stratum if stratum is not None else ["c"] * len(label), index)
    return contrasts.Groups("R", "NR", pd.Series(label, index, dtype=float), patient, stratum)


# ---------------------------------------------------------------------------------------------------- differential


def test_moderated_t_tends_to_the_ordinary_one_and_to_the_normal_one():
    from scipy.stats import ttest_ind

    rng = np.random.default_rng(0)
    label = (np.arange(20) < 9).astype(float)
    equal = rng.normal(0, 1, (20, 3000))
    effect, error, freedom = differential.moderated(equal, label)
    assert np.allclose(effect, equal[label == 1].mean(axis=0) - equal[label == 0].mean(axis=0))
    assert freedom > 100  # equal variances are drawn all the way together
    spread = equal * np.exp(rng.normal(0, 2, 3000))  # variances that share nothing
    effect, error, freedom = differential.moderated(spread, label)
    ordinary = ttest_ind(spread[label == 1], spread[label == 0])
    assert np.corrcoef(effect / error, ordinary.statistic)[0, 1] > 0.97
    assert 18 < freedom < 20


def test_variance_prior_recovers_what_variances_were_drawn_from():
    rng = np.random.default_rng(1)
    prior_freedom, prior, freedom = 8.0, 0.5, 12
    true = prior * prior_freedom / rng.chisquare(prior_freedom, 20000)
    seen = true * rng.chisquare(freedom, 20000) / freedom
    found = differential.variance_prior(seen, freedom)
    assert np.allclose(found, (prior_freedom, prior), rtol=0.1)


def test_random_effects_are_those_of_the_textbook():
    effects, errors = np.array([[0.1], [0.6], [1.0]]), np.array([[0.2], [0.3], [0.25]])
    weight = 1 / errors**2
    fixed = (weight * effects).sum() / weight.sum()
    q = (weight * (effects - fixed) ** 2).sum()
    tau = (q - 2) / (weight.sum() - (weight**2).sum() / weight.sum())
    weight = 1 / (errors**2 + tau)
    found = differential.random_effects(effects, errors)
    assert np.isclose(found[0][0], (weight * effects).sum() / weight.sum())
    assert np.isclose(found[1][0], 1 / np.sqrt(weight.sum()))
    assert np.isclose(found[2][0], 1 - 2 / q)


def test_cohorts_are_compared_inside_and_put_together():
    rng = np.random.default_rng(2)
    stratum = np.repeat(["a", "b", "c"], [20, 16, 2])
    label = (np.arange(38) % 2).astype(float)
    values = rng.normal(0, 1, (38, 300)) + np.where(stratum == "a", 10, 0)[:, None]
    values[:, 0] += 2 * label
    found = differential.log_values(pd.DataFrame(values), who(label, stratum))
    assert found.loc[0, "q"] < 1e-4
    assert found.loc[0, "low"] < 2 < found.loc[0, "high"]
    assert set(found["cohorts"]) == {2}  # the third has one patient of each answer
    assert (found["p"].iloc[1:] < 0.05).mean() < 0.1


def test_counts_go_to_deseq_and_planted_folds_come_back():
    made = simulate.with_spots(12, spots=80, genes=40, effect=1.5, seed=3)
    ((rows, found_groups),) = groups.compared(made.table, OPTIONS)
    found = differential.compare(made.expression.loc[rows.index], made.counts.loc[rows.index], found_groups)
    assert found["method"].iloc[0] == "PyDESeq2, ~group"
    table = found.set_index("gene")
    assert table.loc[simulate.TARGET, "q"] < 0.05
    assert table.loc[simulate.TARGET, "effect"] < 0
    sums = made.counts.loc[rows.index]
    share = sums[simulate.TARGET] / sums.sum(axis=1)
    label = found_groups.label == 1
    seen = np.log2(share[label].mean() / share[~label].mean())
    assert np.isclose(table.loc[simulate.TARGET, "effect"], seen, atol=0.3)


@pytest.mark.parametrize(
    ("group", "block", "separable"),
    [
        ("abab", "xxyy", True),
        ("aabb", "xxyy", False),  # every block has one group only
        ("aabb", "xxxx", False),
        ("abab", "xyxz", False),
        ("ababab", "xxyyzz", True),  # pairs
    ],
)
def test_a_block_enters_the_design_where_it_can_be_told_from_the_group(group, block, separable):
    assert differential.separable(pd.DataFrame({"group": list(group), "block": list(block)})) is separable


def test_two_patients_get_differences_and_no_p():
    label = [1.0, 0, 1, 0]
    groups_of_two = who(label, patient=["P1", "P1", "P2", "P2"])
    values = pd.DataFrame(np.arange(12.0).reshape(4, 3), groups_of_two.label.index, list("abc"))
    counts = values.astype(int)
    found = differential.compare(values, counts, groups_of_two)
    assert found["p"].isna().all()
    assert np.allclose(found["effect"], -3)


# ------------------------------------------------------------------------------------------------------ biomarkers


def planted_task(effect, seed=0):
    rng = np.random.default_rng(seed)
    answer = pd.Series((np.arange(40) % 2).astype(float), [f"P{i}" for i in range(40)])
    table = pd.DataFrame(rng.normal(size=(40, 60)), answer.index, [f"x:{i}" for i in range(60)])
    table["x:7"] += effect * answer
    return prediction.make_task(answer, pd.Series("c", answer.index), table, None, 10)


def test_a_planted_marker_is_selected_again_and_again_and_nothing_else():
    frequency, q = biomarkers.stability(planted_task(2.5), 60, 0)
    assert frequency["x:7"] > 0.95
    assert (frequency.drop("x:7") < biomarkers.THRESHOLD).all()
    assert q**2 / ((2 * biomarkers.THRESHOLD - 1) * 60) <= 1


def test_without_a_marker_at_most_one_is_stable():
    stable = [
        (biomarkers.stability(planted_task(0.0, seed), 40, seed)[0] >= biomarkers.THRESHOLD).sum() for seed in range(8)
    ]
    assert np.mean(stable) <= 1


@pytest.fixture(scope="module")
def planted():
    made = simulate.with_spots(16, spots=120, genes=40, effect=1.2, seed=4)
    differences, _ = studies.differences(made.table, OPTIONS, 0)
    found = biomarkers.find(made.table, made.expression, pd.DataFrame(), made.places, differences, OPTIONS, 0)
    return made, differences, found


def test_the_planted_gene_is_a_marker_with_its_place(planted):
    _, _, found = planted
    genes = found.table[found.table["kind"] == "gene"].set_index("marker")
    assert genes.loc[simulate.TARGET, "q"] < 0.05
    assert genes.loc[simulate.LIGAND, "where"] == f"niche {simulate.NICHE}"
    assert list(found.table["rank"]) == list(range(1, len(found.table) + 1))
    known = found.table["q"].dropna()
    assert known.is_monotonic_increasing
    assert any("NR" in text for text in found.texts)


def test_markers_to_draw_are_genes_and_features_without_published_signatures():
    table = pd.DataFrame(
        {
            "rank": range(1, 7), "marker": ["response_signature:s", "x:1", "x:2", "x:3", "A", "B"],
            "kind": ["feature"] * 4 + ["gene"] * 2,
        }
    )  # fmt: skip
    assert list(biomarkers.drawn(table, 4)["marker"]) == ["x:1", "x:2", "A", "B"]
    assert list(biomarkers.drawn(table, 5)["marker"]) == ["x:1", "x:2", "x:3", "A", "B"]


def test_no_groups_no_markers():
    made = simulate.features_only(6, genes=5)
    made.table["response"] = ""
    found = biomarkers.find(made.table, made.expression, pd.DataFrame(), made.places, pd.DataFrame(), OPTIONS, 0)
    assert found.table.empty
    assert "no two groups" in found.warnings[0]


# --------------------------------------------------------------------------------------------------------- targets


def test_agreement_asks_for_two_lines():
    p = np.array([[1e-9, 0.9, 0.8], [0.01, 0.02, np.nan], [0.001, np.nan, np.nan], [0.01, 0.01, 0.5]])
    found = targets.agreement(p)
    assert np.allclose(found[[0, 1, 3]], [1.0, 0.02, 0.02])
    assert np.isnan(found[2])


def test_agreement_keeps_its_level_when_one_line_is_true():
    rng = np.random.default_rng(5)
    p = rng.random((20000, 4))
    p[:, 0] = 1e-12
    assert (targets.agreement(p) < 0.05).mean() <= 0.055


def test_the_planted_target_comes_first_with_its_evidence(planted):
    made, differences, found = planted
    table, said = targets.find(made.places, found.genes, differences, {simulate.TARGET}, True, SOURCES)
    first = table.iloc[0]
    assert (first["target"], first["called"], first["lines"], first["surface"]) == (simulate.TARGET, True, 3, True)
    assert first["state_source"] == "places.parquet"
    assert first["response_source"] == "genes.parquet"
    assert first["fate_source"] == ""
    pair = table[table["target"] == simulate.PAIR].iloc[0]
    assert pair["called"]
    assert pair["response_source"] == "microenvironment.tsv"
    genes = table[table["kind"] == "gene"].set_index("target")
    assert not genes.drop(index=[simulate.TARGET, simulate.LIGAND])["called"].any()
    assert f"The adverse niche is {simulate.NICHE}" in said["texts"][0]


def test_nothing_is_called_without_an_effect():
    for seed in range(5):
        made = simulate.with_spots(12, spots=60, genes=30, effect=0.0, seed=seed)
        differences, _ = studies.differences(made.table, OPTIONS, 0)
        ((rows, compared_groups),) = groups.compared(made.table, OPTIONS)
        genes = differential.log_values(made.expression.loc[rows.index], compared_groups)
        table, _ = targets.find(made.places, genes, differences, None, True, SOURCES)
        assert not table["called"].any()


def test_conditions_are_no_evidence_of_resistance(planted):
    made, differences, found = planted
    table, said = targets.find(made.places, found.genes, differences, None, False, SOURCES)
    assert table["response_effect"].isna().all()
    assert table["niche_effect"].isna().all()
    assert not table["called"].any()
    assert "two must agree" in said["warnings"][0]


def test_without_any_evidence_it_is_said():
    empty = pd.DataFrame(columns=list(simulate.Places().table().columns))
    genes = pd.DataFrame(columns=list(differential.COLUMNS))
    differences = pd.DataFrame(columns=list(contrasts.COLUMNS))
    table, said = targets.find(empty, genes, differences, None, True, SOURCES)
    assert table.empty
    assert "No targets are ranked" in said["warnings"][0]


def test_a_surface_table_needs_its_column(tmp_path):
    path = tmp_path / "surface.tsv"
    path.write_text("gene\tsource\nA\tx\nB\ty\n")
    assert targets.read_surface(path) == {"A", "B"}
    path.write_text("symbol\tsource\nA\tx\n")
    with pytest.raises(InputError, match="found columns symbol, source; expected a column 'gene'"):
        targets.read_surface(path)


# --------------------------------------------------------------------------------------------------------- pictures


def pixels(path):
    from PIL import Image

    return np.asarray(Image.open(path).convert("L"))


def test_pictures_are_drawn(planted, tmp_path):
    made, differences, found = planted
    rng = np.random.default_rng(0)
    first = biomarkers.drawn(found.table, 4)
    xy = rng.random((50, 2)) * 1000
    section = figures.Shown(
        "S1", xy, sp.csc_matrix(rng.random((50, 2))), [simulate.TARGET, simulate.LIGAND], {"mpp": 1.0}
    )
    figures.markers_figure(first, found.values(first), found.groups, [section], tmp_path / "markers.png")
    table, _ = targets.find(made.places, found.genes, differences, None, True, SOURCES)
    figures.targets_figure(table, tmp_path / "targets.png")
    figures.effects_figure(pages.panels(differences), tmp_path / "effects.png")
    prefix, title = pages.best_view(made.table)
    assert prefix == "niche"
    rows, named = pages.named_rows(made.table, OPTIONS)
    assert list(dict.fromkeys(named)) == ["R", "NR"]
    figures.composition_figure(rows, prefix, named, tmp_path / "composition.png", title)
    figures.message("Nothing to see.", tmp_path / "message.png")
    for name in ("markers", "targets", "effects", "composition", "message"):
        assert (pixels(tmp_path / f"{name}.png") < 128).sum() > 200


def test_panels_and_verdicts_are_joined(planted):
    made, differences, _ = planted
    ((title, table),) = pages.panels(differences)
    assert title == "R less NR (8 and 8 patients)"
    assert len(table) == len(feature_columns(made.table))
    parts = [{"texts": ["a"], "warnings": []}, {"texts": ["b"], "warnings": ["c"], "default": "CD8A"}]
    assert pages.join_verdicts(parts) == {"texts": ["a", "b"], "warnings": ["c"], "default": "CD8A"}
