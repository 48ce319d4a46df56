"""The data registry."""

import ingest_cases as cases

from histoweft import study
from histoweft.ingest import fetch, inputs

DIGEST = "0123456789abcdef" * 4


def test_registry_reads_and_names_every_bad_line(tmp_path):
    path = tmp_path / "registry.tsv"
    good = f"a\thttps://example.org/x/a%20b.h5\t{DIGEST.upper()}\t10\tCC-BY-4.0\twhat"
    path.write_text(
        "key\turl\tsha256\tbytes\tlicence\tdescription\n"
        f"{good}\n"
        f"b\thttp://example.org/b\t{DIGEST}\t\t\t\n"
        "c\thttps://example.org/c\t12ab\tmany\t\t\n"
        f"{good}\n"
    )
    entries, faults = fetch.load_registry(path)
    (entry,) = entries.values()
    assert (entry.key, entry.sha256, entry.bytes, entry.file_name) == ("a", DIGEST, 10, "a_b.h5")
    assert [fault.where.split("registry.tsv, ")[1] for fault in faults.items] == [
        "line 3, column url",
        "line 4, column sha256",
        "line 4, column bytes",
        "line 5, column url",
    ]


def test_registry_without_columns_or_file(tmp_path):
    (tmp_path / "r.tsv").write_text("key\turl\tsha265\n")
    _, faults = fetch.load_registry(tmp_path / "r.tsv")
    assert faults.items[0].hint == "The nearest name there is 'sha265': rename it?"
    _, faults = fetch.load_registry(tmp_path / "none.tsv")
    assert "No such file" in faults.items[0].found


def test_matrix_and_spatial_folder_are_fetched_apart_or_one_of_them(tmp_path):
    """A section may come as several files: what is downloaded is an input, what lies here is looked at in the job."""
    matrix = cases.visium(tmp_path / "here") / "filtered_feature_bc_matrix.h5"
    (tmp_path / "registry.tsv").write_text(
        "key\turl\tsha256\n"
        f"m\thttps://x.org/m.h5\t{DIGEST}\ns\thttps://x.org/spatial.tar.gz\t{DIGEST}\ni\thttps://x.org/i.tif\t{DIGEST}\n"
    )
    (tmp_path / "samples.tsv").write_text(
        "sample\tplatform\tpath\tpositions\timage\n"
        "far\tvisium\thttps://x.org/m.h5\thttps://x.org/spatial.tar.gz\thttps://x.org/i.tif\n"
        f"half\tvisium\t{matrix}\thttps://x.org/spatial.tar.gz\t\n"
        "lost\tvisium\thttps://x.org/other file.h5\t\t\n"
    )
    config = {"study": "s", "samples": str(tmp_path / "samples.tsv"), "registry": str(tmp_path / "registry.tsv")}
    loaded, faults = study.load(config)
    assert not faults
    found, faults = inputs.discover_all(loaded, {})
    spatial = f"resources/data/unpacked/{DIGEST[:16]}/spatial.tar.gz"
    fetched = f"resources/data/fetched/{DIGEST[:16]}"
    assert [str(path) for path in found["far"].files] == [f"{fetched}/m.h5", spatial, f"{fetched}/i.tif"]
    assert [str(path) for path in found["half"].files] == [str(matrix), spatial]
    hints = [fault.hint for fault in faults.items if fault.found == "https://x.org/other file.h5"]
    assert len(hints) == 1
    assert "`./histoweft register 'https://x.org/other file.h5'`" in hints[0]


def test_the_projects_own_registry_is_sound(repo):
    _, faults = fetch.load_registry(repo / "resources" / "registry.tsv")
    assert [str(f) for f in faults.items] == []
