# What the explorer is made from, and what the target asks of it.


def explored_tables(wildcards):
    """Return what further stages add to the explorer's part of a sample."""
    sample, found = wildcards.sample, {}
    if sample in IMAGED:
        found["painted"] = rules.paint.output.painted.format(sample=sample)
    if len(study.samples) > 1:
        method = study.config["integration"]["methods"][-1]
        found["joint"] = rules.joint_clusters.output.clusters.format(method=method)
    for name, samples in (("states", "STATES_SAMPLES"), ("fates", "TRAJECTORY_SAMPLES")):
        # Stages that a study may leave out.
        if sample in globals().get(samples, ()):
            found[name] = f"{SAMPLE}/{name}.parquet".format(sample=sample)
    return found


def web_files():
    """Return the page's own files."""
    folder = REPOSITORY / "workflow" / "lib" / "histoweft" / "explorer" / "web"
    return sorted(str(path) for path in folder.iterdir() if path.suffix in (".html", ".js", ".css"))


def explorer_pages():
    """Return the explorer's page, where it is asked for; it draws in every sample's part."""
    if not (study.config["report"]["explorer"]["run"] and study.samples):
        return []
    return [f"{EXPLORER}/index.html"]
