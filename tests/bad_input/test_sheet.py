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
    "western Windows text": (
        HEADER.encode() + b"a\tvisium\tM\xfcnchen\t\n",
        "(Latin-1) it reads 'M\xfcnchen'. Export it",
    ),
    "a workbook": (b"PK\x03\x04\x00\x00", "found a workbook (.xlsx or .ods) or another zip archive under this name"),
    "an old workbook": (b"\xd0\xcf\x11\xe0\x00", "found an Excel workbook (.xls) under this name; expected plain text"),
    "a compressed sheet": (b"\x1f\x8b\x08\x00", "found a gzip file under this name"),
    "a web page": ("<html><table><tr><td>sample", "found a web page or XML under this name"),
    "binary": (b"\x00\x01\x02abc", "found binary content; expected plain text"),
    "UTF-16 without its mark": (HEADER.encode("utf-16-le"), "found UTF-16 text without its mark; expected plain text"),
    "UTF-16 cut off": (HEADER.encode("utf-16")[:-1], "found UTF-16 text that is cut off or damaged"),
    "spaces for tabs": (
        "sample platform path\na visium x\n",
        "line 1: found columns separated by spaces; expected a tab",
    ),
    "spaces in the header": (
        "sample\tplatform path\na\tvisium\tx\n",
        "line 1: found the columns platform, path in one cell; expected a tab between them",
    ),
    "spaces in a row": (HEADER + "a\tvisium  x\t1\n", "Blanks stand where the separator of columns belongs."),
    "commas in a row": (
        HEADER + "a\tvisium,x\t1\n",
        "found 3 cells; expected 4, as in the header. A comma stands where",
    ),
    "lines in quotes": ('"sample\tplatform\tpath"\n"a\tvisium\tx"\n', "found the whole line in quotes, as one cell"),
    "an open quotation mark": (
        HEADER + 'a\tvisium\t"x\t1\nb\tvisium\ty\t1\n',
        "line 2: found a cell that holds several lines",
    ),
    "the header is a comment": ("#" + HEADER + "a\tvisium\tx\t1\n", "header: found a header that begins with '#'"),
    "no header": ("a\tvisium\tx\n", "line 1: found a sample in the first line; expected a header, at least: sample"),
    "row names of R": ("sample\tplatform\tpath\n1\ta\tvisium\tx\n2\tb\tvisium\ty\n", "row.names=FALSE in R"),
    "the index of pandas": ("\tsample\tplatform\tpath\n0\ta\tvisium\tx\n", "with index=False in pandas"),
    "a number made of a name": (
        HEADER + "1E+03\tvisium\tx\t\n",
        "found '1E+03', a number that a spreadsheet has made of a",
    ),
    "a date made of a name": (
        HEADER + "Mar-01\tvisium\tx\t\n",
        "found 'Mar-01', a date that a spreadsheet has made of a",
    ),
    "a date made of a number": (
        HEADER + "a\tvisium\tx\t1-May\n",
        "column mpp: found '1-May'; expected a number. A spreadsheet",
    ),
    "an error of a spreadsheet": (
        HEADER + "#REF!\tvisium\tx\t\n",
        "line 2, column sample: found '#REF!'; expected a value",
    ),
    "a missing value of R": (
        HEADER + "a\tvisium\tNA\tNA\n",
        "column path: found 'NA'; expected a value or an empty cell",
    ),
    "a missing number": (
        HEADER + "a\tvisium\tx\tNA\n",
        "column mpp: found 'NA'; expected a number. Leave the cell empty",
    ),
    "thousands": (
        HEADER + "a\tvisium\tx\t1,000\n",
        "Write no separator of thousands; if the comma is the decimal sign",
    ),
    "German thousands": (
        HEADER + "a\tvisium\tx\t1.000,5\n",
        "Write no separator of thousands, and the decimal sign as a",
    ),
    "a unit": (HEADER + "a\tvisium\tx\t0.5 µm\n", "Write the number alone, without its unit."),
    "a typographic minus": (HEADER + "a\tvisium\tx\t\u22121\n", "Write the minus sign as a plain hyphen."),
    "an underscore in a number": (HEADER + "a\tvisium\tx\t1_000\n", "found '1_000'; expected a number"),
    "a name that needs another": (HEADER + "Müller 1\tvisium\tx\t\n", "not starting with a sign. Such as 'Muller_1'."),
    "columns that are one": ("sample\tplatform\tpath\tPatient\tpatient\na\tvisium\tx\tp\tq\n", "'patient' 2 times"),
    "patients with and without zeros": (
        "sample\tplatform\tpath\tpatient\na\tvisium\tx\t001\nb\tvisium\ty\t1\nc\tvisium\tz\t1\n",
        "line 3, column patient: found '1', and '001' in line 2; expected one writing of one name",
    ),
    "patients as decimal numbers": (
        "sample\tplatform\tpath\tpatient\na\tvisium\tx\t1.0\nb\tvisium\ty\t1\n",
        "line 3, column patient: found '1', and '1.0' in line 2",
    ),
    "conditions that differ by case": (
        "sample\tplatform\tpath\tcondition\na\tvisium\tx\tTreated\nb\tvisium\ty\ttreated\n",
        "line 3, column condition: found 'treated', and 'Treated' in line 2",
    ),
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


