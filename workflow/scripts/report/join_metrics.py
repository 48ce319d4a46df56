"""Join every score of the study into one tidy table."""

from histoweft.job import run


def main(job):
    """Write metrics.tsv and what describes its columns."""
    from histoweft.metrics import join_metrics, write_metrics, write_schema

    table = join_metrics(job.input.parts)
    job.log.info("%d rows from %d parts", len(table), len(job.input.parts))
    write_metrics(table, job.output.metrics)
    write_schema(job.output.schema)


run(snakemake, main)
