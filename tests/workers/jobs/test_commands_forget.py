"""Nothing is left of a job: at once, or as soon as it has stopped, unless somebody asks again."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from redis import Redis

from proxygrad.protocol.visualizations import ImageInfo
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, outcome, question
from tests.support.queue_invariants import faults
from tests.support.slot_steps import pop, record, started, take
from workers.broker import keys, rq_names
from workers.broker.keys import deletion_lock_key
from workers.broker.pipeline import run_blocking
from workers.jobs.kinds.visualization import VisualizationJob, image_path
from workers.jobs.repository import Jobs
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Run
from workers.storage.paths import result_path
from workers.storage.store import Store


def succeed(jobs: Jobs, leases: Leases, store: Store, run: Run) -> VisualizationJob:
    """End the run well, with an answer in the store."""
    job = record(jobs, run)
    image = ImageInfo(sha256="0" * 64, size_bytes=3, media_type="image/png", width_px=8, height_px=8)
    update = {"state": "succeeded", "finished_at": job.created_at, "result": outcome(job.spec)}
    done = job.model_copy(update=update | {"images": (image,)})
    store.put(image_path(job.id, 0), b"png")
    store.put(result_path(job.id), done.model_dump_json().encode())
    leases.close(run, "succeeded", fields=done.to_fields(), slot="host.0")
    return done


def left(redis: Redis, store: Store, job_id: str) -> list[object]:
    """Every trace of the job."""
    named = cast(list[bytes], redis.keys(f"*{job_id}*"))
    lists = (rq_names.QUEUE_KEY, rq_names.INTERMEDIATE_KEY)
    sets = (rq_names.FINISHED_KEY, rq_names.FAILED_KEY, rq_names.CANCELED_KEY, keys.JOBS_KEY)
    found: list[object] = [*named, *store.list(job_id)]
    found += [key for key in lists if job_id.encode() in cast(list[bytes], redis.lrange(key, 0, -1))]
    found += [key for key in sets if redis.zscore(key, job_id) is not None]
    return found + (["forgotten"] if redis.sismember(keys.FORGOTTEN_KEY, job_id) else [])


def test_a_waiting_job_is_forgotten_at_once(redis: Redis, jobs: Jobs, store: Store) -> None:
    job, _ = submit(jobs, question(), MODEL)
    assert jobs.forget(job.id)
    assert left(redis, store, job.id) == []
    assert faults(redis) == []


def test_a_popped_job_is_forgotten_before_it_is_taken(
    redis: Redis, jobs: Jobs, leases: Leases, store: Store
) -> None:
    submit(jobs, question(), MODEL)
    run = Run(pop(redis), "e1")
    assert jobs.forget(run.job_id)
    assert take(leases, run) == "elsewhere"
    assert left(redis, store, run.job_id) == []


def test_an_answer_goes_with_its_record_though_it_was_promised(
    redis: Redis, jobs: Jobs, leases: Leases, store: Store
) -> None:
    done = succeed(jobs, leases, store, started(redis, jobs, leases))
    assert jobs.pin(done.id)
    assert jobs.forget(done.id)
    assert left(redis, store, done.id) == []
    assert jobs.fetch(done.id) is None


def closed(leases: Leases, run: Run) -> None:
    leases.close(run, "canceled", slot="host.0")


def lost(redis: Redis, run: Run) -> None:
    redis.zadd(rq_names.LEASES_KEY, {run.member: 1})
    Janitor(redis).reclaim_expired()


@pytest.mark.parametrize("how", ["stopped", "died", "succeeded"])
def test_a_running_job_is_forgotten_when_it_has_stopped(
    redis: Redis, jobs: Jobs, leases: Leases, store: Store, how: str
) -> None:
    run = started(redis, jobs, leases)
    assert not jobs.forget(run.job_id)
    assert leases.beat(run).cancel
    jobs.forget_stopped()
    assert record(jobs, run).state == "running"
    ends: dict[str, Callable[[], object]] = {
        "stopped": lambda: closed(leases, run),
        "died": lambda: lost(redis, run),
        "succeeded": lambda: succeed(jobs, leases, store, run),
    }
    ends[how]()
    jobs.forget_stopped()
    jobs.forget_stopped()
    assert [each for each in left(redis, store, run.job_id) if each != deletion_lock_key(run.job_id)] == []


@pytest.mark.parametrize("ended", [False, True])
def test_who_asks_again_takes_it_back(
    redis: Redis, jobs: Jobs, leases: Leases, store: Store, ended: bool
) -> None:
    run = started(redis, jobs, leases)
    jobs.forget(run.job_id)
    if ended:
        succeed(jobs, leases, store, run)
    submit(jobs, question(), MODEL)
    jobs.forget_stopped()
    assert record(jobs, run).state == ("succeeded" if ended else "running")
    assert not leases.beat(run).cancel
    assert redis.scard(keys.FORGOTTEN_KEY) == 0


def test_a_retry_after_a_delete_is_kept_too(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    jobs.forget(run.job_id)
    closed(leases, run)
    assert jobs.retry(run.job_id)
    jobs.forget_stopped()
    assert record(jobs, run).state == "queued"


def test_where_a_collector_is_at_it_a_round_ends_it(redis: Redis, jobs: Jobs, store: Store) -> None:
    job, _ = submit(jobs, question(), MODEL)
    redis.set(deletion_lock_key(job.id), "a collector's", ex=60)
    assert not jobs.forget(job.id)
    redis.delete(deletion_lock_key(job.id))
    jobs.forget_stopped()
    assert left(redis, store, job.id) == []


def test_who_died_while_it_forgot_leaves_it_to_a_round(
    redis: Redis, jobs: Jobs, leases: Leases, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = succeed(jobs, leases, store, started(redis, jobs, leases))
    with monkeypatch.context() as dying:
        dying.setattr(Store, "delete", lambda store, path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            jobs.forget(done.id)
    assert run_blocking(jobs._results.is_complete(done), redis)
    redis.delete(deletion_lock_key(done.id))  # a dead process' claim ends by itself within a minute
    jobs.forget_stopped()
    assert left(redis, store, done.id) == []


def test_a_full_redis_forgets_too(redis: Redis, jobs: Jobs, store: Store) -> None:
    job, _ = submit(jobs, question(), MODEL)
    redis.config_set("maxmemory", 1)
    try:
        assert jobs.forget(job.id)
    finally:
        redis.config_set("maxmemory", 0)
    assert left(redis, store, job.id) == []
