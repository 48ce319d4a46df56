"""The command line before Snakemake sees it: targets found wherever they stand, slips said in words."""

import subprocess
import sys
import unicodedata

import pytest
import yaml

from histoweft import commandline, configfile

TARGET = "results/t/samples/s/counts.h5ad"
RULES = ["all", "ingest_counts"]
OPTIONS = ["--configfile", "--config", "--dry-run", "--until", "--report", "--rerun-triggers"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("study: t\nsamples: samples.tsv\n")
    (tmp_path / "more.json").write_text('{"seed": 1}')
    return tmp_path


def read(*words):
    return commandline.read(list(words), RULES, lambda: OPTIONS)


def told(*words):
    return "\n".join(map(str, read(*words).faults.items))


@pytest.mark.parametrize(
    "words",
    [
        f"{TARGET} --configfile config.yaml",
        f"--configfile config.yaml {TARGET}",
        f"--configfile=config.yaml {TARGET}",
        f"--configfile config.yaml -- {TARGET}",
        f"--cores 2 {TARGET} --configfile config.yaml",
    ],
)
def test_a_target_is_found_wherever_it_stands(words):
    line = read(*words.split())
    assert not line.faults
    cores = ["--cores", "2"] if "--cores" in words else []
    assert line.arguments() == [*cores, "--configfile", "config.yaml", "--", TARGET]


def test_a_target_typed_with_its_whole_path_is_the_workflows(folder):
    words = read("--configfile", "config.yaml", str(folder / TARGET)).arguments()
    assert words == ["--configfile", "config.yaml", "--", TARGET]


def test_config_files_settings_and_targets_are_told_apart():
    files, settings = "--configfile config.yaml more.json", "--config a_b=results/x seed=2"
    words = f"all -n {files} {TARGET} {settings} ingest_counts --res gpu=0 {TARGET}"
    line = read(*words.split())
    assert not line.faults
    expected = (
        f"-n --res gpu=0 --configfile config.yaml more.json --config a_b=results/x seed=2 -- all {TARGET} ingest_counts"
    )
    assert line.arguments() == [*expected.split(), TARGET]


def test_config_files_named_apart_are_all_taken():
    line = read("--configfile", "config.yaml", "--config", "seed=1", "--configfile", "more.json", "--config", "title=x")
    assert line.arguments() == ["--configfile", "config.yaml", "more.json", "--config", "seed=1", "title=x"]


def test_words_of_options_that_are_not_among_the_usual_stay_with_them():
    words = "--until ingest_counts --configfile config.yaml --rerun-triggers mtime code -q rules -j4 -np all".split()
    assert read(*words).arguments() == [
        *"--until ingest_counts --rerun-triggers mtime code -q rules -j4 -np --configfile config.yaml -- all".split()
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("version", "found 'version'; expected a command (demo, preflight, split,"),
        ("preflihgt", "Did you mean 'preflight'?"),
        ("--configfile config.yaml ingest_count", "Did you mean 'ingest_counts'?"),
        ("--configfile config.yaml demo", "A command stands first: ./histoweft demo"),
        ("—n --configfile config.yaml", "found '—n'; expected plain hyphens. Write -n."),
        ("ingest_count", "Did you mean 'ingest_counts'?"),
        ("config.yaml", "expected an option before a config file. Write --configfile config.yaml."),
        ("—configfile config.yaml", "found '—configfile'; expected plain hyphens. Write --configfile."),
        ("-configfile config.yaml", "found -configfile; expected --configfile. Long options begin with two hyphens."),
        ("--configfile config.yaml --exclude a", "exclude is an option of the config: write --config exclude=..."),
        ("--configfile config.yaml --dry-rum", "Did you mean '--dry-run'?"),
        (
            "--configfile confg.yaml",
            "found confg.yaml, which does not exist; expected the path of a config file. Did you",
        ),
        (f"--configfile {TARGET}", "found --configfile without a file; expected a config file after it"),
        (
            "--configfile config.yaml --config seed 1",
            "--config: found 'seed', '1'; expected option=value. Write no blanks",
        ),
        ("--config atlas.kl.x=1", "Write --config atlas='{kl: {x: 1}}'."),
        (
            f"{TARGET.replace('/t/', '/u/')} --configfile config.yaml",
            f"expected a file of the study 't', which the config names. Is it {TARGET}?",
        ),
        ("--configfile more.json", "more.json: study: found nothing; expected a value"),
    ],
)
def test_a_slip_is_one_fault_before_snakemake_starts(words, message):
    (fault,) = read(*words.split()).faults.items
    assert message in str(fault)


