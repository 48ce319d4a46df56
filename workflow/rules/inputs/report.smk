# What the pages draw in.


def captions(*names):
    """Return captions that a page shares with Snakemake's report."""
    return [str(REPOSITORY / "workflow" / "report" / f"{name}.rst") for name in names]


# Stage -> what its section of a page shows: `verdict`, and `figures` and `tables` as (path, caption).
SAMPLE_STAGES = {}
STUDY_STAGES = {}


def study_stages():
    """Return what the study page shows of further stages."""
    return STUDY_STAGES


def sample_stages(sample):
    """Return what a sample's page shows of further stages."""
    return {
        stage: {
            part: [[str(path).format(sample=sample), caption] for path, caption in shown]
            for part, shown in parts.items()
        }
        for stage, parts in SAMPLE_STAGES.items()
    }


def shown_files(stages):
    """Return the files that the sections of stages show."""
    files = [parts["verdict"] for parts in stages.values() if parts.get("verdict")]
    return files + [
        path for parts in stages.values() for kind in ("figures", "tables") for path, _ in parts.get(kind, [])
    ]


def shown_captions(stages):
    """Return the names of the captions that the sections of stages use."""
    pairs = [pair for parts in stages.values() for kind in ("figures", "tables") for pair in parts.get(kind, [])]
    return dict.fromkeys(caption for _, caption in pairs)


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


def sample_histology(wildcards):
    """Return what a sample's page shows of its image and its painted genes, nothing without an image."""
    if wildcards.sample not in IMAGED:
        return {}
    figures = rules.paint_figure.output
    found = {
        "stain": rules.tile.output.stain,
        "painted": rules.paint.output.painted,
        "histology_figures": [rules.tile.output.figure, figures.painted, figures.composite],
    }
    return found | ({"histology_metrics": rules.histology_summary.output.metrics} if SCORED else {})


def sample_settings(wildcards):
    """Return the part of the config that a sample's page tells of."""
    names = ["study", "title", "seed", "ingest", "expression"]
    names += ["histology"] if wildcards.sample in IMAGED else []
    return {name: study.config[name] for name in names}


def histology_outputs():
    """Return what the study page shows of the models that predict expression, nothing where no sample has an image."""
    if not IMAGED:
        return {}
    networks = ["encoder"]
    networks += ["autoencoder"] if SCORED and "autoencoder" in MODELS else []
    pretrained = rules.pretrain.output
    figures = [str(path).format(network=name) for name in networks for path in (pretrained.figure, pretrained.curve)]
    found = {}
    if SCORED:
        summary = rules.histology_summary.output
        figures = [summary.scores, summary.overfit, *figures]
        found["histology_verdict"] = summary.verdict
    if figures:
        found["histology_figures"] = figures
    if SERIAL and any(FITS[name].kind == plan.ACROSS for name in SCORED):
        found["registration"] = rules.register.output.table
    return found
