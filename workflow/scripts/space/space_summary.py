"""Join what the sections of the study say about variable genes and interactions."""

from histoweft.job import run


def main(job):
    """Write both tables and the findings in words."""
    import json
    from pathlib import Path

    import pandas as pd

    from histoweft.space.summary import combine_genes, combine_interactions, in_words

    samples = job.params.samples
    pairs = combine_interactions(dict(zip(samples, map(pd.read_parquet, job.input.spatial), strict=True)))
    genes = combine_genes(dict(zip(samples, map(pd.read_parquet, job.input.svg), strict=True)))
    pairs.to_csv(job.output.interactions, sep="\t", index=False, float_format="%.6g")
    genes.to_csv(job.output.genes, sep="\t", index=False, float_format="%.6g")
    found = in_words(pairs, genes, len(samples))
    for sample, path in zip(samples, job.input.cautions, strict=True):
        found["warnings"] += [f"{sample}: {text}." for text in json.loads(Path(path).read_text(encoding="utf-8"))]
    job.output.findings.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


run(snakemake, main)
