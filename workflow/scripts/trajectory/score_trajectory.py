"""Score the trajectories of all samples beside their floors, and say what they mean."""

from histoweft.job import run

FILES = ("filtered", "fates", "floors", "drivers", "floor_drivers", "states", "replicates", "facts", "groups")


def main(job):
    """Write metrics, verdict and the table of terminal states."""
    import json

    import pandas as pd

    from histoweft import gaps
    from histoweft.errors import NotComputed
    from histoweft.metrics import write_metrics
    from histoweft.trajectory import fit, results, score

    options, samples = job.params.options, job.params.samples
    inputs = {name: list(job.input.get(name, [])) for name in FILES}
    found = {
        sample: results.read_found({name: paths[at] for name, paths in inputs.items() if paths}, options["labels"])
        for at, sample in enumerate(samples)
        if not gaps.first(paths[at] for paths in inputs.values() if paths)
    }
    if not found:
        raise NotComputed("no sample has a trajectory")
    score.check_expected(options["expected"], [label for one in found.values() for label in one.labels])
    method = fit.method_name(options["kernels"])
    rows = []
    for sample, one in found.items():
        rows += score.sample_rows(job.params.study, sample, method, one, options["expected"], job.params.seed)
    write_metrics(rows, job.output.metrics)
    said = score.verdict(pd.DataFrame(rows), found, method)
    for text in said["texts"] + said["warnings"]:
        job.log.info("%s", text)
    job.output.verdict.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    score.terminal_table(found).to_csv(job.output.states, sep="\t", index=False, float_format="%.4g")


run(snakemake, main, optional=["*"])
