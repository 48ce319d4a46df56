"""What the fits of the histology stage hand on: predictions of held-out spots, and their scores."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft import io
from histoweft.floors import Factored
from histoweft.histology.panels import Panel
from histoweft.histology.score import FoldScores


def write_predictions(path: str | os.PathLike, folds: Sequence[dict[str, Any]]) -> None:
    """Write what the models of one fit predict.

    Parameters
    ----------
    path
        An ``.npz`` file.
    folds
        For each fold: ``name``; ``test``, row numbers; ``methods``, name to `Factored` of the test spots;
        ``training``, name to the mean Pearson on the training spots; ``runs``, name to facts of the training.
    """
    arrays, facts = {}, []
    for number, fold in enumerate(folds):
        arrays[f"{number}/test"] = fold["test"]
        for method, given in fold["methods"].items():
            for part in ("left", "right", "offset"):
                values = getattr(given, part)
                values = values.toarray() if sp.issparse(values) else np.asarray(values)
                arrays[f"{number}/{method}/{part}"] = values.astype(np.float32)
        facts.append({key: fold[key] for key in ("name", "training", "runs")} | {"methods": list(fold["methods"])})
    arrays["facts"] = np.array(json.dumps(facts))
    with io.atomic(path) as partial, open(partial, "wb") as handle:
        np.savez(handle, **arrays)


def read_predictions(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read what `write_predictions` wrote.

    Raises
    ------
    InputError
        The file is no such thing.
    """
    with io.archive(path, "predictions of the histology stage") as stored:
        facts = json.loads(str(stored["facts"]))
        for number, fold in enumerate(facts):
            fold["test"] = stored[f"{number}/test"]
            fold["methods"] = {
                method: Factored(*(stored[f"{number}/{method}/{part}"] for part in ("left", "right", "offset")))
                for method in fold["methods"]
            }
    return facts


def write_scores(path: str | os.PathLike, folds: Sequence[FoldScores], genes: Sequence[str]) -> None:
    """Write the scores of one fit's folds; genes are stored by name, as sections of a study may differ in theirs."""
    arrays: dict[str, np.ndarray] = {}
    facts = []
    for number, fold in enumerate(folds):
        tables = pd.concat(fold.tables, names=["method"]).reset_index()
        arrays[f"{number}/gene"] = tables["gene"].to_numpy()
        arrays[f"{number}/method"] = tables["method"].to_numpy(dtype=str)
        columns = [name for name in tables.columns if name not in ("gene", "method")]
        for column in columns:
            arrays[f"{number}/scores/{column}"] = tables[column].to_numpy(dtype=float)
        for method, values in fold.replicates.items():
            arrays[f"{number}/replicates/{method}"] = values
        for panel in fold.panels:
            arrays[f"{number}/panels/{panel.name}"] = panel.genes
        facts.append({
            "sample": fold.sample, "fold": fold.fold, "n": fold.n, "columns": columns,
            "methods": list(fold.tables), "replicates": list(fold.replicates),
            "panels": [panel.name for panel in fold.panels],
        })  # fmt: skip
    arrays["genes"], arrays["facts"] = np.asarray(genes, dtype=str), np.array(json.dumps(facts))
    with io.atomic(path) as partial, open(partial, "wb") as handle:
        np.savez_compressed(handle, **arrays)


def read_scores(paths: Sequence[str | os.PathLike]) -> tuple[list[FoldScores], list[str]]:
    """Read the scores of several fits, with one numbering of genes for all.

    Returns
    -------
    folds
        In the order of the files.
    genes
        Names by number.

    Raises
    ------
    InputError
        One of them is no such file.
    """
    genes: dict[str, int] = {}
    folds = []
    for path in paths:
        with io.archive(path, "scores of the histology stage") as stored:
            number_of = np.array([genes.setdefault(str(gene), len(genes)) for gene in stored["genes"]])
            folds += [_read_fold(stored, i, fold, number_of) for i, fold in enumerate(json.loads(str(stored["facts"])))]
    return folds, list(genes)


def _read_fold(stored: Any, number: int, facts: dict[str, Any], number_of: np.ndarray) -> FoldScores:
    table = pd.DataFrame({column: stored[f"{number}/scores/{column}"] for column in facts["columns"]})
    table.index = pd.Index(number_of[stored[f"{number}/gene"]], name="gene")
    method = stored[f"{number}/method"]
    tables = {name: table[method == name].dropna(axis=1, how="all") for name in facts["methods"]}
    return FoldScores(
        facts["sample"], facts["fold"], facts["n"],
        [Panel(name, number_of[stored[f"{number}/panels/{name}"]]) for name in facts["panels"]],
        tables, {name: stored[f"{number}/replicates/{name}"] for name in facts["replicates"]},
    )  # fmt: skip
