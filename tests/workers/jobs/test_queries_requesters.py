"""One job and several callers: who asked, who withdrew, who is left."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from tests.support.job_calls import requester, submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, take
from workers.broker.keys import requesters_key
from workers.broker.limits import FINISHED_TTL_S
from workers.errors import QueueLimitReached
from workers.jobs.repository import Jobs, Limits, Requester
from workers.queue.leases import Leases, Run


def running(redis: Redis, leases: Leases) -> Run:
    """The next job, in the hands of a run."""
    run = Run(pop(redis), "e1")
    assert take(leases, run) == "taken"
    return run


def test_each_who_asks_is_kept_and_nobody_else_has_asked(redis: Redis, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL, caller="a")
    submit(jobs, question(), MODEL, caller="b")
    assert requester(jobs, job.id, "a") == requester(jobs, job.id, "b") == Requester()
    assert requester(jobs, job.id, "c") is None
    assert redis.ttl(requesters_key(job.id)) == -1, "kept as long as the job waits"


def test_where_callers_are_not_told_apart_nothing_is_kept(redis: Redis, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    assert not redis.exists(requesters_key(job.id))
    assert jobs.cancel(job.id).state == "canceled"  # type: ignore[union-attr]


def test_who_withdraws_leaves_the_job_to_the_others(jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL, caller="a")
    submit(jobs, question(), MODEL, caller="b")
    before = time.time() - 1
    left = jobs.cancel(job.id, caller="a")
    assert left is not None
    assert left.state == "queued"
    asked = requester(jobs, job.id, "a")
    assert asked is not None
    assert asked.withdrawn_at is not None
    assert before < asked.withdrawn_at < time.time() + 1
    assert left.as_withdrawn(asked.withdrawn_at).state == "canceled"
    assert requester(jobs, job.id, "b") == Requester()


def test_the_last_who_withdraws_cancels_it(redis: Redis, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL, caller="a")
    submit(jobs, question(), MODEL, caller="b")
    jobs.cancel(job.id, caller="a")
    ended = jobs.cancel(job.id, caller="b")
    assert ended is not None
    assert ended.state == "canceled"
    assert 0 < redis.ttl(requesters_key(job.id)) <= FINISHED_TTL_S


def test_a_run_goes_on_for_the_others_and_stops_with_the_last(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    job, _ = submit(jobs, question(), MODEL, caller="a")
    submit(jobs, question(), MODEL, caller="b")
    run = running(redis, leases)
    jobs.cancel(job.id, caller="a")
    assert not leases.beat(run).cancel
    jobs.cancel(job.id, caller="b")
    assert leases.beat(run).cancel


def test_who_asks_again_has_not_withdrawn(jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL, caller="a")
    submit(jobs, question(), MODEL, caller="b")
    jobs.cancel(job.id, caller="a")
    submit(jobs, question(), MODEL, caller="a")
    assert requester(jobs, job.id, "a") == Requester()


def test_a_stranger_withdraws_nobody(jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL, caller="a")
    left = jobs.cancel(job.id, caller="b")
    assert left is not None
    assert left.state == "queued"
    assert requester(jobs, job.id, "b") is None


def test_what_waits_and_what_runs_of_a_caller_is_in_flight(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    limits = Limits(in_flight=2)
    job, _ = submit(jobs, question(0), MODEL, caller="a", limits=limits)
    running(redis, leases)
    submit(jobs, question(1), MODEL, caller="a", limits=limits)
    with pytest.raises(
        QueueLimitReached, match="2 jobs of this caller wait or run already, and at most 2 may"
    ) as no:
        submit(jobs, question(2), MODEL, caller="a", limits=limits)
    assert no.value.code == "too_many_in_flight"
    assert submit(jobs, question(0), MODEL, caller="a", limits=limits) == (jobs.fetch(job.id), False)
    assert submit(jobs, question(2), MODEL, caller="b", limits=limits)[1], "others have their own"
    assert not submit(jobs, question(2), MODEL, caller="a", limits=limits)[1], "what is joined is no new job"
