"""One fit from the reference's file to a calibrated model: what a job of the rule does."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from histoweft import convergence
from histoweft.annotation import embedding, evaluate, explain, gene_sets, heldout, reference
from histoweft.annotation.annotator import Annotator, calibrate_on
from histoweft.annotation.folds import plan_folds
from histoweft.annotation.genes import Genes, SharedGenes, share_genes
from histoweft.annotation.heldout import HeldOut
from histoweft.annotation.models import Options
from histoweft.annotation.names import REFERENCE_NAME, TRANSFORMER
from histoweft.annotation.reference import Reference
from histoweft.errors import InputError
from histoweft.io import CountsFile

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """What a fit gives.

    Attributes
    ----------
    annotator
        The model on the whole reference, calibrated.
    held_out
        What models trained without them say of its cells.
    explanations
        See `explain.explain`.
    """

    annotator: Annotator
    held_out: HeldOut
    explanations: pd.DataFrame


def shared_genes(
    reference_path: str | os.PathLike, samples: Mapping[str, str | os.PathLike], options: Mapping[str, Any]
) -> SharedGenes:
    """Find the genes that the reference shares with every sample.

    Parameters
    ----------
    reference_path
        ``reference.h5ad``.
    samples
        Sample to its counts.
    options
        The config's section ``annotation``.
    """

    def genes(path: str | os.PathLike) -> Genes:
        with CountsFile(path) as counts:
            return Genes.of(counts)

    return share_genes(genes(reference_path), {sample: genes(path) for sample, path in samples.items()}, options)


def load_reference(
    path: str | os.PathLike, genes: SharedGenes, options: Mapping[str, Any], seed: int, source: str = ""
) -> Reference:
    """Read the reference, with its embedding where one is asked for.

    Parameters
    ----------
    path, genes, options
        See `shared_genes`.
    seed
        Of the draw of cells.
    source
        The file that the reference was read from, which holds the embedding if that is a key of obsm.
    """
    limits = {name: options[name] for name in ("min_cells", "cells_per_type")}
    found = reference.read_reference(path, genes.reference, seed=seed, **limits)
    found = replace(found, matched=genes.told, notes=[*genes.cautions, *found.notes])
    if not options["embedding"]:
        return found
    return replace(found, embedding=load_embedding(options["embedding"], REFERENCE_NAME, source, found.barcodes))


def load_embedding(option: str, sample: str, source: str | os.PathLike, barcodes: np.ndarray) -> np.ndarray:
    """Read the embedding of a sample's cells (or of `names.REFERENCE_NAME`) from its own file or from parquet."""
    if embedding.is_files(option):
        return embedding.read_embedding(embedding.file_of(option, sample), "", barcodes)
    return embedding.read_embedding(source, option, barcodes)


def fit(
    cells: Reference,
    method: str,
    options: Mapping[str, Any],
    columns: dict[str, np.ndarray],
    *,
    floor: HeldOut | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int = 1,
) -> Fit:
    """Score a model on held-out cells, fit it on all, calibrate and explain it.

    Parameters
    ----------
    cells
        The reference.
    method
        Of `names.MODELS`.
    options
        The config's section ``annotation``.
    columns
        Sample to its columns of the shared genes.
    floor
        What the fit of ``logistic`` has found, for any other model: types are left out once.
    seed, device, threads
        Of the training.

    Raises
    ------
    InputError
        The model cannot be had with these options, or a table of the config cannot be used.
    """
    with convergence.collect(f"the model {method}") as unsettled:
        done = _fit(cells, method, options, columns, floor=floor, seed=seed, device=device, threads=threads)
    done.held_out.facts["notes"] = [*done.held_out.facts["notes"], *unsettled]
    return done


def _fit(
    cells: Reference,
    method: str,
    options: Mapping[str, Any],
    columns: dict[str, np.ndarray],
    *,
    floor: HeldOut | None,
    seed: int,
    device: str,
    threads: int,
) -> Fit:
    """See `fit`."""
    start = time.perf_counter()
    if method == TRANSFORMER and cells.embedding is not None:
        found = "transformer together with annotation.embedding"
        hint = "It reads genes. Use logistic, knn or gnn on the embedding."
        raise InputError.one("annotation.model, annotation.compare", found, "a model that reads the embedding", hint)
    settings = Options(
        options["neighbours"], options["spatial"], options["epochs"],
        gene_sets.read_gmt(options["gene_sets"]) if options["gene_sets"] and method == TRANSFORMER else None,
        seed, device, threads,
    )  # fmt: skip
    markers = explain.read_markers(options["markers"], cells.types) if options["markers"] else None
    groups = groups_of(cells.types, options["hierarchy"])
    size = options["n_top"], options["n_components"]
    plan = plan_folds(cells.codes, cells.groups, options["folds"], seed)
    _log.info("%d cells of %d types, %d shared genes; %s", len(cells), len(cells.types), len(cells.genes), plan.note)
    found = evaluate.out_of_fold(cells, plan, method, *size, settings)
    left_out = floor.left_out if floor else evaluate.leave_types_out(cells, plan.folds, groups, *size, settings)
    fitted = evaluate.train(cells, method, *size, settings)
    far = left_out.loc[left_out["score"] == evaluate.DISTANCE, "distance"]
    calibration = calibrate_on(
        found.logits, cells.codes, found.distance, options["alpha"], options["unknown_rate"],
        float(far.median()) if len(far) else math.nan,
    )  # fmt: skip
    explanations, recovered = explain.explain(fitted, cells, markers)
    facts = {
        "seconds": time.perf_counter() - start, "seconds_per_fold": found.seconds, "peak_mb": evaluate.peak_memory(),
        "genes": len(cells.genes), "recovered": recovered, "notes": cells.notes,
        "matched": cells.matched, "device": device,
    }  # fmt: skip
    held_out = heldout.collect(cells, plan, method, found, facts, left_out.iloc[:0] if floor else left_out)
    annotator = Annotator(method, cells.types, cells.genes, columns, fitted, calibration)
    return Fit(annotator, held_out, explanations)


def groups_of(types: list[str], hierarchy: str) -> dict[str, str]:
    """Return the group of each type: of the table, or itself without one."""
    return reference.read_hierarchy(hierarchy, types) if hierarchy else {name: name for name in types}
