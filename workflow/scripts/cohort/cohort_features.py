"""Gather what is known of each patient, and compare groups of patients."""

from histoweft.job import run


def main(job):
    """Write features, expression, pseudobulk counts, places, provenance and differences."""
    import json

    from histoweft.cohort import study
    from histoweft.errors import NotComputed

    options = dict(job.params.options, signatures=job.input.signatures, compartments=job.input.compartments)
    params = job.params
    files, gone = study.there(params.files)
    if not files:
        raise NotComputed("no section can be compared")
    rows = {sample: row for sample, row in params.rows.items() if sample in files}
    for words in gone:
        job.log.warning("%s", words)
    gathered, expression, notes = study.gather_study(files, rows, options, params.study, params.comparable)
    found, missing = study.differences(gathered.table, options, params.seed)
    texts = study.in_words(found, gathered.table, options["min_patients"])
    for text in texts + notes + missing:
        job.log.info("%s", text)
    gathered.table.to_parquet(job.output.features)
    expression.to_parquet(job.output.expression)
    gathered.counts.to_parquet(job.output.counts)
    gathered.places.to_parquet(job.output.places)
    gathered.columns.to_csv(job.output.columns, sep="\t", index=False)
    found.to_csv(job.output.differences, sep="\t", index=False, float_format="%.6g")
    said = {"texts": texts, "warnings": [*gone, *notes, *missing]}
    job.output.notes.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


run(snakemake, main, optional=["*"])
