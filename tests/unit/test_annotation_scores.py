"""Scores with intervals, the choice of the model, truth of the samples, the verdict, the pictures."""

import json

import annotation_cases as cases
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from histoweft.annotation import annotator, figures, fitting, score, summary
from histoweft.annotation.score import Judged
from histoweft.io import write_table
from histoweft.metrics import area_under_curve, check_metrics

NAMES = ["a", "b", "c"]


def judged(n=300, right=0.8, seed=0, clusters=None):
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    predicted = np.where(rng.random(n) < right, truth, rng.integers(0, 3, n))
    return Judged(truth, predicted, NAMES, rng.uniform(0.4, 1, n), rng.random(n) < 0.9, rng.integers(1, 3, n), clusters)


# ------------------------------------------------------------------------------------------------------ scores


def test_scores_are_those_of_scikit_learn():
    one = judged()
    found = score.values_of(one)
    assert found["macro_f1"] == pytest.approx(f1_score(one.truth, one.predicted, average="macro"))
    assert found["accuracy"] == pytest.approx((one.truth == one.predicted).mean())
    recall = recall_score(one.truth, one.predicted, average=None)
    assert [found[f"recall:{name}"] for name in NAMES] == pytest.approx(list(recall))
    assert found["coverage"] == pytest.approx(one.covered.mean())
    assert found["set_size"] == pytest.approx(one.set_size.mean())


def test_weights_are_the_same_as_drawing_cells_again():
    one = judged()
    weights = next(score.replicate_weights(300, None, 1))
    drawn = np.repeat(np.arange(300), weights.astype(int))
    again = Judged(one.truth[drawn], one.predicted[drawn], NAMES, one.probability[drawn], one.covered[drawn],
                   one.set_size[drawn])  # fmt: skip
    assert score.values_of(one, weights) == pytest.approx(score.values_of(again))


def test_intervals_are_as_wide_as_theory_says():
    one = judged(1_000)
    low, high = score.score(one).interval("accuracy")
    p = one.right.mean()
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(p * (1 - p) / 1_000), rel=0.2)
    assert low < p < high


def test_whole_batches_are_drawn_where_they_are_held_out():
    clusters = np.repeat(["D1", "D2", "D3", "D4"], 75)
    for weights in score.replicate_weights(300, clusters, 0, replicates=20):
        assert all(len(set(weights[clusters == name])) == 1 for name in set(clusters))
    truth = np.zeros(300, int)
    by_batch = np.where(clusters == "D1", 1, 0)  # one batch is all wrong
    one = Judged(truth, by_batch, NAMES, np.ones(300), clusters=clusters)
    alone = Judged(truth, by_batch, NAMES, np.ones(300))
    wide, narrow = (np.diff(score.score(each).interval("accuracy"))[0] for each in (one, alone))
    assert wide > 3 * narrow


def test_a_perfect_share_has_an_interval_all_the_same():
    perfect = Judged(np.zeros(50, int), np.zeros(50, int), NAMES, np.ones(50))
    low, high = score.score(perfect).interval("accuracy")
    assert (low, high) == (pytest.approx(0.025 ** (1 / 50)), 1.0)
    wrong = Judged(np.zeros(50, int), np.ones(50, int), NAMES, np.ones(50))
    assert score.score(wrong).interval("accuracy")[1] == pytest.approx(1 - 0.025 ** (1 / 50))


def test_differences_are_paired():
    one = judged(500, seed=1)
    worse = one.predicted.copy()
    worse[:25] = (one.truth[:25] + 1) % 3
    other = Judged(one.truth, worse, NAMES, one.probability)
    gain = score.difference(score.score(one, 3), score.score(other, 3), "accuracy")
    assert gain.value == pytest.approx((one.right.sum() - (one.truth == worse).sum()) / 500)
    assert 0 < gain.low < gain.value < gain.high
    same = score.difference(score.score(one, 3), score.score(one, 3), "accuracy")
    assert (same.low, same.high) == (0, 0)


