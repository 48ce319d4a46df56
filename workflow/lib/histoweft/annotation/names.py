"""Words that the rules share with the library; standard library only, so that a Snakefile can import it."""

from __future__ import annotations

LOGISTIC, KNN, TRANSFORMER, GNN = "logistic", "knn", "transformer", "gnn"
MODELS = (LOGISTIC, KNN, TRANSFORMER, GNN)
NETWORKS = (TRANSFORMER, GNN)

REFERENCE_NAME = "reference"
"""What stands for ``{sample}`` in the path of the reference's embedding."""
PARQUET = ".parquet"

SPOT_PLATFORMS = ("visium", "visium_hd", "st")
"""Platforms whose spots or bins may hold several cells."""
