"""Response predicted: solver, folds that do not leak, scores with intervals, floors, and honest words."""

import numpy as np
import pandas as pd
import pytest

from histoweft.cohort import learners, performance, prediction, response, score, simulate
from histoweft.errors import HistoweftError, InputError
from histoweft.metrics import check_metrics

OPTIONS = {
    "positive": "R", "negative": "NR", "baseline": "", "min_patients": 16, "models": ["elastic_net"],
    "model": "elastic_net", "predictors": ["features", "signatures", "expression"], "genes": 30,
    "markers": ["G0", "CD8A"], "folds": 4, "repeats": 2, "inner_folds": 3, "permutations": 19, "bootstraps": 100,
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- solver


def test_the_elastic_net_is_that_of_an_independent_solver():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 12))
    y = (X[:, 0] - X[:, 1] + rng.normal(size=60) > 0.5).astype(float)
    labels = np.column_stack([y, 1 - y, y])
    weights = learners.balanced(labels)
    mix, ratio = np.array([0.5, 0.5, 0.1]), np.array([0.2, 0.2, 0.4])
    beta, bias = learners.elastic_net(X, labels, weights, mix, ratio)
    for column in (0, 2):
        gradient = np.abs((weights[:, column] * (0.5 - labels[:, column])) @ X).max()
        penalty = gradient * ratio[column] / mix[column]
        other = LogisticRegression(
            penalty="elasticnet", solver="saga", l1_ratio=mix[column], C=1 / penalty, max_iter=20000, tol=1e-7
        ).fit(X, labels[:, column], sample_weight=weights[:, column])
        assert np.allclose(beta[:, column], other.coef_[0], atol=3e-3)
        assert np.isclose(bias[column], other.intercept_[0], atol=3e-3)
    assert np.allclose(beta[:, 1], -beta[:, 0], atol=1e-4)


def test_weights_of_nought_leave_rows_out():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(40, 5)), (np.arange(40) % 2).astype(float)[:, None]
    used = np.arange(40) < 30
    some = learners.balanced(y, used[:, None].astype(float))
    settings = np.array([0.5]), np.array([0.3])
    with_weights, _ = learners.elastic_net(X, y, some, *settings)
    without, _ = learners.elastic_net(X[used], y[used], learners.balanced(y[used]), *settings)
    assert np.allclose(with_weights, without, atol=1e-3)
    assert np.isclose(some.sum(), 1)
    assert np.isclose(some[y == 1].sum(), 0.5)


def test_scaling_learns_from_training_rows_and_weighs_blocks_alike():
    rng = np.random.default_rng(2)
    X = rng.normal(3, 5, (50, 30))
    X[0, 0] = np.nan
    scaler = learners.Scaler(["a"] * 2 + ["b"] * 28).fit(X)
    done = scaler.transform(X)
    assert np.isclose((done[:, :2] ** 2).sum() / (done[:, 2:] ** 2).sum(), 1, rtol=0.05)
    assert done[0, 0] == 0
    other = scaler.transform(np.full((1, 30), 1e6))
    assert np.allclose(other, (1e6 - scaler.centre) * scaler.scale)


# ----------------------------------------------------------------------------------------------------- performance


def test_average_precision_and_auroc_are_those_of_scikit_learn():
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(3)
    positive = rng.random(50) < 0.4
    value = np.round(rng.normal(size=50) + positive, 1)  # with ties
    assert np.isclose(performance.average_precision(positive, value), average_precision_score(positive, value))
    groups = np.zeros(50)
    assert np.isclose(performance.auroc(positive, value, groups), roc_auc_score(positive, value))
    assert np.isclose(performance.average_precision(positive, np.zeros(50)), positive.mean())


def test_scores_within_cohorts_do_not_reward_knowing_the_cohort():
    groups = np.repeat(["a", "b"], 10)
    positive = np.r_[np.arange(10) < 8, np.arange(10) < 2]
    knows_cohort = (groups == "a").astype(float)
    assert performance.auroc(positive, knows_cohort, np.zeros(20)) > 0.7
    assert performance.auroc(positive, knows_cohort, groups) == 0.5


def test_many_auroc_agrees_with_one_at_a_time():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(4)
    labels = (rng.random((30, 2)) < 0.5).astype(float)
    scores = rng.normal(size=(30, 2, 3))
    found = prediction.many_auroc(labels, scores)
    for column in range(2):
        for setting in range(3):
            assert np.isclose(found[column, setting], roc_auc_score(labels[:, column], scores[:, column, setting]))


