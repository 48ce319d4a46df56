"""Urls in a sheet: fetched from a registered address, checked, unpacked; nothing is kept of what does not fit."""

import functools
import hashlib
import http.server
import shutil
import subprocess
import sys
import threading

import pandas as pd
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


TENX = "https://cf.10xgenomics.com/samples/spatial-exp"
STUDY = "config/studies/visium_mouse_brain"
SAMPLES = "results/visium_mouse_brain/samples"


def serve_as_10x(section, url, folder):
    """Lay out a simulated section as 10x Genomics does: matrix, archive of spatial/, image at full resolution."""
    from PIL import Image

    target = folder / url.removeprefix(f"{TENX}/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".h5":
        shutil.copy(section / "filtered_feature_bc_matrix.h5", target)
    elif target.suffix == ".gz":
        shutil.make_archive(target.with_suffix("").with_suffix(""), "gztar", root_dir=section, base_dir="spatial")
    else:
        factor = pd.read_json(section / "spatial" / "scalefactors_json.json", typ="series")["tissue_hires_scalef"]
        with Image.open(section / "spatial" / "tissue_hires_image.png") as image:
            image.resize([round(side / factor) for side in image.size]).save(target)


@pytest.fixture
def brain(checkout, server):
    """Serve simulated sections in place of the mouse brain's; return a way of registering what the study lists."""
    folder, base = server
    sections = {"ffpe_1": "P1_pre", "ffpe_2": "P1_post", "fresh_frozen": "P2_pre"}
    checkout.run("--", *(f"results/demo/simulated/{name}/filtered_feature_bc_matrix.h5" for name in sections.values()))
    listed = pd.read_csv(checkout.root / STUDY / "downloads.tsv", sep="\t")
    for key, url in zip(listed["key"], listed["url"], strict=True):
        sample = key.removeprefix("visium_mouse_brain_").rpartition("_")[0]
        serve_as_10x(checkout.root / "results/demo/simulated" / sections[sample], url, folder)
    for name in ("downloads.tsv", "samples.tsv", "fresh_frozen.tsv"):
        sheet = checkout.root / STUDY / name
        sheet.write_text(sheet.read_text().replace(TENX, base))

    def register():
        command = [sys.executable, "tools/register.py", "--from", f"{STUDY}/downloads.tsv"]
        done = subprocess.run(command, cwd=checkout.root, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return register


def test_a_study_is_registered_once_and_every_later_download_is_checked(checkout, server, brain):
    config = f"{STUDY}/config.yaml"
    code, text = checkout.run("-n", "--configfile", config, check=False)
    assert code != 0
    assert "6 faults" in text
    assert f"`./histoweft register --from {STUDY}/downloads.tsv`" in text

    code, text = brain()
    assert code == 0, text
    registry = checkout.root / "resources" / "registry.tsv"
    registered = pd.read_csv(registry, sep="\t")
    assert len(registered) == 9
    for row in registered.itertuples():
        content = (server[0] / row.url.removeprefix(f"{server[1]}/")).read_bytes()
        assert (row.sha256, row.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    planned = checkout.planned("--configfile", config)
    assert planned["unpack"] == planned["ingest_image"] == 2
    assert "fetch" not in planned  # the files lie where they were registered
    assert planned["cross_validate"] == 4  # each section from the other, and blocks of each

    shutil.rmtree(checkout.root / "resources" / "data")
    targets = [f"{SAMPLES}/ffpe_1/clusters.parquet", f"{SAMPLES}/ffpe_1/image.tif", f"{SAMPLES}/ffpe_2/counts.h5ad"]
    assert checkout.planned("--configfile", config, "--", *targets)["fetch"] == 6
    checkout.run("--configfile", config, "--", *targets)
    clusters = pd.read_parquet(checkout.root / targets[0])
    assert len(clusters) > 500
    assert 2 <= clusters["leiden"].nunique() <= 20

    lines = registry.read_bytes()
    shutil.rmtree(checkout.root / "resources" / "data")
    first = registered.iloc[0]
    (server[0] / first["url"].removeprefix(f"{server[1]}/")).write_bytes(b"another file")
    target = f"resources/data/fetched/{first['sha256'][:16]}/{first['url'].rpartition('/')[2]}"
    code, text = checkout.run("--configfile", config, "--", target, check=False)
    assert code != 0
    assert "The file has changed since it was registered" in text
    code, text = brain()
    assert code != 0
    assert f"{first['sha256']}, as in resources/registry.tsv" in text
    assert registry.read_bytes() == lines
    assert not (checkout.root / target).exists()