def test_abbreviated_options_and_a_study_on_the_command_line_are_let_through():
    assert not told("--dry-r", "--configfile", "more.json", "--config", "study=t", TARGET)


FILES = {
    "an empty file": (b"", "found an empty file; expected options, one a line: name: value"),
    "comments alone": (b"# study: t\n", "found an empty file"),
    "a list": (b"- study: t\n- samples: s\n", "found a list; expected options"),
    "no blank after the colon": (
        b"study:t\n",
        "found the text 'study:t'; expected options, one a line: name: value. Put a sp",
    ),
    "no blank after the first of two colons": (
        b"study:t\nsamples: s\n",
        "line 1: found 'study:t'; expected options, one a line: name: value. Put a space after the colon.",
    ),
    "no-break spaces": (
        "study: t\nexpression:\n\u00a0\u00a0qc: {}\n".encode(),
        "line 3: found '\\xa0\\xa0qc'; expected options, one a line: name: value. It begins with a no-break space",
    ),
    "equals signs": (b"study = t\n", "Write colons instead of equals signs."),
    "a tab": (
        b"study: t\nexpression:\n\tqc: {}\n",
        "line 3: found 'qc: {}'; expected options, one a line: name: value. It beg",
    ),
    "a colon in a value": (b"study: t\ntitle: mice: old\n", "line 2: found 'title: mice: old'"),
    "backslashes": (b'study: t\ndata_root: "C:\\Users"\n', "Write backslashes in single quotes"),
    "an open bracket": (b"study: t\nexclude: [a\n", "or close its bracket"),
    "an open quotation mark": (b"study: t\ntitle: 'x\n", "A quotation mark is not closed."),
    "a day that there is not": (
        b"study: t\ntitle: 2026-02-30\n",
        "line 2: found '2026-02-30', which YAML takes for a date",
    ),
    "UTF-16": ("study: t\n".encode("utf-16"), "found text in UTF-16; expected text in UTF-8. Save it as UTF-8."),
    "western Windows text": (
        "study: t\ntitle: Müller\n".encode("cp1252"),
        "line 2: found bytes that are not UTF-8 text",
    ),
    "a workbook": (b"PK\x03\x04", "found a workbook"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_config_file_that_snakemake_cannot_read_is_said_in_words(folder, case):
    content, message = FILES[case]
    (folder / "bad.yaml").write_bytes(content)
    (fault,) = configfile.check(folder / "bad.yaml").items
    assert message in str(fault)


def test_sound_config_files_are_let_through(folder):
    for text in (
        "\ufeffstudy: t\n",
        "study: t\r\nseed: 1\r\n",
        "a: &x {k: 1}\nb: {<<: *x, k: 2}\n",
        "{}",
        '{"study": "t"}',
    ):
        (folder / "good.yaml").write_text(text, encoding="utf-8")
        assert not configfile.check(folder / "good.yaml")
        assert not configfile.as_written([folder / "good.yaml"])[1]


def test_a_config_file_with_an_accent_is_found_under_its_name_on_disk(folder):
    name = unicodedata.normalize("NFC", "Müller.yaml")
    (folder / "config.yaml").rename(folder / name)
    line = read("--configfile", unicodedata.normalize("NFD", name))
    assert not line.faults
    assert line.configfiles == [name]


def test_values_are_kept_as_they_are_written_the_last_file_first(folder):
    text = "exclude: [001, yes, 'x']\nb: &b {on: 1e3}\nc: {<<: *b, k: 12:30}\n"
    (folder / "a.yaml").write_text(text)
    written, faults = configfile.as_written([folder / "a.yaml", folder / "config.yaml"])
    assert not faults
    config = yaml.safe_load(text)
    assert [written.text(("exclude", n), value) for n, value in enumerate(config["exclude"])] == ["001", "yes", None]
    assert written.text(("c", "k"), 750) == "12:30"
    assert written.text(("c", "k"), 751) is None
    assert written.keys["b", True] == "on"
    (folder / "b.yaml").write_text("exclude: ['1']\n")
    written, _ = configfile.as_written([folder / "a.yaml", folder / "b.yaml"])
    assert written.text(("exclude", 0), 1) is None


def test_the_launcher_ends_in_words_and_starts_nothing(repo, folder):
    command = [sys.executable, repo / "tools" / "launch.py", "--cores", "1", "version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "histoweft: 1 fault in what this study was given:\n  1. command line: found 'version'"
    )
    assert not (folder / ".snakemake").exists()
