"""Download the expression grids of the experiments that a table lists."""

from histoweft.job import run


def main(job):
    """Write the table with the path and the sha256 of each; the grids go to the cache."""
    from histoweft.atlas import experiments, tables

    table = tables.gene_table(job.input.table)
    wanted = table[table["plane"].isin(["", *job.params.planes])]
    done = experiments.fetch_experiments(wanted, job.params.cache, job.params.url)
    experiments.write_table(done, job.output.table)


run(snakemake, main)
