# Inputs of every platform become one contract: counts.h5ad and image.tif.


include: "inputs/ingest.smk"


rule fetch:
    output:
        file=solid("resources/data/fetched/{digest}/{name}"),
    log:
        "logs/fetch/{digest}/{name}.log",
    benchmark:
        "benchmarks/fetch/{digest}/{name}.jsonl"
    wildcard_constraints:
        digest="[0-9a-f]{16}",
        name="[^/]+",
    conda:
        env("ingest")
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=240,
    params:
        registry=study.config["registry"],
        library=library("ingest/fetch"),
    message:
        "Fetching {wildcards.name} and checking its sha256"
    script:
        "../scripts/ingest/fetch.py"


rule unpack:
    input:
        archive=rules.fetch.output.file,
    output:
        folder=directory("resources/data/unpacked/{digest}/{name}"),
    log:
        "logs/unpack/{digest}/{name}.log",
    benchmark:
        "benchmarks/unpack/{digest}/{name}.jsonl"
    wildcard_constraints:
        digest="[0-9a-f]{16}",
        name="[^/]+",
    conda:
        env("ingest")
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=60,
    params:
        library=library("ingest/unpack"),
    message:
        "Unpacking {wildcards.name}"
    script:
        "../scripts/ingest/unpack.py"


rule ingest_counts:
    input:
        counts_inputs,
    output:
        counts=solid(f"{SAMPLE}/counts.h5ad"),
        warnings=f"{SAMPLE}/ingest_warnings.txt",
    log:
        logs("ingest/{sample}/ingest_counts"),
    benchmark:
        timings("ingest/{sample}/ingest_counts")
    conda:
        env("ingest")
    threads: 1
    resources:
        mem_mb=memory(1500, 12),
        runtime=60,
    params:
        sheet=study.config["samples"],
        sample=lambda wildcards: study.samples[wildcards.sample],
        options={key: study.config["ingest"][key] for key in ("counts", "mpp_tolerance")},
        library=library("ingest/ingest_counts"),
    message:
        "Reading the counts of {wildcards.sample}"
    script:
        "../scripts/ingest/ingest_counts.py"


rule ingest_image:
    input:
        image=image_input,
        counts=rules.ingest_counts.output.counts,
    output:
        image=solid(f"{SAMPLE}/image.tif"),
        warnings=f"{SAMPLE}/image_warnings.txt",
    log:
        logs("ingest/{sample}/ingest_image"),
    benchmark:
        timings("ingest/{sample}/ingest_image")
    conda:
        env("ingest")
    threads: 1
    resources:
        mem_mb=memory(1500, 4),
        runtime=60,
    params:
        working_mpp=study.config["ingest"]["working_mpp"],
        encoder_um=study.encoder_um,
        library=library("ingest/ingest_image"),
    message:
        "Writing the working image of {wildcards.sample}"
    script:
        "../scripts/ingest/ingest_image.py"


if REFERENCE:

    rule ingest_reference:
        input:
            discovered_reference.files,
        output:
            reference=solid(study.results("annotation", "reference.h5ad")),
        log:
            logs("ingest/ingest_reference"),
        benchmark:
            timings("ingest/ingest_reference")
        conda:
            env("ingest")
        threads: 1
        resources:
            mem_mb=memory(1500, 12),
            runtime=60,
        params:
            source=REFERENCE,
            library=library("ingest/ingest_reference"),
        message:
            "Reading the labelled reference"
        script:
            "../scripts/ingest/ingest_reference.py"
