# From the H&E to expression: tiles, image features, models, honest scores, painted genes.


include: "inputs/histology.smk"


HIST = study.results("histology")
OWN = f"{SAMPLE}/histology"
FITTED = f"{HIST}/fits/{{fit}}"
SPLIT = {key: HISTOLOGY[key] for key in ("folds", "buffer_spots")}


wildcard_constraints:
    fit="|".join(map(re.escape, FITS)) or "none",
    model="context|autoencoder",
    network="encoder|autoencoder",
    setting=r"\d+",


rule tile:
    input:
        filtered=rules.qc.output.filtered,
        image=rules.ingest_image.output.image,
    output:
        tiles=solid(f"{OWN}/tiles.parquet"),
        stain=solid(f"{OWN}/stain.json"),
        mask=solid(f"{OWN}/mask.npz"),
        figure=shown(f"{FIGURES}/tiles.png", "tiles_figure", "Histology", sample="{sample}", item="tissue and tiles"),
    log:
        logs("histology/{sample}/tile"),
    benchmark:
        timings("histology/{sample}/tile")
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(1500, 20),
        runtime=60,
    params:
        options=HISTOLOGY["tiles"],
        footprint_um=HISTOLOGY["footprint_um"],
        seed=study.config["seed"],
        library=library("histology/tile"),
    message:
        "Tissue, stains and tiles of {wildcards.sample}"
    script:
        "../scripts/histology/tile.py"


rule pretrain:
    input:
        images=of_samples(rules.ingest_image.output.image, PRETRAINED),
        masks=of_samples(rules.tile.output.mask, PRETRAINED),
        tiles=of_samples(rules.tile.output.tiles, PRETRAINED),
        stains=of_samples(rules.tile.output.stain, PRETRAINED),
    output:
        model=solid(f"{HIST}/{{network}}.pt"),
        history=solid(f"{HIST}/{{network}}_history.tsv"),
        figure=shown(
            f"{HIST}/figures/{{network}}_reconstruction.png",
            "reconstruction_figure",
            "Histology",
            sample="all",
            item="reconstructed tissue ({network})",
        ),
        curve=shown(
            f"{HIST}/figures/{{network}}_training.png",
            "pretraining_figure",
            "Histology",
            sample="all",
            item="pretraining ({network})",
        ),
    log:
        logs("histology/{network}/pretrain"),
    benchmark:
        timings("histology/{network}/pretrain")
    # Long, and only the study's page waits for it: begun last, it would be waited for alone.
    priority: 10
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(3000, 10),
        runtime=240,
        gpu=1,
    params:
        samples=PRETRAINED,
        options={key: HISTOLOGY["pretrain"][key] for key in ("epochs", "batch", "crop")},
        checkpoint=f"{HIST}/.{{network}}.ckpt",
        require_gpu=study.config["require_gpu"],
        seed=study.config["seed"],
        library=library("histology/pretrain"),
    message:
        "Pretraining on the images alone ({wildcards.network})"
    script:
        "../scripts/histology/pretrain.py"


rule image_features:
    input:
        filtered=rules.qc.output.filtered,
        image=rules.ingest_image.output.image,
        mask=rules.tile.output.mask,
        stain=rules.tile.output.stain,
        model=encoder_model,
    output:
        context=ensure(directory(f"{OWN}/context"), non_empty=True),
    log:
        logs("histology/{sample}/image_features"),
    benchmark:
        timings("histology/{sample}/image_features")
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(2500, 20),
        runtime=120,
        gpu=0 if HISTOLOGY["encoder"] == "none" else 1,
    params:
        encoder=HISTOLOGY["encoder"],
        encoder_um_per_px=HISTOLOGY["encoder_um_per_px"],
        footprint_um=HISTOLOGY["footprint_um"],
        require_gpu=study.config["require_gpu"] and HISTOLOGY["encoder"] != "none",
        library=library("histology/image_features"),
    message:
        "Image features of {wildcards.sample}"
    script:
        "../scripts/histology/image_features.py"


