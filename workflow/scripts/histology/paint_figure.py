"""Draw the painted genes of a sample beside the measured spots, and a few of them in one picture."""

from histoweft.job import run


def main(job):
    """Write both figures."""
    from histoweft import gaps
    from histoweft.histology import figures
    from histoweft.histology.maps import composite_genes, held_out_pearson, measured_expression
    from histoweft.histology.paint import painted_by, read_mask, read_painted
    from histoweft.images import read_image

    maps, genes, um_per_px = read_painted(job.input.painted, max_px=900)
    mask = read_mask(job.input.painted, max_px=900)
    rgb, rgb_um, _ = read_image(job.input.image, max_px=900)
    measured = measured_expression(job.input.filtered, genes, job.params.footprint_um)
    method = painted_by(job.input.painted)
    scores = [path for path in job.input.scores if not gaps.of(path)]
    held_out = held_out_pearson(next(iter(scores), None), genes, method)
    shown = [genes.index(gene) for gene in measured.most_variable(genes, 8)]
    note = f"held-out r: mean over contiguous blocks, each predicted by {method} without having seen it"
    figures.gene_figure(
        rgb, rgb_um, maps[shown], um_per_px, [genes[i] for i in shown], measured.xy_um, measured.values[:, shown],
        None if held_out is None else held_out[shown], mask, measured.spot_um, job.output.painted,
        note="" if held_out is None else note,
    )  # fmt: skip
    few = composite_genes(maps, mask, measured, genes)
    figures.composite(
        maps[few], [genes[i] for i in few], um_per_px, job.output.composite, mask=mask, rgb=rgb, rgb_um_per_px=rgb_um
    )


run(snakemake, main, optional=["scores"])
