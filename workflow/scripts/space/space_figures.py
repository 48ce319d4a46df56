"""Draw one sample's variable genes, neighbourhoods and interactions."""

from histoweft.job import run


def main(job):
    """Write all pictures."""
    import pandas as pd

    from histoweft.io import CountsFile, read_table
    from histoweft.space import figures, values
    from histoweft.space.graph import read_section

    genes = pd.read_parquet(job.input.svg).dropna(subset=["moran"]).head(job.params.genes)
    with CountsFile(job.input.filtered) as counts:
        place = figures.read_place(counts, job.input.get("image"))
        in_um = read_section(counts).in_um
        totals, _ = values.totals_and_found(counts)
        columns = counts.var_names.get_indexer(genes["gene"])
        shown = values.read_genes(counts, columns, totals, job.params.target_sum)
        barcodes = counts.obs_names
    figures.genes_figure(place, shown, genes, job.output.genes)
    figures.enrichment_figure(pd.read_parquet(job.input.neighbourhood), job.output.neighbourhood)
    types = read_table(job.input.labels)["label"].cat.categories if "labels" in job.input.keys() else []
    figures.cooccurrence_figure(pd.read_parquet(job.input.cooccurrence), job.output.cooccurrence, in_um, types)
    figures.interactions_figure(pd.read_parquet(job.input.interactions), job.output.interactions)
    local, spatial = read_table(job.input.local, barcodes), pd.read_parquet(job.input.spatial)
    figures.colocation_figure(place, local, spatial, job.output.spatial)


run(snakemake, main)
