"""Several images of one job: stored one by one, and an answer with all of them or none."""

from __future__ import annotations

import hashlib
import signal
from dataclasses import replace
from typing import cast

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="the task writes PNGs with the engine's code")

from proxygrad.png import read_text
from proxygrad.spec import Result, Spec
from tests.support.artifacts import names
from tests.support.counting_engine import CountingEngine, CountingTicket, Drawing
from tests.support.eventually import ended, until
from tests.support.model_on_paper import MODEL, outcome
from tests.support.model_on_paper import question as one
from tests.support.worker_in_process import working
from tests.support.worker_processes import is_running, worker
from workers.broker import rq_names
from workers.jobs.kinds.registry import job_from_fields
from workers.jobs.kinds.visualization import VisualizationJob, image_name, image_path
from workers.jobs.repository import Job, Jobs
from workers.storage.collector import GarbageCollector, RetentionPolicy
from workers.storage.inventory import JobArtifacts
from workers.storage.paths import result_path
from workers.storage.store import Store

pytestmark = pytest.mark.engine


def question(unit: int = 7) -> Spec:
    return Spec.model_validate({**one(unit).model_dump(), "images": 2, "compare": True})


def paths(job: Job) -> set[str]:
    return {*(image_path(job.id, number) for number in range(4)), result_path(job.id)}


class Elsewhere(CountingEngine):
    """Has other numbers: a run on another machine."""

    def submit(self, network: object, spec: Spec, **given: object) -> CountingTicket:
        ticket = super().submit(network, spec, **given)  # type: ignore[arg-type]
        result = ticket.result

        def moved() -> Drawing:
            drawing = result()
            images = tuple(
                image.model_copy(update={"achieved_activation": image.achieved_activation + 0.5})
                for image in drawing.result.images
            )
            there = drawing.result.model_copy(update={"device": "cuda:0"}).of(images)
            return replace(drawing, result=there)

        ticket.result = moved  # type: ignore[method-assign]
        return ticket


