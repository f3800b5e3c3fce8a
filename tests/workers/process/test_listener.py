"""What a process is told through Redis reaches it, and it hears again after Redis was away."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="slots run the task, which needs torch")

from rq.command import send_command, send_kill_horse_command, send_shutdown_command, send_stop_job_command

from service.stack.valkey import EmbeddedValkey
from tests.support.counting_engine import CountingEngine
from tests.support.eventually import ended, until
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import waiting
from tests.support.worker_in_process import working
from workers.broker import keys, rq_names
from workers.broker.connection import connect
from workers.jobs.repository import Jobs
from workers.process import dispatcher
from workers.queue import rq_entries
from workers.storage.store import Store

pytestmark = pytest.mark.engine

LONG = 100_000 // 40


def is_heard(redis: Redis) -> bool:
    return dict(redis.pubsub_numsub(keys.CANCEL_CHANNEL))[keys.CANCEL_CHANNEL.encode()] == 1


def runs(redis: Redis, job_id: str) -> bool:
    return redis.hget(rq_names.entry_key(job_id), "status") == b"started"


def test_a_submission_is_heard_at_once(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LOOK_S", 60.0)
    engine = CountingEngine(step_s=0.0005)
    waits: list[float] = []
    with working(redis, store, engine, slots=2):
        until(lambda: is_heard(redis))
        time.sleep(0.2)
        for unit in range(11):
            job, _ = submit(jobs, question(unit), MODEL)
            waits.append(cast(float, ended(jobs, job.id).waited_s))
    assert sorted(waits)[5] < 1.0  # a look would have found it within a minute


@pytest.mark.parametrize("where", ["its own", "stop-job", "kill-horse"])
def test_a_running_job_is_stopped(redis: Redis, store: Store, jobs: Jobs, where: str) -> None:
    stops: dict[str, Callable[[str], object]] = {
        "its own": jobs.cancel,
        "stop-job": lambda job_id: send_stop_job_command(redis, job_id, serializer=rq_entries.SERIALIZER),
        "kill-horse": lambda job_id: send_kill_horse_command(redis, "host.0"),
    }
    engine = CountingEngine(step_s=0.02)
    job, _ = submit(jobs, question(0, steps=LONG), MODEL)
    behind, _ = submit(jobs, question(1), MODEL)
    with working(redis, store, engine, beat_s=3600.0):  # no beat finds it
        until(lambda: runs(redis, job.id) and engine.tickets != [] and is_heard(redis))
        stops[where](job.id)
        stopped = ended(jobs, job.id)
        assert (stopped.state, stopped.problem) == ("canceled", None)
        assert ended(jobs, behind.id).state == "succeeded"  # the slot goes on
    assert redis.hget(rq_names.entry_key(job.id), "status") == b"canceled"
    assert redis.zscore(rq_names.CANCELED_KEY, job.id) is not None
    assert redis.zcard(rq_names.LEASES_KEY) == 0


def test_commands_for_another_job_or_none_change_nothing(
    redis: Redis, store: Store, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    engine = CountingEngine(step_s=0.005)
    job, _ = submit(jobs, question(steps=100), MODEL)
    with working(redis, store, engine, slots=2) as runtime:
        until(lambda: engine.tickets != [] and is_heard(redis))
        slot = next(name for name in ("host.0", "host.1") if runs_in(redis, name, job.id))
        idle = {"host.0": "host.1", "host.1": "host.0"}[slot]
        send_command(redis, slot, "stop-job", job_id="another")
        send_command(redis, idle, "kill-horse")
        send_command(redis, slot, "no-such-command")
        redis.publish(f"rq:pubsub:{slot}", "this is not JSON")
        redis.publish(f"rq:pubsub:{slot}", "[]")
        redis.publish("rq:pubsub:elsewhere.0", '{"command": "shutdown"}')
        assert ended(jobs, job.id).state == "succeeded"
        assert not runtime.stopping.is_set()
    assert sum("a command that is none" in record.message for record in caplog.records) == 2


def runs_in(redis: Redis, slot: str, job_id: str) -> bool:
    return redis.hget(f"rq:worker:{slot}", "current_job") == job_id.encode()


def test_rqs_shutdown_drains_the_process(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(steps=LONG), MODEL)
    with working(redis, store, CountingEngine(step_s=0.02), slots=2) as runtime:
        until(lambda: runs(redis, job.id) and is_heard(redis))
        send_shutdown_command(redis, "host.1")
        assert runtime.stopping.wait(30)
    assert waiting(redis) == [job.id]


def test_a_lost_connection_is_made_again_and_nothing_missed(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LOOK_S", 60.0)
    with working(redis, store, CountingEngine()):
        until(lambda: is_heard(redis))
        time.sleep(0.1)
        redis.client_kill_filter(_type="pubsub")
        job, _ = submit(jobs, question(), MODEL)  # nobody hears of this one
        assert ended(jobs, job.id).state == "succeeded"
        until(lambda: is_heard(redis))


def test_a_restarted_redis_is_listened_to_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LOOK_S", 60.0)
    with ExitStack() as at_work:
        with EmbeddedValkey(tmp_path) as first:
            redis = at_work.enter_context(connect(first.url))
            jobs = Jobs(redis, store)
            at_work.enter_context(working(redis, store, CountingEngine(step_s=0.005), slots=3))
            job, _ = submit(jobs, question(0, steps=300), MODEL)
            until(lambda: runs(redis, job.id))
        time.sleep(0.5)
        with EmbeddedValkey(tmp_path) as second, at_work:
            assert second.url == first.url
            until(lambda: is_heard(redis))
            assert ended(jobs, job.id).state == "succeeded"
            later, _ = submit(jobs, question(1), MODEL)
            assert ended(jobs, later.id).state == "succeeded"
