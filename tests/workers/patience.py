"""Waiting for what other threads and processes do, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable

from workers.jobs import Job, Jobs


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Return when ``condition`` holds; fails after ``limit_s``."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {limit_s} s"
        time.sleep(0.005)


def ended(jobs: Jobs, job_id: str, limit_s: float = 10.0) -> Job:
    """The job once it has ended."""
    until(lambda: (job := jobs.fetch(job_id)) is not None and job.ended, limit_s)
    job = jobs.fetch(job_id)
    assert job is not None
    return job
