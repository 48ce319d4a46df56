"""Rare populations, transitional barcodes, surroundings of persisters, and scores against a truth."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.graph.neighbours import neighbour_graph
from histoweft.states import niches, rare, score


def blobs(rng, sizes, gap, dims=10):
    """Draw normal clouds whose centres lie `gap` apart along the first axes; return points and cloud numbers."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    points = rng.normal(size=(len(codes), dims))
    points[np.arange(len(codes)), codes] += gap
    return points.astype(np.float32), codes


def searched(points, codes, rate=0.05, seed=0):
    graph = neighbour_graph(points, 15, seed)[0]
    null = rare.learn_null(points, codes, 15, 10, 0.05, 10, seed)
    return rare.find(graph, null, 10, 0.05, rate, seed), null, graph


def test_a_planted_population_is_found_whole():
    points, codes = blobs(np.random.default_rng(0), [500, 400, 24], 6.0)
    states = rare.states(np.where(codes == 2, "1", codes.astype(str)), points, 50)
    found, null, _ = searched(points, states)
    assert len(found.groups) == 1
    assert found.p[0] < 0.01
    assert set(np.flatnonzero(codes == 2)) >= set(found.groups[0].members)
    assert len(found.groups[0].members) >= 22
    assert found.score[codes == 2].mean() > found.score[codes != 2].max()
    assert null.isolation(found.groups[0]) == pytest.approx(found.isolation[0])


def test_plain_states_hold_no_rare_population():
    wrong = 0
    for seed in range(4):
        points, codes = blobs(np.random.default_rng(seed), [300, 200, 100], 4.0)
        wrong += bool(searched(points, codes, seed=seed)[0].groups)
    assert wrong <= 1


def test_small_clusters_join_the_nearest_large_one():
    points, codes = blobs(np.random.default_rng(0), [100, 100, 8], 8.0)
    points[codes == 2] = points[codes == 1][:8] + 0.5
    merged = rare.states(codes.astype(str), points, 30)
    assert set(merged) == {0, 1}
    assert (merged[codes == 2] == 1).all()
    assert not rare.states(codes.astype(str), points, 1_000).any()


def test_candidates_are_within_their_limits_and_measured_right():
    points, _ = blobs(np.random.default_rng(1), [150, 150], 5.0)
    graph = neighbour_graph(points, 15, 0)[0]
    groups = rare.candidates(graph, 10, 40)
    assert len(groups) > 5
    assert all(10 <= len(group.members) <= 40 for group in groups)
    one, dense = groups[3], graph.toarray()
    inside = dense[np.ix_(one.members, one.members)].sum() / dense[one.members].sum()
    assert one.inside == pytest.approx(inside, rel=1e-5)


def test_mixing_is_the_entropy_of_neighbours():
    graph = sp.csr_matrix(np.array([[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]], dtype=float))
    found = rare.mixing(graph, np.array([0, 0, 1, 1]))
    assert found == pytest.approx([1, 0, 1, 0], abs=1e-6)
    assert not rare.mixing(graph, np.zeros(4, int)).any()


def test_barcodes_between_states_are_called_where_there_are_more_than_states_explain():
    rng = np.random.default_rng(0)
    points, codes = blobs(rng, [300, 300], 7.0)
    bridge = rng.normal(size=(25, 10)).astype(np.float32)
    bridge[:, :2] = 3.5 + 0.3 * bridge[:, :2]
    everything, labels = np.vstack([points, bridge]), np.r_[codes, rng.integers(0, 2, 25)]
    null = rare.learn_null(points, codes, 15, 10, 0.05, 10, 0)
    called = rare.transitional(rare.mixing(neighbour_graph(everything, 15, 0)[0], labels), null, 0.05)
    assert called[600:].mean() > 0.8
    assert called[:600].mean() < 0.05
    plain = rare.mixing(neighbour_graph(points, 15, 0)[0], codes)
    assert rare.transitional(plain, null, 0.05).mean() < 0.02


def test_smallest_cluster():
    assert rare.smallest_cluster(["0", "0", "1", "2", "2"]).tolist() == [False, False, True, False, False]


# ------------------------------------------------------------------------------------------------------ surroundings


