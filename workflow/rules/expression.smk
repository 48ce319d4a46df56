# Per sample: QC, normalisation, variable genes, PCA, neighbours, Leiden, UMAP, markers.


include: "inputs/expression.smk"


EXPRESSION = study.config["expression"]
FIGURES = f"{SAMPLE}/figures"


rule qc:
    input:
        counts=rules.ingest_counts.output.counts,
    output:
        filtered=solid(f"{SAMPLE}/filtered.h5ad"),
        table=shown(f"{SAMPLE}/qc.tsv", "qc_table", "QC", sample="{sample}", item="what each filter removed"),
        barcodes=solid(f"{SAMPLE}/qc_barcodes.parquet"),
    log:
        logs("expression/{sample}/qc"),
    benchmark:
        timings("expression/{sample}/qc")
    conda:
        env("expression")
    threads: 1
    resources:
        mem_mb=memory(1200, 1.5),
        runtime=60,
    params:
        options=EXPRESSION["qc"],
        seed=study.config["seed"],
        library=library("expression/qc"),
    message:
        "Filtering {wildcards.sample}"
    script:
        "../scripts/expression/qc.py"


rule qc_figure:
    input:
        counts=rules.ingest_counts.output.counts,
        barcodes=rules.qc.output.barcodes,
        table=rules.qc.output.table,
        image=sample_image,
    output:
        figure=shown(f"{FIGURES}/qc.png", "qc_figure", "QC", sample="{sample}", item="removed spots on the tissue"),
    log:
        logs("expression/{sample}/qc_figure"),
    benchmark:
        timings("expression/{sample}/qc_figure")
    conda:
        env("expression")
    threads: 1
    resources:
        mem_mb=memory(1000, 0.2),
        runtime=30,
    params:
        library=library("expression/qc_figure"),
    message:
        "Drawing what QC removed from {wildcards.sample}"
    script:
        "../scripts/expression/qc_figure.py"


rule features:
    input:
        filtered=rules.qc.output.filtered,
    output:
        features=solid(f"{SAMPLE}/features.h5ad"),
        figure=shown(
            f"{FIGURES}/features.png",
            "features_figure",
            "Expression",
            sample="{sample}",
            item="variable genes and PCA",
        ),
    log:
        logs("expression/{sample}/features"),
    benchmark:
        timings("expression/{sample}/features")
    conda:
        env("expression")
    threads: 1
    resources:
        mem_mb=memory(1500, 3),
        runtime=60,
    params:
        options=EXPRESSION["features"],
        library=library("expression/features"),
    message:
        "Normalising {wildcards.sample}; variable genes and PCA"
    script:
        "../scripts/expression/features.py"


rule neighbours:
    input:
        features=rules.features.output.features,
    output:
        graph=solid(f"{SAMPLE}/neighbours.npz"),
    log:
        logs("expression/{sample}/neighbours"),
    benchmark:
        timings("expression/{sample}/neighbours")
    conda:
        env("expression")
    threads: 1
    resources:
        mem_mb=memory(1500, 4),
        runtime=60,
    params:
        neighbours=EXPRESSION["neighbours"],
        seed=study.config["seed"],
        library=library("expression/neighbours"),
    message:
        "Nearest neighbours of {wildcards.sample} in expression"
    script:
        "../scripts/expression/neighbours.py"


rule leiden:
    input:
        graph=rules.neighbours.output.graph,
        filtered=rules.qc.output.filtered,
    output:
        clusters=solid(f"{SAMPLE}/clusters.parquet"),
        stability=shown(
            f"{SAMPLE}/stability.tsv",
            "stability_table",
            "Expression",
            sample="{sample}",
            item="Leiden stability (table)",
        ),
        metrics=solid(f"{SAMPLE}/metrics/expression.tsv"),
        figure=shown(
            f"{FIGURES}/stability.png", "stability_figure", "Expression", sample="{sample}", item="Leiden stability"
        ),
    log:
        logs("expression/{sample}/leiden"),
    benchmark:
        timings("expression/{sample}/leiden")
    conda:
        env("expression")
    threads: 1
    resources:
        mem_mb=memory(1000, 3),
        runtime=120,
    params:
        study=study.name,
        resolutions=EXPRESSION["resolutions"],
        resolution=EXPRESSION["resolution"],
        seeds=EXPRESSION["stability_seeds"],
        seed=study.config["seed"],
        library=library("expression/leiden"),
    message:
        "Leiden clusters of {wildcards.sample}"
    script:
        "../scripts/expression/leiden.py"


rule umap:
    input:
        graph=rules.neighbours.output.graph,
        features=rules.features.output.features,
    output:
        umap=solid(f"{SAMPLE}/umap.parquet"),
    log:
        logs("expression/{sample}/umap"),
    benchmark:
        timings("expression/{sample}/umap")
    conda:
        env("expression")
    threads: 1
    resources:
        mem_mb=memory(1500, 4),
        runtime=120,
    params:
        min_dist=EXPRESSION["umap_min_dist"],
        seed=study.config["seed"],
        library=library("expression/umap"),
    message:
        "UMAP of {wildcards.sample}"
    script:
        "../scripts/expression/umap.py"


rule markers:
    input:
        filtered=rules.qc.output.filtered,
        clusters=rules.leiden.output.clusters,
    output:
        markers=solid(f"{SAMPLE}/markers.parquet"),
        top=shown(f"{SAMPLE}/top_markers.tsv", "markers_table", "Expression", sample="{sample}", item="top markers"),
        panel=solid(f"{SAMPLE}/marker_panel.tsv"),
        figure=shown(f"{FIGURES}/markers.png", "markers_figure", "Expression", sample="{sample}", item="markers"),
    log:
        logs("expression/{sample}/markers"),
    benchmark:
        timings("expression/{sample}/markers")
    conda:
        env("expression")
    threads: 1
    resources:
        mem_mb=memory(1500, 4),
        runtime=120,
    params:
        per_cluster=EXPRESSION["markers_per_cluster"],
        target_sum=EXPRESSION["features"]["target_sum"],
        library=library("expression/markers"),
    message:
        "Marker genes of {wildcards.sample}'s clusters"
    script:
        "../scripts/expression/markers.py"


rule cluster_figure:
    input:
        filtered=rules.qc.output.filtered,
        clusters=rules.leiden.output.clusters,
        umap=rules.umap.output.umap,
        image=sample_image,
    output:
        figure=shown(
            f"{FIGURES}/clusters.png",
            "clusters_figure",
            "Expression",
            sample="{sample}",
            item="clusters on tissue and UMAP",
        ),
    log:
        logs("expression/{sample}/cluster_figure"),
    benchmark:
        timings("expression/{sample}/cluster_figure")
    conda:
        env("expression")
    threads: 1
    resources:
        mem_mb=memory(1000, 1),
        runtime=30,
    params:
        library=library("expression/cluster_figure"),
    message:
        "Drawing {wildcards.sample}'s clusters"
    script:
        "../scripts/expression/cluster_figure.py"
