# Neighbours on the tissue, spatially variable genes, neighbourhoods of groups, ligands and receptors.


include: "inputs/space.smk"


SPACE_STUDY = study.results("space")


rule spatial_graph:
    input:
        filtered=rules.qc.output.filtered,
    output:
        graph=solid(f"{SAMPLE}/graph.npz"),
        cautions=solid(f"{SAMPLE}/cautions.json"),
    log:
        logs("space/{sample}/spatial_graph"),
    benchmark:
        timings("space/{sample}/spatial_graph")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(1000, 2),
        runtime=30,
    params:
        options=SPACE["graph"],
        library=library("space/spatial_graph"),
    message:
        "Neighbours on the tissue of {wildcards.sample}"
    script:
        "../scripts/space/spatial_graph.py"


rule svg:
    input:
        filtered=rules.qc.output.filtered,
        graph=rules.spatial_graph.output.graph,
    output:
        svg=solid(f"{SAMPLE}/svg.parquet"),
        top=shown(f"{SAMPLE}/top_svg.tsv", "svg_table", "Space", sample="{sample}", item="spatially variable genes"),
    log:
        logs("space/{sample}/svg"),
    benchmark:
        timings("space/{sample}/svg")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(2000, 3),
        runtime=120,
    params:
        options=SPACE["svg"],
        target_sum=EXPRESSION["features"]["target_sum"],
        library=library("space/svg"),
    message:
        "Spatially variable genes of {wildcards.sample}"
    script:
        "../scripts/space/svg.py"


rule neighbourhood:
    input:
        unpack(space_labels_input),
        filtered=rules.qc.output.filtered,
        graph=rules.spatial_graph.output.graph,
    output:
        neighbourhood=solid(f"{SAMPLE}/neighbourhood.parquet"),
        cooccurrence=solid(f"{SAMPLE}/cooccurrence.parquet"),
    log:
        logs("space/{sample}/neighbourhood"),
    benchmark:
        timings("space/{sample}/neighbourhood")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(1000, 1),
        runtime=60,
    params:
        options=SPACE["neighbourhood"],
        labels=SPACE["labels"],
        seed=study.config["seed"],
        library=library("space/neighbourhood"),
    message:
        "Which groups are neighbours in {wildcards.sample}"
    script:
        "../scripts/space/neighbourhood.py"


rule interactions:
    input:
        unpack(space_labels_input),
        filtered=rules.qc.output.filtered,
        features=rules.features.output.features,
        graph=rules.spatial_graph.output.graph,
    output:
        interactions=solid(f"{SAMPLE}/interactions.parquet"),
        spatial=solid(f"{SAMPLE}/interactions_spatial.parquet"),
        local=solid(f"{SAMPLE}/interactions_local.parquet"),
        table=shown(
            f"{SAMPLE}/interactions_spatial.tsv",
            "interactions_table",
            "Space",
            sample="{sample}",
            item="ligands beside receptors (table)",
        ),
    log:
        logs("space/{sample}/interactions"),
    benchmark:
        timings("space/{sample}/interactions")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(2500, 4),
        runtime=120,
    params:
        options=SPACE["interactions"],
        labels=SPACE["labels"],
        organism=SPACE["organism"],
        target_sum=EXPRESSION["features"]["target_sum"],
        seed=study.config["seed"],
        library=library("space/interactions"),
    message:
        "Ligands and receptors of {wildcards.sample}"
    script:
        "../scripts/space/interactions.py"


