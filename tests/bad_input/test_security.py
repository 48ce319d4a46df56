"""Inputs are data: nothing in them is executed, nothing is written where it should not be, no markup comes through."""

import ast
import json
import os
import pickle
import re
import tarfile
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from histoweft import config as options
from histoweft import download, io, job, validation
from histoweft import study as studies
from histoweft.errors import InputError

EVIL = "<script>alert(1)</script>"

# ------------------------------------------------------------------------------------------- nothing is executed

FORBIDDEN_IMPORTS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    "pd.read_pickle", "pandas.read_pickle", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load",
    "eval", "exec", "compile", "__import__",
}  # fmt: skip
NEEDED = {
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "torch.load": ("weights_only", True),
}


def dotted(node):
    """Return ``np.load`` for the function of a call, or an empty string."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *parts[::-1]]) if isinstance(node, ast.Name) else ""


def faults_of(source):
    """Return what a source file may not do."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [f"import {one.name}" for one in node.names if one.name.split(".")[0] in FORBIDDEN_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_IMPORTS:
            found.append(f"from {node.module}")
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            if name in FORBIDDEN_CALLS or (name != "np.save" and given.get("allow_pickle")) or given.get("shell"):
                found.append(f"{name} in line {node.lineno}")
            if name in NEEDED and given.get(NEEDED[name][0]) is not NEEDED[name][1]:
                found.append(f"{name} in line {node.lineno} without {NEEDED[name][0]}={NEEDED[name][1]}")
    return found


def test_no_source_file_unpickles_evaluates_or_calls_a_shell(repo):
    files = [path for folder in ("workflow", "tools") for path in (repo / folder).rglob("*.py")]
    assert len(files) > 100
    found = {str(path.relative_to(repo)): faults_of(path.read_text(encoding="utf-8")) for path in files}
    assert not {path: faults for path, faults in found.items() if faults}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from joblib import load", "np.load(path)", "np.load(path, allow_pickle=True)",
        "torch.load(path, weights_only=False)", "torch.load(path)", "pd.read_pickle(p)", "yaml.load(text)",
        "eval(text)", "subprocess.run(text, shell=True)", "os.system(text)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source):
    assert faults_of(source)


def test_no_rule_runs_a_shell_or_code_of_its_own(repo):
    rules = [repo / "Snakefile", *(repo / "workflow" / "rules").rglob("*.smk")]
    directives = re.compile(r"^\s+(shell|run|cwl|wrapper)\s*:", re.MULTILINE)
    assert not [path.name for path in rules if directives.search(path.read_text(encoding="utf-8"))]


class Payload:
    """Creates a file where it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (os.mkdir, (self.mark,))


@pytest.fixture
def mark(tmp_path):
    """Return a path that must not come into being; show that the payload would have made it."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "shown")))
    assert (tmp_path / "shown").is_dir()
    return tmp_path / "executed"


def evil_array(mark):
    found = np.empty(1, dtype=object)
    found[0] = Payload(mark)
    return found


def test_object_arrays_are_not_unpickled(tmp_path, mark):
    from histoweft.atlas.volumes import read_volume

    np.savez(tmp_path / "a.npz", x=evil_array(mark))
    np.save(tmp_path / "a.npy", evil_array(mark), allow_pickle=True)
    with pytest.raises(InputError), io.archive(tmp_path / "a.npz", "an archive") as stored:
        stored["x"]
    with pytest.raises(InputError):
        read_volume(tmp_path / "a.npy", "atlas.annotation")
    assert not mark.exists()


def test_masks_and_image_features_are_not_unpickled(tmp_path, mark):
    from histoweft.histology import context, tissue

    np.savez(tmp_path / "mask.npz", shape=evil_array(mark), mask=evil_array(mark), um_per_px=1.0)
    with pytest.raises(InputError):
        tissue.read_mask(tmp_path / "mask.npz")
    (tmp_path / "context.json").write_text('{"factors": [1], "um_per_px": 1, "names": []}')
    np.save(tmp_path / "maps_0.npy", evil_array(mark), allow_pickle=True)
    with pytest.raises(InputError):
        context.load(tmp_path)
    assert not mark.exists()