def test_calibration_finds_overconfidence_and_is_blind_to_prevalence():
    rng = np.random.default_rng(5)
    logit = rng.normal(0, 1.5, 4000)
    positive = rng.random(4000) < 1 / (1 + np.exp(-logit))
    one = np.zeros(4000)
    sure = 1 / (1 + np.exp(-2 * logit))
    assert np.isclose(performance.calibration_slope(positive, 1 / (1 + np.exp(-logit)), one), 1, atol=0.1)
    assert np.isclose(performance.calibration_slope(positive, sure, one), 0.5, atol=0.05)
    assert performance.expected_calibration_error(positive, sure) > 0.05
    assert np.isnan(performance.calibration_slope(positive, np.full(4000, 0.3), one))
    groups = np.arange(4000) % 2
    assert np.isnan(performance.calibration_slope(positive, 0.3 + 0.2 * groups, groups))
    shifted = rng.random(4000) < 1 / (1 + np.exp(-(logit + 2 * groups)))
    assert np.isclose(performance.calibration_slope(shifted, 1 / (1 + np.exp(-logit)), groups), 1, atol=0.12)


def test_bootstrap_draws_patients_inside_cohort_and_answer():
    groups = np.repeat(["a", "b", "b"], 6)
    positive = np.arange(18) % 3 == 0
    drawn = performance.resamples(positive, groups, 50, 0)
    assert (positive[drawn] == positive).all()
    assert (groups[drawn] == groups).all()
    assert len(np.unique(drawn[:, 0])) > 1


def test_permutation_p_counts_the_one_seen():
    assert performance.permutation_p(0.9, [0.1, 0.9, 0.95]) == 3 / 4
    assert performance.permutation_p(0.9, [0.1] * 19) == 1 / 20


# ----------------------------------------------------------------------------------------------------------- folds


def cohorts_task(n=48, cohorts=3, effect=2.0, genes=40, seed=0):
    made = simulate.features_only(n, effect=effect, genes=genes, seed=seed)
    names = np.repeat([f"c{i}" for i in range(cohorts)], n // cohorts)
    made.table["cohort"] = names
    label = (made.table["response"] == "R").astype(float)
    features = made.table[[c for c in made.table if ":" in c]]
    return prediction.make_task(label, made.table["cohort"], features, made.expression, 10)


def test_several_cohorts_are_held_out_whole_and_nobody_is_on_both_sides():
    task = cohorts_task()
    protocol, ((first, *rest),) = prediction.outer_folds(task, 5, 5, 0)
    assert protocol == "cohort"
    assert len(rest) == 2
    assert set(task.cohorts[first.test]) == {"c0"}
    assert "c0" not in task.cohorts[first.train]
    table = response.fold_table(task, protocol, [[first, *rest]])
    assert (table["on_both_sides"] == 0).all()
    assert table["patients_test"].sum() == 48


def test_few_patients_are_held_out_one_by_one_and_more_in_repeated_folds():
    small = prediction.outer_folds(cohorts_task(24, 1), 5, 3, 0)
    assert small[0] == "patient"
    assert [len(fold.test) for fold in small[1][0]] == [1] * 24
    large = prediction.outer_folds(cohorts_task(48, 1), 4, 3, 0)[1]
    assert len(large) == 3
    for folds in large:
        assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(48))
    assert not np.array_equal(large[0][0].test, large[1][0].test)


def test_a_fold_with_a_patient_on_both_sides_does_not_pass_the_audit():
    from histoweft.splits import Fold, audit

    with pytest.raises(HistoweftError, match="P1 on both sides"):
        audit([Fold("f", np.array([0, 1]), np.array([2]))], 3, groups=["P1", "P2", "P1"])


def test_what_is_held_out_changes_nothing_in_the_training():
    task = cohorts_task()
    _, rounds = prediction.outer_folds(task, 5, 1, 0)
    before = prediction.predict(task, "elastic_net", rounds, 3, 0, 0)
    fold = rounds[0][0]
    task.X[fold.test] *= 50  # wild values of the held-out cohort
    after = prediction.predict(task, "elastic_net", rounds, 3, 0, 0)
    assert before.settings[0] == after.settings[0]
    # The same coefficients times fifty; only the intercept stays.
    assert np.corrcoef(before.score[fold.test], after.score[fold.test])[0, 1] > 0.9
    answers = task.positive.copy()
    task.positive[fold.test] = 1 - task.positive[fold.test]
    flipped = prediction.predict(task, "elastic_net", [[fold]], 3, 0, 0)
    task.positive[:] = answers
    assert np.allclose(
        flipped.score[fold.test], prediction.predict(task, "elastic_net", [[fold]], 3, 0, 0).score[fold.test]
    )


