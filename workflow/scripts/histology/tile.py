"""Find the tissue of one sample's image, its stains, and the tiles to learn from."""

from histoweft.job import run


def main(job):
    """Write the tiles, the stains with the rates, the tissue mask and the contact sheet."""
    import json

    from histoweft.histology.spots import footprint_of
    from histoweft.histology.stain import estimate
    from histoweft.histology.tiles import contact_sheet, grid, in_words, quality, rates
    from histoweft.histology.tissue import find_tissue, write_mask
    from histoweft.images import read_image
    from histoweft.io import CountsFile, write_table
    from histoweft.plotting import save

    options = job.params.options
    rgb, um_per_px, scale = read_image(job.input.image)
    with CountsFile(job.input.filtered) as counts:
        about = counts.uns["histoweft"]
        spot_um, _ = footprint_of(about, job.input.filtered, job.params.footprint_um)
        spots = counts.obsm("spatial")[:, :2] * scale
    tissue = find_tissue(rgb, um_per_px, spots, spot_um / um_per_px)
    stain, warnings = estimate(rgb, tissue.mask, job.params.seed)
    warnings = tissue.warnings + warnings
    tiles = grid(rgb.shape, um_per_px, options["tile_um"], options["overlap_um"])
    tiles = quality(rgb, tissue.mask, tiles, um_per_px, options["min_tissue"], options["blur"])
    for warning in warnings:
        job.log.warning("%s", warning)
    job.log.info("%s; %.1f%% of the spots off the tissue", in_words(tiles), 100 * tissue.spots_outside)
    facts = {"sample": about["sample"], "patient": about["patient"], "height": rgb.shape[0], "width": rgb.shape[1]}
    facts |= {"um_per_px": um_per_px, "tissue": float(tissue.mask.mean()), "spots_outside": tissue.spots_outside}
    facts |= {**stain.to_json(), **rates(tiles), "warnings": warnings}
    job.output.stain.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    write_table(tiles, job.output.tiles)
    write_mask(job.output.mask, tissue.mask, um_per_px)
    save(contact_sheet(rgb, tissue.mask, tiles, um_per_px, about["sample"], stain), job.output.figure)


run(snakemake, main)
