"""Train a network to give back the tissue of several sections, on their images alone."""

from histoweft.job import run


def main(job):
    """Write the network, how the training went, and pictures of both."""
    import math

    import pandas as pd

    from histoweft.histology.autoencoder import save
    from histoweft.histology.figures import reconstruction_figure, training_figure
    from histoweft.histology.pretrain import pretrain
    from histoweft.histology.reconstruction import kept_part, reconstruct, study_sections

    options, samples = job.params.options, list(job.params.samples)
    sections, um_per_px, target = study_sections(job.input.images, job.input.masks, job.input.tiles, job.input.stains)
    model, course, score = pretrain(
        sections, network=job.wildcards.network, epochs=options["epochs"], batch=options["batch"],
        crop=options["crop"], seed=job.params.seed, device=job.device, threads=job.threads,
        checkpoint=job.params.checkpoint,
    )  # fmt: skip
    words = f"held-out SSIM {score:.3f} after {course.epochs} epochs"
    job.log.info("%s of %s: %s in %.0f s on %s", job.wildcards.network, ", ".join(samples), words, course.seconds,
                 course.device)  # fmt: skip
    history = pd.DataFrame(course.history)
    judged = "val_ssim" in history
    meta = {"samples": samples, "um_per_px": um_per_px, "target": target.to_json(), "ssim": score if judged else None}
    save(model, job.output.model, meta)
    history.to_csv(job.output.history, sep="\t", index=False)
    rgb, mask = kept_part(*sections[0])
    back, similarity = reconstruct(model, rgb)
    note = f"{samples[0]}, stain-normalised; network: {job.wildcards.network}, {words} on {len(samples)} section(s)"
    reconstruction_figure(rgb, back, um_per_px, similarity, job.output.figure, mask=mask, note=note)
    curve = pd.DataFrame({"epoch": history["epoch"], "train": math.nan, "held_out": math.nan})
    if judged:
        curve["held_out"] = 1 - history["val_ssim"]
    else:
        curve["train"] = history["train_loss"]
    training_figure(curve, job.output.curve, label="1 - SSIM of held-out crops" if judged else "loss on training crops")


run(snakemake, main)
