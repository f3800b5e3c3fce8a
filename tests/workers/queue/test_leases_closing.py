"""The end of a run: our record, RQ's books and the lease change together or not at all."""

from __future__ import annotations

import json
from typing import cast

import pytest
from redis import Redis
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.results import Result as RQResult

from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import VisualizationRequest
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, outcome, question
from tests.support.slot_steps import pop, record, started, take, waiting
from workers.broker import keys, limits, rq_names
from workers.errors import LeaseLost
from workers.jobs.kinds.visualization import VisualizationJob
from workers.jobs.repository import CheckpointReference, Jobs
from workers.queue import rq_entries
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Outcome, Run

PROBLEM = Problem(code="lane_failed", detail="nan at step 3")


@pytest.fixture
def worker(redis: Redis) -> str:
    """RQ's record of the slot that runs the job."""
    redis.hset("rq:worker:host.0", mapping={"birth": "today", "current_job": "x"})
    return "rq:worker:host.0"


def close(leases: Leases, run: Run, end: Outcome, **words: str) -> str:
    fields = {"problem": PROBLEM.model_dump_json()} if end == "failed" else None
    return leases.close(run, end, fields=fields, slot="host.0", ran_s=1.5, **words)


def entry(redis: Redis, run: Run) -> RQJob:
    return RQJob.fetch(run.job_id, connection=redis, serializer=rq_entries.SERIALIZER)


def result(redis: Redis, run: Run) -> RQResult:
    latest = entry(redis, run).latest_result()
    assert latest is not None
    return latest


def members(redis: Redis, key: str) -> list[str]:
    return [name.decode() for name in cast(list[bytes], redis.zrange(key, 0, -1))]


def lease_is_gone(redis: Redis) -> bool:
    return redis.zcard(rq_names.LEASES_KEY) == 0 and not redis.keys("rq:execution*")


def test_success_in_all_books(redis: Redis, jobs: Jobs, leases: Leases, worker: str) -> None:
    run = started(redis, jobs, leases)
    leases.write(run, {"checkpoint": CheckpointReference(step=2, path="x").model_dump_json()})
    running = record(jobs, run)
    done = running.model_copy(update={"step": 4, "activation": 7.0, "result": outcome(running.spec)})
    assert leases.close(run, "succeeded", fields=done.to_fields(), slot="host.0", ran_s=1.5) == "closed"
    job = record(jobs, run)
    assert (job.state, job.step, job.result, job.checkpoint) == ("succeeded", 4, done.result, None)
    assert job.finished_at is not None
    assert job.ran_s is not None
    assert 0 < job.ran_s < 60
    assert limits.FINISHED_TTL_S - 60 < redis.ttl(keys.job_key(run.job_id)) <= limits.FINISHED_TTL_S
    assert entry(redis, run).is_finished
    assert entry(redis, run).ended_at is not None
    assert result(redis, run).return_value == "succeeded"
    assert (result(redis, run).worker_name, result(redis, run).execution_id) == ("host.0", "e1")
    assert 0 < redis.ttl(f"rq:results:{run.job_id}") <= limits.FINISHED_TTL_S
    assert 0 < redis.ttl(rq_names.entry_key(run.job_id)) <= limits.FINISHED_TTL_S
    assert members(redis, rq_names.FINISHED_KEY) == [run.job_id]
    assert redis.hgetall(worker) == {
        b"birth": b"today",
        b"state": b"busy",  # until its slot says otherwise, which may have the next job by then
        b"total_working_time": b"1.5",
        b"successful_job_count": b"1",
    }
    assert lease_is_gone(redis)


def test_failure_in_all_books(redis: Redis, jobs: Jobs, leases: Leases, worker: str) -> None:
    run = started(redis, jobs, leases)
    assert close(leases, run, "failed", exc_string="Traceback …") == "closed"
    job = record(jobs, run)
    assert (job.state, job.problem) == ("failed", PROBLEM)
    assert entry(redis, run).is_failed
    assert result(redis, run).exc_string == "Traceback …"
    assert members(redis, rq_names.FAILED_KEY) == [run.job_id]
    assert redis.hget(worker, "failed_job_count") == b"1"
    assert lease_is_gone(redis)


