"""Cluster one sample at several resolutions; measure stability, and agreement with expert labels."""

from histoweft.job import run


def main(job):
    """Write clusters, their stability over seeds, the scores and the picture."""
    from histoweft.expression import figures
    from histoweft.expression.scores import clusters_against_labels
    from histoweft.graph.leiden import cluster, stability
    from histoweft.io import CountsFile, read_graph, write_table
    from histoweft.metrics import write_metrics

    with CountsFile(job.input.filtered) as filtered:
        obs, n_genes = filtered.obs(), filtered.n_vars
    connectivities, _ = read_graph(job.input.graph)
    resolutions, chosen = job.params.resolutions, job.params.resolution
    clusters = cluster(connectivities, obs.index, resolutions, chosen, seed=job.params.seed, threads=job.threads)
    seeds = range(job.params.seed, job.params.seed + job.params.seeds)
    stable = stability(connectivities, resolutions, tuple(seeds), threads=job.threads, first=clusters)
    job.log.info("\n%s", stable.to_string(index=False))
    write_table(clusters, job.output.clusters)
    stable.to_csv(job.output.stability, sep="\t", index=False)
    scores = clusters_against_labels(
        clusters, obs.get("label"), chosen, study=job.params.study, sample=job.wildcards.sample, n_genes=n_genes
    )
    write_metrics(scores, job.output.metrics)
    figures.stability_figure(stable, job.output.figure, chosen=chosen)


run(snakemake, main)
