"""Paint the expression of a panel of genes onto every pixel of a sample's tissue."""

from histoweft.job import run


def main(job):
    """Write the painted genes as a SpatialData store."""
    import json
    from pathlib import Path

    from histoweft import gaps
    from histoweft.histology import network, paint
    from histoweft.histology.maps import genes_to_paint, painter
    from histoweft.histology.spots import read_section
    from histoweft.histology.tissue import read_mask
    from histoweft.images import read_image

    model, meta = network.load(job.input.model)
    verdict = [json.loads(Path(path).read_text(encoding="utf-8")) for path in job.input.verdict if not gaps.of(path)]
    winner = verdict[0]["paint"] if verdict else "context"
    if winner == "floor:ridge_context":
        job.log.warning("the ridge on the same features scored higher than the network: the maps are the ridge's")
        model.ridge_share = 1.0
    section = read_section(job.input.filtered, job.input.context, footprint_um=job.params.footprint_um)
    panels = [Path(path) for path in job.input.panels if not gaps.of(path)]
    genes = genes_to_paint(job.params.genes, panels, model.genes)
    drawn = painter(model, section, job.input.context, genes, job.device)
    # On the maps' pixels at once: the image itself can be a hundred times as large.
    he = drawn.on_grid(read_image(job.input.image)[0])
    mask = drawn.on_grid(read_mask(job.input.mask)[0])
    paint.paint(
        job.output.painted, drawn.predict, genes=genes, shape=drawn.shape, um_per_px=drawn.um_per_px, window=256,
        mask=mask, he=he, attributes={"sample": section.name, "model": winner,
        "trained_on": meta["samples"], "unit": "log(1 + count / total x median total)"},
    )  # fmt: skip
    paint.check_store(job.output.painted, shape=drawn.shape, genes=genes)
    job.log.info("%d genes x %d x %d px of %.1f um", len(genes), *drawn.shape, drawn.um_per_px)


run(snakemake, main, optional=["verdict"], some=["panels"])
