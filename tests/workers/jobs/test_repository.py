"""Submitting and looking up: one question, one job, whatever happened to it before."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job as RQJob

from proxygrad.errors import UnitOutOfRange
from proxygrad.protocol.problems import Problem
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, UNITS, outcome, question
from tests.support.slot_steps import waiting
from workers.broker import keys, rq_names
from workers.broker.connection import connect
from workers.jobs.kinds.visualization import VisualizationJob
from workers.jobs.repository import Jobs
from workers.queue import rq_entries
from workers.storage.paths import result_path
from workers.storage.store import Store


def succeed(redis: Redis, store: Store, job: VisualizationJob) -> VisualizationJob:
    """End ``job`` as a worker does."""
    update = {"state": "succeeded", "started_at": job.created_at + 1, "finished_at": job.created_at + 3}
    ended = job.model_copy(update={**update, "result": outcome(job.spec)})
    store.put(result_path(job.id), ended.model_dump_json().encode())
    redis.hset(keys.job_key(job.id), mapping=cast(Any, ended.to_fields()))
    redis.lrem(rq_names.QUEUE_KEY, 0, job.id)
    redis.hset(rq_names.entry_key(job.id), "status", "finished")
    return ended


def test_a_new_question_is_queued(redis: Redis, jobs: Jobs) -> None:
    job, created = submit(jobs, question(3), MODEL)
    assert created
    assert (job.state, job.step, job.steps, job.losses) == ("queued", 0, 4, 0)
    assert job.spec == question(3).resolve(MODEL)
    assert job.id == question(3).identity(MODEL)
    assert jobs.fetch(job.id) == job
    assert waiting(redis) == [job.id]


def test_rq_sees_an_ordinary_job_without_pickle(redis: Redis, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    entry = RQJob.fetch(job.id, connection=redis, serializer=rq_entries.SERIALIZER)
    assert entry.func_name == rq_entries.TASK
    assert entry.args == [job.id]
    assert entry.is_queued
    assert entry.origin == rq_names.QUEUE_NAME
    assert Queue.all(redis) == [Queue(rq_names.QUEUE_NAME, connection=redis)]


def test_the_same_question_is_joined(redis: Redis, jobs: Jobs) -> None:
    first, _ = submit(jobs, question(), MODEL)
    again, created = submit(jobs, question(), MODEL)
    assert (again, created) == (first, False)
    assert waiting(redis) == [first.id]


def test_of_sixteen_at_once_one_creates_the_job(redis_url: str, redis: Redis, store: Store) -> None:
    ready = threading.Barrier(16)
    created: list[bool] = []

    def ask() -> None:
        with connect(redis_url) as client:
            jobs = Jobs(client, store)
            ready.wait()
            created.append(submit(jobs, question(), MODEL)[1])

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [False] * 15 + [True]
    assert len(waiting(redis)) == 1


def test_an_answered_question_is_answered_at_once(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    ended = succeed(redis, store, job)
    assert submit(jobs, question(), MODEL) == (ended, False)
    assert [ended.waited_s, ended.ran_s] == pytest.approx([1, 2])
    assert waiting(redis) == []


def test_the_store_answers_when_redis_has_forgotten(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    ended = succeed(redis, store, job)
    redis.flushall()
    assert jobs.fetch(job.id) == ended
    assert submit(jobs, question(), MODEL) == (ended, False)
    assert waiting(redis) == []


def test_an_answer_that_left_the_store_is_computed_again(
    redis: Redis, store: Store, jobs: Jobs, redis_url: str
) -> None:
    job, _ = submit(jobs, question(), MODEL)
    ended = job.model_copy(update={"state": "succeeded"})
    redis.hset(keys.job_key(job.id), mapping=cast(Any, ended.to_fields()))
    redis.delete(rq_names.QUEUE_KEY)
    again, created = submit(jobs, question(), MODEL)
    assert (again.state, created) == ("queued", True)
    assert waiting(redis) == [job.id]


@pytest.mark.parametrize("state", ["failed", "canceled"])
def test_a_job_without_an_answer_is_queued_again_and_forgets(redis: Redis, jobs: Jobs, state: str) -> None:
    job, _ = submit(jobs, question(), MODEL)
    problem = Problem(code="worker_lost", detail="…")
    redis.hset(
        keys.job_key(job.id), mapping={"state": state, "losses": 3, "problem": problem.model_dump_json()}
    )
    redis.hset(rq_names.entry_key(job.id), "status", "failed")
    redis.zadd(rq_names.FAILED_KEY, {job.id: 1e12})
    redis.expire(keys.job_key(job.id), 100)
    redis.delete(rq_names.QUEUE_KEY)
    again, created = submit(jobs, question(), MODEL)
    assert created
    assert (again.state, again.losses, again.problem) == ("queued", 0, None)
    assert waiting(redis) == [job.id]
    assert redis.zcard(rq_names.FAILED_KEY) == 0
    assert redis.ttl(keys.job_key(job.id)) == -1


@pytest.mark.parametrize("lost", [rq_names.entry_key, keys.job_key])
def test_a_job_that_lost_half_of_itself_is_queued_again(redis: Redis, jobs: Jobs, lost: object) -> None:
    job, _ = submit(jobs, question(), MODEL)
    redis.delete(lost(job.id))  # type: ignore[operator]
    again, created = submit(jobs, question(), MODEL)
    assert (again.state, created) == ("queued", True)
    assert waiting(redis) == [job.id]


def test_a_question_the_model_cannot_answer_leaves_nothing(redis: Redis, jobs: Jobs) -> None:
    with pytest.raises(UnitOutOfRange):
        submit(jobs, question(UNITS), MODEL)
    assert redis.keys("*") == []


def test_positions_count_from_the_next(redis: Redis, jobs: Jobs) -> None:
    ids = [submit(jobs, question(unit), MODEL)[0].id for unit in range(3)]
    assert [jobs.queue_position(job_id) for job_id in ids] == [0, 1, 2]
    assert jobs.queue_position("nothing") is None


def test_an_unknown_job_is_none(jobs: Jobs) -> None:
    assert jobs.fetch("0" * 32) is None


def test_a_record_is_the_same_after_a_round_through_redis(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    ended = succeed(redis, store, job)
    assert jobs.fetch(job.id) == ended
    assert jobs.stored(job.id) == ended


def test_a_damaged_record_in_the_store_is_named(
    store: Store, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(result_path("x"), b"{")
    assert jobs.fetch("x") is None
    assert f"x/result.json in the store {store.url} is damaged" in caplog.text
