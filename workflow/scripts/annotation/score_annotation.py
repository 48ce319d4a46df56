"""Score every model on held-out reference cells and on labelled samples, and say which one annotates."""

from histoweft.job import run


def main(job):
    """Write metrics, verdict, explanations and pictures."""
    import json

    import pandas as pd

    from histoweft.annotation import figures, fitting, heldout, summary
    from histoweft.annotation.genes import read_pairs
    from histoweft.annotation.names import LOGISTIC
    from histoweft.io import atomic
    from histoweft.metrics import write_metrics

    options = job.params.options
    fits = [heldout.read(path) for path in job.input.held_out]
    tables = {method: pd.read_csv(path, sep="\t")
              for method, path in zip(job.params.methods, job.input.explanations, strict=True)}  # fmt: skip
    samples = [
        summary.read_sample(*paths, fits[0].barcodes if sample in job.params.same_file else ())
        for sample, *paths in zip(
            job.params.samples, job.input.filtered, job.input.compared, job.input.facts, strict=True
        )
    ]
    query_map = dict(read_pairs(options["query_map"], "label, type").to_numpy()) if options["query_map"] else None
    found = summary.summarise(
        fits, samples, study=job.params.study, asked=options["model"], query_map=query_map, alpha=options["alpha"],
        groups=fitting.groups_of(fits[0].types, options["hierarchy"]), unknown_rate=options["unknown_rate"],
        seed=job.params.seed,
    )  # fmt: skip
    for text in (*found.verdict["texts"], *found.verdict["warnings"]):
        job.log.info("%s", text)
    write_metrics(found.rows, job.output.metrics)
    job.output.verdict.write_text(json.dumps(found.verdict, indent=2), encoding="utf-8")
    with atomic(job.output.explanations) as partial:
        joined = pd.concat(tables, names=["method"]).reset_index("method")
        joined.to_csv(partial, sep="\t", index=False, float_format="%.5g")
    figures.confusion_figure(found.judged[found.default], job.output.confusion, found.default)
    figures.reliability_figure(
        {name: one for name, one in found.judged.items() if name in job.params.methods}, job.output.reliability
    )
    figures.recall_figure(found.recall, job.output.recall)
    shown = found.default if len(tables[found.default]) else LOGISTIC
    figures.explanation_figure(tables[shown], job.output.explained, shown)


run(snakemake, main)
