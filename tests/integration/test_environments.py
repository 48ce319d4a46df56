"""Every rule ran in the environment it names, with nothing from the host."""

import json
import re

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def built(repo, demo, conda):
    """Return environment name -> folder, as Snakemake built them for the demo."""
    if conda is None:
        pytest.skip("no uv to build environments with")
    folders = {}
    for copy in (demo.root / ".snakemake" / "conda").glob("*.yaml"):
        names = [path.stem for path in (repo / "envs").glob("*.yaml") if path.read_text() == copy.read_text()]
        assert names, f"{copy} is no environment of this project"
        folders[names[0]] = copy.with_suffix("")
    return folders


def test_every_job_ran_in_the_environment_its_rule_names(repo, demo, built):
    """The log of a job names its interpreter; packages of any other are off its path (see test_job)."""
    rules = "\n".join(path.read_text() for path in (repo / "workflow" / "rules").glob("*.smk"))
    blocks = re.findall(r"^ *rule (\w+):\n(.*?)(?=^ *rule |\Z)", rules, flags=re.M | re.S)
    named = {rule: found[1] for rule, block in blocks if (found := re.search(r'env\("(\w+)"\)', block))}
    timings = list((demo.root / "benchmarks" / "demo").rglob("*.jsonl"))
    assert len(timings) > 100
    wrong = []
    for path in timings:
        rule = json.loads(path.read_text().splitlines()[0])["rule_name"]
        if rule == "check_env":  # its environment is a wildcard
            continue
        log = demo.root / "logs" / path.relative_to(demo.root / "benchmarks").with_suffix(".log")
        said = re.search(r"environment: (.*)", log.read_text())
        if not said or said[1] != str(built[named[rule]]):
            wrong.append(f"{rule}: {said and said[1]}, not {named[rule]}")
    assert not wrong, wrong[:5]


def test_environments_hold_what_is_pinned(demo, built):
    demo.run("--", "check_envs")
    tables = list((demo.root / "results/demo/environments").glob("*.tsv"))
    assert len(tables) >= len(built)
    for path in tables:
        table = pd.read_csv(path, sep="\t", dtype=str)
        assert len(table) > 10
        assert (table["pinned"] == table["found"]).all()
