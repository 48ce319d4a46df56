"""What a trajectory has to beat: orders and fates that need no random walk."""

from __future__ import annotations

import numpy as np
import pandas as pd

from histoweft.trajectory.cells import Cells
from histoweft.trajectory.fit import FATE, Fit

ORDERS = ("gene_count", "cytotrace_order", "pc1")
NEAREST = "nearest_terminal"


def floor_table(cells: Cells, found: Fit) -> pd.DataFrame:
    """Order and assign the cells without a walk.

    Parameters
    ----------
    cells, found
        The cells, and the trajectory whose root and terminal cells the floors are told.

    Returns
    -------
    Index: barcodes; gene_count (few genes detected are late), cytotrace_order (1 - CytoTRACE), pc1 (first principal
    component, turned so that the root is early), and for each terminal state ``fate_<name>``: inverse distance to the
    middle of its core among principal components, scaled to sum to one.
    """
    first = cells.points[:, 0] * (1 if cells.points[found.root, 0] <= np.median(cells.points[:, 0]) else -1)
    columns = {"gene_count": -cells.n_genes, "cytotrace_order": 1 - found.cytotrace, "pc1": first}
    distance = np.column_stack(
        [np.linalg.norm(cells.points - cells.points[core].mean(axis=0), axis=1) for core in found.ends]
    )
    near = 1 / np.maximum(distance, 1e-9)
    near /= near.sum(axis=1, keepdims=True)
    columns |= {f"{FATE}{name}": near[:, k] for k, name in enumerate(found.names)}
    return pd.DataFrame(columns, index=cells.barcodes)
