"""What the launcher decides: when pages are made after a failure, what it clears, and which signals it passes on."""

import importlib.util
import os
import signal
import subprocess
import sys
import time

import pytest

from histoweft import failures, gaps


@pytest.fixture
def launch(repo, tmp_path, monkeypatch):
    """Return the launcher in an empty folder; `ran` has the commands that it would have run."""
    spec = importlib.util.spec_from_file_location("launch", repo / "tools" / "launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "Snakefile").write_text("rule all:\n    input: []\nrule pages:\n    input: []\n")
    monkeypatch.setattr(module, "REPO", tmp_path)
    monkeypatch.chdir(tmp_path)
    module.ran = []
    return module


def pretend(launch, monkeypatch, code=1, stopped=False, job_fails=True, folder="."):
    """Let Snakemake end with a code, a job having failed or not."""

    def wait_for(command, environment):
        launch.ran.append(command)
        if job_fails:
            failures.remember(f"{folder}/logs/t/x.log", failures.Failure("x", "S7", "broken"))
        return code, stopped

    monkeypatch.setattr(launch, "wait_for", wait_for)


def ended(launch, *arguments):
    with pytest.raises(SystemExit) as end:
        launch.main(["--cores", "1", *arguments])
    return end.value.code


def test_pages_are_made_after_a_failed_job_and_the_code_stays(launch, monkeypatch):
    pretend(launch, monkeypatch, code=3)
    assert ended(launch) == 3
    assert [command[-1] for command in launch.ran] == ["1", "pages"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [((), {"code": 0}), ((), {"stopped": True}), ((), {"job_fails": False}), (("all",), {})],
    ids=["success", "broken off", "no job failed", "targets typed"],
)
def test_pages_are_not_made(launch, monkeypatch, arguments, what):
    pretend(launch, monkeypatch, **what)
    assert ended(launch, *arguments) == what.get("code", 1)
    assert len(launch.ran) == 1


@pytest.mark.parametrize("option", ["-n", "--lint", "--help"])
def test_what_only_reads_is_snakemake_itself(launch, monkeypatch, option):
    class ReplacedError(Exception):
        pass

    def replace(_program, command):
        raise ReplacedError(command)

    monkeypatch.setattr(os, "execvp", replace)
    with pytest.raises(ReplacedError):
        launch.main([option])
    assert not os.path.exists(".snakemake")


@pytest.mark.parametrize("options", [("-d", "there"), ("--directory=there",)])
def test_another_directory_is_looked_at(launch, monkeypatch, options):
    pretend(launch, monkeypatch, folder="there")
    ended(launch, *options)
    assert len(launch.ran) == 2


def test_stand_ins_of_a_killed_pass_are_taken_away_before_the_next_run(launch, monkeypatch, tmp_path):
    kept, gone = tmp_path / "results" / "t" / "kept.tsv", tmp_path / "results" / "t" / "gone.tsv"
    for path, failed in ((kept, False), (gone, True)):
        gap = gaps.Gap("45 cells", failed)
        gaps.write_empty(path, path.name, gap)
        gaps.remember(path, gap)
    pretend(launch, monkeypatch, code=0)
    ended(launch)
    assert kept.exists()
    assert not gone.exists()
    assert gaps.of(gone) is None


CALL = """
import sys
sys.path.insert(0, {tools!r})
import launch
print(launch.wait_for(["sh", "-c", {script!r}], None), flush=True)
"""


@pytest.mark.parametrize(
    ("script", "number", "said"),
    [
        ("exit 7", None, "(7, False)"),
        ("kill -9 $$", None, "(137, True)"),
        ("trap 'exit 5' TERM; touch ready; while :; do sleep 0.02; done", signal.SIGTERM, "(5, True)"),
        ("trap 'exit 6' INT; touch ready; while :; do sleep 0.02; done", signal.SIGINT, "(6, True)"),
    ],
)
def test_codes_and_signals_pass_through(repo, tmp_path, script, number, said):
    # whoever runs the tests in the background ignores the interrupt, and a shell cannot trap what came ignored
    process = started(repo, tmp_path, script, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    if number:
        process.send_signal(number)
    assert process.communicate(timeout=60)[0].strip() == said


def test_a_hangup_that_is_ignored_stays_so(repo, tmp_path):
    """As under nohup."""
    script = "touch ready; while [ ! -e end ]; do sleep 0.02; done; exit 4"
    process = started(repo, tmp_path, script, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    (tmp_path / "end").touch()
    assert process.communicate(timeout=60)[0].strip() == "(4, False)"


def started(repo, tmp_path, script, **options):
    """Start the launcher's wait on a script; return once that says it is ready, if it does."""
    code = CALL.format(tools=str(repo / "tools"), script=script)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    end = time.monotonic() + 60
    while "ready" in script and not (tmp_path / "ready").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    return process
