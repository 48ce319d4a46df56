"""Connect one sample's spots to their neighbours on the tissue."""

from histoweft.job import run


def main(job):
    """Write the graph."""
    from histoweft.io import CountsFile, write_graph
    from histoweft.space.graph import describe, read_section, spatial_graph

    with CountsFile(job.input.filtered) as counts:
        section = read_section(counts)
    kind, connectivities, distances = spatial_graph(section, **job.params.options, where="config: space.graph")
    job.log.info("%s: %s", kind, describe(connectivities))
    write_graph(job.output.graph, connectivities, distances)


run(snakemake, main)
