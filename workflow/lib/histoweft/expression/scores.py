"""How well clusters agree with expert labels."""

from __future__ import annotations

import pandas as pd

from histoweft.graph.leiden import column_name
from histoweft.metrics import adjusted_rand_index, metric_row

FLOOR = "floor:leiden"


def clusters_against_labels(
    clusters: pd.DataFrame, labels: pd.Series | None, chosen: float, *, study: str, sample: str, n_genes: int
) -> list[dict]:
    """Compare each resolution's clusters with expert labels.

    Leiden on expression alone knows nothing of space; it is the floor of the domain task.

    Parameters
    ----------
    clusters
        Index: barcodes; one column ``leiden_<resolution>`` each.
    labels
        Expert labels of the same barcodes, missing where a barcode has none; None where the sheet gives none.
    chosen
        The resolution used downstream; its row says ``default``.
    study, sample
        For the rows.
    n_genes
        Genes of the sample, for the panel.

    Returns
    -------
    Rows of the metrics table; none without at least two labels.
    """
    if labels is None:
        return []
    labelled = labels.loc[clusters.index].dropna()
    if labelled.nunique() < 2:
        return []
    rows = []
    for name in (column for column in clusters if column != "leiden"):
        found = clusters.loc[labelled.index, name]
        notes = [f"resolution {name.removeprefix('leiden_')}", f"{found.nunique()} clusters"]
        rows.append(
            metric_row(
                study, "expression", "domains", FLOOR, sample, "truth", "ari",
                adjusted_rand_index(found, labelled.astype(str)), n=len(labelled), panel=f"all genes ({n_genes})",
                note="; ".join(["default", *notes] if name == column_name(chosen) else notes),
            )
        )  # fmt: skip
    return rows
