"""What a user sees of the workflow when an input is bad, and that nothing is left behind."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

HEADER = "sample\tplatform\tpath\timage\n"


def study(checkout, rows, extra=""):
    (checkout.root / "samples.tsv").write_text(HEADER + "".join(rows))
    return checkout.configure("study.yaml", f"study: bad\nsamples: samples.tsv\n{extra}")


def test_faults_of_config_sheet_and_inputs_come_together_before_a_job(checkout):
    folder = checkout.root / "here"
    folder.mkdir()
    rows = ["a\tvisium\there\t\n", "b\tvisium\tnowhere\t\n"]
    config = study(checkout, rows)
    code, text = checkout.run("-n", "--configfile", config, check=False)
    assert code != 0
    assert "samples.tsv, line 2" in text
    assert "samples.tsv, line 3" in text
    assert "nowhere" in text
    assert "Traceback" not in text
    config = study(checkout, ["a\tvisum\there\t\n", *rows[1:]], "sede: 1\nexpression:\n  qc:\n    min_genes: many\n")
    _, text = checkout.run("-n", "--configfile", config, check=False)
    for expected in (
        "sede",
        "Did you mean 'seed'?",
        'expression.qc.min_genes: found "many"',
        "found 'visum'",
        "nowhere",
    ):
        assert expected in text


def test_an_unregistered_url_is_refused(checkout):
    config = study(checkout, ["a\th5ad\thttps://example.org/a.h5ad\t\n"])
    code, text = checkout.run("-n", "--configfile", config, check=False)
    assert code != 0
    assert "https://example.org/a.h5ad; expected a url that resources/registry.tsv lists" in text


def test_a_bad_sample_does_not_stop_a_good_one_and_leaves_no_output(checkout, demo):
    """A truncated matrix ends its own sample with its message; the other sample is filtered all the same."""
    for sample in ("P1_pre", "P2_pre"):
        shutil.copytree(demo.root / "results" / "demo" / "simulated" / sample, checkout.root / "data" / sample)
    matrix = checkout.root / "data" / "P2_pre" / "filtered_feature_bc_matrix.h5"
    matrix.write_bytes(matrix.read_bytes()[:20_000])
    config = study(checkout, ["good\tvisium\tdata/P1_pre\t\n", "bad\tvisium\tdata/P2_pre\t\n"])
    targets = [f"results/bad/samples/{name}/filtered.h5ad" for name in ("good", "bad")]
    code, text = checkout.run("--configfile", config, "--", *targets, check=False)
    assert code != 0
    assert "filtered_feature_bc_matrix.h5" in text
    assert (checkout.root / targets[0]).is_file()
    assert list((checkout.root / "results/bad/samples/bad").glob("*.h5ad")) == []


def test_filters_that_leave_nothing_say_which_and_what_to_change(checkout, demo):
    shutil.copytree(demo.root / "results" / "demo" / "simulated" / "P1_pre", checkout.root / "data" / "P1_pre")
    config = study(checkout, ["a\tvisium\tdata/P1_pre\t\n"], "expression:\n  qc:\n    min_genes: 5000\n")
    code, text = checkout.run("--configfile", config, "--", "results/bad/samples/a/filtered.h5ad", check=False)
    assert code != 0
    assert "expression.qc.min_genes" in text
    assert not (checkout.root / "results/bad/samples/a/filtered.h5ad").exists()


def test_a_killed_run_goes_on_and_then_has_nothing_to_do(checkout):
    """Kill the whole process group with SIGKILL in the middle; the next start finishes; the third has nothing to do."""
    small = (checkout.root / "config" / "config.yaml").read_text().replace("spots: 600", "spots: 200")
    config = checkout.configure("small.yaml", small)
    launch = [sys.executable, "tools/launch.py", "--cores", "2", "--configfile", str(config), "--"]
    target = ["results/demo/samples/P1_pre/clusters.parquet", "results/demo/samples/P2_pre/clusters.parquet"]
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    first = subprocess.Popen(
        [*launch, *target], cwd=checkout.root, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    waited = time.monotonic()
    done = checkout.root / "results" / "demo" / "samples" / "P1_pre" / "counts.h5ad"
    while not done.exists() and time.monotonic() - waited < 300:
        assert first.poll() is None, "the first run ended before it could be killed"
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (checkout.root / target[1]).exists()
    again = subprocess.run(
        [*launch, *target], cwd=checkout.root, env=environment, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert all((checkout.root / path).is_file() for path in target)
    third = subprocess.run(
        [*launch, *target], cwd=checkout.root, env=environment, capture_output=True, text=True, check=False
    )
    assert "Nothing to be done" in third.stdout + third.stderr
    assert not list((checkout.root / "results").rglob(".partial.*"))


@pytest.mark.parametrize("alive", [False, True])
def test_locks_of_dead_runs_are_cleared_and_those_of_live_ones_stay(repo, tmp_path, alive):
    """A stand-in for Snakemake looks at the lock folder that the launcher leaves it."""
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.output.lock").write_text("results/x")
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "snakemake"
    stand_in.write_text("#!/bin/sh\nls .snakemake\n")
    stand_in.chmod(0o755)
    with open(tmp_path / ".snakemake" / "histoweft.lock", "w") as other:
        if alive:
            fcntl.flock(other, fcntl.LOCK_SH)
        done = subprocess.run(
            [sys.executable, repo / "tools" / "launch.py", "--cores", "1"],
            cwd=tmp_path, env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert ("locks" in done.stdout.split()) is alive
