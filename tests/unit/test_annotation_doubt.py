"""Calibration, prediction sets, the flag for unknown cells, and the annotation of a sample."""

import logging
from dataclasses import replace

import annotation_cases as cases
import numpy as np
import pandas as pd
import pytest

from histoweft.annotation import annotator, calibrate, fitting, heldout
from histoweft.annotation.annotator import Calibration
from histoweft.errors import InputError
from histoweft.io import CountsFile, read_table, write_table
from histoweft.splits import Fold


def draw(n, n_types=4, seed=0, temperature=1.0):
    """Logits whose softmax, at the given temperature, is the truth's distribution."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((n, n_types))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = (probability.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return (logits * temperature).astype(np.float32), codes


# ----------------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_planted_temperature_is_found(temperature):
    logits, codes = draw(20_000, temperature=temperature)
    assert calibrate.fit_temperature(logits, codes) == pytest.approx(temperature, rel=0.05)


def test_calibration_error_of_a_planted_overconfidence():
    rng = np.random.default_rng(0)
    claimed = np.full(50_000, 0.9)
    assert calibrate.expected_calibration_error(claimed, rng.random(50_000) < 0.7) == pytest.approx(0.2, abs=0.01)
    claimed = rng.uniform(0.3, 1, 50_000)
    assert calibrate.expected_calibration_error(claimed, rng.random(50_000) < claimed) < 0.01


def test_reliability_counts_every_cell_once():
    claimed = np.array([0.05, 0.5, 0.52, 1.0])
    bins, share, mean, true = calibrate.reliability(claimed, np.array([False, True, False, True]), bins=10)
    assert bins.tolist() == [0, 5, 9]
    assert share.tolist() == [0.25, 0.5, 0.25]
    assert mean[1] == pytest.approx(0.51)
    assert true.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_sets_cover_every_type_as_asked(alpha):
    logits, codes = draw(12_000)
    first, second = slice(0, 6_000), slice(6_000, None)
    thresholds = calibrate.set_thresholds(calibrate.softmax(logits[first]), codes[first], alpha)
    sets = calibrate.apply(logits[second], 1.0, thresholds).sets
    for code in range(4):
        mine = codes[second] == code
        assert sets[mine, code].mean() == pytest.approx(1 - alpha, abs=0.025)


def test_the_rank_of_split_conformal_prediction():
    probability = np.zeros((99, 2))
    probability[:, 0] = np.linspace(0.01, 0.99, 99)
    thresholds = calibrate.set_thresholds(probability, np.zeros(99, int), 0.1)
    # ceil(100 x 0.9) = 90th smallest of 1 - p: the 90th largest probability.
    assert thresholds[0] == pytest.approx(0.10)
    # The type without cells shares the threshold of all.
    assert thresholds[1] == thresholds[0]
    few = calibrate.set_thresholds(probability[:5], np.zeros(5, int), 0.1)
    assert few.tolist() == [0, 0]  # too few cells to leave any type out


def test_cross_fitting_never_looks_at_the_fold_it_judges():
    logits, codes = draw(3_000)
    rows = np.arange(3_000)
    folds = [Fold(str(i), rows[rows % 3 != i], rows[rows % 3 == i]) for i in range(3)]
    found = calibrate.cross_fitted(logits, codes, folds, 0.1)
    assert found.sets[rows, codes].mean() == pytest.approx(0.9, abs=0.02)
    other = codes.copy()
    other[folds[0].test] = 0
    again = calibrate.cross_fitted(logits, other, folds, 0.1)
    assert (again.probability[folds[0].test] == found.probability[folds[0].test]).all()
    assert (again.probability[folds[1].test] != found.probability[folds[1].test]).any()


def test_sets_are_written_in_words():
    sets = np.array([[True, False, True], [False, False, False], [True, False, True], [False, True, False]])
    assert annotator.join_sets(sets, ["a", "b", "c"]).tolist() == ["a;c", "", "a;c", "b"]


# ----------------------------------------------------------------------------------------------- the shift


KNOWN = Calibration(1.0, np.zeros(2), unknown_above=5.0, quartile=2.0, unknown_distance=8.0)


def test_a_sample_of_other_technology_is_laid_onto_the_reference():
    rng = np.random.default_rng(0)
    known = rng.normal(2.7, 1, 4_000)
    base = replace(KNOWN, quartile=float(np.quantile(known, 0.25)), unknown_above=float(np.quantile(known, 0.95)))
    for technology in (0.0, 1.5):
        for unknown_share in (0.0, 0.3, 0.6):
            n = int(2_000 / (1 - unknown_share) * unknown_share)
            distance = np.concatenate([rng.normal(2.7, 1, 2_000), rng.normal(9, 1, n)]) + technology
            shift, _ = annotator.sample_shift(distance, base)
            flagged = distance - shift > base.unknown_above
            assert flagged[:2_000].mean() < 0.06
            if n:
                assert flagged[2_000:].mean() > 0.97


def test_a_nearer_sample_is_not_moved_away():
    assert annotator.sample_shift(np.full(100, 1.0), KNOWN) == (0.0, [])
    assert annotator.sample_shift(np.zeros(0), KNOWN) == (0.0, [])


def test_a_sample_that_may_be_unknown_altogether_is_warned_of():
    shift, warnings = annotator.sample_shift(np.full(100, 8.0), KNOWN, "s1")
    assert shift == 6
    assert warnings[0].startswith("s1: even the nearest quarter of its cells lies 6.0 farther from all types")
    assert annotator.sample_shift(np.full(100, 4.5), KNOWN)[1] == []
    assert annotator.sample_shift(np.full(100, 99.0), replace(KNOWN, unknown_distance=np.nan))[1] == []


# ----------------------------------------------------------------------------------------------- a whole sample


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A reference and a sample of other technology that holds strangers, as files; the fits of two models."""
    folder = tmp_path_factory.mktemp("annotation")
    names = cases.draw_types({"alpha": 150, "beta": 120, "delta": 100, "rare": 20})
    cases.write_h5ad(folder / "reference.h5ad", names, cases.counts_of(names))
    asked = cases.draw_types({"alpha": 150, "beta": 60, "delta": 60, "rare": 15, "stranger": 60}, seed=3)
    counts = cases.counts_of(asked, seed=4, shift=0.15)
    counts[7] = 0
    order = np.random.default_rng(0).permutation(cases.GENES)
    cases.write_h5ad(folder / "s1.h5ad", asked, counts[:, order], genes=cases.NAMES[order], sample="s1")
    options = cases.options(folds=3)
    genes = fitting.shared_genes(folder / "reference.h5ad", {"s1": folder / "s1.h5ad"}, options)
    reference = fitting.load_reference(folder / "reference.h5ad", genes, options, 0)
    logistic = fitting.fit(reference, "logistic", options, genes.samples)
    knn = fitting.fit(reference, "knn", options, genes.samples, floor=logistic.held_out)
    found = annotator.annotate([logistic.annotator, knn.annotator], folder / "s1.h5ad", "s1")
    return {"folder": folder, "asked": asked, "fits": [logistic, knn], "found": found, "reference": reference}


