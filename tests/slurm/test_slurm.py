"""The cluster profile on a real SLURM: a cluster of one node that lives in a folder, with accounting."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

SHEET = """\
sample\tpatient\tbatch\tcondition\tplatform\tpath\timage
P1_pre\tP1\trun1\tuntreated\tvisium\tresults/small/simulated/P1_pre\tnone
P2_pre\tP2\trun2\tuntreated\tvisium\tresults/small/simulated/P2_pre\tnone
"""
#: What a user sets once for a cluster, and shorter waits than a large cluster wants.
SITE = ["slurm_partition=cpu", "slurm_account=lab", "mem_mb=1000", "runtime=30"]
QUICK = ["--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "5"]


def free_ports(count):
    """Return the first of consecutive ports that nothing listens on."""
    for first in range(16817, 17817, count):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports")


@pytest.fixture(scope="module")
def cluster(repo, tmp_path_factory):
    """Start the cluster; return the environment in which its commands are found."""
    folder = tmp_path_factory.mktemp("slurm")
    scripts = repo / "tests" / "slurm"
    up = [scripts / "slurm_up.sh", "--dir", folder, "--accounting"]
    up += ["--install"] if os.geteuid() == 0 and shutil.which("apt-get") else []
    for _ in range(2):  # daemons that start at the same moment may miss one another once
        where = {**os.environ, "SLURM_TEST_PORT": str(free_ports(3))}
        started = subprocess.run(up, env=where, capture_output=True, text=True, check=False, timeout=600)
        if started.returncode == 0:
            break
        subprocess.run([scripts / "slurm_down.sh", "--dir", folder], check=False, timeout=120)
    if started.returncode:
        pytest.skip(f"no SLURM here: {started.stderr.strip().splitlines()[-1:]}")
    host = os.path.dirname(sys.executable)
    path = f"{folder / 'bin'}:{host}:{os.environ['PATH']}"
    yield {**os.environ, "PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([scripts / "slurm_down.sh", "--dir", folder], check=False, timeout=120)


def launch(checkout, cluster, *arguments, **options):
    """Start Snakemake with the cluster profile as its own process group."""
    command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--default-resources", *SITE, *QUICK]
    return subprocess.Popen(
        [*command, *map(str, arguments)], cwd=checkout.root, env=cluster, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options,
    )  # fmt: skip


def run(checkout, cluster, *arguments, limit=1500):
    """Run Snakemake to its end; return status and what it said."""
    process = launch(checkout, cluster, *arguments)
    try:
        text, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        pytest.fail(f"still running after {limit} s:\n{text[-4000:]}")
    return process.returncode, text


def accounted(cluster, columns):
    """Return what accounting holds of every job, a row each."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", f"--format={columns}"]
    found = subprocess.run(command, env=cluster, capture_output=True, text=True, check=True).stdout
    return [line.split("|") for line in found.splitlines()]


def test_a_study_runs_through_the_profile(checkout, cluster):
    """Two sections, from counts to pages: few submissions, none on a GPU, nothing left to do."""
    (checkout.root / "small.tsv").write_text(SHEET)
    config = checkout.configure("small.yaml", "study: small\nsamples: small.tsv\nsimulate: {spots: 200}\n")
    status, text = run(checkout, cluster, "--configfile", config)
    assert status == 0, text[-6000:]
    assert (checkout.root / "results/small/report/index.html").is_file()
    jobs = int(re.search(r"^total +(\d+)", text, flags=re.M)[1])
    submitted = accounted(cluster, "jobname,state,alloctres,comment,account")
    assert all(state == "COMPLETED" for _, state, *_ in submitted), submitted
    assert len(submitted) < 0.6 * jobs, f"{len(submitted)} submissions for {jobs} jobs"
    assert not any("gres/gpu" in resources for _, _, resources, *_ in submitted), "nothing here trains on a GPU"
    assert {account for *_, account in submitted} == {"lab"}
    assert "Nothing to be done" in run(checkout, cluster, "--configfile", config)[1]


