"""RQ's record of a slot, which the slot and the beat of its process both write."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest
from redis import Redis
from rq.worker import WorkerStatus

pytest.importorskip("torch", reason="slots run the task, which needs torch")

from tests.support.counting_engine import AnyModel, CountingEngine
from tests.support.eventually import LIMIT_S
from workers.execution.context import WorkerContext
from workers.process.dispatcher import Dispatcher
from workers.process.rq_registration import RQRegistration
from workers.process.rq_worker import SlotWorker
from workers.storage.store import Store

pytestmark = pytest.mark.engine


def test_a_beat_does_not_bring_back_an_earlier_state(
    redis: Redis, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beat has read the state, and the slot changes it before the beat has written."""
    runtime = WorkerContext("host", redis, store, CountingEngine(), AnyModel())
    slot = SlotWorker("host.0", runtime, Dispatcher(runtime), RQRegistration(redis))
    slot.register_birth()
    read, may_write, enroll = threading.Event(), threading.Event(), RQRegistration.enroll

    def slowly(register: RQRegistration, key: str, fields: Mapping[str, str]) -> None:
        read.set()
        assert may_write.wait(LIMIT_S)
        enroll(register, key, fields)

    monkeypatch.setattr(RQRegistration, "enroll", slowly)
    beat = threading.Thread(target=slot.enroll)
    beat.start()
    assert read.wait(LIMIT_S)
    change = threading.Thread(target=slot.set_state, args=(WorkerStatus.IDLE,))
    change.start()
    change.join(0.2)  # where nothing holds it up, it is over by now
    may_write.set()
    for thread in (beat, change):
        thread.join(LIMIT_S)
    assert redis.hget(slot.key, "state") == b"idle"
