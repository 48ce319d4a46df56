"""Join the scores of all fits: tables, the verdict on the default, and the figures."""

from histoweft.job import run


def main(job):
    """Write metrics, genes, verdict and figures."""
    import json

    from histoweft import gaps
    from histoweft.histology import figures
    from histoweft.histology.results import read_predictions, read_scores
    from histoweft.histology.summary import summarise_study, training_rows
    from histoweft.metrics import write_metrics

    kinds = {}
    for fit, path in zip(job.params.fits, job.input.scores, strict=True):
        if gap := gaps.of(path):
            job.log.warning("%s is left out. %s", fit["name"], gap.words)
        else:
            kinds.setdefault(fit["kind"], []).append(path)
    scored = {kind: read_scores(paths) for kind, paths in kinds.items()}
    runs = [
        (fit, read_predictions(path))
        for fit, path in zip(job.params.predicted, job.input.predictions, strict=True)
        if not gaps.of(path)
    ]
    summary = summarise_study(scored, job.params.study, job.params.across, job.params.model, runs, seed=job.params.seed)
    for text in summary.verdict["texts"].values():
        job.log.info("%s", text)
    write_metrics(summary.rows, job.output.metrics)
    summary.genes.to_csv(job.output.genes, sep="\t", index=False, float_format="%.5g")
    job.output.verdict.write_text(json.dumps(summary.verdict, indent=1) + "\n", encoding="utf-8")
    figures.score_figure(summary.rows, job.output.scores)
    figures.overfit_figure(training_rows(summary.rows), job.output.overfit)


run(snakemake, main, some=["scores", "predictions"])
