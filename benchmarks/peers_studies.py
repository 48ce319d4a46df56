"""Studies in which the methods of benchmarks/peers stand beside ours: cortex, sorted blood cells, spots mixed of these.

    python benchmarks/peers_studies.py <folder of the data sets> <folder for the studies>

writes a config for each, with spots of 2 to 15 cells mixed from half of the blood cells (the other half is the
reference), and prints the command that scores ours and theirs.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "lib"))

import numpy as np
import pandas as pd
import scipy.sparse as sp
import yaml

from histoweft.annotation.deconvolve_simulate import simulate_spots
from histoweft.io import CountsFile, CsrWriter

ROOT = Path(__file__).resolve().parents[1]
SPOTS, SIDE, PITCH_UM = 400, 20, 100.0
REFERENCE, LABELS = "pbmc_facs_zheng/pbmc_facs.h5ad", "celltype_facs"


OURS = {
    "peers_dlpfc": "space/domain_metrics.tsv",
    "peers_pbmc": "annotation/metrics.tsv",
    "peers_mixed": "annotation/deconvolution/metrics.tsv",
}
"""Where the stage writes our own scores."""


def submission(stage: str, name: str) -> dict[str, str]:
    """Return the config's line for a peer."""
    return {"stage": stage, "name": name, "file": str(ROOT / "benchmarks" / "peers" / f"{name}.py")}


def studies(data: Path, folder: Path) -> dict[str, dict]:
    """Return the configs by name."""
    annotation = {"reference": REFERENCE, "labels": LABELS, "compare": ["knn"]}
    return {
        "peers_dlpfc": {
            "samples": str(ROOT / "config" / "studies" / "dlpfc" / "samples.tsv"), "data_root": str(data),
            "space": {"domains": {"n": 7}},
            "submissions": [submission("domains", "spagcn"), submission("domains", "graphst")],
        },
        "peers_pbmc": {
            "samples": str(ROOT / "config" / "studies" / "pbmc" / "samples.tsv"), "data_root": str(data),
            "annotation": annotation, "submissions": [submission("annotation", "celltypist")],
        },
        "peers_mixed": {
            "samples": str(folder / "mixed.tsv"), "data_root": str(folder),
            "annotation": {"reference": "half.h5ad", "labels": "label", "deconvolve": "always"},
            "submissions": [submission("deconvolution", "flashdeconv")],
        },
    }  # fmt: skip


def mix(source: Path, folder: Path) -> None:
    """Write spots mixed from half of the cells, and the other half."""
    with CountsFile(source) as counts:
        cells, obs, var = counts.matrix().astype(np.int64), counts.obs(), counts.var()
    mixed = np.zeros(len(obs), dtype=bool)
    mixed[np.random.default_rng(0).permutation(len(obs))[: len(obs) // 2]] = True
    types, codes = np.unique(obs[LABELS].astype(str), return_inverse=True)
    spots = simulate_spots(cells[mixed], codes[mixed], len(types), SPOTS, depth=0.5, platform_sd=0.3, seed=1)
    number = np.arange(SPOTS)
    xy = np.column_stack([number % SIDE, number // SIDE]) * PITCH_UM
    write(folder / "spots.h5ad", spots.counts, pd.DataFrame(index=[f"spot{i}" for i in number]), var, {"spatial": xy})
    labels = pd.DataFrame({"label": pd.Categorical(obs[LABELS].astype(str)[~mixed])}, index=obs.index[~mixed])
    write(folder / "half.h5ad", cells[~mixed], labels, var, {})


def write(path: Path, counts: sp.csr_matrix, obs: pd.DataFrame, var: pd.DataFrame, obsm: dict[str, np.ndarray]) -> None:
    """Write one h5ad."""
    with CsrWriter(path, counts.shape[1], np.int32) as writer:
        writer.append(counts.astype(np.int32))
        writer.finish(obs, var, obsm=obsm)


def main() -> int:
    """Write the studies and say how to run them."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    data, folder = (Path(argument).resolve() for argument in sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    mix(data / REFERENCE, folder)
    (folder / "mixed.tsv").write_text("sample\tplatform\tpath\tmpp\nmixed\th5ad\tspots.h5ad\t1.0\n", encoding="utf-8")
    for name, config in studies(data, folder).items():
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"study": name, **config}, sort_keys=False), encoding="utf-8")
        targets = [f"results/{name}/{OURS[name]}"]
        targets += [
            f"results/{name}/submissions/{one['stage']}/{one['name']}/metrics.tsv" for one in config["submissions"]
        ]
        print(f"snakemake --use-conda --cores 1 --configfile {path} -- {' '.join(targets)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
