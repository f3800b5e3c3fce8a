"""Jobs of dead workers are found, once, by however many janitors."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest
from redis import Redis

from proxygrad.protocol.problems import Problem
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, record, started, take, waiting
from workers.broker import keys, rq_names
from workers.broker.connection import connect
from workers.broker.limits import MAX_LOSSES
from workers.jobs.repository import Jobs
from workers.queue.janitor import Janitor
from workers.queue.leases import BEAT_S, LEASE_S, Leases, Run

JANITORS = 8
LOST = 60  # fewer than a sweep looks at


def expire(redis: Redis, run: Run) -> None:
    redis.zadd(rq_names.LEASES_KEY, {run.member: 1})


def seen_long_ago(redis: Redis, job_id: str) -> None:
    redis.hset("proxygrad:popped", job_id, "1")


def at_once(redis_url: str, sweep: Callable[[Janitor], object]) -> list[object]:
    """What each of several janitors found, all sweeping at the same moment over connections of their own."""
    ready = threading.Barrier(JANITORS)
    found: list[object] = []

    def work() -> None:
        with connect(redis_url) as client:
            client.ping()
            janitor = Janitor(client)
            ready.wait()
            found.append(sweep(janitor))

    threads = [threading.Thread(target=work) for _ in range(JANITORS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_lease_that_lasts_is_left_alone(redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor) -> None:
    run = started(redis, jobs, leases)
    assert janitor.sweep() == {}
    leases.write(run, {"step": "1"})


def test_a_lost_job_is_next(redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor) -> None:
    run = started(redis, jobs, leases)
    submit(jobs, question(1), MODEL)
    expire(redis, run)
    assert janitor.sweep() == {run.job_id: "queued"}
    job = record(jobs, run)
    assert (job.state, job.losses) == ("queued", 1)
    assert jobs.queue_position(run.job_id) == 0
    assert not leases.beat(run)
    assert take(leases, Run(pop(redis), "e2")) == "taken"


def test_a_lost_job_without_a_turn_gets_one_and_holds_up_no_other(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor
) -> None:
    """Records of an earlier version have none."""
    old = started(redis, jobs, leases)
    redis.hdel(keys.job_key(old.job_id), "priority", "model", "turn", "arrival", "flow", "caller")
    submit(jobs, question(1), MODEL)
    other = Run(pop(redis), "e2")
    assert take(leases, other) == "taken"
    for run in (old, other):
        expire(redis, run)
    assert janitor.sweep() == {old.job_id: "queued", other.job_id: "queued"}
    assert {pop(redis), pop(redis)} == {old.job_id, other.job_id}
    assert redis.hget(keys.job_key(old.job_id), "losses") == b"1"


def test_after_three_losses_it_fails_and_says_why(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor
) -> None:
    submit(jobs, question(), MODEL)
    for life in range(MAX_LOSSES):
        run = Run(pop(redis), f"e{life}")
        assert take(leases, run) == "taken"
        expire(redis, run)
        janitor.sweep()
    job = record(jobs, run)
    assert (job.state, job.losses) == ("failed", 3)
    assert job.problem is not None
    assert job.problem == Problem(code="worker_lost", detail=job.problem.detail)
    assert "3 workers" in job.problem.detail
    assert job.finished_at is not None
    assert waiting(redis) == []
    assert redis.hget(rq_names.entry_key(run.job_id), "status") == b"failed"
    assert redis.zscore(rq_names.FAILED_KEY, run.job_id) is not None
    assert redis.ttl(keys.job_key(run.job_id)) > 0
    assert submit(jobs, question(), MODEL)[1]  # asking again is a new beginning


def test_a_job_that_ended_before_its_worker_died_stays_ended(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor
) -> None:
    run = started(redis, jobs, leases)
    leases.write(run, {"state": "succeeded"})
    expire(redis, run)
    assert janitor.sweep() == {run.job_id: "over"}
    assert record(jobs, run).state == "succeeded"
    assert waiting(redis) == []
    assert redis.hget(rq_names.entry_key(run.job_id), "status") == b"finished"


def test_an_old_run_of_a_job_that_runs_elsewhere_changes_nothing(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor
) -> None:
    old = started(redis, jobs, leases)
    redis.zrem(rq_names.LEASES_KEY, old.member)
    assert janitor.sweep() == {old.job_id: "queued"}
    new = Run(pop(redis), "e2")
    assert take(leases, new) == "taken"
    expire(redis, old)
    assert janitor.sweep() == {old.job_id: "stale"}
    leases.write(new, {"step": "1"})
    assert waiting(redis) == []


def test_of_many_janitors_one_finds_each_lost_job(
    redis_url: str, redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    for unit in range(LOST):
        submit(jobs, question(unit), MODEL)
        run = Run(pop(redis), "e1")
        take(leases, run)
        expire(redis, run)
    found = at_once(redis_url, Janitor.reclaim_expired)
    finders = Counter(job_id for each in found for job_id in cast(dict[str, str], each))
    assert len(finders) == LOST
    assert set(finders.values()) == {1}
    assert Counter(waiting(redis)) == finders
    assert {record(jobs, Run(job_id, "")).losses for job_id in finders} == {1}


def test_what_was_popped_and_never_started_is_next_again(redis: Redis, jobs: Jobs, janitor: Janitor) -> None:
    submit(jobs, question(0), MODEL)
    submit(jobs, question(1), MODEL)
    job_id = pop(redis)
    assert janitor.sweep() == {}  # seen for the first time
    assert janitor.sweep() == {}
    seen_long_ago(redis, job_id)
    assert janitor.sweep() == {job_id: "queued"}
    assert jobs.queue_position(job_id) == 0
    assert redis.llen(rq_names.INTERMEDIATE_KEY) == 0
    assert janitor.sweep() == {}


def test_what_was_started_meanwhile_is_forgotten(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor
) -> None:
    submit(jobs, question(), MODEL)
    run = Run(pop(redis), "e1")
    janitor.sweep()
    take(leases, run)
    janitor.sweep()
    assert redis.hgetall("proxygrad:popped") == {}


def test_a_popped_entry_without_a_job_is_dropped(redis: Redis, janitor: Janitor) -> None:
    redis.rpush(rq_names.INTERMEDIATE_KEY, "nothing")
    seen_long_ago(redis, "nothing")
    assert janitor.sweep() == {}
    assert redis.llen(rq_names.INTERMEDIATE_KEY) == 0
    assert waiting(redis) == []


def test_of_many_janitors_one_returns_each_popped_job(redis_url: str, redis: Redis, jobs: Jobs) -> None:
    for unit in range(LOST):
        submit(jobs, question(unit), MODEL)
        seen_long_ago(redis, pop(redis))
    found = at_once(redis_url, Janitor.return_stranded)
    finders = Counter(job_id for each in found for job_id in cast(list[str], each))
    assert len(finders) == LOST
    assert set(finders.values()) == {1}
    assert Counter(waiting(redis)) == finders


def test_after_a_gap_workers_may_beat_first(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor
) -> None:
    run = started(redis, jobs, leases)
    assert janitor.sweep() == {}
    expire(redis, run)
    redis.hset("proxygrad:sweeps", "swept", time.time() - LEASE_S)  # nobody could sweep or beat meanwhile
    assert janitor.sweep() == {}
    assert janitor.sweep() == {}
    patient_until = float(cast(bytes, redis.hget("proxygrad:sweeps", "patient_until")))
    assert patient_until - time.time() == pytest.approx(2 * BEAT_S, abs=BEAT_S)
    assert leases.beat(run)
    expire(redis, run)
    redis.hset("proxygrad:sweeps", "patient_until", time.time())
    assert janitor.sweep() == {run.job_id: "queued"}


def test_what_expired_leaves_rqs_books(redis: Redis, janitor: Janitor) -> None:
    redis.zadd(rq_names.FINISHED_KEY, {"old": 1, "new": 1e12})
    redis.zadd(rq_names.FAILED_KEY, {"old": 1, "new": 1e12})
    redis.hset("rq:worker:alive", "birth", "today")
    for key in (rq_names.ALL_WORKERS_KEY, rq_names.WORKERS_KEY):
        redis.sadd(key, "rq:worker:alive", "rq:worker:dead")
    janitor.tidy()
    assert redis.zrange(rq_names.FINISHED_KEY, 0, -1) == redis.zrange(rq_names.FAILED_KEY, 0, -1) == [b"new"]
    assert [redis.smembers(key) for key in (rq_names.ALL_WORKERS_KEY, rq_names.WORKERS_KEY)] == [
        {b"rq:worker:alive"}
    ] * 2