def test_a_deadline_that_passed_during_the_run_says_how_far_it_came(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    run = started(redis, jobs, leases)
    leases.write(run, {"step": 3})
    redis.hset(keys.job_key(run.job_id), "deadline_at", 1)
    assert close(leases, run, "expired") == "closed"
    job = record(jobs, run)
    assert job.state == "failed"
    assert job.problem == Problem(code="deadline_exceeded", detail="the deadline passed at step 3 of 4")
    assert members(redis, rq_names.FAILED_KEY) == [run.job_id]


def test_a_deadline_that_was_moved_meanwhile_lets_it_go_on(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    redis.hset(keys.job_key(run.job_id), "deadline_at", 1)
    submit(jobs, VisualizationRequest.of(question()), MODEL)  # which has none
    assert close(leases, run, "expired") == "queued"
    assert record(jobs, run).state == "queued"
    assert waiting(redis) == [run.job_id]
    assert lease_is_gone(redis)


def test_without_the_lease_nothing_is_closed(redis: Redis, jobs: Jobs, leases: Leases, worker: str) -> None:
    run = started(redis, jobs, leases)
    redis.zadd(rq_names.LEASES_KEY, {run.member: 1})
    Janitor(redis).sweep()
    before = {key: redis.dump(key) for key in cast(list[bytes], redis.keys())}
    assert close(leases, run, "succeeded") == "lost"
    assert {key: redis.dump(key) for key in cast(list[bytes], redis.keys())} == before
    with pytest.raises(LeaseLost):
        leases.write(run, {"step": 1})


@pytest.mark.parametrize("end", ["succeeded", "failed", "canceled"])
def test_an_end_whose_answer_was_lost_on_the_way_may_be_told_again(
    redis: Redis, jobs: Jobs, leases: Leases, worker: str, end: Outcome
) -> None:
    """The client sends a script again when the connection broke after Redis had run it."""
    run = started(redis, jobs, leases)
    if end == "canceled":
        jobs.cancel(run.job_id)
    assert close(leases, run, end) == "closed"
    before = record(jobs, run), redis.hgetall(worker)
    assert close(leases, run, end) == "closed"
    assert (record(jobs, run), redis.hgetall(worker)) == before
    assert redis.xlen(f"rq:results:{run.job_id}") == 1
    assert close(leases, Run(run.job_id, "another"), end) == "lost"


def test_a_lease_that_was_taken_away_closes_nothing(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    redis.zrem(rq_names.LEASES_KEY, run.member)
    assert close(leases, run, "succeeded") == "lost"
    assert record(jobs, run).state == "running"


def test_an_old_run_does_not_close_the_job_of_a_new_one(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    old = started(redis, jobs, leases)
    redis.zrem(rq_names.LEASES_KEY, old.member)
    Janitor(redis).sweep()
    new = Run(pop(redis), "e2")
    assert take(leases, new) == "taken"
    redis.zadd(rq_names.LEASES_KEY, {old.member: 1e12})
    assert close(leases, old, "failed") == "lost"
    assert record(jobs, new).state == "running"
    assert close(leases, new, "succeeded") == "closed"


def test_an_entry_that_is_none_of_ours_is_closed_in_rqs_books(redis: Redis, leases: Leases) -> None:
    job = RQJob.create(
        "os.getcwd", id="x", connection=redis, origin=rq_names.QUEUE_NAME, serializer=rq_entries.SERIALIZER
    )
    job.set_status(JobStatus.QUEUED)
    job.save()
    redis.rpush(rq_names.INTERMEDIATE_KEY, "x")
    run = Run("x", "e1")
    assert take(leases, run) == "taken"
    assert close(leases, run, "failed", exc_string="no") == "closed"
    assert entry(redis, run).is_failed
    assert redis.keys("proxygrad:job:*") == []
    assert lease_is_gone(redis)


def test_a_job_deleted_with_rq_while_it_ran_ends_all_the_same(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    run = started(redis, jobs, leases)
    redis.delete(rq_names.entry_key(run.job_id))
    assert close(leases, run, "succeeded") == "closed"
    assert record(jobs, run).state == "succeeded"
    assert redis.exists(rq_names.entry_key(run.job_id), f"rq:results:{run.job_id}") == 0


def test_many_runs_beat_in_one_step(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    runs = [Run(submit(jobs, question(unit), MODEL)[0].id, "e1") for unit in range(3)]
    for run in runs:
        assert pop(redis) == run.job_id
        take(leases, run)
    jobs.cancel(runs[1].job_id)
    redis.zrem(rq_names.LEASES_KEY, runs[2].member)
    beats = leases.beat_all(runs)
    assert [(beat.held, beat.cancel) for beat in beats] == [(True, False), (True, True), (False, False)]
    assert leases.beat_all([]) == []


def test_a_checkpoint_outlives_its_run(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    kept = CheckpointReference(step=3, path="x/checkpoint")
    run = started(redis, jobs, leases)
    leases.write(run, {"step": 4, "activation": 0.5, "checkpoint": kept.model_dump_json()})
    redis.zadd(rq_names.LEASES_KEY, {run.member: 1})
    Janitor(redis).sweep()
    job = record(jobs, run)
    assert (job.state, job.step, job.activation, job.checkpoint) == ("queued", 3, None, kept)
    again = Run(pop(redis), "e2")
    take(leases, again)
    assert record(jobs, again).checkpoint == kept
    leases.write(again, {"checkpoint": "not JSON"})
    assert leases.give_back(again)
    assert redis.hget(keys.job_key(run.job_id), "step") == b"0"


def test_what_only_the_queue_needs_is_not_kept_with_the_answer(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    run = started(redis, jobs, leases)
    written = record(jobs, run).model_copy(update={"caller": "secret", "cancel_requested": 1.0})
    assert {"caller", "priority", "cancel_requested", "deadline_at"}.isdisjoint(written.to_fields())
    assert "secret" not in written.model_dump_json()
    assert json.loads(written.model_dump_json())["cost"] == pytest.approx(question().cost(MODEL))
    assert VisualizationJob.model_validate_json(written.model_dump_json()).caller == "anonymous"
