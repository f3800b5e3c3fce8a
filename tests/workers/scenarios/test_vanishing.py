"""Processes that die are noticed at once; those that live lose nothing when their connections do."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="a worker computes with torch")

from service.stack.valkey import EmbeddedValkey
from tests.support.eventually import ended, until
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import record
from tests.support.worker_processes import worker
from workers.broker import keys
from workers.broker.connection import connect
from workers.broker.keys import presence_channel
from workers.jobs.repository import Jobs
from workers.queue.janitor import ABSENT_S, SILENT_S, Janitor
from workers.queue.leases import BEAT_S, LEASE_S, Run
from workers.storage.store import Store

pytestmark = pytest.mark.engine

LIST = keys.PRESENCE_KEY
LONG_LEASE_S = 60  # what is found before it ends is not found by its end
BRISK_S = BEAT_S / 2  # between beats: not overdue at once on a machine that is busy


def steady(
    redis_url: str, store: Store, lease_s: int, step_s: float = 0.01, beat_s: float = BEAT_S
) -> list[str]:
    """Command of a worker with the counting engine that beats as the real one does."""
    words = [redis_url, store.url, "2", str(step_s), "1", "60", str(lease_s), str(beat_s)]
    return ["-m", "tests.support.counting_engine", *words]


def listed(redis: Redis) -> list[str]:
    seen = cast(dict[bytes, bytes], redis.hgetall(LIST))
    return [process.decode() for process, since in seen.items() if since == b""]


def holder(redis: Redis, job_id: str) -> str:
    """The process that runs the job; empty while none does."""
    fields = redis.hmget(keys.job_key(job_id), "state", "worker")
    state, process = cast("list[bytes | None]", fields)
    return process.decode() if state == b"running" and process else ""


def takeover_s(redis_url: str, redis: Redis, store: Store, jobs: Jobs) -> float:
    """From a kill of one of two workers to the next start of the job that it ran."""
    command = steady(redis_url, store, LONG_LEASE_S)
    with worker(*command) as first, worker(*command) as second:
        until(lambda: len(listed(redis)) == 2, 60)
        job, _ = submit(jobs, question(steps=4000), MODEL)
        until(lambda: bool(holder(redis, job.id)))
        dead = holder(redis, job.id)
        (process,) = [process for process in (first, second) if f"-{process.pid}-" in dead]
        process.kill()
        killed_s = time.monotonic()
        until(lambda: holder(redis, job.id) not in ("", dead), 30)
        took_s = time.monotonic() - killed_s
        assert record(jobs, Run(job.id, "")).losses == 1
        assert dead not in listed(redis)
    return took_s


def test_a_job_of_a_killed_worker_starts_elsewhere_long_before_its_lease_would_have_ended(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    """It takes five seconds at most (`benchmarks/takeover.py`), but for a machine that is busy otherwise."""
    assert takeover_s(redis_url, redis, store, jobs) < LONG_LEASE_S / 3


def test_a_worker_that_stands_still_is_there(redis_url: str, redis: Redis, store: Store) -> None:
    with worker(*steady(redis_url, store, LONG_LEASE_S)) as process:
        until(lambda: listed(redis) != [], 60)
        process.send_signal(signal.SIGSTOP)
        swept = redis.hget("proxygrad:sweeps", "swept")
        for _ in range(3):
            time.sleep(0.1)
            Janitor(redis).sweep()
        assert redis.hget("proxygrad:sweeps", "swept") != swept
        assert len(listed(redis)) == 1
        process.send_signal(signal.SIGCONT)


def test_cut_connections_cost_the_living_nothing(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    with worker(*steady(redis_url, store, LEASE_S, beat_s=BRISK_S)):
        until(lambda: listed(redis) != [], 60)
        job, _ = submit(jobs, question(steps=450), MODEL)
        until(lambda: bool(holder(redis, job.id)))
        execution = redis.hget(keys.job_key(job.id), "execution")
        cut = 0
        until_s = time.monotonic() + ABSENT_S + SILENT_S
        while time.monotonic() < until_s:
            cut += redis.client_kill_filter(_type="pubsub")
            time.sleep(0.02)
        assert cut > 1
        assert (ended(jobs, job.id, 60).state, record(jobs, Run(job.id, "")).losses) == ("succeeded", 0)
        assert redis.hget(keys.job_key(job.id), "execution") == execution
        until(lambda: listed(redis) != [])


def test_restarts_of_redis_cost_the_living_nothing(tmp_path: Path, store: Store) -> None:
    with ExitStack() as at_work:
        with EmbeddedValkey(tmp_path) as server, connect(server.url) as redis:
            at_work.enter_context(worker(*steady(server.url, store, LEASE_S, beat_s=BRISK_S)))
            until(lambda: listed(redis) != [], 60)
            job, _ = submit(Jobs(redis, store), question(steps=600), MODEL)
            until(lambda: bool(holder(redis, job.id)))
            execution = redis.hget(keys.job_key(job.id), "execution")
        with EmbeddedValkey(tmp_path) as server, connect(server.url) as redis:
            until(lambda: listed(redis) != [] and bool(redis.pubsub_channels(presence_channel("*"))), 30)
        time.sleep(1)
        with EmbeddedValkey(tmp_path) as server, connect(server.url) as redis, at_work:
            jobs = Jobs(redis, store)
            assert (ended(jobs, job.id, 60).state, record(jobs, Run(job.id, "")).losses) == ("succeeded", 0)
            assert redis.hget(keys.job_key(job.id), "execution") == execution
