"""Test every gene of one sample for every cluster against the rest."""

from histoweft.job import run


def main(job):
    """Write all markers, the top ones, the marker panel and the dot plot."""
    from histoweft.expression import figures, markers
    from histoweft.io import read_table, write_table

    clusters = read_table(job.input.clusters)["leiden"]
    table = markers.rank_markers(job.input.filtered, clusters, target_sum=job.params.target_sum)
    top = markers.top_markers(table, per_cluster=job.params.per_cluster)
    write_table(table, job.output.markers)
    top.to_csv(job.output.top, sep="\t", index=False)
    markers.marker_panel(table).to_csv(job.output.panel, sep="\t", index=False)
    genes = list(dict.fromkeys(top["gene"]))
    summary = markers.marker_summary(job.input.filtered, clusters, genes, target_sum=job.params.target_sum)
    figures.markers_figure(summary, top, job.output.figure)


run(snakemake, main)
