"""Bring one sample's H&E to working resolution, and look at what it shows."""

from histoweft.job import run


def main(job):
    """Write the pyramid and the warnings."""
    from histoweft.images import read_image
    from histoweft.ingest.image import EmbeddedImage, parse, write_working_image
    from histoweft.ingest.image_checks import LOOK_PX, check_resolution, look
    from histoweft.ingest.section import Notes
    from histoweft.io import CountsFile

    with CountsFile(job.input.counts) as counts:
        about, xy = counts.uns["histoweft"], counts.obsm("spatial") if "spatial" in counts.obsm_names() else None
    source = parse(job.input.image)
    if about["image_dataset"]:
        source = EmbeddedImage(source, about["image_dataset"])
    made = write_working_image(
        source, job.output.image, about["mpp"], about["source_image_scale"], job.params.working_mpp,
        orientation=about["image_orientation"],
    )  # fmt: skip
    job.log.info("%d x %d pixels of %s um, %d levels", made.width, made.height, made.um_per_px, made.levels)
    notes = Notes()
    check_resolution(made.um_per_px, job.params.encoder_um, notes, source.name)
    rgb, _, scale = read_image(job.output.image, max_px=LOOK_PX)
    look(rgb, None if xy is None else xy * scale, notes, source.name)
    for note in notes.items:
        job.log.warning("%s", note)
    job.output.warnings.write_text("".join(f"{note}\n" for note in notes.items), encoding="utf-8")


run(snakemake, main)
