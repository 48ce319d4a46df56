"""The benchmark's one table, the page rendered from it, and the list of studies."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from histoweft.errors import InputError
from histoweft.io import CountsFile
from histoweft.metrics import PROTOCOLS, TASKS, metric_row, read_metrics, write_metrics
from histoweft.report import evidence

REPO = Path(__file__).resolve().parents[2]
DOCS = REPO / "docs" / "benchmarks"


def row(method, value, study="one", task="domains", metric="ari", sample="all", note="", **more):
    stage = {"domains": "space", "response": "cohort", "cell_type": "annotation"}[task]
    return metric_row(study, stage, task, method, sample, "truth", metric, value, note=note, **more)


def table(*rows):
    return evidence.joined(None, pd.DataFrame(rows))


NO_ANCHORS = pd.DataFrame(columns=list(evidence.ANCHOR_COLUMNS))


# ------------------------------------------------------------------------------------------------ what is committed


def test_the_committed_page_is_the_rendering_of_the_committed_table():
    metrics = read_metrics(DOCS / "metrics.tsv")
    drawn = [task for task in evidence.TITLES if (DOCS / f"{task}.svg").is_file()]
    text = evidence.render(metrics, evidence.read_anchors(DOCS / "anchors.tsv"), drawn)
    assert (DOCS / "tables.md").read_text(encoding="utf-8") == text


def test_every_committed_study_is_in_the_list_and_says_when_it_ran():
    about = pd.read_csv(DOCS / "about.tsv", sep="\t", keep_default_na=False)
    assert list(about.columns) == list(evidence.RUN_COLUMNS)
    ran = set(read_metrics(DOCS / "metrics.tsv")["study"])
    assert ran == set(about["study"])
    assert ran <= {study.name for study in evidence.read_studies(REPO / "config" / "studies" / "benchmark.tsv")}
    assert not about["command"].str.contains("/work|/home|/tmp", regex=True).any()


def test_every_study_of_the_list_has_the_name_that_its_config_gives():
    import yaml

    for study in evidence.read_studies(REPO / "config" / "studies" / "benchmark.tsv"):
        if study.program is None:
            assert yaml.safe_load(study.configs[0].read_text(encoding="utf-8"))["study"] == study.name


# ---------------------------------------------------------------------------------------------------- the one table


def test_new_scores_replace_those_of_their_study_alone():
    old = table(row("a", 0.1), row("b", 0.2), row("a", 0.3, study="two"))
    new = evidence.joined(old, pd.DataFrame([row("a", 0.5)]))
    assert new[["study", "method", "value"]].values.tolist() == [["one", "a", 0.5], ["two", "a", 0.3]]


def test_submissions_stay_when_their_study_runs_without_them():
    note = "submission; 1 seed"
    old = table(
        row("a", 0.1), row("peer", 0.4, note=note), row("peer", 9, metric="seconds"), row("other", 0.3, note=note)
    )
    new = evidence.joined(old, pd.DataFrame([row("a", 0.5), row("other", 0.6, note=note)]))
    assert new[["method", "value"]].values.tolist() == [["a", 0.5], ["other", 0.6], ["peer", 0.4], ["peer", 9]]


def test_a_submission_is_marked():
    metrics = table(row("a", 0.1, note="default"), row("peer", 0.4, note="submission; 1 seed"))
    assert "| *submitted* `peer` | 0.400 |" in evidence.render(metrics, NO_ANCHORS)


def test_numbers_are_rounded_and_intervals_still_hold_their_value():
    made = table(row("a", 1 / 3, low=1 / 3, high=2 / 3))
    assert made[["value", "low", "high"]].values.tolist() == [[0.333333, 0.333333, 0.666667]]


def test_the_table_is_the_same_however_rows_were_ordered(tmp_path):
    rows = [row("b", 0.2), row("a", 0.1, fold=2), row("a", 0.1, fold=1), row("a", 0.4, study="two")]
    write_metrics(table(*rows), tmp_path / "a.tsv")
    write_metrics(table(*rows[::-1]), tmp_path / "b.tsv")
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_only_timings_may_differ_between_two_runs():
    before = table(row("a", 0.5), row("a", 12.0, metric="seconds"), row("a", 300.0, metric="peak_mb"))
    slower = table(row("a", 0.5), row("a", 99.0, metric="seconds"), row("a", 900.0, metric="peak_mb"))
    assert evidence.differences(before, slower) == []
    worse = table(row("a", 0.4), row("b", 0.1), row("a", 12.0, metric="seconds"))
    said = evidence.differences(before, worse)
    assert len(said) == 2
    assert said[0].endswith("0.500 is now 0.400")
    assert said[1].endswith("none is now 0.100")


def test_studies_in_one_of_two_tables_only_are_no_difference():
    assert evidence.differences(table(row("a", 0.5)), table(row("a", 0.1, study="two"))) == []


# --------------------------------------------------------------------------------------------------------- the page


def test_methods_stand_beside_their_floors_with_interval_and_cost():
    metrics = table(
        row("good", 0.61, low=0.5, high=0.7, n=1200, note="default; cpu"),
        row("other", 0.7),
        row("floor:kmeans", 0.3),
        row("good", 12.3, metric="seconds"),
        row("good", 1234.0, metric="peak_mb"),
    )
    lines = evidence.render(metrics, NO_ANCHORS).splitlines()
    at = lines.index("| study | held out | method | value | 95 % interval | n | s | MB |")
    assert lines[at + 2 : at + 5] == [
        "| `one` | nothing: known truth | *floor* `kmeans` | 0.300 |  |  |  |  |",
        "|  |  | **`good`** | 0.610 | 0.500 to 0.700 | 1,200 | 12 | 1,234 |",
        "|  |  | `other` | 0.700 |  |  |  |  |",
    ]


@pytest.mark.parametrize(
    ("value", "low", "high", "heading", "words"),
    [
        (0.2, 0.1, 0.25, "Defaults that lost to a floor", "worse by 0.100"),
        (0.5, 0.4, 0.6, "Defaults that beat their floor", "better by 0.200"),
        (0.32, 0.25, 0.4, "Defaults ahead of their floor by less", "better by 0.020"),
        (0.28, 0.25, 0.4, "Defaults behind a floor by less", "worse by 0.020"),
        (0.3, 0.25, 0.4, "Defaults behind a floor by less", "equal"),
    ],
)
def test_a_default_is_listed_by_what_became_of_it(value, low, high, heading, words):
    metrics = table(row("mine", value, low=low, high=high, note="default"), row("floor:kmeans", 0.3))
    parts = evidence.render(metrics, NO_ANCHORS).split("\n\n")
    at = next(i for i, part in enumerate(parts) if part.startswith(heading))
    wanted = f"- `one`, domains (known truth): `mine` {value:.3f}, `floor:kmeans` 0.300, {words} (`ari`)"
    assert parts[at + 1] == wanted


def test_a_floor_that_the_study_uses_is_said():
    metrics = table(row("mine", 0.2), row("floor:kmeans", 0.3, note="default"), row("floor:other", 0.1))
    text = evidence.render(metrics, NO_ANCHORS)
    assert "Where the study uses the floor itself:\n\n- `one`, domains (known truth): `floor:kmeans` 0.300" in text


def test_a_model_that_no_config_selects_is_in_no_list_of_defaults():
    text = evidence.render(table(row("mine", 0.2), row("floor:kmeans", 0.3)), NO_ANCHORS)
    assert "Defaults that lost to a floor: none." in text


def test_errors_are_ranked_the_other_way_round():
    metrics = table(
        row("floor:a", 0.9, task="domains", metric="rmse"), row("floor:b", 0.2, task="domains", metric="rmse")
    )
    ordered = sorted(metrics.to_dict("records"), key=lambda one: evidence._rank(one, "rmse"))
    assert [one["method"] for one in ordered] == ["floor:a", "floor:b"]


def test_means_are_shown_in_the_place_of_folds_and_sections():
    metrics = table(
        row("a", 0.1, sample="s1", fold=1),
        row("a", 0.2, sample="s1"),
        row("a", 0.3),
        row("a", 0.4, study="two", sample="s1"),
        row("a", 0.5, study="two", sample="s2"),
    )
    assert evidence.shown_rows(metrics, "ari")["value"].tolist() == [0.3, 0.4, 0.5]


def test_every_task_and_protocol_has_words():
    assert set(evidence.HELD_OUT) == set(PROTOCOLS)
    assert {*evidence.TITLES, "speed"} == set(TASKS)


def test_published_numbers_say_that_they_were_not_rerun():
    anchor = ["response", "some patients", "auroc", "theirs", "0.9", "Somebody 2020", "quoted"]
    anchors = pd.DataFrame([anchor], columns=list(evidence.ANCHOR_COLUMNS)).astype({"value": float})
    text = evidence.render(table(row("a", 0.5)), anchors)
    part = text[text.index("## Response") :]
    assert "No study that ran scores this task." in part
    assert "| some patients | auroc | theirs | 0.900 | Somebody 2020 | quoted |" in part


def test_a_figure_has_a_line_for_each_method_and_is_the_same_twice(tmp_path):
    metrics = table(row("mine", 0.5, low=0.4, high=0.6, note="default"), row("floor:kmeans", 0.3))
    assert evidence.forest(metrics, "domains", tmp_path / "a.svg")
    assert evidence.forest(metrics, "domains", tmp_path / "b.svg")
    assert not evidence.forest(metrics, "response", tmp_path / "none.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert ">mine<" in text
    assert ">floor: kmeans<" in text
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert not (tmp_path / "none.svg").exists()


# --------------------------------------------------------------------------------------------------------- the list


def write_list(folder, *lines):
    (folder / "a").mkdir()
    (folder / "a" / "config.yaml").write_text("study: a\n")
    path = folder / "benchmark.tsv"
    path.write_text("\n".join(["\t".join(evidence.STUDY_COLUMNS), *lines]) + "\n")
    return path


def test_a_study_has_its_overlay_and_its_data(tmp_path):
    path = write_list(tmp_path, "a\ta/config.yaml\tone;two\twords")
    (tmp_path / "a" / "benchmark.yaml").write_text("exclude: [x]\n")
    (tmp_path / "data" / "one").mkdir(parents=True)
    (study,) = evidence.read_studies(path)
    assert study.peers is None
    assert study.prepare is None
    (tmp_path / "a" / "peers.yaml").write_text("submissions: []\n")
    (tmp_path / "a" / "prepare.py").write_text("")
    (study,) = evidence.read_studies(path)
    assert study.peers == tmp_path / "a" / "peers.yaml"
    assert study.prepare == tmp_path / "a" / "prepare.py"
    assert [config.name for config in study.configs] == ["config.yaml", "benchmark.yaml"]
    assert study.program is None
    assert study.missing(tmp_path / "data") == ["two"]


def test_a_program_stands_for_itself(tmp_path):
    path = write_list(tmp_path, "a\ta/../run.py\tone\twords")
    (tmp_path / "run.py").write_text("")
    (tmp_path / "benchmark.yaml").write_text("")
    (study,) = evidence.read_studies(path)
    assert study.program == tmp_path / "run.py"
    assert study.configs == (tmp_path / "run.py",)


def test_faults_of_the_list_are_said_together(tmp_path):
    path = write_list(tmp_path, "a\ta/config.yaml\tone\twords", "a\tb/config.yaml\tone\twords")
    with pytest.raises(InputError) as error:
        evidence.read_studies(path)
    assert "line 3, column config: found b/config.yaml" in str(error.value)
    assert "line 3, column study: found a; expected each study once" in str(error.value)


def test_a_list_without_a_column_is_refused(tmp_path):
    (tmp_path / "benchmark.tsv").write_text("study\tconfig\n")
    with pytest.raises(InputError, match="found columns study, config; expected study, config, data, evidence"):
        evidence.read_studies(tmp_path / "benchmark.tsv")
    with pytest.raises(InputError, match="nowhere"):
        evidence.read_studies(tmp_path / "nowhere.tsv")


def test_studies_are_chosen_by_name_in_the_order_of_the_list():
    studies = [evidence.Study(name, (Path("c.yaml"),), ("d",), "") for name in ("icb", "mob", "dlpfc")]
    assert [study.name for study in evidence.chosen(studies, ["dlpfc", "icb"])] == ["icb", "dlpfc"]
    assert evidence.chosen(studies, []) == studies
    with pytest.raises(InputError, match="--studies: found dlpfk; expected icb, mob, dlpfc"):
        evidence.chosen(studies, ["dlpfk"])


def test_anchors_are_checked(tmp_path):
    path = tmp_path / "anchors.tsv"
    path.write_text("\t".join(evidence.ANCHOR_COLUMNS) + "\ndomain\tx\tari\tm\tmuch\tsource\tquoted\n")
    with pytest.raises(InputError) as error:
        evidence.read_anchors(path)
    assert "line 2, column task: found domain" in str(error.value)
    assert "line 2, column value: found much; expected a number" in str(error.value)


def test_cost_is_that_of_the_last_run_of_each_job(tmp_path):
    (tmp_path / "stage").mkdir()
    lines = [{"s": 9.0, "cpu_time": 9.0, "max_rss": 900.0}, {"s": 2.0, "cpu_time": 1.0, "max_rss": 200.0}]
    (tmp_path / "stage" / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"s": 3.0, "cpu_time": 0.0, "max_rss": "NA"}) + "\n")
    assert evidence.cost(tmp_path) == {"jobs": 2, "cpu_seconds": 4, "peak_mb": 200}


# --------------------------------------------------------------------------------------------------------- the tool


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Return tools/benchmark.py in an empty repository with three studies: one that runs, fails, lacks its data."""
    spec = importlib.util.spec_from_file_location("benchmark_tool", REPO / "tools" / "benchmark.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("good", "bad", "absent"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"study: {name}\n")
    rows = ["good\tgood/config.yaml\tone\tx", "bad\tbad/config.yaml\tone\tx", "absent\tabsent/config.yaml\ttwo\tx"]
    (tmp_path / "benchmark.tsv").write_text("\n".join(["\t".join(evidence.STUDY_COLUMNS), *rows]) + "\n")
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "anchors.tsv").write_text("\t".join(evidence.ANCHOR_COLUMNS) + "\n")
    (tmp_path / "data" / "one").mkdir(parents=True)

    def run(study, data_root, cores, conda):
        assert not conda
        assert data_root == tmp_path / "data"
        if study.name == "good":
            metrics = [row("mine", 0.5, study="good", note="default"), row("floor:kmeans", 0.3, study="good")]
            write_metrics(metrics, tmp_path / "results" / "good" / "metrics.tsv")
        return study.name == "good"

    for name, value in {"REPO": tmp_path, "DOCS": docs, "STUDIES": tmp_path / "benchmark.tsv", "run": run}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_a_study_that_fails_or_lacks_its_data_does_not_stop_the_others(tool, tmp_path, capsys):
    write_metrics([row("mine", 0.7, study="bad")], tmp_path / "docs" / "metrics.tsv")
    assert tool.main(["--data-root", str(tmp_path / "data"), "--cores", "1"]) == 1
    said = capsys.readouterr()
    assert "absent: left out, no two below" in said.out
    assert "bad: failed" in said.err
    assert read_metrics(tmp_path / "docs" / "metrics.tsv")["study"].tolist() == ["bad", "good", "good"]
    assert pd.read_csv(tmp_path / "docs" / "about.tsv", sep="\t")["study"].tolist() == ["good"]
    assert "`mine` 0.500, `floor:kmeans` 0.300, better by 0.200" in (tmp_path / "docs" / "tables.md").read_text()
    assert (tmp_path / "docs" / "domains.svg").is_file()


