# Cell types by transfer from a labelled reference: models, their doubt, their scores.


include: "inputs/annotation.smk"


if ANNOTATES:

    wildcard_constraints:
        annotator="|".join(ANNOTATORS),

    rule fit_annotation:
        input:
            reference_embedding,
            annotation_tables("hierarchy", "markers", "orthologs", "gene_sets"),
            reference=rules.ingest_reference.output.reference,
            filtered=expand(rules.qc.output.filtered, sample=study.samples),
            floor=floor_held_out,
        output:
            model=solid(f"{ANNOTATION_FOLDER}/{{annotator}}/model.npz"),
            held_out=solid(f"{ANNOTATION_FOLDER}/{{annotator}}/held_out.npz"),
            explanations=solid(f"{ANNOTATION_FOLDER}/{{annotator}}/explanations.tsv"),
        log:
            logs("annotation/{annotator}/fit_annotation"),
        benchmark:
            timings("annotation/{annotator}/fit_annotation")
        conda:
            env("annotation")
        threads: 1
        resources:
            mem_mb=memory(3000, 4),
            runtime=480,
            gpu=lambda wildcards: 1 if wildcards.annotator in NETWORKS else 0,
        params:
            samples=list(study.samples),
            options=FIT_OPTIONS,
            source=REFERENCE["path"],
            require_gpu=lambda wildcards: wildcards.annotator in NETWORKS and study.config["require_gpu"],
            seed=study.config["seed"],
            library=library("annotation/fit_annotation"),
        message:
            "Learning cell types from the reference ({wildcards.annotator})"
        script:
            "../scripts/annotation/fit_annotation.py"

    rule annotate:
        input:
            sample_embedding,
            filtered=rules.qc.output.filtered,
            models=expand(rules.fit_annotation.output.model, annotator=ANNOTATORS),
            held_out=expand(rules.fit_annotation.output.held_out, annotator=ANNOTATORS),
        output:
            annotation=solid(f"{SAMPLE}/annotation.parquet"),
            compared=solid(f"{SAMPLE}/annotation/compared.parquet"),
            facts=solid(f"{SAMPLE}/annotation/facts.json"),
        log:
            logs("annotation/{sample}/annotate"),
        benchmark:
            timings("annotation/{sample}/annotate")
        conda:
            env("annotation")
        threads: 1
        resources:
            mem_mb=memory(2500, 0.5),
            runtime=120,
        params:
            options={name: ANNOTATION[name] for name in ("model", "alpha", "embedding")},
            source=lambda wildcards: study.samples[wildcards.sample]["path"],
            seed=study.config["seed"],
            library=library("annotation/annotate"),
        message:
            "Cell types of {wildcards.sample}"
        script:
            "../scripts/annotation/annotate.py"

    rule annotation_figure:
        input:
            annotation_tables("markers"),
            filtered=rules.qc.output.filtered,
            annotation=rules.annotate.output.annotation,
            umap=rules.umap.output.umap,
            model=expand(rules.fit_annotation.output.model, annotator=LOGISTIC)[0],
            explanations=expand(rules.fit_annotation.output.explanations, annotator=LOGISTIC)[0],
        output:
            labels=shown(
                f"{SAMPLE}/figures/annotation.png",
                "annotation_figure",
                "Annotation",
                sample="{sample}",
                item="cell types",
            ),
            markers=shown(
                f"{SAMPLE}/figures/annotation_markers.png",
                "annotation_markers",
                "Annotation",
                sample="{sample}",
                item="markers of types",
            ),
        log:
            logs("annotation/{sample}/annotation_figure"),
        benchmark:
            timings("annotation/{sample}/annotation_figure")
        conda:
            env("annotation")
        threads: 1
        resources:
            mem_mb=memory(1500, 0.5),
            runtime=30,
        params:
            markers=ANNOTATION["markers"],
            library=library("annotation/annotation_figure"),
        message:
            "Drawing the cell types of {wildcards.sample}"
        script:
            "../scripts/annotation/annotation_figure.py"

    rule score_annotation:
        input:
            annotation_tables("hierarchy", "query_map"),
            filtered=expand(rules.qc.output.filtered, sample=study.samples),
            compared=expand(rules.annotate.output.compared, sample=study.samples),
            facts=expand(rules.annotate.output.facts, sample=study.samples),
            held_out=expand(rules.fit_annotation.output.held_out, annotator=ANNOTATORS),
            explanations=expand(rules.fit_annotation.output.explanations, annotator=ANNOTATORS),
        output:
            metrics=shown(
                f"{ANNOTATION_FOLDER}/metrics.tsv",
                "annotation_table",
                "Annotation",
                sample="all",
                item="scores (table)",
            ),
            verdict=solid(f"{ANNOTATION_FOLDER}/verdict.json"),
            explanations=shown(
                f"{ANNOTATION_FOLDER}/explanations.tsv",
                "annotation_explanations",
                "Annotation",
                sample="all",
                item="genes and gene sets (table)",
            ),
            confusion=shown(
                f"{ANNOTATION_FOLDER}/figures/confusion.png",
                "annotation_confusion",
                "Annotation",
                sample="all",
                item="confusion",
            ),
            reliability=shown(
                f"{ANNOTATION_FOLDER}/figures/reliability.png",
                "annotation_reliability",
                "Annotation",
                sample="all",
                item="calibration",
            ),
            recall=shown(
                f"{ANNOTATION_FOLDER}/figures/recall.png",
                "annotation_recall",
                "Annotation",
                sample="all",
                item="recall of each type",
            ),
            explained=shown(
                f"{ANNOTATION_FOLDER}/figures/explanations.png",
                "annotation_explained",
                "Annotation",
                sample="all",
                item="genes that decide",
            ),
        log:
            logs("annotation/score_annotation"),
        benchmark:
            timings("annotation/score_annotation")
        conda:
            env("annotation")
        threads: 1
        resources:
            mem_mb=memory(2000, 0.2),
            runtime=60,
        params:
            study=study.name,
            samples=list(study.samples),
            methods=ANNOTATORS,
            same_file=[sample for sample, row in study.samples.items() if row["path"] == REFERENCE["path"]],
            options={name: ANNOTATION[name] for name in ("model", "query_map", "hierarchy", "alpha", "unknown_rate")},
            seed=study.config["seed"],
            library=library("annotation/score_annotation"),
        message:
            "Scoring the cell types"
        script:
            "../scripts/annotation/score_annotation.py"


