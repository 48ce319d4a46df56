"""CellTypist (Dominguez Conde et al. 2022, Science 376:eabl5197), MIT licence, https://github.com/Teichlab/celltypist.

Its logistic regression, trained on the training cells with its default settings; none of its ready models is
downloaded, and no votes are taken over clusters. Its probabilities are of each type against all others; rows are
brought to a sum of one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def annotate(train_counts, genes, labels, batches, test_counts, seed, *, feature_selection=False):
    """Annotate test cells; `feature_selection` trains twice, the second time on the genes that count most."""
    import celltypist

    np.random.seed(seed)
    names = pd.Index(genes).astype(str)
    model = celltypist.train(
        _normalised(train_counts, names), labels=labels, genes=names, n_jobs=1, feature_selection=feature_selection,
        random_state=seed,
    )  # fmt: skip
    found = celltypist.annotate(_normalised(test_counts, names), model=model, majority_voting=False)
    shares = found.probability_matrix
    return found.predicted_labels["predicted_labels"].to_numpy(), shares.div(shares.sum(axis=1), axis=0)


def _normalised(counts, names):
    """Return log1p of counts scaled to 10,000 a cell, as CellTypist asks for."""
    import scanpy as sc
    from anndata import AnnData

    data = AnnData(counts.astype(np.float32), var=pd.DataFrame(index=names))
    sc.pp.normalize_total(data, target_sum=1e4)
    sc.pp.log1p(data)
    return data
