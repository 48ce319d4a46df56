"""What is done to a run, and how it ends: docs/reliability.md lists these tests."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pandas as pd
import pytest

SHEET = "sample\tpatient\tbatch\tcondition\tplatform\tpath\n"
SAMPLES = {"P1_pre": "run1", "P2_pre": "run2"}


def small(checkout, name="small", image=True, extra=""):
    """Write a study of two small simulated sections; return its config."""
    path = checkout.root / f"{name}.tsv"
    folder, given = f"results/{name}/simulated", "" if image else "none"
    rows = [f"{s}\t{s[:2]}\t{batch}\tuntreated\tvisium\t{folder}/{s}\t{given}\n" for s, batch in SAMPLES.items()]
    path.write_text(SHEET.replace("path\n", "path\timage\n") + "".join(rows))
    text = f"study: {name}\nsamples: {name}.tsv\nsimulate: {{spots: 200}}\n{extra}"
    return checkout.configure(f"{name}.yaml", text)


def chain(name="small"):
    """Return targets that take half a minute and go through a dozen rules."""
    tables = ("markers.parquet", "svg.parquet")
    return [f"results/{name}/samples/{sample}/{table}" for sample in SAMPLES for table in tables]


def contents(folder):
    """Return every table and matrix below a folder, to compare two runs by what is in them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        key = str(path.relative_to(folder))
        if path.suffix == ".parquet":
            found[key] = pd.read_parquet(path)
        elif path.suffix == ".tsv":
            found[key] = pd.read_csv(path, sep="\t")
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                parts = {name: stored[name] for name in sorted(stored.files)}
            found[key] = pd.Series({
                name: untimed(json.loads(str(part))) if name == "facts" else part.tobytes()
                for name, part in parts.items()
            })  # fmt: skip
        elif path.suffix == ".h5ad":
            with h5py.File(path) as stored:
                parts = [stored["X"][part] for part in ("data", "indices")] if "data" in stored["X"] else [stored["X"]]
                found[key] = pd.Series([part[...].tobytes() for part in parts])
    return found


def untimed(facts):
    """Leave out of nested facts what something took, which is not what it found."""
    if isinstance(facts, dict):
        return {name: untimed(value) for name, value in facts.items() if not is_cost(name)}
    return [untimed(value) for value in facts] if isinstance(facts, list) else facts


def is_cost(name):
    return "seconds" in str(name) or name == "peak_mb"


def same(first, second):
    """Assert that two runs hold the same tables, but for what they took."""
    assert set(first) == set(second)
    for key, table in first.items():
        if isinstance(table, pd.DataFrame):
            pd.testing.assert_frame_equal(*map(without_costs, (table, second[key])), obj=key)
        else:
            pd.testing.assert_series_equal(table, second[key], obj=key)


def without_costs(table):
    """Drop columns and rows that hold seconds and memory."""
    if "metric" in table:
        table = table[~table["metric"].map(is_cost)].reset_index(drop=True)
    return table.drop(columns=[name for name in table.columns if is_cost(name)])


def start(checkout, *arguments, **options):
    """Start a run as ./histoweft does, in a process group of its own."""
    path = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    command = [sys.executable, "tools/launch.py", "--cores", "2", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=checkout.root, env=path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, **options,
    )  # fmt: skip


def finish(checkout, *arguments):
    """Run to the end; return status and what was said."""
    process = start(checkout, *arguments)
    text, _ = process.communicate(timeout=2400)
    return process.returncode, text


@pytest.fixture
def finished(checkout):
    """Return a checkout with a small study run as far as its markers."""
    config = small(checkout, image=False)
    status, text = finish(checkout, "--configfile", config, "--", *chain())
    assert status == 0, text[-3000:]
    return checkout, config


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(repo, checkout, tmp_path_factory):
    """SIGKILL to the whole process group, ten times; then the run ends as an undisturbed one does."""
    undisturbed = type(checkout)(repo, tmp_path_factory.mktemp("undisturbed"))
    status, text = finish(undisturbed, "--configfile", small(undisturbed))
    assert status == 0, text[-3000:]
    config = small(checkout)
    draw = random.Random(0)
    for _ in range(10):
        process = start(checkout, "--configfile", config)
        try:
            process.communicate(timeout=draw.uniform(8, 60))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    status, text = finish(checkout, "--configfile", config)
    assert status == 0, text[-3000:]
    assert "Nothing to be done" in finish(checkout, "--configfile", config)[1]
    assert not list((checkout.root / "results").rglob(".partial.*"))
    same(*(contents(made.root / "results" / "small") for made in (undisturbed, checkout)))


