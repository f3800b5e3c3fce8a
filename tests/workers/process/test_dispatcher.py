"""Jobs are taken off the queue when there is a slot for them, at once, and none is lost on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from redis import Redis

from proxygrad.protocol.problems import Problem
from tests.support.eventually import until
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import waiting
from workers.broker import rq_names
from workers.execution.context import WorkerContext
from workers.fleet.catalog import ServedModel
from workers.jobs.repository import Jobs
from workers.process import dispatcher as module
from workers.process.dispatcher import Dispatcher
from workers.queue.fair_queue import FairQueue
from workers.storage.store import Store


class Shelf:
    """Says what it serves; nobody borrows anything here."""

    def __init__(self, *served: ServedModel) -> None:
        self.served = served

    def lent(self, name: str) -> Any:
        raise AssertionError


class Idle:
    """An engine without work, or one that hangs."""

    stalled_s = 0.0


TINY = ServedModel(name="tiny", info=MODEL)


@pytest.fixture
def runtime(redis: Redis, store: Store) -> WorkerContext:
    return WorkerContext("host", redis, store, cast(Any, Idle()), Shelf(TINY))


@pytest.fixture
def dispatcher(runtime: WorkerContext) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(runtime)
    dispatcher.start()
    yield dispatcher
    dispatcher.stop()
    dispatcher.join(30)
    assert not dispatcher.is_alive()


def popped(redis: Redis) -> int:
    return redis.llen(rq_names.INTERMEDIATE_KEY)


def pops(redis: Redis) -> int:
    """How often somebody has asked whether there is work: it looks for `rq suspend` first."""
    stats = cast(dict[str, dict[str, int]], redis.info("commandstats"))
    return stats.get("cmdstat_exists", {"calls": 0})["calls"]


def test_nothing_is_taken_before_a_slot_is_free(redis: Redis, jobs: Jobs, dispatcher: Dispatcher) -> None:
    first, second = (submit(jobs, question(unit), MODEL)[0].id for unit in range(2))
    dispatcher.wake()
    time.sleep(0.1)
    assert waiting(redis) == [first, second]
    assert dispatcher.take(30) == first
    assert waiting(redis) == [second]
    assert dispatcher.take(30) == second
    assert popped(redis) == 2  # until a slot takes the lease


def test_while_all_slots_are_busy_nobody_asks(
    redis: Redis, jobs: Jobs, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    assert dispatcher.take(0.1) is None
    time.sleep(0.1)
    submit(jobs, question(), MODEL)
    before = pops(redis)
    for _ in range(10):
        dispatcher.wake("tiny")
        time.sleep(0.02)
    assert pops(redis) - before <= 1  # one that was under way when the slot left
    assert dispatcher.take(30) is not None


def test_a_waiting_slot_is_woken_at_once(
    jobs: Jobs, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 60.0)
    got: list[float] = []

    def work() -> None:
        while dispatcher.take() is not None:
            got.append(time.monotonic())

    threading.Thread(target=work, daemon=True).start()
    waits = []
    for unit in range(10):
        time.sleep(0.02)
        submit(jobs, question(unit), MODEL)
        woken_s = time.monotonic()
        dispatcher.wake("tiny")
        until(lambda many=unit: len(got) > many)  # type: ignore[misc]
        waits.append(got[-1] - woken_s)
    assert sorted(waits)[5] < 1.0  # a look would have found it within a minute


def test_without_a_word_it_looks_from_time_to_time(jobs: Jobs, dispatcher: Dispatcher) -> None:
    assert dispatcher.take(0.1) is None
    job, _ = submit(jobs, question(), MODEL)
    assert dispatcher.take(module.LOOK_S + 30) == job.id


def test_a_word_about_a_model_it_does_not_serve_wakes_nobody(
    redis: Redis, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 60.0)
    start = pops(redis)
    assert dispatcher.take(0.1) is None
    until(lambda: pops(redis) > start)
    before = pops(redis)
    dispatcher.wake("another")
    assert dispatcher.take(0.1) is None
    assert pops(redis) == before


def test_jobs_of_models_it_does_not_have_are_left_to_others(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    broken = ServedModel(name="tiny", problem=Problem(code="model_unavailable", detail="truncated"))
    for shelf in (Shelf(), Shelf(broken), Shelf(TINY.model_copy(update={"name": "other"}))):
        dispatcher = Dispatcher(WorkerContext("host", redis, store, cast(Any, Idle()), shelf))
        dispatcher.start()
        assert dispatcher.take(0.1) is None
        dispatcher.stop()
        dispatcher.join(30)
    assert waiting(redis) == [job.id]


def test_a_suspended_queue_is_left_alone(
    redis: Redis, jobs: Jobs, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    redis.set(rq_names.SUSPENDED_KEY, 1)
    job, _ = submit(jobs, question(), MODEL)
    dispatcher.wake()
    assert dispatcher.take(0.3) is None
    assert waiting(redis) == [job.id]
    redis.delete(rq_names.SUSPENDED_KEY)
    assert dispatcher.take(30) == job.id


def test_a_process_whose_engine_hangs_takes_nothing(
    redis: Redis, runtime: WorkerContext, jobs: Jobs, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(runtime.engine, "stalled_s", runtime.stall_s)
    job, _ = submit(jobs, question(), MODEL)
    assert dispatcher.take(0.3) is None
    assert waiting(redis) == [job.id]
    monkeypatch.setattr(runtime.engine, "stalled_s", 1.0)
    assert dispatcher.take(30) == job.id


def test_what_no_slot_came_for_goes_back_in_its_turn(
    redis: Redis, runtime: WorkerContext, jobs: Jobs
) -> None:
    ids = [submit(jobs, question(unit), MODEL)[0].id for unit in range(5)]
    dispatcher = Dispatcher(runtime)
    dispatcher._popped.extend(FairQueue(redis).pop(["tiny"], 2))
    dispatcher.stop()
    dispatcher.start()
    dispatcher.join(30)
    assert dispatcher.take() is None
    assert waiting(redis) == ids
    assert FairQueue(redis).pop(["tiny"], 5) == ids


def test_what_it_pops_while_it_is_stopped_goes_back(
    redis: Redis, runtime: WorkerContext, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [submit(jobs, question(unit), MODEL)[0].id for unit in range(3)]
    dispatcher = Dispatcher(runtime)
    pop = dispatcher._ready.pop

    def pop_and_stop(models: Any, count: int) -> list[str]:
        found = pop(models, count)
        assert popped(redis) == 1
        dispatcher.stop()
        return found

    monkeypatch.setattr(dispatcher._ready, "pop", pop_and_stop)
    dispatcher.start()
    assert dispatcher.take(30) is None
    dispatcher.join(30)
    assert waiting(redis) == ids
    assert popped(redis) == 0


def test_trouble_is_said_once_and_outlived(
    jobs: Jobs, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    pop, troubles = dispatcher._ready.pop, iter([OSError("no route to host")] * 3)

    def fail_first(models: Any, count: int) -> list[str]:
        for trouble in troubles:
            raise trouble
        return pop(models, count)

    monkeypatch.setattr(dispatcher._ready, "pop", fail_first)
    job, _ = submit(jobs, question(), MODEL)
    assert dispatcher.take(30) == job.id
    assert [record.message for record in caplog.records] == ["dispatcher: no route to host"]
