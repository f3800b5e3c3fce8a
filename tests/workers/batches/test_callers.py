"""Everything of one caller is canceled, and nothing of others."""

from __future__ import annotations

import pytest
from redis import Redis

from proxygrad.protocol.requests import ANONYMOUS
from tests.support.expanded_batches import ask, asked, expanded, idle, now
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, take
from workers.batches.callers import CanceledWork, cancel_all
from workers.batches.repository import Batches
from workers.broker import keys
from workers.jobs.repository import Jobs
from workers.queue.leases import Leases, Run
from workers.storage.store import Store


def state(jobs: Jobs, job_id: str) -> str:
    job = jobs.fetch(job_id)
    assert job is not None
    return job.state


def test_jobs_and_batches_that_wait_or_run_are_canceled(
    redis: Redis, store: Store, jobs: Jobs, leases: Leases, batches: Batches
) -> None:
    runs = submit(jobs, question(1), MODEL, caller="ann")[0].id
    assert take(leases, Run(pop(redis), "e")) == "taken"
    waits, shared = (submit(jobs, question(unit), MODEL, caller="ann")[0].id for unit in (2, 3))
    submit(jobs, question(3), MODEL, caller="bob")
    theirs = submit(jobs, question(4), MODEL, caller="bob")[0].id
    submit(jobs, question(4), MODEL, caller="ann")
    other = submit(jobs, question(5), MODEL, caller="bob")[0].id
    mine, bobs = (ask(batches, asked({"start": 10, "stop": 12}), caller) for caller in ("ann", "bob"))
    expanded(idle(redis, store))
    assert cancel_all(redis, "ann") == CanceledWork(jobs=6, batches=1)
    assert [state(jobs, each) for each in (runs, waits, shared, theirs, other)] == [
        *("running", "canceled", "queued", "queued", "queued")
    ]
    job = jobs.fetch(runs)
    assert job is not None
    assert job.cancel_requested is not None
    assert (now(batches, mine).state, now(batches, bobs).state) == ("canceled", "running")
    assert cancel_all(redis, "ann") == CanceledWork(jobs=0, batches=0)
    assert jobs.retry(waits, caller="ann") is not None


def test_where_callers_are_not_told_apart_their_jobs_are_those_of_all(redis: Redis, jobs: Jobs) -> None:
    waits = submit(jobs, question(1), MODEL)[0].id
    keyed = submit(jobs, question(2), MODEL, caller="ann")[0].id
    assert cancel_all(redis, ANONYMOUS) == CanceledWork(jobs=1, batches=0)
    assert (state(jobs, waits), state(jobs, keyed)) == ("canceled", "queued")


@pytest.mark.parametrize("kind", ["job", "requesters"])
def test_what_cannot_be_read_stops_nothing(redis: Redis, jobs: Jobs, kind: str) -> None:
    broken, whole = (submit(jobs, question(unit), MODEL, caller="ann")[0].id for unit in (1, 2))
    key = keys.job_key(broken) if kind == "job" else keys.requesters_key(broken)
    redis.delete(key)
    redis.rpush(key, "theirs")
    assert cancel_all(redis, "ann") == CanceledWork(jobs=1, batches=0)
    assert state(jobs, whole) == "canceled"
