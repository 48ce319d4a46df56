"""Every rule carries every directive the house asks for."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

PEERS = {"domains": "spagcn", "deconvolution": "flashdeconv", "annotation": "celltypist"}


@pytest.fixture(scope="module")
def workflow(repo):
    """Return the parsed demo workflow, with a method submitted to every stage that takes one."""
    from snakemake.api import SnakemakeApi
    from snakemake.settings.enums import Quietness
    from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

    before = Path.cwd()
    folder = repo / "benchmarks" / "peers"
    submitted = [{"stage": stage, "name": name, "file": str(folder / f"{name}.py")} for stage, name in PEERS.items()]
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        made = api.workflow(
            ResourceSettings(cores=1), ConfigSettings(config={"submissions": submitted}),
            snakefile=repo / "Snakefile", workdir=repo,
        )  # fmt: skip
        yield made._workflow  # parsed when asked for
    os.chdir(before)


@pytest.fixture(scope="module")
def rules(workflow):
    found = [rule for rule in workflow.rules if rule.output]  # the others are targets
    assert {f"submit_{stage}" for stage in PEERS} <= {rule.name for rule in found}
    assert len(found) > 15
    return found


def all_of(rules, problem):
    """Collect what is wrong with each rule, so that one run names them all."""
    faults = {rule.name: problem(rule) for rule in rules}
    return {name: fault for name, fault in faults.items() if fault}


def test_log_benchmark_message_and_script(rules):
    def problem(rule):
        missing = [name for name in ("log", "benchmark", "message", "script") if not getattr(rule, name)]
        return f"lacks {missing}" if missing else ""

    assert not all_of(rules, problem)


def test_benchmarks_are_json_lines(rules):
    assert not all_of(rules, lambda rule: "" if str(rule.benchmark).endswith(".jsonl") else str(rule.benchmark))


def test_conda_environment_exists(rules):
    def problem(rule):
        environment = rule.conda_env
        if callable(environment):
            environment = environment(SimpleNamespace(submission=PEERS[rule.name.removeprefix("submit_")]))
        path = str(environment.file if hasattr(environment, "file") else environment)
        files = [Path(path.replace("{environment}", name)) for name in ("ingest", "report")]
        return "" if rule.conda_env and all(file.is_file() for file in files) else f"conda: {rule.conda_env}"

    assert not all_of(rules, problem)


def test_memory_grows_with_attempts_and_runtime_is_given(rules):
    def problem(rule):
        memory = rule.resources.get("mem_mb")
        if memory is None or not memory.is_evaluable():
            return "mem_mb is not a function of the attempt"
        size = type("Files", (list,), {"size_mb": 100})()
        first, second = (memory._evaluator(None, input=size, attempt=attempt) for attempt in (1, 2))
        if second < 2 * first:
            return f"mem_mb {first} then {second}"
        return "" if "runtime" in rule.resources else "no runtime"

    assert not all_of(rules, problem)


def test_threads_are_set(rules, repo):
    text = "\n".join(path.read_text() for path in (repo / "workflow" / "rules").glob("*.smk"))
    blocks = dict(re.findall(r"^ *rule (\w+):\n(.*?)(?=^ *rule |\Z)", text, flags=re.M | re.S))
    assert not all_of(rules, lambda rule: "" if "    threads:" in blocks[rule.name] else "no threads")


def test_training_rules_ask_for_a_gpu(rules):
    tagged = {rule.name for rule in rules if "gpu" in rule.resources}
    assert tagged == {
        "embed", "pretrain", "image_features", "tune", "cross_validate", "train_genes", "paint", "fit_annotation",
        "fit_fold", "explain_atlas",
    }  # fmt: skip


def test_library_hash_is_among_the_params(rules):
    def problem(rule):
        value = rule.params.get("library")
        return "" if isinstance(value, str) and re.fullmatch("[0-9a-f]{16}", value) else f"library={value!r}"

    assert not all_of(rules, problem)


def test_script_lies_in_its_stage(rules, repo):
    def problem(rule):
        stage = Path(rule.snakefile).stem
        expected = repo / "workflow" / "scripts" / stage / f"{rule.name}.py"
        return "" if expected.is_file() else f"no {expected.relative_to(repo)}"

    assert not all_of(rules, problem)


def test_outputs_are_ensured(rules):
    def problem(rule):
        loose = []
        for output in rule.output:
            ensured = (output.flags.get("ensure") or {}).get("non_empty")
            if not ensured and rule.name != "unpack" and not str(output).endswith("_warnings.txt"):
                loose.append(str(output))
        return f"not ensured: {loose}" if loose else ""

    assert not all_of(rules, problem)


def test_figures_and_tables_are_in_the_report_with_caption_category_and_labels(rules):
    def problem(rule):
        faults = []
        for output in rule.output:
            report = output.flags.get("report")
            if str(output).endswith(".png") and "simulated" not in str(output) and report is None:
                faults.append(f"{output} is not in the report")
            if report is not None:
                if not Path(str(report.caption.get_path_or_uri(secret_free=True))).is_file():
                    faults.append(f"{output}: no caption {report.caption}")
                if not report.category or not report.labels:
                    faults.append(f"{output}: category or labels missing")
        return "; ".join(faults)

    assert not all_of(rules, problem)


def test_sample_wildcards_are_the_samples(workflow):
    assert workflow.modifier.wildcard_constraints["sample"] == "P1_pre|P1_post|P2_pre|P2_post"


def test_every_figure_of_a_page_is_traced_to_its_rule_its_log_and_a_table_that_a_rule_makes(workflow, rules):
    names, study = workflow.globals, workflow.globals["study"]
    sample = next(iter(study.samples))
    shown = [
        parts["figures"]
        for stages in (names["study_stages"](), names["sample_stages"](sample))
        for parts in stages.values()
    ]
    figures = [path for pairs in shown for path, _ in pairs]
    assert len(figures) > 20
    outputs = [output for rule in rules for output in rule.output]
    traced = names["sources"](figures)
    assert set(traced) == set(figures)
    for path, source in traced.items():
        assert source["log"].endswith(f"/{source['rule']}.log"), path
        assert "{" not in source["log"], path
        assert (sample in source["log"]) == (sample in path), path
    tables = [source["table"] for source in traced.values() if source["table"]]
    assert len(tables) > 0.7 * len(figures)
    assert not [table for table in tables if not any(output.match(table) for output in outputs)]
    drawn = {Path(output).stem for output in outputs if str(output).endswith(".png")}
    assert set(names["FIGURES_OF_SAMPLE"]) <= drawn
