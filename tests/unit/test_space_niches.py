"""Niches: composition of surroundings, planted niches, and conditions compared by patient."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from space_cases import hexagonal, layers, write_section

from histoweft.errors import InputError
from histoweft.metrics import adjusted_rand_index
from histoweft.space import niches
from histoweft.space.domains import neighbours_within
from histoweft.space.views import nearest

MIXTURES = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.1, 0.3, 0.6], [0.0, 0.0, 1.0]])


def planted(seed):
    """Return neighbours, layers, and groups drawn from each layer's own mixture."""
    rng = np.random.default_rng(seed)
    xy = hexagonal()
    layer = layers(xy)
    codes = np.array([rng.choice(3, p=MIXTURES[one]) for one in layer])
    return nearest(xy, 18), layer, pd.Categorical.from_codes(codes, ["x", "y", "z"])


def test_composition_is_the_share_of_each_group_among_neighbours():
    near, _, labels = planted(0)
    found = niches.composition(near, labels, 10)
    around = np.append(near[7, :10], 7)
    assert np.allclose(found[7], [(labels.codes[around] == code).mean() for code in range(3)])
    assert np.allclose(found.sum(axis=1), 1)


def test_unlabelled_surroundings_have_the_mean_of_the_section():
    near = np.array([[1], [0], [3], [2], [5], [4]])
    labels = pd.Categorical(["x", "x", None, None, "y", "x"])
    found = niches.composition(near, labels, 1)
    assert np.allclose(found[2], [0.75, 0.25])
    assert np.allclose(found[0], [1, 0])


def test_planted_niches_are_found_in_two_sections_together():
    parts = [planted(seed) for seed in (0, 1)]
    made_of = [niches.composition(near, labels, 18) for near, _, labels in parts]
    found = niches.find_niches(made_of, [neighbours_within(near) for near, _, _ in parts], 4)
    layer = np.concatenate([one for _, one, _ in parts])
    assert adjusted_rand_index(found.labels, layer) > 0.7
    everything = np.concatenate(made_of)
    assert np.allclose(found.profiles[0], everything[found.labels == 0].mean(axis=0), atol=1e-5)
    assert np.bincount(found.labels).argmax() == 0


def test_the_number_of_niches_is_the_largest_stable_one():
    assert niches._largest_stable([2, 3, 4, 5], [1.0, 0.95, 0.92, 0.7]) == 4
    assert niches._largest_stable([2, 3, 4], [0.6, 0.8, 0.7]) == 3
    near, _, labels = planted(0)
    found = niches.find_niches([niches.composition(near, labels, 18)], [neighbours_within(near)])
    assert found.stability["chosen"].sum() == 1
    assert found.labels.max() + 1 == found.stability.loc[found.stability["chosen"], "n"].iloc[0]


def test_more_niches_than_different_surroundings_are_refused():
    made_of = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    around = neighbours_within(nearest(hexagonal(6)[:30], 3))
    with pytest.raises(InputError, match=r"space.niches.n: found 5; expected at most 3"):
        niches.find_niches([made_of], [around], 5)


def test_tables_and_shares_of_sections():
    found = niches.Niches(np.array([0, 0, 1, 1, 1]), np.eye(2), pd.DataFrame())
    tables = niches.niche_tables(found, {"a": pd.Index(["p", "q"]), "b": pd.Index(["r", "s", "t"])})
    assert tables["a"]["niche"].tolist() == ["1", "1"]
    shares = niches.niche_shares(tables)
    assert shares.loc["a"].tolist() == [1.0, 0.0]
    assert shares.loc["b"].tolist() == [0.0, 1.0]


# -------------------------------------------------------------------------------------------------- conditions


def cohort(first, second, paired):
    names = [f"s{i}" for i in range(len(first) + len(second))]
    patients = [f"p{i % len(first) if paired else i}" for i in range(len(names))]
    conditions = ["before"] * len(first) + ["after"] * len(second)
    shares = pd.DataFrame({"1": [*first, *second]}, index=names)
    return shares.assign(**{"2": 1 - shares["1"]}), dict(zip(names, patients)), dict(zip(names, conditions))


def test_unpaired_p_counts_all_ways_to_deal_conditions():
    shares, patients, conditions = cohort([0.1, 0.2, 0.15, 0.12], [0.4, 0.5, 0.18, 0.6], paired=False)
    table, notes = niches.compare_conditions(shares, patients, conditions)
    values = shares["1"].to_numpy()
    seen = abs(values[4:].mean() - values[:4].mean())
    ways = [np.array(mask) for mask in product([0, 1], repeat=8) if sum(mask) == 4]
    expected = np.mean([abs(values[w == 1].mean() - values[w == 0].mean()) >= seen - 1e-12 for w in ways])
    assert table.loc[0, "p"] == pytest.approx(expected)
    assert table.loc[0, "smallest_p"] == pytest.approx(2 / 70)
    assert table.loc[0, "log2_ratio"] > 0
    assert "4 and 4 patients" in notes[0]


def test_paired_p_turns_signs():
    shares, patients, conditions = cohort([0.1, 0.2, 0.3, 0.1, 0.2, 0.1], [0.3, 0.5, 0.35, 0.2, 0.6, 0.4], paired=True)
    table, notes = niches.compare_conditions(shares, patients, conditions)
    assert table["p"].tolist() == pytest.approx([2 / 64, 2 / 64])
    assert "6 patients with both" in notes[0]


def test_sections_of_a_patient_do_not_count_as_patients():
    shares, _, conditions = cohort([0.1, 0.2, 0.15, 0.12], [0.4, 0.5, 0.45, 0.6], paired=False)
    patients = {name: "p1" if condition == "before" else "p2" for name, condition in conditions.items()}
    table, notes = niches.compare_conditions(shares, patients, conditions)
    assert table["p"].isna().all()
    assert (table["n_first"] == 1).all()
    assert "2 patients: no test possible" in notes[0]


def test_the_null_is_held():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        shares, patients, conditions = cohort(rng.random(4), rng.random(4), paired=False)
        found.append(niches.compare_conditions(shares, patients, conditions)[0].loc[0, "p"])
    assert np.mean(np.array(found) <= 0.1) < 0.16


def test_one_condition_says_so():
    shares, patients, conditions = cohort([0.1, 0.2], [0.3, 0.4], paired=False)
    table, notes = niches.compare_conditions(shares, patients, dict.fromkeys(conditions, "x"))
    assert table.empty
    assert "no conditions to compare" in notes[0]


# ------------------------------------------------------------------------------------------------------ groups


def test_groups_share_categories_and_joint_clusters_win(tmp_path):
    for sample in ("a", "b"):
        write_section(tmp_path / f"{sample}.h5ad", sample)
    filtered = {sample: tmp_path / f"{sample}.h5ad" for sample in ("a", "b")}
    found = niches.read_groups("labels", filtered, {})
    assert list(found["a"].categories) == [f"layer{i}" for i in range(4)]
    keys = [f"{sample}:{sample}_{number}" for sample in ("a", "b") for number in range(576)]
    joint = pd.DataFrame({"leiden": [str(10 * (i >= 576) + i % 2) for i in range(1152)]}, index=keys)
    joint.to_parquet(tmp_path / "joint.parquet")
    found = niches.read_groups("clusters", filtered, {}, tmp_path / "joint.parquet")
    assert list(found["b"].categories) == ["0", "1", "10", "11"]
    assert set(found["b"]) == {"10", "11"}
    assert set(found["a"]) == {"0", "1"}
