"""Train one model on the training spots of each fold, and predict the spots held out."""

from histoweft.job import run


def main(job):
    """Write the predictions."""
    from histoweft.histology import evaluate
    from histoweft.histology.plan import Fit
    from histoweft.histology.results import write_predictions

    fit = Fit(**job.params.fit)
    context = job.present("context", fit.samples)
    filtered = [path for sample, path in zip(fit.samples, job.input.filtered, strict=True) if sample in context]
    spots = evaluate.read_spots(
        filtered, context.values(), next(iter(job.input.registered), None), job.params.footprint_um
    )
    folds = evaluate.folds_of(spots, fit, job.params.groups, job.params.options, job.params.seed)
    shared = {
        "seed": job.params.seed, "device": job.device, "threads": job.threads, "checkpoint": job.params.checkpoint,
    }  # fmt: skip
    if job.wildcards.model == "autoencoder":
        from histoweft.histology import pictures

        there = [number for number, sample in enumerate(fit.samples) if sample in context]
        images, masks, stains = ([job.input[name][i] for i in there] for name in ("images", "masks", "stains"))
        placed = pictures.read_pictures(images, masks, stains, filtered, job.params.footprint_um)
        found = pictures.cross_validate(spots, folds, placed, job.input.pretrained, epochs=job.params.epochs, **shared)
    else:
        options = evaluate.options_of_folds(job.params.network, job.input.tuned, fit.name, folds)
        found = evaluate.cross_validate(spots, folds, options, **shared)
    write_predictions(job.output.predictions, found)


run(snakemake, main, some=["filtered", "context", "images", "masks", "stains"])
