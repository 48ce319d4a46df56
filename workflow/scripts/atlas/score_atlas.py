"""Score the held-out voxels of all folds, compare the models with the floors, and say which is worth using."""

from histoweft.job import run


def main(job):
    """Write metrics, verdict, and the errors along z with the loss curves."""
    import json

    from histoweft.atlas import results, summary, voxels
    from histoweft.metrics import write_metrics

    atlas = voxels.read(job.input.expression, job.input.voxels, job.input.genes, job.input.meta, job.input.structures)
    found = [results.read(path) for path in job.input.results]
    clusters, _ = summary.latent_clusters(found, atlas, job.params.seed)
    made = summary.summarise(found, atlas, job.params.study, job.params.model, clusters)
    for text in made.verdict["texts"]:
        job.log.info("%s", text)
    write_metrics(made.rows, job.output.metrics)
    job.output.verdict.write_text(json.dumps(made.verdict, indent=1) + "\n", encoding="utf-8")
    made.along_z.to_csv(job.output.along_z, sep="\t", index=False, float_format="%.5g")
    made.history.to_csv(job.output.history, sep="\t", index=False, float_format="%.6g")


run(snakemake, main)
