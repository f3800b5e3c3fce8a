"""What somebody who can write to Redis could try, and what slots make of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="slots run the task, which needs torch")

from rq import Worker
from rq.job import Job as RQJob
from rq.job import JobStatus

from tests.support.counting_engine import CountingEngine
from tests.support.eventually import ended, until
from tests.support.model_on_paper import MODEL, question
from tests.support.rq_entries import nothing_left, status, why
from tests.support.worker_in_process import working
from workers.broker import rq_names
from workers.jobs.repository import Jobs
from workers.process.rq_worker import QueueEntry
from workers.queue import rq_entries
from workers.queue.fair_queue import FairQueue
from workers.storage.store import Store

pytestmark = pytest.mark.engine


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "trapped"
    yield path
    assert not path.exists()


def smuggle(redis: Redis, func: str, *args: object, job_id: str = "smuggled", **fields: Any) -> str:
    """Put an entry into the queue that names another function."""
    job = RQJob.create(
        func,
        args=args,
        id=job_id,
        connection=redis,
        origin=rq_names.QUEUE_NAME,
        serializer=rq_entries.SERIALIZER,
    )
    job.set_status(JobStatus.QUEUED)
    job.save()
    if fields:
        redis.hset(job.key, mapping=cast(Any, fields))
    redis.rpush(rq_names.QUEUE_KEY, job_id)
    redis.hset("proxygrad:offsets:interactive", "tiny", 0)
    redis.zadd("proxygrad:ready:interactive:tiny", {f"{0:016d}:{job_id}": 0})
    return job_id


def test_other_functions_are_refused(redis: Redis, store: Store, trap: Path) -> None:
    job_id = smuggle(redis, "os.mkdir", str(trap))
    with working(redis, store, CountingEngine()):
        until(lambda: status(redis, job_id) == b"failed")
    assert "names the task 'os.mkdir'; allowed: workers.render.render" in why(redis, job_id)
    assert nothing_left(redis)


def test_an_entry_that_cannot_be_read_fails(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    after, _ = submit(jobs, question(1), MODEL)
    redis.hset(rq_names.entry_key(job.id), "created_at", "the day before yesterday")
    with working(redis, store, CountingEngine()):
        assert ended(jobs, after.id).state == "succeeded"
        done = ended(jobs, job.id)
        assert Worker.all(connection=redis)[0].name == "host.0"  # which did not fall over it
    assert done.problem is not None
    assert (done.state, done.problem.code) == ("failed", "internal_error")
    assert status(redis, job.id) == b"failed"
    assert nothing_left(redis)


def test_callbacks_are_ignored(redis: Redis, store: Store, jobs: Jobs, trap: Path) -> None:
    job, _ = submit(jobs, question(), MODEL)
    names = {
        f"{when}_callback_name": "tests.workers.scenarios.test_smuggling.spring"
        for when in ("success", "failure")
    }
    redis.hset(rq_names.entry_key(job.id), mapping=cast(Any, names))
    redis.hset(
        rq_names.entry_key(job.id), "webhooks", '[{"url": "http://127.0.0.1:1/", "job_status": "finished"}]'
    )
    restored = QueueEntry.fetch(job.id, connection=redis, serializer=rq_entries.SERIALIZER)
    assert (restored.success_callback, restored.failure_callback, restored.webhooks) == (None, None, [])
    with working(redis, store, CountingEngine()):
        assert ended(jobs, job.id).state == "succeeded"


def spring(*_: object) -> None:
    """What must never be called."""
    raise AssertionError("a callback from Redis was called")


def test_methods_of_stored_objects_are_refused(redis: Redis, store: Store) -> None:
    job_id = smuggle(redis, rq_entries.TASK, "x")
    redis.hset(rq_names.entry_key(job_id), "data", b'["title", "text", [], {}]')
    with working(redis, store, CountingEngine()):
        until(lambda: status(redis, job_id) == b"failed")
    assert "names the task 'title'" in why(redis, job_id)


def test_an_entry_for_another_job_is_refused(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    assert FairQueue(redis).pop(["tiny"], 1) == [job.id]  # out of the way
    redis.delete(rq_names.INTERMEDIATE_KEY)
    job_id = smuggle(redis, rq_entries.TASK, job.id)
    with working(redis, store, CountingEngine()):
        until(lambda: status(redis, job_id) == b"failed")
    assert f"asks for job {job.id}" in why(redis, job_id)
    seen = jobs.fetch(job.id)
    assert seen is not None
    assert seen.state == "queued"


def test_an_entry_without_a_record_fails(redis: Redis, store: Store) -> None:
    job_id = smuggle(redis, rq_entries.TASK, "smuggled")
    with working(redis, store, CountingEngine()):
        until(lambda: status(redis, job_id) == b"failed")
    assert "job smuggled has no record" in why(redis, job_id)
    assert redis.keys("proxygrad:job:*") == []
