"""A study: the completed config with the sheet's samples in their places."""

import unicodedata

import pytest
import yaml

from histoweft import study
from histoweft.paths import lookalike


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


def config_file(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return study.load(yaml.safe_load(text), source="config.yaml", files=[path])


@pytest.mark.parametrize("name", ["001", "010", "8", "2026-01-31"])
def test_a_name_without_quotes_is_what_stands_in_the_config_file(sheet, tmp_path, name):
    path = sheet("001\th5ad\tx", "010\th5ad\tx", "8\th5ad\tx", "2026-01-31\th5ad\tx")
    loaded, faults = config_file(tmp_path, f"study: 007\nsamples: {path}\nexclude: [{name}]\n")
    assert not faults
    assert loaded.excluded == [name]
    assert loaded.name == "007"


def test_words_that_yaml_takes_for_truth_values_are_levels_of_a_column(sheet, tmp_path):
    path = sheet("a\th5ad\tx\tno", "b\th5ad\tx\tyes", columns="sample\tplatform\tpath\trelapse")
    text = f"study: s\nsamples: {path}\nstates: {{contrast: {{relapse: [no, yes]}}}}\ncohort: {{positive: yes}}\n"
    loaded, faults = config_file(tmp_path, text)
    assert not faults
    assert loaded.config["states"]["contrast"] == {"relapse": ["no", "yes"]}
    assert loaded.config["cohort"]["positive"] == "yes"


def test_numbers_and_switches_stay_numbers_and_switches(sheet, tmp_path):
    text = (
        f"study: s\nsamples: {sheet('a	h5ad	x')}\nseed: 010\nrequire_gpu: on\nexclude:\natlas: {{midline: 12}}\n"
    )
    loaded, faults = config_file(tmp_path, text)
    assert not faults
    assert (loaded.config["seed"], loaded.config["require_gpu"], loaded.config["atlas"]["midline"]) == (8, True, 12)
    assert loaded.config["exclude"] == []


def test_numbers_within_a_group_on_the_command_line_are_numbers(sheet, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"study: s\nsamples: {sheet('a	h5ad	x')}\n")
    given = {"study": "s", "samples": str(tmp_path / "samples.tsv"), "expression": {"qc": {"min_genes": "7"}}}
    loaded, faults = study.load(given, files=[path])
    assert not faults
    assert loaded.config["expression"]["qc"]["min_genes"] == 7


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"exclude": [1]}, "exclude[0]: found 1; expected text. Put it in quotes: '001'."),
        ({"trajectory": {"samples": [8]}}, "trajectory.samples[0]: found 8; expected text. Put it in quotes: '010'."),
        (
            {"states": {"contrast": {"condition": [True, "c"]}}},
            "condition[0]: found true; expected text. Put it in quotes: 'yes'.",
        ),
        ({"exclude": 8}, "exclude: found 8; expected a list. Write a list: ['010']."),
        ({"exclude": "001"}, "exclude: found \"001\"; expected a list. Write a list: ['001']."),
        ({"exclude": ["1"]}, "exclude: found '1'; expected a sample of the sheet. Did you mean '001'?"),
        ({"title": 5}, "title: found 5; expected text. Put it in quotes, as in '001'"),
    ],
)
def test_a_number_for_a_name_is_one_fault_with_the_name_that_was_meant(sheet, options, told):
    path = sheet("001\th5ad\tx\tyes", "010\th5ad\tx\tc", columns="sample\tplatform\tpath\tcondition")
    (fault,) = load(path, **options)[1].items
    assert told in str(fault)


def test_a_number_is_a_name_where_no_other_can_be_meant(sheet):
    loaded, faults = load(sheet("8\th5ad\tx", "b\th5ad\ty"), exclude=[8])
    assert not faults
    assert loaded.excluded == ["8"]
    (fault,) = load(sheet("8\th5ad\tx", "010\th5ad\ty"), exclude=[8])[1].items
    assert "Put it in quotes: '8' or '010'" in str(fault)


def test_an_option_twice_and_what_copying_leaves_are_told(sheet, tmp_path):
    twice = "seed: 1\nexpression: {qc: {min_genes: 1, min_genes: 2}}\nseed: 2\n"
    text = f"study: s\nsamples: {sheet('a	h5ad	x')}\n{twice}"
    told = str(config_file(tmp_path, text)[1].items)
    assert "line 5" in told
    assert "seed once more (it stands in line 3 already)" in told
    assert "expression.qc.min_genes once more" in told
    told = str(
        load(tmp_path / "samples.tsv", exclude=["“a”"], data_root="elsewhere\u200b", **{"se\u00a0ed ": 1})[1].items
    )
    assert "straight quotes" in told
    assert "invisible characters" in told


