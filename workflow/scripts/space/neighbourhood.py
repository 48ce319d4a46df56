"""Count which groups of one sample are neighbours, and at what distance they meet."""

from histoweft.job import run


def main(job):
    """Write enrichment and co-occurrence."""
    from histoweft.io import CountsFile, read_graph, write_table
    from histoweft.places import spacing
    from histoweft.space.graph import read_section
    from histoweft.space.neighbourhood import cooccurrence, enrichment
    from histoweft.space.values import read_labels

    options = job.params.options
    graph, _ = read_graph(job.input.graph)
    with CountsFile(job.input.filtered) as counts:
        xy = read_section(counts).xy
        labels = read_labels(job.params.labels, counts, job.input.get("labels"))
    write_table(enrichment(graph, labels, options["permutations"], job.params.seed), job.output.neighbourhood)
    table = cooccurrence(xy, labels, spacing(xy), options["bands"], options["band_um"])
    write_table(table, job.output.cooccurrence)


run(snakemake, main)
