"""What is long is in the store, once: a record in Redis, and what processes keep of it, stays small."""

from __future__ import annotations

from typing import cast

import pytest
from redis import Redis

pytest.importorskip("torch", reason="a slot runs the task, which needs torch")

from proxygrad.spec import Spec
from tests.support.counting_engine import CountingEngine
from tests.support.eventually import ended
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, outcome, question
from tests.support.worker_in_process import working
from workers.broker import keys
from workers.broker.pipeline import run_blocking
from workers.jobs.job import Job
from workers.jobs.kinds.visualization import VisualizationJob
from workers.jobs.repository import Jobs
from workers.storage.paths import result_path
from workers.storage.store import Store

pytestmark = pytest.mark.engine

#: 32 curves of 2,049 values each.
LARGEST: Spec = question(steps=2048).model_copy(update={"images": 16, "compare": True})


def look(redis: Redis, jobs: Jobs, job_id: str) -> Job:
    job = run_blocking(jobs.look(job_id), redis)
    assert job is not None
    return job


def test_a_record_has_no_curves_and_whoever_wants_them_gets_them(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    with working(redis, store, CountingEngine(step_s=1e-6)):
        job_id = submit(jobs, LARGEST, MODEL)[0].id
        job = ended(jobs, job_id)
    assert sum(map(len, cast(list[bytes], redis.hvals(keys.job_key(job_id))))) < 32_000
    expected = outcome(LARGEST.resolve(MODEL))
    assert (len(expected.images), len(expected.curve)) == (32, 2049)
    assert job.result == expected
    seen = look(redis, jobs, job_id)
    assert isinstance(seen, VisualizationJob)
    assert not seen.is_whole
    assert jobs.whole(seen) == jobs.stored(job_id) == job
    assert jobs.whole(seen).is_whole
    assert submit(jobs, LARGEST, MODEL)[0] is look(redis, jobs, job_id)


def test_where_the_store_has_no_record_the_rest_is_there(redis: Redis, store: Store, jobs: Jobs) -> None:
    with working(redis, store, CountingEngine()):
        job_id = submit(jobs, question(), MODEL)[0].id
        ended(jobs, job_id)
    store.delete(result_path(job_id))
    job = jobs.fetch(job_id)
    assert isinstance(job, VisualizationJob)
    assert job.result is not None
    assert (job.result.curve, job.result.achieved_activation) == ((), 0.0)


def test_a_record_from_before_is_whole(redis: Redis, store: Store, jobs: Jobs) -> None:
    with working(redis, store, CountingEngine()):
        job = ended(jobs, submit(jobs, question(), MODEL)[0].id)
    redis.hset(keys.job_key(job.id), "result", str(job.to_fields()["result"]))
    store.delete(result_path(job.id))
    assert Jobs(redis, store).fetch(job.id) == job
    assert look(redis, Jobs(redis, store), job.id).is_whole
