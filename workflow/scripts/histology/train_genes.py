"""Train the default model on all spots of the study: what the maps are painted with."""

from histoweft.job import run


def main(job):
    """Write the model."""
    from histoweft.histology import evaluate, folds, network
    from histoweft.histology.plan import Fit

    fit = Fit(**job.params.fit)
    context = job.present("context", fit.samples)
    filtered = [path for sample, path in zip(fit.samples, job.input.filtered, strict=True) if sample in context]
    spots = evaluate.read_spots(filtered, context.values(), None, job.params.footprint_um)
    everything = evaluate.folds_of(spots, fit, job.params.groups, job.params.options, job.params.seed)
    goal = folds.target(spots, everything[0], seed=job.params.seed)
    options = evaluate.options_of_folds(job.params.network, job.input.tuned, fit.name, everything)
    model, course = folds.fit_context(
        spots, goal, options[0], seed=job.params.seed, device=job.device, threads=job.threads,
        checkpoint=job.params.checkpoint,
    )  # fmt: skip
    job.log.info("%d spots of %s: %d epochs in %.0f s", len(spots.xy), ", ".join(spots.samples), course.epochs,
                 course.seconds)  # fmt: skip
    meta = {"samples": spots.samples, "median_total": goal.median_total, "epochs": course.epochs}
    network.save(model, job.output.model, meta)


run(snakemake, main, some=["filtered", "context"])
