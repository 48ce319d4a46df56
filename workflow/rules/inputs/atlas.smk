# What the voxel atlas is read from.
from dataclasses import fields

from histoweft.atlas import plan as atlas_plan
from histoweft.atlas import sources

ATLAS = study.config["atlas"]
ATLAS_FILES, _atlas_faults = sources.discover(ATLAS, study.results(), check=workflow.is_main_process)
if _atlas_faults:
    raise WorkflowError(str(InputError(_atlas_faults.items)))

ATLAS_JOBS = atlas_plan.jobs(ATLAS)
ATLAS_FITTED = ("n_genes", "clip", "scaling", "latent", "folds", "buffer_voxels")


def atlas_fit_options(wildcards):
    """Return the options that a model of a fold reads."""
    own = {"residual": ["epochs"], "reference": ["reference"], "reference_front": ["reference"]}
    return {name: ATLAS[name] for name in (*ATLAS_FITTED, *own.get(wildcards.atlas_model, []))}


def atlas_results():
    """Return the results of all folds and models, nothing where the stage is off."""
    return [
        rules.fit_fold.output.result.format(atlas_protocol=protocol, atlas_fold=number, atlas_model=model)
        for protocol, number, model in ATLAS_JOBS
    ]


def atlas_input(wildcards):
    """Return the files that hold the expression; the list of volumes where these are downloaded first."""
    return [rules.fetch_experiments.output.table] if ATLAS_FILES.experiments else list(ATLAS_FILES.input)


def atlas_options():
    """Return what the config says about reading, with the list of downloaded volumes in place of that of experiments."""
    options = {field.name: ATLAS[field.name] for field in fields(sources.Options)}
    return options | ({"input": str(rules.fetch_experiments.output.table)} if ATLAS_FILES.experiments else {})


def atlas_outputs():
    """Return everything the atlas stage has to show, nothing where it is off."""
    if not ATLAS_JOBS:
        return []
    explained = [rules.explain_atlas.output.agreement, rules.explain_atlas.output.figure] if ATLAS["explain"] else []
    score = rules.score_atlas.output
    return [score.metrics, score.verdict, *rules.atlas_figures.output, *explained]
