"""Popping: lossless, of what is really there and still wanted, told to those who wait for it."""

from __future__ import annotations

import time
from typing import cast

import pytest
from redis import Redis
from rq import Queue as RQQueue
from rq.job import Job as RQJob

from proxygrad.protocol.problems import Problem
from tests.support.slot_steps import waiting
from tests.support.waiting_jobs import Queue, job_id
from workers.broker import keys, rq_names
from workers.jobs.repository import Jobs
from workers.queue import rq_entries
from workers.queue.fair_queue import FairQueue
from workers.queue.janitor import Janitor


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue(redis)


def popped(redis: Redis) -> list[str]:
    return [name.decode() for name in cast(list[bytes], redis.lrange(rq_names.INTERMEDIATE_KEY, 0, -1))]


def rq_entry(redis: Redis, number: int) -> RQJob:
    return RQJob.fetch(job_id(number), connection=redis, serializer=rq_entries.SERIALIZER)


def index_of(redis: Redis) -> list[bytes]:
    """All that remains of the index, and of who waits, once nobody does."""
    return [
        key
        for pattern in ("ready", "offsets", "fronts", "waiting", "deadlines", "callers")
        for key in cast(list[bytes], redis.keys(f"proxygrad:{pattern}*"))
    ]


def test_what_was_popped_stands_where_rq_looks_for_it(queue: Queue, redis: Redis) -> None:
    numbers = [queue.ask("a") for _ in range(3)]
    assert queue.pop(2) == numbers[:2]
    assert popped(redis) == [job_id(number) for number in numbers[:2]]
    assert waiting(redis) == [job_id(numbers[2])]
    assert redis.smembers("proxygrad:waiting:a") == {job_id(numbers[2]).encode()}
    assert queue.pop(5) == numbers[2:]
    assert queue.pop(5) == []
    assert index_of(redis) == []


def test_positions_are_those_of_the_order(queue: Queue, redis: Redis) -> None:
    for caller in "aaaabb":
        queue.ask(caller)
    queue.ask("c", cost=1.5)
    queue.ask("b", priority="batch")
    queue.ask("c", model="other")
    places = {number: queue.ready.position(job_id(number)) for number in range(9)}
    order = queue.pop(9, ("tiny", "other"))
    assert sorted(order) == list(range(9))
    assert sorted(places, key=lambda number: cast(int, places[number])) == order
    assert queue.ready.position(job_id(0)) is None
    assert queue.ready.position("nobody") is None


def test_a_job_deleted_with_rq_is_skipped(queue: Queue, redis: Redis, jobs: Jobs) -> None:
    gone, there = queue.ask("a", deadline_s=100), queue.ask("a")
    rq_entry(redis, gone).delete()
    assert queue.pop(2) == [there]
    assert index_of(redis) == []
    job = jobs.fetch(job_id(gone))
    assert job is not None
    assert (job.state, job.problem) == (
        "canceled",
        Problem(code="removed", detail="the job was removed with a tool of RQ"),
    )


def test_a_job_past_its_deadline_fails_instead(queue: Queue, redis: Redis, jobs: Jobs) -> None:
    late, there = queue.ask("a", deadline_s=0.02), queue.ask("a", deadline_s=100)
    time.sleep(0.03)
    assert queue.pop(2) == [there]
    job = jobs.fetch(job_id(late))
    assert job is not None
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", "deadline_exceeded")
    assert "0.02 s after the question was asked" in job.problem.detail
    assert rq_entry(redis, late).is_failed
    assert redis.zscore(rq_names.FAILED_KEY, job_id(late)) is not None
    assert redis.ttl(keys.job_key(job_id(late))) > 0
    assert cast(list[bytes], redis.zrange("proxygrad:deadlines", 0, -1)) == [job_id(there).encode()]


def test_many_that_nobody_may_run_do_not_hide_the_one_behind_them(queue: Queue, redis: Redis) -> None:
    for _ in range(250):
        queue.ask("a", deadline_s=0.001)
    there = queue.ask("a")
    assert queue.pop() == [there]
    assert redis.zcard(rq_names.FAILED_KEY) == 250


def test_the_sweep_fails_what_nobody_pops(queue: Queue, redis: Redis, jobs: Jobs) -> None:
    late, held, there = queue.ask("a", deadline_s=1.5), queue.ask("b", deadline_s=1.5), queue.ask("a")
    assert Janitor(redis).sweep() == {}
    queue.pop()  # the first; a worker has it in hand
    time.sleep(1.6)
    assert Janitor(redis).sweep() == {job_id(held): "failed"}
    assert Janitor(redis).sweep() == {}
    queue.ready.put_back([job_id(late)])
    assert Janitor(redis).sweep() == {job_id(late): "failed"}
    assert waiting(redis) == [job_id(there)]


def test_whoever_waits_for_work_is_told_of_the_model(queue: Queue, redis: Redis) -> None:
    with redis.pubsub(ignore_subscribe_messages=True) as listening:  # type: ignore[no-untyped-call]
        listening.subscribe(keys.WAKE_CHANNEL)
        listening.get_message(timeout=10)
        queue.ask("a", model="m1")
        queue.ask("a", model="m2")
        queue.pop(1, ("m1",))
        queue.ready.put_back([job_id(0)])
        told = [listening.get_message(timeout=10) for _ in range(3)]
    assert [message and message["data"] for message in told] == [b"m1", b"m2", b"m1"]


def test_only_what_was_popped_is_put_back(queue: Queue, redis: Redis) -> None:
    numbers = [queue.ask("a") for _ in range(3)]
    queue.pop(2)
    assert queue.ready.put_back([job_id(number) for number in numbers]) == 2
    assert queue.ready.put_back([]) == 0
    assert popped(redis) == []
    assert queue.pop(5) == numbers


def test_any_model_is_for_those_who_ask_for_all(redis: Redis, queue: Queue) -> None:
    queue.ask("a", model="m1")
    queue.ask("a", model="m2")
    assert len(FairQueue(redis).pop(None, 5)) == 2


def test_rq_counts_what_waits(queue: Queue, redis: Redis) -> None:
    for _ in range(3):
        queue.ask("a")
    queue.pop()
    assert RQQueue(rq_names.QUEUE_NAME, connection=redis, serializer=rq_entries.SERIALIZER).count == 2
