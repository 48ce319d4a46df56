"""SpaGCN (Hu et al. 2021, Nature Methods 18:1342), MIT licence, https://github.com/jianhuupenn/SpaGCN.

With the settings of its own tutorial for cortex: expression alone (no histology), p = 0.5, 200 epochs, a resolution of
Louvain searched such that the wanted number of domains comes out, labels refined over the six nearest spots. Sections
are taken one by one.
"""

from __future__ import annotations

import random

import numpy as np


def domains(sections, n_domains, seed, *, p=0.5, max_epochs=200):
    """Find domains in each section; `p` is the share of expression that neighbours contribute."""
    return [_one(section, n_domains, seed, p, max_epochs) for section in sections]


def _one(section, n_domains, seed, p, max_epochs):
    import scanpy as sc
    import SpaGCN
    import torch
    from anndata import AnnData
    from scipy.spatial.distance import cdist

    data = AnnData(section.counts.astype(np.float32))
    data.obs_names, data.var_names = section.barcodes.astype(str), section.genes.astype(str)
    data.var_names_make_unique()
    SpaGCN.prefilter_genes(data, min_cells=3)
    SpaGCN.prefilter_specialgenes(data)
    sc.pp.normalize_total(data)
    sc.pp.log1p(data)
    data.X = data.X.toarray()  # its own way of making it dense is no longer part of scipy
    distance = cdist(section.xy, section.xy).astype(np.float32)
    reach = SpaGCN.search_l(p, distance, start=0.01, end=1000, tol=0.01, max_run=100)
    seeds = {"r_seed": seed, "t_seed": seed, "n_seed": seed}
    resolution = SpaGCN.search_res(
        data, distance, reach, n_domains, start=0.7, step=0.1, tol=5e-3, lr=0.05, max_epochs=20, **seeds
    )
    for start in ({"init": "louvain", "res": resolution}, {"init": "kmeans", "n_clusters": n_domains}):
        random.seed(seed)
        torch.manual_seed(seed)
        np.random.seed(seed)
        model = SpaGCN.SpaGCN()
        model.set_l(reach)
        model.train(data, distance, init_spa=True, tol=5e-3, lr=0.05, max_epochs=max_epochs, **start)
        labels = model.predict()[0]
        if len(set(labels)) <= n_domains:  # the search may end at a resolution that gives more
            break
    shape = "square" if section.platform == "st" else "hexagon"
    return SpaGCN.refine(sample_id=data.obs_names.tolist(), pred=labels.tolist(), dis=distance, shape=shape)
