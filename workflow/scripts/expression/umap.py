"""Lay out the neighbour graph of one sample in two dimensions."""

from histoweft.job import run


def main(job):
    """Write the UMAP."""
    import pandas as pd

    from histoweft.graph import umap
    from histoweft.io import CountsFile, read_graph, write_table

    with CountsFile(job.input.features) as features:
        points, barcodes = features.obsm("X_pca"), features.obs_names
    connectivities, _ = read_graph(job.input.graph)
    layout = umap(connectivities, points, min_dist=job.params.min_dist, seed=job.params.seed)
    index = pd.Index(barcodes, name="barcode")
    write_table(pd.DataFrame(layout, index=index, columns=["umap_1", "umap_2"]), job.output.umap)


run(snakemake, main)
