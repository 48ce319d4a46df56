"""Start Snakemake as the only run in this folder; a run that was killed does not stand in the way.

Snakemake's own lock outlives a killed process and must be taken away by hand. The kernel's lock on an open file does
not: whoever holds it is alive. So this takes the kernel's lock first, then clears what a dead run left, and becomes
Snakemake, which keeps the lock until it ends.
"""

import fcntl
import os
import shutil
import sys
from pathlib import Path


def hold(folder: Path) -> None:
    """Take the folder's lock and keep it over exec; end with a message when another run has it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "histoweft.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"histoweft: another run is going on in {folder.parent.resolve()}; wait for it or stop it first.")
    os.set_inheritable(descriptor, True)


def main(arguments: list[str]) -> None:
    """Become Snakemake."""
    elsewhere = any(a in ("-d", "--directory") or a.startswith("--directory=") for a in arguments)
    reads_only = any(a in ("-n", "--dry-run", "--dryrun", "--lint", "--list", "-l", "--help", "-h") for a in arguments)
    if not elsewhere and not reads_only:
        hold(Path(".snakemake"))
        shutil.rmtree(Path(".snakemake/locks"), ignore_errors=True)
    os.execvp("snakemake", ["snakemake", *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
