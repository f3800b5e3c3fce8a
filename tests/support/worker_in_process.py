"""A worker in this process, with the counting engine: its runtime and its slots."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from tests.support.counting_engine import AnyModel
from tests.support.eventually import LIMIT_S
from workers.execution.context import EngineProtocol, Models, WorkerContext
from workers.execution.drain import Drain
from workers.process.heartbeat import Heartbeat
from workers.process.listener import Listener
from workers.process.periodic import PeriodicThread
from workers.process.slots import SlotPool
from workers.queue.leases import BEAT_S
from workers.storage.store import Store

GRACE_S = 1.0
#: So that tests need not wait for a real beat.
OFTEN_S = BEAT_S / 10


@contextmanager
def working(
    redis: Redis,
    store: Store,
    engine: EngineProtocol,
    slots: int = 1,
    *,
    grace_s: float = GRACE_S,
    models: Models | None = None,
    listening: Redis | None = None,
    beat_s: float = OFTEN_S,
    name: str = "host",
) -> Iterator[WorkerContext]:
    """Slots at work, beating and listening, until the block ends."""
    runtime = WorkerContext(name, redis, store, engine, models or AnyModel(), Drain(grace_s))
    taking, over = SlotPool(runtime, slots), threading.Event()
    listener = Listener(listening or redis, runtime, taking, over, look_s=0.05)
    beat = PeriodicThread("beat", Heartbeat(runtime, taking, _no_end).round, beat_s, over)
    taking.start()
    beat.start()
    listener.start()
    try:
        yield runtime
    finally:
        runtime.drain.begin()
        taking.stop()
        assert taking.join(grace_s + LIMIT_S)
        over.set()
        for each in (beat, listener):
            each.join(LIMIT_S)
            assert not each.is_alive()


def _no_end(status: int) -> None:
    raise AssertionError(f"the process would end with status {status}")
