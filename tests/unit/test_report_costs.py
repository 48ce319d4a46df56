"""Costs: planted curves come back from benchmark files; sizes come from headers; the plan is played through."""

import gzip
import itertools
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy import sparse

from histoweft.report import costs, preflight, shapes
from histoweft.report.costs import Cost, Curve, Measured, Size
from histoweft.report.preflight import Machine, Planned


@pytest.mark.parametrize(
    ("base", "k", "exponent"), [(2.0, 3.0, 1.0), (1.0, 0.5, 2.0), (0.0, 6.0, 0.5), (5.0, 0.0, 1.0)]
)
def test_a_planted_curve_comes_back(base, k, exponent):
    sizes = np.array([0.5, 2, 8, 32, 128, 512])
    noise = 1 + 0.02 * np.array([1, -1, 1, -1, 1, -1])
    found = costs.fit_curve(sizes, (base + k * sizes**exponent) * noise, 1.0)
    assert found.at(2000) == pytest.approx(base + k * 2000**exponent, rel=0.15)
    assert found.error < 0.05
    if k:
        assert found.exponent == exponent


def test_one_size_gives_a_start_and_the_rest_in_proportion():
    found = costs.fit_curve(np.array([2.0, 2.0]), np.array([9.0, 11.0]), 1.0)
    assert (found.base, found.exponent) == (1.0, 1.0)
    assert found.at(4) == pytest.approx(19)
    assert costs.fit_curve(np.zeros(2), np.array([3.0, 3.0]), 1.0).at(50) == 3.0


def test_effort_is_taken_out_and_put_back():
    jobs = [
        Measured("train", Size(values=x), effort, 2 + 0.1 * x * effort, 300 + 10 * x)
        for x, effort in itertools.product((1, 3, 9), (10, 40))
    ]
    (cost,) = costs.fit_costs(jobs)
    mb, seconds = cost.predict(Size(values=5), 100)
    assert seconds == pytest.approx(52, rel=0.02)
    assert mb == pytest.approx(350, rel=0.02)
    assert costs.effort_of({"options": {"epochs": 3, "crop": 64}, "network": {"members": 8, "steps": 160}}) == 3840
    assert costs.effort_of({"library": "abc", "seed": 7}) == 1


def test_the_unit_that_explains_a_rule_is_found():
    sizes = [Size(values=v, megapixels=m) for v, m in ((1, 9), (9, 1), (3, 3), (1, 1), (9, 9))]
    jobs = [Measured("draw", size, 1, 1 + 4 * size.megapixels, 100 + 50 * size.megapixels) for size in sizes]
    assert costs.fit_costs(jobs)[0].unit == "megapixels"


def test_what_some_sections_have_nothing_of_is_not_what_a_rule_grows_with():
    sizes = [Size(values=v, megapixels=m) for v, m in ((1, 1), (2, 4), (4, 16), (8, 0))]
    jobs = [Measured("draw", size, 1, 1 + size.megapixels**2, 100 + size.megapixels) for size in sizes]
    assert costs.fit_costs(jobs)[0].unit == "values"


def test_rules_that_work_on_pixels_grow_with_pixels_even_where_counts_explain_them_as_well():
    sizes = [Size(values=v, megapixels=10 * v) for v in (1, 2, 4, 8)]
    jobs = [Measured(rule, size, 1, 2 * size.values, 200) for size in sizes for rule in ("tile", "other")]
    assert {cost.rule: cost.unit for cost in costs.fit_costs(jobs)} == {"tile": "megapixels", "other": "values"}


def test_the_memory_of_jobs_that_ended_before_it_was_looked_at_is_left_out():
    short = [Measured("r", Size(values=v), 1, 0.5, 9.0) for v in (1, 2, 4)]
    long = [Measured("r", Size(values=v), 1, 5.0, 200 + 10 * v) for v in (1, 2, 4)]
    (cost,) = costs.fit_costs(short + long)
    assert cost.predict(Size(values=4))[0] == pytest.approx(240, rel=0.02)


