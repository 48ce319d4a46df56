"""Filter the barcodes and genes of one sample, and show where the removed ones sat."""

from histoweft.job import run


def main(job):
    """Write filtered.h5ad, the table of filters, the reason for each barcode and the picture."""
    from histoweft.expression import figures
    from histoweft.expression.qc import QcOptions, filter_counts
    from histoweft.io import write_table

    options = QcOptions(**job.params.options, seed=job.params.seed)
    result = filter_counts(job.input.counts, job.output.filtered, options)
    for note in result.notes:
        job.log.warning("%s", note)
    job.log.info("\n%s", result.table.to_string(index=False))
    result.table.to_csv(job.output.table, sep="\t", index=False)
    write_table(result.barcodes, job.output.barcodes)
    figures.qc_figure(job.input.counts, result, job.output.figure, image_path=job.input.get("image"))


run(snakemake, main)
