"""Connect one sample's spots to their neighbours on the tissue."""

from histoweft.job import run


def main(job):
    """Write the graph, and what people should look at in it."""
    import json

    from histoweft.io import CountsFile, write_graph
    from histoweft.space.graph import cautions, describe, read_section, spatial_graph

    with CountsFile(job.input.filtered) as counts:
        section = read_section(counts)
    kind, connectivities, distances = spatial_graph(section, **job.params.options, where="config: space.graph")
    job.log.info("%s: %s", kind, describe(connectivities))
    told = cautions(section, connectivities, kind)
    for caution in told:
        job.log.warning("%s", caution)
    job.output.cautions.write_text(json.dumps(told) + "\n", encoding="utf-8")
    write_graph(job.output.graph, connectivities, distances)


run(snakemake, main)
