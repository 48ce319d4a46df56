"""Run a submitted method of domains and score it beside ours."""

from histoweft.job import run


def main(job):
    """Write the scores."""
    import pandas as pd

    from histoweft.metrics import read_metrics, write_metrics
    from histoweft.space.domains import chosen_number
    from histoweft.submissions import domains, interface

    params = job.params
    submission = interface.load("domains", job.wildcards.submission, job.input.file, params.options)
    sections, truth, notes = domains.read_sections(dict(zip(params.samples, job.input.filtered, strict=True)))
    for note in notes if truth else [*notes, "no section has expert labels of regions: nothing to score against"]:
        job.log.warning("%s", note)
    n = chosen_number(pd.read_csv(job.input.numbers, sep="\t"), params.n)
    seeds = range(params.seed, params.seed + params.seeds)
    own = read_metrics(job.input.own)
    panels = own.loc[own["task"] == "domains", "panel"].tolist()
    panel = panels[0] if panels else f"shared genes ({len(sections[0].genes)})"
    rows = domains.run(submission, sections, truth, n, seeds, params.study, panel)
    write_metrics(rows, job.output.metrics)


run(snakemake, main)
