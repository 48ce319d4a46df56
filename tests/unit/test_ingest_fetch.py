"""The data registry."""

from histoweft.ingest import fetch

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


def test_the_projects_own_registry_is_sound(repo):
    _, faults = fetch.load_registry(repo / "resources" / "registry.tsv")
    assert [str(f) for f in faults.items] == []
