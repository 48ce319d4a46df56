"""Downloads against a server of our own, and archives."""

import hashlib
import io
import tarfile
import zipfile

import pytest
from servers import serving

from histoweft import download
from histoweft.errors import InputError

CONTENT = b"spots and genes\n" * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    files = {"/gone": None}
    moved = {"/away": "ftp://example.org/file"}
    with serving(files, anything=CONTENT, cut=["/short"], moved=moved, busy={"/busy": 999, "/flaky": 2}) as one:
        yield one


def refused(tmp_path, url, digest=DIGEST, tries=3):
    with pytest.raises(InputError) as caught:
        download.fetch(url, digest, tmp_path / "out.bin", tries=tries, wait=0.01, timeout=5)
    assert list(tmp_path.iterdir()) == []
    return str(caught.value)


def test_fetch_writes_the_file(tmp_path, server):
    download.fetch(f"{server.url}/a.bin", DIGEST.upper(), tmp_path / "sub" / "a.bin")
    assert (tmp_path / "sub" / "a.bin").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["a.bin"]


def test_another_file_is_refused_with_both_digests(tmp_path, server):
    message = refused(tmp_path, f"{server.url}/a.bin", "0" * 64)
    assert DIGEST in message
    assert "0" * 64 in message
    assert server.seen == ["/a.bin"]  # no retry: the content will not change


def test_without_a_digest_the_digest_comes_back(tmp_path, server):
    assert download.fetch(f"{server.url}/a.bin", None, tmp_path / "a.bin") == DIGEST
    with pytest.raises(InputError, match="more than 1000 bytes"):
        download.fetch(f"{server.url}/a.bin", None, tmp_path / "b.bin", max_bytes=1000)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_flaky_server_is_tried_again(tmp_path, server):
    download.fetch(f"{server.url}/flaky", DIGEST, tmp_path / "a", wait=0.01)
    assert len(server.seen) == 3


def test_what_fails_for_good(tmp_path, server):
    assert "HTTP status 404" in refused(tmp_path, f"{server.url}/gone")
    assert server.seen == ["/gone"]
    assert "HTTP status 503" in refused(tmp_path, f"{server.url}/busy")
    assert server.seen == ["/gone", "/busy", "/busy", "/busy"]


def test_broken_connection_is_no_file(tmp_path, server):
    message = refused(tmp_path, f"{server.url}/short", tries=2)
    assert "/short" in message
    assert server.seen == ["/short", "/short"]


def test_nothing_listens(tmp_path):
    assert "Check the address" in refused(tmp_path, "http://127.0.0.1:9/x", tries=1)


@pytest.mark.parametrize(
    "url", ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd", "https://u:p@x.org/a"]
)
def test_urls_that_are_not_https(tmp_path, url):
    assert "an https url" in refused(tmp_path, url)


def test_redirect_away_from_https_is_not_followed(tmp_path, server):
    assert "a redirect to ftp://example.org/file" in refused(tmp_path, f"{server.url}/away")


def zipped(path, **members):
    with zipfile.ZipFile(path, "w") as handle:
        for name, content in members.items():
            handle.writestr(name, content)
    return path


def tarred(path, members, kind=None):
    with tarfile.open(path, "w:gz") as handle:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if kind:
                info.type, info.linkname, info.size = kind, "/etc/passwd", 0
            handle.addfile(info, io.BytesIO(content))
    return path


def test_extract(tmp_path):
    one = zipped(tmp_path / "a.zip", **{"spatial/a.csv": "x", "b.h5": "y"})
    two = tarred(tmp_path / "a.tar.gz", {"spatial/a.csv": b"x", "./b.h5": b"y"})
    for number, archive in enumerate((one, two)):
        files = download.extract(archive, tmp_path / f"out{number}")
        assert sorted(str(f.relative_to(tmp_path / f"out{number}")) for f in files) == ["b.h5", "spatial/a.csv"]
        assert (tmp_path / f"out{number}" / "b.h5").read_text() == "y"


@pytest.mark.parametrize("name", ["../evil", "/abs/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_members_outside_the_folder_are_refused(tmp_path, name):
    archives = [
        zipped(tmp_path / "a.zip", **{"good": "x", name: "y"}),
        tarred(tmp_path / "a.tgz", {"good": b"x", name: b"y"}),
    ]
    for archive in archives:
        with pytest.raises(InputError, match="members inside"):
            download.extract(archive, tmp_path / "out")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tgz", "a.zip"]


def test_links_and_damage_are_refused(tmp_path):
    link = tarred(tmp_path / "l.tar.gz", {"link": b""}, tarfile.SYMTYPE)
    with pytest.raises(InputError, match="a link or special file 'link'"):
        download.extract(link, tmp_path / "out")
    whole = tarred(tmp_path / "w.tar.gz", {"a": bytes(range(256)) * 400}).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be unpacked"):
        download.extract(tmp_path / "cut.tar.gz", tmp_path / "out")
    (tmp_path / "bad.zip").write_bytes(b"<html>")
    with pytest.raises(InputError, match="cannot be unpacked"):
        download.extract(tmp_path / "bad.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()
