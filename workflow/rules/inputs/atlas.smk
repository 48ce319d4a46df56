# What the voxel atlas is read from.
from dataclasses import fields

from histoweft.atlas import sources

ATLAS = study.config["atlas"]
ATLAS_FILES, _atlas_faults = sources.discover(ATLAS, study.results(), check=workflow.is_main_process)
if _atlas_faults:
    raise WorkflowError(str(InputError(_atlas_faults.items)))


def atlas_input(wildcards):
    """Return the files that hold the expression; the list of volumes where these are downloaded first."""
    return [rules.fetch_experiments.output.table] if ATLAS_FILES.experiments else list(ATLAS_FILES.input)


def atlas_options():
    """Return what the config says about reading, with the list of downloaded volumes in place of that of experiments."""
    options = {field.name: ATLAS[field.name] for field in fields(sources.Options)}
    return options | ({"input": str(rules.fetch_experiments.output.table)} if ATLAS_FILES.experiments else {})
