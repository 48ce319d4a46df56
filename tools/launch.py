"""Start Snakemake on what the user typed, so that a run that was killed does not stand in the way of the next.

Snakemake's own lock on its outputs outlives a killed process and must be taken away by hand. The kernel's lock on an
open file does not: whoever holds it is alive. So every run holds one, shared; a run that finds itself alone clears the
locks that dead runs left. Runs that are alive, of this study or another, are left to Snakemake's own locks.
"""

import fcntl
import os
import shutil
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "workflow" / "lib"))

READ_ONLY = {"-n", "--dry-run", "--dryrun", "--lint", "--list", "-l", "--help", "-h"}


def hold(folder: Path) -> None:
    """Hold the folder's lock, shared, over exec; clear what dead runs left when no other run is alive."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "histoweft.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder / "locks", ignore_errors=True)
    except BlockingIOError:
        pass
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.set_inheritable(descriptor, True)


def snakemake_options() -> list[str]:
    """Return every option of Snakemake; its import takes seconds."""
    from snakemake.cli import get_argument_parser

    return [name for action in get_argument_parser()._actions for name in action.option_strings]


def main(arguments: list[str]) -> None:
    """Become Snakemake, unless what was typed cannot be meant."""
    from histoweft import commandline
    from histoweft.errors import InputError

    line = commandline.read(arguments, commandline.rule_names(REPO), snakemake_options)
    if line.faults:
        sys.exit(f"histoweft: {InputError(line.faults.items)}")
    arguments = line.arguments()
    elsewhere = any(a in ("-d", "--directory") or a.startswith("--directory=") for a in arguments)
    if not elsewhere and not READ_ONLY & set(arguments):
        hold(Path(".snakemake"))
    os.execvp("snakemake", ["snakemake", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
