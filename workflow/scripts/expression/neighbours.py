"""Find each barcode's nearest neighbours in expression."""

from histoweft.job import run


def main(job):
    """Write the neighbour graph."""
    from histoweft.graph.neighbours import neighbour_graph
    from histoweft.io import CountsFile, write_graph

    with CountsFile(job.input.features) as features:
        points = features.obsm("X_pca")
    connectivities, distances = neighbour_graph(points, job.params.neighbours, job.params.seed)
    job.log.info("%d barcodes, %d edges", points.shape[0], connectivities.nnz // 2)
    write_graph(job.output.graph, connectivities, distances)


run(snakemake, main)
