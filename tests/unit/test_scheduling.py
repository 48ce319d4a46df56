"""However often Snakemake asks for a further look, one is on its way at a time."""

import threading
import time
from types import SimpleNamespace

from snakemake.scheduling.job_scheduler import JobScheduler

from histoweft import scheduling


def test_many_requests_make_one_look(monkeypatch):
    monkeypatch.setattr(JobScheduler, "_schedule_reevalutation", JobScheduler._schedule_reevalutation)
    assert scheduling.calm_scheduler()
    looks = threading.Semaphore(0)
    scheduler = SimpleNamespace(_open_jobs=looks)
    for _ in range(20):
        JobScheduler._schedule_reevalutation(scheduler, 0.05)
    assert looks.acquire(timeout=5)
    time.sleep(0.2)
    assert not looks.acquire(blocking=False)
    JobScheduler._schedule_reevalutation(scheduler, 0.01)
    assert looks.acquire(timeout=5)


def test_another_scheduler_is_left_alone(monkeypatch):
    monkeypatch.delattr(JobScheduler, "_schedule_reevalutation")
    assert not scheduling.calm_scheduler()
