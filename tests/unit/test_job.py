"""A script's outputs appear whole or not at all, and its log says why."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from histoweft import job as jobs
from histoweft.errors import HistoweftError

PREAMBLE = """
import sys
from types import SimpleNamespace
sys.path.insert(0, {library!r})

class Named(dict):
    __getattr__ = dict.__getitem__

snakemake = SimpleNamespace(
    rule="test", input=Named(), output=Named(table="table.tsv", parts=["a", "b"]), params=Named(), wildcards=Named(),
    threads=1, resources=SimpleNamespace(gpu=0), log=["logs/test.log"],
)
from histoweft.job import run

def fill(job):
    job.output.table.write_text("x\\n")
    for path in job.output.parts:
        path.write_text("y\\n")
"""


ANY = dict(input=None, params=None, wildcards=None, threads=1, resources=None, log=[])


@pytest.fixture
def script(tmp_path, repo):
    """Return a function that runs the body of a main(job) as a script; gives exit status, log and files left."""

    def run(body, path=()):
        text = f"import sys\nsys.path.extend({list(path)!r})\n" + PREAMBLE.format(
            library=str(repo / "workflow" / "lib")
        )
        text += (
            "\ndef main(job):\n" + "\n".join(f"    {line}" for line in body.splitlines()) + "\n\nrun(snakemake, main)\n"
        )
        (tmp_path / "script.py").write_text(text)
        done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout == ""
        log = (tmp_path / "logs" / "test.log").read_text()
        left = {p.name for p in tmp_path.iterdir()} - {"script.py", "logs", ".snakemake"}
        return done.returncode, log, left

    return run


def test_outputs_are_named_only_at_the_end(script, tmp_path):
    body = "import os\nfill(job)\nassert not os.path.exists('table.tsv')\nassert job.output.table.exists()"
    status, _, left = script(body)
    assert status == 0
    assert left == {"table.tsv", "a", "b"}
    assert (tmp_path / "table.tsv").read_text() == "x\n"


def test_an_error_for_people_is_one_message_and_no_output(script):
    body = "from histoweft.errors import HistoweftError\nfill(job)\nraise HistoweftError('line 3: found nothing')"
    status, log, left = script(body)
    assert status == 1
    assert "line 3: found nothing" in log
    assert "Traceback" not in log
    assert left == set()


def test_another_error_leaves_its_traceback_and_no_output(script):
    status, log, left = script("fill(job)\n1 / 0")
    assert status == 1
    assert "Traceback" in log
    assert "ZeroDivisionError" in log
    assert left == set()


@pytest.mark.parametrize(
    "raised", ["OSError(28, 'No space left on device')", "RuntimeError('write failed, errno = 122, x')"]
)
def test_a_full_disk_is_said_in_words(script, raised):
    status, log, left = script(f"fill(job)\ntry:\n    raise {raised}\nfinally:\n    [].pop()")
    assert status == 1
    assert "is used up" in log
    assert "Traceback" not in log
    assert left == set()


def test_what_a_killed_job_left_is_cleared(script, tmp_path):
    (tmp_path / ".partial.1234.table.tsv").write_text("half")
    (tmp_path / ".partial.1234.other.tsv").write_text("another rule's")
    _, _, left = script("fill(job)")
    assert left == {"table.tsv", "a", "b", ".partial.1234.other.tsv"}


def test_a_vector_figure_comes_and_goes_with_its_png(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".partial.1234.plot.pdf").write_text("half")

    def commit(*suffixes):
        job = jobs.Job(SimpleNamespace(rule="r", output={"figure": "plot.png"}, **ANY))
        for suffix in suffixes:
            job.output.figure.with_suffix(suffix).write_text(suffix)
        job.commit()
        return sorted(path.name for path in tmp_path.iterdir())

    assert commit(".png", ".pdf") == ["plot.pdf", "plot.png"]
    assert commit(".png") == ["plot.png"]


def test_a_forgotten_output_is_named(script):
    status, log, left = script("job.output.table.write_text('x')")
    assert status == 1
    assert "rule test did not write: a, b" in log
    assert left == set()


def test_prints_and_warnings_go_to_the_log(script):
    body = (
        "import os, warnings\nfill(job)\nprint('from python')\nos.system('echo from C')\nwarnings.warn('mind the gap')"
    )
    _, log, _ = script(body)
    for line in ("from python", "from C", "mind the gap"):
        assert line in log


def test_threads_are_limited_before_numpy_loads(script):
    _, log, _ = script("import os\nfill(job)\nprint('threads', os.environ['OMP_NUM_THREADS'])")
    assert "threads 1" in log


def test_packages_of_another_interpreter_are_not_borrowed(script, tmp_path):
    """Snakemake appends its own site-packages; what an environment lacks must fail, not come from there."""
    borrowed = tmp_path.parent / "host" / "site-packages"
    borrowed.mkdir(parents=True)
    (borrowed / "only_on_the_host.py").write_text("")
    kept = tmp_path.parent / "modules"
    kept.mkdir()
    (kept / "workflow_module.py").write_text("")
    body = "import workflow_module\nfill(job)\nimport only_on_the_host"
    status, log, _ = script(body, path=[str(borrowed), str(kept)])
    assert status == 1
    assert "No module named 'only_on_the_host'" in log
    assert f"environment: {sys.prefix}" in log


def test_require_gpu_refuses_a_machine_without_one():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    common = dict(rule="r", input=None, output={}, wildcards=None, threads=1, log=[])
    strict, lenient = SimpleNamespace(require_gpu=True), SimpleNamespace(require_gpu=False)
    with pytest.raises(HistoweftError, match="require_gpu is true, but no GPU was found"):
        _ = jobs.Job(SimpleNamespace(params=strict, resources=SimpleNamespace(gpu=1), **common)).device
    with pytest.raises(HistoweftError, match="the job got gpu=0"):
        _ = jobs.Job(SimpleNamespace(params=strict, resources=SimpleNamespace(gpu=0), **common)).device
    assert jobs.Job(SimpleNamespace(params=lenient, resources=SimpleNamespace(gpu=0), **common)).device == "cpu"
