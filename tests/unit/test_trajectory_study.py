"""A whole trajectory on planted cells: reading, fitting, stability, floors, scores, verdicts, pictures."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_trajectory_genes import write_counts

from histoweft.config import complete, load_schema
from histoweft.errors import HistoweftError, InputError
from histoweft.expression.features import FeatureOptions, extract_features
from histoweft.io import CountsFile, write_table
from histoweft.metrics import check_metrics
from histoweft.trajectory import cells, drivers, figures, fit, floors, results, score, stability

BRANCHES = ("left", "right")


def options(**changed):
    """Return the completed section of the config."""
    return complete({"study": "x", "trajectory": changed}, load_schema("config"))["trajectory"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Write a sample whose cells start as stem and end left or right; others do not belong to it."""
    rng = np.random.default_rng(0)
    n, genes = 460, 120
    time, left, other = rng.random(n), rng.random(n) < 0.5, np.arange(n) >= 400
    late = np.clip(time - 0.4, 0, None) / 0.6
    rates = np.repeat((0.1 + 1.2 * (1 - time))[:, None], genes, axis=1)  # ends express fewer genes
    rates[:, :30] = 6 * (1 - time)[:, None] + 0.05
    rates[:, 30:50] = 8 * (late * left)[:, None] + 0.05
    rates[:, 50:70] = 8 * (late * ~left)[:, None] + 0.05
    rates[other] = 0.1
    rates[other, 70:] = 6
    counts = rng.poisson(rates)
    folder = tmp_path_factory.mktemp("sample")
    label = np.where(time < 0.4, "stem", np.where(time < 0.75, "middle", np.where(left, *BRANCHES)))
    label = np.where(other, "stroma", label)
    obs = pd.DataFrame({"label": pd.Categorical(label), "n_genes": (counts > 0).sum(axis=1)})
    obs.index = [f"cell{i}" for i in range(n)]
    write_counts(folder / "filtered.h5ad", counts, obs)
    extract_features(folder / "filtered.h5ad", folder / "features.h5ad", FeatureOptions(n_top=100, n_components=10))
    return {"folder": folder, "time": time, "left": left, "label": label, "other": other, "barcodes": obs.index}


@pytest.fixture(scope="module")
def chosen(sample):
    groups = ["left", "right", "middle", "stem"]
    folder = sample["folder"]
    return cells.read_cells(folder / "filtered.h5ad", folder / "features.h5ad", sample["label"].astype(object), groups)


@pytest.fixture(scope="module")
def wanted():
    return options(labels="labels", components=5, neighbours=20, stability={"seeds": 1, "bootstraps": 2})


@pytest.fixture(scope="module")
def found(chosen, wanted):
    return fit.fit(chosen, wanted)


@pytest.fixture(scope="module")
def expected():
    return {
        "order": ["stem", "middle", "left|right"],
        "terminal": ["left", "right"],
        "drivers": {"left": ["gene30", "gene31"], "right": ["gene60", "nosuch"]},
    }


@pytest.fixture(scope="module")
def written(sample, chosen, found, wanted):
    """Write everything the rule writes, and return where."""
    folder = sample["folder"]
    files = {name: folder / f"{name}.parquet" for name in ("fates", "floors", "drivers", "floor_drivers", "trends")}
    files |= {"states": folder / "states.tsv", "replicates": folder / "replicates.tsv", "facts": folder / "facts.json"}
    files["filtered"] = folder / "filtered.h5ad"
    write_table(fit.fate_table(found, chosen, sample["barcodes"]), files["fates"])
    baseline = floors.floor_table(chosen, found)
    write_table(baseline, files["floors"])
    fates = pd.DataFrame(found.fates.probabilities, columns=found.names)
    late = drivers.committing(found.pseudotime, 0.5)
    with CountsFile(files["filtered"]) as counts:
        ranked = drivers.driver_genes(counts, chosen.rows[late], fates[late], 1e4)
        nearest = drivers.driver_genes(counts, chosen.rows[late], results.fates_of(baseline)[late], 1e4)
        genes = list(dict.fromkeys(drivers.top_genes(ranked, 5)["gene"]))
        values = pd.DataFrame(drivers.read_genes(counts, chosen.rows, genes, 1e4), columns=genes)
    ranked.to_parquet(files["drivers"])
    nearest.to_parquet(files["floor_drivers"])
    drivers.trend_table(found.pseudotime, fates, values).to_parquet(files["trends"])
    found.states.to_csv(files["states"], sep="\t", index=False)
    stability.replicates(chosen, found, wanted, 0).to_csv(files["replicates"], sep="\t", index=False)
    files["facts"].write_text(json.dumps(results.facts(chosen, found, wanted)))
    return files


