"""Mix spots from half of the sorted blood cells; the other half is the reference.

python config/studies/mixed_blood/prepare.py <folder of the data sets> results/mixed_blood/inputs
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "workflow" / "lib"))

import numpy as np
import pandas as pd

from histoweft.annotation.deconvolve_simulate import simulate_spots
from histoweft.io import CountsFile, CsrWriter

SOURCE, LABELS = "pbmc_facs_zheng/pbmc_facs.h5ad", "celltype_facs"
SPOTS, SIDE, PITCH_UM = 400, 20, 100.0


def mix(source, folder):
    """Write spots of 2 to 15 cells, and the cells that are in none."""
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


def write(path, counts, obs, var, obsm):
    """Write one h5ad."""
    with CsrWriter(path, counts.shape[1], np.int32) as writer:
        writer.append(counts.astype(np.int32))
        writer.finish(obs, var, obsm=obsm)


def main(arguments):
    """Write both files."""
    if len(arguments) != 2:
        sys.exit(__doc__)
    data, folder = map(Path, arguments)
    folder.mkdir(parents=True, exist_ok=True)
    mix(data / SOURCE, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