rule space_figures:
    input:
        unpack(named_types),
        filtered=rules.qc.output.filtered,
        svg=rules.svg.output.svg,
        neighbourhood=rules.neighbourhood.output.neighbourhood,
        cooccurrence=rules.neighbourhood.output.cooccurrence,
        interactions=rules.interactions.output.interactions,
        spatial=rules.interactions.output.spatial,
        local=rules.interactions.output.local,
        image=sample_image,
    output:
        genes=shown(f"{FIGURES}/svg.png", "svg_figure", "Space", sample="{sample}", item="variable genes on tissue"),
        neighbourhood=shown(
            f"{FIGURES}/neighbourhood.png",
            "neighbourhood_figure",
            "Space",
            sample="{sample}",
            item="which groups are neighbours",
        ),
        cooccurrence=shown(
            f"{FIGURES}/cooccurrence.png",
            "cooccurrence_figure",
            "Space",
            sample="{sample}",
            item="groups over distance",
        ),
        interactions=shown(
            f"{FIGURES}/interactions.png",
            "interactions_figure",
            "Space",
            sample="{sample}",
            item="ligands and receptors between groups",
        ),
        spatial=shown(
            f"{FIGURES}/interactions_spatial.png",
            "colocation_figure",
            "Space",
            sample="{sample}",
            item="ligands beside receptors on tissue",
        ),
    log:
        logs("space/{sample}/space_figures"),
    benchmark:
        timings("space/{sample}/space_figures")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(1500, 1),
        runtime=30,
    params:
        genes=6,
        target_sum=EXPRESSION["features"]["target_sum"],
        library=library("space/space_figures"),
    message:
        "Drawing the space statistics of {wildcards.sample}"
    script:
        "../scripts/space/space_figures.py"


rule space_summary:
    input:
        svg=expand(rules.svg.output.svg, sample=PLACED),
        spatial=expand(rules.interactions.output.spatial, sample=PLACED),
        cautions=expand(rules.spatial_graph.output.cautions, sample=PLACED),
    output:
        interactions=shown(
            f"{SPACE_STUDY}/interactions.tsv",
            "space_interactions_table",
            "Space",
            sample="all",
            item="ligands beside receptors, all sections",
        ),
        genes=shown(
            f"{SPACE_STUDY}/variable_genes.tsv",
            "space_genes_table",
            "Space",
            sample="all",
            item="variable genes, all sections",
        ),
        findings=solid(f"{SPACE_STUDY}/findings.json"),
    log:
        logs("space/space_summary"),
    benchmark:
        timings("space/space_summary")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(1000, 5),
        runtime=30,
    params:
        samples=list(PLACED),
        library=library("space/space_summary"),
    message:
        "What the sections say together about genes and interactions"
    script:
        "../scripts/space/space_summary.py"


rule domains:
    input:
        filtered=expand(rules.qc.output.filtered, sample=PLACED),
    output:
        domains=solid(of_placed("domains.parquet")),
        metrics=solid(f"{SPACE_STUDY}/domain_metrics.tsv"),
        numbers=shown(
            f"{SPACE_STUDY}/domain_numbers.tsv", "domain_numbers_table", "Space", sample="all", item="how many domains"
        ),
    log:
        logs("space/domains"),
    benchmark:
        timings("space/domains")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(2000, 3),
        runtime=240,
    params:
        study=study.name,
        samples=list(PLACED),
        options=SPACE["domains"],
        seed=study.config["seed"],
        library=library("space/domains"),
    message:
        "Domains of all sections together"
    script:
        "../scripts/space/domains.py"


rule niches:
    input:
        unpack(niche_groups),
        filtered=expand(rules.qc.output.filtered, sample=PLACED),
    output:
        niches=solid(of_placed("niches.parquet")),
        profiles=shown(
            f"{SPACE_STUDY}/niches.tsv", "niches_table", "Space", sample="all", item="what niches are made of"
        ),
        conditions=shown(
            f"{SPACE_STUDY}/niche_conditions.tsv",
            "niche_conditions_table",
            "Space",
            sample="all",
            item="niches between conditions",
        ),
        notes=solid(f"{SPACE_STUDY}/niche_notes.json"),
        figure=shown(f"{SPACE_STUDY}/figures/niches.png", "niche_profiles_figure", "Space", sample="all", item="niches"),
    log:
        logs("space/niches"),
    benchmark:
        timings("space/niches")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(1500, 1),
        runtime=60,
    params:
        samples=list(PLACED),
        patients={sample: row["patient"] for sample, row in PLACED.items()},
        conditions={sample: row["condition"] for sample, row in PLACED.items()},
        labels=SPACE["labels"],
        options=SPACE["niches"],
        seed=study.config["seed"],
        library=library("space/niches"),
    message:
        "Niches of all sections together"
    script:
        "../scripts/space/niches.py"


