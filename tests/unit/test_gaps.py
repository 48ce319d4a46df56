"""A step that cannot be computed ends with valid, empty outputs and a reason; what needs it ends in the same way."""

import json
import subprocess
import sys

import pytest

from histoweft import failures, gaps

SCRIPT = """
import sys
sys.path.insert(0, {library!r})
from types import SimpleNamespace

class Named(dict):
    __getattr__ = dict.__getitem__
    def __iter__(self):
        for value in self.values():
            yield from [value] if isinstance(value, str) else value

snakemake = SimpleNamespace(
    rule="scales", input=Named({inputs!r}), output=Named(table="{out}.parquet", figure="{out}.png"), params=Named(),
    wildcards=Named(sample="S7"), threads=1, resources=SimpleNamespace(gpu=0), log=["logs/{out}.log"],
)
from histoweft.errors import NotComputed
from histoweft.job import run

def main(job):
    {body}

run(snakemake, main, optional={optional!r}, some={some!r})
"""

COMPUTES = "[path.write_text('made') for path in (job.output.table, job.output.figure)]"
CANNOT = "raise NotComputed('45 cells, 100 needed', 'space.x')"


@pytest.fixture
def run(tmp_path, repo, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def script(out, body, inputs=None, optional=(), some=()):
        text = SCRIPT.format(
            library=str(repo / "workflow" / "lib"),
            out=out,
            body=body,
            inputs=inputs or {},
            optional=optional,
            some=some,
        )
        (tmp_path / f"{out}.py").write_text(text)
        return subprocess.run([sys.executable, f"{out}.py"], cwd=tmp_path, check=False).returncode

    return script


def test_a_step_that_data_cannot_bear_ends_normally_with_its_reason(run):
    import pandas as pd
    from PIL import Image

    assert run("a", CANNOT) == 0
    assert gaps.of("a.parquet").words == "Not computed: S7: 45 cells, 100 needed. Option: space.x."
    assert pd.read_parquet("a.parquet").empty
    assert Image.open("a.png").size[0] > 100
    assert not failures.remembered("logs")


def test_what_needs_it_ends_alike_and_what_can_do_without_computes(run, tmp_path):
    run("a", CANNOT)
    assert run("b", COMPUTES, {"scales": "a.parquet"}) == 0
    assert gaps.of("b.png") == gaps.of("a.png")
    assert run("c", COMPUTES, {"scales": "a.parquet"}, ["scales"]) == 0
    assert gaps.of("c.png") is None
    assert (tmp_path / "c.parquet").read_text() == "made"


def test_of_several_files_one_that_is_there_suffices(run, tmp_path):
    run("a", CANNOT)
    run("b", COMPUTES)
    assert run("c", COMPUTES, {"all": ["a.parquet", "b.parquet"]}, some=["all"]) == 0
    assert gaps.of("c.png") is None
    assert run("d", COMPUTES, {"all": ["a.parquet", "a.png"]}, some=["all"]) == 0
    assert gaps.of("d.png") == gaps.of("a.png")


def test_a_result_that_is_computed_later_loses_its_reason(run):
    run("a", CANNOT)
    run("a", COMPUTES)
    assert gaps.of("a.parquet") is None


def test_after_a_failure_the_pass_for_pages_fills_in_and_keeps_the_failure(run, monkeypatch, tmp_path):
    assert run("a", "raise ValueError('broken')") == 1
    monkeypatch.setenv(gaps.PARTIAL, "1")
    assert run("a", COMPUTES) == 0
    assert gaps.of("a.png").words == "Failed: scales of S7: ValueError: broken; log logs/a.log"
    assert [failure.message for failure in failures.remembered("logs")] == ["ValueError: broken"]
    run("b", CANNOT)
    gaps.clear_failed(tmp_path)
    assert not (tmp_path / "a.png").exists()
    assert (tmp_path / "b.png").exists()


def test_a_job_that_is_killed_is_remembered(run):
    assert run("a", "import os; os.kill(os.getpid(), 9)") == -9
    assert "killed" in failures.remembered("logs")[0].message


@pytest.mark.parametrize("name", ["x.tsv", "x.json", "x.parquet", "x.h5ad", "x.npz", "x.ipynb", "x.html", "x.png", "x"])
def test_every_kind_of_output_has_a_valid_empty_form(tmp_path, name):
    import anndata
    import numpy as np
    import pandas as pd

    path = tmp_path / f".partial.1.{name}"
    gaps.write_empty(path, name, gaps.Gap("S7 has 45 cells"))
    assert any(path.iterdir()) if path.is_dir() else path.stat().st_size
    readers = {
        ".tsv": lambda: pd.read_csv(path, sep="\t").empty,
        ".json": lambda: json.loads(path.read_text())["not_computed"],
        ".h5ad": lambda: anndata.read_h5ad(path).n_obs == 0, ".npz": lambda: not np.load(path).files,
        ".ipynb": lambda: json.loads(path.read_text())["cells"],
    }  # fmt: skip
    suffix = name[1:]
    assert suffix not in readers or readers[suffix]()