@pytest.fixture(scope="module")
def lattice():
    x, y = np.meshgrid(np.arange(30.0), np.arange(30.0))
    return np.column_stack([x.ravel(), y.ravel()])


def disc(xy, centre, radius):
    return np.hypot(*(xy - centre).T) < radius


def test_what_persisters_lie_on_stands_out_and_smooth_strangers_do_not(lattice):
    called = disc(lattice, [8, 8], 3.5)
    values = pd.DataFrame(
        {
            "own": disc(lattice, [8, 8], 5).astype(float),
            "other": disc(lattice, [22, 20], 5).astype(float),
            "wave": np.sin(lattice[:, 0] / 4),
            "same": np.ones(900),
        }
    )
    found = niches.associate(lattice, called, np.ones(900, bool), values, seed=1)
    assert found.loc["own", "p"] < 0.02
    assert found.loc["own", "observed"] == 1
    assert found.loc["own", "log2_ratio"] > 1
    assert (found.loc[["other", "wave", "same"], "p"] > 0.05).all()
    assert found.loc["same", "z"] == 0
    assert found.equals(niches.associate(lattice, called, np.ones(900, bool), values, seed=1))


def test_clumps_do_not_make_findings(lattice):
    """Two unrelated clumped patterns meet by chance no more often than the level says."""
    rng, p = np.random.default_rng(0), []
    for seed in range(40):
        called = disc(lattice, rng.uniform(4, 25, 2), 3)
        values = pd.DataFrame({"clump": disc(lattice, rng.uniform(4, 25, 2), 6).astype(float)})
        p.append(niches.associate(lattice, called, np.ones(900, bool), values, seed)["p"].iloc[0])
    assert np.mean(np.array(p) <= 0.1) <= 0.2


def test_moved_patterns_land_on_eligible_points_only(lattice):
    eligible = lattice[:, 0] < 15
    values = pd.DataFrame({"east": (~eligible).astype(float)})
    found = niches.associate(lattice, disc(lattice, [5, 15], 3) & eligible, eligible, values)
    assert found.loc["east", "expected"] == 0


def test_too_few_persisters_are_not_asked(lattice):
    called = np.zeros(900, bool)
    called[:4] = True
    assert niches.associate(lattice, called, ~called, pd.DataFrame({"a": np.ones(900)})).empty


def test_pair_scores_cross_the_neighbourhood():
    graph = sp.csr_matrix(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=float))
    expression = pd.DataFrame({"L": [2.0, 0, 1], "R1": [0.0, 3, 1], "R2": [0.0, 1, 5]})
    pairs = pd.DataFrame({"ligand_complex": ["L", "ABSENT"], "receptor_complex": ["R1_R2", "R1"]})
    found = niches.pair_scores(expression, graph, pairs)
    assert list(found) == ["L^R1_R2|received", "L^R1_R2|sent"]
    assert found["L^R1_R2|received"].tolist() == [0, 1 * (2 + 0) / 2, 1]
    assert found["L^R1_R2|sent"].tolist() == [2 * (0 + 1) / 2, 0, 1]


def test_surroundings_leave_the_point_out():
    graph = sp.csr_matrix(np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]], dtype=float))
    found = niches.surroundings(graph, niches.one_hot(pd.Series(["a", "b", None])))
    assert found.to_numpy().tolist() == [[0, 0.5], [1, 0], [1, 0]]


def test_sections_are_combined_by_stouffer():
    def table(z):
        return pd.DataFrame(
            {"name": ["a", "b"], "observed": [0.2, 0.1], "expected": 0.1, "log2_ratio": 0.0, "z": z, "p": 0.5, "n": 9}
        )

    found = niches.combine({"s1": table([2.0, 0]), "s2": table([2.0, 1])}, ["name"])
    whole = found[found["sample"] == "all"].set_index("name")
    assert whole.loc["a", "z"] == pytest.approx(4 / np.sqrt(2))
    assert whole.loc["a", "sections"] == 2
    assert whole.loc["a", "q"] == pytest.approx(2 * whole.loc["a", "p"])
    assert list(found["sample"]) == ["all"] * 2 + ["s1"] * 2 + ["s2"] * 2
    assert niches.combine({}, ["name"]).empty