@pytest.mark.parametrize(
    ("platform", "path", "labels", "column"),
    [
        ("h5ad", "a.h5ad", "cell.type", True),
        ("h5ad", "a.loom", "cell.type", True),
        ("scrna", "a.h5ad", "cell.type.v2", True),
        ("scrna", "folder", "types", False),
        ("h5ad", "a.h5ad", "types.csv.gz", False),
        ("h5ad", "https://x.org/7?download=1", "cell.type", True),
        ("visium", "a", "cell.type", False),
    ],
)
def test_a_dot_does_not_make_a_path_of_a_column(sheet, platform, path, labels, column):
    path = sheet(f"a\t{platform}\t{path}\t{labels}", columns="sample\tplatform\tpath\tlabels")
    loaded, faults = load(path, data_root="data")
    assert not faults
    assert loaded.samples["a"]["labels"] == (labels if column else f"data/{labels}")


@pytest.mark.parametrize(("on_disk", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_with_accents_are_those_on_disk(sheet, tmp_path, on_disk, written):
    folder = tmp_path / unicodedata.normalize(on_disk, "Gewebe_Müller")
    folder.mkdir()
    for name in ("é.h5ad", "é.csv", "é.npy", "Bär.tsv"):
        (folder / unicodedata.normalize(on_disk, name)).write_text("x")
    table = sheet(
        unicodedata.normalize(written, "a\th5ad\té.h5ad\té.csv"), columns="sample\tplatform\tpath\tlabels"
    ).rename(folder / unicodedata.normalize(on_disk, "Bär.tsv"))
    config = {
        "study": "s",
        "samples": unicodedata.normalize(written, str(table)),
        "data_root": unicodedata.normalize(written, str(folder)),
        "atlas": {"input": unicodedata.normalize(written, "é.npy")},
        "cohort": {"bulk": [bulk(expression=unicodedata.normalize(written, "é.csv"), clinical=str(table))]},
        "annotation": {"hierarchy": unicodedata.normalize(written, str(folder / "é.csv"))},
    }
    loaded, faults = study.load(config)
    assert not faults
    there = {name: str(folder / unicodedata.normalize(on_disk, name)) for name in ("é.h5ad", "é.csv", "é.npy")}
    row = loaded.samples["a"]
    assert (row["path"], row["labels"]) == (there["é.h5ad"], there["é.csv"])
    assert "in other characters" in row["read_as"]["path"]
    assert loaded.config["samples"] == str(table)
    assert loaded.config["atlas"]["input"] == there["é.npy"]
    assert loaded.config["cohort"]["bulk"][0]["expression"] == there["é.csv"]
    assert loaded.config["annotation"]["hierarchy"] == there["é.csv"]


@pytest.mark.parametrize(
    ("ingest", "histology", "expected"),
    [
        ({}, {}, 1.0),
        ({}, {"encoder": "pretrained"}, 1.0),
        ({}, {"encoder": "timm:resnet50"}, 0.5),
        ({}, {"encoder": "timm:resnet50", "encoder_um_per_px": 0.25}, 0.25),
        ({}, {"encoder": "timm:resnet50", "encoder_um_per_px": 2.0}, 1.0),
        ({}, {"encoder": "timm:resnet50", "enabled": False}, 1.0),
        ({"working_mpp": 0.3}, {"encoder": "timm:resnet50"}, 0.3),
        ({"working_mpp": 3.0}, {}, 3.0),
    ],
)
def test_images_are_kept_as_fine_as_the_encoder_needs(sheet, ingest, histology, expected):
    loaded, faults = load(sheet("a\tvisium\tx"), ingest=ingest, histology=histology)
    assert not faults
    assert loaded.config["ingest"]["working_mpp"] == expected


def test_a_resolution_too_coarse_for_the_encoder_is_refused(sheet):
    _, faults = load(sheet("a\tvisium\tx"), ingest={"working_mpp": 1.0}, histology={"encoder": "timm:resnet50"})
    (fault,) = map(str, faults.items)
    assert "ingest.working_mpp: found 1 um per pixel; expected 0.5 or less, which timm:resnet50 expects" in fault


def test_a_name_is_the_one_that_looks_the_same():
    names = ["Größe", "Gro\u0308ße "]
    assert lookalike("Gro\u0308ße", names) == "Größe"
    assert lookalike("Größe", names) == "Größe"
    assert lookalike("x", names) == "x"
