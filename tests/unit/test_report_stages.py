"""Sections that any stage fills: its verdict, figures and tables."""

import json

import numpy as np
import pandas as pd
import pytest

from histoweft.report import stages, study_page


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
    page = str(stages.sections(shown, CAPTIONS))
    assert "ridge (0.50) beats &lt;mean&gt; (0.10)." in page
    assert "<mean>" not in page
    assert 'alt="Domains of the section"' in page
    assert "Colours are domains." in page
    assert "score of" in page
    assert "G29" in page
    assert "G30" not in page
    assert "first 30 of 40 rows of genes.tsv" in page


def test_a_stage_without_verdict_or_tables_is_shown_by_its_figures(shown):
    page = str(stages.sections({"space": {"figures": shown["space"]["figures"]}}, CAPTIONS))
    assert "What was found" not in page
    assert "<img" in page
    assert str(stages.sections({}, CAPTIONS)) == ""


def test_warnings_of_stages_come_first_and_link_to_their_section(shown):
    page = str(study_page.warnings([], "", {}, shown))
    assert "1 warning" in page
    assert 'href="#domains-niches-and-communication"' in page
    assert "Two folds only." in page
    assert 'id="domains-niches-and-communication"' in str(stages.sections(shown, CAPTIONS))


def test_a_study_without_sections_has_no_empty_tables():
    parts = [study_page.samples([]), study_page.gallery([], {}), study_page.quality([], {})]
    assert [str(part) for part in parts] == ["", "", ""]
    config = {"study": "atlas", "title": "", "seed": 3, "report": {"author": ""}}
    assert "A study without sections. Everything random used seed 3." in str(study_page.header(config, [], []))
    made = str(study_page.provenance(config, [], {"python": "3.11"}, {"command": "histoweft", "commit": ""}))
    assert "Sample sheet" not in made
    assert "3.11" in made