# ------------------------------------------------------------------------------------------------- reading the cells


def test_only_the_groups_asked_for_enter_with_components_of_their_own(sample, chosen):
    folder = sample["folder"]
    assert chosen.rows.tolist() == np.flatnonzero(~sample["other"]).tolist()
    with CountsFile(folder / "features.h5ad") as file:
        stored = file.obsm("X_pca")
    everything = cells.read_cells(
        folder / "filtered.h5ad", folder / "features.h5ad", sample["label"].astype(object), []
    )
    np.testing.assert_array_equal(everything.points, stored)
    values = chosen.values.toarray()
    centred = values - values.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:10]
    np.testing.assert_allclose(np.abs(chosen.points), np.abs(centred @ axes.T), atol=1e-3)
    few = cells.read_cells(folder / "filtered.h5ad", folder / "features.h5ad", sample["label"].astype(object), [], 3)
    np.testing.assert_array_equal(few.points, stored[:, :3])


def test_labels_come_from_where_they_are_asked(sample, tmp_path):
    table = pd.DataFrame(
        {"leiden": pd.Categorical(["3"] * 459 + [None]), "label": ["t"] * 460}, index=sample["barcodes"]
    )
    write_table(table, tmp_path / "groups.parquet")
    with CountsFile(sample["folder"] / "filtered.h5ad") as counts:
        assert (cells.read_labels("labels", counts, None) == sample["label"]).all()
        assert cells.read_labels("clusters", counts, tmp_path / "groups.parquet").tolist() == ["3"] * 459 + [""]
        assert set(cells.read_labels("annotation", counts, tmp_path / "groups.parquet")) == {"t"}
        write_table(table[["leiden"]], tmp_path / "less.parquet")
        with pytest.raises(InputError, match="a column 'label'"):
            cells.read_labels("annotation", counts, tmp_path / "less.parquet")
    bare = write_counts(tmp_path / "bare.h5ad", np.ones((3, 2), dtype=int))
    with CountsFile(bare) as counts, pytest.raises(InputError, match=r"(?s)trajectory.labels.*expert labels"):
        cells.read_labels("labels", counts, None)


def test_groups_that_are_not_there_or_too_small():
    labels = np.array(["tumour"] * 60 + ["stroma"] * 20, dtype=object)
    assert cells.choose(labels, ["tumour"]).sum() == 60
    assert cells.choose(labels, []).all()
    with pytest.raises(InputError, match=r"(?s)trajectory.groups: found 'tumor'.*Did you mean 'tumour'"):
        cells.choose(labels, ["tumor"])
    with pytest.raises(InputError, match="20 cells in stroma; expected 50 or more"):
        cells.choose(labels, ["stroma"])


# --------------------------------------------------------------------------------------------------------- the fit


def test_order_and_ends_are_found_without_labels(sample, chosen, found):
    from scipy.stats import spearmanr

    time = sample["time"][chosen.rows]
    assert spearmanr(found.pseudotime, time).statistic > 0.8
    assert set(found.states.loc[found.states["terminal"], "label"]) == set(BRANCHES)
    assert time[found.root] < 0.2
    late = time > 0.8
    probability = found.fates.probabilities[:, found.names.index("left")]
    assert (
        probability[late & sample["left"][chosen.rows]].min() > probability[late & ~sample["left"][chosen.rows]].max()
    )


def test_labels_only_name_the_states(chosen, found, wanted):
    from dataclasses import replace

    shuffled = np.random.default_rng(0).permutation(chosen.labels)
    again = fit.fit(replace(chosen, labels=shuffled), wanted)
    np.testing.assert_array_equal(again.states["terminal"], found.states["terminal"])
    np.testing.assert_array_equal(again.fates.probabilities, found.fates.probabilities)


def test_same_seed_same_result(chosen, found, wanted):
    again = fit.fit(chosen, wanted)
    np.testing.assert_array_equal(again.fates.probabilities, found.fates.probabilities)
    pd.testing.assert_frame_equal(again.states, found.states)