def test_a_disk_that_fills_up_leaves_no_half_file(checkout):
    """A limit on the size of files stands in for a full disk: writing past it fails as `No space left` does."""
    config = small(checkout, image=False)
    limit = 300_000

    def full():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    target = "results/small/samples/P1_pre/counts.h5ad"
    status, text = finish(checkout, "--configfile", config, "--", "results/small/simulated/P1_pre/labels.tsv")
    assert status == 0, text[-3000:]
    process = start(checkout, "--configfile", config, "--", target, preexec_fn=full)
    text, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    assert "is used up" in text
    assert "nothing half-written stays" in text
    assert not list((checkout.root / "results").rglob(".partial.*"))
    assert not (checkout.root / target).exists()
    status, text = finish(checkout, "--configfile", config, "--", target)
    assert status == 0, text[-3000:]


def test_a_truncated_intermediate_is_named_with_what_to_do(finished):
    checkout, config = finished
    damaged = checkout.root / "results/small/samples/P1_pre/filtered.h5ad"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    status, text = finish(checkout, "--configfile", config, "--", *chain())
    assert status != 0
    assert "filtered.h5ad" in text
    assert "truncated" in text or "damaged" in text or "whole" in text
    damaged.unlink()
    status, text = finish(checkout, "--configfile", config, "--", *chain())
    assert status == 0, text[-3000:]
    assert "Nothing to be done" in finish(checkout, "--configfile", config, "--", *chain())[1]


def test_two_runs_at_once_do_not_mix(checkout):
    """The second is told of the first; the first ends as if it had been alone."""
    config = small(checkout, image=False)
    first = start(checkout, "--configfile", config, "--", *chain())
    begun = time.monotonic()
    while not (checkout.root / "results/small/simulated").exists() and time.monotonic() - begun < 120:
        time.sleep(0.2)
    status, text = finish(checkout, "--configfile", config, "--", *chain())
    assert status != 0
    assert "lock" in text.lower()
    told, _ = first.communicate(timeout=1200)
    assert first.returncode == 0, told[-3000:]
    assert "Nothing to be done" in finish(checkout, "--configfile", config, "--", *chain())[1]


@contextlib.contextmanager
def read_only(folder):
    """Make a folder that nobody may write to; root needs a mount for that."""
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("root may write anywhere and may not mount here")
    yield
    subprocess.run(["umount", folder], check=True)


def test_a_read_only_results_folder_is_named(checkout):
    config = small(checkout, image=False)
    with read_only(checkout.root / "results"):
        status, text = finish(checkout, "--configfile", config, "--", *chain())
    assert status != 0
    assert "results" in text
    assert "Permission denied" in text or "Read-only" in text
    assert finish(checkout, "--configfile", config, "-n", "--", *chain())[0] == 0


def test_a_damaged_zarr_store_is_named_and_made_again(checkout, demo):
    """Chunks cut short: the figure of painted genes says which store; once removed, it is painted again."""
    shutil.copytree(demo.root / "results", checkout.root / "results")
    shutil.copytree(demo.root / ".snakemake" / "metadata", checkout.root / ".snakemake" / "metadata")
    sample = "results/demo/samples/P1_pre"
    store = checkout.root / sample / "histology/expression.zarr"
    chunks = [
        path for path in store.rglob("*") if path.is_file() and not path.name.endswith((".json", ".zattrs", ".zarray"))
    ]
    for path in chunks:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    figure = f"{sample}/figures/painted.png"
    (checkout.root / figure).unlink()
    status, text = finish(checkout, "--rerun-triggers", "mtime", "--", figure)
    assert status != 0
    assert "expression.zarr" in text
    shutil.rmtree(store)
    status, text = finish(checkout, "--rerun-triggers", "mtime", "--", figure)
    assert status == 0, text[-3000:]
    assert (checkout.root / figure).is_file()


def test_one_bad_sample_of_three_and_a_page_without_it(checkout, demo):
    """The others finish; the end tells of the bad one and of the way on; the page names it."""
    rows = []
    for name, section in (("one", "P1_pre"), ("two", "P2_pre"), ("bad", "P1_post")):
        shutil.copytree(demo.root / "results/demo/simulated" / section, checkout.root / "data" / name)
        rows.append(f"{name}\t{name}\t{name}\tuntreated\tvisium\tdata/{name}\tnone\n")
    matrix = checkout.root / "data" / "bad" / "filtered_feature_bc_matrix.h5"
    matrix.write_bytes(matrix.read_bytes()[:20_000])
    (checkout.root / "three.tsv").write_text(SHEET.replace("path\n", "path\timage\n") + "".join(rows))
    config = checkout.configure("three.yaml", "study: three\nsamples: three.tsv\n")
    status, text = finish(checkout, "--configfile", config)
    assert status != 0
    assert "bad, rule ingest_counts" in text
    assert "2 of 3 samples are not concerned" in text
    assert "exclude=[bad]" in text
    for name in ("one", "two"):
        assert (checkout.root / f"results/three/samples/{name}/markers.parquet").is_file()
    status, text = finish(checkout, "--configfile", config, "--config", "exclude=[bad]")
    assert status == 0, text[-3000:]
    page = (checkout.root / "results/three/report/index.html").read_text()
    assert "<b>bad</b>" in page
    assert "filtered_feature_bc_matrix.h5" in page
