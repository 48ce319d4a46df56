"""A study whose sections can hardly bear a step ends with its report, and says what it left out."""

import json
import os
import subprocess
import sys

import pytest
import small_cases

from histoweft import gaps


def launch(checkout, *arguments):
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    command = [sys.executable, "tools/launch.py", "--cores", "2", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=checkout.root, env=environment, capture_output=True, text=True, check=False, timeout=3600
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_few_spots_one_cluster_and_no_image_end_with_a_report_that_names_the_gaps(checkout):
    config = small_cases.study(checkout.root)
    code, text = launch(checkout, "--configfile", config)
    assert code == 0, text[-6000:]
    results = checkout.root / "results" / "small"
    page = (results / "report" / "index.html").read_text()
    own = (results / "report" / "few.html").read_text()
    for reason in ("few has 45 points", "45 spots after QC"):
        assert reason in own or reason in page
    assert all(not gaps.of(str(mark).removesuffix(gaps.SUFFIX)).failed for mark in results.rglob(f"*{gaps.SUFFIX}"))
    for sample in ("alike", "plain"):
        assert gaps.of(results / "samples" / sample / "scales.parquet") is None
    assert gaps.of(results / "samples" / "alike" / "histology" / "expression.zarr") is None
    assert "Nothing to be done" in launch(checkout, "--configfile", config)[1]


@pytest.mark.slow
def test_after_a_failure_the_pages_name_it_and_the_next_run_makes_what_is_missing(checkout):
    """Only what is known of the sections themselves."""
    config = small_cases.study(checkout.root)
    config.write_text(
        "study: small\nsamples: samples.tsv\nexpression: {qc: {min_genes: 0}}\nhistology: {enabled: false}\n"
    )
    script = checkout.root / "workflow" / "scripts" / "space" / "svg.py"
    sound = script.read_text()
    script.write_text(
        sound.replace("    options = ", '    assert job.wildcards.sample != "few", "broken"\n    options = ')
    )
    code, text = launch(checkout, "--keep-going", "--configfile", config)
    assert code == 1, text[-6000:]
    results = checkout.root / "results" / "small"
    assert "broken" in (results / "report" / "index.html").read_text()
    assert not (results / "samples" / "few" / "svg.parquet").exists()
    script.write_text(sound)
    code, text = launch(checkout, "--configfile", config)
    assert code == 0, text[-6000:]
    assert (results / "samples" / "few" / "svg.parquet").exists()
    assert "broken" not in (results / "report" / "index.html").read_text()
    assert json.loads((results / "space" / "findings.json").read_text())
    assert "Nothing to be done" in launch(checkout, "--configfile", config)[1]
