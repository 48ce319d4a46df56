"""Every rule that may use a GPU hands on `require_gpu`, and its script takes the device from the job, which logs it."""

import ast
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def gpu_rules(repo):
    """Return the rules of the demo that ask for a GPU."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import OutputSettings, ResourceSettings

    before = Path.cwd()
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        made = api.workflow(ResourceSettings(cores=1), snakefile=repo / "Snakefile", workdir=repo)
        found = [rule for rule in made._workflow.rules if "gpu" in rule.resources]
        assert len(found) >= 10
        yield found
    os.chdir(before)


def test_require_gpu_is_handed_on(gpu_rules):
    """The demo does not require one; a rule that trains for some of its methods only decides by its wildcards."""
    given = {rule.name: rule.params.get("require_gpu") for rule in gpu_rules}
    assert not [name for name, value in given.items() if value is not False and not callable(value)]


def test_the_device_is_the_jobs(gpu_rules, repo):
    without = []
    for rule in gpu_rules:
        script = repo / "workflow" / "scripts" / Path(rule.snakefile).stem / f"{rule.name}.py"
        uses = [
            node
            for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and node.attr == "device" and getattr(node.value, "id", "") == "job"
        ]
        without += [] if uses else [rule.name]
    assert not without
