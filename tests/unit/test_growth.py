"""How cost grows, and what large studies would need, against curves and runs that are known."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from histoweft.report import growth
from histoweft.report.costs import Cost, Curve, Measured, Size
from histoweft.report.preflight import Planned

REPO = Path(__file__).resolve().parents[2]
SIZES = (0.5, 2.0, 8.0)
CASE = growth.Case("many", 3, Size(values=10.0, sections=1))


def runs(seconds, memory, rule="grow"):
    return [[Measured(rule, Size(values=size), 1.0, seconds(size), memory(size))] * 2 for size in SIZES]


def cost(rule, base=0.0, k=1.0, mb=100.0, largest=10.0, jobs=3):
    return Cost(rule, "values", Curve(mb, 0.0, 1.0), Curve(base, k, 1.0), largest, jobs)


def job(key, rule="step", needs=(), gpu=False, sections=1):
    return Planned(key, rule, "", Size(values=10.0, sections=sections), needs=set(needs), gpu=gpu)


# --------------------------------------------------------------------------------------------------------- measured


def test_a_quadratic_rule_is_seen_as_one_and_its_means_stand_side_by_side():
    made = growth.measured("counts", runs(lambda x: 3 + 2 * x**2, lambda x: 100 + 50 * x)).set_index("rule").loc["grow"]
    assert made["unit"] == "values"
    assert [made[f"size_{at}"] for at in (1, 2, 3)] == list(SIZES)
    assert [made[f"s_{at}"] for at in (1, 2, 3)] == [3.5, 11.0, 131.0]
    assert (made["s_exponent"], made["mb_exponent"]) == (2.0, 1.0)
    assert made["s_slope"] == pytest.approx(math.log(131 / 3.5) / math.log(16))


def test_a_rule_that_does_not_grow_is_constant():
    made = growth.measured("counts", runs(lambda x: 4.0, lambda x: 150.0)).iloc[0]
    assert (made["s_exponent"], made["mb_exponent"], made["s_slope"]) == (0.0, 0.0, 0.0)


def test_rules_that_one_of_the_runs_lacks_are_left_out():
    some = runs(lambda x: x + 1, lambda x: 100)
    other = runs(lambda x: x + 1, lambda x: 100, rule="once")[0]
    made = growth.measured("counts", [some[0] + other, *some[1:]])
    assert made["rule"].tolist() == ["grow"]


def test_the_series_of_pixels_holds_rules_that_work_on_them():
    def run(pixels):
        return [Measured(rule, Size(values=9.0, megapixels=pixels), 1.0, pixels, 300.0) for rule in ("tile", "umap")]

    made = growth.measured("pixels", [run(pixels) for pixels in (1.0, 4.0, 400.0)])
    assert made[["series", "rule", "unit", "size_3"]].values.tolist() == [["pixels", "tile", "megapixels", 400.0]]


def test_a_series_with_sizes_of_its_own_is_fitted_to_them():
    def run(n):
        once = [Measured("report", Size(values=9.0), 1.0, 2 * n, 300.0)]
        return once + [Measured("umap", Size(values=9.0), 1.0, 5.0, 300.0)] * int(n)

    made = growth.measured("sections", [run(n) for n in (2, 4, 8)], [2, 4, 8])
    assert made[["rule", "unit", "size_1", "size_3", "s_exponent"]].values.tolist() == [["report", "sections", 2, 8, 1]]
    everywhere = growth.measured("genes", [run(n) for n in (2, 4, 8)], [1.0, 2.0, 4.0])
    assert set(everywhere["rule"]) == {"report", "umap"}
    assert set(everywhere["unit"]) == {"thousand genes"}


# ------------------------------------------------------------------------------------------------------- calculated


def test_a_run_is_played_through_on_each_machine():
    known = {"step": cost("step", base=1.0)}  # 11 s each
    jobs = [job(at) for at in range(16)] + [job("last", needs=range(16), sections=3)]
    rows = {row["machine"]: row for row in growth.estimates(CASE, jobs, known)}
    workstation, gpu, cluster = (rows[name] for name in growth.MACHINES)
    assert workstation["most_s"] == pytest.approx(33.0)  # two rounds on eight cores, and the last
    assert cluster["most_s"] == pytest.approx(22.0)
    assert workstation["work_s"] == pytest.approx(17 * 11.0)
    assert workstation["chain_s"] == pytest.approx(22.0)
    assert gpu["least_s"] == gpu["most_s"]


def test_a_gpu_bounds_the_time_from_below_by_training_that_takes_none():
    known = {"step": cost("step"), "train": cost("train", k=5.0)}
    jobs = [job("a"), job("b", "train", needs=["a"], gpu=True)]
    rows = {row["machine"]: row for row in growth.estimates(CASE, jobs, known)}
    with_gpu = rows["the same with one GPU"]
    assert (with_gpu["least_s"], with_gpu["most_s"]) == (10.0, 60.0)
    without = rows["workstation, 8 cores, 64 GB"]
    assert (without["least_s"], without["most_s"]) == (60.0, 60.0)


def test_what_does_not_fit_is_named_and_what_was_never_measured_too():
    known = {"step": cost("step"), "big": cost("big", mb=100e3, jobs=1)}
    rows = {row["machine"]: row for row in growth.estimates(CASE, [job(1), job(2, "big"), job(3, "new")], known)}
    assert rows["workstation, 8 cores, 64 GB"]["too_large"] == "big"
    assert rows["SLURM, 20 nodes of 32 cores and 128 GB"]["too_large"] == ""
    assert rows["workstation, 8 cores, 64 GB"]["unmeasured"] == "new"
    assert rows["workstation, 8 cores, 64 GB"]["guessed"] == "big"


def test_how_far_it_is_extrapolated_is_said():
    known = {"near": cost("near", largest=10.0), "far": cost("far", k=3.0, largest=0.1)}
    row = growth.estimates(CASE, [job(1, "near"), job(2, "far", sections=3)], known)[0]
    assert row["section_factor"] == pytest.approx(1.0)
    assert row["study_factor"] == pytest.approx(100.0)
    assert row["beyond"] == pytest.approx(0.75)


PLAN = """
import json, scaling
from histoweft.report.costs import Size
from histoweft.report.growth import Case
jobs = scaling.planned(Case("few", 3, Size(values=10.0, sections=1)))
print(json.dumps([[job.rule, job.size.values, job.gpu] for job in jobs]))
"""


def test_a_study_of_empty_sections_is_planned_with_the_sizes_of_the_case():
    paths = [str(REPO / "tools"), str(REPO / "workflow" / "lib")]
    made = subprocess.run(
        [sys.executable, "-c", PLAN],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    jobs = json.loads(made.stdout.splitlines()[-1])
    rules = [rule for rule, _, _ in jobs]
    assert (rules.count("qc"), rules.count("joint_features"), rules.count("report_study")) == (3, 1, 1)
    assert {values for rule, values, _ in jobs if rule in ("qc", "paint")} == {10.0}
    assert {values for rule, values, _ in jobs if rule == "joint_features"} == {30.0}
    assert {rule for rule, _, gpu in jobs if gpu} >= {"cross_validate/context", "train_genes"}


# ------------------------------------------------------------------------------------------------------ for readers


def test_the_page_is_the_rendering_of_the_committed_tables():
    docs = REPO / "docs" / "benchmarks"
    tables = {
        name: pd.read_csv(docs / f"{name}.tsv", sep="\t") if (docs / f"{name}.tsv").is_file() else None
        for name in ("scaling", "overhead", "machines")
    }
    assert (docs / "scaling.md").read_text(encoding="utf-8") == growth.page(**tables)


def test_shares_of_the_overhead_are_by_the_clock():
    row = {
        "about": "demo", "jobs": 10, "wall_s": 200, "timed_s": 190.0, "imports_s": 30.0, "own_cpu_s": 20.0,
        "jobs_cpu_s": 80.0,
    }  # fmt: skip
    text = " ".join(growth.page(None, pd.DataFrame([row]), None).split())
    assert "demo: 10 jobs, one at a time, 200 s by the clock. 15% of them went to imports in jobs" in text
    assert "5% passed outside of jobs (Snakemake's start and planning): together 20%." in text
    assert "took 20% of the processor time" in text


def test_estimates_are_marked_as_calculated():
    known = {"step": cost("step"), "train": cost("train", k=900.0)}
    rows = growth.estimates(growth.CASES[0], [job("a"), job("b", "train", gpu=True)], known)
    text = growth.page(None, None, pd.DataFrame(rows))
    assert "**Calculated, not run**" in text
    assert "| 100 Visium sections | the same with one GPU | 10 s to 2.5 h |  |" in text


def test_the_figure_names_its_rules_and_is_the_same_twice(tmp_path):
    made = growth.measured("counts", runs(lambda x: 3 + 2 * x, lambda x: 100 + 50 * x))
    for name in ("a", "b"):
        growth.figure(made, tmp_path / f"{name}.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert ">grow<" in text
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")
