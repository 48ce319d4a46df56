"""What a trajectory's rule hands on: facts in words, fates without their prefix, and reading it all again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import pandas as pd

from histoweft.io import CountsFile, read_table
from histoweft.trajectory.cells import Cells, read_labels
from histoweft.trajectory.fit import FATE, Fit, method_name
from histoweft.trajectory.score import Found

ROOTS = {
    "cytotrace": "at the cells that express most genes (CytoTRACE)",
    "barcode": "at a given cell",
    "label": "in the group {value}",
    "gene": "where {value} is expressed most",
}


def fates_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return the fate probabilities of a table of fates, columns named by terminal state."""
    columns = [name for name in table.columns if name.startswith(FATE) and name != "fate_entropy"]
    return table[columns].rename(columns=lambda name: name.removeprefix(FATE))


def facts(cells: Cells, found: Fit, options: Mapping[str, Any]) -> dict[str, Any]:
    """Note how a trajectory was made."""
    root, terminal = options["root"], options["states"]["terminal"]
    value = root["value"] if isinstance(root["value"], str) else ", ".join(root["value"])
    if terminal is None:
        chosen = "chosen without labels by how long they hold the walk"
    elif isinstance(terminal, list):
        chosen = "named in the config"
    else:
        chosen = f"the {terminal} that hold the walk longest, a number given in the config"
    return {
        "cells": len(cells),
        "method": method_name(options["kernels"]),
        "root": ROOTS[root["by"]].format(value=value),
        "root_barcode": str(cells.barcodes[found.root]),
        "root_label": str(cells.labels[found.root]),
        "chosen": chosen,
        "solver": found.fates.solver,
        "solver_error": found.fates.error,
        "solver_iterations": found.fates.iterations,
        "eigenvalues": [round(float(value), 4) for value in found.eigenvalues.real],
        "crispness": round(found.crispness, 4),
        "notes": list(found.notes),
    }


def read_replicates(path: str | os.PathLike) -> pd.DataFrame:
    """Read the table of `stability.replicates`; names that look like numbers stay names."""
    table = pd.read_csv(path, sep="\t", dtype={"fate": str, "note": str}, keep_default_na=False)
    for column in ("correlation", "pseudotime_correlation", "n_terminal"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


def read_found(files: Mapping[str, str | os.PathLike], labels: str) -> Found:
    """Read what the rule wrote of one sample.

    Parameters
    ----------
    files
        filtered, fates, floors, drivers, floor_drivers, states, replicates, facts; and groups (clusters or annotation)
        where `labels` needs it.
    labels
        Option `trajectory.labels`.
    """
    with CountsFile(files["filtered"]) as counts:
        groups = pd.Series(read_labels(labels, counts, files.get("groups")), index=counts.obs_names)
    floors = read_table(files["floors"])
    fates = read_table(files["fates"], floors.index)
    with open(files["facts"], encoding="utf-8") as handle:
        noted = json.load(handle)
    states = pd.read_csv(files["states"], sep="\t", dtype={"state": str, "label": str}, keep_default_na=False)
    states["purity"] = pd.to_numeric(states["purity"], errors="coerce")
    return Found(
        fates=fates,
        floors=floors,
        drivers=pd.read_parquet(files["drivers"]),
        floor_drivers=pd.read_parquet(files["floor_drivers"]),
        states=states,
        replicates=read_replicates(files["replicates"]),
        labels=groups.loc[floors.index].to_numpy(object),
        facts=noted,
    )
