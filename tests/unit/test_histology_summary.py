"""From fits to the verdict: predictions and scores on disk, settings of folds, and who paints the maps."""

import dataclasses
import functools
import json

import histology_cases as cases
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

pytest.importorskip("torch")
pytest.importorskip("pytorch_lightning")

from histoweft.errors import HistoweftError, InputError
from histoweft.floors import Factored
from histoweft.histology import evaluate, folds, results, score, spots, summary
from histoweft.histology.network import Options
from histoweft.histology.panels import Panel
from histoweft.metrics import check_metrics
from histoweft.splits import Fold

FLOORS = ["floor:mean", "floor:library_size", "floor:coordinates", "floor:ridge_patch", "floor:ridge_context"]
QUALITY = {"floor:library_size": 0.1, "floor:coordinates": 0.3, "floor:ridge_patch": 0.5, "floor:ridge_context": 0.8,
           "bar:ensemble": 0.85, "context": 1.5}  # fmt: skip
NAMES = [f"g{i}" for i in range(12)]


@pytest.fixture(autouse=True)
def _checked_at_the_end(monkeypatch):
    """Check the rows of a table together, not each as it is made: that takes most of the time."""
    monkeypatch.setattr("histoweft.metrics.check_metrics", lambda table: table)


@functools.cache
def scored(sample="s1", fold="block_1", genes=12, seed=0, names=None, **quality):
    """Score methods that see the truth through noise; the larger the quality, the less of it."""
    random = np.random.default_rng([seed, len(fold), len(sample)])
    truth = np.abs(random.standard_normal((40, genes)) + 2)
    x, y = np.meshgrid(np.arange(8.0), np.arange(5.0))
    given = {"floor:mean": np.full_like(truth, 2.0)}
    for method, amount in (QUALITY | {name.replace("__", ":"): q for name, q in quality.items()}).items():
        if amount is not None:
            given[method] = amount * truth + random.standard_normal(truth.shape)
    eye, none, xy = np.eye(genes), np.zeros(genes), np.stack([x.ravel(), y.ravel()], axis=1)
    chosen = [Panel("top50", np.arange(genes)[::-2]), Panel("markers", np.array([0])), Panel("all", np.arange(genes))]
    return score.score_fold(
        score.HeldOut(
            sample, fold, sparse.csr_matrix(truth), random.standard_normal(40), xy,
            np.full(genes, 2.0), chosen, {method: Factored(values, eye, none) for method, values in given.items()},
            np.full(genes, 0.95),
        ),
        n_boot=50,
    )  # fmt: skip


def study(kinds, model="context", runs=(), **quality):
    """Summarise a study of two folds for each kind of fit."""
    given = {}
    for kind in kinds:
        own = {name: value for name, value in quality.items() if not isinstance(value, dict)}
        own |= quality.get(kind, {}) if isinstance(quality.get(kind), dict) else {}
        names = {"across": "s", "block": "block_", "random": "random_"}[kind]
        given[kind] = (
            [scored("s1" if kind != "across" else f"s{i}", f"{names}{i}", seed=i, **own) for i in (1, 2)],
            NAMES,
        )
    return summary.summarise_study(given, "mob", "section", model, runs)


# -------------------------------------------------------------------------------------------------- predictions


def entry(name="block_1", n=6, seed=0):
    random = np.random.default_rng(seed)
    dense = Factored(random.standard_normal((n, 3)), random.standard_normal((3, 5)), random.standard_normal(5))
    loose = Factored(sparse.csr_matrix(np.eye(n)), sparse.csc_matrix(random.poisson(0.5, (n, 5))), np.zeros(5))
    return {
        "name": name, "test": np.arange(n) * 2, "methods": {"context": dense, "floor:coordinates": loose},
        "training": {"context": 0.75}, "runs": {"context": {"epochs": 3, "seconds_per_epoch": 0.5, "device": "cpu"}},
    }  # fmt: skip


def test_predictions_come_back(tmp_path):
    given = [entry(), entry("block_2", 4, 1)]
    results.write_predictions(tmp_path / "p.npz", given)
    back = results.read_predictions(tmp_path / "p.npz")
    assert [fold["name"] for fold in back] == ["block_1", "block_2"]
    for a, b in zip(given, back):
        assert np.array_equal(a["test"], b["test"])
        assert b["training"] == {"context": 0.75}
        assert b["runs"] == a["runs"]
        assert list(b["methods"]) == ["context", "floor:coordinates"]
        for method, factored in a["methods"].items():
            assert b["methods"][method].shape == factored.shape
            np.testing.assert_allclose(b["methods"][method].genes(slice(None)), factored.genes(slice(None)), atol=1e-5)


