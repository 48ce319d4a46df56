# What a person opens: assembled samples, pages, one table of every score.
import os
import shlex


include: "inputs/report.smk"


# The study page tells how it was started. In the environment, not in params: another way of starting the same run
# must not rerun anything.
os.environ.setdefault("HISTOWEFT_COMMAND", shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))

PAGES = study.results("report")
INTEGRATES = len(study.samples) > 1


rule join_metrics:
    input:
        parts=metric_parts(),
    output:
        metrics=shown(
            study.results("metrics.tsv"),
            "metrics_table",
            "Study",
            sample="all",
            item="every score",
        ),
        schema=solid(study.results("metrics.schema.json")),
    log:
        logs("report/join_metrics"),
    benchmark:
        timings("report/join_metrics")
    conda:
        env("report")
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=10,
    params:
        library=library("report/join_metrics"),
    message:
        "Joining every score of the study"
    script:
        "../scripts/report/join_metrics.py"


rule assemble:
    input:
        unpack(added_tables),
        filtered=rules.qc.output.filtered,
        features=rules.features.output.features,
        graph=rules.neighbours.output.graph,
        clusters=rules.leiden.output.clusters,
        umap=rules.umap.output.umap,
        image=sample_image,
    output:
        h5ad=solid(f"{SAMPLE}/{{sample}}.h5ad"),
    log:
        logs("report/{sample}/assemble"),
    benchmark:
        timings("report/{sample}/assemble")
    conda:
        env("report")
    threads: 1
    resources:
        mem_mb=memory(1000, 0.5),
        runtime=60,
    params:
        target_sum=EXPRESSION["features"]["target_sum"],
        neighbours=EXPRESSION["neighbours"],
        library=library("report/assemble"),
    message:
        "Assembling {wildcards.sample}.h5ad"
    script:
        "../scripts/report/assemble.py"


rule report_sample:
    input:
        unpack(sample_histology),
        stages=lambda wildcards: shown_files(sample_stages(wildcards.sample)),
        notebook=str(REPOSITORY / "workflow" / "notebooks" / "sample.ipynb"),
        captions=captions(
            "qc_figure",
            "qc_table",
            "features_figure",
            "clusters_figure",
            "stability_figure",
            "stability_table",
            "markers_figure",
            "markers_table",
            "metrics_table",
            "tiles_figure",
            "painted_figure",
            "composite_figure",
            "histology_table",
            *shown_captions(SAMPLE_STAGES),
        ),
        counts=rules.ingest_counts.output.counts,
        warnings=ingest_warnings,
        filtered=rules.qc.output.filtered,
        qc=rules.qc.output.table,
        clusters=rules.leiden.output.clusters,
        stability=rules.leiden.output.stability,
        top_markers=rules.markers.output.top,
        metrics=rules.leiden.output.metrics,
        figures=[
            rules.qc_figure.output.figure,
            rules.features.output.figure,
            rules.cluster_figure.output.figure,
            rules.leiden.output.figure,
            rules.markers.output.figure,
        ],
    output:
        # No part of Snakemake's report: its archive moves each file to a folder of its own, and links would break.
        page=solid(f"{PAGES}/{{sample}}.html"),
        notebook=solid(f"{PAGES}/notebooks/{{sample}}.ipynb"),
        facts=solid(f"{SAMPLE}/facts.json"),
    log:
        logs("report/{sample}/report_sample"),
    benchmark:
        timings("report/{sample}/report_sample")
    conda:
        env("report")
    threads: 1
    resources:
        mem_mb=memory(1500),
        runtime=20,
    params:
        config=sample_settings,
        shown=lambda wildcards: sample_stages(wildcards.sample),
        sources=lambda wildcards, input: sources(input),
        library=library("report/report_sample"),
    message:
        "Page of {wildcards.sample}"
    script:
        "../scripts/report/report_sample.py"


rule report_study:
    input:
        unpack(lambda wildcards: integration_outputs() | histology_outputs()),
        stages=shown_files(study_stages()),
        notebook=str(REPOSITORY / "workflow" / "notebooks" / "study.ipynb"),
        captions=captions(
            "qc_table",
            "metrics_table",
            "integration_table",
            "integration_scores",
            "integration_umaps",
            "integration_effect",
            "histology_table",
            "histology_scores",
            "overfit_figure",
            "reconstruction_figure",
            "pretraining_figure",
            "registration_table",
            *shown_captions(STUDY_STAGES),
        ),
        pages=expand(rules.report_sample.output.page, sample=study.samples),
        facts=expand(rules.report_sample.output.facts, sample=study.samples),
        pictures=section_pictures(),
        metrics=rules.join_metrics.output.metrics,
    output:
        page=solid(f"{PAGES}/index.html"),
        notebook=solid(f"{PAGES}/notebooks/study.ipynb"),
        methods=shown(
            f"{PAGES}/methods.txt",
            "methods_text",
            "Study",
            sample="all",
            item="Methods paragraph",
        ),
    log:
        logs("report/report_study"),
    benchmark:
        timings("report/report_study")
    conda:
        env("report")
    threads: 1
    resources:
        mem_mb=memory(1500),
        runtime=20,
    params:
        config=study.config,
        samples=study.samples,
        excluded=study.excluded,
        shown=study_stages(),
        sources=lambda wildcards, input: sources(input),
        library=library("report/report_study"),
    message:
        "Page of the study"
    script:
        "../scripts/report/report_study.py"


rule provenance:
    input:
        final_outputs(),
    output:
        crate=solid(study.results("ro-crate-metadata.json")),
        folder=ensure(directory(study.results("provenance")), non_empty=True),
    log:
        logs("report/provenance"),
    benchmark:
        timings("report/provenance")
    conda:
        env("report")
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=240,
    params:
        config=study.config,
        library=library("report/provenance"),
    message:
        "Digests of all that was read and made (RO-Crate)"
    script:
        "../scripts/report/provenance.py"
