# What the pages draw in.


def captions(*names):
    """Return captions that a page shares with Snakemake's report."""
    return [str(REPOSITORY / "workflow" / "report" / f"{name}.rst") for name in names]


# Stage -> what its section of a page shows: `verdict`, and `figures` and `tables` as (path, caption).
SAMPLE_STAGES, STUDY_STAGES = {}, {}
# Stage -> the samples that it works on.
SAMPLES_OF = {
    "annotation": study.samples,
    "deconvolution": DECONVOLVED,
    "space": PLACED,
    "trajectory": TRAJECTORY_SAMPLES,
    "states": study.samples,
}

if ATLAS["input"]:
    STUDY_STAGES["atlas"] = {
        "verdict": rules.score_atlas.output.verdict,
        "figures": [
            (rules.atlas_figures.output.scores, "atlas_scores"),
            (rules.atlas_figures.output.slice, "atlas_slice_figure"),
            (rules.atlas_figures.output.place, "atlas_place_figure"),
            (rules.atlas_figures.output.errors, "atlas_error_figure"),
            (rules.atlas_figures.output.along_z, "atlas_along_z_figure"),
            (rules.atlas_figures.output.clusters, "atlas_cluster_figure"),
            *([(rules.explain_atlas.output.figure, "atlas_explained_figure")] if ATLAS["explain"] else []),
        ],
        "tables": [(rules.explain_atlas.output.agreement, "atlas_explained_table")] if ATLAS["explain"] else [],
    }
if ANNOTATES:
    SAMPLE_STAGES["annotation"] = {
        "figures": [
            (rules.annotation_figure.output.labels, "annotation_figure"),
            (rules.annotation_figure.output.markers, "annotation_markers"),
        ]
    }
    STUDY_STAGES["annotation"] = {
        "verdict": rules.score_annotation.output.verdict,
        "figures": [
            (rules.score_annotation.output.recall, "annotation_recall"),
            (rules.score_annotation.output.confusion, "annotation_confusion"),
            (rules.score_annotation.output.reliability, "annotation_reliability"),
            (rules.score_annotation.output.explained, "annotation_explained"),
        ],
    }
if DECONVOLVED:
    SAMPLE_STAGES["deconvolution"] = {"figures": [(rules.deconvolve.output.figure, "proportions_figure")]}
    STUDY_STAGES["deconvolution"] = {
        "verdict": rules.deconvolve_summary.output.verdict,
        "tables": [(rules.deconvolve_summary.output.composition, "composition_table")],
    }
if PLACED:
    SAMPLE_STAGES["space"] = {
        "figures": [
            (rules.domain_figures.output.domains, "domains_figure"),
            (rules.domain_figures.output.niches, "niches_figure"),
            (rules.domain_figures.output.scales, "scales_figure"),
            (rules.space_figures.output.genes, "svg_figure"),
            (rules.space_figures.output.neighbourhood, "neighbourhood_figure"),
            (rules.space_figures.output.cooccurrence, "cooccurrence_figure"),
            (rules.space_figures.output.interactions, "interactions_figure"),
            (rules.space_figures.output.spatial, "colocation_figure"),
        ]
    }
    STUDY_STAGES["space"] = {
        "verdict": rules.score_space.output.verdict,
        "figures": [
            (rules.score_space.output.figure, "space_scores"),
            (rules.niches.output.figure, "niche_profiles_figure"),
            (rules.multiscale.output.figure, "scale_tree_figure"),
        ],
        "tables": [
            (rules.niches.output.conditions, "niche_conditions_table"),
            (rules.space_summary.output.genes, "space_genes_table"),
            (rules.space_summary.output.interactions, "space_interactions_table"),
        ],
    }
if TRAJECTORY_SAMPLES:
    SAMPLE_STAGES["trajectory"] = {
        "figures": [
            (rules.trajectory_figures.output.order, "trajectory_figure"),
            (rules.trajectory_figures.output.fates, "fates_figure"),
            (rules.trajectory_figures.output.drivers, "drivers_figure"),
            (rules.trajectory_figures.output.trends, "trends_figure"),
            (rules.trajectory_figures.output.stability, "trajectory_stability_figure"),
        ],
        "tables": [(rules.trajectory.output.states, "macrostates_table")],
    }
    STUDY_STAGES["trajectory"] = {
        "verdict": rules.score_trajectory.output.verdict,
        "tables": [(rules.score_trajectory.output.states, "terminal_table")],
    }
