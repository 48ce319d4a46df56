# Who the patients are, and what the earlier stages know of their sections.
from histoweft.cohort import patients as cohort_patients

COHORT = study.config["cohort"]
BULK = COHORT["bulk"]
COHORT_STUDY = study.results("cohort")
# One patient cannot be compared with anyone.
COMPARES = bool(BULK) or len({row["patient"] for row in study.samples.values()}) > 1
RESPONDS = COMPARES and bool(COHORT["response"] or any(entry["response"] for entry in BULK))


def check_patients():
    """Refuse a sheet that says two things of one patient before anything runs."""
    try:
        cohort_patients.table_of_samples(study.samples, COHORT, study.name)
    except InputError as error:
        raise WorkflowError(str(error))


if COMPARES and workflow.is_main_process:
    check_patients()


def shipped(option):
    """Return a table that an option names; the one shipped with the workflow where the working folder has none."""
    path = Path(COHORT[option])
    return str(path if path.is_file() or path.is_absolute() else REPOSITORY / path)


def cohort_sources():
    """Return which tables there are of which samples: name -> (samples, path with the wildcard sample)."""
    sources = {
        "filtered": (study.samples, rules.qc.output.filtered),
        "states": (study.samples, rules.states.output.states),
    }
    if ANNOTATES:
        sources["annotation"] = (study.samples, rules.annotate.output.annotation)
    if DECONVOLVED:
        sources["proportions"] = (DECONVOLVED, rules.deconvolve.output.proportions)
    if PLACED:
        sources |= {
            "graph": (PLACED, rules.spatial_graph.output.graph),
            "niches": (PLACED, f"{SAMPLE}/niches.parquet"),
            "domains": (PLACED, f"{SAMPLE}/domains.parquet"),
            "neighbourhood": (PLACED, rules.neighbourhood.output.neighbourhood),
            "interactions_spatial": (PLACED, rules.interactions.output.spatial),
            "interactions_local": (PLACED, rules.interactions.output.local),
        }
    if TRAJECTORY_SAMPLES:
        sources["fates"] = (TRAJECTORY_SAMPLES, rules.trajectory.output.fates)
        sources["drivers"] = (TRAJECTORY_SAMPLES, rules.trajectory.output.drivers)
    return sources


def cohort_files():
    """Return the tables of each sample: sample -> name -> path."""
    files = {sample: {} for sample in study.samples}
    for name, (samples, template) in cohort_sources().items():
        for sample in samples:
            files[sample][name] = str(template).format(sample=sample)
    return files


COHORT_FILES = cohort_files() if COMPARES else {}


def cohort_inputs(wildcards):
    """Return every file that patients are made from."""
    tables = [path for paths in COHORT_FILES.values() for path in paths.values()]
    return tables + [entry[name] for entry in BULK for name in ("expression", "clinical")]


def marker_sections():
    """Return the samples that markers are drawn on: the first of each of the two groups that are compared."""
    chosen = {}
    for sample, row in study.samples.items():
        answer = str(row["clinical"].get(COHORT["response"], row["condition"]) or row["condition"])
        if sample in PLACED and answer:
            chosen.setdefault(answer, sample)
    return list(chosen.values())[:2]


MARKED = marker_sections()


def marker_images(wildcards):
    """Return the images of the sections that markers are drawn on."""
    found = {sample: sample_image(SimpleNamespace(sample=sample)) for sample in MARKED}
    return [path for paths in found.values() for path in ([paths] if isinstance(paths, str) else paths)]


def prediction_parts(wildcards):
    """Return what the prediction of the response found, where there is one."""
    return dict(rules.predict_response.output.items()) if RESPONDS else {}


def cohort_pages():
    """Return what the target asks of this stage."""
    return list(rules.cohort_figures.output) if COMPARES else []
