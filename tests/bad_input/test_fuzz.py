"""Whatever stands in a config or a sheet, loading it ends in a study or in faults, never in a traceback."""

import copy
import datetime

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from histoweft import commandline, configfile, validation
from histoweft import config as options
from histoweft import study as studies
from histoweft.ingest import inputs

BOUNDED = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

CONFIG = options.load_schema("config")
SHEET = options.load_schema("samples")
COLUMNS = tuple(SHEET["properties"])

NASTY = (
    "", " ", ".", "..", "../..", "/", "~", "~nobody-of-this-name/x", "-rf", "--help", "a b", "a'b", 'a"b', "$(touch x)",
    "`id`", "a;b", "a|b", "a&b", "{sample}", "{", "}", "%s", "*", "?", "[x]", "a\nb", "a\tb", "a\0b", "\ud800", "é",
    "٣", "\u202e", "x" * 300, "x/" * 3000, "CON", "nan", "inf", "1e999", "-1", "0", "none", "True", "https://", "https://[",
    "file:///etc/passwd", "http://example.org/a.h5", "<script>alert(1)</script>", "visium", "h5ad", "xenium", "st",
    "scrna", "visium_hd",
)  # fmt: skip
TEXT = st.one_of(st.sampled_from(NASTY), st.text(max_size=40))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.binary(max_size=8),
    st.dates().map(lambda day: datetime.date(day.year, day.month, day.day)), st.datetimes(),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(TEXT, st.integers(), st.none()), inner, max_size=4)
    ),
    max_leaves=8,
)


def places(schema, above=()):
    """Return the path of every option."""
    found = []
    for key, part in schema.get("properties", {}).items():
        found += [(*above, key), *places(part, (*above, key))]
    return found


PLACES = places(CONFIG)


def load(config):
    """Load a config as the Snakefile does; each fault must be a sentence."""
    study, faults = studies.load(copy.deepcopy(config))
    if not faults:
        _, found = inputs.discover_all(study, {})
        faults.extend(found)
    for fault in faults.items:
        assert fault.where
        assert fault.found
    return study, faults


def put(config, place, value):
    for key in place[:-1]:
        config = config.setdefault(key, {}) if isinstance(config.get(key, {}), dict) else {}
    config[place[-1]] = value


@pytest.fixture
def sheet(tmp_path):
    path = tmp_path / "samples.tsv"
    path.write_text("sample\tplatform\tpath\na\th5ad\tnowhere.h5ad\n")
    return path


@BOUNDED
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_any_value_of_any_option(sheet, changes):
    config = {"study": "s", "samples": str(sheet)}
    for place, value in changes:
        put(config, place, value)
    load(config)


@BOUNDED
@given(place=st.sampled_from(PLACES), value=TEXT)
def test_any_text_of_any_option(sheet, place, value):
    config = {"study": "s", "samples": str(sheet)}
    put(config, place, value)
    load(config)


PATHS = [place for place in PLACES if place[-1] in ("samples", "data_root", "registry", *studies.ATLAS_PATHS)]


@BOUNDED
@given(values=st.lists(st.tuples(st.sampled_from(PATHS), TEXT), min_size=1, max_size=3))
def test_any_text_of_options_that_name_files(sheet, values):
    config = {"study": "s", "samples": str(sheet)}
    for place, value in values:
        put(config, place, value)
    load(config)


@BOUNDED
@given(extra=st.dictionaries(st.one_of(TEXT, st.integers(), st.none()), VALUES, max_size=5))
def test_any_options_that_do_not_exist(sheet, extra):
    _, faults = load({"study": "s", "samples": str(sheet), **extra})
    assert faults


@BOUNDED
@given(document=st.text(max_size=200))
def test_any_yaml_that_is_a_table(document):
    try:
        config = yaml.safe_load(document)
    except (yaml.YAMLError, ValueError):
        return  # Snakemake refuses it before we see it
    if isinstance(config, dict):
        _, faults = load(config)
        assert faults


@BOUNDED
@given(content=st.binary(max_size=400), suffix=st.sampled_from([".tsv", ".csv", ".xlsx", ""]))
def test_any_bytes_as_a_sheet(tmp_path, content, suffix):
    path = tmp_path / f"sheet{suffix}"
    path.write_bytes(content)
    rows, faults = validation.read_sheet(path, SHEET)
    assert rows or faults
    load({"study": "s", "samples": str(path)})


