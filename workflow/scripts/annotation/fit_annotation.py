"""Score one model on held-out reference cells, fit it on all of them, calibrate it."""

from histoweft.job import run


def main(job):
    """Write the model, what it says of held-out cells, and its explanations."""
    from histoweft.annotation import annotator, fitting, heldout
    from histoweft.annotation.names import NETWORKS
    from histoweft.io import atomic

    method, options, seed = job.wildcards.annotator, job.params.options, job.params.seed
    genes = fitting.shared_genes(
        job.input.reference, dict(zip(job.params.samples, job.input.filtered, strict=True)), options
    )
    job.log.info("%s", genes.told)
    cells = fitting.load_reference(job.input.reference, genes, options, seed, job.params.source)
    for note in cells.notes:
        job.log.warning("%s", note)
    done = fitting.fit(
        cells, method, options, genes.samples, seed=seed, threads=job.threads,
        floor=heldout.read(job.input.floor[0]) if job.input.floor else None,
        device=job.device if method in NETWORKS else "cpu",
    )  # fmt: skip
    annotator.save(done.annotator, job.output.model)
    heldout.write(done.held_out, job.output.held_out)
    with atomic(job.output.explanations) as partial:
        done.explanations.to_csv(partial, sep="\t", index=False, float_format="%.5g")


run(snakemake, main)
