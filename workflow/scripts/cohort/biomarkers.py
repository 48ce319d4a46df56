"""Rank the genes and features that mark one group of patients, and draw the first."""

from histoweft.job import run


def main(job):
    """Write the table of all markers and the picture of the first."""
    import json

    import pandas as pd

    from histoweft.cohort import biomarkers, figures, sections

    params = job.params
    table, expression = pd.read_parquet(job.input.features), pd.read_parquet(job.input.expression)
    counts, places = pd.read_parquet(job.input.counts), pd.read_parquet(job.input.places)
    differences = pd.read_csv(job.input.differences, sep="\t")
    found = biomarkers.find(table, expression, counts, places, differences, params.options, params.seed)
    for text in found.texts + found.warnings:
        job.log.info("%s", text)
    found.table.to_parquet(job.output.biomarkers)
    found.genes.to_parquet(job.output.genes)
    found.table.head(biomarkers.SHOWN).to_csv(job.output.table, sep="\t", index=False, float_format="%.6g")
    said = {"texts": found.texts, "warnings": found.warnings}
    job.output.notes.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    first = biomarkers.drawn(found.table, params.options["top"])
    places_on = zip(params.samples, job.input.filtered)
    shown = [
        sections.read_shown(path, sample, params.images[sample], first, params.target_sum) for sample, path in places_on
    ]
    figures.markers_figure(first, found.values(first), found.groups, shown, job.output.figure)


run(snakemake, main)
