"""Draw the patients side by side, and say what the stage found."""

from histoweft.job import run


def main(job):
    """Write both pictures, the stage's metrics and its verdict."""
    import json

    import pandas as pd

    from histoweft.cohort import figures, pages
    from histoweft.metrics import read_metrics, write_metrics

    table = pd.read_parquet(job.input.features)
    differences = pd.read_csv(job.input.differences, sep="\t")
    prefix, title = pages.best_view(table)
    if prefix:
        rows, named = pages.named_rows(table, job.params.options)
        figures.composition_figure(rows, prefix, named, job.output.composition, title)
    else:
        figures.message("No stage says what the tissues are made of.", job.output.composition)
    figures.effects_figure(pages.panels(differences), job.output.effects)
    predicted = job.input.get("said")
    parts = [json.loads(open(path, encoding="utf-8").read()) for path in [*job.input.notes, *filter(None, [predicted])]]
    write_metrics(read_metrics(job.input.scores) if predicted else [], job.output.metrics)
    said = pages.join_verdicts(parts)
    job.output.verdict.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


run(snakemake, main)
