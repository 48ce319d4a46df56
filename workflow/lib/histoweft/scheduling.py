"""A repair of Snakemake's scheduler that every run needs."""

from __future__ import annotations

import threading
from typing import Any


def calm_scheduler() -> bool:
    """Let the scheduler look again once a second, not once a second for every job that has started so far.

    Snakemake 9 asks for a further look after each look, with a timer of its own, and every start of a job adds one
    more such chain. The looks a second grow with the number of jobs: a third of the demo's time, and much more where a
    study has thousands of jobs. One pending timer does the same.

    Returns
    -------
    bool
        Whether there was something to repair; False with a Snakemake whose scheduler is built otherwise.
    """
    from snakemake.scheduling import job_scheduler

    scheduler = getattr(job_scheduler, "JobScheduler", None)
    if not hasattr(scheduler, "_schedule_reevalutation"):
        return False
    scheduler._schedule_reevalutation = _look_again
    return True


def _look_again(scheduler: Any, delay: float) -> None:
    """Release the scheduler's loop after a delay, unless that is on its way already."""
    if getattr(scheduler, "_look_is_coming", False):
        return

    def look() -> None:
        scheduler._look_is_coming = False  # first: the loop may ask for the next one at once
        scheduler._open_jobs.release()

    scheduler._look_is_coming = True
    timer = threading.Timer(delay, look)
    timer.daemon = True  # the end of a run must not wait for it
    timer.start()