def test_every_image_is_stored_and_described(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    with working(redis, store, CountingEngine()):
        done = ended(jobs, job.id)
    assert names(store) == paths(job)
    assert done.result == outcome(job.spec)
    assert (done.best, done.activation, done.cost) == (1, 8.0, 4 * job.steps * 64 / 1e6)
    assert done.result.baseline_activation == 10.0
    for number, info in enumerate(done.images):
        png = store.get(image_path(job.id, number)) or b""
        assert (info.sha256, info.size_bytes) == (hashlib.sha256(png).hexdigest(), len(png))
        told = read_text(png)
        own = Result.model_validate_json(told["result"])
        assert (told["image"], told["id"]) == (str(number), job.id)
        assert own.images == (done.result.images[number],)
        assert own.achieved_activation == 7.0 + number == float(told["achieved_activation"])
    assert jobs.stored(job.id) == done


@pytest.mark.parametrize(("name", "kept"), [("2.png", 2), ("result.json", 4)])
def test_a_worker_killed_between_images_leaves_them_to_the_next(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs, name: str, kept: int
) -> None:
    """What is in the store stays, and the record is of what is there, whichever run it is of."""
    job, _ = submit(jobs, question(), MODEL)
    with worker("-m", "tests.support.doomed_worker", redis_url, store.url, name) as process:
        until(lambda: process.poll() is not None, 60)
        assert process.returncode == -signal.SIGKILL
    assert is_running(jobs, job.id)
    assert names(store) == {image_path(job.id, number) for number in range(kept)}
    assert jobs.stored(job.id) is None
    left = [store.get(image_path(job.id, number)) for number in range(kept)]
    for member in cast(list[bytes], redis.zrange(rq_names.LEASES_KEY, 0, -1)):
        redis.zadd(rq_names.LEASES_KEY, {member: 1})  # its lease is over
    jobs_after = _run_elsewhere(redis, store, jobs, job)
    assert jobs_after.losses == 1
    assert [store.get(image_path(job.id, number)) for number in range(kept)] == left
    assert jobs_after.result is not None
    achieved = [image.achieved_activation for image in jobs_after.result.images]
    assert achieved == [7.0 + number + (0.0 if number < kept else 0.5) for number in range(4)]
    assert jobs_after.result.achieved_activation == achieved[jobs_after.best] == max(achieved[:2])
    assert jobs_after.result.baseline_activation == achieved[3]
    for number, info in enumerate(jobs_after.images):
        png = store.get(image_path(job.id, number)) or b""
        assert info.sha256 == hashlib.sha256(png).hexdigest()
    assert jobs.stored(job.id) == jobs_after


def _run_elsewhere(redis: Redis, store: Store, jobs: Jobs, job: Job) -> VisualizationJob:
    from workers.queue.janitor import Janitor

    redis.delete("proxygrad:sweeps")  # however long ago its worker swept
    assert Janitor(redis).sweep() == {job.id: "queued"}
    with working(redis, store, Elsewhere()):
        return ended(jobs, job.id)


def test_two_runs_at_once_write_the_same_record(redis: Redis, store: Store, jobs: Jobs) -> None:
    """One that has lost its job and does not know it yet: each image is of the first who wrote it."""
    from tests.support.slot_steps import pop, take
    from workers.execution.kinds.visualization import Images
    from workers.execution.run import JobRun
    from workers.execution.task import _keep
    from workers.queue.leases import Leases, Run

    job, _ = submit(jobs, question(), MODEL)
    run = Run(pop(redis), "e1")
    assert take(Leases(redis), run) == "taken"
    here = CountingEngine().submit(None, job.spec)
    there = Elsewhere().submit(None, job.spec)
    for ticket in (here, there):
        assert ticket.wait(30)
    with working(redis, store, CountingEngine()) as runtime:
        assignment = JobRun(run, "host.0", runtime)
        store.put(image_path(job.id, 1), _picture(job, there, 1))
        first = _keep(assignment, job, Images(job, here.result()))
        second = _keep(assignment, job, Images(job, there.result()))
    assert first == second
    assert isinstance(first, VisualizationJob)
    assert first.result is not None
    assert [image.achieved_activation for image in first.result.images] == [7.0, 8.5, 9.0, 10.0]
    assert first.best == 1


def _picture(job: VisualizationJob, ticket: CountingTicket, number: int) -> bytes:
    from workers.execution.kinds.visualization import Images

    return Images(job, ticket.result()).files[image_name(number)]


def test_an_answer_with_one_image_gone_is_made_again(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, _ = submit(jobs, question(), MODEL)
    with working(redis, store, CountingEngine()):
        done = ended(jobs, job.id)
        assert jobs.intact(done)
        store.delete(image_path(job.id, 3))
        assert not jobs.intact(done)
        _, created = submit(jobs, question(), MODEL)
        assert created
        again = ended(jobs, job.id)
    assert names(store) == paths(job)
    assert again.result == done.result


def test_all_images_are_counted_collected_and_forgotten(redis: Redis, store: Store, jobs: Jobs) -> None:
    first, _ = submit(jobs, question(1), MODEL)
    second, _ = submit(jobs, question(2), MODEL)
    with working(redis, store, CountingEngine()):
        done = ended(jobs, first.id)
        ended(jobs, second.id)
    held = JobArtifacts.of(first.id, store.list(first.id))
    pictures = sum(image.size_bytes for image in done.images)
    assert held.size_bytes == pictures + len(store.get(result_path(first.id)) or b"")
    assert jobs.forget(first.id)
    assert names(store) == paths(second)
    redis.delete(*redis.keys("proxygrad:pin*") or ["none"])
    GarbageCollector(redis, store, RetentionPolicy(gigabytes=0.0), grace_s=-1.0).collect()
    assert names(store) == set()


def test_a_record_of_a_newer_version_is_read(store: Store, jobs: Jobs, redis: Redis) -> None:
    job, _ = submit(jobs, question(), MODEL)
    with working(redis, store, CountingEngine()):
        done = ended(jobs, job.id)
    told = done.model_dump_json()
    newer = told.replace('"steps_per_s"', '"hue":1,"steps_per_s"').replace('"sha256"', '"hue":2,"sha256"')
    newer = newer.replace('"seed":0,"model"', '"hue":3,"seed":0,"model"').replace(
        '"state"', '"hue":4,"state"'
    )
    assert newer.count('"hue"') == 8
    store.replace(result_path(job.id), newer.encode())
    assert jobs.stored(job.id) == done
    fields = {name.encode(): str(value).encode() for name, value in done.to_fields().items()}
    fields[b"result"] = fields[b"result"].replace(b'"steps_per_s"', b'"hue": 1, "steps_per_s"')
    assert job_from_fields(job.id, fields) == done
