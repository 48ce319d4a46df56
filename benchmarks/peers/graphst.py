"""GraphST (Long et al. 2023, Nature Communications 14:1155), MIT licence, https://github.com/JinmiaoChenLab/GraphST.

Its default settings (600 epochs), with its sparse graph, which it otherwise keeps for other platforms: with the dense
one an epoch of 3,600 spots takes seven seconds on one core. Its embedding is cut by a Gaussian mixture with one
covariance for all domains on 20 components, which is what it asks mclust for (model EEE), here scikit-learn's; labels
are refined over 50 spots. Sections are taken one by one.
"""

from __future__ import annotations

import numpy as np


def domains(sections, n_domains, seed, *, epochs=600, radius=50):
    """Find domains in each section; `radius` is the number of spots that a label is refined over."""
    return [_one(section, n_domains, seed, epochs, radius) for section in sections]


def _one(section, n_domains, seed, epochs, radius):
    from anndata import AnnData
    from GraphST.GraphST import GraphST
    from GraphST.utils import refine_label
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    data = AnnData(section.counts.astype(np.float32))
    data.obs_names, data.var_names = section.barcodes.astype(str), section.genes.astype(str)
    data.var_names_make_unique()
    data.obsm["spatial"] = section.xy
    trained = GraphST(data, random_seed=seed, epochs=epochs, datatype="Slide").train()
    points = PCA(n_components=20, random_state=seed).fit_transform(trained.obsm["emb"])
    mixture = GaussianMixture(n_domains, covariance_type="tied", n_init=5, random_state=seed)
    trained.obs["domain"] = mixture.fit_predict(points)
    return refine_label(trained, radius, key="domain")
