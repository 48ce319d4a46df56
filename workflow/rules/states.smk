# Cell cycle, signatures, rare and transitional barcodes, persisters: of each sample, and between patients.


include: "inputs/states.smk"


STATES_STUDY = study.results("states")


rule states:
    input:
        unpack(states_input),
        filtered=rules.qc.output.filtered,
        features=rules.features.output.features,
        clusters=rules.leiden.output.clusters,
        signatures=SIGNATURES,
    output:
        states=solid(f"{SAMPLE}/states.parquet"),
        metrics=solid(f"{SAMPLE}/metrics/states.tsv"),
        facts=solid(f"{SAMPLE}/states/facts.json"),
    log:
        logs("states/{sample}/states"),
    benchmark:
        timings("states/{sample}/states")
    conda:
        env("states")
    threads: 1
    resources:
        mem_mb=memory(2500, 6),
        runtime=180,
    params:
        study=study.name,
        options={name: value for name, value in STATES.items() if name not in ("contrast", "signatures")},
        target_sum=EXPRESSION["features"]["target_sum"],
        neighbours=EXPRESSION["neighbours"],
        seed=study.config["seed"],
        library=library("states/states"),
    message:
        "States of the cells of {wildcards.sample}"
    script:
        "../scripts/states/states.py"


rule states_figures:
    input:
        filtered=rules.qc.output.filtered,
        umap=rules.umap.output.umap,
        states=rules.states.output.states,
        facts=rules.states.output.facts,
        image=sample_image,
    output:
        persisters=shown(
            f"{FIGURES}/persisters.png",
            "persisters_figure",
            "States",
            sample="{sample}",
            item="persisters and cell cycle",
        ),
        signatures=shown(
            f"{FIGURES}/signatures.png", "signatures_figure", "States", sample="{sample}", item="signatures"
        ),
        rare=shown(f"{FIGURES}/rare.png", "rare_figure", "States", sample="{sample}", item="rare and transitional"),
    log:
        logs("states/{sample}/states_figures"),
    benchmark:
        timings("states/{sample}/states_figures")
    conda:
        env("states")
    threads: 1
    resources:
        mem_mb=memory(1500, 1),
        runtime=30,
    params:
        library=library("states/states_figures"),
    message:
        "Drawing the states of {wildcards.sample}"
    script:
        "../scripts/states/states_figures.py"


rule persisters:
    input:
        unpack(persisters_input),
        facts=expand(rules.states.output.facts, sample=study.samples),
        metrics=expand(rules.states.output.metrics, sample=study.samples),
    output:
        metrics=shown(
            f"{STATES_STUDY}/metrics.tsv", "states_scores_table", "States", sample="all", item="scores (table)"
        ),
        verdict=solid(f"{STATES_STUDY}/verdict.json"),
        persisters=shown(
            f"{STATES_STUDY}/persisters.tsv", "persisters_table", "States", sample="all", item="persisters (table)"
        ),
        contrast=shown(
            f"{STATES_STUDY}/contrast.tsv", "contrast_table", "States", sample="all", item="between conditions (table)"
        ),
        niches=shown(
            f"{STATES_STUDY}/niches.tsv",
            "persister_niches_table",
            "States",
            sample="all",
            item="around persisters (table)",
        ),
        partners=shown(
            f"{STATES_STUDY}/partners.tsv",
            "persister_partners_table",
            "States",
            sample="all",
            item="ligands and receptors around persisters (table)",
        ),
        rare=shown(f"{STATES_STUDY}/rare.tsv", "rare_table", "States", sample="all", item="rare populations (table)"),
        coverage=shown(
            f"{STATES_STUDY}/coverage.tsv",
            "coverage_table",
            "States",
            sample="all",
            item="genes of signatures (table)",
        ),
        figure=shown(
            f"{STATES_STUDY}/figures/persisters.png",
            "persisters_study_figure",
            "States",
            sample="all",
            item="persisters in the study",
        ),
    log:
        logs("states/persisters"),
    benchmark:
        timings("states/persisters")
    conda:
        env("states")
    threads: 1
    resources:
        mem_mb=memory(2000, 2),
        runtime=60,
    params:
        samples=list(study.samples),
        rows=study.samples,
        around=surrounding_tables(),
        column=CONTRAST_COLUMN,
        levels=CONTRAST_LEVELS,
        rare_rate=STATES["rare"]["false_positive_rate"],
        target_sum=EXPRESSION["features"]["target_sum"],
        seed=study.config["seed"],
        library=library("states/persisters"),
    message:
        "Persisters between patients, and what surrounds them"
    script:
        "../scripts/states/persisters.py"
