"""Filter the barcodes and genes of one sample."""

from histoweft.job import run


def main(job):
    """Write filtered.h5ad, the table of filters and the reason for each barcode."""
    from histoweft.expression.qc import QcOptions, filter_counts
    from histoweft.io import write_table

    options = QcOptions(**job.params.options, seed=job.params.seed)
    result = filter_counts(job.input.counts, job.output.filtered, options)
    for note in result.notes:
        job.log.warning("%s", note)
    job.log.info("\n%s", result.table.to_string(index=False))
    result.table.to_csv(job.output.table, sep="\t", index=False)
    write_table(result.barcodes, job.output.barcodes)


run(snakemake, main)
