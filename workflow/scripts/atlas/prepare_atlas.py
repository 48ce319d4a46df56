"""Read an atlas, check it, and write its voxels in the workflow's own form."""

from histoweft.job import run


def main(job):
    """Write expression, voxels, genes, structures and what is known of the grid."""
    from histoweft.atlas import voxels
    from histoweft.atlas.prepare import prepare
    from histoweft.atlas.sources import Options

    made = prepare(Options(**job.params.options), job.output.expression)
    out = job.output
    voxels.write(made.voxels, out.expression, out.voxels, out.genes, out.meta, out.structures, made.about)
    job.log.info("%d voxels, %d genes", made.voxels.n, len(made.voxels.genes))


run(snakemake, main)
