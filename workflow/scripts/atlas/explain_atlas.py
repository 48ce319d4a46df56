"""Find the genes that place and structures are told from, and hold them against the annotation."""

from histoweft.job import run


def main(job):
    """Write the genes of each target, how well they agree with the data, and the figure."""
    from histoweft.atlas import figures, voxels
    from histoweft.atlas.explain import explain

    atlas = voxels.read(job.input.expression, job.input.voxels, job.input.genes, job.input.meta, job.input.structures)
    genes, agreement = explain(atlas, job.params.options, seed=job.params.seed, device=job.device, threads=job.threads)
    genes.to_csv(job.output.genes, sep="\t", index=False, float_format="%.5g")
    agreement.to_csv(job.output.agreement, sep="\t", index=False, float_format="%.4g")
    figures.explain_figure(genes, agreement, job.output.figure)


run(snakemake, main)