@pytest.mark.parametrize("content", ["short", b"", b"no predictions", "other arrays"])
def test_what_are_no_predictions_is_named(tmp_path, content):
    path = tmp_path / "p.npz"
    if content == "short":
        results.write_predictions(path, [entry()])
        path.write_bytes(path.read_bytes()[:-100])
    elif content == "other arrays":
        np.savez(path, a=np.arange(3))
    else:
        path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"(?s)p\.npz: .*expected predictions of the histology stage.*Delete it and run"
    ):
        results.read_predictions(path)
    with pytest.raises(InputError, match=r"(?s)p\.npz: .*expected scores of the histology stage.*Delete it and run"):
        results.read_scores([path])


# ------------------------------------------------------------------------------------------------------- scores


def test_scores_of_different_genes_come_back_under_one_numbering(tmp_path):
    first, second = scored("s1", genes=4), scored("s2", genes=3, seed=5)
    results.write_scores(tmp_path / "a.npz", [first], ["A", "B", "C", "D"])
    results.write_scores(tmp_path / "b.npz", [second], ["D", "E", "B"])
    back, genes = results.read_scores([tmp_path / "a.npz", tmp_path / "b.npz"])
    assert genes == ["A", "B", "C", "D", "E"]
    for was, now, names in ((first, back[0], "ABCD"), (second, back[1], "DEB")):
        assert (now.sample, now.fold, now.n) == (was.sample, was.fold, was.n)
        for a, b in zip(was.panels, now.panels, strict=True):
            assert a.name == b.name
            assert [names[i] for i in a.genes] == [genes[i] for i in b.genes]
        assert list(now.tables) == list(was.tables)
        for method, table in was.tables.items():
            mine = now.tables[method].set_axis([genes[i] for i in now.tables[method].index])
            expected = table.set_axis([names[i] for i in table.index])
            pd.testing.assert_frame_equal(mine, expected[mine.columns], check_names=False)
            assert set(expected.columns) == set(mine.columns)
        for method, values in was.replicates.items():
            assert np.array_equal(now.replicates[method], values)
    assert list(back[1].tables[score.CEILING].columns) == ["pearson"]


def test_a_gene_that_is_constant_in_a_fold_stays_unscored(tmp_path):
    one = scored(genes=3)
    one.tables["context"].loc[1] = np.nan
    results.write_scores(tmp_path / "a.npz", [one], ["A", "B", "C"])
    (back,), _ = results.read_scores([tmp_path / "a.npz"])
    assert back.tables["context"]["pearson"].isna().tolist() == [False, True, False]


# --------------------------------------------------------------------------------------------------- evaluation


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """Return the spots of one section and two blocks of it, cross-validated."""
    from threadpoolctl import threadpool_limits

    joined = spots.join([cases.read(tmp_path_factory.mktemp("section"))])
    of = folds.within(joined, "block", 4, 1.0, seed=0)[:2]
    options = [Options(members=2, hidden=8, steps=20, batch=32, points=2)] * 2
    with threadpool_limits(1):
        found = evaluate.cross_validate(
            joined, of, options, seed=0, device="cpu", threads=1,
            checkpoint=str(tmp_path_factory.mktemp("checkpoints") / "fit"),
        )  # fmt: skip
    return joined, of, found


def test_cross_validation_predicts_each_block_once(blocks):
    joined, of, found = blocks
    assert [one["name"] for one in found] == ["block_1", "block_2"]
    for fold, one in zip(of, found):
        assert np.array_equal(one["test"], fold.test)
        assert list(one["methods"]) == ["context"]
        assert one["methods"]["context"].shape == (len(fold.test), len(cases.GENES))
        assert one["runs"]["context"]["epochs"] == 1
        goal = folds.target(joined, fold)
        truth = goal.expression.toarray()
        # On the training spots the score of the truth is 1, that of the training mean 0.
        exact = Factored(truth, np.eye(len(cases.GENES)), np.zeros(len(cases.GENES)))
        assert evaluate.training_score(joined, goal, exact) == pytest.approx(1)
        flat = Factored(np.zeros((len(truth), 1)), np.zeros((1, len(cases.GENES))), truth.mean(axis=0))
        assert evaluate.training_score(joined, goal, flat) == 0
        assert 0.05 < one["training"]["context"] < 1
        json.dumps(one["runs"])


