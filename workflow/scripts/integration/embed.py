"""Embed all sections together with one method."""

from histoweft.job import run


def main(job):
    """Write the embedding."""
    import pandas as pd

    from histoweft.integration.embed import embed
    from histoweft.io import CountsFile, write_table

    method, options = job.wildcards.method, {}
    if method == "scvi":
        options = {
            "components": job.params.n_components, "epochs": job.params.epochs, "device": job.device,
            "threads": job.threads,
        }  # fmt: skip
    if method == "harmony":
        options = {"threads": job.threads}
    values = embed(method, job.input.features, job.params.batch, job.params.seed, options)
    with CountsFile(job.input.features) as features:
        index = pd.Index(features.obs_names, name="barcode")
    columns = [f"{method}_{number}" for number in range(1, values.shape[1] + 1)]
    write_table(pd.DataFrame(values, index=index, columns=columns), job.output.embedding)


run(snakemake, main)
