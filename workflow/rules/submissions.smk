# Methods of other people beside ours: same inputs, same splits, same scores (docs/submit_a_method.md).


include: "inputs/submissions.smk"


wildcard_constraints:
    submission="|".join(re.escape(name) for found in SUBMISSIONS.values() for name in found) or "none",


if SUBMISSIONS["domains"]:

    rule submit_domains:
        input:
            file=submitted("domains", "file"),
            filtered=expand(rules.qc.output.filtered, sample=PLACED),
            numbers=rules.domains.output.numbers,
            own=rules.domains.output.metrics,
        output:
            metrics=solid(f"{SUBMITTED}/domains/{{submission}}/metrics.tsv"),
        log:
            logs("submissions/{submission}/submit_domains"),
        benchmark:
            timings("submissions/{submission}/submit_domains")
        conda:
            submission_environment("domains")
        threads: 1
        resources:
            mem_mb=memory(4000, 6),
            runtime=480,
        params:
            study=study.name,
            samples=list(PLACED),
            n=SPACE["domains"]["n"],
            options=submitted("domains", "options"),
            seeds=submitted("domains", "seeds"),
            seed=study.config["seed"],
            library=library("submissions/submit_domains"),
        message:
            "Submitted method of domains: {wildcards.submission}"
        script:
            "../scripts/submissions/submit_domains.py"


if SUBMISSIONS["deconvolution"]:

    rule submit_deconvolution:
        input:
            annotation_tables("orthologs"),
            file=submitted("deconvolution", "file"),
            reference=rules.ingest_reference.output.reference,
            filtered=expand(rules.qc.output.filtered, sample=DECONVOLVED),
        output:
            metrics=solid(f"{SUBMITTED}/deconvolution/{{submission}}/metrics.tsv"),
        log:
            logs("submissions/{submission}/submit_deconvolution"),
        benchmark:
            timings("submissions/{submission}/submit_deconvolution")
        conda:
            submission_environment("deconvolution")
        threads: 1
        resources:
            mem_mb=memory(4000, 6),
            runtime=480,
        params:
            study=study.name,
            platforms={sample: study.samples[sample]["platform"] for sample in DECONVOLVED},
            deconvolution=ANNOTATION["deconvolution"],
            reading=DECONVOLUTION_READING,
            options=submitted("deconvolution", "options"),
            seed=study.config["seed"],
            library=library("submissions/submit_deconvolution"),
        message:
            "Submitted method of deconvolution: {wildcards.submission}"
        script:
            "../scripts/submissions/submit_deconvolution.py"


if SUBMISSIONS["annotation"]:

    rule submit_annotation:
        input:
            annotation_tables("orthologs"),
            file=submitted("annotation", "file"),
            reference=rules.ingest_reference.output.reference,
            filtered=expand(rules.qc.output.filtered, sample=study.samples),
            held_out=expand(rules.fit_annotation.output.held_out, annotator=LOGISTIC)[0],
        output:
            metrics=solid(f"{SUBMITTED}/annotation/{{submission}}/metrics.tsv"),
        log:
            logs("submissions/{submission}/submit_annotation"),
        benchmark:
            timings("submissions/{submission}/submit_annotation")
        conda:
            submission_environment("annotation")
        threads: 1
        resources:
            mem_mb=memory(4000, 6),
            runtime=480,
        params:
            study=study.name,
            samples=list(study.samples),
            annotation={name: ANNOTATION[name] for name in ("alpha", "min_genes", "orthologs", "same_species")},
            options=submitted("annotation", "options"),
            seed=study.config["seed"],
            library=library("submissions/submit_annotation"),
        message:
            "Submitted method of annotation: {wildcards.submission}"
        script:
            "../scripts/submissions/submit_annotation.py"
