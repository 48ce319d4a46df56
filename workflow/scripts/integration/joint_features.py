"""Put all sections of the study on the same genes."""

from histoweft.job import run


def main(job):
    """Write the joint features."""
    from histoweft.integration.joint import joint_features

    paths = dict(zip(job.params.samples, job.input.filtered, strict=True))
    found = joint_features(
        paths, job.output.features, target_sum=job.params.target_sum, variable_genes=job.params.options["n_top"],
        components=job.params.options["n_components"],
    )  # fmt: skip
    job.log.info("%s", found)


run(snakemake, main)
