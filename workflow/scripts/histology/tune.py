"""Score one setting of the grid on inner folds of every fit's training spots."""

from histoweft.job import run


def main(job):
    """Write the setting's score for each fold of each fit."""
    import json

    import pandas as pd

    from histoweft.errors import NotComputed
    from histoweft.histology import evaluate
    from histoweft.histology.network import Options
    from histoweft.histology.plan import Fit

    filtered = dict(zip(job.params.samples, job.input.filtered, strict=True))
    context = job.present("context", job.params.samples)
    options = Options(**{**job.params.network, **job.params.setting})
    found = []
    for fit in (Fit(**fields) for fields in job.params.fits):
        samples = [sample for sample in fit.samples if sample in context]
        if not samples:
            continue
        paths = [filtered[sample] for sample in samples], [context[sample] for sample in samples]
        spots = evaluate.read_spots(*paths, None, job.params.footprint_um)
        try:
            folds = evaluate.folds_of(spots, fit, job.params.groups, job.params.options, job.params.seed)
        except NotComputed as reason:
            job.log.warning("%s: %s", fit.name, reason)
            continue
        scores = evaluate.tune(spots, folds, options, seed=job.params.seed, device=job.device, threads=job.threads)
        setting = json.dumps(job.params.setting)
        found += [(fit.name, fold.name, setting, score) for fold, score in zip(folds, scores)]
        job.log.info("%s: %s: %.4f", setting, fit.name, sum(scores) / len(scores))
    table = pd.DataFrame(found, columns=["fit", "fold", "setting", "score"])
    table.to_csv(job.output.scores, sep="\t", index=False)


run(snakemake, main, some=["filtered", "context"])
