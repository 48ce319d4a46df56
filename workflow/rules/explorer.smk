# A page to look around in: sections, genes, painted maps and embeddings; opened from disk, loaded piece by piece.


include: "inputs/explorer.smk"


EXPLORER = study.results("explorer")
EXPLORER_OPTIONS = study.config["report"]["explorer"]


rule explorer_sample:
    input:
        unpack(explored_tables),
        h5ad=rules.assemble.output.h5ad,
        image=sample_image,
    output:
        folder=ensure(directory(f"{EXPLORER}/data/{{sample}}"), non_empty=True),
    log:
        logs("explorer/{sample}/explorer_sample"),
    benchmark:
        timings("explorer/{sample}/explorer_sample")
    conda:
        env("report")
    threads: 1
    resources:
        mem_mb=memory(1500, 0.2),
        runtime=120,
    params:
        genes=EXPLORER_OPTIONS["genes"],
        library=library("explorer/explorer_sample"),
    message:
        "The explorer's part of {wildcards.sample}"
    script:
        "../scripts/explorer/explorer_sample.py"


rule explorer:
    input:
        folders=expand(rules.explorer_sample.output.folder, sample=study.samples),
        web=web_files(),
    output:
        page=[solid(f"{EXPLORER}/{Path(source).name}") for source in web_files()],
        study=solid(f"{EXPLORER}/data/study.js"),
    log:
        logs("explorer/explorer"),
    benchmark:
        timings("explorer/explorer")
    conda:
        env("report")
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=10,
    params:
        study=study.name,
        title=study.config["title"],
        library=library("explorer/explorer"),
    message:
        "The explorer's page"
    script:
        "../scripts/explorer/explorer.py"
