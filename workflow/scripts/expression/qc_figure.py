"""Show which barcodes QC removed, why, and where they sat."""

from histoweft.job import run


def main(job):
    """Write the picture."""
    import pandas as pd

    from histoweft.expression import figures
    from histoweft.io import read_table

    decided, table = read_table(job.input.barcodes), pd.read_csv(job.input.table, sep="\t")
    figures.qc_figure(job.input.counts, decided, table, job.output.figure, image_path=job.input.get("image"))


run(snakemake, main)
