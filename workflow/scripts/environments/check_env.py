"""Compare an environment with its pins, and import what it was made for."""

from histoweft.job import run


def main(job):
    """Write a table of the packages found; any difference from the pins ends the job."""
    from histoweft.environments import check

    table = check(job.input.lock, job.input.requirements)
    table.to_csv(job.output.table, sep="\t", index=False)
    job.log.info("%d packages as pinned in %s", len(table), job.input.lock)


run(snakemake, main)
