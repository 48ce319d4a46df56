"""Spreading a few labels: against nearest labels alone, on half a tissue, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from space_cases import LAYERS, write_section

from histoweft.errors import InputError
from histoweft.space import domain_scores, domains, semi, views


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("semi")
    layer = write_section(folder / "a.h5ad", "a", 3)
    tissue = views.read_tissue({"a": folder / "a.h5ad"})
    votes = domains.find_domains(tissue, LAYERS).votes
    return tissue, layer, votes, domain_scores.semi_place(tissue, votes)


def accuracy(labels, truth, given):
    hidden = given < 0
    return (labels[hidden] == truth[hidden]).mean()


def test_few_random_labels_beat_nearest_labels_alone(planted):
    _, layer, _, place = planted
    gains = []
    for draw in range(3):
        kept = np.random.default_rng(draw).choice(len(layer), 12, replace=False)
        given = np.where(np.isin(np.arange(len(layer)), kept), layer, -1)
        mine = accuracy(semi.spread_labels(place, given).labels, layer, given)
        gains.append(mine - accuracy(semi.coordinates_floor(place, given), layer, given))
    assert np.mean(gains) > 0.1


def test_half_a_tissue_without_labels_is_filled_by_expression(planted):
    tissue, layer, _, place = planted
    given = np.where(tissue.sections[0].xy[:, 0] < 800, layer, -1)
    found = semi.spread_labels(place, given)
    assert accuracy(found.labels, layer, given) > 0.9
    assert (found.labels[given >= 0] == given[given >= 0]).all()
    assert np.allclose(found.shares.sum(axis=1), 1)


def test_evidence_is_the_sum_of_gaussians_within_the_section(planted):
    _, layer, _, place = planted
    two = semi.Place(
        np.vstack([place.features] * 2), np.vstack([place.smoothed] * 2), list(place.xy) * 2, list(place.near) * 2
    )
    n = len(layer)
    known, codes = np.array([5, 40]), np.full(2 * n, -1)
    codes[known] = [0, 1]
    found = semi._evidence(two, known, codes, 2, 2.0)
    gap = np.hypot(*(place.xy[0][5] - place.xy[0][17])) / 100
    assert found[17, 0] == pytest.approx(np.exp(-0.5 * (gap / 2) ** 2), rel=0.01)
    assert (found[n:] == 0).all()
    assert np.allclose(semi._evidence(two, known, codes, 2, 2.0, np.array([17, n + 3])), found[[17, n + 3]])


def test_one_nearest_label_is_a_voronoi_diagram(planted):
    _, layer, _, place = planted
    codes = np.full(len(layer), -1)
    codes[[0, 300]] = [0, 1]
    gaps = np.hypot(*(place.xy[0][:, None, :] - place.xy[0][[0, 300]][None]).transpose(2, 0, 1))
    clear = np.abs(gaps[:, 0] - gaps[:, 1]) > 1
    assert (semi._nearest_labels(place, np.array([0, 300]), codes, 1)[clear] == gaps.argmin(axis=1)[clear]).all()


def test_hidden_labels_are_the_shares_asked_for(planted):
    tissue, layer, _, _ = planted
    found = list(semi.hidden_labels(layer, tissue.sections[0].xy, draws=2))
    assert [(panel, draw) for panel, _, draw, _ in found] == [
        *[("1% labels", draw) for draw in range(2)], *[("5% labels", draw) for draw in range(2)],
        *[("one half", draw) for draw in range(4)],
    ]  # fmt: skip
    assert [(codes >= 0).sum() for *_, codes in found[:4]] == [6, 6, 29, 29]
    xy, (left, right, lower, upper) = tissue.sections[0].xy, (codes >= 0 for *_, codes in found[4:])
    assert (left == (xy[:, 0] < np.median(xy[:, 0]))).all()
    assert (lower == (xy[:, 1] < np.median(xy[:, 1]))).all()
    assert (left ^ right).all()
    assert (lower ^ upper).all()
    assert (found[0][3] != found[1][3]).any()


def test_rows_stand_beside_both_floors(planted):
    tissue, layer, votes, _ = planted
    rows = pd.DataFrame(domain_scores.semi_rows(tissue, votes, {"a": pd.Series(layer.astype(str))}, "st"))
    assert set(rows["method"]) == {"spread", "floor:coordinates_knn", "floor:logistic"}
    assert set(rows["panel"]) == {"1% labels", "5% labels", "one half"}
    table = rows[(rows["metric"] == "ari") & (rows["sample"] == "all")].pivot(
        index="panel", columns="method", values="value"
    )
    assert (table["spread"] > table["floor:coordinates_knn"]).all()
    scores = rows[rows["metric"].isin(["ari", "accuracy"])]
    assert (scores["low"] <= scores["value"]).all()
    assert (scores["value"] <= scores["high"]).all()
    assert (scores["high"] <= 1).all(), "an interval beyond what the score can be"
    gains = rows[rows["metric"] == "gain_ari"].set_index(["panel", "note"])
    for panel, scores in table.iterrows():
        gain = gains.loc[panel, "against floor:logistic"]
        assert gain["value"] == pytest.approx(scores["spread"] - scores["floor:logistic"])
        assert gain["low"] < gain["value"] < gain["high"]
    assert (rows.loc[rows["panel"] == "one half", "protocol"] == "block").all()
    said = domain_scores.verdict(rows)
    assert any("one half" in text for text in said["texts"])


def test_a_column_is_spread_over_sections(planted):
    tissue, layer, _, place = planted
    label = pd.Series([f"L{x}" if i % 20 == 0 else None for i, x in enumerate(layer)], tissue.barcodes[0], dtype=object)
    tables = semi.spread_column(place, {"a": pd.DataFrame({"few": label})}, "few")
    names = np.array([f"L{x}" for x in layer])
    assert (tables["a"]["semi"].astype(str).to_numpy() == names).mean() > 0.8
    assert tables["a"]["semi_confidence"].between(0, 1).all()


def test_an_unknown_column_and_a_single_label_are_refused(planted):
    tissue, _, _, place = planted
    observed = {"a": pd.DataFrame({"label": "one"}, index=tissue.barcodes[0])}
    with pytest.raises(InputError, match="Did you mean 'label'"):
        semi.spread_column(place, observed, "labels")
    with pytest.raises(InputError, match="1 different labels"):
        semi.spread_column(place, observed, "label")