def test_a_fit_is_scored_beside_floors_bar_and_ceiling(blocks, monkeypatch):
    joined, of, found = blocks
    monkeypatch.setattr(folds, "_bar", lambda X, X_test, goal, ridge, seed: ridge)
    (one,) = evaluate.score_fit(joined, of[:1], [found], kind="block", all_share=0.5, seed=0)
    assert list(one.tables) == [*FLOORS, "bar:ensemble", "context", score.CEILING]
    assert (one.sample, one.fold, one.n) == ("s0", "block_1", len(of[0].test))
    assert [panel.name for panel in one.panels] == ["top50", "markers", "all"]
    ceiling, ridge = one.tables[score.CEILING]["pearson"], one.tables["floor:ridge_context"]["pearson"]
    # Predictions below what the counts allow, on the planted genes.
    assert (ridge.loc[:23] < ceiling.loc[:23]).mean() > 0.8
    assert ridge.loc[:23].mean() > 0.5 > ridge.loc[24:].mean()
    truth = joined.normalised(folds.target(joined, of[0]).median_total)[of[0].test].toarray()
    given = found[0]["methods"]["context"].genes(slice(None))
    assert one.tables["context"].loc[7, "pearson"] == pytest.approx(
        np.corrcoef(truth[:, 7], given[:, 7])[0, 1], abs=1e-4
    )


def test_predictions_of_other_spots_are_refused(blocks, monkeypatch):
    joined, of, found = blocks
    monkeypatch.setattr(folds, "floor_predictions", lambda *_, **__: {})
    with pytest.raises(HistoweftError, match="fold block_2: predictions are of other spots; delete them and run again"):
        evaluate.score_fit(joined, [of[1]], [found[:1]], kind="block", all_share=0.5, seed=0)


def test_each_fold_takes_the_setting_that_did_best(tmp_path):
    network = {"members": 3, "hidden": 8, "dropout": 0.1}
    of = [Fold("1", np.arange(3), np.arange(1)), Fold("block_2", np.arange(3), np.arange(1))]
    assert evaluate.options_of_folds(network, [], "block-s1", of) == [Options(members=3, hidden=8, dropout=0.1)] * 2
    paths = []
    for number, (setting, scores) in enumerate([({"hidden": 16}, (0.2, 0.5)), ({"dropout": 0.4}, (0.3, 0.1))]):
        table = pd.DataFrame(
            {"fit": "block-s1", "fold": ["1", "block_2"], "setting": json.dumps(setting), "score": scores}
        )
        other = table.assign(fit="block-s2", score=9.0, setting='{"hidden": 99}')
        paths.append(tmp_path / f"{number}.tsv")
        pd.concat([other, table]).to_csv(paths[-1], sep="\t", index=False)
    first, second = evaluate.options_of_folds(network, paths, "block-s1", of)
    assert (first.hidden, first.dropout) == (8, 0.4)
    assert (second.hidden, second.dropout) == (16, 0.1)
    assert first.members == second.members == 3


# ------------------------------------------------------------------------------------------------------ verdict


def test_a_default_that_beats_the_floors_paints():
    found = study(["block"])
    decided = found.verdict["protocols"]["block"]
    assert decided == {"default": "context", "winner": "context", "beats_floors": True, "meets_bar": True}
    assert found.verdict["paint"] == "context"
    assert "context (0.8" in found.verdict["texts"]["block"]
    assert " beats the best floor, floor:ridge_context (0.6" in found.verdict["texts"]["block"]
    assert "it is at or above the bar" in found.verdict["texts"]["block"]
    assert found.verdict["image_adds"] == ""
    check_metrics(found.rows)
    assert set(found.rows["stage"]) == {"histology"}
    defaults = found.rows[found.rows["note"] == "default"]
    assert set(defaults["method"]) == {"context"}
    oracle = found.rows[(found.rows["method"] == "floor:library_size") & (found.rows["metric"] == score.PRIMARY)]
    assert set(oracle["note"]) == {"told the spot's total count"}
    gains = found.rows[found.rows["metric"] == "gain_top50"]
    assert set(gains["note"]) == {f"against {name}" for name in [*FLOORS[1:], "bar:ensemble"]}
    assert (gains["value"] > 0).all()


def test_a_default_that_loses_to_the_ridge_leaves_the_maps_to_it():
    found = study(["block"], floor__ridge_context=2.0, context=0.5)
    decided = found.verdict["protocols"]["block"]
    assert decided == {
        "default": "context", "winner": "floor:ridge_context", "beats_floors": False, "meets_bar": False,
    }  # fmt: skip
    text = found.verdict["texts"]["block"]
    assert " does not beat the best floor, floor:ridge_context" in text
    assert "is below the bar" in text
    assert text.endswith("is best and becomes the default.")
    assert found.verdict["paint"] == summary.RIDGE == "floor:ridge_context"


def test_an_oracle_can_be_lost_to_but_paints_nothing():
    found = study(["block"], floor__library_size=9.0)
    assert not found.verdict["protocols"]["block"]["beats_floors"]
    assert found.verdict["protocols"]["block"]["winner"] == "context"
    assert ", an oracle)" in found.verdict["texts"]["block"]
    assert found.verdict["paint"] == "context"