@BOUNDED
@given(
    header=st.lists(st.one_of(st.sampled_from(COLUMNS), TEXT), max_size=8),
    rows=st.lists(st.lists(TEXT, max_size=8), max_size=4),
    separator=st.sampled_from(["\t", ",", ";", " "]),
    suffix=st.sampled_from([".tsv", ".csv"]),
)
def test_any_table_as_a_sheet(tmp_path, header, rows, separator, suffix):
    path = tmp_path / f"sheet{suffix}"
    text = "\n".join(separator.join(cells) for cells in [header, *rows])
    path.write_text(text, encoding="utf-8", errors="replace")
    load({"study": "s", "samples": str(path)})


@BOUNDED
@given(cells=st.fixed_dictionaries({name: TEXT for name in COLUMNS}))
def test_any_cells_under_the_right_header(tmp_path, cells):
    """No name that is accepted may lead out of its folder; no other column names anything that is written."""
    path = tmp_path / "sheet.tsv"
    quoted = ['"' + cell.replace('"', '""') + '"' for cell in cells.values()]
    path.write_text("\t".join(cells) + "\n" + "\t".join(quoted) + "\n", encoding="utf-8", errors="replace")
    study, faults = load({"study": "s", "samples": str(path)})
    if not faults:
        for sample in study.samples:
            assert "/" not in sample
            assert sample not in (".", "..")
            assert sample.isascii()


@BOUNDED
@given(name=st.one_of(TEXT, st.from_regex(CONFIG["properties"]["study"]["pattern"])))
def test_any_study_name_is_refused_or_one_folder_below_the_results(sheet, name):
    study, faults = load({"study": name, "samples": str(sheet)})
    named = [fault for fault in faults.items if fault.where.endswith(": study")]
    if not named:
        assert "/" not in name
        assert "\n" not in name
        assert name not in (".", "..")
        assert len(study.results().encode()) < 255


LINES = (
    "study: t", "study:t", "  a: 1", "\tb: 2", "- x", "c: [1, 010", "d: 'x", "e: 2026-02-30", "f: *g", "h: &h {on: *h}",
    "<<: {i: yes}", "? [j]: k", "l: !m n", "\u00a0o: p", "q: “r”", "---", "...", "{s: 1, s: 2}", "t: |", "u: 1e999",
)  # fmt: skip
DOCUMENTS = st.lists(st.sampled_from(LINES), max_size=5).map("\n".join)


@BOUNDED
@given(content=st.one_of(DOCUMENTS.map(str.encode), st.text(max_size=80).map(str.encode), st.binary(max_size=80)))
def test_any_bytes_as_a_config_file(tmp_path, content):
    """What Snakemake cannot read is a fault; what passes can be read as it is written."""
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    faults = configfile.check(path)
    configfile.as_written([path])
    configfile.top_level(path)
    if not faults:
        assert isinstance(yaml.safe_load(content.decode("utf-8-sig")), dict)


@BOUNDED
@given(
    words=st.lists(
        st.one_of(TEXT, st.sampled_from(["--configfile", "--config", "--", "-n", "-q", "a=1", "results/x/y"]))
    )
)
def test_any_words_on_the_command_line(words):
    line = commandline.read(words, ["all"], lambda: ["--report"])
    if not line.faults:  # nothing that was typed gets lost
        kept = {word for word in words if word not in ("--", "--config", "--configfile")}
        assert kept <= set(line.arguments())


@BOUNDED
@given(
    names=st.lists(
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,7}", fullmatch=True), min_size=2, max_size=4, unique_by=str.casefold
    )
)
def test_any_name_of_a_sample_without_quotes_is_that_sample(tmp_path, names):
    (tmp_path / "samples.tsv").write_text("sample\tplatform\tpath\n" + "".join(f"{name}\th5ad\tx\n" for name in names))
    path = tmp_path / "config.yaml"
    path.write_text(f"study: s\nsamples: {tmp_path}/samples.tsv\nexclude: [{names[0]}]\n")
    study, faults = studies.load(yaml.safe_load(path.read_text()), files=[path])
    if not any("column sample" in fault.where for fault in faults.items):
        assert study.excluded == [names[0]]
        assert not faults
