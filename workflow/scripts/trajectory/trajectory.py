"""Find where the cells of one sample go: order, states, fates, driver genes, stability."""

from histoweft.job import run


def main(job):
    """Write fates, drivers, trends and all that scores and pictures read."""
    import json

    import pandas as pd

    from histoweft.io import CountsFile, write_table
    from histoweft.trajectory import cells, drivers, fit, floors, results, stability

    options, target_sum = job.params.options, job.params.target_sum
    with CountsFile(job.input.filtered) as counts:
        labels = cells.read_labels(options["labels"], counts, job.input.get("groups"))
        barcodes = counts.obs_names
    chosen = cells.read_cells(
        job.input.filtered, job.input.features, labels, options["groups"], options["components"], job.input.get("raw")
    )
    found = fit.fit(chosen, options, job.params.seed)
    job.log.info("\n%s", found.states.to_string(index=False))
    write_table(fit.fate_table(found, chosen, barcodes), job.output.fates)
    for note in found.notes:
        job.log.warning("%s", note)
    baseline = floors.floor_table(chosen, found)
    write_table(baseline[found.distinct], job.output.floors)
    fates = pd.DataFrame(found.fates.probabilities, columns=found.names)
    # Copies of a cell are no further evidence.
    late = found.distinct & drivers.committing(found.pseudotime, options["drivers"]["later_than"])
    with CountsFile(job.input.filtered) as counts:
        ranked = drivers.driver_genes(counts, chosen.rows[late], fates[late], target_sum)
        nearest = drivers.driver_genes(counts, chosen.rows[late], results.fates_of(baseline)[late], target_sum)
        genes = list(dict.fromkeys(drivers.top_genes(ranked, options["drivers"]["trends"])["gene"]))
        values = pd.DataFrame(drivers.read_genes(counts, chosen.rows, genes, target_sum), columns=genes)
    ranked.to_parquet(job.output.drivers)
    nearest.to_parquet(job.output.floor_drivers)
    drivers.top_genes(ranked, options["drivers"]["top"]).to_csv(
        job.output.top, sep="\t", index=False, float_format="%.5g"
    )
    drivers.trend_table(found.pseudotime, fates, values).to_parquet(job.output.trends)
    found.states.to_csv(job.output.states, sep="\t", index=False, float_format="%.5g")
    again = stability.replicates(chosen, found, options, job.params.seed)
    again.to_csv(job.output.replicates, sep="\t", index=False, float_format="%.5g")
    noted = results.facts(chosen, found, options)
    job.log.info("%s", noted)
    job.output.facts.write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")


run(snakemake, main)
