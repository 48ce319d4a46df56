"""Join every score of the study into one tidy table."""

from histoweft.job import run


def main(job):
    """Write metrics.tsv and what describes its columns."""
    from histoweft import gaps
    from histoweft.metrics import join_metrics, write_metrics, write_schema

    parts = [path for path in job.input.parts if not gaps.of(path)]
    table = join_metrics(parts)
    job.log.info("%d rows from %d of %d parts", len(table), len(parts), len(job.input.parts))
    write_metrics(table, job.output.metrics)
    write_schema(job.output.schema)


run(snakemake, main, optional=["parts"])
