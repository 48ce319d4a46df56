# What the pages draw in.


def captions(*names):
    """Return captions that a page shares with Snakemake's report."""
    return [str(REPOSITORY / "workflow" / "report" / f"{name}.rst") for name in names]


def study_pages():
    """Return the study page, which draws in every sample's page."""
    return [rules.report_study.output.page]


def assembled_samples():
    """Return the assembled AnnData of every sample."""
    return expand(rules.assemble.output.h5ad, sample=study.samples)


def painted_samples():
    """Return the painted genes of every sample with an image."""
    return expand(rules.paint_figure.output.painted, sample=IMAGED)


def metric_parts():
    """Return every part of the study's metrics table."""
    parts = expand(rules.leiden.output.metrics, sample=study.samples)
    parts += [rules.score_integration.output.metrics] if INTEGRATES else []
    return parts + ([rules.histology_summary.output.metrics] if SCORED else [])


def integration_outputs():
    """Return what the study page shows of the integration, nothing for a single section."""
    if not INTEGRATES:
        return {}
    score = rules.score_integration.output
    return {
        "verdict": score.verdict,
        "integration": [score.scores, score.umaps, score.effect],
    }
