"""Redis has reached its `maxmemory`: nothing new comes in, and what is there can end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
from redis import Redis
from redis.exceptions import OutOfMemoryError

from proxygrad.protocol.requests import VisualizationRequest
from service.stack.valkey import EmbeddedValkey
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.queue_invariants import faults
from tests.support.slot_steps import pop, record, started, take
from tests.workers.jobs.test_repository import succeed
from workers.broker import rq_names
from workers.broker.connection import connect
from workers.errors import QueueMemoryFull
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.jobs.repository import Jobs
from workers.process.rq_registration import RQRegistration
from workers.queue.fair_queue import FairQueue
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Run
from workers.storage.store import Store


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("small")) as server:
        yield server


@pytest.fixture
def redis(small: EmbeddedValkey) -> Iterator[Redis]:
    """A server of its own with little memory, which `fill` uses up."""
    with connect(small.url, retries=0) as client:
        client.config_set("maxmemory", 0)
        client.flushall()
        client.script_flush()
        yield client


def fill(redis: Redis) -> None:
    """As with small values that went on until one was refused."""
    used = cast("dict[str, int]", redis.info("memory"))["used_memory"]
    redis.config_set("maxmemory", used + 200_000)
    number = 0
    with pytest.raises(OutOfMemoryError):
        while True:
            redis.set(f"other:{number}", b"x" * 10_000)
            number += 1


def contents(redis: Redis) -> dict[bytes, bytes | None]:
    return {key: redis.dump(key) for key in cast(list[bytes], redis.keys())}


def test_nothing_new_is_taken_and_nothing_half_written(redis: Redis, jobs: Jobs) -> None:
    fill(redis)
    before = contents(redis)
    with pytest.raises(QueueMemoryFull, match="maxmemory"):
        submit(jobs, question(), MODEL)
    assert contents(redis) == before
    redis.config_set("maxmemory", 0)
    assert submit(jobs, question(), MODEL)[1]


def test_what_waits_is_joined(redis: Redis, jobs: Jobs) -> None:
    batch = VisualizationRequest.of(question()).model_copy(update={"priority": "batch"})
    job, _ = submit(jobs, batch, MODEL)
    fill(redis)
    joined, created = submit(jobs, question(), MODEL)
    assert (joined.id, joined.priority, created) == (job.id, "interactive", False)
    assert jobs.queue_position(job.id) == 0
    assert faults(redis) == []


def test_what_is_there_runs_and_ends(redis: Redis, jobs: Jobs) -> None:
    leases, ready = Leases(redis), FairQueue(redis)
    for unit in range(4):
        submit(jobs, question(unit), MODEL)
    fill(redis)
    redis.script_flush()  # the scripts themselves have to be loaded
    run = Run(pop(redis), "e1")
    assert take(leases, run) == "taken"
    assert leases.beat(run).held
    leases.write(run, {"step": 3, "activation": 0.5})
    assert leases.give_back(run)
    again = Run(pop(redis), "e2")
    assert again.job_id == run.job_id
    assert take(leases, again) == "taken"
    assert leases.close(again, "succeeded", slot="s", fields={"step": 4}) == "closed"
    assert record(jobs, again).state == "succeeded"
    second, third = ready.pop(["tiny"], 2)
    assert ready.put_back([second, third]) == 2
    canceled = jobs.cancel(second)
    assert canceled is not None
    assert canceled.state == "canceled"
    with pytest.raises(QueueMemoryFull):
        jobs.retry(second)
    assert faults(redis) == []


def test_what_was_lost_is_found(redis: Redis, jobs: Jobs) -> None:
    run, janitor = started(redis, jobs, Leases(redis)), Janitor(redis)
    redis.zadd(rq_names.LEASES_KEY, {run.member: 1})
    fill(redis)
    assert janitor.sweep() == {run.job_id: "queued"}
    janitor.tidy()
    assert faults(redis) == []


def test_workers_are_still_seen(redis: Redis) -> None:
    fill(redis)
    catalog.publish(redis, "a", [ServedModel(name="tiny", info=MODEL)])
    assert catalog.obstacle(redis, "tiny") is None
    RQRegistration(redis).update("rq:worker:a.0", {"state": "busy", "birth": "today"}, ttl_s=30)
    assert redis.hgetall("rq:worker:a.0") == {b"state": b"busy", b"birth": b"today"}
    assert 0 < redis.ttl("rq:worker:a.0") <= 30


def test_an_answer_in_the_store_is_given(redis: Redis, jobs: Jobs, store: Store) -> None:
    job, _ = submit(jobs, question(), MODEL)
    ended = succeed(redis, store, job)
    redis.flushall()
    fill(redis)
    assert submit(jobs, question(), MODEL) == (ended, False)
