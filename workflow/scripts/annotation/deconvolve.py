"""Deconvolve one sample's spots into the reference's cell types."""

from histoweft.job import run


def main(job):
    """Write proportions, their scores on mixed spots, what was found, and the maps."""
    import json

    from histoweft.annotation.deconvolve_figures import proportions_figure
    from histoweft.annotation.deconvolve_inputs import read_inputs
    from histoweft.annotation.deconvolve_sample import deconvolve_sample
    from histoweft.convergence import collect
    from histoweft.io import CountsFile, write_table
    from histoweft.metrics import write_metrics

    sample, params = job.wildcards.sample, job.params
    inputs = read_inputs(job.input.reference, job.input.filtered, sample, params.reading, params.seed)
    job.log.info("%s", inputs.matched)
    for note in (*inputs.notes, *inputs.cautions):
        job.log.warning("%s", note)
    with collect("deconvolution") as unsettled:
        result = deconvolve_sample(
            inputs, params.options, study=params.study, sample=sample, platform=params.platform, seed=params.seed
        )
    result.facts["cautions"] = [*result.facts["cautions"], *unsettled]
    job.log.info("%s", json.dumps(result.facts, indent=1))
    write_table(result.table, job.output.proportions)
    write_metrics(result.rows, job.output.metrics)
    job.output.facts.write_text(json.dumps(result.facts, indent=1) + "\n", encoding="utf-8")
    with CountsFile(job.input.filtered) as counts:
        xy, about = counts.obsm("spatial")[:, :2], counts.uns["histoweft"]
    place = {"mpp": about["mpp"], "spot_diameter_um": about["spot_diameter_um"]}
    proportions_figure(result.table, xy, job.output.figure, sample=sample, **place)


run(snakemake, main)
