"""Urls in a sheet: fetched from a registered address, checked, unpacked; nothing is kept of what does not fit."""

import functools
import hashlib
import http.server
import shutil
import threading

import pytest

REGISTRY = "key\turl\tsha256\tbytes\tlicence\tdescription\n"


@pytest.fixture
def server(tmp_path):
    """Serve a folder on the loopback address; give the folder and its url."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{served.server_port}"
    served.shutdown()


@pytest.fixture
def archive(server, demo):
    """Serve a section as one archive with a folder inside, as people pack them."""
    folder, _ = server
    section = demo.root / "results" / "demo" / "simulated" / "P1_pre"
    shutil.make_archive(folder / "section", "gztar", root_dir=section.parent, base_dir=section.name)
    return folder / "section.tar.gz"


def study(checkout, base, digest):
    url = f"{base}/section.tar.gz"
    (checkout.root / "registry.tsv").write_text(REGISTRY + f"section\t{url}\t{digest}\t\tCC0\ta section\n")
    (checkout.root / "samples.tsv").write_text(f"sample\tplatform\tpath\nfar\tvisium\t{url}\n")
    return checkout.configure("far.yaml", "study: far\nsamples: samples.tsv\nregistry: registry.tsv\n")


def test_a_registered_archive_is_fetched_unpacked_and_read(checkout, server, archive):
    config = study(checkout, server[1], hashlib.sha256(archive.read_bytes()).hexdigest())
    checkout.run("--configfile", config, "--", "results/far/samples/far/filtered.h5ad")
    import h5py

    with h5py.File(checkout.root / "results/far/samples/far/filtered.h5ad") as file:
        assert file["X"].attrs["shape"][0] > 500
    unpacked = list((checkout.root / "resources/data/unpacked").rglob("tissue_positions.csv"))
    assert len(unpacked) == 1
    assert not list((checkout.root / "resources").rglob(".partial.*"))


def test_another_content_than_registered_is_refused_and_not_kept(checkout, server, archive):
    config = study(checkout, server[1], "0" * 64)
    code, text = checkout.run("--configfile", config, "--", "results/far/samples/far/filtered.h5ad", check=False)
    assert code != 0
    assert "0" * 64 in text
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in text
    assert not [path for path in (checkout.root / "resources/data").rglob("*") if path.is_file()]
