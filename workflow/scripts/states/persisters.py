"""Compare persisters between patients and say what surrounds them."""

from histoweft.job import run


def main(job):
    """Write tables, scores, verdict and the study's picture."""
    import json

    import pandas as pd

    from histoweft import gaps
    from histoweft.errors import NotComputed
    from histoweft.metrics import read_metrics, write_metrics
    from histoweft.states import contrast, figures, niches, score, tissue

    params = job.params
    facts = {
        sample: json.loads(open(path, encoding="utf-8").read())
        for sample, path in job.present("facts", params.samples).items()
    }
    if not facts:
        raise NotComputed("the states of no section are known")
    scores = job.present("metrics", params.samples).values()
    rows = score.mean_rows(pd.concat([read_metrics(path) for path in scores], ignore_index=True))
    patients = {sample: row["patient"] for sample, row in params.rows.items()}
    levels = {sample: str(row.get(params.column, "")) for sample, row in params.rows.items()}
    compared = contrast.contrast_table(score.measures(facts), patients, levels, params.levels, params.seed)
    around, partners = {}, {}
    for sample, found in params.around.items():
        if gaps.first(found.values()):
            continue
        inputs = [found[name] for name in ("filtered", "graph", "states")]
        around[sample], partners[sample] = tissue.around_persisters(*inputs, found, params.target_sum, params.seed)
    around = niches.combine(around, tissue.NICHE_KEYS)
    partners = niches.combine(partners, tissue.PARTNER_KEYS)
    shares = score.persister_table(facts, params.rows)
    verdict = score.verdict(rows, facts, shares, compared, around, partners, params.rare_rate)
    for text in verdict["texts"] + verdict["warnings"]:
        job.log.info("%s", text)
    write_metrics(rows, job.output.metrics)
    job.output.verdict.write_text(json.dumps(verdict, indent=1) + "\n", encoding="utf-8")
    tables = {
        "persisters": shares, "contrast": compared, "niches": around, "partners": partners,
        "rare": score.rare_table(facts), "coverage": score.coverage_table(facts),
    }  # fmt: skip
    for name, table in tables.items():
        table.to_csv(getattr(job.output, name), sep="\t", index=False, float_format="%.5g")
    figures.study_figure(shares, compared, around, partners, job.output.figure)


run(snakemake, main, optional=["*"])
