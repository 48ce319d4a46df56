"""Each kind of bad sample sheet, with the message it gets."""

import pytest

from histoweft import config, validation

HEADER = "sample\tplatform\tpath\tmpp\n"


def faults_of(tmp_path, content, name="samples.tsv"):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding="utf-8")
    _, faults = validation.read_sheet(path, config.load_schema("samples"))
    return "\n".join(map(str, faults.items)).replace(str(tmp_path) + "/", "")


CASES = {
    "no rows": (HEADER, "samples.tsv: found a header and no rows; expected one row a sample"),
    "empty": ("", "samples.tsv: found no lines"),
    "only comments": ("# nothing here\n", "samples.tsv: found no lines"),
    "duplicate sample": (
        HEADER + "a\tvisium\tx\t\nb\tvisium\ty\t\na\tvisium\tz\t\n",
        "line 4, column sample: found 'a'; expected a name used once. Line 2 has 'a' already.",
    ),
    "samples that differ by case alone": (
        HEADER + "a\tvisium\tx\t\nA\tvisium\ty\t\n",
        "line 3, column sample: found 'A'; expected a name used once. Line 2 has 'a' already.",
    ),
    "a reserved name": (HEADER + "Index\tvisium\tx\t\n", "column sample: found 'Index'; expected another name"),
    "sample with a slash": (HEADER + "../a\tvisium\tx\t\n", "line 2, column sample: found '../a'; expected letters"),
    "sample with shell characters": (HEADER + "a;rm\tvisium\tx\t\n", "column sample: found 'a;rm'"),
    "html in a sample": (HEADER + "<script>\tvisium\tx\t\n", "column sample: found '<script>'"),
    "unknown platform": (
        HEADER + "a\tVisum\tx\t\n",
        "line 2, column platform: found 'Visum'; expected one of visium, visium_hd, xenium, st, h5ad, scrna. "
        "Did you mean 'visium'?",
    ),
    "empty platform": (HEADER + "a\t\tx\t\n", "line 2, column platform: found an empty cell; expected one of visium"),
    "empty path": (HEADER + "a\tvisium\t\t\n", "line 2, column path: found an empty cell"),
    "missing column": ("sample\tplatform\na\tvisium\n", "header: found no column 'path'"),
    "misspelt column": (
        "sample\tplatfrom\tpath\na\tvisium\tx\n",
        "header: found no column 'platform'; expected a column of that name. Is it the column 'platfrom'?",
    ),
    "slip in an optional column": (
        "sample\tplatform\tpath\tpatiant\na\tvisium\tx\tp\n",
        "header: found the column 'patiant'; expected a known column",
    ),
    "column twice": ("sample\tplatform\tpath\tpath\na\tvisium\tx\ty\n", "found the column 'path' 2 times"),
    "nameless column": ("sample\tplatform\tpath\t\na\tvisium\tx\ty\n", "found a column without a name"),
    "commas in a tsv": (
        "sample,platform,path\na,visium,x\n",
        "line 1: found columns separated by a comma; expected a tab in a .tsv file",
    ),
    "ragged row": (HEADER + "a\tvisium\tx\n", "line 2: found 3 cells; expected 4, as in the header"),
    "text as mpp": (HEADER + "a\tvisium\tx\tfine\n", "line 2, column mpp: found 'fine'; expected a number"),
    "decimal comma": (HEADER + "a\tvisium\tx\t0,5\n", "Write the decimal sign as a point."),
    "negative mpp": (HEADER + "a\tvisium\tx\t-1\n", "line 2, column mpp: found '-1'; expected a finite number above 0"),
    "nan mpp": (HEADER + "a\tvisium\tx\tnan\n", "line 2, column mpp: found 'nan'"),
    "not utf-8": (HEADER.encode() + b"a\tvisium\tM\xfcnchen\t\n", "line 2: found bytes that are not UTF-8 text"),
    "binary": (b"PK\x03\x04\x00\x00", "found binary content; expected plain text"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_names_place_value_and_remedy(tmp_path, case):
    content, expected = CASES[case]
    assert expected in faults_of(tmp_path, content)


def test_semicolons_in_a_csv(tmp_path):
    found = faults_of(tmp_path, "sample;platform;path\na;visium;x\n", "samples.csv")
    assert "columns separated by a semicolon; expected a comma in a .csv file" in found


def test_a_spreadsheet_is_refused(tmp_path):
    assert "found a name ending in '.xlsx'; expected .tsv or .csv" in faults_of(tmp_path, b"PK", "samples.xlsx")


def test_a_missing_sheet_suggests_the_nearest_name(tmp_path):
    (tmp_path / "samples.tsv").write_text(HEADER)
    _, faults = validation.read_sheet(tmp_path / "sample.tsv", config.load_schema("samples"))
    assert "Did you mean 'samples.tsv'?" in str(faults.items[0])


def test_all_faults_are_told_at_once(tmp_path):
    found = faults_of(tmp_path, HEADER + "a\tvisum\tx\tfine\na\tvisium\t\t-3\n")
    assert len(found.splitlines()) == 5


def test_a_good_sheet_with_comments_quotes_and_a_byte_order_mark_has_none(tmp_path):
    text = '\ufeff# the cohort\nsample,platform,path,note\n\n"a",visium,"x, y",hello\n'
    path = tmp_path / "samples.csv"
    path.write_text(text, encoding="utf-8")
    rows, faults = validation.read_sheet(path, config.load_schema("samples"))
    assert not faults
    assert rows[0]["path"] == "x, y"
    assert rows[0]["line"] == 4
