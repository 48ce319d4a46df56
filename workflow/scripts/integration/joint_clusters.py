"""Cluster all sections together in one embedding."""

from histoweft.job import run


def main(job):
    """Write joint clusters and UMAP."""
    from histoweft.integration.embed import cluster
    from histoweft.io import read_table, write_table

    embedding = read_table(job.input.embedding)
    table = cluster(
        embedding.to_numpy(), embedding.index, neighbours=job.params.neighbours, resolution=job.params.resolution,
        min_dist=job.params.min_dist, seed=job.params.seed,
    )  # fmt: skip
    write_table(table, job.output.clusters)


run(snakemake, main)
