"""Annotate one sample with every model; the default's table is the sample's annotation."""

from histoweft.job import run


def main(job):
    """Write the annotation, the other models' calls and the facts."""
    import json

    from histoweft.annotation import annotator, fitting, heldout, score
    from histoweft.io import CountsFile, write_table

    sample, options = job.wildcards.sample, job.params.options
    models = [annotator.load(path) for path in job.input.models]
    default = score.choose(options["model"], map(heldout.read, job.input.held_out), options["alpha"], job.params.seed)
    embedding = None
    if options["embedding"]:
        with CountsFile(job.input.filtered) as counts:
            barcodes = counts.obs_names.to_numpy()
        embedding = fitting.load_embedding(options["embedding"], sample, job.params.source, barcodes)
    found = annotator.annotate(models, job.input.filtered, sample, embedding)
    by_name = {model.name: one for model, one in zip(models, found, strict=True)}
    for warning in by_name[default].warnings:
        job.log.warning("%s", warning)
    job.log.info("%s annotates: %s", default, by_name[default].facts)
    write_table(by_name[default].table, job.output.annotation)
    write_table(annotator.beside_one_another(by_name), job.output.compared)
    facts = {"default": default, "warnings": by_name[default].warnings}
    facts["runs"] = {name: one.facts for name, one in by_name.items()}
    job.output.facts.write_text(json.dumps(facts, indent=2), encoding="utf-8")


run(snakemake, main)
