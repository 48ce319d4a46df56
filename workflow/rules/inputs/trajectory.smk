# Which samples have a trajectory, and what it is made from.
from histoweft.errors import Faults, nearest

TRAJECTORY = study.config["trajectory"]


def trajectory_samples():
    """Return the samples the config names: a trajectory is a claim that its user makes."""
    wanted = TRAJECTORY["samples"]
    if wanted == ["all"]:
        return list(study.samples)
    faults = Faults()
    for sample in wanted:
        if sample not in study.samples:
            faults.add(
                "config: trajectory.samples",
                repr(sample),
                "samples of the sheet, or [all]",
                nearest(sample, study.samples),
            )
    faults.extend(_without_reference())
    if faults:
        raise WorkflowError(str(InputError(faults.items)))
    return list(wanted)


def _without_reference():
    """Return a fault where groups are asked of an annotation that is not made."""
    faults = Faults()
    if TRAJECTORY["samples"] and TRAJECTORY["labels"] == "annotation" and not ANNOTATES:
        hint = "Name a reference, or use clusters or labels."
        faults.add("config: trajectory.labels", "annotation, without annotation.reference", "clusters or labels", hint)
    return faults


TRAJECTORY_SAMPLES = trajectory_samples()

# Options that decide what is found; the others belong to the scores.
TRAJECTORY_OPTIONS = {name: value for name, value in TRAJECTORY.items() if name not in ("samples", "expected")}


def trajectory_groups(sample):
    """Return the table of a sample's groups; nothing for expert labels, which lie in the counts."""
    tables = {"clusters": rules.leiden.output.clusters, "annotation": f"{SAMPLE}/annotation.parquet"}
    return [tables[TRAJECTORY["labels"]].format(sample=sample)] if TRAJECTORY["labels"] in tables else []


def trajectory_input(wildcards):
    """Return the groups, and the counts with their layers where a velocity is wanted."""
    found = {"groups": path for path in trajectory_groups(wildcards.sample)}
    if TRAJECTORY["kernels"]["velocity"] > 0:
        found["raw"] = rules.ingest_counts.output.counts.format(sample=wildcards.sample)
    return found


def trajectory_groups_input(wildcards):
    """Return the groups of one sample as a named input, left out where they lie in the counts."""
    return {"groups": path for path in trajectory_groups(wildcards.sample)}


def all_trajectory_groups(wildcards):
    """Return the groups of all samples as a named input, left out where they lie in the counts."""
    tables = [path for sample in TRAJECTORY_SAMPLES for path in trajectory_groups(sample)]
    return {"groups": tables} if tables else {}


def trajectories():
    """Return what the target asks of this stage."""
    if not TRAJECTORY_SAMPLES:
        return []
    return [*expand(rules.trajectory_figures.output, sample=TRAJECTORY_SAMPLES), *rules.score_trajectory.output]