def test_most_variable_genes_are_chosen_on_training_rows():
    task = cohorts_task()
    genes = np.flatnonzero(task.blocks == prediction.EXPRESSION)
    train = np.arange(16, 48)
    task.spread[:16, 3] = 100.0  # varies in the held-out rows only
    assert genes[3] in task.subset(np.arange(48))
    columns = task.subset(train)
    own = np.argsort(-(task.spread[train] ** 2).mean(axis=0))[:10]
    assert set(columns[np.isin(columns, genes)]) == set(genes[own])


@pytest.mark.parametrize("model", learners.MODELS)
def test_a_strong_effect_is_predicted_and_none_is_not(model):
    def auroc(effect):
        task = cohorts_task(48, 3, effect, 0, seed=1)
        _, rounds = prediction.outer_folds(task, 5, 1, 0)
        found = prediction.predict(task, model, rounds, 3, 0, 0)
        return performance.auroc(task.positive == 1, found.score, task.cohorts)

    assert auroc(4.0) > 0.85
    assert auroc(0.0) < 0.72


def test_the_same_seed_gives_the_same_scores_and_permutations():
    task = cohorts_task(24, 1)
    _, rounds = prediction.outer_folds(task, 5, 1, 0)
    first, second = (prediction.predict(task, "elastic_net", rounds, 3, 5, 7) for _ in range(2))
    assert np.array_equal(first.score, second.score)
    assert np.array_equal(first.permuted, second.permuted)
    assert len(first.permuted) == 5


def test_permutations_stay_inside_cohorts():
    positive = np.r_[np.ones(5), np.zeros(5), np.ones(1), np.zeros(9)]
    cohorts = np.repeat(["a", "b"], 10)
    drawn = prediction.permuted_labels(positive, cohorts, 30, 0)
    assert (drawn[:10].sum(axis=0) == 5).all()
    assert (drawn[10:].sum(axis=0) == 1).all()
    assert (drawn != positive[:, None]).any(axis=0).all()


def test_copies_constants_and_gaps_are_no_features():
    table = pd.DataFrame(
        {"a:1": np.arange(6.0), "a:2": -2 * np.arange(6.0), "a:3": 1.0, "a:4": [1, np.nan, np.nan, 2, 5, 3]}
    )
    assert list(prediction.distinct(table)) == ["a:1"]


def test_nothing_to_predict_from_is_said():
    answer = pd.Series([1.0, 0, 1, 0])
    with pytest.raises(InputError, match="no feature that differs between patients"):
        prediction.make_task(answer, pd.Series("c", answer.index), pd.DataFrame({"x:1": [1.0] * 4}), None, 5)


def test_features_of_several_cohorts_are_standardised_inside_them():
    task = cohorts_task()
    features = task.blocks != prediction.EXPRESSION
    for cohort in np.unique(task.cohorts):
        assert np.allclose(task.X[task.cohorts == cohort][:, features].mean(axis=0), 0, atol=1e-9)


def test_clinical_columns_become_numbers_and_words():
    table = pd.DataFrame(
        {"age": ["61", "70", "", "55", "48", "NA"], "sex": ["F", "M", "M", "F", "F", "M"], "site": list("abcdef")}
    )
    design = prediction.clinical_design(table)
    assert list(design) == ["age", "sex=F", "sex=M"] or list(design) == ["age", "sex=M", "sex=F"]
    assert design["age"].isna().sum() == 2
    assert list(design["sex=F"]) == [1, 0, 0, 1, 1, 0]


# ----------------------------------------------------------------------------------------- from table to verdict


@pytest.fixture(scope="module")
def evaluated():
    made = simulate.features_only(45, effect=3.0, genes=40, seed=2)
    made.table["cohort"] = np.repeat(["a", "b", "c"], 15)
    made.table["clinical:age"] = [str(40 + i % 30) for i in range(45)]
    made.table.loc[made.table.index[0], "response"] = "None"
    found = response.evaluate(made.table, made.expression, OPTIONS, 0)
    return found, score.metric_rows(found, "s", "elastic_net", 100, 0)