rule multiscale:
    input:
        filtered=expand(rules.qc.output.filtered, sample=PLACED),
        numbers=rules.domains.output.numbers,
    output:
        scales=solid(of_placed("scales.parquet")),
        tree=shown(
            f"{SPACE_STUDY}/scale_tree.tsv", "scale_tree_table", "Space", sample="all", item="domains over scales"
        ),
        persistence=shown(
            f"{SPACE_STUDY}/persistence.tsv", "persistence_table", "Space", sample="all", item="which domains persist"
        ),
        figure=shown(
            f"{SPACE_STUDY}/figures/scales.png", "scale_tree_figure", "Space", sample="all", item="tree of scales"
        ),
        notes=solid(f"{SPACE_STUDY}/scale_notes.json"),
    log:
        logs("space/multiscale"),
    benchmark:
        timings("space/multiscale")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(2000, 3),
        runtime=120,
    params:
        samples=list(PLACED),
        n=SPACE["domains"]["n"],
        neighbours=SPACE["multiscale"]["neighbours"],
        seed=study.config["seed"],
        library=library("space/multiscale"),
    message:
        "Domains at several scales"
    script:
        "../scripts/space/multiscale.py"


rule domain_figures:
    input:
        # Of all sections: a colour means the same in each.
        unpack(niche_groups),
        filtered=expand(rules.qc.output.filtered, sample=PLACED),
        domains=of_placed("domains.parquet"),
        niches=f"{SAMPLE}/niches.parquet",
        scales=f"{SAMPLE}/scales.parquet",
        tree=rules.multiscale.output.tree,
        persistence=rules.multiscale.output.persistence,
        image=sample_image,
    output:
        domain=shown(f"{FIGURES}/domain.png", "domain_figure", "Space", sample="{sample}", item="domains in use"),
        domains=shown(f"{FIGURES}/domains.png", "domains_figure", "Space", sample="{sample}", item="domains on tissue"),
        niches=shown(f"{FIGURES}/niches.png", "niches_figure", "Space", sample="{sample}", item="niches on tissue"),
        scales=shown(f"{FIGURES}/scales.png", "scales_figure", "Space", sample="{sample}", item="domains by scale"),
    log:
        logs("space/{sample}/domain_figures"),
    benchmark:
        timings("space/{sample}/domain_figures")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(2000, 0.2),
        runtime=30,
    params:
        samples=list(PLACED),
        labels=SPACE["labels"],
        library=library("space/domain_figures"),
    message:
        "Drawing the domains and niches of {wildcards.sample}"
    script:
        "../scripts/space/domain_figures.py"


rule score_space:
    input:
        metrics=rules.domains.output.metrics,
        numbers=rules.domains.output.numbers,
        notes=rules.niches.output.notes,
        scale_notes=rules.multiscale.output.notes,
        findings=rules.space_summary.output.findings,
    output:
        metrics=shown(f"{SPACE_STUDY}/metrics.tsv", "space_table", "Space", sample="all", item="scores (table)"),
        verdict=solid(f"{SPACE_STUDY}/verdict.json"),
        figure=shown(f"{SPACE_STUDY}/figures/scores.png", "space_scores", "Space", sample="all", item="scores"),
    log:
        logs("space/score_space"),
    benchmark:
        timings("space/score_space")
    conda:
        env("space")
    threads: 1
    resources:
        mem_mb=memory(800),
        runtime=10,
    params:
        method=SPACE["domains"]["method"],
        library=library("space/score_space"),
    message:
        "What the space stage found, beside its floors"
    script:
        "../scripts/space/score_space.py"
