"""Score one sample's ligands and receptors, between groups and side by side on the tissue."""

from histoweft.job import run


def main(job):
    """Write the scores between groups, the spatial scores, and the local scores of the first pairs."""
    from histoweft.io import CountsFile, read_graph, write_table
    from histoweft.space import colocation, interactions, ligands, values
    from histoweft.space.graph import read_section

    options, target_sum, seed = job.params.options, job.params.target_sum, job.params.seed
    graph, _ = read_graph(job.input.graph)
    with CountsFile(job.input.features) as features:
        components = features.obsm("X_pca")
    with CountsFile(job.input.filtered) as counts:
        about, genes, barcodes = counts.uns["histoweft"], counts.var_names, counts.obs_names
        xy = read_section(counts).xy
        labels = values.read_labels(job.params.labels, counts, job.input.get("labels"))
        resource = ligands.read_resource(options["resource"], job.params.organism, genes, about.get("species", ""))
        pairs = ligands.match(resource, genes)
        totals, found = values.totals_and_found(counts)
        controls = colocation.choose_controls(found, counts.n_obs, pairs.genes, seed)
        own = values.read_genes(counts, pairs.genes, totals, target_sum)
        others = values.read_genes(counts, controls, totals, target_sum)
    job.log.info("%s", ligands.in_words(pairs, resource, job.input.filtered))
    table = interactions.score(
        own, labels, pairs, genes[pairs.genes], options["min_share"], options["permutations"], seed
    )
    placed = colocation.colocate(
        values.rescale(own, totals, target_sum),
        pairs,
        values.rescale(others, totals, target_sum),
        colocation.composition(labels, components, totals),
        graph,
        xy,
        colocation.holds_several_cells(about.get("spot_diameter_um", float("nan"))),
        barcodes,
    )
    job.log.info("%d rows between groups; %d pairs placed on the tissue", len(table), len(placed.table))
    write_table(table, job.output.interactions)
    write_table(placed.table, job.output.spatial)
    write_table(placed.local, job.output.local)
    placed.table.to_csv(job.output.table, sep="\t", index=False, float_format="%.6g")


run(snakemake, main)