rule register:
    input:
        filtered=of_samples(rules.qc.output.filtered, SERIAL),
        context=of_samples(rules.image_features.output.context, SERIAL),
    output:
        positions=solid(f"{HIST}/registered.parquet"),
        table=shown(f"{HIST}/registration.tsv", "registration_table", "Histology", sample="all", item="registration"),
    log:
        logs("histology/register"),
    benchmark:
        timings("histology/register")
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(2000, 5),
        runtime=120,
    params:
        samples=list(SERIAL),
        frames=SERIAL,
        footprint_um=HISTOLOGY["footprint_um"],
        library=library("histology/register"),
    message:
        "Laying serial sections onto one another"
    script:
        "../scripts/histology/register.py"


rule tune:
    input:
        filtered=of_samples(rules.qc.output.filtered, IMAGED),
        context=of_samples(rules.image_features.output.context, IMAGED),
    output:
        scores=solid(f"{HIST}/tune/{{setting}}.tsv"),
    log:
        logs("histology/tune/{setting}"),
    benchmark:
        timings("histology/tune/{setting}")
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(3000, 10),
        runtime=480,
        gpu=1,
    params:
        samples=list(IMAGED),
        fits=[asdict(fit) for fit in FITS.values()],
        groups=GROUPS,
        options=SPLIT,
        network=HISTOLOGY["network"],
        setting=lambda wildcards: SETTINGS[int(wildcards.setting)],
        footprint_um=HISTOLOGY["footprint_um"],
        require_gpu=study.config["require_gpu"],
        seed=study.config["seed"],
        library=library("histology/tune"),
    message:
        "Scoring setting {wildcards.setting} on inner folds"
    script:
        "../scripts/histology/tune.py"


rule cross_validate:
    input:
        unpack(fit_images),
        filtered=fit_filtered,
        context=fit_context,
        registered=fit_registered,
        tuned=fit_tuned,
    output:
        predictions=solid(f"{FITTED}/{{model}}.npz"),
    log:
        logs("histology/{fit}/cross_validate_{model}"),
    benchmark:
        timings("histology/{fit}/cross_validate_{model}")
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(3000, 10),
        runtime=240,
        gpu=1,
    params:
        fit=lambda wildcards: asdict(FITS[wildcards.fit]),
        groups=GROUPS,
        options=SPLIT,
        network=HISTOLOGY["network"],
        epochs=lambda wildcards: HISTOLOGY["autoencoder_epochs"] if wildcards.model == "autoencoder" else 0,
        footprint_um=HISTOLOGY["footprint_um"],
        checkpoint=f"{FITTED}/.{{model}}",
        require_gpu=study.config["require_gpu"],
        seed=study.config["seed"],
        library=library("histology/cross_validate"),
    message:
        "Training {wildcards.model} without the held-out spots of {wildcards.fit}"
    script:
        "../scripts/histology/cross_validate.py"


rule score_histology:
    input:
        filtered=fit_filtered,
        context=fit_context,
        registered=fit_registered,
        predictions=fit_predictions,
    output:
        scores=solid(f"{FITTED}/scores.npz"),
    log:
        logs("histology/{fit}/score_histology"),
    benchmark:
        timings("histology/{fit}/score_histology")
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(3000, 10),
        runtime=240,
    params:
        fit=lambda wildcards: asdict(FITS[wildcards.fit]),
        groups=GROUPS,
        options=SPLIT,
        all_share=HISTOLOGY["all_share"],
        footprint_um=HISTOLOGY["footprint_um"],
        seed=study.config["seed"],
        library=library("histology/score_histology"),
    message:
        "Floors and scores of {wildcards.fit}"
    script:
        "../scripts/histology/score_histology.py"


