"""Rows of a matrix that are exact copies of an earlier row."""

from __future__ import annotations

import hashlib

import numpy as np
import scipy.sparse as sp


def fingerprints(matrix: sp.csr_matrix) -> np.ndarray:
    """Return a fingerprint of each row: the same for the same values, whichever way they are stored.

    Parameters
    ----------
    matrix
        rows x columns; zeros that are stored and the order of columns do not matter.

    Returns
    -------
    (rows,) of 16 bytes each.
    """
    matrix = sp.csr_matrix(matrix)
    if not (matrix.has_canonical_format and matrix.data.all()):
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    columns, values = matrix.indices.astype(np.int64), matrix.data.astype(np.float64)
    made = np.empty(matrix.shape[0], dtype="V16")
    for row, (start, stop) in enumerate(zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)):
        held = columns[start:stop].tobytes() + values[start:stop].tobytes()
        made[row] = hashlib.blake2b(held, digest_size=16).digest()
    return made


def first_of(prints: np.ndarray) -> np.ndarray:
    """Return, for each row, the number of the first row that has the same fingerprint: its own where it is the first.

    Parameters
    ----------
    prints
        Of `fingerprints`, of all rows.
    """
    _, first, which = np.unique(prints, return_index=True, return_inverse=True)
    return first[which.ravel()]
