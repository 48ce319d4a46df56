# What the states of a sample are read from, and which conditions are compared.
from histoweft.states import contrast as state_contrast

STATES = study.config["states"]
SIGNATURES = [str(REPOSITORY / "resources" / "signatures" / f"{name}.tsv") for name in ("cell_states", "persister")]
SIGNATURES += STATES["signatures"]


def contrast_arms():
    """Return the column of the sheet and the two levels that patients are compared between."""
    try:
        return state_contrast.arms(study.samples, STATES["contrast"])
    except InputError as error:
        raise WorkflowError(str(error))


CONTRAST_COLUMN, CONTRAST_LEVELS = contrast_arms()


def state_tables(sample):
    """Return what further stages know of each barcode of a sample, by name."""
    found = {}
    if ANNOTATES:
        found["annotation"] = rules.annotate.output.annotation
    if sample in DECONVOLVED:
        found["proportions"] = rules.deconvolve.output.proportions
    if sample in TRAJECTORY_SAMPLES:
        found["fates"] = rules.trajectory.output.fates
    return {name: path.format(sample=sample) for name, path in found.items()}


def states_input(wildcards):
    """Return the same, and the truth where the config names one."""
    truth = STATES["truth"]["table"]
    return state_tables(wildcards.sample) | ({"truth": truth.format(sample=wildcards.sample)} if truth else {})


def surrounding_tables():
    """Return what the surroundings of persisters are read from: sample -> name -> path, sections with positions only."""
    found = {}
    for sample in PLACED:
        own = {
            "filtered": rules.qc.output.filtered,
            "graph": rules.spatial_graph.output.graph,
            "states": rules.states.output.states,
            "niches": f"{SAMPLE}/niches.parquet",
            "interactions": rules.interactions.output.interactions,
            "interactions_spatial": rules.interactions.output.spatial,
        }
        found[sample] = {name: path.format(sample=sample) for name, path in own.items()} | state_tables(sample)
    return found


def persisters_input(wildcards):
    """Return the files of `surrounding_tables`."""
    return {"around": [path for own in surrounding_tables().values() for path in own.values()]} if PLACED else {}


def study_states():
    """Return what the target asks of this stage."""
    return (
        [*expand(rules.states_figures.output, sample=study.samples), *rules.persisters.output] if study.samples else []
    )
