"""Simulate a full-size atlas on a true annotation."""

from histoweft.job import run


def main(job):
    """Write expression, positions and genes, and the truth."""
    import numpy as np
    import pandas as pd

    from histoweft.atlas import tables, volumes
    from histoweft.simulate.atlas import draw_on_annotation

    annotation = volumes.to_zyx(volumes.read_volume(job.input.annotation), job.params.axes).astype(np.int32)
    structures = tables.structures(job.input.structures)

    def mapped(shape):
        return np.lib.format.open_memmap(job.output.expression, mode="w+", dtype=np.float32, shape=shape)

    atlas = draw_on_annotation(annotation, structures, job.params.n_genes, job.params.seed, mapped)
    atlas.expression.flush()
    pd.DataFrame(atlas.coordinates, columns=["z", "y", "x"]).to_csv(job.output.positions, sep="\t", index=False)
    pd.DataFrame({"gene": atlas.genes}).to_csv(job.output.genes, sep="\t", index=False)
    pd.DataFrame(atlas.truth).to_csv(job.output.truth, sep="\t", index=False, float_format="%.6g")
    job.log.info("%d voxels, %d genes", *atlas.expression.shape)


run(snakemake, main)