def test_table_of_fates(sample, chosen, found):
    table = fit.fate_table(found, chosen, sample["barcodes"])
    assert table.index.equals(pd.Index(sample["barcodes"]))
    columns = [f"fate_{name}" for name in found.names]
    assert table.columns.tolist() == ["pseudotime", "macrostate", "terminal", *columns, "fate_entropy"]
    inside = ~sample["other"]
    np.testing.assert_allclose(table.loc[inside, columns].sum(axis=1), 1)
    assert table.loc[inside, "pseudotime"].between(0, 1).all()
    assert table.loc[inside, "fate_entropy"].between(0, 1).all()
    outside = table[sample["other"]]
    assert outside[[*columns, "pseudotime", "fate_entropy"]].isna().all().all()
    assert (outside[["macrostate", "terminal"]] == "").all().all()
    ends = table[table["terminal"] != ""]
    assert (ends["terminal"] == ends["macrostate"]).all()
    assert set(ends["terminal"]) == set(found.names)


def test_entropy():
    fates = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0], [np.nan, np.nan, np.nan]])
    np.testing.assert_allclose(fit.fate_entropy(fates), [0, 1, np.log(2) / np.log(3), np.nan], atol=1e-12)
    np.testing.assert_array_equal(fit.fate_entropy(np.array([[1.0], [np.nan]])), [0, np.nan])


def test_name_of_the_method():
    assert fit.method_name({"connectivity": 0.2, "velocity": 0, "pseudotime": 0.8}) == "pseudotime+connectivity"


def test_every_kernel_finds_its_way_into_the_walk(chosen, found, wanted):
    weights = {"pseudotime": 0, "connectivity": 0.2, "cytotrace": 0.8, "velocity": 0}
    other = fit.fit(chosen, wanted | {"kernels": weights})
    assert abs(other.transitions - found.transitions).max() > 0.01


def test_velocity_enters_where_layers_are(sample, wanted, tmp_path):
    folder = sample["folder"]
    with CountsFile(folder / "filtered.h5ad") as counts:
        spliced = counts.matrix().toarray()
    ahead = np.random.default_rng(1).poisson(0.5 * spliced)
    raw = write_counts(tmp_path / "raw.h5ad", spliced, layers={"unspliced": ahead})
    labels = sample["label"].astype(object)
    groups = ["left", "right", "middle", "stem"]
    moving = cells.read_cells(folder / "filtered.h5ad", folder / "features.h5ad", labels, groups, None, raw)
    assert moving.spliced.shape == moving.unspliced.shape == (400, 120)
    weights = {"pseudotime": 0.4, "connectivity": 0.2, "cytotrace": 0, "velocity": 0.4}
    assert len(fit.fit(moving, wanted | {"kernels": weights}).names) >= 1
    assert moving.take(np.arange(10)).unspliced.shape == (10, 120)


# ------------------------------------------------------------------------------------------------------- stability


def test_a_clear_trajectory_comes_out_again(written):
    table = pd.read_csv(written["replicates"], sep="\t")
    assert tuple(table.columns) == stability.COLUMNS
    again = stability.summary(table)
    assert len(again) == 4
    assert (again["found"] == 1).all()
    assert (again["correlation"] > 0.9).all()
    assert set(table.loc[table["run"] == "subsample", "cells"]) == {320}


def test_names_that_look_like_numbers_stay_names(tmp_path):
    table = pd.DataFrame([["seed", 1, 50, "3", True, 0.9, np.nan, 2, ""]], columns=stability.COLUMNS)
    table.to_csv(tmp_path / "replicates.tsv", sep="\t", index=False)
    again = results.read_replicates(tmp_path / "replicates.tsv")
    assert again["fate"].tolist() == ["3"]
    assert again["note"].tolist() == [""]
    assert again["correlation"].tolist() == [0.9]
    assert again["found"].all()


def test_a_state_that_is_not_found_is_said(found, chosen):
    from dataclasses import replace

    lost = found.states.copy()
    first = lost.index[lost["terminal"]][0]
    lost.loc[first, "terminal"] = False
    kept = [k for k, name in enumerate(found.names) if name != lost.loc[first, "state"]]
    again = replace(found, states=lost, fates=replace(found.fates, probabilities=found.fates.probabilities[:, kept]))
    rows = {row["fate"]: row for row in stability.compare(found, again, np.arange(len(chosen)))}
    assert not rows[lost.loc[first, "state"]]["found"]
    assert np.isnan(rows[lost.loc[first, "state"]]["correlation"])


def test_a_run_that_fails_is_a_row_not_an_end(chosen, found, wanted, monkeypatch):
    def broken(*_):
        raise HistoweftError("no convergence")

    monkeypatch.setattr(stability, "fit", broken)
    table = stability.replicates(chosen, found, wanted, 0)
    assert not table["found"].any()
    assert (table["note"] == "no convergence").all()
    assert stability.summary(table)["correlation"].isna().all()


