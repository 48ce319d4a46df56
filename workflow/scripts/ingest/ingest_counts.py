"""Read one sample of any platform, check it, and write it in the workflow's own form."""

from histoweft.job import run

FROM_SHEET = (
    "sample", "platform", "path", "patient", "batch", "condition", "image", "mpp", "labels", "labels_column",
    "positions", "alignment", "layer", "subset",
)  # fmt: skip


def main(job):
    """Write counts.h5ad and the warnings."""
    from histoweft.ingest.readers import SampleInput, read, write_counts

    row, options = job.params.sample, job.params.options
    sample = SampleInput(
        **{key: row[key] for key in FROM_SHEET},
        options={
            "counts": options["counts"],
            "mpp_tolerance": options["mpp_tolerance"],
            "bin_um": row["bin_um"],
            "image_scale": row["image_scale"],
        },
        where=f"{job.params.sheet}, line {row['line']}",
        read_as=row.get("read_as", {}),
    )
    section = read(sample)
    for warning in section.warnings:
        job.log.warning("%s", warning)
    for topic, taken in section.read_as.items():
        job.log.info("read as: %s: %s", topic, taken)
    job.log.info("%d spots, %d genes, %s um per pixel", *section.counts.shape, section.mpp)
    job.output.warnings.write_text("".join(f"{warning}\n" for warning in section.warnings), encoding="utf-8")
    clinical = dict(row["clinical"]) | ({} if row["section"] is None else {"section": row["section"]})
    write_counts(section, job.output.counts, clinical)


run(snakemake, main)
