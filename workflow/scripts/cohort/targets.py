"""Rank genes and ligand-receptor pairs by the lines of evidence that they mark what resists."""

from histoweft.job import run


def main(job):
    """Write the table of candidates and the picture of the first."""
    import json

    import pandas as pd

    from histoweft.cohort import figures, targets

    genes, places = pd.read_parquet(job.input.genes), pd.read_parquet(job.input.places)
    differences = pd.read_csv(job.input.differences, sep="\t")
    surface = targets.read_surface(job.params.surface) if job.params.surface else None
    sources = {"places": job.input.places, "genes": job.input.genes, "differences": job.input.differences}
    table, said = targets.find(places, genes, differences, surface, job.params.responds, sources)
    for text in said["texts"] + said["warnings"]:
        job.log.info("%s", text)
    table.to_parquet(job.output.targets)
    table.head(targets.SHOWN).to_csv(job.output.table, sep="\t", index=False, float_format="%.6g")
    job.output.notes.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    figures.targets_figure(table, job.output.figure)


run(snakemake, main)
