"""What every stage gives to the pages: answers, warnings, figures and tables, and where each of them comes from."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from histoweft import config as options
from histoweft import failures
from histoweft.metrics import metric_row, write_metrics
from histoweft.report import scores, stages, study_page, trace


@pytest.fixture
def shown(tmp_path):
    import matplotlib.pyplot as plt

    plt.imsave(tmp_path / "picture.png", np.zeros((8, 12, 3)))
    (tmp_path / "verdict.json").write_text(
        json.dumps({"texts": ["ridge (0.50) beats <mean> (0.10)."], "warnings": ["Two folds only."]})
    )
    pd.DataFrame({"gene": [f"G{i}" for i in range(40)], "score_of": np.arange(40) / 7}).to_csv(
        tmp_path / "genes.tsv", sep="\t", index=False
    )
    return {
        "space": {
            "verdict": str(tmp_path / "verdict.json"),
            "figures": [[str(tmp_path / "picture.png"), "space_figure"]],
            "tables": [[str(tmp_path / "genes.tsv"), "space_table"]],
        }
    }


CAPTIONS = {"space_figure": "Domains of the section. Colours are domains.", "space_table": "Genes that vary in space."}


def test_a_section_tells_the_verdict_and_shows_figures_and_the_first_rows_of_tables(shown):
    page = str(stages.sections(shown, CAPTIONS, {}))
    assert "ridge (0.50) beats &lt;mean&gt; (0.10)." in page
    assert "<mean>" not in page
    assert 'alt="Domains of the section"' in page
    assert "Colours are domains." in page
    assert "score of" in page
    assert "G29" in page
    assert "G30" not in page
    assert "first 30 of 40 rows of genes.tsv" in page


def test_a_stage_without_verdict_or_tables_is_shown_by_its_figures(shown):
    page = str(stages.sections({"space": {"figures": shown["space"]["figures"]}}, CAPTIONS, {}))
    assert "What was found" not in page
    assert "<img" in page
    assert str(stages.sections({}, CAPTIONS, {})) == ""


def test_warnings_of_stages_come_first_and_link_to_their_section(shown):
    page = str(study_page.warnings([], "", {}, shown))
    assert "1 warning" in page
    assert 'href="#domains-niches-and-communication"' in page
    assert "Two folds only." in page
    assert 'id="domains-niches-and-communication"' in str(stages.sections(shown, CAPTIONS, {}))


def test_a_study_without_sections_has_no_empty_tables():
    parts = [study_page.samples([]), study_page.gallery([], {}, {}), study_page.quality([], {})]
    assert [str(part) for part in parts] == ["", "", ""]
    config = {"study": "atlas", "title": "", "seed": 3, "report": {"author": ""}}
    assert "A study without sections. Everything random used seed 3." in str(study_page.header(config, [], []))
    made = str(study_page.provenance(config, [], {"python": "3.11"}, {"command": "histoweft", "commit": ""}))
    assert "Sample sheet" not in made
    assert "3.11" in made


def said(folder, name, texts, warnings=()):
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"texts": texts, "warnings": list(warnings)}))
    return str(path)


def test_answers_are_the_sentences_that_answer_in_the_order_of_the_questions(tmp_path):
    space = ["Labels spread.", "Domains against <expert> labels: 0.6.", "155 genes are spatially variable.", "More."]
    verdicts = {
        "integration": said(tmp_path, "integration", ["harmony is best.", "Second.", "Third."]),
        "histology": said(tmp_path, "histology", {"patient": "context wins."}),
        "space": said(tmp_path, "space", space),
        "cohort": "",
    }
    page = str(stages.answers(verdicts))
    words = re.sub(r"<[^>]+>", "", page)
    assert "Domains against &lt;expert&gt; labels: 0.6. 155 genes are spatially variable." in words
    assert "Labels spread" not in words
    assert "2 more" in words
    assert "Harmony is best. Second." in words
    assert "With whole patients held out, context wins." in words
    assert page.index("#domains-niches") < page.index("#expression-from") < page.index("#integration")
    assert "Patients</b>" not in page
    assert str(stages.answers({"space": ""})) == ""


def test_what_samples_warn_of_alike_is_said_once(tmp_path):
    names = [f"S{i}" for i in range(8)]
    facts = [{"sample": name, "warnings": ["off_tissue: some spots"]} for name in names]
    shown = {
        "annotation": {"verdict": said(tmp_path, "a", [], [f"{name}: a spot holds several." for name in names[:2]])}
    }
    page = str(study_page.warnings(facts, "", {}, shown))
    assert "2 warnings" in page
    assert page.count("a spot holds several") + page.count("A spot holds several") == 1
    assert '<a href="S5.html"><b>S5</b></a>, 2 more: Some spots' in page
    assert '<a href="#cell-types"><b>annotation</b></a>, <a href="S0.html"><b>S0</b></a>, <a href="S1.html">' in page


def test_many_warnings_unfold(tmp_path):
    texts = [f"fault number {i}" for i in range(study_page.MOST_WARNINGS + 3)]
    page = str(study_page.warnings([], "", {}, {"states": {"verdict": said(tmp_path, "a", [], texts)}}))
    before, after = page.split("<details>")
    assert f"{len(texts)} warnings" in before
    assert "ault number 7" in before
    assert "ault number 8" in after
    assert "3 more of them" in after


def test_a_sample_that_was_left_out_is_named_with_what_made_it_fail(tmp_path):
    log = tmp_path / "ingest" / "bad.log"
    log.parent.mkdir()
    failures.remember(
        log, failures.Failure("ingest_counts", "bad", "InputError:\n  /a/b/c/matrix.h5: truncated <here>")
    )
    found = study_page.left_out(["bad", "other"], tmp_path)
    page = str(study_page.excluded(found))
    assert "2 samples of the sheet left out" in page
    assert "<b>bad</b>: …/matrix.h5: truncated &lt;here&gt;" in page
    assert "<b>other</b>: left out by the config" in page
    assert str(study_page.excluded(study_page.left_out([], tmp_path))) == ""


def test_long_tables_unfold_and_short_ones_are_open(shown, tmp_path):
    assert "<details><summary>Genes that vary in space (40 rows)" in str(stages.sections(shown, CAPTIONS, {}))
    short = tmp_path / "short.tsv"
    pd.DataFrame({"gene": ["A", "B"]}).to_csv(short, sep="\t", index=False)
    page = str(stages.sections({"space": {"tables": [[str(short), "space_table"]]}}, CAPTIONS, {}))
    assert "<details>" not in page
    assert "<td" in page


def test_files_beside_a_figure_are_linked_from_the_page(tmp_path):
    figure = tmp_path / "samples" / "a b" / "x.png"
    figure.parent.mkdir(parents=True)
    for path in (figure, figure.with_suffix(".svg"), tmp_path / "x.parquet"):
        path.write_bytes(b"1")
    source = {"rule": "draw", "log": "logs/draw.log", "table": str(tmp_path / "x.parquet")}
    missing = {"rule": "draw", "log": "", "table": str(tmp_path / "not there.tsv")}
    traced = trace.addresses({str(figure): source, str(tmp_path / "y.png"): missing}, tmp_path / "report")
    assert traced[str(figure)]["links"] == [
        ["png", "../samples/a%20b/x.png"], ["svg", "../samples/a%20b/x.svg"], ["table", "../x.parquet"]
    ]  # fmt: skip
    assert traced[str(tmp_path / "y.png")]["links"] == []
    line = str(trace.line(figure, traced))
    assert 'href="../samples/a%20b/x.svg"' in line
    assert "<code>draw</code>" in line
    assert "<code>logs/draw.log</code>" in line
    assert str(trace.line("elsewhere.png", traced)) == ""


def judged(tmp_path, *rows):
    """Return the entries of rows: task, method, metric, value, low, high, note, panel."""
    made = []
    for task, method, metric, value, low, high, note, panel in rows:
        where = ("s", "states", task, method, "all", "block")
        made.append(metric_row(*where, metric, value, low=low, high=high, note=note, panel=panel))
    write_metrics(made, tmp_path / "metrics.tsv")
    return scores.judged(scores.read_scores(tmp_path / "metrics.tsv"))


def test_each_default_stands_beside_its_best_floor(tmp_path):
    none = float("nan")
    found = judged(
        tmp_path,
        ("persister", "joint", "auroc", 0.9, 0.85, 0.95, "default", ""),
        ("persister", "other", "auroc", 0.99, none, none, "", ""),
        ("persister", "floor:a", "auroc", 0.8, none, none, "", ""),
        ("persister", "floor:b", "auroc", 0.7, none, none, "", ""),
        ("persister", "floor:b", "auprc", 0.97, none, none, "", ""),
        ("voxel_position", "net", "euclid_folded_voxels", 5.0, 4.0, 5.5, "default", ""),
        ("voxel_position", "floor:knn", "euclid_folded_voxels", 3.0, none, none, "", ""),
        ("cell_type", "net", "macro_f1", 0.9, 0.7, 0.95, "default; device cpu", ""),
        ("cell_type", "floor:majority", "macro_f1", 0.8, none, none, "", ""),
        ("domains_semi", "spread", "ari", 0.5, none, none, "default", "1% labels"),
        ("domains_semi", "floor:knn", "ari", 0.4, none, none, "", "1% labels"),
        ("domains_semi", "spread", "ari", 0.6, none, none, "default", "5% labels"),
        ("domains_semi", "floor:knn", "ari", 0.7, none, none, "", "5% labels"),
        ("rare", "isolation", "recall", 0.1, none, none, "", ""),
        ("rare", "floor:smallest", "recall", 0.4, none, none, "default", ""),
    )
    words = {(one["task"], one["panel"]): (one["method"], one["floor"], one["verdict"]) for one in found}
    assert words == {
        ("persister", ""): ("joint", "floor:a", scores.BETTER),
        ("voxel_position", ""): ("net", "floor:knn", scores.LOST),
        ("cell_type", ""): ("net", "floor:majority", scores.LEVEL),
        ("domains_semi", "1% labels"): ("spread", "floor:knn", scores.BETTER),
        ("domains_semi", "5% labels"): ("spread", "floor:knn", scores.LOST),
        ("rare", ""): ("floor:smallest", "", scores.FLOOR_USED),
    }
    page = str(scores.judged_table(found))
    assert '<span class="tag lost">loses</span>' in page
    assert "0.900 (0.850 to 0.950)" in page


def test_a_measured_difference_decides_where_there_is_one(tmp_path):
    """Scores of one section swing alike for every method, so the interval of the difference is the narrower one."""
    task, metric = "expression_from_histology", "pearson_top50"
    rows = [
        (task, "context", metric, 0.34, 0.27, 0.41, "default", "top50 (50)"),
        (task, "floor:ridge", metric, 0.33, 0.26, 0.40, "", "top50 (50)"),
    ]
    assert judged(tmp_path, *rows)[0]["verdict"] == scores.LEVEL
    gain = (task, "context", "gain_top50", 0.01, 0.005, 0.02, "against floor:ridge", "top50 (50)")
    assert judged(tmp_path, *rows, gain)[0]["verdict"] == scores.BETTER


def test_floors_are_those_of_the_same_panel(tmp_path):
    none = float("nan")
    judged(
        tmp_path,
        ("domains_semi", "spread", "ari", 0.5, none, none, "default", "1% labels"),
        ("domains_semi", "floor:knn", "ari", 0.4, none, none, "", "1% labels"),
        ("domains_semi", "floor:knn", "ari", 0.9, none, none, "", "5% labels"),
    )
    assert "+0.1, better" in str(scores.evidence(scores.read_scores(tmp_path / "metrics.tsv")))


def test_the_explorer_is_linked_where_it_is_made():
    given = {"study": "s", "samples": "s.tsv"}
    config = options.complete(given, options.load_schema("config"))
    facts = [
        {"platform": "visium", "patient": "a", "unit": "spots", "barcodes_in": 9, "barcodes": 9, "histology": None}
    ]
    config["report"]["explorer"]["run"] = True
    assert 'href="../explorer/index.html"' in str(study_page.header(config, facts, []))
    config["report"]["explorer"]["run"] = False
    assert "explorer" not in str(study_page.header(config, facts, []))


def test_the_gallery_says_what_its_colours_mean(shown, tmp_path):
    import shutil

    pictures = {}
    for sample, stem in (("A", "domain"), ("B", "clusters")):
        path = tmp_path / sample / f"{stem}.png"
        path.parent.mkdir()
        shutil.copy(tmp_path / "picture.png", path)
        pictures[sample] = str(path)
    facts = [{"sample": sample, "patient": "P", "condition": "", "barcodes": 5, "unit": "spots"} for sample in pictures]
    page = str(study_page.gallery(facts, pictures, {}))
    assert "a colour is the same domain in every section" in page
    assert "a colour is another cluster in the next section" in page
    assert 'href="A.html#domains-niches-and-communication"' in page
    assert 'alt="Clusters of B"' in page
    assert "another cluster" not in str(study_page.gallery(facts[:1], pictures, {}))
