"""Slots stop when told, and when what they need has failed."""

from __future__ import annotations

import time
from typing import cast

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="slots run the task, which needs torch")

import torch
from rq import Worker

from proxygrad.errors import LaneError
from tests.support.counting_engine import CountingEngine
from tests.support.eventually import ended, until
from tests.support.model_on_paper import MODEL, question
from tests.support.rq_entries import status
from tests.support.slot_steps import waiting
from tests.support.worker_in_process import working
from workers.broker import rq_names
from workers.jobs.repository import Jobs
from workers.queue.janitor import Janitor
from workers.storage.store import Store

pytestmark = pytest.mark.engine

LONG = 2500  # 50 s, of steps of 0.02 s
#: Long before the jobs here would end, or a grace period of a minute; on a busy machine, too.
SOON_S = 20.0


def test_stopping_puts_running_jobs_back_without_a_loss(redis: Redis, store: Store, jobs: Jobs) -> None:
    running, _ = submit(jobs, question(0, steps=LONG), MODEL)
    behind, _ = submit(jobs, question(1), MODEL)
    started_s = 0.0
    with working(redis, store, CountingEngine(step_s=0.02)):
        until(lambda: status(redis, running.id) == b"started")
        started_s = time.monotonic()
    assert time.monotonic() - started_s < SOON_S
    assert waiting(redis) == [running.id, behind.id]
    job = jobs.fetch(running.id)
    assert job is not None
    assert (job.state, job.losses, job.worker) == ("queued", 0, None)
    assert redis.zcard(rq_names.LEASES_KEY) == 0
    with working(redis, store, CountingEngine(step_s=0.0001)):
        assert ended(jobs, running.id).state == "succeeded"
        assert ended(jobs, behind.id).state == "succeeded"


def test_what_fits_into_the_grace_period_is_finished(redis: Redis, store: Store, jobs: Jobs) -> None:
    short, _ = submit(jobs, question(0, steps=50), MODEL)
    long, _ = submit(jobs, question(1, steps=4000), MODEL)
    engine = CountingEngine(step_s=0.02)
    with working(redis, store, engine, slots=2, grace_s=60.0):
        until(lambda: len(engine.tickets) == 2 and all(ticket.progress.step > 2 for ticket in engine.tickets))
        began_s = time.monotonic()
    assert time.monotonic() - began_s < SOON_S
    states = [(now.state, now.losses) for job in (short, long) if (now := jobs.fetch(job.id)) is not None]
    assert states == [("succeeded", 0), ("queued", 0)]
    assert waiting(redis) == [long.id]


def test_told_twice_nothing_is_finished(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(0, steps=4000), MODEL)
    engine = CountingEngine(step_s=0.01)
    with working(redis, store, engine, grace_s=60.0) as runtime:
        until(lambda: engine.tickets != [] and engine.tickets[0].progress.step > 2)
        runtime.drain.begin()
        time.sleep(0.5)
        assert status(redis, job.id) == b"started"
        began_s = time.monotonic()
        runtime.drain.hurry()
    assert time.monotonic() - began_s < SOON_S
    assert waiting(redis) == [job.id]


def test_an_engine_that_ended_takes_its_process_and_no_job_with_it(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    job, _ = submit(jobs, question(), MODEL)
    with working(redis, store, CountingEngine(closed=True)) as runtime:
        assert runtime.stopping.wait(30)
        assert runtime.drain.fault == "the engine has ended"
    back = jobs.fetch(job.id)
    assert back is not None
    assert (back.state, back.losses) == ("queued", 0)
    assert waiting(redis) == [job.id]


def test_a_device_that_failed_takes_its_process_with_it_and_its_job_counts_as_lost(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    error = LaneError("AcceleratorError: CUDA error: device-side assert triggered")
    error.__cause__ = torch.AcceleratorError("CUDA error: device-side assert triggered")
    job, _ = submit(jobs, question(), MODEL)
    with working(redis, store, CountingEngine(errors={0: error})) as runtime:
        assert runtime.stopping.wait(30)
        assert runtime.drain.fault is not None
    (member,) = cast(list[bytes], redis.zrange(rq_names.LEASES_KEY, 0, -1))
    redis.zadd(rq_names.LEASES_KEY, {member: 1})
    assert Janitor(redis).sweep() == {job.id: "queued"}
    back = jobs.fetch(job.id)
    assert back is not None
    assert back.losses == 1


def test_idle_slots_stop_soon(redis: Redis, store: Store) -> None:
    with working(redis, store, CountingEngine(), slots=4):
        until(lambda: Worker.count(connection=redis) == 4)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < SOON_S