# ---------------------------------------------------------------------------------------------------------- scores


def test_order_scores_of_known_orders():
    place = np.array([0, 0, 1, 1, 2, 2, np.nan])
    right = score.order_scores(np.arange(7.0), place, 0)
    assert right["order_auroc"][0] == 1
    assert right["order_spearman"][0] == pytest.approx(0.956, abs=0.001)
    wrong = score.order_scores(-np.arange(7.0), place, 0)
    assert wrong["order_auroc"][0] == 0
    mixed = score.order_scores(np.array([1, 2, 0, 3, 4, 5, 6.0]), place, 0)["order_auroc"]
    assert mixed[0] == pytest.approx((0.5 + 1) / 2)
    assert mixed[1] <= mixed[0] <= mixed[2]


def test_places_of_labels():
    np.testing.assert_array_equal(score.ranks(np.array(["b", "a", "c", ""]), ["a", "b|c"]), [1, 0, 1, np.nan])


def test_expectations_that_name_no_group(expected):
    score.check_expected(expected, ["stem", "middle", "left", "right", ""])
    wrong = expected | {"order": ["stm"], "terminal": ["rigth"]}
    with pytest.raises(InputError, match=r"(?s)expected.order: found 'stm'.*expected.terminal: found 'rigth'"):
        score.check_expected(wrong, ["stem", "middle", "left", "right"])


def test_scores_of_a_sample(written, expected):
    one = results.read_found(written, "labels")
    rows = pd.DataFrame(score.sample_rows("s", "a", "pseudotime+connectivity", one, expected, 0))
    check_metrics(rows)
    value = rows[rows["panel"] == ""].set_index(["method", "metric"])["value"]
    ours = value["pseudotime+connectivity"]
    assert ours["terminal_recall"].item() == ours["terminal_precision"].item() == 1
    assert ours["n_terminal"].item() == 2
    assert ours["order_spearman"].item() > 0.8
    assert ours["fate_auroc"].item() > 0.95
    assert {"floor:gene_count", "floor:cytotrace_order", "floor:pc1", "floor:nearest_terminal"} <= set(rows["method"])
    noted = rows[(rows["metric"] == "driver_percentile") & (rows["panel"] == "right")].iloc[0]
    assert "nosuch not measured" in noted["note"]
    assert noted["value"] > 0.7
    table = score.terminal_table({"a": one})
    assert table["label"].tolist() == one.ends["label"].tolist()
    assert (table["found_again"] == 1).all()
    assert set(table.set_index("label").loc["left", "drivers"].split(", ")) & {f"gene{k}" for k in range(30, 50)}


def test_verdict_says_what_was_found_and_who_loses(written, expected):
    one = results.read_found(written, "labels")
    method = "pseudotime+connectivity"
    rows = pd.DataFrame(score.sample_rows("s", "a", method, one, expected, 0))
    rows.loc[rows["method"].isin(["floor:pc1", "floor:gene_count", "floor:cytotrace_order"]), "value"] = 0.3
    said = score.verdict(rows, {"a": one}, method)
    text = " ".join(said["texts"])
    assert said["default"] == method
    assert said["warnings"] == []
    assert "2 of them terminal" in text
    assert "Of the expected ends 100%" in text
    assert "chosen without labels" in text
    rows.loc[(rows["method"] == "floor:pc1") & (rows["metric"] == "order_spearman"), "value"] = 0.999
    lost = score.verdict(rows, {"a": one}, method)
    assert lost["default"] == "floor:pc1"
    assert "It loses to its floor pc1" in " ".join(lost["texts"])


def test_warnings_of_a_doubtful_trajectory(written):
    from dataclasses import replace

    one = results.read_found(written, "labels")
    fates = one.fates.copy()
    fates.iloc[:7, 0] = np.nan
    fates.iloc[:3, -1] = np.nan
    doubtful = one.replicates.assign(found=False)
    single = one.states.assign(terminal=[True] + [False] * (len(one.states) - 1))
    one = replace(one, fates=fates, replicates=doubtful, states=single)
    rows = pd.DataFrame(score.sample_rows("s", "a", "m", one, {"order": [], "terminal": [], "drivers": {}}, 0))
    said = " ".join(score.verdict(rows, {"a": one}, "m")["warnings"])
    for part in (
        "only 0% of the runs",
        "7 cells cannot be reached",
        "3 cells reach no terminal",
        "only one terminal state",
        "nothing checks the direction",
    ):
        assert part in said


