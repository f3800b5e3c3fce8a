"""A worker in this process, with the counting engine: its runtime and its slots."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis import Redis

from tests.workers.counting import AnyModel
from workers.beats import Beats
from workers.drain import Drain
from workers.jobs import Job, Jobs
from workers.leases import BEAT_S
from workers.listener import Listener
from workers.rounds import Rounds
from workers.runtime import Engine, Models, Runtime
from workers.slots import Slots
from workers.storage import Store

GRACE_S = 1.0


@contextmanager
def working(
    redis: Redis,
    store: Store,
    engine: Engine,
    slots: int = 1,
    *,
    grace_s: float = GRACE_S,
    models: Models | None = None,
    listening: Redis | None = None,
) -> Iterator[Runtime]:
    """Slots at work, beating and listening, until the block ends."""
    runtime = Runtime("host", redis, store, engine, models or AnyModel(), Drain(grace_s))
    taking, over = Slots(runtime, slots), threading.Event()
    listener = Listener(listening or redis, runtime, taking, over, look_s=0.05)
    beat = Rounds("beat", Beats(runtime, taking, _no_end).round, BEAT_S / 10, over)
    taking.start()
    beat.start()
    listener.start()
    try:
        yield runtime
    finally:
        runtime.drain.begin()
        taking.stop()
        assert taking.join(grace_s + 4)
        over.set()
        beat.join(5)
        listener.join(5)


def _no_end(status: int) -> None:
    raise AssertionError(f"the process would end with status {status}")


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
