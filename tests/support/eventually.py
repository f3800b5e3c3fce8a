"""Waiting for what other threads and processes do, with a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from workers.jobs.kinds.visualization import VisualizationJob
from workers.jobs.repository import Jobs

_T = TypeVar("_T")

#: Far longer than anything takes here, so that a busy machine fails nothing; costs nothing where all is well.
LIMIT_S = 30.0


def until(condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    """Return when ``condition`` holds; fails after ``limit_s``."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {limit_s} s"
        time.sleep(0.005)


def ended(jobs: Jobs, job_id: str, limit_s: float = LIMIT_S) -> VisualizationJob:
    """The visualization once it has ended."""
    until(lambda: (job := jobs.fetch(job_id)) is not None and job.ended, limit_s)
    job = jobs.fetch(job_id)
    assert isinstance(job, VisualizationJob)
    return job


def at_once(work: Callable[[_T], None], given: Sequence[_T]) -> None:
    """Call ``work`` with each of ``given``, all in threads of their own, and return when all have."""
    threads = [threading.Thread(target=work, args=(each,)) for each in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
