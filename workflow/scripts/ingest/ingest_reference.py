"""Read the labelled reference, check it, and write it in the workflow's own form."""

from histoweft.job import run


def main(job):
    """Write reference.h5ad."""
    from histoweft.ingest.readers import write_counts
    from histoweft.ingest.reference import read

    section = read(job.params.source)
    for warning in section.warnings:
        job.log.warning("%s", warning)
    for topic, taken in section.read_as.items():
        job.log.info("read as: %s: %s", topic, taken)
    job.log.info("%d cells, %d genes, %d types", *section.counts.shape, section.obs["label"].nunique())
    write_counts(section, job.output.reference)


run(snakemake, main)