if study.samples:
    SAMPLE_STAGES["states"] = {
        "figures": [
            (rules.states_figures.output.persisters, "persisters_figure"),
            (rules.states_figures.output.signatures, "signatures_figure"),
            (rules.states_figures.output.rare, "rare_figure"),
        ]
    }
    STUDY_STAGES["states"] = {
        "verdict": rules.persisters.output.verdict,
        "figures": [(rules.persisters.output.figure, "persisters_study_figure")],
        "tables": [
            (rules.persisters.output.persisters, "persisters_table"),
            (rules.persisters.output.contrast, "contrast_table"),
            (rules.persisters.output.niches, "persister_niches_table"),
            (rules.persisters.output.partners, "persister_partners_table"),
            (rules.persisters.output.rare, "rare_table"),
        ],
    }
if COMPARES:
    STUDY_STAGES["cohort"] = {
        "verdict": rules.cohort_figures.output.verdict,
        "figures": [
            (rules.cohort_figures.output.composition, "cohort_composition_figure"),
            (rules.cohort_figures.output.effects, "cohort_differences_figure"),
            *([(rules.predict_response.output.forest, "response_figure")] if RESPONDS else []),
            *([(rules.predict_response.output.calibration, "response_calibration_figure")] if RESPONDS else []),
            (rules.biomarkers.output.figure, "biomarkers_figure"),
            (rules.targets.output.figure, "targets_figure"),
        ],
        "tables": [
            (rules.cohort_features.output.differences, "cohort_differences_table"),
            (rules.biomarkers.output.table, "biomarkers_table"),
            (rules.targets.output.table, "targets_table"),
        ],
    }


# Figure (its stem; of the study with its folder) -> the table with its numbers, below the sample's or study's folder.
FIGURES_OF_SAMPLE = {
    "qc": "qc_barcodes.parquet",
    "features": "features.h5ad",
    "clusters": "clusters.parquet",
    "stability": "stability.tsv",
    "markers": "markers.parquet",
    "tiles": "histology/tiles.parquet",
    "annotation": "annotation.parquet",
    "annotation_markers": "marker_panel.tsv",
    "proportions": "proportions.parquet",
    "domain": "domains.parquet",
    "domains": "domains.parquet",
    "niches": "niches.parquet",
    "scales": "scales.parquet",
    "svg": "svg.parquet",
    "neighbourhood": "neighbourhood.parquet",
    "cooccurrence": "cooccurrence.parquet",
    "interactions": "interactions.parquet",
    "interactions_spatial": "interactions_spatial.tsv",
    "trajectory": "fates.parquet",
    "fates": "fates.parquet",
    "drivers": "top_drivers.tsv",
    "trends": "trends.parquet",
    "trajectory_stability": "trajectory/replicates.tsv",
    "persisters": "states.parquet",
    "signatures": "states.parquet",
    "rare": "states.parquet",
}
FIGURES_OF_STUDY = {
    "integration/figures/scores": "integration/metrics.tsv",
    "integration/figures/section_effect": "integration/metrics.tsv",
    "histology/figures/scores": "histology/metrics.tsv",
    "histology/figures/overfit": "histology/metrics.tsv",
    "histology/figures/encoder_training": "histology/encoder_history.tsv",
    "histology/figures/autoencoder_training": "histology/autoencoder_history.tsv",
    "atlas/figures/scores": "atlas/metrics.tsv",
    "atlas/figures/along_z": "atlas/along_z.tsv",
    "atlas/figures/explained": "atlas/explained_genes.tsv",
    "annotation/figures/recall": "annotation/metrics.tsv",
    "annotation/figures/reliability": "annotation/metrics.tsv",
    "annotation/figures/explanations": "annotation/explanations.tsv",
    "space/figures/scores": "space/metrics.tsv",
    "space/figures/niches": "space/niches.tsv",
    "space/figures/scales": "space/scale_tree.tsv",
    "states/figures/persisters": "states/persisters.tsv",
    "cohort/figures/composition": "cohort/features.parquet",
    "cohort/figures/differences": "cohort/microenvironment.tsv",
    "cohort/figures/response": "cohort/metrics.tsv",
    "cohort/figures/calibration": "cohort/predictions.parquet",
    "cohort/figures/biomarkers": "cohort/biomarkers.tsv",
    "cohort/figures/targets": "cohort/targets.tsv",
}


def table_behind(figure):
    """Return the table with the numbers of a figure; nothing where there is none."""
    path = Path(figure)
    if path.suffix != ".png":
        return ""
    if path.is_relative_to(study.results("samples")):
        name = FIGURES_OF_SAMPLE.get(path.stem, "")
        return str(path.parents[1] / name) if name else ""
    name = FIGURES_OF_STUDY.get(str(path.relative_to(study.results()).with_suffix("")), "")
    return study.results(name) if name else ""