def test_a_model_annotates_only_if_it_beats_logistic():
    weak, strong = score.score(judged(500, 0.6, 1)), score.score(judged(500, 0.95, 1))
    assert score.default_model("gnn", {"logistic": weak, "gnn": strong}) == "gnn"
    assert score.default_model("gnn", {"logistic": strong, "gnn": weak}) == "logistic"
    assert score.default_model("gnn", {"logistic": strong, "gnn": strong}) == "logistic"
    assert score.default_model("logistic", {"logistic": weak, "gnn": strong}) == "logistic"


def test_the_area_under_the_curve_counts_ties_half():
    rng = np.random.default_rng(0)
    positive, values = rng.random(200) < 0.3, rng.integers(0, 12, 200)
    assert area_under_curve(positive, values) == pytest.approx(roc_auc_score(positive, values))
    assert np.isnan(area_under_curve(np.zeros(3, bool), np.arange(3)))


# ------------------------------------------------------------------------------------------- the sheet's labels


GROUPS = {"B naive": "B", "B memory": "B", "T": "T"}


def test_labels_are_translated_into_the_reference_words():
    labels = pd.Series(["b naive", "T", None, "stranger", "B memory"])
    level, names, codes = score.map_labels(labels, list(GROUPS), GROUPS)
    assert (level, names) == ("types", list(GROUPS))
    assert codes.tolist() == [0, 2, -1, -2, 1]


def test_labels_may_be_groups_or_be_mapped_or_mean_nothing():
    level, names, codes = score.map_labels(pd.Series(["B", "T", "B", "x"]), list(GROUPS), GROUPS)
    assert (level, names, codes.tolist()) == ("groups", ["B", "T"], [0, 1, 0, -2])
    table = {"lymphocyte B": "B", "unclear": "", "lymphocyte T": "T"}
    _, _, codes = score.map_labels(pd.Series(["lymphocyte B", "unclear", "lymphocyte T"]), list(GROUPS), GROUPS, table)
    assert codes.tolist() == [0, -1, 1]
    assert score.map_labels(pd.Series(["layer 1", "layer 2", "T"]), list(GROUPS), GROUPS) is None


def test_a_sample_is_judged_on_its_cells_of_known_type():
    table = pd.DataFrame({
        "best": ["B naive", "T", "T", "B memory"], "probability": [0.9, 0.8, 0.7, 0.6],
        "set": ["B naive;T", "T", "B naive", ""], "set_size": [2, 1, 1, 0],
    })  # fmt: skip
    one = score.judge_sample(table, ("types", list(GROUPS), np.array([0, 2, -2, 1])), list(GROUPS), GROUPS)
    assert one.right.tolist() == [True, True, True]
    assert one.covered.tolist() == [True, True, False]
    one = score.judge_sample(table, ("groups", ["B", "T"], np.array([0, 0, -1, 0])), list(GROUPS), GROUPS)
    assert one.right.tolist() == [True, False, True]
    assert one.covered is None


# ------------------------------------------------------------------------------------------------- a whole study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two models, two samples (one of them the reference's own cells), a hierarchy."""
    folder = tmp_path_factory.mktemp("scores")
    names = cases.draw_types({"alpha": 130, "beta": 100, "delta": 90, "rare": 30})
    cases.write_h5ad(folder / "reference.h5ad", names, cases.counts_of(names))
    asked = cases.draw_types({"alpha": 60, "beta": 60, "delta": 40, "stranger": 40}, seed=3)
    files = {"own": cases.write_h5ad(folder / "own.h5ad", names, cases.counts_of(names), sample="own")}
    files["s1"] = cases.write_h5ad(folder / "s1.h5ad", asked, cases.counts_of(asked, seed=4), sample="s1")
    (folder / "groups.tsv").write_text("type\tgroup\nalpha\tab\nbeta\tab\ndelta\tdr\nrare\tdr\n")
    options = cases.options(folds=3, hierarchy=str(folder / "groups.tsv"))
    genes = fitting.shared_genes(folder / "reference.h5ad", files, options)
    reference = fitting.load_reference(folder / "reference.h5ad", genes, options, 0)
    logistic = fitting.fit(reference, "logistic", options, genes.samples)
    fits = [logistic, fitting.fit(reference, "knn", options, genes.samples, floor=logistic.held_out)]
    samples = []
    for name, path in files.items():
        found = annotator.annotate([fit.annotator for fit in fits], path, name)
        by_name = dict(zip(["logistic", "knn"], found))
        write_table(annotator.beside_one_another(by_name), folder / f"{name}.parquet")
        told = {"warnings": found[0].warnings, "runs": {key: one.facts for key, one in by_name.items()}}
        (folder / f"{name}.json").write_text(json.dumps(told))
        known = reference.barcodes if name == "own" else ()
        samples.append(summary.read_sample(path, folder / f"{name}.parquet", folder / f"{name}.json", known))
    made = summary.summarise(
        [fit.held_out for fit in fits], samples, study="x", asked="knn", query_map=None, alpha=0.1, unknown_rate=0.05,
        groups=fitting.groups_of(reference.types, options["hierarchy"]),
    )  # fmt: skip
    return {"made": made, "fits": fits, "samples": samples, "asked": asked, "folder": folder, "reference": reference}


