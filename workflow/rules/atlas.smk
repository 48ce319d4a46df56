# A voxel atlas: reading it, its models, their scores.


include: "inputs/atlas.smk"


wildcard_constraints:
    atlas_protocol="random|block|hemisphere",
    atlas_fold=r"\d+",
    atlas_model="|".join(atlas_plan.MODELS),


rule fetch_experiments:
    input:
        table=lambda wildcards: ATLAS_FILES.experiments,
    output:
        table=solid(study.results("atlas/experiments.tsv")),
    log:
        logs("atlas/fetch_experiments"),
    benchmark:
        timings("atlas/fetch_experiments")
    conda:
        env("atlas")
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=720,
    params:
        planes=ATLAS["planes"],
        cache=ATLAS["cache"],
        url=ATLAS["allen_url"],
        library=library("atlas/fetch_experiments"),
    message:
        "Downloading expression grids listed in {input.table}"
    script:
        "../scripts/atlas/fetch_experiments.py"


rule prepare_atlas:
    input:
        expression=atlas_input,
        genes=list(ATLAS_FILES.genes),
        positions=list(ATLAS_FILES.positions),
        annotation=list(ATLAS_FILES.annotation),
        structures=list(ATLAS_FILES.structures),
    output:
        expression=solid(study.results("atlas/expression.npy")),
        voxels=solid(study.results("atlas/voxels.parquet")),
        genes=solid(study.results("atlas/genes.tsv")),
        meta=solid(study.results("atlas/atlas.json")),
        structures=solid(study.results("atlas/structures.tsv")),
    log:
        logs("atlas/prepare_atlas"),
    benchmark:
        timings("atlas/prepare_atlas")
    conda:
        env("atlas")
    threads: 1
    resources:
        mem_mb=memory(1500, 1.5),
        runtime=60,
    params:
        options=atlas_options(),
        library=library("atlas/prepare_atlas"),
    message:
        "Preparing the voxels of the atlas"
    script:
        "../scripts/atlas/prepare_atlas.py"


rule fit_fold:
    input:
        expression=rules.prepare_atlas.output.expression,
        voxels=rules.prepare_atlas.output.voxels,
        genes=rules.prepare_atlas.output.genes,
        meta=rules.prepare_atlas.output.meta,
        structures=rules.prepare_atlas.output.structures,
    output:
        result=solid(study.results("atlas/fits/{atlas_protocol}-{atlas_fold}/{atlas_model}.npz")),
    log:
        logs("atlas/fits/{atlas_protocol}-{atlas_fold}/{atlas_model}"),
    benchmark:
        timings("atlas/fits/{atlas_protocol}-{atlas_fold}/{atlas_model}")
    conda:
        env("atlas")
    threads: 1
    resources:
        mem_mb=memory(2500, 1.5),
        runtime=480,
        gpu=lambda wildcards: 0 if wildcards.atlas_model == atlas_plan.FLOORS else 1,
    params:
        options=atlas_fit_options,
        checkpoint=study.results("atlas/fits/{atlas_protocol}-{atlas_fold}/.{atlas_model}.ckpt"),
        require_gpu=lambda wildcards: study.config["require_gpu"] and wildcards.atlas_model != atlas_plan.FLOORS,
        seed=study.config["seed"],
        library=library("atlas/fit_fold"),
    message:
        "Training {wildcards.atlas_model} without the held-out voxels of {wildcards.atlas_protocol} fold {wildcards.atlas_fold}"
    script:
        "../scripts/atlas/fit_fold.py"


