"""Registering downloads against a server of our own: what is written, what is refused, what stays as it was."""

import hashlib
import runpy

import pytest
from servers import serving

from histoweft.errors import InputError
from histoweft.ingest import fetch, inputs
from histoweft.ingest.fetch import Entry
from histoweft.ingest.register import register

HEADER = "key\turl\tsha256\tbytes\tlicence\tdescription\n"
QUICK = {"tries": 2, "wait": 0.01, "timeout": 5}


@pytest.fixture
def server():
    files = {"/a.h5": b"counts" * 999, "/b.tar.gz": b"spatial", "/cut": b"half" * 999}
    with serving(files, cut=["/cut"]) as one:
        yield one


@pytest.fixture
def registry(tmp_path):
    path = tmp_path / "registry.tsv"
    path.write_text(HEADER + f"old\thttps://example.org/old.h5\t{'ab' * 32}\t12\tCC0\t\n")
    return path


def digest(content):
    return hashlib.sha256(content).hexdigest()


def call(registry, *entries):
    return list(register(entries, registry, registry.parent, **QUICK))


def downloaded(folder):
    return sorted(str(path.relative_to(folder)) for path in (folder / "resources").rglob("*") if path.is_file())


def test_a_file_is_written_down_and_kept_where_the_workflow_looks(registry, server):
    before = registry.read_bytes()
    (said,) = call(registry, Entry("a", f"{server.url}/a.h5", "", licence="CC BY 4.0", description="a  section\n"))
    sha256 = digest(server.files["/a.h5"])
    assert said.endswith(f"5,994 bytes, sha256 {sha256}; added to {registry}, trusted at first use")
    line = f"a\t{server.url}/a.h5\t{sha256}\t5994\tCC BY 4.0\ta section\n"
    assert registry.read_bytes() == before + line.encode()
    entries, faults = fetch.load_registry(registry)
    assert not faults
    assert (registry.parent / inputs.download_path(entries[f"{server.url}/a.h5"])).read_bytes() == server.files["/a.h5"]
    assert [path.name for path in (registry.parent / inputs.FETCHED).iterdir()] == [sha256[:16]]


def test_a_registry_is_made_where_there_is_none_and_a_last_line_is_closed(tmp_path, server):
    entry = Entry("b", f"{server.url}/b.tar.gz", "")
    call(tmp_path / "new.tsv", entry)
    assert (tmp_path / "new.tsv").read_text().startswith(HEADER + "b\t")
    (tmp_path / "short.tsv").write_text(f"url\tkey\tsha256\nhttps://example.org/o\told\t{'ab' * 32}")
    call(tmp_path / "short.tsv", entry)
    assert (tmp_path / "short.tsv").read_text().splitlines()[1:] == [
        f"https://example.org/o\told\t{'ab' * 32}",
        f"{server.url}/b.tar.gz\tb\t{digest(b'spatial')}",
    ]


def test_what_is_registered_is_compared_and_its_line_left_alone(registry, server):
    entry = Entry("a", f"{server.url}/a.h5", "")
    call(registry, entry)
    before, stamp = registry.read_bytes(), registry.stat().st_mtime_ns
    (said,) = call(registry, entry)
    assert said.endswith("registered already, and downloaded")
    assert server.seen == ["/a.h5"]
    for path in (registry.parent / inputs.FETCHED).rglob("a.h5"):
        path.write_bytes(b"damaged")
    (said,) = call(registry, entry)
    assert said.endswith("its line stays as it is")
    assert server.seen == ["/a.h5"] * 2
    assert (registry.read_bytes(), registry.stat().st_mtime_ns) == (before, stamp)
    assert digest(server.files["/a.h5"]) == digest(next((registry.parent / inputs.FETCHED).rglob("a.h5")).read_bytes())


def test_another_file_than_registered_is_refused_in_plain_words(registry, server):
    entry = Entry("a", f"{server.url}/a.h5", "")
    call(registry, entry)
    before = registry.read_bytes()
    for path in (registry.parent / inputs.FETCHED).rglob("a.h5"):
        path.unlink()
    old, server.files["/a.h5"] = digest(server.files["/a.h5"]), b"other counts"
    with pytest.raises(InputError) as caught:
        call(registry, entry)
    message = str(caught.value)
    assert f"found sha256 {digest(b'other counts')} (12 bytes); expected sha256 {old}, as in {registry}" in message
    assert "not the file that was registered, so nothing is changed" in message
    assert registry.read_bytes() == before
    assert downloaded(registry.parent) == []


def test_a_sha256_that_the_list_knows_must_be_that_of_the_file(registry, server):
    before = registry.read_bytes()
    with pytest.raises(InputError, match=f"expected sha256 {'0' * 64}"):
        call(registry, Entry("a", f"{server.url}/a.h5", "0" * 64))
    assert registry.read_bytes() == before
    (said,) = call(registry, Entry("a", f"{server.url}/a.h5", digest(server.files["/a.h5"])))
    assert said.endswith(f"added to {registry}")
    with pytest.raises(InputError, match="One of the two is out of date"):
        call(registry, Entry("a", f"{server.url}/a.h5", "0" * 64))


