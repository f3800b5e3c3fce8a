"""The task: what is stored, what is recorded, and what a failure looks like."""

from __future__ import annotations

import hashlib
import json
import time

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="the task reads PNGs with the engine's code")

from proxygrad.errors import InvalidRequest, LaneError, ProxyGradError, WeightsError
from proxygrad.images import decode_png, encode_png
from proxygrad.png import annotate_png, read_text
from proxygrad.protocol.problems import Problem
from proxygrad.spec import Spec
from tests.support.counting_engine import CountingEngine, CountingTicket
from tests.support.eventually import ended, until
from tests.support.model_on_paper import MODEL, outcome, question
from tests.support.worker_in_process import working
from workers.jobs.kinds.visualization import image_path
from workers.jobs.repository import Job, Jobs
from workers.storage.paths import result_path
from workers.storage.store import StorageError, Store

pytestmark = pytest.mark.engine


def test_the_record_describes_the_stored_bytes(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(7), MODEL)
    with working(redis, store, CountingEngine()):
        done = ended(jobs, job.id)
    png = store.get(image_path(job.id, 0))
    assert png is not None
    (image,) = done.images
    assert (image.sha256, image.size_bytes) == (hashlib.sha256(png).hexdigest(), len(png))
    assert (image.media_type, image.width_px, image.height_px) == ("image/png", 8, 8)
    assert decode_png(png).shape == (1, 8, 8)
    assert done.result == outcome(job.spec)
    assert (done.step, done.activation) == (4, 7.0)
    assert done.waited_s is not None
    assert done.ran_s is not None
    assert done.ran_s > 0
    assert jobs.stored(job.id) == done


def test_the_image_says_what_it_is(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(7), MODEL)
    with working(redis, store, CountingEngine()):
        ended(jobs, job.id)
    text = read_text(store.get(image_path(job.id, 0)) or b"")
    assert text["id"] == job.id
    assert Spec.model_validate_json(text["spec"]) == job.spec
    assert text["achieved_activation"] == "7.0"
    assert json.loads(text["result"])["steps_done"] == 4


def test_progress_is_seen_on_the_way(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(steps=50), MODEL)
    seen: list[tuple[int, float | None]] = []
    with working(redis, store, CountingEngine(step_s=0.04)):  # 2 s, in which it is written eight times
        while not (now := jobs.fetch(job.id) or job).ended:
            seen.append((now.step, now.activation))
            time.sleep(0.005)
    steps = sorted({step for step, _ in seen})
    assert len(steps) >= 4
    assert seen == sorted(seen, key=lambda pair: pair[0])
    assert all(activation == step / 10 for step, activation in seen if step and activation is not None)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (InvalidRequest("size 9 is too small"), Problem(code="bad_request", detail="size 9 is too small")),
        (
            WeightsError("a.safetensors ends early"),
            Problem(code="model_unavailable", detail="a.safetensors ends early"),
        ),
        (LaneError("nan at step 3"), Problem(code="lane_failed", detail="nan at step 3")),
        (
            ZeroDivisionError("secret inside"),
            Problem(
                code="internal_error",
                detail="the worker met an unexpected ZeroDivisionError; its log has more",
            ),
        ),
    ],
)
def test_a_failure_is_recorded_and_not_tried_again(
    redis: Redis, store: Store, jobs: Jobs, error: Exception, problem: Problem
) -> None:
    engine = CountingEngine(errors={0: error})
    job, _ = submit(jobs, question(), MODEL)
    with working(redis, store, engine):
        done = ended(jobs, job.id)
    assert (done.state, done.problem, done.losses, done.images) == ("failed", problem, 0, ())
    assert done.finished_at is not None
    assert len(engine.tickets) == 1
    assert not store.exists(result_path(job.id))


class Refusing(CountingEngine):
    """An engine that refuses at once."""

    def submit(self, network: object, spec: Spec, **_: object) -> CountingTicket:
        raise InvalidRequest("no such layer")


def test_a_refusal_at_once_is_the_same(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    with working(redis, store, Refusing()):
        assert ended(jobs, job.id).problem == Problem(code="bad_request", detail="no such layer")


class FullStore(Store):
    """A store without room."""

    def put(self, path: str, data: bytes) -> bool:
        raise StorageError(f"cannot write {path}: no space left")


def test_a_full_store_fails_the_job_and_says_so(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    with working(redis, FullStore(store._objects, store.url), CountingEngine()):
        done = ended(jobs, job.id)
    assert done.problem is not None
    assert done.problem.code == "storage_unavailable"
    assert "no space left" in done.problem.detail


def test_a_run_that_died_after_the_image_is_finished_from_it(redis: Redis, store: Store, jobs: Jobs) -> None:
    """The earlier run computed elsewhere: its image is kept, so its result must be, too."""
    job, _ = submit(jobs, question(7), MODEL)
    result = outcome(job.spec).model_copy(update={"achieved_activation": 99.5, "device": "cuda:0"})
    said = {"id": job.id, "image": "0", "spec": result.spec.model_dump_json()}
    png = annotate_png(encode_png(decode_png(_white())), {**said, "result": result.model_dump_json()})
    store.put(image_path(job.id, 0), png)
    with working(redis, store, CountingEngine()):
        done = ended(jobs, job.id)
    assert store.get(image_path(job.id, 0)) == png
    assert done.result == result
    assert done.activation == 99.5
    assert done.images[0].sha256 == hashlib.sha256(png).hexdigest()


def test_a_run_that_died_after_the_record_is_not_computed_again(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    engine = CountingEngine()
    job, _ = submit(jobs, question(7), MODEL)
    update = {
        "state": "succeeded",
        "started_at": 1.5,
        "finished_at": 2.5,
        "result": outcome(job.spec),
        "worker": "dead",
        "ahead": None,
    }
    stored: Job = job.model_copy(update=update)
    store.put(result_path(job.id), stored.model_dump_json().encode())
    with working(redis, store, engine):
        until(lambda: (jobs.fetch(job.id) or job).ended)
    assert jobs.fetch(job.id) == stored
    assert engine.tickets == []


def test_errors_of_the_project_have_codes() -> None:
    assert ProxyGradError("x").code == "internal_error"


def _white() -> bytes:
    import torch

    return encode_png(torch.ones(1, 8, 8))
