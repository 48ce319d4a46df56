"""Try a submitted method of deconvolution on the mixed spots of every deconvolved sample."""

from histoweft.job import run


def main(job):
    """Write the scores."""
    from histoweft.annotation.deconvolve_inputs import read_inputs
    from histoweft.metrics import write_metrics
    from histoweft.submissions import deconvolution, interface

    params = job.params
    submission = interface.load("deconvolution", job.wildcards.submission, job.input.file, params.options)
    rows = []
    for (sample, platform), path in zip(params.platforms.items(), job.input.filtered, strict=True):
        inputs = read_inputs(job.input.reference, path, sample, params.reading, params.seed)
        rows += deconvolution.run(
            submission, inputs, params.deconvolution, study=params.study, sample=sample, platform=platform,
            seed=params.seed,
        )  # fmt: skip
    write_metrics(rows, job.output.metrics)


run(snakemake, main)