def test_the_table_is_read_as_it_was_written(tmp_path):
    cost = Cost("r/context", "spots", Curve(100, 2, 1.0, 0.1), Curve(1, 0.5, 1.5, 0.2), 4.0, 7)
    costs.write_costs([cost], tmp_path / "costs.tsv", "a machine")
    assert costs.read_costs(tmp_path / "costs.tsv") == {"r/context": cost}
    assert costs.measured_on(tmp_path / "costs.tsv") == "a machine"
    assert not cost.extrapolates(Size(spots=16))
    assert cost.extrapolates(Size(spots=17))


def test_larger_measurements_replace_smaller_ones_alone():
    def one(rule, largest, base, unit="values"):
        return costs.Cost(rule, unit, costs.Curve(base, 1.0, 1.0), costs.Curve(1.0, 1.0, 1.0), largest, 3)

    old = {name: one(name, 10.0, 1.0) for name in ("smaller", "larger", "absent", "other_unit")}
    new = [
        one("smaller", 5.0, 2.0),
        one("larger", 20.0, 2.0),
        one("new", 1.0, 2.0),
        one("other_unit", 1.0, 2.0, "spots"),
    ]
    found = {cost.rule: cost.memory.base for cost in costs.merged(old, new)}
    assert found == {"absent": 1.0, "larger": 2.0, "new": 2.0, "other_unit": 2.0, "smaller": 1.0}
    assert list(found) == sorted(found)


def test_the_committed_table_can_be_read(repo):
    found = costs.read_costs(repo / "resources" / "costs.tsv")
    assert {"ingest_counts", "qc", "cross_validate/context", *costs.DISK} <= set(found)
    for cost in found.values():
        assert cost.unit in costs.UNITS
        mb, seconds = cost.predict(Size(1, 1, 1, 1, 1))
        assert 50 < mb < 20_000 or cost.rule in costs.DISK
        assert 0 <= seconds < 3600


def h5ad(path, rows, columns, stored):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["shape"] = [rows, columns]
        group["data"] = np.zeros(stored)


def test_benchmarks_are_joined_with_the_sizes_of_what_was_read(tmp_path):
    h5ad(tmp_path / "results/s/samples/a/counts.h5ad", 500, 10, 2000)
    h5ad(tmp_path / "results/s/samples/b/counts.h5ad", 1500, 10, 6000)
    h5ad(tmp_path / "results/s/annotation/reference.h5ad", 100, 10, 1000)
    (tmp_path / "results/s/atlas").mkdir()
    np.save(tmp_path / "results/s/atlas/expression.npy", np.zeros((20, 30)))
    lines = [
        {"rule_name": "qc", "wildcards": {"sample": "a"}, "input_size_mb": {}},
        {"rule_name": "joint", "input_size_mb": {f"results/s/samples/{n}/filtered.h5ad": 1 for n in "ab"}},
        {"rule_name": "embed", "wildcards": {"method": "none"}, "input_size_mb": {"results/s/integration/f.h5ad": 1}},
        {"rule_name": "fit", "input_size_mb": {"results/s/annotation/reference.h5ad": 1}},
        {"rule_name": "prepare_atlas", "input_size_mb": {"elsewhere.npz": 1}},
        {"rule_name": "not_seen", "max_rss": "NA"},
    ]
    (tmp_path / "benchmarks/s").mkdir(parents=True)
    for line in lines:
        facts = {"s": 100.0, "cpu_time": 40.0, "max_rss": 150.0} | line
        (tmp_path / "benchmarks/s" / f"{line['rule_name']}.jsonl").write_text(json.dumps(facts) + "\n")
    found = {job.rule: job for job in costs.read_benchmarks(tmp_path, "s")}
    assert found["qc"].size == Size(values=0.002, spots=0.5, sections=1)
    assert found["joint"].size == Size(values=0.008, spots=2.0, sections=2)
    assert found["embed/none"].size == found["joint"].size
    assert found["fit"].size == Size(values=0.001, spots=0.1)
    assert found["prepare_atlas"].size == Size(voxels=0.0006)
    assert found["qc"].seconds == 70.0
    assert "not_seen" not in found


def test_a_job_of_one_section_is_sized_by_it_whatever_it_takes_of_others():
    inputs = ["results/s/samples/a/counts.h5ad", "results/s/samples/b/panel.tsv", "results/s/annotation/reference.h5ad"]
    assert costs.names_read("paint", inputs, {"sample": "a"}, "s") == {"a", costs.REFERENCE}
    assert costs.names_read("domains", inputs, {}, "s") == {"a", "b", costs.REFERENCE}


