"""QC, normalisation, variable genes, PCA, neighbours, Leiden, UMAP, markers."""
