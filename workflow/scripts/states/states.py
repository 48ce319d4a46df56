"""Find the states of one sample's barcodes."""

from histoweft.job import run


def main(job):
    """Write the table of barcodes, facts for the study, and scores against a truth."""
    import json

    from histoweft.io import CountsFile, write_table
    from histoweft.metrics import write_metrics
    from histoweft.states import score
    from histoweft.states.sample import analyse, read_sample

    sample, params = job.wildcards.sample, job.params
    tables = {name: job.input.get(name) for name in ("annotation", "proportions", "fates")}
    with CountsFile(job.input.filtered) as counts:
        known = read_sample(counts, job.input.features, job.input.clusters, **tables)
        found = analyse(
            counts, known, params.options, list(job.input.signatures), params.target_sum, params.neighbours, params.seed
        )
        labels = counts.obs().get("label")
    for text in found.facts["warnings"]:
        job.log.warning("%s", text)
    job.log.info("%s", json.dumps({name: found.facts[name] for name in ("persisters", "rare", "transitional")}))
    truth = score.read_truth(params.options["truth"] | {"table": job.input.get("truth")}, known.barcodes, labels)
    panel = f"all genes ({len(known.genes)})"
    rows = score.metric_rows(
        found.table, found.floors, truth, study=params.study, sample=sample, panel=panel, seed=params.seed
    )
    write_table(found.table, job.output.states)
    write_metrics(rows, job.output.metrics)
    job.output.facts.write_text(json.dumps(found.facts, indent=1) + "\n", encoding="utf-8")


run(snakemake, main)
