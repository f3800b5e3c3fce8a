"""Two versions of one model at once, as in a rolling upgrade: a job goes to the worker with its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import pytest
from redis import Redis

pytest.importorskip("torch", reason="a worker computes with torch")

from proxygrad.errors import ModelError
from proxygrad.protocol.problems import Problem
from proxygrad.spec import ModelInfo
from tests.support.counting_engine import CountingEngine, OnPaper
from tests.support.eventually import ended, until
from tests.support.expanded_batches import ask, asked, counts, drained, idle, now
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.worker_in_process import working
from workers.batches.repository import Batches
from workers.broker import keys
from workers.execution.context import WorkerContext
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.jobs.kinds.visualization import VISUALIZATION
from workers.jobs.repository import Jobs
from workers.queue.janitor import Janitor
from workers.storage.store import Store

pytestmark = pytest.mark.engine

NEW = MODEL.model_copy(update={"engine_version": "2"})
OTHER = MODEL.model_copy(update={"digest": "f" * 64})
BROKEN = Problem(code="model_unavailable", detail="weights.safetensors ends early")


class Versions:
    """The models of a worker that serves ``info``; with ``trouble`` it fails to load it and then says so."""

    def __init__(self, info: ModelInfo, trouble: str = "") -> None:
        self.info = info
        self.trouble = trouble
        self.problem: Problem | None = None

    @property
    def served(self) -> Sequence[ServedModel]:
        if self.problem is not None:
            return (ServedModel(name=self.info.name, problem=self.problem),)
        return (ServedModel(name=self.info.name, info=self.info),)

    @contextmanager
    def lent(self, name: str) -> Iterator[OnPaper]:
        if self.trouble:
            self.problem = None if self.trouble == "of the job" else BROKEN
            raise ModelError(self.trouble)
        yield OnPaper(self.info)


@contextmanager
def worker(redis: Redis, store: Store, name: str, models: Versions) -> Iterator[WorkerContext]:
    with working(redis, store, CountingEngine(), 2, models=models, name=name) as context:
        context.catalog_entry.publish()
        yield context
    context.catalog_entry.withdraw()


def alive(redis: Redis, name: str, *infos: ModelInfo) -> None:
    """A worker that takes nothing just now."""
    catalog.publish(redis, name, [ServedModel(name=info.name, info=info) for info in infos], 60)


def waits_for(redis: Redis, job_id: str) -> str:
    return cast(bytes, redis.hget(keys.job_key(job_id), "model")).decode()


@pytest.mark.parametrize("other", [NEW, OTHER], ids=["method", "weights"])
def test_waiting_jobs_are_left_to_the_worker_that_can_do_them(
    redis: Redis, store: Store, jobs: Jobs, other: ModelInfo
) -> None:
    ids = [submit(jobs, question(unit), MODEL)[0].id for unit in range(20)]
    alive(redis, "right", MODEL)
    with worker(redis, store, "wrong", Versions(other)):
        until(lambda: {waits_for(redis, job_id) for job_id in ids} == {VISUALIZATION.exact_capability(MODEL)})
        until(lambda: redis.zcard("rq:wip:proxygrad") == 0)
        with worker(redis, store, "right", Versions(MODEL)):
            newer = submit(jobs, question(50), other)[0].id
            assert {ended(jobs, job_id).state for job_id in [*ids, newer]} == {"succeeded"}
            assert {ended(jobs, job_id).losses for job_id in ids} == {0}
            assert {ended(jobs, job_id).worker for job_id in ids} == {"right"}


def test_a_job_fails_when_nobody_has_its_weights(redis: Redis, store: Store, jobs: Jobs) -> None:
    job_id = submit(jobs, question(), MODEL)[0].id
    with worker(redis, store, "wrong", Versions(OTHER)):
        job = ended(jobs, job_id)
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", "model_unavailable")


def test_what_was_left_to_a_worker_that_is_gone_fails(
    redis: Redis, store: Store, jobs: Jobs, janitor: Janitor
) -> None:
    job_id = submit(jobs, question(), MODEL)[0].id
    alive(redis, "right", MODEL)
    with worker(redis, store, "wrong", Versions(OTHER)):
        until(lambda: "@" in waits_for(redis, job_id))
    assert janitor.fail_unserved() == []
    catalog.withdraw(redis, "right")
    assert janitor.fail_unserved() == []  # nobody serves a model of that name: it waits
    alive(redis, "wrong", OTHER)
    assert janitor.fail_unserved() == [job_id]
    job = ended(jobs, job_id)
    assert job.problem is not None
    assert job.problem.code == "model_unavailable"
    assert jobs.retry(job_id) is not None
    assert waits_for(redis, job_id) == "tiny"  # whoever has the weights by now
    assert redis.hget(keys.job_key(job_id), "exact") == VISUALIZATION.exact_capability(MODEL).encode()


def test_nothing_fails_while_workers_publish_anew_what_expired(
    redis: Redis, store: Store, jobs: Jobs, janitor: Janitor
) -> None:
    """Redis stood still for longer than what a worker says of itself lasts."""
    seconds, _ = redis.time()
    redis.hset(keys.SWEEPS_KEY, "swept", seconds - 20)
    job_id = submit(jobs, question(), MODEL)[0].id
    with worker(redis, store, "wrong", Versions(OTHER)):
        until(lambda: "@" in waits_for(redis, job_id))
        assert janitor.fail_unserved() == []
        janitor.reclaim_expired()  # the first sweep after it
        assert janitor.fail_unserved() == []
        with worker(redis, store, "right", Versions(MODEL)):
            assert ended(jobs, job_id).state == "succeeded"


def test_a_worker_that_cannot_load_the_model_leaves_the_job_to_one_that_can(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    job_id = submit(jobs, question(), MODEL)[0].id
    alive(redis, "right", MODEL)
    with worker(redis, store, "broken", Versions(MODEL, "weights.safetensors ends early")):
        until(lambda: "@" in waits_for(redis, job_id))
        with worker(redis, store, "right", Versions(MODEL)):
            assert ended(jobs, job_id).worker == "right"


def test_a_fault_that_would_be_the_same_elsewhere_is_not_passed_on(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    job_id = submit(jobs, question(), MODEL)[0].id
    alive(redis, "right", MODEL)
    with worker(redis, store, "left", Versions(MODEL, "of the job")):
        assert ended(jobs, job_id).state == "failed"


def test_a_batch_is_left_to_the_worker_that_has_its_weights(
    redis: Redis, store: Store, batches: Batches, janitor: Janitor
) -> None:
    alive(redis, "right", MODEL)
    batch, kept = ask(batches, asked({"stop": 4})), ask(batches, asked({"stop": 3}))
    drained(idle(redis, store, OTHER))
    assert counts(now(batches, batch)) == {"waiting": 4}
    drained(idle(redis, store, OTHER))  # no other worker takes it up again
    assert janitor.fail_unserved() == []
    batches.cancel(kept.id)
    drained(idle(redis, store, MODEL))
    assert counts(now(batches, batch)) == {"queued": 4}


def test_a_batch_of_weights_that_nobody_has_any_more_ends(
    redis: Redis, store: Store, batches: Batches, janitor: Janitor
) -> None:
    alive(redis, "right", MODEL)
    batch = ask(batches, asked({"stop": 4}))
    drained(idle(redis, store, OTHER))
    alive(redis, "wrong", OTHER)
    catalog.withdraw(redis, "right")
    janitor.fail_unserved()
    after = now(batches, batch)
    assert after.problem is not None
    assert (after.state, after.problem.code) == ("failed", "model_changed")


def test_of_several_versions_the_gateway_offers_that_of_most_workers(redis: Redis) -> None:
    for name, info in (("a", NEW), ("b", MODEL), ("c", MODEL)):
        alive(redis, name, info)
    assert catalog.served(redis)["tiny"].info == MODEL
    alive(redis, "d", NEW)
    assert catalog.served(redis)["tiny"].info == NEW  # of as many, the newest method
