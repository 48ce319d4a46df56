"""Bring one sample's H&E to working resolution."""

from histoweft.job import run


def main(job):
    """Write the pyramid."""
    from histoweft.ingest.image import write_working_image
    from histoweft.io import CountsFile

    with CountsFile(job.input.counts) as counts:
        about = counts.uns["histoweft"]
    made = write_working_image(
        job.input.image, job.output.image, about["mpp"], about["source_image_scale"], job.params.working_mpp
    )
    job.log.info("%d x %d pixels of %s um, %d levels", made.width, made.height, made.um_per_px, made.levels)


run(snakemake, main)
