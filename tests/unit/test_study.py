"""A study: the completed config with the sheet's samples in their places."""

import pytest

from histoweft import study


@pytest.fixture
def sheet(tmp_path):
    def write(*rows, columns="sample\tplatform\tpath"):
        path = tmp_path / "samples.tsv"
        path.write_text("\n".join([columns, *rows]) + "\n")
        return path

    return write


def load(path, **options):
    return study.load({"study": "s", "samples": str(path), **options})


def test_empty_cells_take_the_sample_as_patient_and_batch(sheet):
    loaded, faults = load(sheet("a\tvisium\tx", "b\tvisium\ty"))
    assert not faults
    assert loaded.samples["a"]["patient"] == "a"
    assert loaded.samples["b"]["batch"] == "b"
    assert loaded.samples["a"]["mpp"] is None


def test_relative_paths_start_from_the_data_root_and_absolute_ones_do_not(sheet):
    path = sheet(
        "a\tvisium\tx\tl.tsv\tnone", "b\th5ad\t/abs/y.h5ad\tregion\t", columns="sample\tplatform\tpath\tlabels\timage"
    )
    loaded, faults = load(path, data_root="/data")
    assert not faults
    assert loaded.samples["a"]["path"] == "/data/x"
    assert loaded.samples["a"]["labels"] == "/data/l.tsv"
    assert loaded.samples["a"]["image"] == "none"
    assert loaded.samples["b"]["path"] == "/abs/y.h5ad"
    assert loaded.samples["b"]["labels"] == "region"


def test_other_columns_are_clinical(sheet):
    loaded, faults = load(sheet("a\tvisium\tx\t71", columns="sample\tplatform\tpath\tage_at_biopsy"))
    assert not faults
    assert loaded.samples["a"]["clinical"] == {"age_at_biopsy": "71"}


def test_sheet_and_config_faults_come_together(sheet):
    _, faults = load(sheet("a\tvisum\tx"), expression={"qc": {"min_gene": 1}})
    text = "\n".join(map(str, faults.items))
    assert "expression.qc.min_gene" in text
    assert "line 2, column platform: found 'visum'" in text
    assert "Did you mean 'visium'?" in text


def test_the_chosen_resolution_must_be_computed(sheet):
    _, faults = load(sheet("a\tvisium\tx"), expression={"resolution": 0.7})
    (fault,) = faults.items
    assert "expression.resolution: found 0.7; expected one of expression.resolutions: 0.25, 0.5, 1.0, 1.5" in str(fault)


def test_a_study_needs_samples_or_another_input():
    _, faults = study.load({"study": "s"})
    (fault,) = faults.items
    assert "samples: found nothing to work on; expected a sample sheet, atlas.input or cohort.bulk" in str(fault)
    loaded, faults = study.load({"study": "s", "atlas": {"input": "atlas.h5ad"}})
    assert not faults
    assert loaded.samples == {}


@pytest.mark.parametrize(
    ("path", "url"),
    [("https://x.org/a.h5", True), ("HTTP://x.org/a", True), ("a/b.h5", False), ("/a://b", False), ("c:file", False)],
)
def test_urls_are_told_from_paths(path, url):
    assert study.is_url(path) is url


def test_samples_can_be_left_out_by_name(sheet):
    path = sheet("a\tvisium\tx", "b\tvisium\ty")
    found, faults = load(path, exclude=["b"])
    assert not faults
    assert list(found.samples) == ["a"]
    assert found.excluded == ["b"]
    assert "Did you mean 'b'?" in str(load(path, exclude=["B"])[1].items)
    assert "at least one sample that stays" in str(load(path, exclude=["a", "b"])[1].items)


def bulk(**entry):
    return {"cohort": "A", "expression": "a.csv", "clinical": "b.csv", **entry}


def test_bulk_cohorts_are_an_input_of_their_own(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "b.csv").write_text("x")
    loaded, faults = study.load({"study": "s", "data_root": str(tmp_path), "cohort": {"bulk": [bulk()]}})
    assert not faults
    assert loaded.samples == {}
    (entry,) = loaded.config["cohort"]["bulk"]
    assert entry["expression"] == str(tmp_path / "a.csv")
    assert (entry["id"], entry["response"]) == ("", "")


def test_faults_of_bulk_cohorts_come_together(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    cohort = {"bulk": [bulk(), bulk(expression="a.cvs")], "models": ["boosting"]}
    _, faults = study.load({"study": "s", "data_root": str(tmp_path), "cohort": cohort})
    text = "\n".join(map(str, faults.items))
    assert "cohort.model: found elastic_net; expected one of boosting" in text
    assert "cohort.bulk[0].clinical" in text
    assert "cohort.bulk[1].cohort: found A; expected a name used once" in text
    assert "a.cvs, which does not exist; expected a table. Did you mean 'a.csv'?" in text
    _, faults = study.load({"study": "s", "cohort": {"bulk": [{"cohort": "A", "expresion": "x"}]}})
    text = "\n".join(map(str, faults.items))
    assert "cohort.bulk[0].expression: found nothing" in text
    assert "cohort.bulk[0].expresion: found an unknown option" in text


def test_a_home_that_this_machine_does_not_know_is_refused(sheet):
    path = sheet("a\tvisium\tx")
    _, faults = load(path, data_root="~nobody-of-this-name/data", atlas={"input": "~nobody-of-this-name/x.npy"})
    said = str(faults.items)
    assert "data_root" in said
    assert "atlas.input" in said
    assert "Write the path in full." in said
