"""Embeddings of cells that another model has made, which take the place of the principal components."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd

from histoweft.annotation.names import PARQUET
from histoweft.errors import InputError


def is_files(embedding: str) -> bool:
    """Return whether the option names files (one a sample) rather than an obsm key."""
    return embedding.endswith(PARQUET)


def file_of(embedding: str, sample: str) -> str:
    """Return the file of one sample, or of the reference (`names.REFERENCE_NAME`)."""
    return embedding.replace("{sample}", sample)


def read_embedding(path: str | os.PathLike, key: str, barcodes: np.ndarray) -> np.ndarray:
    """Read the embedding of some cells.

    Parameters
    ----------
    path
        A parquet table with barcodes as its index and one column a dimension; or an h5ad file.
    key
        Name of the array in the h5ad's obsm; not looked at for parquet.
    barcodes
        Cells wanted, in this order.

    Returns
    -------
    cells x dimensions, float32.

    Raises
    ------
    InputError
        The file or the key is missing, cells have no row, or values are not finite.
    """
    parquet = str(path).endswith(PARQUET)
    names, values = _from_parquet(path) if parquet else _from_h5ad(path, key)
    at = pd.Index(names).get_indexer(pd.Index(barcodes))
    where = str(path) if parquet else f"{path}: obsm[{key!r}]"
    if (at < 0).any():
        found = f"no row for {int((at < 0).sum())} of {len(at)} cells (e.g. {barcodes[np.argmax(at < 0)]})"
        raise InputError.one(where, found, "an embedding of every cell", "Are the barcodes those of the counts?")
    values = np.asarray(values[at], dtype=np.float32)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values).all(axis=1)).sum())
        raise InputError.one(where, f"values that are no numbers in {bad} cells", "finite numbers")
    return values


def _from_parquet(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    try:
        table = pd.read_parquet(path)
        return table.index.astype(str).to_numpy(), table.to_numpy(dtype=np.float32)
    except (OSError, ValueError) as error:
        expected = "a parquet table: barcodes as index, one column of numbers a dimension"
        raise InputError.one(path, error, expected) from error


def _from_h5ad(path: str | os.PathLike, key: str) -> tuple[np.ndarray, np.ndarray]:
    import h5py

    from histoweft.io import read_element

    try:
        with h5py.File(path, "r") as file:
            there = list(file.get("obsm", ()))
            if key not in there:
                found = f"obsm has {', '.join(there) or 'nothing'}"
                raise InputError.one(f"{path}", found, f"obsm[{key!r}] (annotation.embedding)")
            names = read_element(file["obs"][file["obs"].attrs["_index"]])
            return np.asarray(names).astype(str), np.asarray(file["obsm"][key])
    except (OSError, KeyError) as error:
        raise InputError.one(path, error, "an h5ad file with the embedding in obsm") from error
