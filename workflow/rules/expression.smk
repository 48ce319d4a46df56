# Per sample: QC, normalisation, variable genes, PCA, neighbours, Leiden, UMAP, markers.
EXPRESSION = study.config["expression"]
FIGURES = f"{SAMPLE}/figures"


def sample_image(wildcards):
    """Return the working image of a sample that has one, else nothing."""
    if not discoveries[wildcards.sample].image:
        return []
    return rules.ingest_image.output.image.format(sample=wildcards.sample)


rule qc:
    message:
        "Filtering {wildcards.sample}"
    input:
        counts=rules.ingest_counts.output.counts,
        image=sample_image,
    output:
        filtered=solid(f"{SAMPLE}/filtered.h5ad"),
        table=shown(f"{SAMPLE}/qc.tsv", "qc_table", "QC", sample="{sample}", item="what each filter removed"),
        barcodes=solid(f"{SAMPLE}/qc_barcodes.parquet"),
        figure=shown(f"{FIGURES}/qc.png", "qc_figure", "QC", sample="{sample}", item="removed spots on the tissue"),
    params:
        options=EXPRESSION["qc"],
        seed=study.config["seed"],
        library=library("expression/qc"),
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
    script:
        "../scripts/expression/qc.py"


rule features:
    message:
        "Normalising {wildcards.sample}; variable genes and PCA"
    input:
        filtered=rules.qc.output.filtered,
    output:
        features=solid(f"{SAMPLE}/features.h5ad"),
        figure=shown(
            f"{FIGURES}/features.png", "features_figure", "Expression", sample="{sample}", item="variable genes and PCA"
        ),
    params:
        options=EXPRESSION["features"],
        library=library("expression/features"),
    log:
        logs("expression/{sample}/features"),
    benchmark:
        timings("expression/{sample}/features")
    conda:
        env("expression")
    threads: 2
    resources:
        mem_mb=memory(1500, 3),
        runtime=60,
    script:
        "../scripts/expression/features.py"


rule neighbours:
    message:
        "Nearest neighbours of {wildcards.sample} in expression"
    input:
        features=rules.features.output.features,
    output:
        graph=solid(f"{SAMPLE}/neighbours.npz"),
    params:
        neighbours=EXPRESSION["neighbours"],
        seed=study.config["seed"],
        library=library("expression/neighbours"),
    log:
        logs("expression/{sample}/neighbours"),
    benchmark:
        timings("expression/{sample}/neighbours")
    conda:
        env("expression")
    threads: 2
    resources:
        mem_mb=memory(1500, 4),
        runtime=60,
    script:
        "../scripts/expression/neighbours.py"


rule leiden:
    message:
        "Leiden clusters of {wildcards.sample}"
    input:
        graph=rules.neighbours.output.graph,
        filtered=rules.qc.output.filtered,
    output:
        clusters=solid(f"{SAMPLE}/clusters.parquet"),
        stability=shown(
            f"{SAMPLE}/stability.tsv", "stability_table", "Expression", sample="{sample}", item="Leiden stability (table)"
        ),
        metrics=solid(f"{SAMPLE}/metrics/expression.tsv"),
        figure=shown(
            f"{FIGURES}/stability.png", "stability_figure", "Expression", sample="{sample}", item="Leiden stability"
        ),
    params:
        study=study.name,
        resolutions=EXPRESSION["resolutions"],
        resolution=EXPRESSION["resolution"],
        seeds=EXPRESSION["stability_seeds"],
        seed=study.config["seed"],
        library=library("expression/leiden"),
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
    script:
        "../scripts/expression/leiden.py"


rule umap:
    message:
        "UMAP of {wildcards.sample}"
    input:
        graph=rules.neighbours.output.graph,
        features=rules.features.output.features,
    output:
        umap=solid(f"{SAMPLE}/umap.parquet"),
    params:
        min_dist=EXPRESSION["umap_min_dist"],
        seed=study.config["seed"],
        library=library("expression/umap"),
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
    script:
        "../scripts/expression/umap.py"


rule markers:
    message:
        "Marker genes of {wildcards.sample}'s clusters"
    input:
        filtered=rules.qc.output.filtered,
        clusters=rules.leiden.output.clusters,
    output:
        markers=solid(f"{SAMPLE}/markers.parquet"),
        top=shown(f"{SAMPLE}/top_markers.tsv", "markers_table", "Expression", sample="{sample}", item="top markers"),
        panel=solid(f"{SAMPLE}/marker_panel.tsv"),
        figure=shown(f"{FIGURES}/markers.png", "markers_figure", "Expression", sample="{sample}", item="markers"),
    params:
        per_cluster=EXPRESSION["markers_per_cluster"],
        target_sum=EXPRESSION["features"]["target_sum"],
        library=library("expression/markers"),
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
    script:
        "../scripts/expression/markers.py"


rule cluster_figure:
    message:
        "Drawing {wildcards.sample}'s clusters"
    input:
        filtered=rules.qc.output.filtered,
        clusters=rules.leiden.output.clusters,
        umap=rules.umap.output.umap,
        image=sample_image,
    output:
        figure=shown(
            f"{FIGURES}/clusters.png", "clusters_figure", "Expression", sample="{sample}", item="clusters on tissue and UMAP"
        ),
    params:
        library=library("expression/cluster_figure"),
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
    script:
        "../scripts/expression/cluster_figure.py"