def sources(files):
    """Return what made each file of a page: the rule, its log, and the table with the numbers of a figure."""
    outputs = {}
    for made_by in workflow.rules:
        for output in made_by.output:
            outputs.setdefault(Path(output).suffix, []).append((made_by, output))
    found = {}
    for path in filter(lambda path: Path(path).is_relative_to(study.results()), map(str, files)):
        for made_by, output in outputs.get(Path(path).suffix, []):
            if match := output.match(path):
                log = str(made_by.log[0].apply_wildcards(match.groupdict()))
                found[path] = {"rule": made_by.name, "log": log, "table": table_behind(path)}
                break
    return found


def study_stages():
    """Return what the study page shows of further stages."""
    return _as_text(STUDY_STAGES)


def sample_stages(sample):
    """Return what a sample's page shows of further stages."""
    own = {stage: parts for stage, parts in SAMPLE_STAGES.items() if sample in SAMPLES_OF[stage]}
    return _as_text(own, sample=sample)


def _as_text(stages, **wildcards):
    """Return stages with paths as text, wildcards filled in."""
    filled = {}
    for stage, parts in stages.items():
        filled[stage] = {"verdict": str(parts["verdict"])} if "verdict" in parts else {}
        for kind in ("figures", "tables"):
            filled[stage][kind] = [[str(path).format(**wildcards), name] for path, name in parts.get(kind, [])]
    return filled


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


def section_pictures():
    """Return the picture that stands for each section: domains where it has coordinates, clusters otherwise."""
    domain, clusters = rules.domain_figures.output.domain, rules.cluster_figure.output.figure
    return [str(domain if sample in PLACED else clusters).format(sample=sample) for sample in study.samples]


def study_pages():
    """Return the study page, which draws in every sample's page."""
    return [rules.report_study.output.page]


def assembled_samples():
    """Return the assembled AnnData of every sample."""
    return expand(rules.assemble.output.h5ad, sample=study.samples)


def added_tables(wildcards):
    """Return what further stages know of each barcode of a sample."""
    sample, found = wildcards.sample, {}
    if sample in PLACED:
        found |= {name: f"{SAMPLE}/{name}.parquet".format(sample=sample) for name in ("domains", "niches")}
        found["spatial_graph"] = rules.spatial_graph.output.graph.format(sample=sample)
    if ANNOTATES:
        found["annotation"] = rules.annotate.output.annotation.format(sample=sample)
    if sample in DECONVOLVED:
        found["proportions"] = rules.deconvolve.output.proportions.format(sample=sample)
    if sample in TRAJECTORY_SAMPLES:
        found["fates"] = rules.trajectory.output.fates.format(sample=sample)
    return found | {"states": rules.states.output.states.format(sample=sample)}


def painted_samples():
    """Return the painted genes of every sample with an image."""
    return expand(rules.paint_figure.output.painted, sample=IMAGED)


def final_outputs():
    """Return what a run of the study is for; the provenance tells what it came from."""
    stages = [*trajectories(), *study_states(), *cohort_pages()]
    return [*study_pages(), *assembled_samples(), *painted_samples(), *stages, study.results("metrics.tsv")]


def metric_parts():
    """Return every part of the study's metrics table."""
    parts = expand(rules.leiden.output.metrics, sample=study.samples)
    parts += [rules.score_integration.output.metrics] if INTEGRATES else []
    parts += [rules.histology_summary.output.metrics] if SCORED else []
    parts += [rules.score_atlas.output.metrics] if ATLAS["input"] else []
    parts += [rules.score_annotation.output.metrics] if ANNOTATES else []
    parts += [rules.deconvolve_summary.output.metrics] if DECONVOLVED else []
    parts += [rules.score_space.output.metrics] if PLACED else []
    parts += [rules.score_trajectory.output.metrics] if TRAJECTORY_SAMPLES else []
    parts += [rules.persisters.output.metrics] if study.samples else []
    parts += submission_metrics()
    return parts + ([rules.cohort_figures.output.metrics] if COMPARES else [])


def integration_outputs():
    """Return what the study page shows of the integration, nothing for a single section."""
    if not INTEGRATES:
        return {}
    score = rules.score_integration.output
    return {
        "verdict": score.verdict,
        "integration": [score.scores, score.umaps, score.effect],
    }


def ingest_warnings(wildcards):
    """Return what reading a sample, and its image if it has one, had to say."""
    read = [rules.ingest_counts.output.warnings]
    if discoveries[wildcards.sample].image:
        read.append(rules.ingest_image.output.warnings)
    return [path.format(sample=wildcards.sample) for path in read]


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
