"""Cell cycle: scores of S and G2/M, and the phase of each barcode."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp

PHASES = ("G1", "S", "G2M")
_BINS = 25


def contrast(mean: np.ndarray, members: np.ndarray) -> sp.csc_matrix:
    """Weigh genes so that the product with expression is a set's mean over that of genes expressed alike.

    Parameters
    ----------
    mean
        Mean expression of each gene, (genes,).
    members
        Columns of the set's genes; empty gives all zeros.

    Returns
    -------
    genes x 1: 1 / k for the k members; the other genes of each member's bin of mean expression share -1 / k.

    Notes
    -----
    Tirosh et al. 2016, Science 352:189, with all genes of the 25 bins as controls in place of a random choice, so that
    nothing depends on a seed.
    """
    weights = np.zeros(len(mean))
    if len(members) == 0:
        return sp.csc_matrix(weights[:, None])
    bins = pd.qcut(pd.Series(mean).rank(method="first"), min(_BINS, len(mean)), labels=False).to_numpy()
    weights[members] = 1 / len(members)
    outside = np.ones(len(mean), dtype=bool)
    outside[members] = False
    for number, k in zip(*np.unique(bins[members], return_counts=True)):
        controls = outside & (bins == number)
        if controls.any():
            weights[controls] -= k / (len(members) * controls.sum())
    return sp.csc_matrix(weights[:, None])


def phases(s_score: np.ndarray, g2m_score: np.ndarray) -> pd.Categorical:
    """Name the phase of each barcode: the larger score, G1 where neither exceeds its controls.

    Parameters
    ----------
    s_score, g2m_score
        Of each barcode; NaN where the genes are not in the panel.

    Returns
    -------
    Categories `PHASES`; missing where both scores are.
    """
    scores = np.column_stack([s_score, g2m_score])
    known = np.isfinite(scores).any(axis=1)
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    codes = np.where(scores.max(axis=1) > 0, scores.argmax(axis=1) + 1, 0)
    return pd.Categorical.from_codes(np.where(known, codes, -1), list(PHASES))
