# Which sections and fits the histology stage works on.
from dataclasses import asdict
from itertools import product

from histoweft.histology import plan

HISTOLOGY = study.config["histology"]
IMAGED = {
    sample: row
    for sample, row in study.samples.items()
    if HISTOLOGY["enabled"] and discoveries[sample].image and row["platform"] != "scrna"
}
ACROSS, GROUPS = plan.groups(IMAGED)
FITS = plan.fits(IMAGED, HISTOLOGY["protocols"], HISTOLOGY["folds"]) if IMAGED else {}
SCORED = [name for name in FITS if name != plan.ALL]
SERIAL = plan.frames(IMAGED, HISTOLOGY["register"])
MODELS = list(dict.fromkeys([HISTOLOGY["model"], "context", *HISTOLOGY["compare"]]))
SETTINGS = [dict(zip(HISTOLOGY["tune"], values)) for values in product(*HISTOLOGY["tune"].values())]
SETTINGS = SETTINGS if HISTOLOGY["tune"] else []
PRETRAINED = plan.spread(IMAGED, HISTOLOGY["pretrain"]["sections"])


def of_samples(template, samples):
    """Return one path for each sample."""
    return [str(template).format(sample=sample) for sample in samples]


def fit_filtered(wildcards):
    """Return the counts of a fit's sections."""
    return of_samples(rules.qc.output.filtered, FITS[wildcards.fit].samples)


def fit_context(wildcards):
    """Return the image features of a fit's sections."""
    return of_samples(rules.image_features.output.context, FITS[wildcards.fit].samples)


def fit_registered(wildcards):
    """Return the registered positions, where the fit holds out serial sections."""
    return [rules.register.output.positions] if SERIAL and FITS[wildcards.fit].kind == plan.ACROSS else []


def fit_tuned(wildcards):
    """Return the scores of all settings of the grid, nothing without one."""
    return expand(rules.tune.output.scores, setting=range(len(SETTINGS))) if SETTINGS else []


def fit_predictions(wildcards):
    """Return the predictions of all models for one fit."""
    return expand(rules.cross_validate.output.predictions, fit=wildcards.fit, model=MODELS)


def fit_images(wildcards):
    """Return images, masks and stains of a fit's sections for a model that reads images, nothing for others."""
    if getattr(wildcards, "model", "") != "autoencoder":
        return {}
    samples = FITS[wildcards.fit].samples
    return {
        "images": of_samples(rules.ingest_image.output.image, samples),
        "masks": of_samples(rules.tile.output.mask, samples),
        "stains": of_samples(rules.tile.output.stain, samples),
        "pretrained": rules.pretrain.output.model.format(network="autoencoder"),
    }


def encoder_model(wildcards):
    """Return the study's own network, where the image features come from it too."""
    return [rules.pretrain.output.model.format(network="encoder")] if HISTOLOGY["encoder"] == "pretrained" else []


def block_scores(wildcards):
    """Return the scores of a sample's spots held out in blocks, if they were."""
    fit = f"{plan.BLOCK}-{wildcards.sample}"
    return [rules.score_histology.output.scores.format(fit=fit)] if fit in FITS else []
