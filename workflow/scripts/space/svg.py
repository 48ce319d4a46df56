"""Test every gene of one sample for spatial structure."""

from histoweft.job import run


def main(job):
    """Write all genes, and the first ones for readers."""
    from threadpoolctl import threadpool_limits

    from histoweft.io import CountsFile, read_graph, write_table
    from histoweft.space.graph import read_section
    from histoweft.space.svg import variable_genes

    options = job.params.options
    graph, _ = read_graph(job.input.graph)
    # Sums of several threads are rounded in another order, which the far tails of the covariance test magnify.
    with CountsFile(job.input.filtered) as counts, threadpool_limits(1):
        xy = read_section(counts).xy
        table = variable_genes(counts, graph, xy, job.params.target_sum, options["min_share"], options["regress_total"])
    job.log.info(
        "%d of %d genes tested, %d with q < 0.05", table["p"].notna().sum(), len(table), (table["q"] < 0.05).sum()
    )
    write_table(table, job.output.svg)
    table.head(options["top"]).to_csv(job.output.top, sep="\t", index=False, float_format="%.6g")


run(snakemake, main)
