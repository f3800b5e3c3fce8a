"""A run goes on where another stopped, and no checkpoint outlives its job."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="slots run the task, which needs torch")

from tests.support.artifacts import names
from tests.support.counting_engine import CountingEngine
from tests.support.eventually import ended, until
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, take, waiting
from tests.support.worker_in_process import working
from workers.broker import rq_names
from workers.execution import checkpoints
from workers.jobs.events import Events
from workers.jobs.kinds.visualization import image_path
from workers.jobs.repository import CheckpointReference, Job, Jobs
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Run
from workers.storage.paths import checkpoint_path, result_path
from workers.storage.store import StorageError, StorageFull, Store

pytestmark = pytest.mark.engine

STEP_S = 0.003


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_S", 0.1)
    monkeypatch.setattr(checkpoints, "COST", 1.0)  # however slow the disk is at the moment


def now(jobs: Jobs, job: Job) -> Job:
    return jobs.fetch(job.id) or job


def left_at(redis: Redis, jobs: Jobs, store: Store, data: bytes, step: int, steps: int = 100) -> Job:
    """A job whose worker was killed after it had kept ``data``."""
    job, _ = submit(jobs, question(3, steps=steps), MODEL)
    run, path = Run(pop(redis), "dead"), checkpoint_path(job.id, "dead")
    leases = Leases(redis)
    assert take(leases, run) == "taken"
    store.replace(path, data)
    leases.write(
        run, {"checkpoint": CheckpointReference(step=step, path=path).model_dump_json(), "step": step + 3}
    )
    redis.zadd(rq_names.LEASES_KEY, {run.member: 1})
    assert Janitor(redis).sweep() == {job.id: "queued"}
    return job


def test_a_long_run_keeps_a_checkpoint_and_leaves_none_behind(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(steps=600), MODEL)
    seen: list[int] = []
    with working(redis, store, CountingEngine(STEP_S)):
        while not (known := now(jobs, job)).ended:
            if known.checkpoint is not None:
                assert known.checkpoint.step <= known.step or known.step == 0
                assert store.get(known.checkpoint.path) is not None or now(jobs, job).ended
                seen.append(known.checkpoint.step)
            time.sleep(0.005)
        assert known.state == "succeeded"
        until(lambda: names(store) == {image_path(job.id, 0), result_path(job.id)})
    assert len(set(seen)) >= 3
    assert seen == sorted(seen)
    assert now(jobs, job).checkpoint is None


def test_a_short_run_keeps_none(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_S", 60.0)
    job, _ = submit(jobs, question(steps=200), MODEL)
    with working(redis, store, CountingEngine(STEP_S)):
        while not now(jobs, job).ended:
            assert not any("checkpoint" in name for name in names(store))
            time.sleep(0.02)


def test_another_run_goes_on_from_it(redis: Redis, store: Store, jobs: Jobs) -> None:
    job = left_at(redis, jobs, store, b"counted 60", step=60)
    assert now(jobs, job).step == 60
    engine = CountingEngine(STEP_S)
    with working(redis, store, engine):
        while not (known := now(jobs, job)).ended:
            assert known.step >= 60
            time.sleep(0.005)
        until(lambda: names(store) == {image_path(job.id, 0), result_path(job.id)})
    assert (known.state, known.losses, engine.tickets[0].begin_at) == ("succeeded", 1, 60)


def test_its_own_checkpoint_takes_the_place_of_the_one_it_went_on_from(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    job = left_at(redis, jobs, store, b"counted 60", step=60, steps=4000)
    old, engine = checkpoint_path(job.id, "dead"), CountingEngine(STEP_S)
    with working(redis, store, engine):
        until(lambda: (kept := now(jobs, job).checkpoint) is not None and kept.path != old)
        until(lambda: not store.exists(old))
        until(lambda: [name.partition("/")[2][:11] for name in names(store)] == ["checkpoint-"])
        engine.tickets[0].finish()
        assert ended(jobs, job.id).state == "succeeded"


@pytest.mark.parametrize("data", [b"damaged", None])
def test_a_checkpoint_that_is_damaged_or_gone_means_starting_over(
    redis: Redis, store: Store, jobs: Jobs, caplog: pytest.LogCaptureFixture, data: bytes | None
) -> None:
    job = left_at(redis, jobs, store, data or b"", step=60)
    if data is None:
        store.delete(checkpoint_path(job.id, "dead"))
    engine = CountingEngine(STEP_S)
    with working(redis, store, engine):
        assert ended(jobs, job.id).state == "succeeded"
        until(lambda: names(store) == {image_path(job.id, 0), result_path(job.id)})
    assert engine.tickets[0].begin_at == 0
    _, _, events = Events(redis).read(job.id, Events.START)
    assert 0 in [json.loads(event.data).get("step") for event in events]
    assert any(f"job {job.id} starts over: " in record.message for record in caplog.records)


class NoCheckpoints(Store):
    """No room for checkpoints, enough for pictures."""

    def replace(self, path: str, data: bytes) -> None:
        raise StorageFull(f"no room for the {len(data)} bytes of {path}")


def test_no_room_for_a_checkpoint_is_said_once_and_fails_nothing(
    redis: Redis, store: Store, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    job, _ = submit(jobs, question(steps=200), MODEL)
    full = NoCheckpoints(store._objects, store.url, Path(store.url.removeprefix("file://")))
    with working(redis, full, CountingEngine(STEP_S)):
        assert ended(jobs, job.id).state == "succeeded"
    said = [record.message for record in caplog.records if "goes on without a checkpoint" in record.message]
    assert len(said) == 1


class Unreadable(Store):
    def get(self, path: str) -> bytes | None:
        if "checkpoint" in path:
            raise StorageError(f"cannot read {path}")
        return super().get(path)


def test_a_checkpoint_that_cannot_be_read_means_starting_over(redis: Redis, store: Store, jobs: Jobs) -> None:
    job = left_at(redis, jobs, store, b"counted 60", step=60)
    engine = CountingEngine(STEP_S)
    with working(redis, Unreadable(store._objects, store.url), engine):
        assert ended(jobs, job.id).state == "succeeded"
    assert engine.tickets[0].begin_at == 0


def test_a_costly_checkpoint_is_written_less_often(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "COST", 1000.0)
    written: list[float] = []

    class Counting(Store):
        def replace(self, path: str, data: bytes) -> None:
            written.append(time.monotonic())
            time.sleep(0.01)
            super().replace(path, data)

    job, _ = submit(jobs, question(steps=300), MODEL)
    with working(redis, Counting(store._objects, store.url), CountingEngine(STEP_S)):
        ended(jobs, job.id)
    assert len(written) == 1


@pytest.mark.parametrize("outcome", ["canceled", "failed"])
def test_a_job_that_ends_without_an_answer_leaves_no_checkpoint(
    redis: Redis, store: Store, jobs: Jobs, outcome: str
) -> None:
    engine = CountingEngine(STEP_S, errors={3: ValueError("nan")})
    job, _ = submit(jobs, question(3, steps=4000), MODEL)
    with working(redis, store, engine):
        until(lambda: now(jobs, job).checkpoint is not None)
        if outcome == "canceled":
            jobs.cancel(job.id)
        else:
            engine.tickets[0].finish()
        assert ended(jobs, job.id).state == outcome
        until(lambda: names(store) == set())


def test_a_drained_run_is_gone_on_from_where_it_stood(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_S", 60.0)
    job, _ = submit(jobs, question(steps=4000), MODEL)
    first, second = CountingEngine(STEP_S), CountingEngine(0.0002)
    with working(redis, store, first):
        until(lambda: now(jobs, job).step > 20)
        seen = now(jobs, job)
        assert seen.checkpoint is None
    back = now(jobs, job)
    assert waiting(redis) == [job.id]
    assert back.checkpoint is not None
    assert back.losses == 0
    assert back.step == back.checkpoint.step
    assert back.step >= seen.step
    with working(redis, store, second):
        assert ended(jobs, job.id).state == "succeeded"
    assert second.tickets[0].begin_at == back.step
