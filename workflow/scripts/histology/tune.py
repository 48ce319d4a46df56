"""Score one setting of the grid on inner folds of every fit's training spots."""

from histoweft.job import run


def main(job):
    """Write the setting's score for each fold of each fit."""
    import json

    import pandas as pd

    from histoweft.histology import evaluate
    from histoweft.histology.network import Options
    from histoweft.histology.plan import Fit

    paths = dict(zip(job.params.samples, zip(job.input.filtered, job.input.context, strict=True), strict=True))
    options = Options(**{**job.params.network, **job.params.setting})
    found = []
    for fit in (Fit(**fields) for fields in job.params.fits):
        filtered, pyramids = zip(*(paths[sample] for sample in fit.samples))
        spots = evaluate.read_spots(filtered, pyramids, None, job.params.footprint_um)
        folds = evaluate.folds_of(spots, fit, job.params.groups, job.params.options, job.params.seed)
        scores = evaluate.tune(spots, folds, options, seed=job.params.seed, device=job.device, threads=job.threads)
        setting = json.dumps(job.params.setting)
        found += [(fit.name, fold.name, setting, score) for fold, score in zip(folds, scores)]
        job.log.info("%s: %s: %.4f", setting, fit.name, sum(scores) / len(scores))
    table = pd.DataFrame(found, columns=["fit", "fold", "setting", "score"])
    table.to_csv(job.output.scores, sep="\t", index=False)


run(snakemake, main)