def test_every_method_has_its_rows_beside_the_floors(evaluated):
    found, rows = evaluated
    table = check_metrics(pd.DataFrame(rows))
    assert set(table["method"]) == {"elastic_net", "floor:G0", "floor:clinical", "floor:prior"}
    assert set(table["n"]) == {44, 14, 15}
    assert set(table["protocol"]) == {"cohort"}
    main = table[(table["method"] == "elastic_net") & (table["metric"] == "auroc")].set_index("fold")
    assert np.isclose(main.loc["all", "value"], main.drop(index="all")["value"].mean())
    assert main.loc["all", "note"].startswith("default")
    prior = table[(table["method"] == "floor:prior") & (table["fold"] == "all")].set_index("metric")["value"]
    assert prior["auroc"] == 0.5
    own = found.predictions["elastic_net"]
    brier = table[(table["method"] == "elastic_net") & (table["metric"] == "brier")]["value"].iloc[0]
    assert np.isclose(brier, ((own.probability - found.task.positive) ** 2).mean())
    assert len(response.prediction_table(found)) == 4 * 44


def test_the_words_name_patients_floors_and_the_winner(evaluated):
    found, rows = evaluated
    said = score.verdict(found, rows, "elastic_net", 100, 0)
    assert said["default"] == "elastic_net"
    assert "elastic_net beats its best floor." in said["texts"]
    assert "Response of 44 patients" in said["texts"][0]
    assert any("1 of 45 patients have no response" in text for text in said["warnings"])
    assert any("The marker CD8A is not measured" in text for text in said["warnings"])


def test_a_model_that_does_not_beat_its_floor_hands_over_to_it(evaluated):
    found, _ = evaluated
    worse = response.Evaluation(found.task, found.protocol, dict(found.predictions))
    worse.predictions["floor:G0"] = prediction.Prediction(found.predictions["elastic_net"].score)
    rows = score.metric_rows(worse, "s", "elastic_net", 50, 0)
    said = score.verdict(worse, rows, "elastic_net", 50, 0)
    assert said["default"] == "G0"
    assert any("a tie" in text for text in said["warnings"])
    backwards = response.Evaluation(found.task, found.protocol, dict(worse.predictions))
    backwards.predictions["elastic_net"] = prediction.Prediction(-found.predictions["elastic_net"].score)
    said = score.verdict(backwards, score.metric_rows(backwards, "s", "elastic_net", 50, 0), "elastic_net", 50, 0)
    assert any("loses to G0" in text for text in said["warnings"])


@pytest.mark.parametrize(("n", "positive"), [(12, 6), (30, 3)])
def test_too_few_patients_are_refused_with_advice(n, positive):
    made = simulate.features_only(n, seed=0)
    made.table["response"] = np.where(np.arange(n) < positive, "R", "NR")
    found = response.evaluate(made.table, made.expression, OPTIONS, 0)
    assert found.task is None
    assert f"from {n} patients with a known response ({positive} positive)" in found.refusal
    assert "Add patients, or bulk cohorts" in found.refusal
    assert score.metric_rows(found, "s", "elastic_net", 50, 0) == []
    assert score.verdict(found, [], "elastic_net", 50, 0)["warnings"] == [found.refusal]


def test_a_leaky_study_is_refused_before_anything_is_learned():
    made = simulate.features_only(24, genes=40, seed=0)
    made.expression.iloc[5] = made.expression.iloc[2]
    made.table["clinical:recist"] = np.where(made.table["response"] == "R", "PR", "PD")
    with pytest.raises(InputError) as error:
        response.evaluate(made.table, made.expression, OPTIONS, 0)
    text = str(error.value)
    assert "patients S03 and S06: found the same expression profile" in text
    assert "cohort.clinical, recist: found the response under another name" in text


def test_expression_of_a_patient_is_averaged_over_sections_by_spots():
    table = pd.DataFrame(
        {"patient": ["P1", "P1", "P2"], "condition": ["pre", "post", "pre"], "spots": [100, 300, 10]}, index=list("abc")
    )
    expression = pd.DataFrame({"G": [1.0, 3.0, 5.0]}, index=list("abc"))
    assert response.of_patients(expression, table).loc["P1", "G"] == 2.5
    assert response.of_patients(expression, table, "pre").loc["P1", "G"] == 1.0