if DECONVOLVED:

    rule deconvolve:
        input:
            annotation_tables("orthologs"),
            reference=rules.ingest_reference.output.reference,
            filtered=rules.qc.output.filtered,
        output:
            proportions=solid(f"{SAMPLE}/proportions.parquet"),
            metrics=solid(f"{SAMPLE}/annotation/deconvolution.tsv"),
            facts=solid(f"{SAMPLE}/annotation/deconvolution.json"),
            figure=shown(
                f"{SAMPLE}/figures/proportions.png",
                "proportions_figure",
                "Annotation",
                sample="{sample}",
                item="proportions of cell types",
            ),
        log:
            logs("annotation/{sample}/deconvolve"),
        benchmark:
            timings("annotation/{sample}/deconvolve")
        conda:
            env("annotation")
        threads: 1
        resources:
            mem_mb=memory(2000, 3),
            runtime=120,
        params:
            study=study.name,
            platform=lambda wildcards: study.samples[wildcards.sample]["platform"],
            options=ANNOTATION["deconvolution"],
            reading=DECONVOLUTION_READING,
            seed=study.config["seed"],
            library=library("annotation/deconvolve"),
        message:
            "Cell types in the spots of {wildcards.sample}"
        script:
            "../scripts/annotation/deconvolve.py"

    rule deconvolve_summary:
        input:
            metrics=expand(rules.deconvolve.output.metrics, sample=DECONVOLVED),
            proportions=expand(rules.deconvolve.output.proportions, sample=DECONVOLVED),
            facts=expand(rules.deconvolve.output.facts, sample=DECONVOLVED),
        output:
            metrics=shown(
                f"{ANNOTATION_FOLDER}/deconvolution/metrics.tsv",
                "deconvolution_table",
                "Annotation",
                sample="all",
                item="deconvolution: scores (table)",
            ),
            composition=shown(
                f"{ANNOTATION_FOLDER}/deconvolution/composition.tsv",
                "composition_table",
                "Annotation",
                sample="all",
                item="deconvolution: composition (table)",
            ),
            verdict=solid(f"{ANNOTATION_FOLDER}/deconvolution/verdict.json"),
        log:
            logs("annotation/deconvolve_summary"),
        benchmark:
            timings("annotation/deconvolve_summary")
        conda:
            env("annotation")
        threads: 1
        resources:
            mem_mb=memory(1000, 4),
            runtime=30,
        params:
            samples=list(DECONVOLVED),
            library=library("annotation/deconvolve_summary"),
        message:
            "What the spots of all samples are composed of"
        script:
            "../scripts/annotation/deconvolve_summary.py"
