"""Draw what the models of the atlas make of held-out voxels."""

from histoweft.job import run


def main(job):
    """Write the figures of scores, a section, places, errors, latent clusters and errors along z."""
    import json
    from pathlib import Path

    import pandas as pd

    from histoweft.atlas import figures, results, summary, voxels
    from histoweft.metrics import read_metrics

    atlas = voxels.read(job.input.expression, job.input.voxels, job.input.genes, job.input.meta, job.input.structures)
    found = [results.read(path) for path in job.input.results]
    verdict = json.loads(Path(job.input.verdict).read_text(encoding="utf-8"))
    best, place = verdict["defaults"][summary.RECONSTRUCTION], verdict["defaults"][summary.POSITION]
    protocol = summary.honest_protocol(found)
    out = job.output
    figures.score_figure(read_metrics(job.input.metrics), out.scores)
    figures.slice_figure(found, atlas, protocol, best, out.slice)
    figures.place_figure(found, atlas, protocol, summary.place_methods(found, place), out.place)
    figures.error_figure(found, atlas, protocol, best, place, out.errors)
    scores, labels = summary.latent_clusters(found, atlas, job.params.seed)
    figures.cluster_figure(labels, scores, atlas, out.clusters)
    figures.along_z_figure(
        pd.read_csv(job.input.along_z, sep="\t"), pd.read_csv(job.input.history, sep="\t"), out.along_z
    )


run(snakemake, main)