def test_sizes_of_matrices_by_their_headers(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["matrix/shape"], file["matrix/data"] = [30, 7], np.zeros(50)
    h5ad(tmp_path / "m.h5ad", 7, 30, 50)
    with h5py.File(tmp_path / "dense.h5ad", "w") as file:
        file["X"] = np.zeros((7, 30))
    with h5py.File(tmp_path / "m.loom", "w") as file:
        file["matrix"] = np.zeros((30, 7))
    with gzip.open(tmp_path / "m.mtx.gz", "wt") as stream:
        stream.write("%%MatrixMarket matrix coordinate integer general\n%made\n30 7 50\n1 1 1\n")
    for name in ("m.h5", "m.h5ad", "m.mtx.gz"):
        assert shapes.matrix_size(tmp_path / name) == Size(values=50e-6, spots=7e-3), name
    assert shapes.matrix_size(tmp_path / "dense.h5ad") == Size(values=210e-6, spots=7e-3)
    assert shapes.matrix_size(tmp_path / "m.loom").spots == 7e-3
    table = np.random.default_rng(0).poisson(0.2, (400, 50))
    np.savetxt(tmp_path / "t.tsv", table, fmt="%d", delimiter="\t", header="\t".join("g" * 50), comments="")
    about = shapes.matrix_size(tmp_path / "t.tsv")
    assert about.spots == pytest.approx(0.4, rel=0.1)
    assert about.values == pytest.approx(sparse.csr_matrix(table).nnz / 1e6, rel=0.3)


def test_the_disk_of_a_section_is_told_by_its_counts_and_its_pixels(tmp_path):
    folder = tmp_path / "results/s/samples/a"
    h5ad(folder / "counts.h5ad", 500, 10, 2000)
    for name, size in (("image.tif", 0), ("markers.parquet", 3_000), ("histology/maps.zarr/0", 50_000)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(size))
    tables, pictures = (mb for _, mb in costs._disk(folder))
    assert pictures == 0.05
    assert tables == pytest.approx(((folder / "counts.h5ad").stat().st_size + 3_000) / 1e6)
    jobs = [Measured(costs.RESULTS, Size(values=v), 1, 0, 10 * v) for v in (1, 2, 4)]
    jobs += [Measured(costs.PICTURES, Size(megapixels=v), 1, 0, 5 * v) for v in (1, 2, 4)]
    both = {one.rule: one for one in costs.fit_costs(jobs)}
    sizes = {"a": Size(values=8, megapixels=10), "b": Size(values=8)}
    assert preflight.disk_needed(sizes, both) == pytest.approx(80 + 50 + 80, rel=0.01)
    assert preflight.disk_needed(sizes, {}) is None


def test_only_the_header_of_a_matrix_is_read(tmp_path):
    """Four thousand million values that were never written: reading them would need 16 GB."""
    with h5py.File(tmp_path / "m.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs["shape"] = [500_000, 18_000]
        group.create_dataset("data", shape=(4 * 10**9,), chunks=(1 << 20,), dtype="f4")
    assert shapes.matrix_size(tmp_path / "m.h5ad") == Size(values=4000.0, spots=500.0)


def test_sizes_of_images_at_working_resolution(tmp_path):
    import tifffile

    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 40, 3), np.uint8))
    assert shapes.image_pixels(tmp_path / "a.png") == shapes.image_pixels(tmp_path / "a.tif") == 800
    size = shapes.section_size({}, tmp_path / "a.png", 0.5, 1.0)
    assert size == Size(megapixels=800e-6 / 4, sections=1)
    assert shapes.section_size({}, tmp_path / "a.png", 2.0, 1.0).megapixels == 800e-6
    assert shapes.section_size({}, tmp_path / "a.png", None, 1.0).megapixels == 800e-6
    (tmp_path / "s.json").write_text('{"spot_diameter_fullres": 110, "tissue_hires_scalef": 0.25}')
    assert shapes.image_mpp(tmp_path / "s.json", "hires", None) == pytest.approx(2.0)
    assert shapes.image_mpp(tmp_path / "s.json", "fullres", 0.4) == pytest.approx(0.4)
    assert shapes.image_mpp(None, "given", None) is None


