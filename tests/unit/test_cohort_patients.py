"""Who responded, and sheets that are refused because they would leak."""

import numpy as np
import pandas as pd
import pytest

from histoweft.cohort import bulk, patients, signatures
from histoweft.errors import InputError

OPTIONS = {"response": "answer", "group": "", "clinical": [], "positive": "R", "negative": "", "baseline": ""}


def row(patient, condition="", **clinical):
    return {"patient": patient, "condition": condition, "batch": "b", "clinical": clinical}


# ------------------------------------------------------------------------------------------------------- response


def test_answers_become_one_nought_and_unknown():
    values = pd.Series(["R", "NR", "None", "", "na", "NR", None])
    found = patients.assess(values, "R")
    assert list(found[[0, 1, 5]]) == [1, 0, 0]
    assert found[[2, 3, 4, 6]].isna().all()


def test_a_third_answer_needs_naming_the_second():
    values = pd.Series(["CR", "PD", "SD"])
    with pytest.raises(InputError, match="found answers CR, PD, SD; expected 'CR' and one other"):
        patients.assess(values, "CR")
    assert list(patients.assess(values, "CR", "PD").fillna(-1)) == [1, 0, -1]


def test_a_positive_answer_that_nobody_gave_is_refused():
    with pytest.raises(InputError, match="found answers NR, R; expected 'yes' among them"):
        patients.assess(pd.Series(["R", "NR"]), "yes")


# ---------------------------------------------------------------------------------------------------- leaky sheets


def test_one_patient_with_two_responses_is_refused_with_both_sections_named():
    rows = {"a": row("P1", answer="R"), "b": row("P1", answer="NR"), "c": row("P2", answer="R")}
    with pytest.raises(InputError) as error:
        patients.table_of_samples(rows, OPTIONS, "study")
    text = str(error.value)
    assert "patient P1, column response: found different values (a: R, b: NR)" in text
    assert "1 fault" in text


def test_an_empty_response_of_one_section_is_no_contradiction():
    rows = {"a": row("P1", answer="R"), "b": row("P1", answer="")}
    table = patients.table_of_samples(rows, OPTIONS, "study")
    assert list(table["response"]) == ["R", "R"]
    assert set(table["cohort"]) == {"study"}


def test_one_patient_in_two_cohorts_is_refused():
    rows = {"a": row("P1", answer="R", site="x"), "b": row("P1", answer="R", site="y")}
    with pytest.raises(InputError, match=r"patient P1, column cohort: found different values \(a: x, b: y\)"):
        patients.table_of_samples(rows, OPTIONS | {"group": "site"}, "study")


def test_a_column_that_the_sheet_lacks_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"the column 'answr'.*Did you mean 'answer'"):
        patients.table_of_samples({"a": row("P1", answer="R")}, OPTIONS | {"response": "answr"}, "study")


def profiles(n=8, genes=200, seed=0):
    rng = np.random.default_rng(seed)
    # Patients of one tissue: all profiles correlate.
    return pd.DataFrame(rng.normal(0, 3, genes) + rng.normal(0, 0.5, (n, genes)), index=[f"P{i}" for i in range(n)])


def test_one_patient_under_two_names_is_found_by_expression():
    table = profiles()
    assert not patients.same_profiles(table, list(table.index))
    table.loc["P5"] = table.loc["P1"] + 1e-5
    (fault,) = patients.same_profiles(table, list(table.index)).items
    assert fault.where == "patients P1 and P5"
    assert "the same expression profile" in fault.found
    assert not patients.same_profiles(table, ["P0", "P1", "P2", "P3", "P4", "P1", "P6", "P7"])


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        (["PR", "PR", "PD", "PD", "PR", "PD", "PD", "PR"], True),  # best response, the same thing again
        (["1", "1", "0", "0", "1", "0", "0", "1"], True),
        (["61", "70", "55", "48", "66", "59", "71", "63"], False),
        (["PR", "PR", "PD", "PD", "PR", "PR", "PD", "PR"], False),
    ],
)
def test_a_clinical_column_that_is_the_response_is_refused(values, refused):
    response = pd.Series([1, 1, 0, 0, 1, 0, 0, 1.0])
    faults = patients.disguised(pd.DataFrame({"clinical:best": values}), response)
    assert bool(faults) is refused
    if refused:
        assert "cohort.clinical, best: found the response under another name" in str(faults.items[0])


# ------------------------------------------------------------------------------------------------------------ bulk


@pytest.fixture
def cohort(tmp_path):
    def write(name="A", expression=None, clinical=None, **entry):
        genes = [f"G{i}" for i in range(12)]
        if expression is None:
            rng = np.random.default_rng(len(name))
            expression = pd.DataFrame(rng.normal(3, 1, (12, 4)), genes, ["p1", "p2", "p3", "p4"])
        if clinical is None:
            clinical = pd.DataFrame({"response": ["R", "NR", "None", "R"]}, ["p1", "p2", "p3", "p4"])
        expression.to_csv(tmp_path / f"{name}_expr.csv.gz")
        clinical.to_csv(tmp_path / f"{name}_clin.csv")
        paths = {"expression": str(tmp_path / f"{name}_expr.csv.gz"), "clinical": str(tmp_path / f"{name}_clin.csv")}
        return {"cohort": name, "id": "", "response": "", **paths, **entry}

    return write


def test_bulk_patients_carry_their_cohort_and_response(cohort):
    found = bulk.read(cohort("Hugo"), "response", [])
    assert list(found.patients.index) == ["Hugo:p1", "Hugo:p2", "Hugo:p3", "Hugo:p4"]
    assert list(found.patients["response"]) == ["R", "NR", "None", "R"]
    assert found.expression.shape == (4, 12)