# ------------------------------------------------------------------------------------------------------------ scores


def test_average_precision_and_wilson_equal_independent_ones():
    from scipy.stats import binomtest
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    positive, values = rng.random(200) < 0.2, rng.integers(0, 12, 200).astype(float)
    assert score.average_precision(positive, values) == pytest.approx(average_precision_score(positive, values))
    interval = binomtest(7, 50).proportion_ci(method="wilson")
    assert score.wilson(7, 50) == pytest.approx((interval.low, interval.high))
    assert np.isnan(score.wilson(0, 0)).all()


TRUTH = {"table": "", "persister": "", "among": "", "rare": "", "share": 0.25, "rare_labels": []}


def test_truth_is_graded_by_the_share_of_cells(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("barcode\tfraction\ttumour\na\t1\t0.5\nb\t0.4\t0.5\nc\t0\t1\n", encoding="utf-8")
    options = TRUTH | {"table": path, "persister": "fraction", "among": "tumour"}
    found = score.read_truth(options, pd.Index(["c", "a", "b", "absent"]), None)
    assert found["persister"].fillna(-1).tolist() == [0, 1, -1, -1]
    with pytest.raises(InputError, match=r"states\.truth\.persister: found 'fractoin'.*Did you mean 'fraction'"):
        score.read_truth(options | {"persister": "fractoin"}, pd.Index(["a"]), None)
    with pytest.raises(InputError, match=r"none\.tsv.*Correct states\.truth\.table"):
        score.read_truth(options | {"table": tmp_path / "none.tsv"}, pd.Index(["a"]), None)
    labels = pd.Series(["x", "y"], index=["a", "b"])
    assert score.read_truth(TRUTH | {"rare_labels": ["y"]}, pd.Index(["a", "b"]), labels)["rare"].tolist() == [0, 1]


def table_and_floors(rng, n=400):
    truth = pd.DataFrame({"persister": (rng.random(n) < 0.2).astype(float), "rare": 0.0})
    truth.loc[:9, "rare"] = 1.0
    strong, weak = (truth["persister"] * size + rng.normal(size=n) for size in (3, 1))
    table = pd.DataFrame(
        {
            "persister_score": strong,
            "persister": strong > 2.5,
            "rare": truth["rare"] == 1,
            "rare_score": truth["rare"],
        }
    )
    floors = pd.DataFrame(
        {"mean_signature": weak, "gpx4": rng.normal(size=n), "depth": -weak, "smallest_cluster": np.arange(n) < 5.0}
    )
    return table, floors, truth


def test_metrics_hold_the_score_and_its_floors():
    table, floors, truth = table_and_floors(np.random.default_rng(0))
    rows = pd.DataFrame(score.metric_rows(table, floors, truth, study="s", sample="a", panel="p"))
    auroc = rows[rows["metric"] == "auroc"].set_index(["task", "method"])
    assert auroc.loc[("persister", "joint"), "value"] > 0.95
    assert auroc.loc[("persister", "floor:depth"), "note"] == "low depth"
    assert auroc.loc[("persister", "floor:depth"), "value"] == pytest.approx(
        auroc.loc[("persister", "floor:mean_signature"), "value"]
    )
    own = auroc.loc[("persister", "joint")]
    assert own["low"] < own["value"] < own["high"]
    recall = rows[rows["metric"] == "recall"].set_index("method")["value"]
    assert recall["isolation"] == 1
    assert recall["floor:smallest_cluster"] == 0.5
    assert not score.metric_rows(table, floors, pd.DataFrame(index=table.index), study="s", sample="a", panel="p")


def facts(**changed):
    one = {
        "barcodes": 100, "eligible": 80, "persisters": 8, "corrected_for": ["sequencing depth", "annotation"],
        "programmes": ["diapause"], "false_positive_rate": 0.001, "sets": 200, "fdr": 0.05, "coverage": [],
        "warnings": [], "pseudobulk": {"diapause": 1.5}, "rare": [],
    }  # fmt: skip
    return one | changed


def verdict_of(rows, known):
    sheet = {sample: {"patient": sample, "condition": ""} for sample in known}
    empty = [pd.DataFrame(columns=names) for names in (["measure"], ["sample", "kind", "q"], ["sample", "q"])]
    return score.verdict(rows, known, score.persister_table(known, sheet), *empty, 0.05)


def test_a_score_that_loses_to_its_floor_is_said_to_lose():
    table, floors, truth = table_and_floors(np.random.default_rng(0))
    better = floors.assign(mean_signature=table["persister_score"])
    table = table.assign(persister_score=floors["mean_signature"])
    rows = pd.DataFrame(score.metric_rows(table, better, truth, study="s", sample="a", panel="p"))
    found = verdict_of(rows, {"a": facts()})
    assert found["default"] == "floor:mean_signature"
    assert any("joint loses to mean_signature" in text for text in found["warnings"])


def test_verdict_says_what_is_missing():
    rows = pd.DataFrame(columns=["task", "metric", "method", "sample", "value"])
    nothing = facts(sets=0, persisters=0, warnings=["No signature has enough genes in this panel."], pseudobulk={})
    found = verdict_of(rows, {"a": facts(), "b": nothing})
    assert "a 10.0%" in found["texts"][0]
    assert "b " not in found["texts"][0]
    assert found["warnings"] == ["b: No signature has enough genes in this panel."]
    assert any("No two conditions" in text for text in found["texts"])
    clusters = facts(corrected_for=["sequencing depth", "clusters"])
    assert any("clusters stand in" in text for text in verdict_of(rows, {"a": clusters})["warnings"])
    alone = verdict_of(rows, {"b": nothing})
    assert alone["texts"][0].startswith("Persisters: no sample has the genes")


def test_verdict_names_places_fates_and_partners():
    places = pd.DataFrame(
        [["all", "niche", "3", 1.0, 0.01], ["all", "fate", "beta", 2.0, 0.02], ["a", "niche", "9", 3.0, 0.001]],
        columns=["sample", "kind", "name", "log2_ratio", "q"],
    )
    pairs = pd.DataFrame(
        [["all", "GAS6", "AXL", "received", 0.01], ["all", "A", "B", "sent", 0.9]],
        columns=["sample", "ligand_complex", "receptor_complex", "direction", "q"],
    )
    assert score._place_texts(places, pairs) == [
        "Persisters lie where more than expected is of: niche 3 (2.0 times).",
        "Fates that persisters lean to: beta (4.0 times).",
        "Ligands and receptors around persisters: GAS6 to AXL (received).",
    ]
    dull = score._place_texts(places.assign(q=0.5), pairs.assign(q=0.5))
    assert [text.split(" ")[0] for text in dull] == ["No", "No"]


def test_persister_table_counts_patients_and_leaves_unscored_samples_open():
    sheet = {
        "a": {"patient": "P", "condition": "untreated"},
        "b": {"patient": "P", "condition": "treated"},
        "c": {"patient": "Q", "condition": "treated"},
    }
    table = score.persister_table({"a": facts(), "b": facts(persisters=24), "c": facts(sets=0, persisters=0)}, sheet)
    by_name = table.set_index(["level", "name"])
    assert by_name.loc[("patient", "P"), "share"] == pytest.approx(0.2)
    assert by_name.loc[("sample", "b"), ["low", "high"]].tolist() == pytest.approx(score.wilson(24, 80))
    assert np.isnan(by_name.loc[("sample", "c"), "share"])
    measures = score.measures({"a": facts(), "c": facts(sets=0, persisters=0)})
    assert measures.loc["a"].to_dict() == {"persister_share": 0.1, "signature_diapause": 1.5}
    assert np.isnan(measures.loc["c", "persister_share"])


def test_means_over_samples():
    table, floors, truth = table_and_floors(np.random.default_rng(0))
    rows = [
        row
        for sample in ("a", "b")
        for row in score.metric_rows(table, floors, truth, study="s", sample=sample, panel="p")
    ]
    one = pd.DataFrame(rows[: len(rows) // 2])
    assert score.mean_rows(one) is one
    both = score.mean_rows(pd.DataFrame(rows))
    whole = both[both["sample"] == "all"]
    assert len(whole) == len(one)
    assert whole["value"].to_numpy() == pytest.approx(one["value"].to_numpy())
    assert whole["low"].isna().all()
