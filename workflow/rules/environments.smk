# `snakemake --use-conda check_envs`: builds every environment and looks into it before a long run needs it.
ENVIRONMENTS = sorted(path.stem for path in (REPOSITORY / "envs").glob("*.yaml") if path.stem not in ("dev", "host"))


wildcard_constraints:
    environment="|".join(ENVIRONMENTS),


rule check_env:
    input:
        requirements=str(REPOSITORY / "envs" / "{environment}.in"),
        lock=str(REPOSITORY / "envs" / "{environment}.lock.txt"),
    output:
        table=solid(study.results("environments/{environment}.tsv")),
    log:
        logs("environments/{environment}"),
    benchmark:
        timings("environments/{environment}")
    conda:
        env("{environment}")
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        library=library("environments/check_env"),
    message:
        "Checking the environment {wildcards.environment}"
    script:
        "../scripts/environments/check_env.py"


rule check_envs:
    input:
        expand(rules.check_env.output.table, environment=[name for name in ENVIRONMENTS if name != "peers"]),