def test_the_floor_of_log_tpm_becomes_nought():
    tpm = np.array([[0.0, 1.0], [30.0, 0.0]])
    written = np.log2(tpm + 0.001)
    assert np.allclose(bulk.to_log1p(written), np.log2(1 + tpm), atol=1e-9)
    already = np.log2(1 + tpm)
    assert np.array_equal(bulk.to_log1p(already), already)


def test_gaps_take_the_mean_and_genes_full_of_gaps_are_left_out(cohort):
    table = pd.DataFrame(2.0, [f"G{i}" for i in range(12)], [f"p{i}" for i in range(6)])
    table.loc["G0", "p0"] = np.nan
    table.loc["G1", ["p0", "p1", "p2"]] = np.nan
    clinical = pd.DataFrame({"response": "R"}, table.columns)
    found = bulk.read(cohort("A", table, clinical), "response", [])
    assert "G1" not in found.expression
    assert found.expression.loc["A:p0", "G0"] == 2.0


def test_faults_of_a_bulk_table_come_together(cohort):
    table = pd.DataFrame(2.0, [f"G{i}" for i in range(11)] + ["G1"], ["p1", "p2"]).astype(object)
    table.iloc[3, 1] = "high"
    with pytest.raises(InputError) as error:
        bulk.read(cohort("A", table, pd.DataFrame({"other": ["R"]}, ["p1"])), "response", [])
    text = str(error.value)
    assert "gene G3, patient p2: found 'high'; expected a finite number" in text
    assert "the gene 'G1' twice" in text


def test_a_patient_without_a_clinical_line_and_a_missing_column_are_named(cohort):
    clinical = pd.DataFrame({"respons": ["R"]}, ["p1"])
    with pytest.raises(InputError) as error:
        bulk.read(cohort("A", None, clinical), "response", [])
    text = str(error.value)
    assert "no column 'response'" in text
    assert "Did you mean 'respons'?" in text
    assert "no line for 3 of 4 patients (e.g. p2, p3, p4)" in text


def test_raw_values_are_refused(cohort):
    table = pd.DataFrame(5000.0, [f"G{i}" for i in range(12)], ["p1", "p2", "p3", "p4"])
    with pytest.raises(InputError, match="found values up to 5000; expected log2 values"):
        bulk.read(cohort("A", table), "response", [])


def test_cohorts_share_their_common_genes(cohort):
    first, second = bulk.read(cohort("A"), "response", []), bulk.read(cohort("BB"), "response", [])
    second.expression.rename(columns={"G3": "X"}, inplace=True)
    people, expression = bulk.join([first, second])
    assert len(people) == 8
    assert list(expression) == [f"G{i}" for i in range(12) if i != 3]
    with pytest.raises(InputError, match="the cohort 'A' twice"):
        bulk.join([first, first])
    second.expression.columns = [f"ENSG{i}" for i in range(12)]
    with pytest.raises(InputError, match=r"0 genes in common \(A 12, BB 12\)"):
        bulk.join([first, second])


def test_standardising_knows_only_the_own_cohort():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(5, 2, (9, 3)), columns=list("abc"))
    table["c"] = 1.0
    cohorts = ["x"] * 4 + ["y"] * 5
    found = bulk.standardise(table, cohorts)
    own = table.iloc[:4]
    assert np.allclose(found.iloc[:4][["a", "b"]], ((own - own.mean()) / own.std(ddof=0))[["a", "b"]])
    assert (found["c"] == 0).all()
    moved = table.copy()
    moved.iloc[4:] += 100
    assert np.allclose(bulk.standardise(moved, cohorts).iloc[:4], found.iloc[:4])


# ------------------------------------------------------------------------------------------------------ signatures


def test_shipped_signatures_are_scored_with_their_sign(repo):
    table = signatures.read(repo / "resources" / "cohort" / "response_signatures.tsv")
    genes = sorted(set(table["gene"]))
    standard = pd.DataFrame(np.random.default_rng(0).normal(size=(5, len(genes))), columns=genes)
    scores, coverage = signatures.score(standard, table)
    assert coverage["scored"].all()
    assert np.allclose(scores["cytolytic"], standard[["GZMA", "PRF1"]].mean(axis=1))
    fibroblast = table.loc[table["signature"] == "tgfb_fibroblast", "gene"]
    assert np.allclose(scores["tgfb_fibroblast"], -standard[list(fibroblast)].mean(axis=1))


def test_an_older_symbol_counts_and_a_signature_without_genes_is_left_out(tmp_path):
    path = tmp_path / "signatures.tsv"
    lines = ["signature\tgene\tweight\talias\tsource", "s\tCCN2\t2\tCTGF\tx", "s\tB\t-1\t\tx", "t\tQ\t1\t\tx"]
    path.write_text("\n".join(lines) + "\n")
    standard = pd.DataFrame({"CTGF": [1.0, 0.0], "B": [0.0, 3.0]})
    scores, coverage = signatures.score(standard, signatures.read(path))
    assert np.allclose(scores["s"], [2 / 3, -1])
    assert list(coverage["scored"]) == [True, False]
    assert coverage["missing"].iloc[1] == "Q"


def test_faults_of_a_signature_table_come_together(tmp_path):
    path = tmp_path / "signatures.tsv"
    path.write_text("signature\tgene\tweight\talias\tsource\ns\tA\tup\t\tx\ns\tA\t1\t\tx\n")
    with pytest.raises(InputError) as error:
        signatures.read(path)
    assert "gene A: found weight 'up'" in str(error.value)
    assert "gene A twice" in str(error.value)
