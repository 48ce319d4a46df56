"""Turn one sample's image into maps of colour, texture and stain at many scales."""

from histoweft.job import run


def main(job):
    """Write the pyramid of maps."""
    import json
    from pathlib import Path

    from histoweft.histology import context, encoders, evaluate
    from histoweft.histology.spots import footprint_of
    from histoweft.histology.stain import Stain
    from histoweft.histology.tissue import read_mask
    from histoweft.images import read_image
    from histoweft.io import CountsFile

    with CountsFile(job.input.filtered) as counts:
        evaluate.check_spots(counts.n_obs)
        size, _ = footprint_of(counts.uns["histoweft"], job.input.filtered, job.params.footprint_um)
    rgb, um_per_px, _ = read_image(job.input.image)
    mask, _ = read_mask(job.input.mask)
    stain = Stain.from_json(json.loads(Path(job.input.stain).read_text(encoding="utf-8")))
    encoder, choice = None, encoders.parse(job.params.encoder)
    if choice.kind != "none":
        encoder = encoders.load_encoder(
            choice, job.device, um_per_px, encoder_um_per_px=job.params.encoder_um_per_px,
            model=next(iter(job.input.model), None), stain=stain,
        )  # fmt: skip
    pyramid = context.build(rgb, um_per_px, mask, stain, size, encoder=encoder)
    context.save(pyramid, job.output.context)
    height, width = pyramid.shape
    job.log.info("%d maps of %d x %d px, %.1f um each", len(pyramid.names), width, height, pyramid.grid_um)


run(snakemake, main)
