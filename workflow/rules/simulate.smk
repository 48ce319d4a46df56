# The demo study: a simulated tissue with its truth.


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
        options=study.config["simulate"],
        seed=study.config["seed"],
        library=library("simulate/simulate"),
    message:
        "Simulating the demo tissue ({params.options[spots]} spots a section)"
    script:
        "../scripts/simulate/simulate.py"