GOOD = "sample,platform,path,condition\na,visium,x,Müller\nb,visium,y,\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("samples.csv", GOOD.encode("utf-16")),
        ("samples.csv", GOOD.encode("utf-32")),
        ("samples.csv", GOOD.encode("utf-8-sig")),
        ("samples.csv", GOOD.replace("\n", "\r\n").encode()),
        ("samples.csv", GOOD.replace("\n", "\r").encode()),
        ("samples.csv", ("sep=;\n" + GOOD.replace(",", ";")).encode()),
        ("samples.txt", GOOD.encode()),
        ("samples.txt", GOOD.replace(",", "\t").encode()),
        ("samples.txt", GOOD.replace(",", ";").encode()),
        ("samples.TAB", GOOD.replace(",", "\t").encode()),
        (
            "samples.csv",
            GOOD.replace("sample,platform,path,condition", "Sample,PLATFORM, Path ,Condition").encode(),
        ),
        ("samples.csv", GOOD.replace("a,visium", "\u200ba\u00a0,\ufeffvisium").encode()),
        ("samples.csv", GOOD.replace("Müller", "“Mu\u0308ller”").replace("path", "“path”").encode()),
        ("samples.csv", GOOD.replace("\n", ",,\n").encode() + b",,,,,\n"),
        ("samples.csv", GOOD.replace("b,visium,y,", "b,visium,y,,,,").encode()),
    ],
)
def test_a_sheet_is_the_same_however_a_program_writes_it(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    rows, faults = validation.read_sheet(path, config.load_schema("samples"))
    assert not faults.items
    taken = [[row[column] for column in ("sample", "platform", "path", "condition", "clinical")] for row in rows]
    assert taken == [["a", "visium", "x", "Müller", {}], ["b", "visium", "y", "", {}]]


@pytest.mark.parametrize("case", CASES)
def test_one_mistake_is_one_fault(tmp_path, case):
    mistakes = {"a missing value of R": 2}.get(case, 1)
    assert len(faults_of(tmp_path, CASES[case][0]).splitlines()) == mistakes


def test_a_known_column_is_known_with_blanks_and_capitals(tmp_path):
    (tmp_path / "samples.tsv").write_text("sample\tplatform\tpath\tLabels Column\tgrade\na\tvisium\tx\ttype\t7\n")
    (row,), faults = validation.read_sheet(tmp_path / "samples.tsv", config.load_schema("samples"))
    assert not faults
    assert (row["labels_column"], row["clinical"]) == ("type", {"grade": "7"})
