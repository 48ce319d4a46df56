"""Join what the sections of the study say about variable genes and interactions."""

from histoweft.job import run


def main(job):
    """Write both tables and the findings in words."""
    import json
    from pathlib import Path

    import pandas as pd

    from histoweft.errors import NotComputed
    from histoweft.space.summary import combine_genes, combine_interactions, in_words

    samples = job.params.samples
    spatial, svg = job.present("spatial", samples), job.present("svg", samples)
    if not svg:
        raise NotComputed("no section has spatial statistics")
    pairs = combine_interactions({sample: pd.read_parquet(path) for sample, path in spatial.items()})
    genes = combine_genes({sample: pd.read_parquet(path) for sample, path in svg.items()})
    pairs.to_csv(job.output.interactions, sep="\t", index=False, float_format="%.6g")
    genes.to_csv(job.output.genes, sep="\t", index=False, float_format="%.6g")
    found = in_words(pairs, genes, len(svg))
    for sample, path in job.present("cautions", samples).items():
        found["warnings"] += [f"{sample}: {text}." for text in json.loads(Path(path).read_text(encoding="utf-8"))]
    job.output.findings.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


run(snakemake, main, optional=["svg", "spatial", "cautions"])