def rows_of(study, **where):
    rows = check_metrics(pd.DataFrame(study["made"].rows))
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def test_every_model_stands_beside_the_floors(study):
    rows = rows_of(study, metric="macro_f1", sample="reference", panel="types (4)").set_index("method")["value"]
    assert set(rows.index) == {"logistic", "knn", "floor:majority"}
    assert rows["logistic"] > 0.9
    assert rows["floor:majority"] < 0.3
    assert set(rows_of(study, metric="recall", sample="reference", method="logistic")["panel"]) >= {"alpha", "rare"}
    groups = rows_of(study, metric="accuracy", sample="reference", panel="groups (2)")
    assert len(groups) == 3
    coverage = rows_of(study, metric="coverage", sample="reference", panel="types (4)", method="logistic")
    assert coverage["value"].item() == pytest.approx(0.9, abs=0.05)
    seconds = rows_of(study, metric="seconds", sample="reference")
    assert (seconds["value"] > 0).all()
    assert set(seconds["method"]) == {"logistic", "knn"}


def test_the_default_is_marked_and_the_loser_named(study):
    made = study["made"]
    assert made.default == made.verdict["default"] == "logistic"
    noted = rows_of(study)
    assert set(noted.loc[noted["note"].str.startswith("default"), "method"]) == {"logistic", "distance"}
    assert "The model asked for, knn, does not beat logistic, so logistic annotates." in made.verdict["texts"][0]
    gain = rows_of(study, metric="macro_f1_gain", sample="reference")
    assert gain["method"].tolist() == ["knn"]
    assert gain["low"].item() <= gain["value"].item() <= gain["high"].item()


def test_groups_are_left_out_and_their_mean_is_told(study):
    rows = rows_of(study, metric="unknown_auroc", sample="reference", method="distance").set_index("panel")["value"]
    assert set(rows.index) == {"ab", "dr", "groups left out (2)"}
    assert rows["groups left out (2)"] == pytest.approx((rows["ab"] + rows["dr"]) / 2)
    assert "floor:probability" in set(rows_of(study, metric="unknown_auroc")["method"])
    rate = rows_of(study, metric="unknown_rate", sample="reference")["value"].item()
    assert rate == pytest.approx(0.05, abs=0.04)


def test_labelled_samples_are_scored_against_the_sheet(study):
    found = rows_of(study, sample="s1", metric="accuracy", method="logistic")
    assert found["protocol"].item() == "truth"
    assert found["n"].item() == 160
    table = study["samples"][1].tables["logistic"]
    known = study["asked"] != "stranger"
    assert found["value"].item() == pytest.approx((table["best"].astype(str) == study["asked"])[known].mean())
    auroc = rows_of(study, sample="s1", metric="unknown_auroc")["value"].item()
    assert auroc == pytest.approx(roc_auc_score(~known, table["unknown_score"]))
    caught = rows_of(study, sample="s1", metric="unknown_found")["value"].item()
    assert caught == pytest.approx(table["unknown"][~known].mean())


