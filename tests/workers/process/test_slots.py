"""Slots take jobs, run them once, and show up in RQ's records."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import cast

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="slots run the task, which needs torch")

from rq import Queue, SimpleWorker, Worker

from proxygrad.errors import LaneError
from proxygrad.protocol.requests import VisualizationRequest
from service.stack.valkey import EmbeddedValkey
from tests.support.counting_engine import CountingEngine
from tests.support.eventually import ended, until
from tests.support.model_on_paper import MODEL, question
from tests.support.rq_entries import entry, nothing_left, status
from tests.support.slot_steps import waiting
from tests.support.worker_in_process import working
from workers.broker import rq_names
from workers.broker.connection import connect
from workers.errors import QueueMemoryFull
from workers.jobs.kinds.visualization import image_path
from workers.jobs.repository import Jobs
from workers.process.periodic import PeriodicThread
from workers.process.rq_worker import SlotWorker
from workers.queue import rq_entries
from workers.queue.fair_queue import FairQueue
from workers.queue.janitor import Janitor
from workers.queue.leases import LEASE_S, Leases, Run
from workers.storage.paths import result_path
from workers.storage.store import Store

pytestmark = pytest.mark.engine

LONG = 2500  # 50 s, of steps of 0.02 s


def test_jobs_are_done_each_once(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine = CountingEngine()
    ids = [submit(jobs, question(unit), MODEL)[0].id for unit in range(30)]
    with working(redis, store, engine, slots=4):
        states = {ended(jobs, job_id).state for job_id in ids}
    assert states == {"succeeded"}
    assert sorted(ticket.spec.unit for ticket in engine.tickets) == list(range(30))
    assert all(store.exists(image_path(job_id, 0)) and store.exists(result_path(job_id)) for job_id in ids)
    assert nothing_left(redis)


def rq_info(redis_url: str, *options: str) -> str:
    """What the tool of RQ prints."""
    command = [str(Path(sys.executable).with_name("rq")), "info", "--raw", "--url", redis_url, *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_rq_keeps_its_own_books(redis: Redis, store: Store, jobs: Jobs, redis_url: str) -> None:
    good, _ = submit(jobs, question(0), MODEL)
    bad, _ = submit(jobs, question(1), MODEL)
    with working(redis, store, CountingEngine(errors={1: LaneError("nan at step 3")})):
        until(lambda: status(redis, good.id) == b"finished" and status(redis, bad.id) == b"failed")
        (worker,) = Worker.all(connection=redis)
        assert (worker.name, worker.successful_job_count, worker.failed_job_count) == ("host.0", 1, 1)
        assert worker.total_working_time > 0
        shown = rq_info(redis_url)
    assert "queue proxygrad 0, 0 executing, 1 finished, 1 failed" in shown
    assert "host.0" in shown
    assert entry(redis, good.id).return_value() == "succeeded"
    assert redis.ttl(rq_names.entry_key(good.id)) > 0
    assert Worker.all(connection=redis) == []
    assert nothing_left(redis)


def test_rq_info_shows_who_is_idle_and_who_is_busy_with_what(
    redis: Redis, store: Store, jobs: Jobs, redis_url: str
) -> None:
    job, _ = submit(jobs, question(steps=2000), MODEL)
    with working(redis, store, CountingEngine(step_s=0.02), slots=2):
        until(lambda: {worker.get_state() for worker in Worker.all(connection=redis)} == {"busy", "idle"})
        (busy,) = [worker for worker in Worker.all(connection=redis) if worker.get_state() == "busy"]
        (idle,) = [worker for worker in Worker.all(connection=redis) if worker.get_state() == "idle"]
        assert (busy.get_current_job_id(), idle.get_current_job_id()) == (job.id, None)
        workers, by_queue = rq_info(redis_url, "--only-workers"), rq_info(redis_url, "--by-queue")
    lines = {line.split()[1]: line for line in workers.splitlines() if line.startswith("worker")}
    assert " busy " in lines[busy.name]
    assert " idle " in lines[idle.name]
    assert str(os.getpid()) in lines[busy.name]
    assert "queue proxygrad 0, 1 executing" in by_queue
    shown = next(line for line in by_queue.splitlines() if line.startswith("proxygrad:"))
    assert f"{busy.name} (busy)" in shown
    assert f"{idle.name} (idle)" in shown


def test_a_running_job_shows_as_such(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine = CountingEngine(step_s=0.02)
    job, _ = submit(jobs, question(steps=LONG), MODEL)
    with working(redis, store, engine):
        until(lambda: status(redis, job.id) == b"started" and engine.tickets != [])
        (worker,) = Worker.all(connection=redis, serializer=rq_entries.SERIALIZER)
        assert (worker.get_state(), worker.get_current_job_id()) == ("busy", job.id)
        seen = jobs.fetch(job.id)
        assert seen is not None
        assert (seen.state, seen.worker) == ("running", "host")
        engine.tickets[0].finish()
        assert ended(jobs, job.id).state == "succeeded"
        until(lambda: worker.get_current_job_id() is None)


def test_a_long_job_keeps_its_lease(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine = CountingEngine(step_s=0.02)
    job, _ = submit(jobs, question(steps=LONG), MODEL)
    with working(redis, store, engine):
        until(lambda: engine.tickets != [])
        (member,) = cast(list[bytes], redis.zrange(rq_names.LEASES_KEY, 0, -1))
        for _ in range(3):
            redis.zadd(rq_names.LEASES_KEY, {member: time.time() + LEASE_S / 2})
            until(lambda: (redis.zscore(rq_names.LEASES_KEY, member) or 0) > time.time() + LEASE_S / 2)
        engine.tickets[0].finish()
        assert (ended(jobs, job.id).state, ended(jobs, job.id).losses) == ("succeeded", 0)


def test_a_slot_that_lost_its_lease_stops_and_records_nothing(redis: Redis, store: Store, jobs: Jobs) -> None:
    engine = CountingEngine(step_s=0.02)
    job, _ = submit(jobs, question(steps=200), MODEL)
    with working(redis, store, engine):
        until(lambda: engine.tickets != [])
        redis.zremrangebyrank(rq_names.LEASES_KEY, 0, -1)
        redis.delete(*cast(list[bytes], redis.keys("rq:execution:*")))
        until(lambda: engine.tickets[0].canceled)
        until(lambda: Worker.all(connection=redis)[0].get_state() == "idle")
    assert status(redis, job.id) == b"started"  # as it was: a janitor's or another run's to change
    assert not store.exists(image_path(job.id, 0))


def test_a_deadline_ends_a_running_job(redis: Redis, store: Store, jobs: Jobs) -> None:
    asked = VisualizationRequest.of(question(0, steps=LONG)).model_copy(update={"deadline_s": 0.5})
    job, _ = submit(jobs, asked, MODEL)
    with working(redis, store, CountingEngine(step_s=0.02)):
        done = ended(jobs, job.id)
    assert done.problem is not None
    assert (done.state, done.problem.code) == ("failed", "deadline_exceeded")
    assert done.finished_at is not None
    assert done.finished_at - done.created_at >= 0.5
    assert status(redis, job.id) == b"failed"


def test_running_work_ends_in_a_full_redis(tmp_path: Path, store: Store) -> None:
    with EmbeddedValkey(tmp_path) as server, connect(server.url) as redis:
        jobs = Jobs(redis, store)
        ids = [submit(jobs, question(unit, steps=40), MODEL)[0].id for unit in range(8)]
        with working(redis, store, CountingEngine(step_s=0.01, errors={3: LaneError("nan")}), slots=2):
            until(lambda: redis.zcard(rq_names.LEASES_KEY) == 2)
            redis.config_set("maxmemory", "1")
            with pytest.raises(OutOfMemoryError):
                redis.set("something", "new")
            done = [ended(jobs, job_id) for job_id in ids]
            assert sorted(worker.name for worker in Worker.all(connection=redis)) == ["host.0", "host.1"]
            with pytest.raises(QueueMemoryFull):
                submit(jobs, question(100), MODEL)
        assert nothing_left(redis)
        assert Worker.all(connection=redis) == []
        with working(redis, store, CountingEngine()):  # a worker may start there, too
            until(lambda: Worker.count(connection=redis) == 1)
    states = [job.state for job in done]
    assert states == ["succeeded"] * 3 + ["failed"] + ["succeeded"] * 4


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
    monkeypatch.setattr("workers.process.slots.RESTART_PAUSE_S", 0.01)
    falls = iter([OSError("a bad moment")])
    be_born = SimpleWorker.register_birth

    def fall_once(self: SimpleWorker) -> None:
        for error in falls:
            raise error
        be_born(self)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(SlotWorker, "register_birth", fall_once)
    job, _ = submit(jobs, question(), MODEL)
    with working(redis, store, CountingEngine()):
        assert ended(jobs, job.id).state == "succeeded"


def test_a_job_that_redis_interrupted_is_left_to_the_janitors(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.process.slots.RESTART_PAUSE_S", 0.01)
    job, _ = submit(jobs, question(), MODEL)
    with working(redis, store, CountingEngine(errors={0: RedisConnectionError("reset by peer")})):
        until(lambda: [worker.name for worker in Worker.all(connection=redis)] == ["host.0.1"])
    seen = jobs.fetch(job.id)
    assert seen is not None
    assert seen.state == "running"
    assert status(redis, job.id) == b"started"
    (member,) = cast(list[bytes], redis.zrange(rq_names.LEASES_KEY, 0, -1))
    redis.zadd(rq_names.LEASES_KEY, {member: 1})
    assert Janitor(redis).sweep() == {job.id: "queued"}


def test_rqs_own_cleanup_loses_nothing(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    rq_queue = Queue(rq_names.QUEUE_NAME, connection=redis, serializer=rq_entries.SERIALIZER)
    assert FairQueue(redis).pop(["tiny"], 1) == [job.id]
    Leases(redis).take(Run(job.id, "e1"), slot="dead.0", worker="dead")
    redis.zadd(rq_names.LEASES_KEY, {f"{job.id}:e1": 1})
    assert rq_queue.started_job_registry.count == 0  # what `rq info` does
    assert waiting(redis) == [job.id]
    assert Janitor(redis).sweep() == {job.id: "queued"}  # in RQ's list alone until then
    with working(redis, store, CountingEngine()):
        done = ended(jobs, job.id)
    assert (done.state, done.losses) == ("succeeded", 1)


def test_a_redis_that_stood_still_costs_no_job_and_no_slot(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.queue.leases.LEASE_S", 2.5)  # ends while Redis stands still
    with EmbeddedValkey(tmp_path / "valkey") as server, connect(server.url) as redis:
        jobs, pid = Jobs(redis, store), redis.info("server")["process_id"]
        ids = [submit(jobs, question(unit, steps=100), MODEL)[0].id for unit in range(6)]
        with working(redis, store, CountingEngine(step_s=0.02), slots=3) as runtime:
            PeriodicThread("janitor", Janitor(redis).sweep, 0.2, runtime.stopping).start()
            until(lambda: redis.zcard(rq_names.LEASES_KEY) == 3)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(LEASE_S / 2 + 0.5)  # longer than the gap that makes janitors patient
            os.kill(pid, signal.SIGCONT)
            done = [ended(jobs, job_id) for job_id in ids]
            assert Worker.count(connection=redis) == 3
    assert {(job.state, job.losses) for job in done} == {("succeeded", 0)}
