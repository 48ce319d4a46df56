"""Predict the response of each patient by nested cross-validation, beside floors."""

from histoweft.job import run


def main(job):
    """Write predictions, scores, the audit of the folds, and both pictures."""
    import json

    import pandas as pd

    from histoweft.cohort import figures, response, score
    from histoweft.metrics import write_metrics

    options, seed, bootstraps = job.params.options, job.params.seed, job.params.options["bootstraps"]
    table, expression = pd.read_parquet(job.input.features), pd.read_parquet(job.input.expression)
    found = response.evaluate(table, expression, options, seed)
    rows = score.metric_rows(found, job.params.study, options["model"], bootstraps, seed)
    said = score.verdict(found, rows, options["model"], bootstraps, seed)
    for text in said["texts"] + said["warnings"]:
        job.log.info("%s", text)
    response.prediction_table(found).to_parquet(job.output.predictions)
    write_metrics(rows, job.output.scores)
    found.folds.to_csv(job.output.folds, sep="\t", index=False)
    settings = {name: one.settings for name, one in found.predictions.items() if one.settings}
    job.output.settings.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    job.output.said.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    if found.task is None:
        figures.message(found.refusal, job.output.forest)
        figures.message(found.refusal, job.output.calibration)
    else:
        figures.scores_figure(pd.DataFrame(rows), options["model"], job.output.forest)
        figures.calibration_figure(found.task, found.predictions, job.output.calibration)


run(snakemake, main)
