"""Join what the samples' deconvolutions say."""

from histoweft.job import run


def main(job):
    """Write scores, mean compositions and the verdict."""
    import json
    from pathlib import Path

    from histoweft.annotation.deconvolve_summary import composition, verdict
    from histoweft.io import read_table
    from histoweft.metrics import join_metrics, write_metrics

    samples = job.params.samples
    metrics = join_metrics(job.input.metrics)
    shares = composition(dict(zip(samples, map(read_table, job.input.proportions), strict=True)))
    texts = (Path(path).read_text(encoding="utf-8") for path in job.input.facts)
    said = verdict(metrics, dict(zip(samples, map(json.loads, texts), strict=True)), shares)
    write_metrics(metrics, job.output.metrics)
    shares.to_csv(job.output.composition, sep="\t", index=False, float_format="%.5g")
    job.output.verdict.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


run(snakemake, main)
