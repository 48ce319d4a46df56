"""FlashDeconv 0.2 (its authors' preprint of 2025), BSD-3-Clause licence, https://pypi.org/project/flashdeconv.

Its default settings but for one: the mixed spots lie nowhere, so nothing is evened out over neighbours. Signatures are
mean counts of the types, as its own loader makes them. It has no correction for types whose cells hold more RNA.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp


def proportions(counts, genes, reference_counts, reference_genes, reference_types, seed, *, n_hvg=2000):
    """Deconvolve spots by least squares on weighted genes; `n_hvg` is the number of variable genes used."""
    from flashdeconv import FlashDeconv

    codes = np.unique(reference_types, return_inverse=True)[1]
    member = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    signatures = (member @ reference_counts).toarray() / np.bincount(codes)[:, None]
    nowhere = np.column_stack([np.arange(counts.shape[0]), np.zeros(counts.shape[0])])
    model = FlashDeconv(lambda_spatial=0.0, n_hvg=n_hvg, random_state=seed)
    return model.fit_transform(counts.astype(float), signatures, nowhere)
