"""Join the stage's scores and say what they mean."""

from histoweft.job import run


def main(job):
    """Write metrics, verdict and the picture of the scores."""
    import json

    import pandas as pd

    from histoweft.metrics import read_metrics, write_metrics
    from histoweft.space import domain_figures, domain_scores

    rows = read_metrics(job.input.metrics)
    write_metrics(rows, job.output.metrics)
    found = domain_scores.verdict(rows, job.params.method)
    notes = json.loads(open(job.input.notes, encoding="utf-8").read()).get("notes", [])
    findings = json.loads(open(job.input.findings, encoding="utf-8").read())
    scales = json.loads(open(job.input.scale_notes, encoding="utf-8").read())
    found["not_computed"] = [said["not_computed"] for said in (scales, findings) if said.get("not_computed")]
    found["warnings"] += scales["warnings"]
    found["texts"] += [f"Niches, {note}." for note in notes] + findings["texts"]
    found["warnings"] += findings["warnings"]
    for text in found["texts"] + found["warnings"]:
        job.log.info("%s", text)
    job.output.verdict.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    domain_figures.scores_figure(rows, pd.read_csv(job.input.numbers, sep="\t"), job.output.figure)


run(snakemake, main, optional=["notes", "scale_notes", "findings"])
