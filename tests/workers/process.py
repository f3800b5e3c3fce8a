"""A worker in this process, with the counting engine: its runtime and its slots."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis import Redis

from tests.workers.counting import AnyModel
from workers.jobs import Job, Jobs
from workers.leases import BEAT_S
from workers.rounds import Rounds
from workers.runtime import Engine, Runtime
from workers.slots import Slots
from workers.storage import Store


@contextmanager
def working(redis: Redis, store: Store, engine: Engine, slots: int = 1) -> Iterator[Runtime]:
    """Slots at work, beating, until the block ends."""
    runtime = Runtime("host", redis, store, engine, AnyModel())
    taking = Slots(runtime, slots)
    beat = Rounds("beat", taking.beat, BEAT_S / 10, runtime.stopping)
    taking.start()
    beat.start()
    try:
        yield runtime
    finally:
        runtime.stopping.set()
        assert taking.join(5)
        beat.join(5)


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