rule histology_summary:
    input:
        scores=expand(rules.score_histology.output.scores, fit=SCORED),
        predictions=expand(rules.cross_validate.output.predictions, fit=SCORED, model=MODELS),
    output:
        metrics=shown(f"{HIST}/metrics.tsv", "histology_table", "Histology", sample="all", item="scores (table)"),
        genes=solid(f"{HIST}/genes.tsv"),
        verdict=solid(f"{HIST}/verdict.json"),
        scores=shown(f"{HIST}/figures/scores.png", "histology_scores", "Histology", sample="all", item="scores"),
        overfit=shown(
            f"{HIST}/figures/overfit.png",
            "overfit_figure",
            "Histology",
            sample="all",
            item="training spots and held-out spots",
        ),
    log:
        logs("histology/histology_summary"),
    benchmark:
        timings("histology/histology_summary")
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(1500, 10),
        runtime=60,
    params:
        study=study.name,
        fits=[asdict(FITS[name]) for name in SCORED],
        predicted=[asdict(FITS[name]) for name, _ in product(SCORED, MODELS)],
        across=ACROSS,
        model=HISTOLOGY["model"],
        seed=study.config["seed"],
        library=library("histology/histology_summary"),
    message:
        "Held-out scores beside the floors"
    script:
        "../scripts/histology/histology_summary.py"


rule train_genes:
    input:
        filtered=of_samples(rules.qc.output.filtered, IMAGED),
        context=of_samples(rules.image_features.output.context, IMAGED),
        tuned=expand(rules.tune.output.scores, setting=range(len(SETTINGS))),
    output:
        model=solid(f"{HIST}/genes.pt"),
    log:
        logs("histology/train_genes"),
    benchmark:
        timings("histology/train_genes")
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(3000, 10),
        runtime=240,
        gpu=1,
    params:
        fit=asdict(plan.fits(IMAGED, [], 1)[plan.ALL]),
        groups=GROUPS,
        options=SPLIT,
        network=HISTOLOGY["network"],
        footprint_um=HISTOLOGY["footprint_um"],
        checkpoint=f"{HIST}/.genes.ckpt",
        require_gpu=study.config["require_gpu"],
        seed=study.config["seed"],
        library=library("histology/train_genes"),
    message:
        "Training the genes on all spots, for the maps"
    script:
        "../scripts/histology/train_genes.py"


rule paint:
    input:
        filtered=rules.qc.output.filtered,
        image=rules.ingest_image.output.image,
        mask=rules.tile.output.mask,
        context=rules.image_features.output.context,
        panels=of_samples(rules.markers.output.panel, IMAGED),
        model=rules.train_genes.output.model,
        verdict=[rules.histology_summary.output.verdict] if SCORED else [],
    output:
        painted=ensure(directory(f"{OWN}/expression.zarr"), non_empty=True),
    log:
        logs("histology/{sample}/paint"),
    benchmark:
        timings("histology/{sample}/paint")
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(2500, 5),
        runtime=240,
        gpu=1,
    params:
        genes=HISTOLOGY["paint"],
        footprint_um=HISTOLOGY["footprint_um"],
        require_gpu=study.config["require_gpu"],
        library=library("histology/paint"),
    message:
        "Painting genes onto {wildcards.sample}"
    script:
        "../scripts/histology/paint.py"


rule paint_figure:
    input:
        filtered=rules.qc.output.filtered,
        image=rules.ingest_image.output.image,
        painted=rules.paint.output.painted,
        scores=block_scores,
    output:
        painted=shown(f"{FIGURES}/painted.png", "painted_figure", "Histology", sample="{sample}", item="painted genes"),
        composite=shown(
            f"{FIGURES}/composite.png", "composite_figure", "Histology", sample="{sample}", item="genes as a composite"
        ),
    log:
        logs("histology/{sample}/paint_figure"),
    benchmark:
        timings("histology/{sample}/paint_figure")
    conda:
        env("histology")
    threads: 1
    resources:
        mem_mb=memory(2000, 0.5),
        runtime=60,
    params:
        footprint_um=HISTOLOGY["footprint_um"],
        library=library("histology/paint_figure"),
    message:
        "Drawing {wildcards.sample}'s painted genes"
    script:
        "../scripts/histology/paint_figure.py"
