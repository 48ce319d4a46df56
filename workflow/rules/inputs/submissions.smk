# Which methods are submitted to which stage.
# Stage -> name -> what the config says of it.
SUBMISSIONS = {stage: {} for stage in declared.FUNCTIONS}
for _entry in study.config["submissions"]:
    SUBMISSIONS[_entry["stage"]][_entry["name"]] = _entry
SUBMITTED = study.results("submissions")


def submission_fault():
    """Raise where a method is submitted to a stage that has nothing to do."""
    works = {declared.DOMAINS: PLACED, declared.DECONVOLUTION: DECONVOLVED, declared.ANNOTATION: ANNOTATES}
    found = declared.check_stages(study.config["submissions"], {stage: bool(one) for stage, one in works.items()})
    if found:
        raise WorkflowError(str(InputError(found.items)))


submission_fault()


def submitted(stage, option):
    """Return a function of the wildcards that gives an option of a submission."""
    return lambda wildcards: SUBMISSIONS[stage][wildcards.submission][option]


def submission_environment(stage):
    """Return a function of the wildcards that gives the conda file of a submission."""
    folder = REPOSITORY / "envs"
    return lambda wildcards: str(declared.environment_file(submitted(stage, "environment")(wildcards), folder))


def submission_metrics():
    """Return the scores of every submission."""
    return [f"{SUBMITTED}/{stage}/{name}/metrics.tsv" for stage, found in SUBMISSIONS.items() for name in found]
