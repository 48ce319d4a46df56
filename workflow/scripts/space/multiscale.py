"""Find domains at several scales in all sections together, and connect them."""

from histoweft.job import run


def main(job):
    """Write the domains of every scale, the tree and the persistence of each domain."""
    import pandas as pd

    from histoweft.io import write_table
    from histoweft.space import domain_figures, multiscale
    from histoweft.space.domains import chosen_number
    from histoweft.space.views import read_tissue

    n = chosen_number(pd.read_csv(job.input.numbers, sep="\t"), job.params.n)
    tissue = read_tissue(dict(zip(job.params.samples, job.input.filtered, strict=True)), seed=job.params.seed)
    scales = multiscale.domains_at_scales(tissue, n, job.params.neighbours, job.params.seed)
    for path, table in zip(job.output.scales, multiscale.scale_tables(tissue, scales).values(), strict=True):
        write_table(table, path)
    tree, persistence = multiscale.tree(scales), multiscale.persistence(scales)
    tree.to_csv(job.output.tree, sep="\t", index=False, float_format="%.5g")
    persistence.to_csv(job.output.persistence, sep="\t", index=False, float_format="%.5g")
    colours = domain_figures.scale_colours(tree, persistence)
    unit = "µm" if all(section.in_um for section in tissue.sections) else "units"
    domain_figures.tree_figure(tree, persistence, colours, job.output.figure, unit)


run(snakemake, main)
