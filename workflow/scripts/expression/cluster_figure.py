"""Draw one sample's clusters on its tissue and on its UMAP."""

from histoweft.job import run


def main(job):
    """Write the picture."""
    from histoweft.expression import figures
    from histoweft.io import read_table

    figures.clusters_figure(
        job.input.filtered,
        read_table(job.input.clusters)["leiden"],
        read_table(job.input.umap),
        job.output.figure,
        image_path=job.input.get("image"),
    )


run(snakemake, main)
