"""Run a submitted method of annotation on the held-out cells of the reference and score it beside ours."""

from histoweft.job import run


def main(job):
    """Write the scores."""
    from histoweft.annotation import fitting, heldout
    from histoweft.metrics import write_metrics
    from histoweft.submissions import annotation, interface

    params = job.params
    submission = interface.load("annotation", job.wildcards.submission, job.input.file, params.options)
    genes = fitting.shared_genes(
        job.input.reference, dict(zip(params.samples, job.input.filtered, strict=True)), params.annotation
    )
    held_out = heldout.read(job.input.held_out)
    counts, batches = annotation.read_cells(job.input.reference, genes.reference, held_out)
    rows = annotation.run(
        submission, counts, genes.names.astype(str), batches, held_out, study=params.study,
        alpha=params.annotation["alpha"], seed=params.seed,
    )  # fmt: skip
    write_metrics(rows, job.output.metrics)


run(snakemake, main)
