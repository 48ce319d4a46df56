"""A small atlas whose truth is known, for the tests of the models."""

import numpy as np
import pandas as pd

from histoweft.atlas.voxels import Voxels
from histoweft.simulate.atlas import STRUCTURES, draw_atlas

OPTIONS = {
    "input": "atlas.npz", "protocols": ["random", "block", "hemisphere"], "midline": "middle", "model": "residual",
    "compare": ["reference"], "latent": 12, "n_genes": 100, "clip": 10.0, "scaling": "zscore", "folds": 3,
    "buffer_voxels": 1.5, "epochs": 12,
    "reference": {"epochs": 2, "kl": 1.0, "classification": 0.5, "regression": 1.0},
}  # fmt: skip


def atlas(n: int = 700, seed: int = 0) -> Voxels:
    """Return the simulated organ: two halves, four structures, gaps."""
    made = draw_atlas(seed, n)
    expression = np.where(made.expression < 0, np.nan, made.expression).astype(np.float32)
    structures = pd.DataFrame(STRUCTURES, columns=["id", "acronym", "name", "parent"])
    depth = {0: -1}
    for row in structures.itertuples():
        depth[row.id] = depth[row.parent] + 1
    structures["depth"] = [depth[one] for one in structures["id"]]
    place = made.coordinates
    return Voxels(
        expression, place.astype(np.float32), made.genes, 200.0, made.annotation.shape,
        (made.annotation.shape[2] - 1) / 2, made.annotation[tuple(place.T)].astype(np.int32), structures,
    )  # fmt: skip
