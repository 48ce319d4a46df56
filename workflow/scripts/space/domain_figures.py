"""Draw one sample's domains, niches and scales on the tissue."""

from histoweft.job import run


def main(job):
    """Write all pictures."""
    import pandas as pd

    from histoweft.io import CountsFile, read_table
    from histoweft.space import domain_figures, figures, niches

    sample = job.wildcards.sample
    with CountsFile(job.input.filtered) as counts:
        place = figures.read_place(counts, job.input.get("image"))
        barcodes, obs = counts.obs_names, counts.obs()
    table = job.input.get("labels")
    tables = {sample: table} if table else {}
    groups = niches.read_groups(job.params.labels, {sample: job.input.filtered}, tables, job.input.get("joint"))
    tree = pd.read_csv(job.input.tree, sep="\t", dtype={"fine_domain": str, "coarse_domain": str})
    persistence = pd.read_csv(job.input.persistence, sep="\t", dtype={"domain": str})
    colours = domain_figures.scale_colours(tree, persistence)
    domain_figures.domains_figure(place, read_table(job.input.domains, barcodes), obs.get("label"), job.output.domains)
    domain_figures.niches_figure(
        place, read_table(job.input.niches, barcodes)["niche"], groups[sample], job.output.niches
    )
    domain_figures.scales_figure(place, read_table(job.input.scales, barcodes), colours, job.output.scales)


run(snakemake, main)
