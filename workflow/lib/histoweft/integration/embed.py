"""Embeddings of all cells of a study behind one interface, and the joint clusters of each."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from histoweft import io
from histoweft.convergence import tell
from histoweft.errors import HistoweftError, InputError, nearest
from histoweft.integration.joint import raw_counts

FLOOR = "none"
METHODS = (FLOOR, "harmony", "scvi")

_log = logging.getLogger(__name__)

_OPTIONS: dict[str, dict[str, Any]] = {
    FLOOR: {},
    "harmony": {"theta": 2.0, "max_iterations": 20, "threads": 1},
    "scvi": {
        "components": 30,
        "epochs": 200,
        "patience": 15,
        "layers": 2,
        "hidden": 128,
        "batch_size": 128,
        "device": "cpu",
        "threads": None,
        "progress": False,
    },
}


def embed(
    method: str,
    features: str | os.PathLike,
    batch_key: str = "sample",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Compute one embedding of all cells.

    Parameters
    ----------
    method
        ``none``: the joint PCA as it is, the floor that others must beat. ``harmony``: the PCA moved section by
        section until soft clusters mix (Korsunsky et al. 2019). ``scvi``: a variational autoencoder of the counts
        that is told the batch (Lopez et al. 2018).
    features
        The joint ``features.h5ad`` (see `joint.joint_features`).
    batch_key
        Column of obs whose values are to be mixed.
    seed
        Seed of harmony and scvi; ``none`` has nothing random.
    options
        harmony: theta (2; more mixes harder), max_iterations (20), threads (1).
        scvi: components (30), epochs (200, the most; stops early), patience (15 epochs without gain), layers (2),
        hidden (128), batch_size (128), device (``"cpu"``, ``"cuda"`` or ``"cuda:0"``), threads, progress.

    Returns
    -------
    numpy.ndarray
        cells x dimensions, float32, rows in the order of `features`.

    Raises
    ------
    InputError
        Unknown method or option, no such column, values missing there, one batch only, or counts that scVI cannot
        take.
    """
    if method not in METHODS:
        raise InputError.one("integration.methods", method, ", ".join(METHODS), nearest(method, METHODS))
    chosen = _complete(method, options or {})
    with io.CountsFile(features) as file:
        pca = np.asarray(file.obsm("X_pca"), dtype=np.float32)
        if method == FLOOR:
            return pca
        batch = _batches(file.obs(), batch_key, features)
        if method == "harmony":
            return _usable(_harmony(pca, batch, seed, chosen), method)
        return _usable(_scvi(file, batch, seed, chosen), method)


def _usable(embedding: np.ndarray, method: str) -> np.ndarray:
    """Return an embedding, if all of it is numbers."""
    lost = int((~np.isfinite(embedding)).any(axis=1).sum())
    if lost:
        raise HistoweftError(
            f"integration: {method} found no finite coordinates for {lost:,} of {len(embedding):,} barcodes: it "
            f"diverged. Leave {method} out of integration.methods, or remove sections of very few or nearly equal "
            "barcodes."
        )
    return embedding


