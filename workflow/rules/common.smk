# Shared by all stages: the checked study, the library's place, and small helpers for directives.
import os
import sys
from pathlib import Path

REPOSITORY = Path(workflow.basedir)
sys.path.insert(0, str(REPOSITORY / "workflow" / "lib"))

from histoweft import failures
from histoweft import study as studies
from histoweft.errors import InputError
from histoweft.ingest import inputs, reference
from histoweft.ingest.section import Discovery
from histoweft.provenance import library_hash
from histoweft.resources import memory
from histoweft.scheduling import calm_scheduler
from histoweft.simulate import layout
from histoweft.submissions import declared

calm_scheduler()


def simulated_inputs():
    """Return what the simulate rule will make for the samples that point at its folder."""
    made = {}
    for sample, row in study.samples.items():
        if study.is_simulated(sample):
            files = [Path(row["path"], name) for name in layout.SECTION_FILES]
            image = next(path for path in files if "hires" in path.name)
            roles = {p.name: p for p in files if p.suffix != ".png"}
            wanted = row["image"] != "none"
            made[sample] = Discovery(roles, image, "hires") if wanted else Discovery(roles)
    return made


study, _faults = studies.load(
    config, source=", ".join(map(str, workflow.configfiles)) or "config", files=workflow.configfiles
)
# Looking at the inputs belongs to planning; a job on a cluster node reads the Snakefile again and need not.
discoveries, _input_faults = inputs.discover_all(study, simulated_inputs(), check=workflow.is_main_process)
_faults.extend(_input_faults)
_faults.extend(declared.complete(study.config, REPOSITORY / "envs"))
REFERENCE = reference.located(study.config)
discovered_reference = reference.discover(REFERENCE, study.simulated) if REFERENCE else Discovery()
if workflow.is_main_process:
    _faults.extend(discovered_reference.faults)
if _faults:
    raise WorkflowError(str(InputError(_faults.items)))


# In the environment, not in params: another kind of file for the same figures must not rerun anything.
os.environ.update(HISTOWEFT_VECTOR=study.config["report"]["vector"])


wildcard_constraints:
    sample="|".join(map(re.escape, study.samples)) or "none",
    method="|".join(study.config["integration"]["methods"]),


SAMPLE = study.results("samples", "{sample}")


onerror:
    configfile = str(workflow.configfiles[-1]) if workflow.configfiles else ""
    told = failures.advice(failures.remembered(f"logs/{study.name}"), study.samples, configfile)
    print(f"What failed:\n{told}" if told else "A job ended without a word: see its log.", file=sys.stderr)


def env(name):
    """Return the conda environment of a step family."""
    return str(REPOSITORY / "envs" / f"{name}.yaml")


def script_path(stage_and_rule):
    """Return the script of a rule, `stage/rule`."""
    return str(REPOSITORY / "workflow" / "scripts" / f"{stage_and_rule}.py")


def library(stage_and_rule):
    """Return the hash of the library modules that a rule's script reaches; a change in them reruns the rule."""
    return library_hash(script_path(stage_and_rule))


def solid(path):
    """Mark an output that must not be empty."""
    return ensure(path, non_empty=True)


def shown(path, caption, category, **labels):
    """Mark an output for the report, with its caption and its place in the grid."""
    caption = str(REPOSITORY / "workflow" / "report" / f"{caption}.rst")
    return report(solid(path), caption=caption, category=category, labels=labels)


def logs(name):
    """Return the log of a rule."""
    return f"logs/{study.name}/{name}.log"


def timings(name):
    """Return the benchmark file of a rule."""
    return f"benchmarks/{study.name}/{name}.jsonl"
