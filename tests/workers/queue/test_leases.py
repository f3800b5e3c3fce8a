"""A run speaks for its job while its lease lasts, and not a moment longer."""

from __future__ import annotations

import time
from typing import cast

import pytest
from redis import Redis

from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, record, started, take
from workers.broker import keys, limits, rq_names
from workers.errors import LeaseLost
from workers.jobs.repository import Jobs
from workers.queue.fair_queue import FairQueue
from workers.queue.leases import LEASE_S, Leases, Run


def test_taking_starts_the_job(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    job = record(jobs, run)
    assert (job.state, job.worker) == ("running", "host")
    assert job.started_at is not None
    assert job.started_at >= job.created_at
    assert redis.hget(rq_names.entry_key(run.job_id), "status") == b"started"
    assert redis.llen(rq_names.INTERMEDIATE_KEY) == 0
    score = cast(float, redis.zscore(rq_names.LEASES_KEY, run.member))
    assert score - time.time() == pytest.approx(LEASE_S, abs=LEASE_S / 2)


def test_what_was_returned_to_the_queue_is_not_taken(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    submit(jobs, question(), MODEL)
    run = Run(pop(redis), "e1")
    assert FairQueue(redis).put_back([run.job_id]) == 1
    assert take(leases, run) == "elsewhere"
    assert record(jobs, run).state == "queued"
    assert redis.zcard(rq_names.LEASES_KEY) == 0


def test_a_job_that_runs_is_not_taken_twice(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    first = started(redis, jobs, leases)
    redis.rpush(rq_names.INTERMEDIATE_KEY, first.job_id)  # a second entry of the same job
    assert take(leases, Run(first.job_id, "e2")) == "elsewhere"
    leases.write(first, {"step": "2"})
    assert redis.llen(rq_names.INTERMEDIATE_KEY) == 0


def test_a_run_whose_answer_was_lost_on_the_way_may_ask_again(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    """The client sends a script again when the connection broke after Redis had run it."""
    run = started(redis, jobs, leases)
    before = record(jobs, run)
    assert take(leases, run) == "taken"
    assert record(jobs, run) == before
    assert redis.zcard(rq_names.LEASES_KEY) == 1


def test_a_job_that_has_ended_is_not_taken(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    submit(jobs, question(), MODEL)
    run = Run(pop(redis), "e1")
    redis.hset(keys.job_key(run.job_id), "state", "canceled")
    assert take(leases, run) == "over"
    assert redis.zcard(rq_names.LEASES_KEY) == 0


def test_a_job_whose_entry_went_after_it_was_popped_is_not_taken(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    submit(jobs, question(), MODEL)
    run = Run(pop(redis), "e1")
    redis.delete(rq_names.entry_key(run.job_id))  # what `Job.delete` of RQ does
    assert take(leases, run) == "over"
    assert record(jobs, run).state == "canceled"
    assert redis.exists(rq_names.entry_key(run.job_id)) == redis.zcard(rq_names.LEASES_KEY) == 0


def test_a_beat_prolongs_the_lease(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    redis.zadd(rq_names.LEASES_KEY, {run.member: time.time() + 1})
    assert leases.beat(run)
    score = cast(float, redis.zscore(rq_names.LEASES_KEY, run.member))
    assert score - time.time() == pytest.approx(LEASE_S, abs=LEASE_S / 2)


def test_without_the_lease_nothing_is_written_and_nothing_revived(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    run = started(redis, jobs, leases)
    redis.zrem(rq_names.LEASES_KEY, run.member)
    assert not leases.beat(run)
    with pytest.raises(LeaseLost, match=f"job {run.job_id}"):
        leases.write(run, {"state": "succeeded"})
    assert not leases.give_back(run)
    assert record(jobs, run).state == "running"
    assert redis.zcard(rq_names.LEASES_KEY) == 0
    assert redis.llen(rq_names.QUEUE_KEY) == 0


def test_a_finished_record_is_forgotten_in_time(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    assert redis.ttl(keys.job_key(run.job_id)) == -1
    leases.write(run, {"state": "failed"}, ttl_s=limits.FINISHED_TTL_S)
    assert limits.FINISHED_TTL_S - 60 < redis.ttl(keys.job_key(run.job_id)) <= limits.FINISHED_TTL_S


def test_a_job_given_back_is_next_and_has_lost_nothing(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    leases.write(run, {"step": "2", "activation": "0.5"})
    submit(jobs, question(1), MODEL)
    assert leases.give_back(run)
    job = record(jobs, run)
    assert (job.state, job.losses, job.step, job.activation, job.started_at) == ("queued", 0, 0, None, None)
    assert jobs.queue_position(run.job_id) == 0
    assert redis.hget(rq_names.entry_key(run.job_id), "status") == b"queued"
    assert redis.keys("rq:execution*") == []


def test_a_job_asked_for_again_leaves_its_old_run_without_a_voice(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    run = started(redis, jobs, leases)
    leases.write(run, {"state": "failed"})  # and the slot stands still before it can tell RQ
    assert submit(jobs, question(), MODEL)[1]
    assert not leases.beat(run)
    assert take(leases, Run(pop(redis), "e2")) == "taken"
    assert not leases.give_back(run)
    assert record(jobs, run).state == "running"