def _complete(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    known = _OPTIONS[method]
    for name in options:
        if name not in known:
            expected = ", ".join(known) or f"no options for {method}"
            raise InputError.one(f"integration: options of {method}", name, expected, nearest(name, known))
    return {**known, **options}


def _batches(obs: pd.DataFrame, key: str, path: object) -> np.ndarray:
    if key not in obs:
        raise InputError.one(f"{path}: obs", f"no column {key!r}", ", ".join(obs.columns), nearest(key, obs.columns))
    batch = obs[key].astype(object)
    if batch.isna().any():
        raise InputError.one(
            f"{path}: obs, column {key}", f"{batch.isna().sum()} missing values", "a batch for every cell"
        )
    if batch.nunique() < 2:
        raise InputError.one(
            "config: integration.batch",
            f"{key}, which is {batch.iloc[0]!r} in every section",
            "a column with at least two values",
            "Use `sample`, or only the method `none`.",
        )
    return batch.astype(str).to_numpy()


def _harmony(pca: np.ndarray, batch: np.ndarray, seed: int, options: Mapping[str, Any]) -> np.ndarray:
    # harmonypy is under GPL-3: imported nowhere else, and only where this method runs.
    import harmonypy

    n = len(batch)
    done = harmonypy.run_harmony(
        pca.astype(np.float64),
        pd.DataFrame({"batch": batch}),
        "batch",
        theta=options["theta"],
        nclust=int(np.clip(round(n / 30), 2, 100)),
        max_iter_harmony=options["max_iterations"],
        random_state=seed,
        ncores=options["threads"],
        verbose=False,
    )
    result = np.asarray(done.Z_corr)
    if result.shape != pca.shape:  # versions differ in which way round they return it
        result = result.T
    rounds = len(done.objective_harmony) - 1
    _log.info("harmony: %d rounds", rounds)
    if rounds >= options["max_iterations"]:
        tell(f"harmony was still moving barcodes when its {rounds} rounds had ended")
    return np.ascontiguousarray(result, dtype=np.float32)


def _scvi(file: io.CountsFile, batch: np.ndarray, seed: int, options: Mapping[str, Any]) -> np.ndarray:
    facts = file.uns.get("histoweft", {})
    if not facts.get("whole_counts", True):
        raise InputError.one(
            "config: integration.methods",
            "scvi, for sections whose values are not whole numbers",
            "counts",
            "Leave scvi out, or set ingest.counts to `round`.",
        )
    import anndata
    import scvi
    import torch

    counts = raw_counts(file.matrix(), file.obs()["total_counts"].to_numpy(), facts.get("target_sum", 10_000))
    # Spots without any of the variable genes have no library size; the smallest count keeps them defined.
    empty = np.asarray(counts.sum(axis=1)).ravel() == 0
    if empty.any():
        _log.warning("scvi: %d of %d cells have none of the variable genes", empty.sum(), len(empty))
        rows = np.flatnonzero(empty)
        one = (np.ones(len(rows), np.float32), (rows, np.zeros(len(rows), np.intp)))
        counts = (counts + sp.csr_matrix(one, shape=counts.shape)).tocsr()

    scvi.settings.seed = seed
    scvi.settings.verbosity = logging.WARNING
    if options["threads"]:
        torch.set_num_threads(int(options["threads"]))
    data = anndata.AnnData(counts, obs=pd.DataFrame({"batch": pd.Categorical(batch)}, index=file.obs_names))
    scvi.model.SCVI.setup_anndata(data, batch_key="batch")
    model = scvi.model.SCVI(
        data,
        n_latent=int(options["components"]),
        n_layers=int(options["layers"]),
        n_hidden=int(options["hidden"]),
        gene_likelihood="nb",
    )
    accelerator, devices = _device(options["device"])
    model.train(
        max_epochs=int(options["epochs"]),
        batch_size=min(int(options["batch_size"]), data.n_obs),
        accelerator=accelerator,
        devices=devices,
        early_stopping=True,
        early_stopping_patience=int(options["patience"]),
        check_val_every_n_epoch=1,
        enable_progress_bar=bool(options["progress"]),
        logger=None,
        enable_checkpointing=False,
    )
    loss = model.history["elbo_validation"]
    _log.info("scvi: %d epochs on %s, validation loss %.1f", len(loss), options["device"], float(loss.iloc[-1, 0]))
    return np.asarray(model.get_latent_representation(), dtype=np.float32)


def _device(name: str) -> tuple[str, Any]:
    """Translate a device's name for the trainer; a GPU that is asked for is never silently left out."""
    if name == "cpu":
        return "cpu", 1
    return ("gpu", [int(name.split(":")[1])]) if ":" in name else ("gpu", 1)


def cluster(
    embedding: np.ndarray,
    index: Sequence[str] | pd.Index,
    *,
    neighbours: int = 15,
    resolution: float = 1.0,
    min_dist: float = 0.5,
    seed: int = 0,
) -> pd.DataFrame:
    """Cluster an embedding and lay it out in two dimensions; the same settings for every method.

    Parameters
    ----------
    embedding
        cells x dimensions.
    index
        Names of the cells.
    neighbours, resolution, min_dist, seed
        Of the neighbour graph, of Leiden, of UMAP, and of all three.

    Returns
    -------
    pandas.DataFrame
        Index as given; ``leiden`` (strings), ``umap_1``, ``umap_2`` (float32).
    """
    from histoweft.graph.leiden import as_igraph, leiden
    from histoweft.graph.neighbours import neighbour_graph
    from histoweft.graph.umap import embedding_table

    connectivities, _ = neighbour_graph(embedding, min(neighbours, len(embedding)), seed)
    table = embedding_table(connectivities, embedding, index, min_dist=min_dist, seed=seed)
    table.insert(0, "leiden", leiden(as_igraph(connectivities), resolution, seed=seed).astype(str))
    return table
