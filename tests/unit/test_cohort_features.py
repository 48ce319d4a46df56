"""From sections to patients: features with their source, microenvironment, pseudobulk, and groups compared."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.cohort import contrasts, features, gather, groups, microenvironment, pseudobulk, study
from histoweft.errors import InputError
from histoweft.io import CsrWriter, write_graph, write_table

GENES = [f"G{i}" for i in range(20)]


@pytest.fixture(scope="session")
def patterns(repo):
    return microenvironment.read_compartments(repo / "resources" / "cohort" / "compartments.tsv")


# ------------------------------------------------------------------------------------------------ microenvironment


@pytest.mark.parametrize(
    ("name", "compartment"),
    [
        ("t_cell", "immune"),
        ("B-cells", "immune"),
        ("CD8+ T", "immune"),
        ("tumour-associated macrophage", "immune"),
        ("Plasma cell", "immune"),
        ("fibroblast", "stromal"),
        ("iCAF", "stromal"),
        ("cancer-associated fibroblast", "stromal"),
        ("smooth_muscle", "stromal"),
        ("tumor", "malignant"),
        ("Melanoma cells", "malignant"),
        ("hepatocyte", "other"),
        ("stubborn cell", "other"),
    ],
)
def test_compartments_by_name(patterns, name, compartment):
    assert microenvironment.compartment_of(name, patterns) == compartment


def test_a_pattern_that_is_none_is_refused(tmp_path):
    path = tmp_path / "compartments.tsv"
    path.write_text("pattern\tcompartment\n(\timmune\n")
    with pytest.raises(InputError, match=r"pattern '\('.*expected a regular expression"):
        microenvironment.read_compartments(path)


def line_graph(n):
    ones = np.ones(n - 1)
    return sp.diags([ones, ones], [1, -1], format="csr")


def test_contacts_are_pairs_over_what_abundance_gives():
    shares = pd.DataFrame({"a": [1.0, 1, 0, 0, 1, 0], "b": [0.0, 0, 1, 1, 0, 1]})
    graph = line_graph(6)
    found = microenvironment.contacts(shares, graph)
    pairs = [(i, i + 1) for i in range(5)]
    codes = shares["a"].to_numpy(dtype=int)
    ends = [codes[i] for pair in pairs for i in pair]
    share = np.mean(ends)
    both = np.mean([codes[i] * codes[j] for i, j in pairs])
    mixed = np.mean([codes[i] != codes[j] for i, j in pairs]) / 2
    assert np.isclose(found["a|a"], np.log2(both / share**2), atol=1e-6)
    assert np.isclose(found["a|b"], np.log2(mixed / (share * (1 - share))), atol=1e-6)


def test_contacts_of_mixed_tissue_are_nought_and_of_an_absent_compartment_unknown():
    rng = np.random.default_rng(0)
    shares = pd.DataFrame({"a": (rng.random(4000) < 0.4).astype(float)})
    shares["b"], shares["c"] = 1 - shares["a"], 0.0
    found = microenvironment.contacts(shares, line_graph(4000))
    assert abs(found["a|b"]) < 0.05
    assert np.isnan(found["a|c"])


# ---------------------------------------------------------------------------------------------------- by patient


def about(**samples):
    rows = {s: {"patient": p, "cohort": "c", "condition": t, "response": ""} for s, (p, t) in samples.items()}
    return pd.DataFrame(rows, dtype=object).T


def section(values, how="mean over barcodes"):
    made = features.Section()
    for name, value in values.items():
        kind, _, rest = name.partition(":")
        made.add(kind, {rest: value}, "stage", "file.parquet", how)
    return made


def test_sections_of_a_patient_are_averaged_by_their_spots():
    sections = {"s1": section({"x:a": 1.0}), "s2": section({"x:a": 4.0, "x:b": 7.0}), "s3": section({"x:a": 0.5})}
    who = about(s1=("P1", ""), s2=("P1", ""), s3=("P2", ""))
    table, columns = features.by_patient(sections, who, {"s1": 100, "s2": 200, "s3": 50})
    assert np.isclose(table.loc["P1", "x:a"], (100 * 1 + 200 * 4) / 300)
    assert table.loc["P1", "x:b"] == 7.0  # what one section does not know does not count as nought
    assert np.isnan(table.loc["P2", "x:b"])
    assert list(table[["sections", "spots"]].loc["P1"]) == [2, 300]
    told = columns.set_index("column").loc["x:b"]
    assert (told["stage"], told["file"], told["rows"], told["missing"]) == ("stage", "file.parquet", 1, 1)


def test_a_niche_that_a_section_lacks_takes_no_room_there():
    sections = {
        "s1": section({"niche:1": 1.0}, "share of barcodes"),
        "s2": section({"niche:1": 0.4, "niche:2": 0.6}, "share of barcodes"),
        "s3": section({"x:a": 1.0}),
    }
    who = about(s1=("P1", ""), s2=("P2", ""), s3=("P3", ""))
    table, _ = features.by_patient(sections, who, {"s1": 10, "s2": 10, "s3": 10})
    assert table.loc["P1", "niche:2"] == 0.0
    assert np.isnan(table.loc["P3", "niche:2"])


def test_conditions_stay_apart_until_a_baseline_is_chosen():
    sections = {"a": section({"x:a": 1.0}), "b": section({"x:a": 3.0})}
    who = about(a=("P1", "before"), b=("P1", "after"))
    table, _ = features.by_patient(sections, who, {"a": 100, "b": 300})
    assert list(table.index) == ["P1|before", "P1|after"]
    assert features.merge_conditions(table).loc["P1", "x:a"] == 2.5
    assert features.merge_conditions(table, "before").loc["P1", "x:a"] == 1.0


# ------------------------------------------------------------------------------------------------- files to table


@pytest.fixture
def files(tmp_path):
    """Write four sections of two patients and return their files and rows of a sheet."""
    made, rows = {}, {}
    for number, (patient, condition) in enumerate(product(["P1", "P2"], ["before", "after"])):
        rng = np.random.default_rng(number)
        n, sample = 60, f"{patient}_{condition}"
        folder = tmp_path / sample
        folder.mkdir()
        barcodes = pd.Index([f"B{i}" for i in range(n)])
        persister = np.arange(n) % 3 == 0
        rate = np.full((n, 20), 30.0)
        rate[persister, 0] *= 4
        counts = rng.poisson(rate).astype(np.float32)
        with CsrWriter(folder / "filtered.h5ad", 20) as writer:
            writer.append(sp.csr_matrix(counts))
            writer.finish(pd.DataFrame(index=barcodes), pd.DataFrame(index=pd.Index(GENES)))
        tumour = rng.random(n)
        write_graph(folder / "graph.npz", line_graph(n).tocsr())
        tables = {
            "proportions": pd.DataFrame({"tumour": tumour, "t_cell": 1 - tumour, "misfit": 9.0, "low:tumour": 0.0}),
            "niches": pd.DataFrame({"niche": pd.Categorical(np.where(np.arange(n) < 20, "1", "2"))}),
            "states": pd.DataFrame({"persister": persister, "persister_score": tumour, "signature_hypoxia": 2.0}),
            "fates": pd.DataFrame({"fate_A": np.where(persister, 0.9, 0.1), "fate_B": np.where(persister, 0.1, 0.9)}),
            "interactions_local": pd.DataFrame({"L^R": np.where(np.arange(n) < 20, 2.0, 1.0)}),
        }
        for name, table in tables.items():
            write_table(table.set_index(barcodes), folder / f"{name}.parquet")
        drivers = pd.DataFrame({"fate": ["A", "B"], "gene": ["G0", "G0"], "correlation": [0.5, -0.5]})
        drivers.to_parquet(folder / "drivers.parquet")
        pairs = {"ligand_complex": ["L"], "receptor_complex": ["R"], "score": [0.25]}
        pd.DataFrame(pairs).to_parquet(folder / "interactions_spatial.parquet")
        names = [*tables, "drivers", "interactions_spatial"]
        made[sample] = {name: str(folder / f"{name}.parquet") for name in names}
        made[sample] |= {"filtered": str(folder / "filtered.h5ad"), "graph": str(folder / "graph.npz")}
        rows[sample] = {"patient": patient, "condition": condition, "batch": "b", "clinical": {}}
    return made, rows


OPTIONS = {
    "response": "", "positive": "R", "negative": "", "baseline": "", "clinical": [], "group": "", "bulk": [],
}  # fmt: skip


@pytest.fixture
def options(repo):
    shipped = repo / "resources" / "cohort"
    return OPTIONS | {
        "signatures": str(shipped / "response_signatures.tsv"), "compartments": str(shipped / "compartments.tsv"),
    }  # fmt: skip


def test_everything_that_is_known_of_a_section_becomes_a_feature(files, options):
    made, rows = files
    gathered, expression, notes = study.gather_study(made, rows, options, "demo", True)
    table = gathered.table
    assert list(table.index) == ["P1|before", "P1|after", "P2|before", "P2|after"]
    one = table.loc["P1|before"]
    tumour = pd.read_parquet(made["P1_before"]["proportions"])["tumour"]
    assert np.isclose(one["composition:tumour"], tumour.mean())
    assert np.isclose(one["compartment:malignant"] + one["compartment:immune"], 1)
    assert np.isclose(one["niche:1"], 1 / 3)
    assert one["state:persister"] == 20 / 60
    assert np.isclose(one["state:persister_score"], tumour.mean())
    assert one["signature:hypoxia"] == 2.0
    assert np.isclose(one["fate:A"], (20 * 0.9 + 40 * 0.1) / 60)
    assert one["interaction:L^R"] == 0.25
    assert np.isfinite(one["contact:immune|malignant"])
    assert set(gathered.columns["column"]) == set(features.feature_columns(table))
    assert expression.shape == (4, 20)
    assert "not scored: ifn_gamma_6 (0 of 6)" in notes[0]


def test_bulk_cohorts_stand_under_the_samples(files, options, tmp_path):
    made, rows = files
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(8, 1, (15, 5)), GENES[5:], [f"B{i}" for i in range(5)])
    table.to_csv(tmp_path / "expr.csv")
    pd.DataFrame({"answer": list("RNRNR")}, table.columns).to_csv(tmp_path / "clin.csv")
    entry = {"cohort": "ext", "id": "", "response": "answer"}
    entry |= {"expression": str(tmp_path / "expr.csv"), "clinical": str(tmp_path / "clin.csv")}
    gathered, expression, _ = study.gather_study(made, rows, options | {"bulk": [entry]}, "demo", True)
    table = gathered.table
    assert list(expression) == GENES[5:]
    assert list(expression.index) == list(table.index)
    assert list(table["cohort"]) == ["demo"] * 4 + ["ext"] * 5
    assert table.loc["ext:B1", "response"] == "N"
    assert table["niche:1"].notna().sum() == 4
    assert np.allclose(expression.iloc[4:], pd.read_csv(tmp_path / "expr.csv", index_col=0).T, atol=1e-5)


def test_missing_stages_are_fine(files, options):
    made, rows = files
    bare = {sample: {"filtered": paths["filtered"]} for sample, paths in made.items()}
    bare["P1_before"]["niches"] = made["P1_before"]["niches"]
    gathered, _, _ = study.gather_study(bare, rows, options, "demo", False)
    assert set(features.feature_columns(gathered.table)) == {"niche:1", "niche:2"}
    assert gathered.table["niche:1"].notna().sum() == 1


def test_places_know_what_persister_cells_and_niches_express(files, options):
    made, rows = files
    places = study.gather_study(made, rows, options, "demo", True)[0].places.set_index(["kind", "group", "gene"])
    found = places.loc[("state", "persister", "G0")]
    # Four times the rate, of genes that share the counts of a barcode: 4 * 30 of 690 against 30 of 600.
    assert np.isclose(found["effect"], np.log2((120 / 690) / (30 / 600)), atol=0.15)
    assert found["patients"] == 2
    assert np.isnan(found["p"])
    assert np.isclose(places.loc[("niche_pair", "1", "L^R"), "effect"], 1.0)
    assert np.isclose(places.loc[("fate", "persister", "G0"), "effect"], np.arctanh(0.5))


def test_pseudobulk_adds_up_sections_and_repeated_genes():
    matrix = sp.csr_matrix(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9.0]]))
    labels = pd.Series(["a", None, "b"], dtype=object)
    sums = pseudobulk.add_up(
        [(slice(0, 2), matrix[:2]), (slice(2, 3), matrix[2:])], pd.Index(list("xyx")), {"k": labels}
    )
    assert sums.total.to_dict() == {"x": 1 + 3 + 4 + 6 + 7 + 9, "y": 15}
    assert sums.groups[("k", "b")].to_dict() == {"x": 16, "y": 8}
    assert sums.spots == {("k", ""): 2, ("k", "a"): 1, ("k", "b"): 1}
    other = pseudobulk.Sums(pd.Series({"x": 1.0, "z": 2.0}))
    sums.add(other)
    assert sums.total.to_dict() == {"x": 31, "y": 15, "z": 2}


def test_t_over_patients_is_students_where_variances_agree():
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 1, (12, 500))
    t, _ = pseudobulk.t_over_patients(np.full(500, 12.0), values.sum(axis=0), (values**2).sum(axis=0))
    exact = ttest_1samp(values, 0)
    assert np.corrcoef(t, exact.statistic)[0, 1] > 0.98
    assert np.isclose(t.mean(), exact.statistic.mean(), rtol=0.1)
    few = pseudobulk.t_over_patients(np.array([2.0]), np.array([3.0]), np.array([5.0]))
    assert np.isnan(few[1]).all()


def test_t_over_patients_keeps_its_level():
    rng = np.random.default_rng(1)
    values = rng.normal(0, rng.gamma(3, 1, 4000), (5, 4000))
    _, p = pseudobulk.t_over_patients(np.full(4000, 5.0), values.sum(axis=0), (values**2).sum(axis=0))
    assert (p < 0.01).mean() < 0.02


# ------------------------------------------------------------------------------------------------------- contrasts


def who(label, patient=None, stratum=None):
    n = len(label)
    index = range(n)
    patient = pd.Series(patient if patient is not None else [f"P{i}" for i in index], index)
    stratum = pd.Series(stratum if stratum is not None else ["c"] * n, index)
    return contrasts.Groups("first", "second", pd.Series(label, index, dtype=float), patient, stratum)


def test_a_permutation_p_counts_every_way_to_deal():
    rng = np.random.default_rng(0)
    values = pd.DataFrame({"x": rng.normal(size=9), "y": rng.normal(size=9)})
    label = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0.0])
    found = contrasts.compare(values, who(label)).set_index("feature")
    for name in values:
        x = values[name].to_numpy()
        seen = abs(x[:4].mean() - x[4:].mean())
        ways = []
        for chosen in combinations(range(9), 4):
            rest = np.setdiff1d(range(9), chosen)
            ways.append(abs(x[list(chosen)].mean() - x[rest].mean()) >= seen - 1e-9)
        assert np.isclose(found.loc[name, "p"], np.mean(ways))


def test_pairs_are_compared_with_themselves():
    rng = np.random.default_rng(1)
    level = np.repeat(rng.normal(0, 5, 7), 2)
    label = np.tile([1.0, 0.0], 7)
    values = pd.DataFrame({"x": level + label * 0.8 + rng.normal(0, 0.3, 14)})
    found = contrasts.compare(values, who(label, np.repeat([f"P{i}" for i in range(7)], 2))).iloc[0]
    gaps = values["x"].to_numpy()[::2] - values["x"].to_numpy()[1::2]
    turned = [abs(np.mean(gaps * signs)) >= abs(gaps.mean()) - 1e-9 for signs in product([1, -1], repeat=7)]
    assert found["paired"]
    assert np.isclose(found["p"], np.mean(turned))
    assert np.isclose(found["effect"], np.median([(a + b) / 2 for i, a in enumerate(gaps) for b in gaps[i:]]))
    assert found["low"] < found["effect"] < found["high"]


def test_dealing_inside_cohorts_is_blind_to_what_cohorts_differ_by():
    rng = np.random.default_rng(2)
    stratum = np.repeat(["a", "b"], 20)
    label = np.where(stratum == "a", np.arange(40) % 5 > 0, np.arange(40) % 5 == 0).astype(float)
    values = pd.DataFrame({"x": np.where(stratum == "a", 5.0, 0.0) + rng.normal(size=40)})
    assert contrasts.compare(values, who(label)).iloc[0]["p"] < 0.01
    inside = contrasts.compare(values, who(label, stratum=stratum)).iloc[0]
    assert inside["p"] > 0.05
    assert abs(inside["effect"]) < 1
    values["x"] += 2.5 * label
    found = contrasts.compare(values, who(label, stratum=stratum)).iloc[0]
    assert found["p"] < 0.01
    assert 0 < found["effect"] < 3


def test_hodges_lehmann_is_the_median_of_all_gaps_and_covers():
    rng = np.random.default_rng(3)
    a, b = rng.normal(1, 1, 11), rng.normal(0, 1, 8)
    shift, low, high = contrasts.hodges_lehmann(a, b)
    assert np.isclose(shift, np.median([x - y for x in a for y in b]))
    hits = 0
    for _ in range(300):
        _, low, high = contrasts.hodges_lehmann(rng.normal(1, 1, 11), rng.normal(0, 1, 8))
        hits += low <= 1 <= high
    assert hits / 300 > 0.92


def test_too_few_patients_get_no_p_but_advice():
    label = [1.0, 1, 0, 0]
    found = contrasts.compare(pd.DataFrame({"x": [4.0, 5, 1, 2]}), who(label))
    assert found["p"].isna().all()
    assert found["effect"].iloc[0] == 3.0
    assert "Four or more of each are needed" in contrasts.advice(who(label))
    paired = who(label, ["P1", "P2", "P1", "P2"])
    assert "Six or more such patients are needed" in contrasts.advice(paired)
    assert contrasts.advice(who([1.0] * 4 + [0] * 4)) == ""
    assert contrasts.advice(who(np.tile([1.0, 0], 6), np.repeat(range(6), 2))) == ""


def test_conditions_are_compared_later_less_earlier():
    table = pd.DataFrame(
        {
            "patient": ["P1", "P1", "P2"], "cohort": "c", "condition": ["before", "after", "before"], "response": "",
            "sections": 1, "spots": 5, "x:a": [1.0, 2.0, 3.0],
        }
    )  # fmt: skip
    ((_, found),) = groups.compared(table, OPTIONS)
    assert (found.first, found.second) == ("after", "before")
    # P1 alone has both: nobody to be paired with.
    assert list(found.label.fillna(-1)) == [-1, -1, 0]
    table["patient"] = ["P1", "P3", "P2"]
    ((_, found),) = groups.compared(table, OPTIONS)
    assert list(found.label) == [0, 1, 0]


def test_patients_are_compared_by_response_in_the_words_of_the_sheet():
    table = pd.DataFrame(
        {
            "patient": ["P1", "P1", "P2", "P3"], "cohort": "c", "condition": ["pre", "post", "pre", "pre"],
            "response": ["yes", "yes", "no", "NA"], "sections": 1, "spots": 5, "x:a": [1.0, 3.0, 5.0, 7.0],
        }
    )  # fmt: skip
    ((rows, found),) = groups.compared(table, OPTIONS | {"positive": "yes", "baseline": "pre"})
    assert (found.first, found.second) == ("yes", "no")
    assert list(found.label.fillna(-1)) == [1, 0, -1]
    assert list(rows["x:a"]) == [1.0, 5.0, 7.0]


def test_the_fate_of_persister_cells_is_the_one_they_have_more():
    states = pd.DataFrame({"persister": np.arange(40) < 15})
    fates = pd.DataFrame(
        {"fate_A": np.where(np.arange(40) < 15, 0.2, 0.4), "fate_B": np.where(np.arange(40) < 15, 0.8, 0.6)}
    )
    assert gather.persister_fate({"states": states, "fates": fates}) == "B"
    assert gather.persister_fate({"states": states.assign(persister=False), "fates": fates}) == ""
    assert gather.persister_fate({"fates": fates}) == ""


def section_with(**values):
    made = features.Section()
    for name, value in values.items():
        prefix, rest = name.split("_", 1)
        made.add(prefix, {rest.replace("_", " "): value}, "stage", "file", "how")
    return made


def test_measures_that_differ_between_sections_are_left_out():
    """Transitional by fates in one section and by neighbours in another; ends numbered within their section."""
    sections = {
        "a": section_with(state_transitional=0.3, fate_tumour=0.5, fate_entropy=0.2),
        "b": section_with(state_transitional=0),
    }
    assert features.drop_incomparable(sections) == ["state:transitional"]
    assert sections["a"].values == {"fate:tumour": 0.5, "fate:entropy": 0.2}
    assert "state:transitional" not in sections["b"].sources
    both = {s: section_with(state_transitional=0.3, fate_tumour=0.5, fate_tumour_2=0.5, fate_Beta=0.1) for s in "ab"}
    assert features.drop_incomparable(both) == ["fate:tumour", "fate:tumour 2"]
    assert set(both["b"].values) == {"state:transitional", "fate:Beta"}
    assert features.drop_incomparable({"a": section_with(state_transitional=0.1)}) == []
