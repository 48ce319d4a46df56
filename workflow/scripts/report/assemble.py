"""Put everything about one sample into one AnnData file."""

from histoweft.job import run


def main(job):
    """Write <sample>.h5ad."""
    from histoweft.report.assemble import ADDED, assemble

    assemble(
        job.output.h5ad,
        sample=job.wildcards.sample,
        filtered=job.input.filtered,
        features=job.input.features,
        graph=job.input.graph,
        clusters=job.input.clusters,
        umap=job.input.umap,
        image=job.there("image"),
        target_sum=job.params.target_sum,
        neighbours=job.params.neighbours,
        added={name: job.input[name] for name in ADDED if job.there(name)},
        spatial_graph=job.there("spatial_graph"),
        proportions=job.there("proportions"),
    )


run(
    snakemake,
    main,
    optional=["domains", "niches", "annotation", "states", "fates", "spatial_graph", "proportions", "image"],
)
