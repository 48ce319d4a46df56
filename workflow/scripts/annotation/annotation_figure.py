"""Draw a sample's labels and doubt, and the markers of its predicted types."""

from histoweft.job import run


def main(job):
    """Write both pictures."""
    import pandas as pd

    from histoweft.annotation import annotator, explain, figures
    from histoweft.io import CountsFile, read_table

    with CountsFile(job.input.filtered) as counts:
        barcodes, about = counts.obs_names, counts.uns["histoweft"]
        on_tissue = "spatial" in counts.obsm_names()
        xy = counts.obsm("spatial") if on_tissue else read_table(job.input.umap, barcodes).to_numpy()
    table = read_table(job.input.annotation, barcodes)
    figures.sample_figure(
        table, xy[:, :2], job.output.labels, on_tissue=on_tissue, sample=job.wildcards.sample, mpp=about["mpp"],
        spot_diameter_um=about["spot_diameter_um"],
    )  # fmt: skip
    model = annotator.load(job.input.model)
    markers = explain.read_markers(job.params.markers, model.types) if job.params.markers else None
    columns = dict(zip(model.genes, model.columns[job.wildcards.sample], strict=True))
    chosen = figures.genes_to_show(pd.read_csv(job.input.explanations, sep="\t"), markers)
    genes = {name: columns[name] for name in chosen if name in columns}
    mean, share = figures.marker_summary(job.input.filtered, table["label"], genes)
    figures.dot_figure(mean, share, table["label"].value_counts().to_dict(), job.output.markers)


run(snakemake, main)
