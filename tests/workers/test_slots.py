"""Slots take jobs, run them once, show up in RQ's records, and stop when told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

pytest.importorskip("torch", reason="slots run the task, which needs torch")

from rq import Queue, SimpleWorker, Worker
from rq.job import Job as RQJob
from rq.job import JobStatus

from proxygrad.errors import LaneError
from service.embedded import EmbeddedValkey
from tests.workers.counting import CountingEngine
from tests.workers.process import ended, until, working
from tests.workers.questions import MODEL, question
from tests.workers.runs import waiting
from workers import queue
from workers.entry import Entry
from workers.jobs import Jobs, image_path, result_path
from workers.leases import LEASE_S, Leases, Run
from workers.recovery import Janitor
from workers.rounds import Rounds
from workers.settings import connect
from workers.slots import Slot
from workers.storage import Store

pytestmark = pytest.mark.engine


def entry(redis: Redis, job_id: str) -> RQJob:
    return RQJob.fetch(job_id, connection=redis, serializer=queue.SERIALIZER)


def status(redis: Redis, job_id: str) -> bytes | None:
    return cast("bytes | None", redis.hget(queue.entry_key(job_id), "status"))


def why(redis: Redis, job_id: str) -> str:
    """What RQ keeps about a failure."""
    result = entry(redis, job_id).latest_result()
    assert result is not None
    return str(result.exc_string)


def nothing_left(redis: Redis) -> bool:
    lists = redis.llen(queue.QUEUE_KEY) + redis.llen(queue.POPPED_KEY)
    return lists + redis.zcard(queue.LEASES_KEY) == 0 and not redis.keys("rq:execution*")


def test_jobs_are_done_each_once(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine = CountingEngine()
    ids = [jobs.submit(question(unit), MODEL)[0].id for unit in range(30)]
    with working(redis, store, engine, slots=4):
        states = {ended(jobs, job_id).state for job_id in ids}
    assert states == {"succeeded"}
    assert sorted(ticket.spec.unit for ticket in engine.tickets) == list(range(30))
    assert all(store.exists(image_path(job_id, 0)) and store.exists(result_path(job_id)) for job_id in ids)
    assert nothing_left(redis)


def test_rq_keeps_its_own_books(redis: Redis, store: Store, jobs: Jobs, redis_url: str) -> None:
    good, _ = jobs.submit(question(0), MODEL)
    bad, _ = jobs.submit(question(1), MODEL)
    with working(redis, store, CountingEngine(errors={1: LaneError("nan at step 3")})):
        until(lambda: status(redis, good.id) == b"finished" and status(redis, bad.id) == b"failed")
        (worker,) = Worker.all(connection=redis)
        assert (worker.name, worker.successful_job_count, worker.failed_job_count) == ("host.0", 1, 1)
        rq = [str(Path(sys.executable).with_name("rq")), "info", "--raw", "--url", redis_url]
        shown = subprocess.run(rq, capture_output=True, text=True, check=True).stdout
    assert "queue proxygrad 0, 0 executing, 1 finished, 1 failed" in shown
    assert "host.0" in shown
    assert entry(redis, good.id).return_value() == "succeeded"
    assert redis.ttl(queue.entry_key(good.id)) > 0
    assert Worker.all(connection=redis) == []
    assert nothing_left(redis)


def test_a_running_job_shows_as_such(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = jobs.submit(question(steps=50), MODEL)
    with working(redis, store, CountingEngine(step_s=0.02)):
        until(lambda: status(redis, job.id) == b"started")
        (worker,) = Worker.all(connection=redis, serializer=queue.SERIALIZER)
        assert (worker.get_state(), worker.get_current_job_id()) == ("busy", job.id)
        seen = jobs.fetch(job.id)
        assert seen is not None
        assert (seen.state, seen.worker) == ("running", "host")
        assert ended(jobs, job.id).state == "succeeded"
        until(lambda: worker.get_current_job_id() is None)


def test_a_long_job_keeps_its_lease(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.leases.LEASE_S", 1)
    job, _ = jobs.submit(question(steps=100), MODEL)
    with working(redis, store, CountingEngine(step_s=0.02)):
        until(lambda: status(redis, job.id) == b"started")
        for _ in range(15):
            time.sleep(0.1)
            assert redis.zcount(queue.LEASES_KEY, time.time(), "+inf") == 1
        assert ended(jobs, job.id).losses == 0


def test_a_slot_that_lost_its_lease_stops_and_records_nothing(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine = CountingEngine(step_s=0.02)
    job, _ = jobs.submit(question(steps=200), MODEL)
    with working(redis, store, engine):
        until(lambda: engine.tickets != [])
        redis.zremrangebyrank(queue.LEASES_KEY, 0, -1)
        redis.delete(*cast(list[bytes], redis.keys("rq:execution:*")))
        until(lambda: engine.tickets[0].cancelled)
        until(lambda: Worker.all(connection=redis)[0].get_state() == "idle")
    assert status(redis, job.id) == b"started"  # as it was: a janitor's or another run's to change
    assert not store.exists(image_path(job.id, 0))


def test_stopping_puts_running_jobs_back_without_a_loss(redis: Redis, store: Store, jobs: Jobs) -> None:
    running, _ = jobs.submit(question(0, steps=500), MODEL)
    behind, _ = jobs.submit(question(1), MODEL)
    started_s = 0.0
    with working(redis, store, CountingEngine(step_s=0.02)):
        until(lambda: status(redis, running.id) == b"started")
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 2.5
    assert waiting(redis) == [running.id, behind.id]
    job = jobs.fetch(running.id)
    assert job is not None
    assert (job.state, job.losses, job.worker) == ("queued", 0, None)
    assert redis.zcard(queue.LEASES_KEY) == 0
    with working(redis, store, CountingEngine()):
        assert ended(jobs, running.id).state == "succeeded"
        assert ended(jobs, behind.id).state == "succeeded"


def test_idle_slots_stop_soon(redis: Redis, store: Store) -> None:
    with working(redis, store, CountingEngine(), slots=4):
        until(lambda: Worker.count(connection=redis) == 4)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 2.5


def test_a_worker_record_that_expired_comes_back(redis: Redis, store: Store) -> None:
    with working(redis, store, CountingEngine()):
        until(lambda: Worker.count(connection=redis) == 1)
        redis.delete("rq:worker:host.0", "rq:workers", "rq:workers:proxygrad")
        until(lambda: [worker.pid for worker in Worker.all(connection=redis)] != [])
        (worker,) = Worker.all(connection=redis)
        assert worker.get_state() == "idle"


def test_a_slot_that_fell_over_starts_again(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.slots.RESTART_PAUSE_S", 0.01)
    falls = iter([OSError("a bad moment")])
    be_born = SimpleWorker.register_birth

    def fall_once(self: SimpleWorker) -> None:
        for error in falls:
            raise error
        be_born(self)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Slot, "register_birth", fall_once)
    job, _ = jobs.submit(question(), MODEL)
    with working(redis, store, CountingEngine()):
        assert ended(jobs, job.id).state == "succeeded"


def test_a_job_that_redis_interrupted_is_left_to_the_janitors(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.slots.RESTART_PAUSE_S", 0.01)
    job, _ = jobs.submit(question(), MODEL)
    with working(redis, store, CountingEngine(errors={0: RedisConnectionError("reset by peer")})):
        until(lambda: [worker.name for worker in Worker.all(connection=redis)] == ["host.0.1"])
    seen = jobs.fetch(job.id)
    assert seen is not None
    assert seen.state == "running"
    assert status(redis, job.id) == b"started"
    (member,) = cast(list[bytes], redis.zrange(queue.LEASES_KEY, 0, -1))
    redis.zadd(queue.LEASES_KEY, {member: 1})
    assert Janitor(redis).sweep() == {job.id: "queued"}


def test_rqs_own_cleanup_loses_nothing(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = jobs.submit(question(), MODEL)
    rq_queue = Queue(queue.QUEUE_NAME, connection=redis, serializer=queue.SERIALIZER)
    redis.lmove(queue.QUEUE_KEY, queue.POPPED_KEY)
    Leases(redis).take(Run(job.id, "e1"), slot="dead.0", worker="dead", stamp="2026-01-01T00:00:00.000000Z")
    redis.zadd(queue.LEASES_KEY, {f"{job.id}:e1": 1})
    assert rq_queue.started_job_registry.count == 0  # what `rq info` does
    assert waiting(redis) == [job.id]
    with working(redis, store, CountingEngine()):
        done = ended(jobs, job.id)
    assert (done.state, done.losses) == ("succeeded", 1)


def test_a_redis_that_stood_still_costs_no_job_and_no_slot(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.leases.LEASE_S", 1)
    with EmbeddedValkey(tmp_path / "valkey") as server, connect(server.url) as redis:
        jobs, pid = Jobs(redis, store), redis.info("server")["process_id"]
        ids = [jobs.submit(question(unit, steps=100), MODEL)[0].id for unit in range(6)]
        with working(redis, store, CountingEngine(step_s=0.02), slots=3) as runtime:
            Rounds("janitor", Janitor(redis).sweep, 0.2, runtime.stopping).start()
            until(lambda: redis.zcard(queue.LEASES_KEY) == 3)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(LEASE_S / 2 + 0.5)  # longer than the gap that makes janitors patient
            os.kill(pid, signal.SIGCONT)
            done = [ended(jobs, job_id) for job_id in ids]
            assert Worker.count(connection=redis) == 3
    assert {(job.state, job.losses) for job in done} == {("succeeded", 0)}


# -- what somebody who can write to Redis could try ----------------------------------------------------------


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "trapped"
    yield path
    assert not path.exists()


def smuggle(redis: Redis, func: str, *args: object, job_id: str = "smuggled", **fields: Any) -> str:
    """Put an entry into the queue that names another function."""
    job = RQJob.create(
        func, args=args, id=job_id, connection=redis, origin=queue.QUEUE_NAME, serializer=queue.SERIALIZER
    )
    job.set_status(JobStatus.QUEUED)
    job.save()
    if fields:
        redis.hset(job.key, mapping=cast(Any, fields))
    redis.rpush(queue.QUEUE_KEY, job_id)
    return job_id


def test_other_functions_are_refused(redis: Redis, store: Store, trap: Path) -> None:
    job_id = smuggle(redis, "os.mkdir", str(trap))
    with working(redis, store, CountingEngine()):
        until(lambda: status(redis, job_id) == b"failed")
    assert "names the task 'os.mkdir'; allowed: workers.render.render" in why(redis, job_id)
    assert nothing_left(redis)


def test_callbacks_are_ignored(redis: Redis, store: Store, jobs: Jobs, trap: Path) -> None:
    job, _ = jobs.submit(question(), MODEL)
    names = {f"{when}_callback_name": "tests.workers.test_slots.spring" for when in ("success", "failure")}
    redis.hset(queue.entry_key(job.id), mapping=cast(Any, names))
    redis.hset(
        queue.entry_key(job.id), "webhooks", '[{"url": "http://127.0.0.1:1/", "job_status": "finished"}]'
    )
    restored = Entry.fetch(job.id, connection=redis, serializer=queue.SERIALIZER)
    assert (restored.success_callback, restored.failure_callback, restored.webhooks) == (None, None, [])
    with working(redis, store, CountingEngine()):
        assert ended(jobs, job.id).state == "succeeded"


def spring(*_: object) -> None:
    """What must never be called."""
    raise AssertionError("a callback from Redis was called")


def test_methods_of_stored_objects_are_refused(redis: Redis, store: Store) -> None:
    job_id = smuggle(redis, queue.TASK, "x")
    redis.hset(queue.entry_key(job_id), "data", b'["title", "text", [], {}]')
    with working(redis, store, CountingEngine()):
        until(lambda: status(redis, job_id) == b"failed")
    assert "names the task 'title'" in why(redis, job_id)


def test_an_entry_for_another_job_is_refused(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = jobs.submit(question(), MODEL)
    redis.delete(queue.QUEUE_KEY)
    job_id = smuggle(redis, queue.TASK, job.id)
    with working(redis, store, CountingEngine()):
        until(lambda: status(redis, job_id) == b"failed")
    assert f"asks for job {job.id}" in why(redis, job_id)
    seen = jobs.fetch(job.id)
    assert seen is not None
    assert seen.state == "queued"


def test_an_entry_without_a_record_fails(redis: Redis, store: Store) -> None:
    job_id = smuggle(redis, queue.TASK, "smuggled")
    with working(redis, store, CountingEngine()):
        until(lambda: status(redis, job_id) == b"failed")
    assert "job smuggled has no record" in why(redis, job_id)
    assert redis.keys("proxygrad:job:*") == []