def test_facts_speak(chosen, found, wanted):
    noted = results.facts(chosen, found, wanted)
    assert noted["cells"] == 400
    assert noted["solver"] == "direct"
    assert "without labels" in noted["chosen"]
    other = wanted | {"root": {"by": "gene", "value": ["A", "B"]}, "states": {"number": 5, "terminal": ["left"]}}
    noted = results.facts(chosen, found, other)
    assert noted["root"] == "where A, B is expressed most"
    assert noted["chosen"] == "named in the config"
    json.dumps(noted)


# --------------------------------------------------------------------------------------------------------- pictures


def test_pictures_are_drawn(written, sample, tmp_path):
    from matplotlib.image import imread

    table = pd.read_parquet(written["fates"])
    ranked, trends = pd.read_parquet(written["drivers"]), pd.read_parquet(written["trends"])
    umap = np.random.default_rng(0).random((460, 2))
    figures.order_figure(umap, table, sample["label"].astype(object), tmp_path / "order.png")
    figures.fates_figure(umap, table, tmp_path / "umap.png")
    figures.fates_figure(1_000 * umap, table, tmp_path / "tissue.png", {"mpp": 0.5, "spot_diameter_um": 8})
    figures.drivers_figure(ranked, trends, tmp_path / "drivers.png")
    figures.trends_figure(ranked, trends, tmp_path / "trends.png")
    figures.stability_figure(results.read_replicates(written["replicates"]), tmp_path / "stability.png")
    figures.stability_figure(pd.DataFrame(columns=stability.COLUMNS), tmp_path / "none.png")
    figures.drivers_figure(ranked[:0], trends[:0], tmp_path / "no_drivers.png")
    figures.trends_figure(ranked[:0], trends[:0], tmp_path / "no_trends.png")
    for path in sorted(tmp_path.glob("*.png")):
        assert imread(path)[..., :3].std() > 0.02, path.name


def test_place_of_a_sample_without_coordinates(written):
    with CountsFile(written["filtered"]) as counts:
        assert figures.read_place(counts) is None


# ---------------------------------------------------------------------------------------------- copies and solvers


@pytest.mark.parametrize("order", [np.tile(np.arange(200), 3), np.r_[np.arange(200), np.zeros(60, int)]])
def test_copies_of_cells_get_their_twin_s_results_and_change_nothing(chosen, wanted, order):
    once = fit.fit(chosen.take(np.arange(200)), wanted)
    again = fit.fit(chosen.take(order), wanted)
    np.testing.assert_array_equal(again.pseudotime, once.pseudotime[order])
    np.testing.assert_array_equal(again.fates.probabilities, once.fates.probabilities[order])
    np.testing.assert_allclose(np.asarray(again.transitions.sum(axis=1)).ravel(), 1)
    assert again.names == once.names
    assert int(again.distinct.sum()) == 200
    assert f"{len(order) - 200} of {len(order)} cells are exact copies" in again.notes[0]
    assert "exact copies" in results.facts(chosen.take(order), again, wanted)["notes"][0]


def test_cells_without_finite_components_are_named(chosen, wanted):
    points = chosen.points.copy()
    points[[3, 7], 0] = np.nan
    with pytest.raises(InputError, match=rf"found 2 of .* cells without components \(first: {chosen.barcodes[3]}\)"):
        fit.fit(replace(chosen, points=points), wanted, 0)


def test_a_sample_without_copies_has_nothing_to_say_of_them(found):
    assert found.notes == ()
    assert found.distinct.all()


def test_too_few_distinct_cells_are_refused(chosen, wanted):
    with pytest.raises(InputError, match=r"30 distinct cells \(120 of 150 are exact copies"):
        fit.fit(chosen.take(np.tile(np.arange(30), 5)), wanted)


def test_notes_of_a_trajectory_are_warnings_of_its_verdict(found, chosen, wanted):
    from types import SimpleNamespace

    one = SimpleNamespace(
        facts={"notes": ["3 of 9 cells are exact copies"]},
        replicates=pd.DataFrame(columns=["run", "fate", "found", "correlation", "pseudotime_correlation"]),
        fates=pd.DataFrame({"pseudotime": [0.0], "fate_entropy": [0.0]}),
        ends=[0, 1],
    )
    assert score._warnings("s", one) == ["s: 3 of 9 cells are exact copies."]
