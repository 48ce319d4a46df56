"""What a script needs from Snakemake: a log, staged outputs, threads and a device."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import site
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from histoweft import failures, gaps
from histoweft.errors import HistoweftError, NotComputed

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

#: No space, no quota, file too large.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

KILLED = "the job ended without a word: it was killed, perhaps for want of memory or time"


class Job:
    """One run of one rule, as its script sees it.

    Attributes
    ----------
    input, params, wildcards
        What Snakemake passed.
    output
        Namespace with the rule's output names. The paths are temporary ones beside the real outputs; they are
        renamed when the script has finished, so a killed job never leaves a file that looks done.
    threads
        Threads granted to the job; numerical libraries are limited to it.
    log
        Logger that writes into the rule's log file.
    """

    def __init__(self, snakemake: Any):
        self.rule = snakemake.rule
        self.input = snakemake.input
        self.params = snakemake.params
        self.wildcards = snakemake.wildcards
        self.threads = int(snakemake.threads)
        self.resources = snakemake.resources
        self.log = logging.getLogger("histoweft")
        self._moves: list[tuple[Path, Path]] = []
        self._left_out: dict[Path, gaps.Gap] = {}
        self.output = self._stage(snakemake.output)

    def _stage(self, outputs: Any) -> SimpleNamespace:
        def staged(path: str) -> Path:
            final = Path(path)
            # The process number keeps a job apart from one that outlived a killed run.
            partial = final.with_name(f".partial.{os.getpid()}.{final.name}")
            self._moves.append((partial, final))
            return partial

        names = {}
        for name, value in outputs.items():
            names[name] = staged(value) if isinstance(value, str) else [staged(path) for path in value]
        return SimpleNamespace(**names)

    @property
    def device(self) -> str:
        """Return ``cuda`` or ``cpu`` from the rule's gpu resource and the machine, and log the choice.

        Raises
        ------
        HistoweftError
            When the config says ``require_gpu`` and no GPU is granted or found.
        """
        granted = int(getattr(self.resources, "gpu", 0) or 0)
        found = bool(granted) and _cuda_is_available()
        if getattr(self.params, "require_gpu", False) and not found:
            raise HistoweftError(
                f"rule {self.rule}: require_gpu is true, but {'no GPU was found' if granted else 'the job got gpu=0'}. "
                "Run on a GPU node (and without --resources gpu=0), or set require_gpu: false."
            )
        device = "cuda" if found else "cpu"
        told = f", CUDA {'found' if found else 'not found'}" if granted else ""
        self.log.info("device: %s (granted gpu=%d%s)", device, granted, told)
        return device

    def present(self, name: str, samples: Iterable[str]) -> dict[str, str]:
        """Return the files of an input by sample, without those that could not be computed; the log names these."""
        found = {}
        for sample, path in zip(samples, self.input.get(name, []), strict=True):
            if gap := gaps.of(path):
                self.log.warning("%s: left out of %s. %s", sample, self.rule, gap.words)
            else:
                found[sample] = path
        return found

    def there(self, name: str) -> str | None:
        """Return the file of an input; None where the rule has none, or where it could not be computed."""
        path = self.input.get(name)
        return None if not path or gaps.of(path) else path

    def leave_out(self, staged: Path, gap: gaps.Gap) -> None:
        """Write one output in its empty form, with the reason."""
        final = dict(self._moves)[staged]
        gaps.write_empty(staged, final.name, gap)
        self._left_out[staged] = gap

    def leave_all_out(self, gap: gaps.Gap) -> None:
        """Write every output in its empty form, with the reason."""
        self.discard()
        for staged, _ in self._moves:
            self.leave_out(staged, gap)

    def commit(self) -> None:
        """Rename every staged output to its real name.

        Raises
        ------
        HistoweftError
            When the script has not written one of them.
        """
        missing = [str(final) for partial, final in self._moves if not partial.exists()]
        if missing:
            raise HistoweftError(f"rule {self.rule} did not write: {', '.join(missing)}")
        for partial, final in self._moves:
            if final.is_dir() and not final.is_symlink():
                shutil.rmtree(final)
            os.replace(partial, final)
            if partial in self._left_out:
                gaps.remember(final, self._left_out[partial])
            else:
                gaps.forget(final)
            for left in leftovers(final):
                remove(left)
            self._commit_vector(partial, final)

    @staticmethod
    def _commit_vector(partial: Path, final: Path) -> None:
        """Rename the vector figure that was drawn beside a png; take away one of an earlier run otherwise."""
        for drawn, stays in zip(vectors(partial), vectors(final), strict=True):
            if drawn.exists():
                os.replace(drawn, stays)
            else:
                stays.unlink(missing_ok=True)
            for left in leftovers(stays):
                remove(left)

    def discard(self) -> None:
        """Remove what was staged."""
        for partial, _ in self._moves:
            remove(partial)
            for drawn in vectors(partial):
                remove(drawn)


def _cuda_is_available() -> bool:
    """Ask torch, which takes seconds to import: worth it where a GPU was granted alone."""
    import torch

    return torch.cuda.is_available()


def vectors(picture: Path) -> list[Path]:
    """Return the vector figures that may lie beside a png, nothing for another file."""
    return [picture.with_suffix(suffix) for suffix in (".pdf", ".svg")] if picture.suffix == ".png" else []


def leftovers(final: Path) -> list[Path]:
    """Return what killed jobs left staged for an output."""
    pattern = re.compile(rf"\.partial\.\d+\.{re.escape(final.name)}")
    return [path for path in final.parent.iterdir() if pattern.fullmatch(path.name)]


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Send everything written to stdout and stderr, C libraries included, into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", buffering=1) as stream:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = os.dup(1), os.dup(2)
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for copy, original in zip(saved, (1, 2), strict=True):
                os.dup2(copy, original)
                os.close(copy)


def leave_foreign_packages() -> list[str]:
    """Take packages of another interpreter off the module search path; return the folders taken away.

    Snakemake appends its own packages to the search path of every script, which it needs to start it. A package that
    is missing from a rule's environment would be borrowed from there unseen, in a version that nobody pinned.
    """
    own = {Path(folder).resolve() for folder in (*site.getsitepackages(), site.getusersitepackages())}
    packages = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    foreign = [entry for entry in packages if Path(entry).resolve() not in own]
    sys.path[:] = [entry for entry in sys.path if entry not in foreign]
    return foreign


def run(snakemake: Any, main: Callable[[Job], None], optional: Iterable[str] = (), some: Iterable[str] = ()) -> None:
    """Run `main` with a `Job`: log captured, threads limited, outputs renamed only at the end.

    An error meant for the user ends the job with its message alone; anything else leaves a traceback in the log. Where
    the data cannot bear the step (`NotComputed`), or an input could not be computed, the job ends normally with empty
    outputs. Import this module before numpy, so that the thread limits are read.

    Parameters
    ----------
    snakemake
        Snakemake's object.
    main
        What the rule does.
    optional
        Names of inputs that `main` can do without, ``*`` for all; it looks for gaps among them itself.
    some
        Names of inputs of several files, of which one that is there suffices.
    """
    for name in THREAD_VARIABLES:
        os.environ[name] = str(snakemake.threads)
    leave_foreign_packages()
    failed = False
    log = snakemake.log[0]
    before = failures.of(log) if os.environ.get(gaps.PARTIAL) else None
    # Until the job ends: a job that is killed cannot say so itself.
    sample = snakemake.wildcards.get("sample", "")
    with suppress(OSError):
        failures.remember(log, failures.Failure(snakemake.rule, sample, KILLED))
    with _output_to(Path(log)):
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.INFO,
            format="%(asctime)s %(levelname)s %(message)s",
            datefmt="%H:%M:%S",
        )
        logging.captureWarnings(True)
        for noisy in ("fontTools", "matplotlib", "numba", "jax", "lightning", "scvi"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        job = Job(snakemake)
        job.log.info("environment: %s", sys.prefix)
        try:
            gap = failures.as_gap(before, log) if before else _gap_of_inputs(job, set(optional), set(some))
            _compute(job, main, gap)
            job.commit()
            failures.remember(log, before) if before else failures.forget(log)
        except Exception as error:
            # All of it here: freeing a file that could not be written to its end may crash the process (HDF5).
            _fail(job, log, error)
            failed = True
        except BaseException:
            job.discard()
            failures.forget(log)
            raise
    if failed:
        sys.exit(1)


def _compute(job: Job, main: Callable[[Job], None], gap: gaps.Gap | None) -> None:
    """Run the step, or leave its outputs empty where that cannot be."""
    if gap is None:
        try:
            main(job)
            return
        except NotComputed as error:
            gap = gaps.Gap(_named(job, str(error)))
    job.log.warning("%s", gap.words)
    job.leave_all_out(gap)


def _named(job: Job, reason: str) -> str:
    """Name the sample in a reason, which its library function need not know."""
    sample = job.wildcards.get("sample", "")
    return reason if not sample or reason.startswith(sample) else f"{sample}: {reason}"


def _gap_of_inputs(job: Job, optional: set[str], some: set[str]) -> gaps.Gap | None:
    """Return why an input that the rule needs is not there."""
    if "*" in optional:
        return None
    for name in some:
        paths = _each(job.input.get(name, []))
        if paths and all(map(gaps.of, paths)):
            return gaps.first(paths)
    allowed = {path for name, value in job.input.items() if name in optional | some for path in _each(value)}
    return gaps.first(path for path in job.input if path not in allowed)


def _each(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _fail(job: Job, log: str, error: Exception) -> None:
    """Say why a job failed, take away what it staged, and keep the reason."""
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, HistoweftError):
        message = str(error)
        job.log.error("%s", message)
    elif _disk_is_full(error):
        message = (
            f"rule {job.rule}: the disk or the quota of {Path.cwd()} is used up "
            f"({shutil.disk_usage('.').free / 1e9:.1f} GB free). Make room and start again; nothing half-written stays."
        )
        job.log.error("%s", message)
    else:
        traceback.print_exc()
    job.discard()
    sample = job.wildcards.get("sample", "")
    with suppress(OSError):
        failures.remember(log, failures.Failure(job.rule, sample, message))


def _disk_is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one behind it, says that nothing more can be written."""
    while error is not None:
        number = getattr(error, "errno", None)
        told = re.search(r"errno = (\d+)", str(error))  # HDF5 puts the system's number into its text
        if {number, int(told[1]) if told else None} & FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
