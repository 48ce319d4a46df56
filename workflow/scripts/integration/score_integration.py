"""Score every embedding beside doing nothing, on the same cells."""

from histoweft.job import run


def main(job):
    """Write the scores, the verdict and the pictures."""
    import json

    import pandas as pd

    from histoweft.integration import figures, score
    from histoweft.io import CountsFile, read_table
    from histoweft.metrics import write_metrics

    with CountsFile(job.input.features) as features:
        obs, n_genes, about = features.obs(), features.n_vars, features.uns["histoweft"]
    embeddings = {m: read_table(p, obs.index).to_numpy() for m, p in zip(job.params.methods, job.input.embeddings)}
    joint = {m: read_table(p, obs.index) for m, p in zip(job.params.methods, job.input.joint)}
    own = pd.concat({s: read_table(p)["leiden"] for s, p in zip(job.params.samples, job.input.clusters, strict=True)})
    own.index = [f"{sample}:{barcode}" for sample, barcode in own.index]
    scores = score.score_all(
        embeddings, obs, study=job.params.study, batch_key=job.params.batch, own_clusters=own.loc[obs.index].to_numpy(),
        panel=f"joint variable genes ({n_genes})", seed=job.params.seed,
    )  # fmt: skip
    decision = score.best(scores.rows, scores.warnings)
    rows = score.mark_default(scores.rows, decision.method)
    matched = (
        f"The sections share {about['shared_genes']:,} genes, matched by {about['matched_by'].replace('_', ' ')} "
        f"({about['species']})."
    )
    text = f"{decision.text} {matched}"
    job.log.info("%s", text)
    write_metrics(rows, job.output.metrics)
    verdict = {
        "best": decision.method, "default": decision.method, "text": text, "warnings": scores.warnings,
        "conservation": scores.truth, "cells": scores.cells,
    }  # fmt: skip
    job.output.verdict.write_text(json.dumps(verdict, indent=2), encoding="utf-8")
    figures.score_figure(rows, job.output.scores)
    figures.umap_figure(joint, obs["sample"], job.output.umaps)
    figures.effect_figure(scores.effect, job.output.effect)


run(snakemake, main)
