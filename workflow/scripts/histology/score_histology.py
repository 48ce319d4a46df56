"""Score the models of one fit beside the floors, the bar and the ceiling, on the same held-out spots."""

from histoweft.job import run


def main(job):
    """Write each gene's scores in each fold."""
    from histoweft.histology import evaluate
    from histoweft.histology.plan import Fit
    from histoweft.histology.results import read_predictions, write_scores

    fit = Fit(**job.params.fit)
    context = job.present("context", fit.samples)
    filtered = [path for sample, path in zip(fit.samples, job.input.filtered, strict=True) if sample in context]
    spots = evaluate.read_spots(
        filtered, context.values(), next(iter(job.input.registered), None), job.params.footprint_um
    )
    folds = evaluate.folds_of(spots, fit, job.params.groups, job.params.options, job.params.seed)
    models = [read_predictions(path) for path in job.input.predictions]
    found = evaluate.score_fit(
        spots, folds, models, kind=fit.kind, all_share=job.params.all_share, seed=job.params.seed
    )
    write_scores(job.output.scores, found, list(map(str, spots.genes)))


run(snakemake, main, some=["filtered", "context"])