@pytest.mark.slow
def test_the_demo_runs_through_the_profile(checkout, cluster):
    """Every rule of the demo, four sections, patients compared: nothing fails, nothing is left to do."""
    before = len(accounted(cluster, "jobid"))
    status, text = run(checkout, cluster, limit=3500)
    assert status == 0, text[-6000:]
    assert (checkout.root / "results/demo/report/index.html").is_file()
    jobs = int(re.search(r"^total +(\d+)", text, flags=re.M)[1])
    submitted = accounted(cluster, "jobname,state")[before:]
    assert all(state == "COMPLETED" for _, state in submitted), submitted
    print(f"{len(submitted)} submissions for {jobs} jobs")
    assert len(submitted) < 0.6 * jobs, f"{len(submitted)} submissions for {jobs} jobs"
    assert "Nothing to be done" in run(checkout, cluster)[1]


def test_a_job_killed_for_memory_comes_back_with_more(checkout, cluster, repo):
    snakefile = repo / "tests" / "slurm" / "hungry.smk"
    library = f"library={repo / 'workflow' / 'lib'}"
    before = len(accounted(cluster, "jobid"))
    status, text = run(checkout, cluster, "--snakefile", snakefile, "--config", library, "--", "fed.txt", limit=300)
    assert status == 0, text[-4000:]
    assert (checkout.root / "fed.txt").read_text().strip() == str(900 << 20)
    tried = accounted(cluster, "state,reqmem")[before:]
    assert tried[0][0].startswith(("OUT_OF_ME", "FAILED", "CANCELLED")), tried
    assert tried[-1][0] == "COMPLETED"
    assert [int(memory.rstrip("MGn")) for _, memory in tried[:2]] == [700, 1400]


def test_a_rule_that_asks_for_a_gpu_gets_one(checkout, cluster, repo):
    """Rules that train ask like this one; tests/rules holds them to it."""
    snakefile = repo / "tests" / "slurm" / "hungry.smk"
    library = f"library={repo / 'workflow' / 'lib'}"
    before = len(accounted(cluster, "jobid"))
    status, text = run(checkout, cluster, "--snakefile", snakefile, "--config", library, "--", "device.txt", limit=300)
    assert status == 0, text[-4000:]
    assert (checkout.root / "device.txt").read_text().strip() in ("0", "1")
    assert "gres/gpu=1" in accounted(cluster, "alloctres")[before:][0][0]


def test_a_cancelled_job_is_taken_up_again(checkout, cluster, repo):
    snakefile = repo / "tests" / "slurm" / "hungry.smk"
    library = f"library={repo / 'workflow' / 'lib'}"
    target = ["--snakefile", snakefile, "--config", library, "--retries", "0", "--", "slow.txt"]
    first = launch(checkout, cluster, *target)
    waiting = time.monotonic()
    running = []
    while not running and time.monotonic() - waiting < 120:
        time.sleep(0.5)
        listed = ["squeue", "--noheader", "--states=R", "--format=%A"]
        running = subprocess.run(listed, env=cluster, capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["scancel", *running], env=cluster, check=True)
    try:
        text, _ = first.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(first.pid, signal.SIGKILL)
        pytest.fail("Snakemake waits for a job that was cancelled")
    assert first.returncode != 0
    assert not (checkout.root / "slow.txt").exists(), text[-2000:]
    (checkout.root / "quick").touch()
    status, text = run(checkout, cluster, *target, limit=300)
    assert status == 0, text[-3000:]
    assert (checkout.root / "slow.txt").read_text() == "done\n"


def test_grouped_rules_exist_and_do_not_train(repo):
    groups = yaml.safe_load((repo / "profiles" / "slurm" / "config.yaml").read_text())["groups"]
    text = "\n".join(path.read_text() for path in (repo / "workflow" / "rules").glob("*.smk"))
    blocks = dict(re.findall(r"^ *rule (\w+):\n(.*?)(?=^ *rule |\Z)", text, flags=re.M | re.S))
    assert set(groups) <= set(blocks), f"no such rules: {set(groups) - set(blocks)}"
    assert not [name for name in groups if "gpu=" in blocks[name]]
    joint = [name for name in groups if not re.search(r"SAMPLE|\{sample\}", blocks[name])]
    assert not joint, f"these would join all sections into one submission: {joint}"
