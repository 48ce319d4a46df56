"""Say what a run would cost on this machine, from the headers of its inputs and resources/costs.tsv; nothing is run.

./histoweft preflight [--configfile FILE] [--config KEY=VALUE ...] [--cores N] [--directory FOLDER]
"""

import argparse
import os
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "workflow" / "lib"))


def plan(given):
    """Return the parsed workflow with its jobs, as a dry run would have them; go to the folder of the run."""
    from snakemake.api import SnakemakeApi
    from snakemake.cli import parse_config
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

    configfiles = [Path(path).resolve() for path in given.configfile or []]
    os.chdir(given.directory or ".")
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        made = api.workflow(
            ResourceSettings(cores=given.cores or os.cpu_count()),
            config_settings=ConfigSettings(configfiles=configfiles, config=parse_config(given.config)),
            snakefile=REPO / "Snakefile",
        )
        dag = made.dag(DAGSettings(targets=set(given.targets)))
        workflow = dag.workflow_api._workflow
        workflow._prepare_dag(forceall=False, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        return workflow


def sizes_of(workflow):
    """Return the size of each section, of the reference and of the atlas; and what could not be sized."""
    from histoweft.report import costs, shapes

    names = workflow.globals
    study, discoveries = names["study"], names["discoveries"]
    known, unknown = costs.result_sizes(Path(study.results())), []
    sizes = {}
    for sample, row in study.samples.items():
        found = discoveries[sample]
        try:
            if sample in known and (known[sample].megapixels or found.image is None):
                sizes[sample] = known[sample]
            elif study.is_simulated(sample):
                sizes[sample] = shapes.simulated_size(study.config["simulate"]["spots"])
            else:
                mpp = shapes.image_mpp(found.roles.get("scalefactors"), found.image_kind, row["mpp"])
                sizes[sample] = shapes.section_size(
                    found.roles, found.image, mpp, study.config["ingest"]["working_mpp"]
                )
        except (OSError, ValueError, KeyError) as error:
            unknown.append(f"{sample}: its size is not known before it is read ({error})")
            sizes[sample] = costs.Size(sections=1)
    for name in (costs.REFERENCE, costs.ATLAS):
        if name in known:
            sizes[name] = known[name]
    reference = names["discovered_reference"].roles.get("matrix")
    if costs.REFERENCE not in sizes and reference is not None and Path(reference).exists():
        sizes[costs.REFERENCE] = shapes.matrix_size(Path(reference))
    return sizes, unknown


def uses_gpu(rule):
    """Return whether a rule asks for a GPU; the resources of a job cannot be asked before its inputs are there."""
    resource = rule.resources.get("gpu")
    return resource is not None and not resource.is_evaluable() and bool(resource.value)


def planned_jobs(workflow, sizes):
    """Return the jobs that would run."""
    from histoweft.report import costs, preflight

    name = workflow.globals["study"].name
    jobs = []
    for job in workflow.dag.needrun_jobs():
        if not job.rule.output:
            continue  # a target, not a job
        wildcards = dict(job.wildcards_dict)
        names = costs.names_read(job.rule.name, map(str, job.input), wildcards, name) or costs.sections(sizes)
        chosen = [value for key, value in wildcards.items() if key not in costs.VARIANTS]
        jobs.append(
            preflight.Planned(
                key=job,
                rule=costs.rule_key(job.rule.name, wildcards),
                about="-".join(chosen),
                size=costs.total(sizes[one] for one in names if one in sizes),
                effort=costs.effort_of(dict(job.params.items())),
                needs=set(workflow.dag.dependencies[job]),
                gpu=uses_gpu(job.rule),
            )
        )
    return jobs


def main(arguments):
    """Print the estimate."""
    from snakemake_interface_common.exceptions import WorkflowError

    from histoweft import configfile
    from histoweft.errors import Faults, InputError
    from histoweft.report import costs, preflight

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", nargs="+")
    parser.add_argument("--cores", type=int, help="all by default")
    parser.add_argument("--directory")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--targets", nargs="+", default=[], help="rules or files; all by default")
    given = parser.parse_args(arguments)
    faults = Faults()
    given.configfile = configfile.located(given.configfile or [])
    for path in given.configfile:
        faults.extend(configfile.check(Path(path)))
    if faults:
        sys.exit(f"preflight: {InputError(faults.items)}")
    table = REPO / "resources" / "costs.tsv"
    try:
        workflow = plan(given)
    except WorkflowError as error:
        sys.exit(f"preflight: {error}")
    sizes, unknown = sizes_of(workflow)
    jobs, known = planned_jobs(workflow, sizes), costs.read_costs(table)
    preflight.predict(jobs, known)
    machine = preflight.this_machine(".", given.cores)
    print(preflight.report(jobs, sizes, machine, known, costs.measured_on(table)))
    for text in unknown:
        print(f"  - {text}")


if __name__ == "__main__":
    main(sys.argv[1:])
