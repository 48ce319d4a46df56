# What the voxel atlas is read from.
from dataclasses import fields

from histoweft.atlas import plan as atlas_plan
from histoweft.atlas import sources

ATLAS = study.config["atlas"]
ATLAS_FILES, _atlas_faults = sources.discover(ATLAS, study.results(), check=workflow.is_main_process)
if _atlas_faults:
    raise WorkflowError(str(InputError(_atlas_faults.items)))

ATLAS_JOBS = atlas_plan.jobs(ATLAS)
ATLAS_FITTED = (
    "n_genes", "clip", "scaling", "latent", "folds", "buffer_voxels", "epochs", "reference",
)  # fmt: skip


def atlas_fit_options():
    """Return the options that a fold reads."""
    return {name: ATLAS[name] for name in ATLAS_FITTED}


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