def test_blocks_decide_what_paints_and_random_folds_nothing():
    lost = {"floor__ridge_context": 2.0, "context": 0.5}
    assert study(["across", "block"], across=lost).verdict["paint"] == "context"
    assert study(["across", "block"], block=lost).verdict["paint"] == "floor:ridge_context"
    assert study(["across"], across=lost).verdict["paint"] == "floor:ridge_context"
    random = study(["random"], random=lost).verdict
    assert (random["paint"], random["protocols"], random["texts"]) == ("context", {}, {})


def test_protocols_have_the_name_of_what_is_held_out_and_random_folds_their_gap():
    found = study(["across", "block", "random"], random={"context": 3.0})
    assert set(found.rows["protocol"]) == set(found.genes["protocol"]) == {"section", "block", "random"}
    assert list(found.verdict["protocols"]) == ["section", "block"]
    gap = found.rows[found.rows["metric"] == "leakage_gap"].set_index(["method", "sample"])["value"]
    rows = found.rows.query("metric == 'pearson_top50' and sample == 'all' and fold == 'all' and method == 'context'")
    value = rows.set_index("protocol")["value"]
    assert gap["context", "all"] == pytest.approx(value["random"] - value["block"])
    assert gap["context", "all"] > 0.05
    # Genes by name, once for each method and protocol.
    assert len(found.genes) == 3 * 8 * 12
    assert set(found.genes["gene"]) == set(NAMES)


def test_positions_are_the_default_where_sections_are_serial():
    found = study(["across", "block"], across={"context_serial": 2.5})
    assert found.verdict["protocols"]["section"]["default"] == "context_serial"
    assert found.verdict["protocols"]["block"]["default"] == "context"
    both = [scored(f"s{i}", f"s{i}", seed=i, context_serial=2.5) for i in (1, 2)]
    assert summary.default_of("context", both) == "context_serial"
    assert summary.default_of("context", [both[0], scored("s2")]) == "context"
    assert summary.default_of("autoencoder", both) == "autoencoder"
    position, image = (
        score.paired_difference(both, "context_serial", name) for name in ("floor:coordinates", "context")
    )
    assert f"the image adds {position} to the correlation" in found.verdict["image_adds"]
    assert f"the position adds {image} to what the image" in found.verdict["image_adds"]
    assert position.value > image.value > 0


def test_a_model_of_few_genes_has_no_mean_over_all():
    found = study(["block"], autoencoder=1.2)
    metrics = found.rows.groupby("method")["metric"].agg(set)
    assert "pearson_all" in metrics["context"]
    assert not any("_all" in name for name in metrics["autoencoder"])
    assert "pearson_top50" in metrics["autoencoder"]


def test_the_score_on_training_spots_stands_beside_the_held_out_one():
    def run(kind, sample, *values):
        fit = {"name": f"{kind}-1", "kind": kind, "samples": [sample, "other"] if kind == "across" else [sample]}
        return fit, [
            {"training": {"context": v}, "runs": {"context": {"seconds_per_epoch": s, "device": "cuda"}}}
            for v, s in values
        ]

    runs = [
        run("block", "s1", (0.9, 1.0), (0.8, 3.0)),
        run("across", "s1", (0.7, 1.0)),
        run("across", "s1", (0.5, 9.0)),
    ]
    found = study(["across", "block"], runs=runs)
    rows = found.rows[found.rows["metric"] == summary.TRAINING].set_index(["protocol", "sample"])
    assert rows["value"].to_dict() == {("block", "s1"): pytest.approx(0.85), ("section", "all"): pytest.approx(0.6)}
    assert rows["n"].to_dict() == {("block", "s1"): 2, ("section", "all"): 2}
    timed = found.rows[found.rows["metric"] == "seconds_per_epoch"]
    assert set(timed["note"]) == {"device cuda"}
    seconds = timed.set_index("protocol")["value"]
    assert seconds.to_dict() == {"block": 2.0, "section": 5.0}
    table = summary.training_rows(found.rows).set_index("sample")
    assert list(table.columns) == ["method", "training", "held_out"]
    held_out = found.rows.query("metric == 'pearson_top50' and method == 'context' and fold == 'all'")
    expected = held_out.set_index(["protocol", "sample"])["value"]
    assert table.loc["s1, block", "held_out"] == pytest.approx(expected["block", "s1"])
    assert table.loc["all, section", "held_out"] == pytest.approx(expected["section", "all"])
    assert len(table) == 2


def test_methods_must_have_been_scored_in_every_fold():
    one, other = scored(seed=1), scored(fold="block_2", seed=2)
    short = dataclasses.replace(other, tables={k: v for k, v in other.tables.items() if k != "floor:ridge_patch"})
    with pytest.raises(HistoweftError, match="floor:ridge_patch"):
        summary.summarise_study({"block": ([one, short], NAMES)}, "mob", "section", "context", [])
