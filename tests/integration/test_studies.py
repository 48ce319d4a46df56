"""Every study folder: its sheet and config are valid, and the real data pass from ingest to clusters."""

import pandas as pd
import pytest
import yaml

from histoweft import study
from histoweft.ingest.fetch import load_downloads

ATLASES = ("bdtnp", "atlas_sim", "allen_ish")
DOWNLOADED = ("visium_mouse_brain",)  # run in test_fetch.py, from a server of our own
PREPARED = ("mixed_blood",)  # its inputs are made of those of another study: see test_evidence.py
BULK = ("icb",)
# Spots after QC, and clusters at the chosen resolution: wide enough for other versions, too narrow for a reading error.
EXPECTED = {
    "dlpfc": {"151673": (3500, 3639), "151674": (3500, 3673)},
    "mob": {"MOB1": (370, 379), "MOB2": (395, 407), "MOB3": (430, 438)},
    "her2st": {"A1": (330, 346), "B1": (285, 295), "D1": (290, 306), "E1": (560, 587)},
    "fetus": {"fetus": (1000, 2898)},
    "xenium": {"brain": (30000, 36553)},
    "merfish": {"bregma_0.26": (5000, 5584), "bregma_0.21": (5000, 5578)},
    "osmfish": {"osmfish": (4000, 4839)},
    "starmap": {"BY3": (1400, 1549)},
    "pbmc": {"pbmc": (3600, 3774)},
    "pancreas": {"pancreas": (3600, 3696)},
    "sc_mixology": {
        "dropseq": (200, 210),
        "celseq2_5cl_p1": (140, 156),
        "celseq2_5cl_p2": (140, 163),
        "celseq2_5cl_p3": (230, 252),
    },
}
QUICK = ("her2st", "dlpfc", "merfish")


def test_every_study_folder_is_covered(repo):
    folders = {path.name for path in (repo / "config" / "studies").iterdir() if path.is_dir()}
    assert folders == {*EXPECTED, *ATLASES, *DOWNLOADED, *PREPARED, *BULK}


def test_every_study_is_in_the_table_and_links_lead_somewhere(repo):
    studies = repo / "config" / "studies"
    table = (studies / "README.md").read_text()
    for folder in (path for path in studies.iterdir() if path.is_dir()):
        assert f"\n| `{folder.name}` |" in table or f"\n| [`{folder.name}`]({folder.name}/README.md) |" in table
        assert (folder / "README.md").is_file() == (f"({folder.name}/README.md)" in table)


@pytest.mark.parametrize("name", BULK)
def test_config_of_bulk_cohorts_is_valid(repo, real_data, name):
    config = yaml.safe_load((repo / "config" / "studies" / name / "config.yaml").read_text())
    assert config["data_root"] == "resources/data"
    loaded, faults = study.load(config | {"data_root": str(real_data)})
    assert not faults, [str(fault) for fault in faults.items]
    assert loaded.name == name


@pytest.mark.parametrize("name", DOWNLOADED)
def test_every_download_of_a_study_is_listed(repo, name, monkeypatch):
    monkeypatch.chdir(repo)
    folder = repo / "config" / "studies" / name
    listed, faults = load_downloads(folder / "downloads.tsv")
    assert not faults, [str(fault) for fault in faults.items]
    assert all(entry.key and entry.licence and entry.description for entry in listed.values())
    used = set()
    for path in folder.glob("*.yaml"):
        loaded, faults = study.load(yaml.safe_load(path.read_text()), str(path))
        assert not faults, [str(fault) for fault in faults.items]
        used |= {row[column] for row in loaded.samples.values() for column in ("path", "positions", "image")}
    assert used == set(listed)


@pytest.mark.parametrize("name", [*EXPECTED, *ATLASES, *DOWNLOADED])
def test_config_and_sheet_are_valid(repo, name, monkeypatch):
    monkeypatch.chdir(repo)
    path = repo / "config" / "studies" / name / "config.yaml"
    loaded, faults = study.load(yaml.safe_load(path.read_text()), str(path))
    assert not faults, [str(fault) for fault in faults.items]
    assert loaded.name == name
    assert loaded.config["data_root"] == "resources/data"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in EXPECTED]
)
def test_real_data_pass_from_ingest_to_clusters(checkout, real_data, name):
    config = f"config/studies/{name}/config.yaml"
    samples = EXPECTED[name]
    targets = [f"results/{name}/samples/{sample}/clusters.parquet" for sample in samples]
    checkout.run("--configfile", config, "--config", f"data_root={real_data.resolve()}", "--", *targets)
    for sample, (low, high) in samples.items():
        clusters = pd.read_parquet(checkout.root / f"results/{name}/samples/{sample}/clusters.parquet")
        assert low <= len(clusters) <= high
        assert 2 <= clusters["leiden"].nunique() <= 60
        assert clusters["leiden"].value_counts().iloc[0] < 0.9 * len(clusters)
