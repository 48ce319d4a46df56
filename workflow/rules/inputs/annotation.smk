# Which models annotate, and what they are made from.
from histoweft.annotation.names import LOGISTIC, NETWORKS, PARQUET, REFERENCE_NAME, SPOT_PLATFORMS

ANNOTATION = study.config["annotation"]
ANNOTATES = bool(REFERENCE and study.samples)
ANNOTATORS = list(dict.fromkeys([LOGISTIC, ANNOTATION["model"], *ANNOTATION["compare"]]))
ANNOTATION_FOLDER = study.results("annotation")

# Options that decide what is learned; the others belong to the scores.
FIT_OPTIONS = {
    name: value
    for name, value in ANNOTATION.items()
    if name not in (*REFERENCE, "reference", "model", "compare", "query_map", "deconvolve", "deconvolution")
    or name == "spatial"
}
DECONVOLUTION_READING = {
    name: ANNOTATION[name] for name in ("min_genes", "orthologs", "same_species", "min_cells", "cells_per_type")
}


def annotation_tables(*options):
    """Return the tables that the config names for these options."""
    return [ANNOTATION[name] for name in options if ANNOTATION[name]]


def floor_held_out(wildcards):
    """Return what the fit of the floor has found, for any other model: types are left out once."""
    return [f"{ANNOTATION_FOLDER}/{LOGISTIC}/held_out.npz"] if wildcards.annotator != LOGISTIC else []


def embedding_of(sample, source):
    """Return the file that holds a sample's embedding (or the reference's), nothing without an embedding."""
    option = ANNOTATION["embedding"]
    if not option:
        return []
    return [option.replace("{sample}", sample)] if option.endswith(PARQUET) else [source]


def reference_embedding(wildcards):
    """Return the file of the reference's embedding."""
    return embedding_of(REFERENCE_NAME, REFERENCE["path"])


def sample_embedding(wildcards):
    """Return the file of a sample's embedding."""
    return embedding_of(wildcards.sample, study.samples[wildcards.sample]["path"])


def deconvolved_samples():
    """Return the samples whose spots are deconvolved: those of platforms that catch several cells in a spot."""
    wanted = ANNOTATION["deconvolve"]
    if not ANNOTATES or wanted == "never":
        return []
    platforms = {sample: row["platform"] for sample, row in study.samples.items()}
    if wanted == "always":
        return [sample for sample, platform in platforms.items() if platform != "scrna"]
    return [sample for sample, platform in platforms.items() if platform in SPOT_PLATFORMS]


DECONVOLVED = deconvolved_samples()
