"""Describe the finished run: inputs, outputs, code and settings, each with its digest."""

from histoweft.job import run


def main(job):
    """Write the crate's metadata and the folder that goes with it."""
    import os
    import time

    from histoweft.report import crate
    from histoweft.report.html import portable
    from histoweft.report.study_page import COMMAND_VARIABLE, REPOSITORY, commit

    config, began = job.params.config, time.monotonic()
    workflow = crate.Workflow(REPOSITORY, commit(REPOSITORY), portable(os.environ.get(COMMAND_VARIABLE, "")))
    found = crate.write(
        job.output.crate, job.output.folder, config=config, targets=list(job.input), workflow=workflow,
        registry=crate.registered(config["registry"]),
    )  # fmt: skip
    job.log.info(
        "%d inputs, %d outputs of %d jobs; %.1f MB were read for their digests in %.1f s", found["inputs"],
        found["outputs"], found["jobs"], found["bytes_read"] / 1e6, time.monotonic() - began,
    )  # fmt: skip
    if found["gone"]:
        job.log.warning("%d inputs are no longer there; the crate names them without digest", found["gone"])
    if not found["jobs"]:
        job.log.warning("Snakemake kept no records (--drop-metadata?): inputs and jobs are missing from the crate")


# Everything there is, gaps too.
run(snakemake, main, optional=["*"])