def test_known_cells_are_named_and_strangers_refused(study):
    table, asked = study["found"][0].table, study["asked"]
    known = asked != "stranger"
    known[7] = False
    assert (table["best"].astype(str) == asked)[known].mean() > 0.97
    assert table["unknown"][asked == "stranger"].mean() > 0.75
    assert table["unknown"][known].mean() < 0.12
    assert (table["label"].astype(str) == np.where(table["unknown"], "unknown", table["best"].astype(str))).all()
    assert list(table["label"].cat.categories) == ["alpha", "beta", "delta", "rare", "unknown"]


def test_the_table_holds_what_it_says(study):
    table = study["found"][0].table
    with CountsFile(study["folder"] / "s1.h5ad") as counts:
        assert (table.index == counts.obs_names).all()
    each = table.filter(regex="^p:")
    assert list(each) == ["p:alpha", "p:beta", "p:delta", "p:rare"]
    assert (each.dtypes == np.float32).all()
    assert np.allclose(each.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(each.max(axis=1), table["probability"])
    assert (each.idxmax(axis=1).str[2:] == table["best"].astype(str)).all()
    sizes = table["set"].map(lambda words: len(words.split(";")) if words else 0)
    assert (sizes == table["set_size"]).all()
    facts = study["found"][0].facts
    assert facts["unknown"] == table["unknown"].sum()
    assert facts["shift"] > 0
    assert facts["cells"] == len(table)


def test_a_cell_without_shared_counts_is_unknown(study):
    assert study["found"][0].table["unknown"].iloc[7]
    assert any("1 cells have no count in a shared gene" in warning for warning in study["found"][0].warnings)


def test_spots_of_several_cells_are_warned_of(study, tmp_path):
    names = np.repeat(["alpha", "beta"], 20)
    counts = cases.counts_of(names)
    model = replace(study["fits"][0].annotator, columns={"v": np.arange(cases.GENES)})
    for platform, warned in (("visium", True), ("xenium", False)):
        path = cases.write_h5ad(tmp_path / f"{platform}.h5ad", names, counts, platform=platform)
        warnings = annotator.annotate([model], path, "v")[0].warnings
        assert any(text.startswith("v: a spot holds several cells") for text in warnings) == warned


def test_small_blocks_change_nothing(study, monkeypatch):
    monkeypatch.setattr("histoweft.io.NNZ_BUDGET", 2_000)
    again = annotator.annotate([study["fits"][0].annotator], study["folder"] / "s1.h5ad", "s1")[0].table
    assert np.allclose(again["unknown_score"], study["found"][0].table["unknown_score"], atol=1e-4)
    assert (again["label"] == study["found"][0].table["label"]).all()


def test_a_stored_annotator_annotates_alike(study, tmp_path):
    annotator.save(study["fits"][0].annotator, tmp_path / "model.npz")
    loaded = annotator.load(tmp_path / "model.npz")
    table = annotator.annotate([loaded], study["folder"] / "s1.h5ad", "s1")[0].table
    assert table.drop(columns="set").equals(study["found"][0].table.drop(columns="set"))
    assert loaded.calibration.unknown_above == study["fits"][0].annotator.calibration.unknown_above
    (tmp_path / "other.npz").write_bytes(b"no")
    with pytest.raises(InputError, match=r"other.npz.*a model of the annotation stage.*Delete it and run again"):
        annotator.load(tmp_path / "other.npz")


def test_calls_of_several_models_lie_beside_one_another(study, tmp_path):
    table = annotator.beside_one_another(dict(zip(["logistic", "knn"], study["found"])))
    write_table(table, tmp_path / "compared.parquet")
    apart = annotator.apart(read_table(tmp_path / "compared.parquet"))
    assert list(apart) == ["logistic", "knn"]
    for one, name in zip(study["found"], apart):
        assert (apart[name]["best"].astype(str) == one.table["best"].astype(str)).all()
        assert (apart[name]["set"] == one.table["set"]).all()


def test_the_flag_catches_as_many_known_cells_as_asked(study):
    fit = study["fits"][0]
    assert (fit.held_out.distance > fit.annotator.calibration.unknown_above).mean() == pytest.approx(0.05, abs=0.005)
    far = fit.held_out.left_out.query("score == 'distance'")["distance"].median()
    assert fit.annotator.calibration.unknown_distance == pytest.approx(far)


def test_held_out_cells_are_stored_whole(study, tmp_path):
    held_out = study["fits"][0].held_out
    heldout.write(held_out, tmp_path / "held_out.npz")
    again = heldout.read(tmp_path / "held_out.npz")
    assert (again.logits == held_out.logits).all()
    assert again.left_out.equals(held_out.left_out)
    assert again.facts == held_out.facts
    assert [len(fold.test) for fold in again.folds] == [len(fold.test) for fold in held_out.folds]
    assert study["fits"][1].held_out.left_out.empty
    (tmp_path / "other.npz").write_bytes(b"no")
    with pytest.raises(InputError, match="held-out cells of the annotation stage"):
        heldout.read(tmp_path / "other.npz")


def test_the_same_seed_gives_the_same_fit(study):
    options = cases.options(folds=3)
    again = fitting.fit(study["reference"], "logistic", options, study["fits"][0].annotator.columns)
    assert (again.held_out.logits == study["fits"][0].held_out.logits).all()


def test_an_embedding_serves_as_the_space(study, tmp_path):
    folder = study["folder"]
    random = np.random.default_rng(0).normal(size=(cases.GENES, 12))
    for name in ("reference", "s1"):
        with CountsFile(folder / f"{name}.h5ad") as counts:
            columns = counts.var_names.get_indexer(cases.NAMES)
            values = np.log1p(counts.matrix()[:, columns].toarray()) @ random
            table = pd.DataFrame(values, counts.obs_names, [str(i) for i in range(12)])
        table.to_parquet(tmp_path / f"{name}.parquet")
    options = cases.options(folds=3, embedding=str(tmp_path / "{sample}.parquet"))
    genes = fitting.shared_genes(folder / "reference.h5ad", {"s1": folder / "s1.h5ad"}, options)
    reference = fitting.load_reference(folder / "reference.h5ad", genes, options, 0)
    done = fitting.fit(reference, "logistic", options, genes.samples)
    assert done.explanations.empty
    with CountsFile(folder / "s1.h5ad") as counts:
        query = fitting.load_embedding(options["embedding"], "s1", "", counts.obs_names.to_numpy())
    table = annotator.annotate([done.annotator], folder / "s1.h5ad", "s1", query)[0].table
    known = study["asked"] != "stranger"
    assert (table["best"].astype(str) == study["asked"])[known].mean() > 0.75
    with pytest.raises(InputError, match=r"transformer together with annotation\.embedding"):
        fitting.fit(reference, "transformer", options, genes.samples)


def test_donors_are_held_out_whole(tmp_path, caplog):
    reference = cases.reference_of(donors=3)
    with caplog.at_level(logging.INFO):
        done = fitting.fit(reference, "logistic", cases.options(folds=5), {})
    assert done.held_out.protocol == "patient"
    assert "held out: whole batches (3)" in caplog.text
    assert (done.held_out.batches == reference.groups).all()