def test_the_same_benchmark_twice_gives_the_same_files(tool, tmp_path, capsys):
    command = ["--data-root", str(tmp_path / "data"), "--studies", "good"]
    assert tool.main(command) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "docs").iterdir()}
    assert tool.main(command) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "docs").iterdir()} == before
    assert "good: 0 scores differ" in capsys.readouterr().out


def test_inputs_that_a_study_makes_are_made_once_and_whole(tool, tmp_path):
    program = tmp_path / "prepare.py"
    study = evidence.Study("good", (Path("c.yaml"),), ("one",), "", prepare=program)
    made = tmp_path / "results" / "good" / "inputs"
    made.parent.mkdir(parents=True)
    body = "import pathlib, sys\nto = pathlib.Path(sys.argv[2])\nto.mkdir()\n(to / 'a').write_text(sys.argv[1])\n"
    program.write_text(body + "raise SystemExit(1)\n")
    assert tool.prepared(study, tmp_path / "data") is None
    assert not made.exists()
    program.write_text(body)
    assert tool.prepared(study, tmp_path / "data") == made
    assert (made / "a").read_text() == str(tmp_path / "data")
    program.write_text("raise SystemExit(1)\n")
    assert tool.prepared(study, tmp_path / "data") == made


def test_mixed_blood_has_no_cell_on_both_sides(tmp_path):
    prepare = runpy.run_path(str(REPO / "config" / "studies" / "mixed_blood" / "prepare.py"))
    rng = np.random.default_rng(0)
    cells = sp.csr_matrix(rng.poisson(2.0, (80, 30)))
    obs = pd.DataFrame({prepare["LABELS"]: ["a", "b"] * 40}, index=[f"c{i}" for i in range(80)])
    source = tmp_path / prepare["SOURCE"]
    source.parent.mkdir()
    prepare["write"](source, cells, obs, pd.DataFrame(index=[f"g{i}" for i in range(30)]), {})
    prepare["main"]([str(tmp_path), str(tmp_path / "made")])
    with CountsFile(tmp_path / "made" / "half.h5ad") as half, CountsFile(tmp_path / "made" / "spots.h5ad") as spots:
        left = half.obs()
        assert len(left) == 40
        assert (left["label"].astype(str) == obs.loc[left.index, prepare["LABELS"]]).all()
        assert (half.matrix() != cells[obs.index.get_indexer(left.index)]).nnz == 0
        assert spots.matrix().shape == (prepare["SPOTS"], 30)
        assert len(np.unique(spots.obsm("spatial"), axis=0)) == prepare["SPOTS"]


def test_nothing_to_run_is_an_error_that_says_where_data_are_looked_for(tool, tmp_path):
    with pytest.raises(SystemExit, match=r"no study ran; data are looked for below .*nowhere"):
        tool.main(["--data-root", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit, match="found godo; expected good, bad, absent"):
        tool.main(["--data-root", str(tmp_path / "data"), "--studies", "godo"])
