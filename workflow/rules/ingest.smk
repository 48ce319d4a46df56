# Inputs of every platform become one contract: counts.h5ad and image.tif.


def counts_inputs(wildcards):
    """Return the files that a sample's counts, positions, labels and image size are read from."""
    return discoveries[wildcards.sample].files


def image_input(wildcards):
    """Return a sample's image."""
    return discoveries[wildcards.sample].image


def with_image():
    """Return the samples that have an image."""
    return [sample for sample, found in discoveries.items() if found.image]


rule fetch:
    message:
        "Fetching {wildcards.name} and checking its sha256"
    output:
        file=solid("resources/data/fetched/{digest}/{name}"),
    wildcard_constraints:
        digest="[0-9a-f]{16}",
        name="[^/]+",
    params:
        registry=study.config["registry"],
        library=library("ingest/fetch"),
    log:
        "logs/fetch/{digest}/{name}.log",
    benchmark:
        "benchmarks/fetch/{digest}/{name}.jsonl"
    conda:
        env("ingest")
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=240,
    script:
        "../scripts/ingest/fetch.py"


rule ingest_counts:
    message:
        "Reading the counts of {wildcards.sample}"
    input:
        counts_inputs,
    output:
        counts=solid(f"{SAMPLE}/counts.h5ad"),
        warnings=f"{SAMPLE}/ingest_warnings.txt",
    params:
        sheet=study.config["samples"],
        sample=lambda wildcards: study.samples[wildcards.sample],
        options={key: study.config["ingest"][key] for key in ("counts", "mpp_tolerance")},
        library=library("ingest/ingest_counts"),
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
    script:
        "../scripts/ingest/ingest_counts.py"


rule ingest_image:
    message:
        "Writing the working image of {wildcards.sample}"
    input:
        image=image_input,
        counts=rules.ingest_counts.output.counts,
    output:
        image=solid(f"{SAMPLE}/image.tif"),
    params:
        working_mpp=study.config["ingest"]["working_mpp"],
        library=library("ingest/ingest_image"),
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
    script:
        "../scripts/ingest/ingest_image.py"
