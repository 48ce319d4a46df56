# Which sections the space stage works on, and the labels it speaks of.
from types import SimpleNamespace

SPACE = study.config["space"]
PLACED = {sample: row for sample, row in study.samples.items() if row["platform"] != "scrna"}


def space_labels(wildcards):
    """Return the table that names each barcode's group; nothing for expert labels, which lie in the counts."""
    tables = {"clusters": rules.leiden.output.clusters, "annotation": f"{SAMPLE}/annotation.parquet"}
    return [tables[SPACE["labels"]].format(sample=wildcards.sample)] if SPACE["labels"] in tables else []


def space_labels_input(wildcards):
    """Return the same as a named input, left out where there is none."""
    found = space_labels(wildcards)
    return {"labels": found[0]} if found else {}


def named_types(wildcards):
    """Return the cell types of a section where groups are types; its table names those of all sections."""
    return space_labels_input(wildcards) if SPACE["labels"] == "annotation" else {}


def space_statistics():
    """Return what the target asks of this stage."""
    if not PLACED:
        return []
    per_sample = expand(rules.space_figures.output, sample=PLACED)
    return [*per_sample, *rules.space_summary.output]


def joint_groups():
    """Return clusters of all sections together, where several sections are grouped by their clusters.

    Numbers of a section's own clusters mean something else in the next section.
    """
    if SPACE["labels"] != "clusters" or len(study.samples) < 2:
        return {}
    return {"joint": rules.joint_clusters.output.clusters.format(method=INTEGRATION["methods"][-1])}


def niche_groups(wildcards):
    """Return where the groups of all placed sections come from."""
    tables = [path for sample in PLACED for path in space_labels(SimpleNamespace(sample=sample))]
    return joint_groups() or ({"labels": tables} if tables else {})


def of_placed(name):
    """Return a file of every placed sample."""
    return expand(f"{SAMPLE}/{name}", sample=PLACED)


def space_domains():
    """Return what the target asks of domains, niches and scales."""
    if not PLACED:
        return []
    return [*expand(rules.domain_figures.output, sample=PLACED), *rules.score_space.output]
