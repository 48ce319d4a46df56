"""Draw one sample's domains, niches and scales on the tissue."""

from histoweft.job import run


def main(job):
    """Write all pictures."""
    import pandas as pd

    from histoweft import gaps
    from histoweft.io import CountsFile, read_table
    from histoweft.space import domain_figures, figures, niches

    sample, samples = job.wildcards.sample, job.params.samples
    filtered = dict(zip(samples, job.input.filtered, strict=True))
    groups = niches.read_groups(
        job.params.labels, filtered, dict(zip(samples, job.input.get("labels", []))), job.input.get("joint")
    )
    labels = set()
    for path in filtered.values():
        with CountsFile(path) as counts:
            labels |= set(counts.obs().get("label", []))
    tables = [read_table(path) for path in job.present("domains", samples).values()]
    shared = domain_figures.study_colours(tables, labels) if tables else {}
    with CountsFile(filtered[sample]) as counts:
        place = figures.read_place(counts, job.input.get("image"))
        barcodes, obs = counts.obs_names, counts.obs()
    if gap := gaps.of(job.input.domains[samples.index(sample)]):
        job.leave_out(job.output.domain, gap)
        job.leave_out(job.output.domains, gap)
    else:
        domains = read_table(job.input.domains[samples.index(sample)], barcodes)
        domain_figures.domain_figure(place, domains["domain"], job.output.domain, shared["domain"])
        domain_figures.domains_figure(place, domains, obs.get("label"), job.output.domains, shared)
    if gap := gaps.of(job.input.niches):
        job.leave_out(job.output.niches, gap)
    else:
        niche = read_table(job.input.niches, barcodes)["niche"]
        title = "clusters of all sections together" if job.input.get("joint") else "groups"
        domain_figures.niches_figure(place, niche, groups[sample], job.output.niches, title)
    if gap := gaps.of(job.input.scales):
        job.leave_out(job.output.scales, gap)
    else:
        tree = pd.read_csv(job.input.tree, sep="\t", dtype={"fine_domain": str, "coarse_domain": str})
        persistence = pd.read_csv(job.input.persistence, sep="\t", dtype={"domain": str})
        colours = domain_figures.scale_colours(tree, persistence)
        domain_figures.scales_figure(place, read_table(job.input.scales, barcodes), colours, job.output.scales)


run(snakemake, main, optional=["domains", "niches", "scales", "tree", "persistence"])
