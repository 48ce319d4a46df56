"""Train one model, or the floors, on the training voxels of one fold, and apply it to those held out."""

from histoweft.job import run


def main(job):
    """Write predictions and sums of the held-out voxels."""
    from histoweft.atlas import folds, voxels
    from histoweft.atlas.fit import fit_fold
    from histoweft.atlas.results import write

    atlas = voxels.read(job.input.expression, job.input.voxels, job.input.genes, job.input.meta, job.input.structures)
    options = job.params.options
    protocol, number = job.wildcards.atlas_protocol, int(job.wildcards.atlas_fold)
    splits = folds.make(atlas, protocol, options["folds"], options["buffer_voxels"], job.params.seed)
    found = fit_fold(
        atlas, splits[number - 1], job.wildcards.atlas_model, options, seed=job.params.seed, device=job.device,
        threads=job.threads, checkpoint=job.params.checkpoint,
    )  # fmt: skip
    write(job.output.result, found)


run(snakemake, main)
