"""Pages and assembled files: what stands in them, what must never stand in them."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from report_cases import CONFIG, EVIL, VARIABLE, G, K, N, captions_of, make_sample, paths_of, picture, write_image

from histoweft.io import CountsFile
from histoweft.metrics import metric_row, write_metrics
from histoweft.report import facts as facts_of
from histoweft.report import html, methods, render, sample_page, scores, study_page
from histoweft.report.assemble import assemble, log_normalised


class Page(HTMLParser):
    """What a browser would see in a page: tags, what they would load, text."""

    LOADS = frozenset({"src", "srcset", "data", "poster", "background", "action", "formaction"})

    def __init__(self, markup):
        super().__init__()
        self.tags, self.loads, self.images, self.anchors, self.links, self.text = [], [], [], set(), [], []
        self.feed(markup)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.loads += [attributes[name] for name in attributes if name in self.LOADS]
        if tag in ("link", "base"):
            self.loads.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)
        if tag == "a":
            self.links.append(attributes["href"])
        if "id" in attributes:
            self.anchors.add(attributes["id"])

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    make_sample(root / "A1", "A1", seed=1)
    make_sample(root / "B2", "B2", located=False, seed=2)
    write_image(root / "A1" / "image.tif")
    return root


@pytest.fixture(scope="module")
def sample_markup(study, repo):
    """Return the page of A1, made by a whole papermill run."""
    folder = study / "A1"
    inputs = paths_of(folder) | {"top_markers": folder / "top_markers.tsv"}
    inputs["figures"] = sorted(str(path) for path in (folder / "figures").glob("*.png"))
    (folder / "figures" / "qc.pdf").write_text("a vector figure")
    sources = {
        path: {"rule": f"rule_{Path(path).stem}", "log": "logs/x.log", "table": ""} for path in inputs["figures"]
    }
    sources[str(folder / "figures" / "qc.png")]["table"] = str(folder / "qc.tsv")
    sources[str(inputs["qc"])] = {"rule": "qc", "log": "logs/demo/qc.log", "table": ""}
    sample_page.write(
        inputs, captions_of(repo), CONFIG, "A1", notebook=repo / "workflow" / "notebooks" / "sample.ipynb",
        facts_path=folder / "facts.json", executed=folder / "A1.ipynb", output=folder / "A1.html", sources=sources,
    )  # fmt: skip
    return (folder / "A1.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def study_markup(study, repo, sample_markup):
    """Return the page of the study, made by a whole papermill run."""
    for sample in ("A1", "B2"):
        found = facts_of.sample_facts(**paths_of(study / sample), resolution=1.0)
        (study / sample / "facts.json").write_text(json.dumps(found), encoding="utf-8")
    row = {"study": "demo", "stage": "integration", "task": "integration", "sample": "all", "protocol": "truth", "n": 9}
    write_metrics(
        [
            metric_row(method=method, metric=metric, value=value, **row)
            for method, metric, value in (
                ("harmony", "scib_total", 0.611), ("floor:none", "scib_total", 0.655), ("harmony", "ilisi", 0.4),
                ("floor:none", "ilisi", 0.1),
            )
        ],
        study / "metrics.tsv",
    )  # fmt: skip
    said = {"best": "none", "text": f"Doing nothing was best: total 0.655 {EVIL}.", "warnings": ["confounded & so on"]}
    (study / "verdict.json").write_text(json.dumps(said))
    figures = [picture(study / "integration" / f"{name}.png") for name in ("scores", "umaps", "section_effect")]
    row = {"line": 2, "clinical": {"grade": "III"}, "patient": EVIL, "platform": "visium", "image": "", "mpp": None}
    sheet = {s: {"sample": s, "path": f"/home/somebody/secret/place/{s}", **row} for s in ("A1", "B2")}
    study_page.write(
        {
            "facts": [study / s / "facts.json" for s in sheet], "metrics": study / "metrics.tsv",
            "pictures": [study / s / "figures" / "clusters.png" for s in sheet], "verdict": study / "verdict.json",
            "integration": figures,
        },
        captions_of(repo), CONFIG, sheet, notebook=repo / "workflow" / "notebooks" / "study.ipynb",
        executed=study / "index.ipynb", output=study / "index.html", methods_path=study / "methods.txt",
    )  # fmt: skip
    return (study / "index.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- pieces


def test_text_is_escaped_wherever_it_goes():
    parts = [
        html.paragraph(EVIL),
        html.section(EVIL, EVIL),
        html.table([EVIL], [[EVIL]]),
        html.notice("warning", EVIL, [EVIL, EVIL]),
        html.key_numbers([(EVIL, EVIL, EVIL)]),
        html.caption(EVIL),
        html.remark(f"off_tissue: {EVIL}"),
        render.page(EVIL, html.paragraph(EVIL), study=EVIL, up=(f'x"{EVIL}', EVIL), made=EVIL),
    ]
    for part in parts:
        assert EVIL not in str(part)
        assert "&lt;script&gt;" in str(part)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345, "12,345"), (0, "0"), (0.73449, "0.734"), (12.3456, "12.3"), (3.2e-9, "3.2e−9"), (-2.5, "−2.50"),
        (None, "–"), (float("nan"), "–"), (float("inf"), "∞"), (123456.7, "123,457"), (np.int64(5000), "5,000"),
        (0.9996, "1.00"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_people(value, text):
    assert html.number(value) == text


def test_percent_never_rounds_to_all_or_nothing():
    assert html.percent(1999, 2000) == ">99 %"
    assert html.percent(1, 2000) == "<1 %"
    assert html.percent(2000, 2000) == "100 %"
    assert html.percent(0, 0) == "–"


def test_paths_of_the_machine_are_shortened():
    assert html.portable("see /home/me/data/run1/spatial/x.json, please") == "see …/x.json, please"
    assert html.portable("/base/of/it/file.tsv", base="/base/of") == "it/file.tsv"
    assert html.portable(r"C:\Users\me\data\x.tsv") == "…/x.tsv"
    for plain in ("counts / genes", "https://doi.org/10.1/abc", "results/demo/x.tsv", "5 um/pixel and 3/4"):
        assert html.portable(plain) == plain
    assert html.portable_values({"a": ["/x/y/z/w"], "b": 1}) == {"a": ["…/w"], "b": 1}


def test_a_table_sets_numbers_right_and_marks_gaps():
    markup = str(html.table(["name", "value"], [["a", 1.5], ["b", None], ["c", 1200]], row_kinds=["", "floor", ""]))
    assert markup.count('class="n"') == 4
    assert '<td class="n">1.50</td>' in markup
    assert '<td class="n">–</td>' in markup
    assert '<td class="n">1,200</td>' in markup
    assert '<tr class="floor"><td class="short">b' in markup
    assert "Nothing to show" in str(html.table(["a"], []))


def test_a_column_of_numbers_has_one_number_of_decimals():
    rows = [[100, 1, 4e-57, 3, -2.5], [50, 0.9361, 0.0126, 12000, 0.25], [16.12, 0.8, 1, 0, 0]]
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", str(html.table(list("abcde"), rows)))
    assert cells[0::5] == ["100.0", "50.0", "16.1"]
    assert cells[1::5] == ["1.000", "0.936", "0.800"]
    assert cells[2::5] == ["4.0e−57", "0.0126", "1"]
    assert cells[3::5] == ["3", "12,000", "0"]
    assert cells[4::5] == ["−2.50", "0.25", "0.00"]


def test_a_figure_holds_its_picture(tmp_path):
    path = picture(tmp_path / "x.png", (64, 32))
    page = Page(str(html.figure(path, 'the "alt"', "caption")))
    assert page.images[0]["src"].startswith("data:image/png;base64,")
    assert (page.images[0]["width"], page.images[0]["height"]) == ("48", "24")
    assert page.images[0]["alt"] == 'the "alt"'
    assert "caption" in page.words
    Path(path).write_bytes(b"no picture")
    with pytest.raises(ValueError, match="not a png"):
        html.figure(path, "", "")


def test_a_warning_shows_its_sentence_first():
    assert str(html.remark("off_tissue: 3 spots")) == '3 spots <span class="tag">off_tissue</span>'
    assert str(html.remark("only 4 spots are left: too few")) == "Only 4 spots are left: too few"


def test_every_caption_named_in_the_rules_exists_and_renders(repo):
    rules = "".join(path.read_text() for path in (repo / "workflow" / "rules").glob("*.smk"))
    named = set(re.findall(r'shown\(\s*[^"]*"[^"]*"[^"]*"([a-z_]+)"', rules))
    named |= set(re.findall(r'shown\([^()]*(?:\([^()]*\))?[^()"]*"(?:[^"]*)",\s*"([a-z_]+)"', rules))
    assert {"qc_figure", "domain_figure", "integration_effect"} <= named
    for name in named:
        path = repo / "workflow" / "report" / f"{name}.rst"
        assert path.is_file(), name
        text = html.caption_text(path, "S1")
        assert "{{" not in text
        assert 2 <= len(re.findall(r"[.](?:\s|$)", text)) <= 8, name
        assert "``" not in str(html.caption(text)), name


def test_captions_are_rst_that_docutils_reads_without_a_word(repo):
    core = pytest.importorskip("docutils.core")
    for path in (repo / "workflow" / "report").glob("*.rst"):
        core.publish_string(html.caption_text(path, "S1"), writer="null", settings_overrides={"halt_level": 2})


# ----------------------------------------------------------------------------------------------------------- facts


def test_facts_are_the_numbers_of_the_files(study):
    found = facts_of.sample_facts(**paths_of(study / "A1"), resolution=1.0)
    assert (found["barcodes_in"], found["barcodes"], found["genes"]) == (2 * N, N, G)
    with CountsFile(study / "A1" / "filtered.h5ad") as filtered:
        assert found["median_counts"] == filtered.obs()["n_counts"].median()
    assert found["clusters"] == 11
    assert list(found["cluster_sizes"]) == [str(c) for c in range(11)]
    assert sum(found["cluster_sizes"].values()) == N
    assert found["label_ari"] == 0.734
    assert found["unit"] == "spots"
    assert found["located"]
    assert not facts_of.sample_facts(**paths_of(study / "B2"), resolution=1.0)["located"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_stands_out_becomes_a_warning(study):
    found = facts_of.sample_facts(**paths_of(study / "A1"), resolution=1.0)
    text = "\n".join(found["warnings"])
    assert "unstable" in text
    assert "0.51" in text
    assert "secret" not in text
    assert "removed" not in text  # exactly half is not more than half
    found |= {"barcodes": 80, "clusters": 1, "stability": []}
    text = "\n".join(facts_of.own_warnings(found))
    assert "quality control removed 73 % of the spots (220 of 300); 140 of them by “fewer than 200 genes”" in text
    assert "only 80 spots are left" in text
    assert "one cluster" in text
    assert "unstable" not in text
    good = found | {"barcodes": 290, "clusters": 4}
    assert facts_of.own_warnings(good) == []
    twice = [*good["qc"], {"filter": "copies", "axis": "barcodes", "removed": 12}]
    (told,) = facts_of.own_warnings(good | {"qc": twice})
    assert told.startswith("12 spots were exact copies of others and were removed")


# --------------------------------------------------------------------------------------------------------- methods


def paragraph_of(changes=None, samples=2, **versions):
    config = json.loads(json.dumps(CONFIG))
    for option, value in (changes or {}).items():
        *parents, last = option.split(".")
        place = config
        for parent in parents:
            place = place[parent]
        place[last] = value
    facts = {
        "platform": "visium",
        "unit": "spots",
        "barcodes_in": 1200,
        "barcodes": 1100,
        "genes": 15000,
        "image": True,
    }
    facts = [facts | {"patient": f"P{i}"} for i in range(samples)]
    return methods.methods(config, facts, {"igraph": "0.11.8", "snakemake": "9.27.1", **versions})


def test_methods_say_the_settings_of_the_run():
    text, cited = paragraph_of(scanpy="1.11.5")
    for words in (
        "fewer than 200 detected genes, more than 30,000 counts or more than 12.5 % mitochondrial counts",
        "fewer than 3 of the remaining spots", "2,200 spots were left", "scaled to a sum of 10,000",
        "2,000 most variable genes", "30 principal components", "15 nearest neighbours", "igraph 0.11.8",
        "resolution 1; resolutions 0.5 were", "5 runs", "Harmony", "no integration", "at most 1,500 of them", "seed 7",
        "Snakemake 9.27.1",
    ):  # fmt: skip
        assert words in text, words
    assert "Scrublet" not in text
    assert "scVI" not in text
    assert "absolute deviations" not in text
    assert {"Traag et al., 2019", "Korsunsky et al., 2019", "Luecken et al., 2022"} <= set(cited)
    assert set(cited) <= set(methods.REFERENCES)
    for name in cited:
        assert name in text
    assert "<" not in text


def test_methods_speak_of_the_further_stages_that_ran():
    def with_options(**stages):
        return CONFIG | {stage: CONFIG[stage] | given for stage, given in stages.items()}

    atlas = with_options(atlas={"input": "a.npz", "latent": 77, "protocols": ["block"]})
    text, cited = methods.methods(atlas, [], {})
    assert "latent of at most 77 dimensions" in text
    assert "contiguous blocks of voxels with a buffer of 3 voxels (folds: 5)" in text
    assert "counts" not in text
    assert cited == []
    facts = [dict.fromkeys(("patient", "genes", "genes_in"), 9) | {
        "sample": "A", "platform": "visium", "unit": "spots", "barcodes": 90, "barcodes_in": 99, "image": False,
        "located": True,
    }]  # fmt: skip
    chosen = with_options(
        annotation={"reference": "r.h5ad", "alpha": 0.2}, space={"domains": {"method": "leiden", "n": 4}}
    )
    chosen["space"]["niches"] = CONFIG["space"]["niches"]
    text, cited = methods.methods(chosen, facts, {}, deconvolved=True)
    assert "by logistic and knn on 50 components" in text
    assert "conformal sets of 80 % coverage" in text
    assert "Poisson model of the counts" in text
    assert "Leiden on principal components, blind to space, with 4 domains" in text
    assert {"Guo et al., 2017", "Cable et al., 2022", "Zhu et al., 2021"} <= set(cited) <= set(methods.REFERENCES)


def test_methods_change_with_the_options():
    options = {
        "expression.qc.doublets": "remove", "expression.qc.mads": 5, "expression.features.flavour": "pearson",
        "expression.qc.min_genes": 0, "expression.qc.max_counts": None, "expression.qc.max_pct_mito": None,
        "expression.stability_seeds": 1, "integration.methods": ["none", "scvi"],
    }  # fmt: skip
    text, cited = paragraph_of(options, scanpy="1.11.5")
    assert "Scrublet (Wolock et al., 2019), as implemented in Scanpy 1.11.5" in text
    assert "5 median absolute deviations" in text
    assert "Pearson residuals" in text
    assert "detected genes" not in text
    assert "Rand" not in text
    assert "Lopez et al., 2018" in cited
    assert "Korsunsky et al., 2019" not in cited
    assert "The 2,000 most variable genes of each section were chosen by the variance" in text
    few, cited = paragraph_of({"expression.features.n_top": 20000})
    assert "All genes were used, as no section had more than 20,000, and 30 principal" in few
    assert "Satija et al., 2015" not in cited
    single, _ = paragraph_of(samples=1)
    assert single.startswith("One section (Visium; 1,200 spots) was analysed")
    assert "Batch" not in single


def test_versions_are_the_installed_ones_or_the_pinned(tmp_path):
    (tmp_path / "integration.lock.txt").write_text(
        "# x\nscvi-tools==9.9.9 \\\n    --hash=sha256:00\nnumpy==0.0.1 ; a\n"
    )
    found = methods.installed_versions(tmp_path)
    assert found["numpy"] == np.__version__
    from importlib import metadata

    try:
        assert found["scvi-tools"] == metadata.version("scvi-tools")
    except metadata.PackageNotFoundError:
        assert found["scvi-tools"] == "9.9.9"


# ---------------------------------------------------------------------------------------------------------- scores


def test_scores_stand_beside_the_best_floor():
    assert scores.against_floor(0.7, [0.5, 0.6], "ari") == (pytest.approx(0.1), "better")
    assert scores.against_floor(0.7, [0.5, 0.6], "rmse") == (pytest.approx(0.2), "worse")
    assert scores.against_floor(0.7, [], "ari") is None
    assert scores.against_floor(0.6, [0.6], "ari")[1] == "equal"


def test_the_evidence_table_puts_floors_first(study):
    words = Page(str(scores.evidence(scores.read_scores(study / "A1" / "expression.tsv")))).words
    assert words.index("one cluster") < words.index("model")
    assert "+0.434, better" in words
    assert words.count("floor") >= 1
    assert "default resolution 1" in words


def test_long_notes_stand_below_the_table_once(study):
    frame = scores.read_scores(study / "A1" / "expression.tsv")
    frame["note"] = "default; " + "long and said in every row " * 5
    frame["panel"] = EVIL
    words = Page(str(scores.evidence(frame))).words
    assert words.count("default note 1") == 3
    assert words.count("Long and said in every row") == 1
    assert EVIL in words


# ----------------------------------------------------------------------------------------------------------- pages


def assert_safe_and_whole(markup, folder=None):
    page = Page(markup)
    assert "script" not in page.tags
    assert "iframe" not in page.tags
    assert all(address.startswith("data:") for address in page.loads), [a[:80] for a in page.loads]
    assert not re.search(r"@import|url\(", markup)
    assert EVIL not in markup
    assert "secret" not in markup
    for link in page.links:
        known = link.startswith(("#", "https://doi.org/")) or re.fullmatch(r"(\.\./)?[\w./-]+\.html(#[\w-]+)?", link)
        assert known or (folder / link).is_file(), link
        if link.startswith("#"):
            assert link[1:] in page.anchors
    for image in page.images:
        assert image["alt"]
    assert "prefers-color-scheme: dark" in markup
    assert "@media print" in markup
    return page


def test_the_sample_page(sample_markup, study):
    page = assert_safe_and_whole(sample_markup, study / "A1")
    assert len(page.images) == 5
    assert {"figures/qc.png", "figures/qc.pdf", "qc.tsv", "figures/markers.png"} <= set(page.links)
    assert "figures/markers.pdf" not in page.links
    assert "rule rule_markers , log logs/x.log" in page.words
    assert "rule qc , log logs/demo/qc.log" in page.words
    assert "alert(1)" in page.words  # shown as text
    for words in (
        "150", "50 %", "0.734", "0.512", "resolution 1", "µm per pixel", "12 spots left out", "fewer than 200 genes",
        "G43", "2.25", "3.0e−9", "a & b", "n_top: 2000", "Drawn by rule leiden from repeated",
        "This file is complete in itself",
    ):  # fmt: skip
        assert words in page.words, words
    contents = [link for link in page.links if link.startswith("#")]
    assert contents[0] == "#content"
    parts = "key-numbers quality-control clusters variable-genes-and-components stability markers scores"
    assert contents[1:] == [f"#{part}" for part in [*parts.split(), "settings-and-versions"]]
    assert page.words.index("warnings") < page.words.index("Spots kept")


def test_the_executed_notebook_is_kept(sample_markup, study, repo):
    kept = json.loads((study / "A1" / "A1.ipynb").read_text(encoding="utf-8"))
    assert any("injected-parameters" in cell["metadata"].get("tags", []) for cell in kept["cells"])
    assert all(cell["execution_count"] for cell in kept["cells"] if cell["cell_type"] == "code")
    assert str(repo) not in json.dumps(kept)


def notebook(path, *cells):
    import nbformat

    parameters = nbformat.v4.new_code_cell("given = None", metadata={"tags": ["parameters"]})
    made = nbformat.v4.new_notebook(cells=[parameters, *map(nbformat.v4.new_code_cell, cells)])
    made.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(made, path)
    return path


def test_the_kernel_is_this_interpreter_whatever_the_user_has(tmp_path, monkeypatch):
    import sys

    other = tmp_path / "user" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "mine", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "user"))
    monkeypatch.setenv("HOME", "/nonexistent")
    path = notebook(tmp_path / "x.ipynb", "import sys, histoweft\nprint(sys.executable, given['a'][1])")
    render.execute(path, tmp_path / "y.ipynb", {"given": {"a": [1, EVIL, None]}})
    body = Page(str(render.body_of(tmp_path / "y.ipynb")))
    assert f"{sys.executable} {EVIL}" in body.words
    assert "import sys" not in body.words


def test_a_failing_cell_is_an_error(tmp_path):
    import papermill

    path = notebook(tmp_path / "x.ipynb", "raise ValueError('seen')")
    with pytest.raises(papermill.PapermillExecutionError, match="seen"):
        render.execute(path, tmp_path / "y.ipynb", {})
    assert not (tmp_path / "y.ipynb").exists()


def test_notebooks_in_the_repository_hold_no_output(repo):
    for path in (repo / "workflow" / "notebooks").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs"), path
            assert len(cell["source"]) <= 17


def test_the_study_page(study_markup, study):
    page = assert_safe_and_whole(study_markup)
    assert len(page.images) == 5  # two thumbnails, three figures
    for words in (
        "2 sections", "600 spots came in and 300 (50 %) passed", "Doing nothing was best", "0.655", "−0.044, worse",
        "Confounded & so on", "grade", "III", "min_genes: 200", "./histoweft --configfile config.yaml",
    ):  # fmt: skip
        assert words in page.words, words
    assert {"A1.html", "B2.html", "A1.html#clusters"} <= set(page.links)
    assert page.words.index("none floor") < page.words.index("harmony 0.4")
    text = (study / "methods.txt").read_text(encoding="utf-8").strip()
    assert text in page.words
    assert "\n" not in text


def test_a_study_of_one_section_has_no_integration():
    assert str(study_page.integration("", {}, "", {}, {})) == ""


def test_a_short_verdict_will_do(study, tmp_path, repo, study_markup):
    path = tmp_path / "verdict.json"
    path.write_text('{"best": "harmony"}')
    captions = {Path(p).stem: html.caption_text(p) for p in captions_of(repo)}
    words = Page(str(study_page.integration(str(path), {}, str(study / "metrics.tsv"), captions, {}))).words
    assert "Best: harmony" in words
    assert "No verdict was written" in words


def test_the_commit_is_that_of_the_workflow_alone(tmp_path):
    import subprocess

    assert study_page.commit(tmp_path) == ""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "x").write_text("1")
    name = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(tmp_path), "add", "x"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), *name, "commit", "-qm", "x"], check=True)
    assert re.fullmatch(r"[0-9a-f]{40}", study_page.commit(tmp_path))
    (tmp_path / "x").write_text("2")
    assert "not committed" in study_page.commit(tmp_path)
    (tmp_path / "inner").mkdir()
    assert study_page.commit(tmp_path / "inner") == ""


# ------------------------------------------------------------------------------------------------------- assembled


def assemble_sample(folder, sample, image, output, **more):
    names = ["filtered.h5ad", "features.h5ad", "neighbours.npz", "clusters.parquet", "umap.parquet"]
    keys = ["filtered", "features", "graph", "clusters", "umap"]
    paths = {key: folder / name for key, name in zip(keys, names, strict=True)}
    assemble(output, sample=sample, image=image, target_sum=1e4, neighbours=15, **paths, **more)
    return output


def test_normalised_rows_sum_to_the_target():
    counts = sp.csr_matrix(np.array([[1, 3, 0], [0, 0, 0], [5, 0, 5]], dtype=np.int32))
    values = log_normalised(counts, 100.0)
    assert values.dtype == np.float32
    np.testing.assert_allclose(np.expm1(values.toarray()).sum(axis=1), [100, 0, 100], rtol=1e-5)
    assert counts.data.tolist() == [1, 3, 5, 5]


@pytest.fixture(scope="module")
def assembled(study, tmp_path_factory):
    import anndata

    path = tmp_path_factory.mktemp("assembled") / "A1.h5ad"
    return anndata.read_h5ad(assemble_sample(study / "A1", "A1", study / "A1" / "image.tif", path))


def test_the_assembled_file_has_the_usual_slots(assembled, study):
    with CountsFile(study / "A1" / "filtered.h5ad") as filtered:
        counts = filtered.matrix()
    assert sp.issparse(assembled.X)
    assert assembled.X.dtype == np.float32
    assert (assembled.layers["counts"] != counts).nnz == 0
    np.testing.assert_allclose(assembled.X.toarray(), log_normalised(counts, 1e4).toarray())
    assert {"n_genes", "n_counts", "label", "leiden", "leiden_0.5", "sample", "patient", "condition"} <= set(
        assembled.obs
    )
    assert list(assembled.obs["leiden"].cat.categories) == [str(c) for c in range(11)]
    assert assembled.var["highly_variable"].sum() == VARIABLE
    assert assembled.var["means"].notna().sum() == VARIABLE
    assert assembled.obsm["X_pca"].shape == (N, K)
    assert assembled.obsm["X_umap"].shape == (N, 2)
    assert assembled.varm["PCs"].shape == (G, K)
    assert np.abs(assembled.varm["PCs"][~assembled.var["highly_variable"]]).sum() == 0
    np.testing.assert_allclose(assembled.obsm["spatial_um"], assembled.obsm["spatial"] * 0.5)
    assert assembled.obsp["connectivities"].shape == (N, N)
    assert len(assembled.uns["leiden_colors"]) == 11
    assert len(assembled.uns["label_colors"]) == 3


def test_what_further_stages_know_is_added_by_barcode(study, tmp_path):
    import anndata

    from histoweft import io

    with CountsFile(study / "A1" / "filtered.h5ad") as filtered:
        barcodes = filtered.obs_names
    domain = pd.Categorical(["1", "2"] * (N // 2))
    table = pd.DataFrame({"domain": domain, "leiden": domain}, index=pd.Index(barcodes, name="barcode"))
    io.write_table(table.iloc[::-1], tmp_path / "domains.parquet")
    graph = sp.csr_matrix((np.ones(2, np.float32), ([0, 1], [1, 0])), shape=(N, N))
    io.write_graph(tmp_path / "graph.npz", graph)
    shares = pd.DataFrame({"B": 0.25, "T": 0.75, "low:B": 0.1, "low:T": 0.6}, index=table.index, dtype=np.float32)
    io.write_table(shares.assign(missing_type=False), tmp_path / "proportions.parquet")
    path = assemble_sample(
        study / "A1", "A1", None, tmp_path / "A1.h5ad", proportions=tmp_path / "proportions.parquet",
        added={"domains": tmp_path / "domains.parquet"}, spatial_graph=tmp_path / "graph.npz",
    )  # fmt: skip
    found = anndata.read_h5ad(path)
    assert found.obs["domain"].astype(str).tolist() == ["1", "2"] * (N // 2)
    assert len(found.uns["domain_colors"]) == 2
    assert (found.obsp["spatial_connectivities"] != graph).nnz == 0
    assert "spatial_distances" not in found.obsp
    assert list(found.uns["proportions"]["types"]) == ["B", "T"]
    np.testing.assert_allclose(found.obsm["proportions"], np.tile([0.25, 0.75], (N, 1)))


def test_colours_are_those_of_the_figures(assembled):
    from histoweft.plotting import category_colours

    assert list(assembled.uns["leiden_colors"]) == list(category_colours([str(c) for c in range(11)]).values())


def test_the_image_lies_under_the_spots(assembled):
    slot = assembled.uns["spatial"]["A1"]
    assert slot["images"]["hires"].shape == (800, 1000, 3)
    assert max(slot["images"]["lowres"].shape) == 600
    factors = slot["scalefactors"]
    assert factors["tissue_hires_scalef"] == pytest.approx(0.5)
    assert factors["tissue_lowres_scalef"] == pytest.approx(0.3)
    assert factors["spot_diameter_fullres"] == pytest.approx(110)
    assert (assembled.obsm["spatial"] * factors["tissue_hires_scalef"]).max() <= 1000


def test_a_large_image_is_reduced(tmp_path):
    from histoweft.report.assemble import spatial_slot

    write_image(tmp_path / "large.tif", (5200, 2600), scale=1.0)
    slot = spatial_slot(tmp_path / "large.tif", {}, np.array([[0, 0], [0, 10], [10, 0.0]]))
    assert 1000 <= max(slot["images"]["hires"].shape) <= 2000
    assert slot["scalefactors"]["tissue_hires_scalef"] == pytest.approx(slot["images"]["hires"].shape[1] / 5200)
    assert slot["scalefactors"]["spot_diameter_fullres"] == pytest.approx(8.5)
    assert "fiducial_diameter_fullres" not in slot["scalefactors"]


def test_a_sample_without_positions_has_no_spatial_slots(study, tmp_path):
    with h5py.File(assemble_sample(study / "B2", "B2", None, tmp_path / "B2.h5ad")) as file:
        assert "spatial" not in file["obsm"]
        assert "spatial" not in file["uns"]
        assert "X_pca" in file["obsm"]


def test_scanpy_and_squidpy_work_on_it(assembled, tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import scanpy as sc

    adata = assembled.copy()
    sc.tl.leiden(adata, key_added="again", flavor="igraph", n_iterations=2, directed=False)
    sc.tl.rank_genes_groups(adata, "leiden_0.5", method="t-test")
    sc.tl.paga(adata, groups="leiden")
    sc.tl.diffmap(adata, n_comps=5)
    assert adata.obs["again"].nunique() > 0
    sc.pl.spatial(adata, color="leiden", show=False)
    sc.pl.umap(adata, color=["leiden", "G1"], show=False)
    assert list(adata.uns["leiden_colors"]) == list(assembled.uns["leiden_colors"])
    squidpy = pytest.importorskip("squidpy")
    squidpy.pl.spatial_scatter(adata, color="leiden", save=tmp_path / "scatter.png")
    squidpy.gr.spatial_neighbors(adata, coord_type="generic", n_neighs=6)
    assert (tmp_path / "scatter.png").stat().st_size > 1000
    plt.close("all")
    adata.write_h5ad(tmp_path / "again.h5ad")


def test_the_studys_page_tells_what_was_read_otherwise_in_some_samples():
    from histoweft.report.study_page import how_read

    facts = [
        {"sample": "a", "read_as": {"counts": "X", "scale": "1 um per pixel"}},
        {"sample": "b", "read_as": {"counts": "raw", "scale": "1 um per pixel"}},
    ]
    page = str(how_read(facts))
    assert "raw" in page
    assert "1 um per pixel" not in page
    assert "stands on their pages" in str(how_read(facts[:1]))
    assert not how_read([{"sample": "a"}])