def chain_of_three():
    """Return a long job that nobody waits for, and three short ones in a row."""
    short = [Planned(f"s{at}", "short", "", Size(), seconds=10, mb=400) for at in range(3)]
    short[1].needs, short[2].needs = {"s0", "outside"}, {"s1"}
    return [Planned("long", "long", "", Size(), seconds=25, mb=700), *short]


def test_the_plan_is_played_through():
    jobs = chain_of_three()
    assert [job.key for job in preflight.longest_chain(jobs)] == ["s0", "s1", "s2"]
    assert preflight.makespan(jobs, 1) == (55, 700)
    assert preflight.makespan(jobs, 2) == (30, 1100)
    assert preflight.makespan(jobs, 2, 1000) == (55, 700)
    assert preflight.makespan([], 2) == (0, 0)


def test_no_schedule_is_shorter_than_its_chain_or_its_share_of_the_work():
    draw = np.random.default_rng(3)
    jobs = [Planned(at, "r", "", Size(), seconds=float(draw.integers(1, 9)), mb=1) for at in range(40)]
    for at, job in enumerate(jobs):
        job.needs = set(draw.integers(0, at, 2).tolist()) if at > 3 else set()
    least = sum(job.seconds for job in preflight.longest_chain(jobs))
    work = sum(job.seconds for job in jobs)
    for cores in (1, 3, 40):
        time, _ = preflight.makespan(jobs, cores)
        assert max(least, work / cores) <= time <= work / cores + least


ROOM = Machine(cores=2, memory_mb=10_000, disk_mb=10_000, gpus=0)


@pytest.mark.parametrize(
    ("changes", "machine", "disk", "expected"),
    [
        ({"mb": 9_500}, ROOM, 1, "1 job needs more memory than the 10.0 GB here, most long"),
        ({}, Machine(2, 1100, 1e6, 0), 1, "Add --resources mem_mb=990"),
        ({}, ROOM, 20_000, "The results will take about 20.0 GB; 10.0 GB are free"),
        ({"gpu": True}, ROOM, 1, "No GPU was found: 1 jobs"),
        ({"seconds": 50_000}, ROOM, 1, "--profile profiles/slurm spreads it"),
        ({"beyond": True}, ROOM, 1, "a rough guess (marked ~): long"),
        ({"mb": None, "seconds": None}, ROOM, 1, "Never measured, so not counted: long"),
    ],
)
def test_advice(changes, machine, disk, expected):
    jobs = chain_of_three()
    assert preflight.advice(jobs, ROOM, 1) == []
    for name, value in changes.items():
        setattr(jobs[0], name, value)
    (said,) = preflight.advice(jobs, machine, disk)
    assert expected in said


def test_words():
    assert [preflight.duration(s) for s in (5, 600, 9000)] == ["5 s", "10 min", "2.5 h"]
    assert [preflight.gigabytes(mb) for mb in (900, 2500)] == ["900 MB", "2.5 GB"]
    assert preflight.report([], {}, ROOM, {}, "m").startswith("Nothing to be done")


def test_the_demo_is_estimated_without_running_anything(repo, tmp_path):
    for name in ("config", "resources"):
        (tmp_path / name).symlink_to(repo / name)
    command = [sys.executable, repo / "tools" / "preflight.py", "--directory", tmp_path, "--cores", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.split()[:3] == ["P1_pre", "600", "0.5"] for line in lines)
    assert any(line.split()[:2] == ["ingest_counts", "4"] for line in lines)
    assert "jobs wait for one another" in done.stdout
    assert not (tmp_path / "results").exists()


def test_a_study_with_faults_gets_its_messages(repo, tmp_path):
    (tmp_path / "c.yaml").write_text("study: s\nsamples: nowhere.tsv\n")
    command = [sys.executable, repo / "tools" / "preflight.py", "--configfile", tmp_path / "c.yaml"]
    done = subprocess.run([*command, "--directory", tmp_path], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "nowhere.tsv, which does not exist" in done.stderr
    assert "Traceback" not in done.stderr
