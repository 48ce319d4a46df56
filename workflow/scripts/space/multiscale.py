"""Find domains at several scales in all sections together, and connect them."""

from histoweft.job import run


def main(job):
    """Write the domains of every scale, the tree and the persistence of each domain."""
    import json

    import pandas as pd

    from histoweft.gaps import Gap, of
    from histoweft.io import CountsFile, write_table
    from histoweft.space import domain_figures, multiscale
    from histoweft.space.domains import chosen_number
    from histoweft.space.views import read_tissue

    n = chosen_number(pd.read_csv(job.input.numbers, sep="\t"), job.params.n)
    paths, neighbours = job.present("filtered", job.params.samples), job.params.neighbours
    sizes = {}
    for sample, path in paths.items():
        with CountsFile(path) as counts:
            sizes[sample] = counts.n_obs
    small = multiscale.too_small(sizes, neighbours)
    sizes = {sample: size for sample, size in sizes.items() if sample not in small}
    notes = [*small.values(), *multiscale.left_out(sizes, neighbours)]
    for note in notes:
        job.log.warning("%s", note)
    job.output.notes.write_text(json.dumps({"warnings": notes}, indent=1) + "\n", encoding="utf-8")
    tissue = read_tissue({sample: paths[sample] for sample in sizes}, seed=job.params.seed)
    scales = multiscale.domains_at_scales(tissue, n, neighbours, job.params.seed)
    tables = multiscale.scale_tables(tissue, scales)
    for sample, filtered, path in zip(job.params.samples, job.input.filtered, job.output.scales, strict=True):
        if sample in tables:
            write_table(tables[sample], path)
        else:
            job.leave_out(path, of(filtered) or Gap(small[sample]))
    tree, persistence = multiscale.tree(scales), multiscale.persistence(scales)
    tree.to_csv(job.output.tree, sep="\t", index=False, float_format="%.5g")
    persistence.to_csv(job.output.persistence, sep="\t", index=False, float_format="%.5g")
    colours = domain_figures.scale_colours(tree, persistence)
    unit = "µm" if all(section.in_um for section in tissue.sections) else "units"
    domain_figures.tree_figure(tree, persistence, colours, job.output.figure, unit)


run(snakemake, main, optional=["filtered"])