def test_the_reference_own_cells_are_no_test(study):
    assert rows_of(study, sample="own", metric="accuracy").empty
    assert any(text.startswith("own: its labelled cells are those of the reference") for text in
               study["made"].verdict["texts"])  # fmt: skip


def test_refused_cells_are_counted_in_the_verdict(study):
    counts = [int(sample.tables["logistic"]["unknown"].sum()) for sample in study["samples"]]
    text = study["made"].verdict["texts"][-1]
    assert text == f"Refused as unknown: own {counts[0]} of 350, s1 {counts[1]} of 200."


def test_without_a_hierarchy_there_are_no_groups(study):
    made = summary.summarise(
        [fit.held_out for fit in study["fits"]], [], study="x", asked="logistic", query_map=None, alpha=0.1,
        unknown_rate=0.05, groups={name: name for name in study["reference"].types},
    )  # fmt: skip
    assert not any("groups" in row["panel"] for row in made.rows if row["metric"] == "accuracy")


# ------------------------------------------------------------------------------------------------------ pictures


def test_marker_summary_is_the_mean_of_the_cells(study):
    labels = pd.Series(pd.Categorical(study["asked"], [*cases.TYPES, "stranger"]))
    counts = cases.counts_of(study["asked"], seed=4)
    mean, share = figures.marker_summary(study["folder"] / "s1.h5ad", labels, {"G3": 3, "G25": 25})
    assert list(mean.index) == ["alpha", "beta", "delta", "stranger"]
    mine = study["asked"] == "beta"
    values = counts[mine] / counts[mine].sum(axis=1, keepdims=True) * 1e4
    assert mean.loc["beta", "G25"] == pytest.approx(np.log1p(values[:, 25]).mean(), rel=1e-5)
    assert share.loc["beta", "G3"] == pytest.approx((counts[mine][:, 3] > 0).mean())


def test_known_markers_that_decide_come_first():
    table = pd.DataFrame({"type": ["a", "a", "b"], "kind": "gene", "rank": [1, 2, 1], "name": ["X", "Y", "Z"]}).assign(
        expressed="higher"
    )
    assert figures.genes_to_show(table, {"a": {"A", "Y"}}) == ["Y", "A", "Z"]
    assert figures.genes_to_show(table, None) == ["X", "Y", "Z"]
    assert figures.genes_to_show(table.assign(expressed=["higher", "lower", "higher"]), None) == ["X", "Z"]
    assert figures.genes_to_show(table.iloc[:0], {"a": {"A"}}) == ["A"]


def test_every_picture_is_drawn(study, tmp_path):
    made = study["made"]
    found = annotator.annotate([study["fits"][0].annotator], study["folder"] / "s1.h5ad", "s1")[0].table
    xy = np.random.default_rng(0).uniform(0, 1000, (len(found), 2))
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    figures.sample_figure(found, xy, paths[0], on_tissue=True, sample="s1", mpp=1.0)
    figures.sample_figure(found, xy, paths[1], on_tissue=False, sample="s1")
    mean, share = figures.marker_summary(study["folder"] / "s1.h5ad", found["label"], {"G3": 3, "G25": 25})
    figures.dot_figure(mean, share, {"alpha": 60}, paths[2])
    figures.confusion_figure(made.judged["logistic"], paths[3], "logistic")
    figures.reliability_figure(made.judged, paths[4])
    figures.recall_figure(made.recall, paths[5])
    figures.explanation_figure(study["fits"][0].explanations, paths[6], "logistic")
    figures.explanation_figure(study["fits"][1].explanations, paths[7], "knn")
    assert all(path.stat().st_size > 3_000 for path in paths)
    assert set(made.recall["method"]) == {"logistic", "knn"}
    assert set(made.recall["panel"]) == set(study["reference"].types)


def test_a_warning_of_several_samples_is_told_once():
    def sample(name, *texts):
        return summary.Sample(
            name, {}, pd.Series(dtype=object), {}, [f"{name}: {text}" for text in texts], np.array([])
        )

    told = summary._told_once([sample("a", "mixed spots", "few genes"), sample("b", "mixed spots"), sample("c")])
    assert told == ["a, b: mixed spots", "a: few genes"]
