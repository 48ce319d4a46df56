# A voxel atlas: reading it, its models, their scores.


include: "inputs/atlas.smk"


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