def test_weights_are_not_unpickled(tmp_path, mark):
    import torch

    from histoweft import training
    from histoweft.histology import autoencoder, network

    path = tmp_path / "model.pt"
    torch.save({"facts": Payload(mark), "meta": Payload(mark)}, path)
    assert training._saved_state(path, {"seed": 0}) is None
    for load in (network.load, autoencoder.load):
        with pytest.raises(InputError):
            load(path)
    path.write_bytes(pickle.dumps(Payload(mark)))
    assert training._saved_state(path, {"seed": 0}) is None
    assert not mark.exists()


def test_tables_are_not_unpickled(tmp_path, mark):
    """Arrow once unpickled the types that a parquet file says it has (CVE-2023-47248)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from histoweft.ingest import tables

    said = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Payload(mark)),
    }
    schema = pa.schema([pa.field("barcode", pa.string()), pa.field("x", pa.int64(), metadata=said)])
    pq.write_table(pa.table([["a", "b"], [1, 2]], schema=schema), tmp_path / "t.parquet")
    found = tables.read_table(tmp_path / "t.parquet")
    assert found["x"].tolist() == [1, 2]
    assert not mark.exists()


def test_parameters_of_the_pages_stay_text():
    from papermill.translators import PythonTranslator

    for text in ('"; import os; os.mkdir("x") #', "'''", "\\", '\\"', "{x}", "\n__import__('os')", EVIL, "\u2028"):
        written = PythonTranslator.translate({"value": text, text: [text]})
        assert ast.literal_eval(written) == {"value": text, text: [text]}


# ------------------------------------------------------------------------------------------- names and places

REFUSED = (
    "", ".", "..", "../a", "a/b", "/a", "a b", " a", "a\n", "a\nb", "a\tb", "a\0", "-a", "--help", "_a", "a'b", 'a"b',
    "a;b", "a|b", "a&b", "$(id)", "`id`", "{sample}", "a*", "a?", "~", "~root", "é", "a\u202eb", "x" * 101, EVIL,
    "a\\b",
)  # fmt: skip


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_names_that_could_do_harm_are_refused(tmp_path, name):
    (tmp_path / "s.tsv").write_text("sample\tplatform\tpath\na\th5ad\tx.h5ad\n")
    _, faults = studies.load({"study": name, "samples": str(tmp_path / "s.tsv")})
    assert any(fault.where.endswith(": study") for fault in faults.items)
    cell = '"' + name.replace('"', '""') + '"'
    (tmp_path / "s.tsv").write_text(f"sample\tplatform\tpath\n{cell}\th5ad\tx.h5ad\n", encoding="utf-8")
    rows, faults = validation.read_sheet(tmp_path / "s.tsv", options.load_schema("samples"))
    assert faults or rows[0]["sample"] == name.strip() != name


@pytest.mark.parametrize("name", ["index", "Study", "ALL", "counts", "filtered", "features"])
def test_names_that_files_of_the_results_have_are_refused(tmp_path, name):
    (tmp_path / "s.tsv").write_text(f"sample\tplatform\tpath\n{name}\th5ad\tx.h5ad\n")
    _, faults = validation.read_sheet(tmp_path / "s.tsv", options.load_schema("samples"))
    assert "A file of the results is called so." in str(faults.items[0])


def test_inputs_may_lie_anywhere(tmp_path):
    """Reading is the user's right: absolute paths, .. and links are taken as they are."""
    rows = f"a\th5ad\t/data/x.h5ad\nb\th5ad\t../x.h5ad\nc\th5ad\t{tmp_path}/link\n"
    (tmp_path / "s.tsv").write_text("sample\tplatform\tpath\n" + rows)
    study, faults = studies.load({"study": "s", "samples": str(tmp_path / "s.tsv"), "data_root": "/root/of/data"})
    assert not faults
    paths = [row["path"] for row in study.samples.values()]
    assert paths == ["/data/x.h5ad", "/root/of/data/../x.h5ad", f"{tmp_path}/link"]


