"""Rows of a matrix that are exact copies of an earlier row."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def fingerprints(matrix: sp.csr_matrix) -> np.ndarray:
    """Return a number for each row that is the same for the same values, whichever way they are stored.

    Parameters
    ----------
    matrix
        rows x columns; zeros that are stored and the order of columns do not matter. Parts of one matrix have the
        fingerprints of the whole.

    Returns
    -------
    (rows,) unsigned 64-bit numbers. Different rows share one by a chance of about 5e-20.

    Notes
    -----
    Each value is mixed with a random word of its column by the finaliser of SplitMix64 (Steele, Lea and Flood 2014,
    OOPSLA), and a row's words are summed modulo 2^64.
    """
    matrix = sp.csr_matrix(matrix)
    words = np.random.default_rng(0).integers(0, 2**64, matrix.shape[1], dtype=np.uint64, endpoint=False)
    mixed = matrix.data.astype(np.float64).view(np.uint64) ^ words[matrix.indices]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    mixed[matrix.data == 0] = 0
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mixed, dtype=np.uint64)])
    return sums[matrix.indptr[1:]] - sums[matrix.indptr[:-1]]


def first_of(prints: np.ndarray) -> np.ndarray:
    """Return, for each row, the number of the first row that has the same fingerprint: its own where it is the first.

    Parameters
    ----------
    prints
        Of `fingerprints`, of all rows.
    """
    _, first, which = np.unique(prints, return_index=True, return_inverse=True)
    return first[which.ravel()]
