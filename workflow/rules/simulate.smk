# The demo study, a simulated tissue with its truth; and a full-size atlas on a true annotation.


rule simulate:
    output:
        sections=[
            solid(f"{study.simulated}/{section['sample']}/{name}")
            for section in layout.SECTIONS
            for name in layout.SECTION_FILES
        ],
        truth=[solid(study.results(name)) for name in layout.TRUTH_FILES],
        reference=[solid(f"{study.simulated}/{name}") for name in layout.REFERENCE_FILES],
        atlas=[solid(f"{study.simulated}/{name}") for name in layout.ATLAS_FILES],
    log:
        logs("simulate/simulate"),
    benchmark:
        timings("simulate/simulate")
    conda:
        env("ingest")
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=15,
    params:
        options={key: value for key, value in study.config["simulate"].items() if key != "atlas_genes"},
        seed=study.config["seed"],
        library=library("simulate/simulate"),
    message:
        "Simulating the demo tissue ({params.options[spots]} spots a section)"
    script:
        "../scripts/simulate/simulate.py"


rule simulate_atlas:
    input:
        annotation=lambda wildcards: study.config["atlas"]["annotation"],
        structures=lambda wildcards: study.config["atlas"]["structures"],
    output:
        **{name: solid(f"{study.simulated}/{path}") for name, path in layout.FULL_ATLAS_FILES.items()},
        truth=solid(study.results("truth/full_atlas_genes.tsv")),
    log:
        logs("simulate/simulate_atlas"),
    benchmark:
        timings("simulate/simulate_atlas")
    conda:
        env("atlas")
    threads: 1
    resources:
        mem_mb=memory(2000 + 0.4 * study.config["simulate"]["atlas_genes"]),
        runtime=30,
    params:
        axes=study.config["atlas"]["axes"],
        n_genes=study.config["simulate"]["atlas_genes"],
        seed=study.config["seed"],
        library=library("simulate/simulate_atlas"),
    message:
        "Simulating an atlas of {params.n_genes} genes on {input.annotation}"
    script:
        "../scripts/simulate/simulate_atlas.py"
