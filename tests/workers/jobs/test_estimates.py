"""How long it will take: by the latest runs while a job waits, by the pace of its steps while it runs."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, outcome, question
from tests.support.slot_steps import pop, record, started, take
from workers.broker import rq_names
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.jobs.queries import StatusQuery
from workers.jobs.repository import Job, Jobs
from workers.queue.leases import Leases, Run


@pytest.fixture(autouse=True)
def served(redis: Redis) -> None:
    """A live worker takes questions, in two slots."""
    catalog.publish(redis, "host", [ServedModel(name=MODEL.name, info=MODEL)])
    redis.sadd(rq_names.WORKERS_KEY, "rq:worker:host.0", "rq:worker:host.1")


def expected_s(redis: Redis, job: Job) -> float | None:
    seen, _ = StatusQuery(redis)(job.id)(redis)
    assert seen is not None
    return seen.eta_s(time.time())


def run_once(redis: Redis, jobs: Jobs, leases: Leases, unit: int, ran_s: float, steps: int = 4) -> None:
    job, _ = submit(jobs, question(unit, steps), MODEL)
    run = Run(pop(redis), f"e{unit}")
    assert take(leases, run) == "taken"
    done = job.model_copy(update={"state": "succeeded", "result": outcome(job.spec)})
    fields = {"result": done.to_fields()["result"]}
    assert leases.close(run, "succeeded", fields=fields, slot="host.0", ran_s=ran_s) == "closed"


def test_nothing_is_expected_before_the_first_run(redis: Redis, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(0), MODEL)
    assert expected_s(redis, job) is None


def test_one_that_is_next_takes_as_long_as_the_runs_of_its_model_by_its_cost(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    run_once(redis, jobs, leases, 0, ran_s=2.0, steps=4)
    job, _ = submit(jobs, question(1, steps=12), MODEL)
    assert expected_s(redis, job) == pytest.approx(6.0)
    jobs.cancel(job.id)
    run_once(redis, jobs, leases, 2, ran_s=4.0, steps=4)
    submit(jobs, question(1, steps=12), MODEL)
    assert expected_s(redis, job) == pytest.approx(6.0 + 0.6), "a tenth of the way"


def test_those_before_it_and_those_that_run_come_first(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run_once(redis, jobs, leases, 0, ran_s=2.0)
    waiting = [submit(jobs, question(unit), MODEL)[0] for unit in range(1, 5)]
    assert [expected_s(redis, job) for job in waiting] == pytest.approx([2.0, 2.0, 3.0, 4.0])
    assert take(leases, Run(pop(redis), "a")) == "taken"
    assert [expected_s(redis, job) for job in waiting[1:]] == pytest.approx([2.0, 3.0, 4.0])
    pop(redis)
    assert [expected_s(redis, job) for job in waiting[2:]] == pytest.approx([3.0, 4.0])


def test_what_no_worker_takes_is_not_expected(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run_once(redis, jobs, leases, 0, ran_s=2.0)
    job, _ = submit(jobs, question(1), MODEL)
    catalog.withdraw(redis, "host")
    assert expected_s(redis, job) is None


def test_failures_teach_nothing(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    leases.close(run, "failed", fields={}, slot="host.0", ran_s=9.0)
    job, _ = submit(jobs, question(1), MODEL)
    assert expected_s(redis, job) is None


def test_a_run_says_when_it_should_end_and_what_stops_does_not(
    redis: Redis, jobs: Jobs, leases: Leases
) -> None:
    run = started(redis, jobs, leases)
    assert record(jobs, run).eta_s(time.time()) is None
    leases.write(run, {"step": 1}, remaining_s=40.0)
    assert record(jobs, run).eta_s(time.time()) == pytest.approx(40.0, abs=20)
    assert record(jobs, run).eta_s(time.time() + 1000) == 0.0
    leases.give_back(run)
    assert record(jobs, run).expected_at is None
    again = Run(pop(redis), "e2")
    assert take(leases, again) == "taken"
    leases.write(again, {"step": 1}, remaining_s=1.0)
    leases.close(again, "failed", fields={}, slot="host.0", ran_s=1.0)
    assert record(jobs, again).expected_at is None
