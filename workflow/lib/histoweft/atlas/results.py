"""What a fold hands on: predictions and sums of its held-out voxels, for every method of one job."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from histoweft import io

PCA, RIDGE, KNN, MEAN = "floor:pca", "floor:ridge", "floor:knn", "floor:mean"
MULTISCALE = "multiscale"
NEIGHBOURHOOD = (MULTISCALE,)
"""Methods whose numbers for a voxel are shared with its neighbours."""


@dataclass(frozen=True)
class Result:
    """What one method made of a fold's held-out voxels.

    Attributes
    ----------
    method
        Name in the metrics table.
    n, error, total, pearson
        Of each gene: see `score.Tally`; empty without a reconstruction.
    unit_error
        See `score.Tally`.
    voxel_error
        Of each held-out voxel.
    shown
        Held-out voxels x pictured genes, standardised.
    place
        Held-out voxels x 3, voxels; empty without a prediction.
    latent
        Held-out voxels x dimensions, float16; empty where there is none.
    regions
        Depth to the structure told from the latent.
    history
        One dict an epoch.
    facts
        Anything else: seconds, choices.
    """

    method: str
    n: np.ndarray = field(default_factory=lambda: np.zeros(0))
    error: np.ndarray = field(default_factory=lambda: np.zeros(0))
    total: np.ndarray = field(default_factory=lambda: np.zeros(0))
    pearson: np.ndarray = field(default_factory=lambda: np.zeros(0))
    unit_error: float = 0.0
    voxel_error: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    shown: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    place: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    latent: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    regions: dict[int, np.ndarray] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FoldResult:
    """Results of all methods of one job.

    Attributes
    ----------
    protocol, fold
        Which fold.
    test
        Row numbers of the held-out voxels.
    genes, shown_genes
        Names of the fold's genes, and of those kept for pictures.
    truth
        Held-out voxels x pictured genes, standardised.
    results
        One a method.
    """

    protocol: str
    fold: str
    test: np.ndarray
    genes: np.ndarray
    shown_genes: np.ndarray
    truth: np.ndarray
    results: list[Result]


_ARRAYS = ("n", "error", "total", "pearson", "voxel_error", "shown", "place", "latent")


def write(path: str | os.PathLike, found: FoldResult) -> None:
    """Write the results of a fold as an ``.npz`` file, without pickles."""
    arrays: dict[str, np.ndarray] = {
        "test": found.test, "genes": found.genes.astype(str), "shown_genes": found.shown_genes.astype(str),
        "truth": found.truth,
    }  # fmt: skip
    facts = []
    for number, one in enumerate(found.results):
        arrays |= {f"{number}/{name}": getattr(one, name) for name in _ARRAYS}
        arrays |= {f"{number}/region/{depth}": values for depth, values in one.regions.items()}
        facts.append({
            "method": one.method, "unit_error": one.unit_error, "depths": list(one.regions), "history": one.history,
            "facts": one.facts,
        })  # fmt: skip
    whole = {"protocol": found.protocol, "fold": found.fold, "results": facts}
    arrays["facts"] = np.array(json.dumps(whole, default=float))
    with io.atomic(path) as partial, open(partial, "wb") as handle:
        np.savez(handle, **arrays)


def read(path: str | os.PathLike) -> FoldResult:
    """Read what `write` wrote.

    Raises
    ------
    InputError
        The file is no such thing.
    """
    with io.archive(path, "a fold of the atlas stage") as stored:
        facts = json.loads(str(stored["facts"]))
        results = [
            Result(
                one["method"], unit_error=one["unit_error"], history=one["history"], facts=one["facts"],
                regions={depth: stored[f"{number}/region/{depth}"] for depth in one["depths"]},
                **{name: stored[f"{number}/{name}"] for name in _ARRAYS},
            )
            for number, one in enumerate(facts["results"])
        ]  # fmt: skip
        named = {name: stored[name] for name in ("test", "genes", "shown_genes", "truth")}
        return FoldResult(facts["protocol"], facts["fold"], **named, results=results)
