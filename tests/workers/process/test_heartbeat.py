"""Leases are kept by progress alone, and what beats bring back is heeded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="slots run the task, which needs torch")

from rq import Worker

from tests.support.counting_engine import AnyModel, CountingEngine, OnPaper
from tests.support.eventually import LIMIT_S, ended, until
from tests.support.model_on_paper import MODEL, question
from tests.support.worker_in_process import working
from workers.broker import keys, rq_names
from workers.execution import run as assignments
from workers.execution.context import WorkerContext
from workers.execution.drain import FAULT_STATUS, Drain
from workers.jobs.repository import Jobs
from workers.process.heartbeat import Heartbeat
from workers.process.slots import SlotPool
from workers.queue import leases
from workers.storage.store import Store

pytestmark = pytest.mark.engine

LONG = 100_000 // 40


@dataclass
class Process:
    """Slots at work that beat when they are told to."""

    runtime: WorkerContext
    slots: SlotPool
    beats: Heartbeat
    ends: list[int]


@contextmanager
def process(
    redis: Redis,
    store: Store,
    engine: CountingEngine,
    models: AnyModel,
    slots: int = 1,
    stall_s: float = 60.0,
) -> Iterator[Process]:
    runtime = WorkerContext("host", redis, store, engine, models, Drain(0.5), stall_s)
    taking, ends = SlotPool(runtime, slots), list[int]()
    taking.start()
    try:
        yield Process(runtime, taking, Heartbeat(runtime, taking, ends.append), ends)
    finally:
        engine.hangs_since_s = None
        runtime.drain.begin()
        taking.stop()
        assert taking.join(LIMIT_S)


def expires_in_s(redis: Redis) -> float:
    ((_, score),) = cast(list[tuple[bytes, float]], redis.zrange(rq_names.LEASES_KEY, 0, -1, withscores=True))
    return score - time.time()


def expire_in(redis: Redis, seconds: float) -> None:
    for member in cast(list[bytes], redis.zrange(rq_names.LEASES_KEY, 0, -1)):
        redis.zadd(rq_names.LEASES_KEY, {member: time.time() + seconds})


def begun(slots: SlotPool, count: int = 1) -> Callable[[], bool]:
    return lambda: [run.phase for run in slots.assignments].count("computing") == count


def test_all_slots_beat_in_two_scripts(redis: Redis, store: Store, jobs: Jobs) -> None:
    for unit in range(20):
        submit(jobs, question(unit, steps=LONG), MODEL)
    with process(redis, store, CountingEngine(step_s=0.02), AnyModel(), slots=32) as here:
        until(begun(here.slots, 20))
        until(lambda: len(here.slots.live) == 32)
        until(lambda: len(Worker.all(connection=redis)) == 32)
        expire_in(redis, leases.LEASE_S / 3)
        taken = [beat_scripts(redis, here.beats) for _ in range(5)]
        assert min(taken) <= 2 + 40  # and what twenty runs write of their progress meanwhile
        assert redis.zcount(rq_names.LEASES_KEY, time.time() + leases.LEASE_S / 2, "+inf") == 20
        assert len(Worker.all(connection=redis)) == 32


def beat_scripts(redis: Redis, beats: Heartbeat) -> int:
    """Scripts that Redis ran during a round."""
    before = scripts(redis)
    beats.round()
    return scripts(redis) - before


def scripts(redis: Redis) -> int:
    stats = cast(dict[str, dict[str, int]], redis.info("commandstats"))
    return stats["cmdstat_evalsha"]["calls"]


def test_an_engine_that_hangs_loses_its_jobs_and_then_its_process(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 60)
    engine = CountingEngine(step_s=0.02)
    submit(jobs, question(steps=LONG), MODEL)
    with process(redis, store, engine, AnyModel(), stall_s=60.0) as here:
        until(begun(here.slots))
        engine.hangs_since_s = time.monotonic()
        expire_in(redis, 20)
        here.beats.round()
        assert expires_in_s(redis) > 30  # it may only be slow
        engine.hangs_since_s -= 61
        expire_in(redis, 20)
        here.beats.round()
        assert expires_in_s(redis) <= 20
        assert here.ends == []  # the lease lasts still
        engine.hangs_since_s -= 60
        here.beats.round()
        assert here.ends == [FAULT_STATUS]


def test_an_engine_that_was_only_slow_keeps_its_job(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine = CountingEngine(step_s=0.02)
    job, _ = submit(jobs, question(steps=LONG), MODEL)
    with process(redis, store, engine, AnyModel(), stall_s=0.5) as here:
        until(begun(here.slots))
        expire_in(redis, leases.LEASE_S / 3)
        engine.hangs_since_s = time.monotonic() - 1
        here.beats.round()
        engine.hangs_since_s = None
        here.beats.round()
        assert expires_in_s(redis) > leases.LEASE_S / 2
        engine.tickets[0].finish()
        assert ended(jobs, job.id).losses == 0
        assert here.ends == []


class Slow(AnyModel):
    """Takes its time to load, once."""

    def __init__(self) -> None:
        self.loading = True

    @contextmanager
    def lent(self, name: str) -> Iterator[OnPaper]:
        until(lambda: not self.loading)
        yield OnPaper()


def test_loading_a_model_has_its_own_clock(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine, models = CountingEngine(), Slow()
    job, _ = submit(jobs, question(), MODEL)
    with process(redis, store, engine, models, stall_s=0.5) as here:
        until(lambda: [run.phase for run in here.slots.assignments] == ["loading"])
        expire_in(redis, leases.LEASE_S / 3)
        engine.hangs_since_s = time.monotonic() - 0.6  # whatever the engine does meanwhile
        here.beats.round()
        assert expires_in_s(redis) > leases.LEASE_S / 2
        engine.hangs_since_s = None
        models.loading = False
        assert ended(jobs, job.id).state == "succeeded"


def test_what_loads_for_too_long_is_given_up_and_so_is_the_process(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignments, "LIMITS_S", {"reading": 300.0, "loading": 0.1, "storing": 300.0})
    models = Slow()
    job, _ = submit(jobs, question(), MODEL)
    with process(redis, store, CountingEngine(), models) as here:
        until(lambda: [run.phase for run in here.slots.assignments] == ["loading"])
        time.sleep(0.15)
        lasts_s = expires_in_s(redis)
        here.beats.round()
        assert expires_in_s(redis) < lasts_s
        assert here.runtime.drain.fault == f"job {job.id} has been loading for too long"
        models.loading = False


def test_a_process_that_gives_up_puts_back_what_the_engine_does_not_have(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 0.2)
    engine, models = CountingEngine(), Slow()
    job, _ = submit(jobs, question(), MODEL)
    with process(redis, store, engine, models, stall_s=0.1) as here:
        until(lambda: [run.phase for run in here.slots.assignments] == ["loading"])
        engine.hangs_since_s = time.monotonic() - 1
        here.beats.round()
        assert here.ends == [FAULT_STATUS]
        back = jobs.fetch(job.id)
        assert back is not None
        assert (back.state, back.losses) == ("queued", 0)
        models.loading = False


def test_a_cancellation_whose_message_was_lost_is_found(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine = CountingEngine(step_s=0.02)
    job, _ = submit(jobs, question(steps=LONG), MODEL)
    with working(redis, store, engine):
        until(lambda: engine.tickets != [])
        redis.hset(keys.job_key(job.id), "cancel_requested", time.time())
        assert ended(jobs, job.id).state == "canceled"


def test_a_deadline_that_moves_is_followed(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine = CountingEngine(step_s=0.02)
    job, _ = submit(jobs, question(steps=LONG), MODEL)
    with working(redis, store, engine):
        until(lambda: engine.tickets != [])
        redis.hset(keys.job_key(job.id), "deadline_at", time.time() + 0.6)
        failed = ended(jobs, job.id)
    assert failed.problem is not None
    assert failed.problem.code == "deadline_exceeded"
    assert failed.finished_at is not None
    assert engine.tickets[0].progress.step < LONG


def test_a_lost_lease_stops_the_lane(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine = CountingEngine(step_s=0.02)
    submit(jobs, question(steps=LONG), MODEL)
    with working(redis, store, engine):
        until(lambda: engine.tickets != [])
        redis.zremrangebyrank(rq_names.LEASES_KEY, 0, -1)
        until(lambda: engine.tickets[0].canceled)


def test_a_process_is_present_again_after_redis_lost_its_data(redis: Redis, store: Store) -> None:
    with process(redis, store, CountingEngine(), AnyModel()) as host:
        host.beats.round()
        assert redis.hexists(keys.PRESENCE_KEY, "host")
        redis.flushall()
        host.beats.round()
        assert redis.hexists(keys.PRESENCE_KEY, "host")