@pytest.fixture(scope="module")
def rules(repo):
    """Return the rules of the parsed demo."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import OutputSettings, ResourceSettings

    before = Path.cwd()
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        made = api.workflow(ResourceSettings(cores=1), snakefile=repo / "Snakefile", workdir=repo)
        yield list(made._workflow.rules)
    os.chdir(before)


def test_everything_is_written_below_the_folders_of_the_study(rules):
    """Writing anywhere else is not: no cell of the sheet names an output, only the names checked above do."""
    places = ("results/demo/", "resources/data/fetched/", "resources/data/unpacked/")
    for rule in rules:
        for output in rule.output:
            assert str(output).startswith(places), f"{rule.name}: {output}"
        for text, folder in ((rule.log, "logs/"), ([rule.benchmark] if rule.benchmark else [], "benchmarks/")):
            assert all(str(path).startswith(folder) for path in text), rule.name


def test_a_link_in_the_place_of_a_result_is_replaced_and_not_followed(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    final = tmp_path / "results" / "table.tsv"
    final.parent.mkdir()
    final.symlink_to(outside)
    outputs = type("Outputs", (dict,), {})(table=str(final))
    given = dict.fromkeys(("input", "params", "wildcards", "resources"), SimpleNamespace())
    one = job.Job(SimpleNamespace(rule="r", threads=1, output=outputs, **given))
    one.output.table.write_text("new")
    one.commit()
    assert outside.read_text() == "precious"
    assert final.read_text() == "new"
    assert not final.is_symlink()


# ------------------------------------------------------------------------------------------- archives, downloads


def test_archives_that_would_fill_the_disk_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "UNSUSPICIOUS", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as handle:
        handle.writestr("zeros", bytes(5_000_000))
    (tmp_path / "zeros").write_bytes(bytes(5_000_000))
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as handle:
        handle.add(tmp_path / "zeros", "zeros")
    for name in ("bomb.zip", "bomb.tar.gz"):
        with pytest.raises(InputError, match="5000000 bytes unpacked from"):
            download.extract(tmp_path / name, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    monkeypatch.setattr(download, "UNSUSPICIOUS", 10**9)
    assert len(download.extract(tmp_path / "bomb.zip", tmp_path / "out")) == 1


def test_a_member_cannot_be_larger_than_it_says(tmp_path):
    """The size in the header is what was checked; what follows it is not written."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as handle:
        handle.writestr("a", b"x" * 1000)
    content = (tmp_path / "a.zip").read_bytes()
    length = (1000).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content.replace(length, (10).to_bytes(4, "little")))
    with pytest.raises(InputError, match="cannot be unpacked"):
        download.extract(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_in_a_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "l.zip", "w") as handle:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        handle.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="a link 'link'"):
        download.extract(tmp_path / "l.zip", tmp_path / "out")


@pytest.mark.parametrize("to", ["http://example.org/a", "http://127.0.0.1/a", "file:///etc/passwd", "ftp://x.org/a"])
def test_https_is_not_left_by_a_redirect(to):
    import urllib.request

    asked = urllib.request.Request("https://example.org/a")
    with pytest.raises(InputError, match="a redirect to"):
        download._SafeRedirect().redirect_request(asked, None, 302, "Found", {}, to)
    there = download._SafeRedirect().redirect_request(asked, None, 302, "Found", {}, "https://example.org/b")
    assert there.full_url == "https://example.org/b"


# ------------------------------------------------------------------------------------------- pages