def test_nothing_is_downloaded_when_an_address_or_the_registry_is_bad(registry, server):
    good = Entry("a", f"{server.url}/a.h5", "")
    bad = [Entry(x, x, "") for x in ("http://example.org/a.h5", "ftp://example.org/a", "https://u:p@example.org/a")]
    with pytest.raises(InputError) as caught:
        call(registry, good, *bad)
    assert [fault.found for fault in caught.value.faults] == [entry.url for entry in bad]
    assert {fault.expected for fault in caught.value.faults} == {"an https url without user name"}
    registry.write_text(HEADER + "x\thttps://example.org/x\tnone\t\t\t\n")
    with pytest.raises(InputError, match="line 2, column sha256"):
        call(registry, good)
    assert server.seen == []
    assert downloaded(registry.parent) == []


def test_an_interrupted_or_missing_download_leaves_the_registry_and_does_not_stop_the_others(registry, server):
    before = registry.read_bytes()
    with pytest.raises(InputError):
        call(registry, Entry("cut", f"{server.url}/cut", ""))
    assert registry.read_bytes() == before
    assert downloaded(registry.parent) == []
    with pytest.raises(InputError) as caught:
        call(registry, *(Entry(name, f"{server.url}/{name}", "") for name in ("cut", "gone", "a.h5")))
    assert [fault.where for fault in caught.value.faults] == [f"{server.url}/cut", f"{server.url}/gone"]
    assert list(fetch.load_registry(registry)[0])[1:] == [f"{server.url}/a.h5"]


def test_a_stop_in_the_middle_leaves_the_registry(registry, server, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("histoweft.download._stream", stop)
    before = registry.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        call(registry, Entry("a", f"{server.url}/a.h5", ""))
    assert registry.read_bytes() == before
    assert list((registry.parent / inputs.FETCHED).iterdir()) == []


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>", b"\n <HTML>log in", b"\xef\xbb\xbf<?xml version='1.0'?>"])
def test_a_web_page_instead_of_a_file_is_refused(registry, server, page):
    server.files["/a.h5"] = page
    with pytest.raises(InputError, match=r"found a web page; expected the file a\.h5"):
        call(registry, Entry("a", f"{server.url}/a.h5", ""))
    server.files["/page.html"] = page
    assert len(call(registry, Entry("page", f"{server.url}/page.html", ""))) == 1


def test_a_list_of_downloads_needs_no_sha256(tmp_path):
    path = tmp_path / "downloads.tsv"
    path.write_text("key\turl\tlicence\na\thttps://example.org/a\tCC0\nb\thttp://example.org/b\t\n")
    entries, faults = fetch.load_downloads(path)
    assert entries["https://example.org/a"] == Entry("a", "https://example.org/a", "", licence="CC0")
    assert [fault.where for fault in faults.items] == [f"{path}, line 3, column url"]
    path.write_text("key\turl\tsha256\na\thttps://example.org/a\t12ab\n")
    assert [fault.found for fault in fetch.load_downloads(path)[1].items] == ["12ab"]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://x.org/a/b%20c.h5?v=1", "b_c.h5"),
        ("https://x.org/", "the_key"),
        ("https://x.org/%2e%2e", "the_key"),
        ("https://x.org/.a.h5", "a.h5"),
    ],
)
def test_file_names_are_safe(url, name):
    assert Entry("the/key", url, "").file_name == name
    assert Entry("", "https://x.org/..", "").file_name == "file"


@pytest.fixture
def tool(repo, tmp_path, monkeypatch):
    """Return the command, run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return runpy.run_path(str(repo / "tools" / "register.py"))["main"]


def test_the_command_takes_urls_and_a_list(tool, tmp_path, server, capsys):
    (tmp_path / "downloads.tsv").write_text(f"key\turl\tdescription\nspatial\t{server.url}/b.tar.gz\tpositions\n")
    tool([f"{server.url}/a.h5", "--licence", "CC0", "--from", "downloads.tsv"])
    entries, _ = fetch.load_registry(tmp_path / "resources" / "registry.tsv")
    assert [(e.key, e.licence, e.description) for e in entries.values()] == [
        ("a.h5", "CC0", ""),
        ("spatial", "", "positions"),
    ]
    assert capsys.readouterr().out.count("added to resources/registry.tsv") == 2


def test_the_command_says_what_is_wrong_without_a_traceback(tool, capsys):
    with pytest.raises(SystemExit) as caught:
        tool(["http://x.org/a"])
    assert str(caught.value).startswith(
        "register: 1 fault in what this study was given:\n  1. url: found http://x.org/a"
    )
    with pytest.raises(SystemExit):
        tool([])
    assert "give urls, or --from a table" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="No such file"):
        tool(["--from", "none.tsv"])


def test_a_folder_that_cannot_be_written_is_said(tool, tmp_path, server):
    (tmp_path / "resources").write_text("a file in the way")
    with pytest.raises(SystemExit, match=r"register: .*resources"):
        tool([f"{server.url}/a.h5"])
