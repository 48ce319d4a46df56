# Per study: the same features for all sections, one embedding a method, scores beside doing nothing.
INTEGRATION = study.config["integration"]
JOINT = study.results("integration")


rule joint_features:
    input:
        filtered=expand(rules.qc.output.filtered, sample=study.samples),
    output:
        features=solid(f"{JOINT}/features.h5ad"),
    log:
        logs("integration/joint_features"),
    benchmark:
        timings("integration/joint_features")
    conda:
        env("integration")
    threads: 1
    resources:
        mem_mb=memory(2000, 4),
        runtime=120,
    params:
        number=len(study.samples),
        samples=list(study.samples),
        target_sum=EXPRESSION["features"]["target_sum"],
        options={key: INTEGRATION[key] for key in ("n_top", "n_components")},
        library=library("integration/joint_features"),
    message:
        "Features shared by {params.number} sections"
    script:
        "../scripts/integration/joint_features.py"


rule embed:
    input:
        features=rules.joint_features.output.features,
    output:
        embedding=solid(f"{JOINT}/{{method}}/embedding.parquet"),
    log:
        logs("integration/{method}/embed"),
    benchmark:
        timings("integration/{method}/embed")
    conda:
        env("integration")
    threads: lambda wildcards: 2 if wildcards.method == "scvi" else 1
    resources:
        mem_mb=memory(2000, 6),
        runtime=240,
        gpu=lambda wildcards: 1 if wildcards.method == "scvi" else 0,
    params:
        batch=INTEGRATION["batch"],
        n_components=INTEGRATION["n_components"],
        epochs=lambda wildcards: INTEGRATION["scvi_epochs"] if wildcards.method == "scvi" else 0,
        require_gpu=lambda wildcards: wildcards.method == "scvi" and study.config["require_gpu"],
        seed=study.config["seed"],
        library=library("integration/embed"),
    message:
        "Integration with {wildcards.method}"
    script:
        "../scripts/integration/embed.py"


rule joint_clusters:
    input:
        features=rules.joint_features.output.features,
        embedding=rules.embed.output.embedding,
    output:
        clusters=solid(f"{JOINT}/{{method}}/clusters.parquet"),
    log:
        logs("integration/{method}/joint_clusters"),
    benchmark:
        timings("integration/{method}/joint_clusters")
    conda:
        env("integration")
    threads: 1
    resources:
        mem_mb=memory(2000, 6),
        runtime=120,
    params:
        neighbours=EXPRESSION["neighbours"],
        resolution=INTEGRATION["resolution"],
        min_dist=EXPRESSION["umap_min_dist"],
        seed=study.config["seed"],
        library=library("integration/joint_clusters"),
    message:
        "Joint clusters and UMAP with {wildcards.method}"
    script:
        "../scripts/integration/joint_clusters.py"


rule score_integration:
    input:
        features=rules.joint_features.output.features,
        embeddings=expand(rules.embed.output.embedding, method=INTEGRATION["methods"]),
        joint=expand(rules.joint_clusters.output.clusters, method=INTEGRATION["methods"]),
        clusters=expand(rules.leiden.output.clusters, sample=study.samples),
    output:
        metrics=shown(f"{JOINT}/metrics.tsv", "integration_table", "Integration", sample="all", item="scores (table)"),
        verdict=solid(f"{JOINT}/verdict.json"),
        scores=shown(f"{JOINT}/figures/scores.png", "integration_scores", "Integration", sample="all", item="scores"),
        umaps=shown(
            f"{JOINT}/figures/umaps.png", "integration_umaps", "Integration", sample="all", item="before and after"
        ),
        effect=shown(
            f"{JOINT}/figures/section_effect.png",
            "integration_effect",
            "Integration",
            sample="all",
            item="section-to-section effect",
        ),
    log:
        logs("integration/score_integration"),
    benchmark:
        timings("integration/score_integration")
    conda:
        env("integration")
    threads: 1
    resources:
        mem_mb=memory(3000, 6),
        runtime=120,
    params:
        study=study.name,
        samples=list(study.samples),
        methods=INTEGRATION["methods"],
        batch=INTEGRATION["batch"],
        seed=study.config["seed"],
        library=library("integration/score_integration"),
    message:
        "Scoring the integration beside doing nothing"
    script:
        "../scripts/integration/score_integration.py"
