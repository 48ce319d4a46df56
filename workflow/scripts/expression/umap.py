"""Lay out the neighbour graph of one sample in two dimensions."""

from histoweft.job import run


def main(job):
    """Write the UMAP."""
    from histoweft.graph.umap import embedding_table
    from histoweft.io import CountsFile, read_graph, write_table

    with CountsFile(job.input.features) as features:
        points, barcodes = features.obsm("X_pca"), features.obs_names
    connectivities, _ = read_graph(job.input.graph)
    table = embedding_table(connectivities, points, barcodes, min_dist=job.params.min_dist, seed=job.params.seed)
    write_table(table, job.output.umap)


run(snakemake, main)