class Tags(HTMLParser):
    """Collects the tags and attributes that a browser would see."""

    def __init__(self, markup):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(str(markup))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]


def assert_harmless(markup):
    seen = Tags(markup)
    assert "script" not in seen.tags
    assert "img" not in seen.tags or "onerror" not in seen.attributes
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert seen.tags, "nothing was made"


NASTY = (EVIL, '"><img src=x onerror=alert(1)>', "' onclick='alert(1)", "</pre></code><script>", "&lt;script&gt;")


@pytest.mark.parametrize("text", NASTY)
def test_no_piece_of_a_page_lets_markup_through(text, tmp_path):
    from histoweft.report import html, run_record, stages, trace

    verdict = tmp_path / "verdict.json"
    verdict.write_text(json.dumps({"texts": [text], "warnings": [text], "default": text}))

    pieces = [
        html.paragraph(text, kind="quiet"),
        html.section(text, text, anchor=text),
        html.notice("warning", text, [text]),
        html.notice("warning", text, [text, text]),
        html.remark(f"off_tissue: {text}"),
        html.key_numbers([(text, text, text)]),
        html.table([text], [[text], [text]], row_kinds=[text, ""]),
        html.table([], [], empty=text),
        html.caption(f"{text} ``{text}`` *{text}*\n\n{text}"),
        run_record.environment_table([{"name": text, "packages": 1, "sha256": text}]),
        *(html.paragraph(words) for pair in stages.warnings({"space": {"verdict": str(verdict)}}) for words in pair),
        stages.sections({"space": {"verdict": str(verdict)}}, {}, {}),
        trace.line(text, {text: {"links": [(text, text)], "rule": text, "log": text}}),
    ]
    for piece in pieces:
        assert_harmless(html.joined(piece) if isinstance(piece, list) else piece)


@pytest.mark.parametrize("text", NASTY)
def test_no_part_of_the_study_page_lets_markup_through(text):
    from histoweft.report import study_page

    config = options.complete({"study": text, "title": text, "report": {"author": text}}, options.load_schema("config"))
    facts = {
        "sample": text, "patient": text, "batch": text, "condition": text, "platform": text, "species": text,
        "unit": text, "barcodes_in": 10, "barcodes": 9, "genes_in": 5, "genes": 5, "median_genes": 3.0,
        "median_counts": 4.0, "clusters": 2, "resolution": 1.0, "label_ari": 0.5, "warnings": [text], "histology": None,
        "stability": [{"resolution": 1.0, "ari_mean": 0.9}],
        "qc": [{"filter": text, "rule": text, "axis": "barcodes", "threshold": 1.0, "removed": 1, "remaining": 9}],
    }  # fmt: skip
    sheet = [{"sample": text, "path": text, text: text}]
    parts = [
        study_page.header(config, [facts], sheet),
        study_page.samples([facts]),
        study_page.quality([facts], {"qc_table": text}),
        study_page.warnings([facts], "", {}),
        study_page.methods_section(text, []),
        study_page.provenance(config, sheet, {text: text}, {"commit": text, "command": text}),
        study_page.reproduce(config, {"commit": text}),
    ]
    for part in parts:
        assert_harmless(part)


def test_a_page_takes_its_title_as_text():
    from histoweft.report import render
    from histoweft.report.html import section

    page = render.page(EVIL, section(EVIL, EVIL), study=EVIL, up=(f"{EVIL}.html", EVIL), made=EVIL)
    assert_harmless(page)


def test_scores_are_shown_as_text():
    import pandas as pd

    from histoweft.metrics import check_metrics, metric_row
    from histoweft.report.scores import evidence

    rows = [
        metric_row(EVIL, "space", "domains", name, EVIL, "truth", EVIL, 0.5, n=5, panel=EVIL, note=f"default; {EVIL}")
        for name in (EVIL, f"floor:{EVIL}")
    ]
    assert_harmless(evidence(check_metrics(pd.DataFrame(rows))))
