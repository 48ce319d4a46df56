"""Every study folder: its sheet and config are valid, and the real data pass from ingest to clusters."""

import pandas as pd
import pytest
import yaml

from histoweft import study

ATLASES = ("bdtnp", "atlas_sim", "allen_ish")
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
    "sc_mixology": {
        "dropseq": (200, 210),
        "celseq2_5cl_p1": (140, 156),
        "celseq2_5cl_p2": (140, 163),
        "celseq2_5cl_p3": (230, 252),
    },
}
QUICK = ("her2st", "dlpfc", "merfish")


def test_every_study_folder_is_covered(repo):
    assert {path.name for path in (repo / "config" / "studies").iterdir() if path.is_dir()} == set(EXPECTED) | set(
        ATLASES
    )


@pytest.mark.parametrize("name", [*EXPECTED, *ATLASES])
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
