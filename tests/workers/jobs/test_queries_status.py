"""Looking at a job: its record, its place, and the promise of its answer, in one step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from proxygrad.protocol.problems import Problem
from tests.support.job_calls import requester, submit
from tests.support.model_on_paper import MODEL, question
from workers.broker.keys import FORGOTTEN_KEY, deletion_lock_key, job_key, pin_key
from workers.broker.pipeline import run_blocking
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.jobs.queries import StatusQuery
from workers.jobs.repository import Job, Jobs, Requester

Look = Callable[[str], tuple[Job | None, bool]]


@pytest.fixture
def look(redis: Redis) -> Look:
    looks = StatusQuery(redis)
    return lambda job_id: looks(job_id)(redis)


def succeeded(jobs: Jobs, redis: Redis, unit: int = 0) -> str:
    job, _ = submit(jobs, question(unit), MODEL)
    redis.hset(job_key(job.id), mapping={"state": "succeeded", "finished_at": job.created_at + 1})
    return job.id


def test_of_one_that_waits_it_says_how_many_are_before_it_and_whether_it_is_taken(
    jobs: Jobs, redis: Redis, look: Look
) -> None:
    ids = [submit(jobs, question(unit), MODEL)[0].id for unit in range(3)]
    assert [(job.place.ahead, job.place.taken) for job, _ in map(look, ids) if job] == [
        (n, False) for n in range(3)
    ]
    broken = ServedModel(name=MODEL.name, problem=Problem(code="model_unavailable", detail="truncated"))
    catalog.publish(redis, "one", [broken])
    assert [job.place.taken for job, _ in map(look, ids) if job] == [False] * 3
    catalog.publish(redis, "two", [ServedModel(name=MODEL.name, info=MODEL)])
    assert [job.place.taken for job, _ in map(look, ids) if job] == [True] * 3
    again, created = submit(jobs, question(1), MODEL)
    assert (again.place.ahead, again.place.taken, created) == (1, True, False)


def test_what_nobody_asked_for_is_promised_to_nobody(jobs: Jobs, redis: Redis, look: Look) -> None:
    assert look("0" * 32) == (None, False)
    assert run_blocking(jobs.look("0" * 32), redis) is None
    assert redis.keys(pin_key("*")) == []


def test_an_answer_is_promised_each_time_it_is_looked_at(jobs: Jobs, redis: Redis, look: Look) -> None:
    job_id = succeeded(jobs, redis)
    for _ in range(2):
        redis.delete(pin_key(job_id))
        job, promised = look(job_id)
        assert job is not None
        assert promised
        assert 0 < redis.ttl(pin_key(job_id)) <= 3600


def test_one_that_is_being_removed_is_not_promised(jobs: Jobs, redis: Redis, look: Look) -> None:
    job_id = succeeded(jobs, redis)
    look(job_id)
    redis.set(deletion_lock_key(job_id), "token")
    job, promised = look(job_id)
    assert job is not None
    assert not promised


def test_an_unchanged_answer_is_the_same_object(jobs: Jobs, redis: Redis, look: Look) -> None:
    job_id = succeeded(jobs, redis)
    first = look(job_id)[0]
    assert look(job_id)[0] is first
    redis.hset(job_key(job_id), "finished_at", 2e9)
    second = look(job_id)[0]
    assert second is not None
    assert second.finished_at == 2e9
    redis.hset(job_key(job_id), "state", "failed")
    assert getattr(look(job_id)[0], "state", None) == "failed"
    redis.delete(job_key(job_id))
    assert look(job_id)[0] is None


def test_who_asks_for_an_answer_is_noted_with_the_look(jobs: Jobs, redis: Redis) -> None:
    job_id, looks = succeeded(jobs, redis), StatusQuery(redis)
    redis.sadd(FORGOTTEN_KEY, job_id)
    assert looks(job_id)(redis)[1]
    assert redis.sismember(FORGOTTEN_KEY, job_id)
    assert looks(job_id, requester="me")(redis)[1]
    assert not redis.sismember(FORGOTTEN_KEY, job_id)
    assert requester(jobs, job_id, "me") == Requester()
    assert requester(jobs, job_id, "you") is None


def test_nobody_is_noted_for_what_is_being_removed(jobs: Jobs, redis: Redis) -> None:
    job_id = succeeded(jobs, redis)
    redis.set(deletion_lock_key(job_id), "token")
    StatusQuery(redis)(job_id, requester="me")(redis)
    assert requester(jobs, job_id, "me") is None