rule score_atlas:
    input:
        expression=rules.prepare_atlas.output.expression,
        voxels=rules.prepare_atlas.output.voxels,
        genes=rules.prepare_atlas.output.genes,
        meta=rules.prepare_atlas.output.meta,
        structures=rules.prepare_atlas.output.structures,
        results=atlas_results(),
    output:
        metrics=shown(study.results("atlas/metrics.tsv"), "atlas_table", "Atlas", sample="all", item="scores (table)"),
        verdict=solid(study.results("atlas/verdict.json")),
        along_z=solid(study.results("atlas/along_z.tsv")),
        history=solid(study.results("atlas/history.tsv")),
    log:
        logs("atlas/score_atlas"),
    benchmark:
        timings("atlas/score_atlas")
    conda:
        env("atlas")
    threads: 1
    resources:
        mem_mb=memory(2000, 1),
        runtime=60,
    params:
        study=study.name,
        model=ATLAS["model"],
        seed=study.config["seed"],
        library=library("atlas/score_atlas"),
    message:
        "Scores of the atlas models beside the floors"
    script:
        "../scripts/atlas/score_atlas.py"


rule explain_atlas:
    input:
        expression=rules.prepare_atlas.output.expression,
        voxels=rules.prepare_atlas.output.voxels,
        genes=rules.prepare_atlas.output.genes,
        meta=rules.prepare_atlas.output.meta,
        structures=rules.prepare_atlas.output.structures,
    output:
        genes=solid(study.results("atlas/explained_genes.tsv")),
        agreement=shown(
            study.results("atlas/explained.tsv"),
            "atlas_explained_table",
            "Atlas",
            sample="all",
            item="explained targets",
        ),
        figure=shown(
            study.results("atlas/figures/explained.png"), "atlas_explained_figure", "Atlas", sample="all", item="genes"
        ),
    log:
        logs("atlas/explain_atlas"),
    benchmark:
        timings("atlas/explain_atlas")
    conda:
        env("atlas")
    threads: 1
    resources:
        mem_mb=memory(2500, 1.5),
        runtime=240,
        gpu=1,
    params:
        options={name: ATLAS[name] for name in (*ATLAS_FITTED, "epochs")},
        require_gpu=study.config["require_gpu"],
        seed=study.config["seed"],
        library=library("atlas/explain_atlas"),
    message:
        "Finding the genes that place and structures are told from"
    script:
        "../scripts/atlas/explain_atlas.py"


rule atlas_figures:
    input:
        expression=rules.prepare_atlas.output.expression,
        voxels=rules.prepare_atlas.output.voxels,
        genes=rules.prepare_atlas.output.genes,
        meta=rules.prepare_atlas.output.meta,
        structures=rules.prepare_atlas.output.structures,
        results=atlas_results(),
        metrics=rules.score_atlas.output.metrics,
        verdict=rules.score_atlas.output.verdict,
        along_z=rules.score_atlas.output.along_z,
        history=rules.score_atlas.output.history,
    output:
        scores=shown(study.results("atlas/figures/scores.png"), "atlas_scores", "Atlas", sample="all", item="scores"),
        slice=shown(
            study.results("atlas/figures/slice.png"),
            "atlas_slice_figure",
            "Atlas",
            sample="all",
            item="genes in a section",
        ),
        place=shown(
            study.results("atlas/figures/place.png"), "atlas_place_figure", "Atlas", sample="all", item="places"
        ),
        errors=shown(
            study.results("atlas/figures/errors.png"),
            "atlas_error_figure",
            "Atlas",
            sample="all",
            item="errors in a section",
        ),
        clusters=shown(
            study.results("atlas/figures/clusters.png"),
            "atlas_cluster_figure",
            "Atlas",
            sample="all",
            item="latent clusters",
        ),
        along_z=shown(
            study.results("atlas/figures/along_z.png"),
            "atlas_along_z_figure",
            "Atlas",
            sample="all",
            item="errors along z",
        ),
    log:
        logs("atlas/atlas_figures"),
    benchmark:
        timings("atlas/atlas_figures")
    conda:
        env("atlas")
    threads: 1
    resources:
        mem_mb=memory(2000, 1),
        runtime=60,
    params:
        seed=study.config["seed"],
        library=library("atlas/atlas_figures"),
    message:
        "Drawing what the models make of held-out voxels"
    script:
        "../scripts/atlas/atlas_figures.py"
