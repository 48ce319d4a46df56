"""Start Snakemake on what the user typed, so that a run that was killed does not stand in the way of the next.

Snakemake's own lock on its outputs outlives a killed process and must be taken away by hand. The kernel's lock on an
open file does not: whoever holds it is alive. So every run holds one, shared; a run that finds itself alone clears the
locks that dead runs left. Runs that are alive, of this study or another, are left to Snakemake's own locks.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "workflow" / "lib"))

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
READ_ONLY = {"-n", "--dry-run", "--dryrun", "--lint", "--list", "-l", "--help", "-h"}


def hold(folder: Path) -> bool:
    """Hold the folder's lock, shared, over exec; clear what dead runs locked, and return whether no other run lives."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "histoweft.lock", os.O_RDWR | os.O_CREAT, 0o644)
    alone = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder / "locks", ignore_errors=True)
    except BlockingIOError:
        alone = False
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.set_inheritable(descriptor, True)
    return alone


def now(folder: Path) -> float:
    """Return the time as files in the folder are dated, which on a network disk is not this machine's."""
    mark = folder / ".snakemake" / "histoweft.lock"
    mark.touch()
    return mark.stat().st_mtime


def snakemake_options() -> list[str]:
    """Return every option of Snakemake; its import takes seconds."""
    from snakemake.cli import get_argument_parser

    return [name for action in get_argument_parser()._actions for name in action.option_strings]


def wait_for(command: list[str], environment: dict[str, str]) -> tuple[int, bool]:
    """Run a command, passing on what asks it to end; return its code, and whether it was broken off."""
    stopped: list[int] = []
    child = None

    def pass_on(number: int, _frame: object) -> None:
        stopped.append(number)
        # The terminal sends an interrupt to the whole group itself.
        if child and (number != signal.SIGINT or not sys.stdin.isatty()):
            child.send_signal(number)

    # What is ignored stays so (nohup).
    heard = [number for number in STOPS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in heard}
    child = subprocess.Popen(command, env=environment)
    for number in stopped:
        child.send_signal(number)
    code = child.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    return (128 - code if code < 0 else code), bool(stopped) or code < 0


def make_pages(arguments: list[str], folder: Path) -> None:
    """Make the pages from what there is, with named gaps; the next run makes all of it anew.

    What failed and what needs it is written in an empty form, and removed at the end. What was made beside these is
    dated back, without Snakemake's records, so that it counts as older than whatever the next run makes.
    """
    from histoweft import gaps

    print("Making the pages from what there is ...", file=sys.stderr)
    began = now(folder)
    # Pages of an earlier run would else count as up to date.
    forced = ["--forcerun", "report_sample", "report_study", "explorer_sample"]
    command = ["snakemake", *forced, "--drop-metadata", *arguments, "--", "pages"]
    code, _ = wait_for(command, os.environ | {gaps.PARTIAL: "1"})
    results = folder / "results"
    studies = {mark.relative_to(results).parts[0] for mark in results.rglob(f"*{gaps.SUFFIX}")
               if mark.stat().st_mtime >= began}  # fmt: skip
    for study in studies:
        for path in [path for path in (results / study).rglob("*") if path.is_file()]:
            if path.stat().st_mtime >= began:
                os.utime(path, (1, 1))
        gaps.clear_failed(results / study)
        if code == 0:
            print(f"The pages name what failed: {results / study / 'report' / 'index.html'}", file=sys.stderr)


def failed_since(began: float, folder: Path) -> bool:
    """Return whether a job failed and left word of it."""
    from histoweft.failures import SUFFIX

    return any(path.stat().st_mtime >= began for path in (folder / "logs").rglob(f"*{SUFFIX}"))


def directory(words: list[str]) -> Path:
    """Return the folder that Snakemake is told to work in."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-d", "--directory"):
            return Path(following)
        if word.startswith("--directory="):
            return Path(word.partition("=")[2])
    return Path()


def main(arguments: list[str]) -> None:
    """Run Snakemake, unless what was typed cannot be meant; after a failure, make the pages from the rest."""
    from histoweft import commandline, gaps
    from histoweft.errors import InputError

    line = commandline.read(arguments, commandline.rule_names(REPO), snakemake_options)
    if line.faults:
        sys.exit(f"histoweft: {InputError(line.faults.items)}")
    arguments = line.arguments()
    if READ_ONLY & set(arguments):
        os.execvp("snakemake", ["snakemake", *arguments])
    folder = directory(line.words)
    if hold(folder / ".snakemake"):
        # Stand-ins of a pass for pages that was killed would be taken for results.
        gaps.clear_failed(folder / "results")
    began = now(folder)
    code, stopped = wait_for(["snakemake", *arguments], dict(os.environ))
    # Who asked for certain files alone did not ask for pages.
    if code and not stopped and not line.targets and failed_since(began, folder):
        make_pages(arguments, folder)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
