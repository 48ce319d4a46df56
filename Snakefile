# Histoweft: from a sample sheet to filtered, clustered, integrated and reported tissues.
# An index; rules live in workflow/rules/<stage>.smk, code in workflow/lib/histoweft/.
from snakemake.utils import min_version

min_version("9.27")

# `--configfile` replaces the demo study instead of being laid over it.
if "study" not in config:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/expression.smk"
include: "workflow/rules/integration.smk"
include: "workflow/rules/histology.smk"
include: "workflow/rules/atlas.smk"
include: "workflow/rules/annotation.smk"
include: "workflow/rules/space.smk"
include: "workflow/rules/trajectory.smk"
include: "workflow/rules/states.smk"
include: "workflow/rules/cohort.smk"
include: "workflow/rules/submissions.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/explorer.smk"
include: "workflow/rules/environments.smk"


# What is made from the rest after a failure (tools/launch.py).
rule pages:
    input:
        study_pages(),
        explorer_pages(),


rule all:
    default_target: True
    input:
        final_outputs(),
        explorer_pages(),
        rules.provenance.output.crate,
