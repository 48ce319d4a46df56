"""Normalise one sample, choose its variable genes and compute its principal components."""

from histoweft.job import run


def main(job):
    """Write features.h5ad and the picture of how genes and components were chosen."""
    from histoweft.expression import figures
    from histoweft.expression.features import FeatureOptions, extract_features

    result = extract_features(job.input.filtered, job.output.features, FeatureOptions(**job.params.options))
    job.log.info("%d variable genes, %d components", int(result.genes["variable"].sum()), len(result.variance))
    figures.features_figure(result, job.output.figure)


run(snakemake, main)
