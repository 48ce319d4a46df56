"""Draw one sample's trajectory."""

from histoweft.job import run


def main(job):
    """Write all pictures."""
    import pandas as pd

    from histoweft.io import CountsFile, read_table
    from histoweft.trajectory import figures
    from histoweft.trajectory.cells import read_labels
    from histoweft.trajectory.results import read_replicates

    with CountsFile(job.input.filtered) as counts:
        labels = read_labels(job.params.labels, counts, job.input.get("groups"))
        barcodes, place = counts.obs_names, figures.read_place(counts, job.input.get("image"))
    table = read_table(job.input.fates, barcodes)
    umap = read_table(job.input.umap, barcodes)[["umap_1", "umap_2"]].to_numpy(float)
    types = read_table(job.input.groups)["label"].cat.categories if job.params.labels == "annotation" else []
    figures.order_figure(umap, table, labels, job.output.order, types)
    xy, options = place or (umap, None)
    figures.fates_figure(xy, table, job.output.fates, options)
    drivers, trends = pd.read_parquet(job.input.drivers), pd.read_parquet(job.input.trends)
    figures.drivers_figure(drivers, trends, job.output.drivers)
    figures.trends_figure(drivers, trends, job.output.trends)
    figures.stability_figure(read_replicates(job.input.replicates), job.output.stability)


run(snakemake, main)
