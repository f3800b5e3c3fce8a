"""Files that a power failure damaged, or that are another job's: never believed, and computed again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="the task reads PNGs with the engine's code")

from proxygrad.png import read_whole
from tests.support.artifacts import directory, names
from tests.support.counting_engine import CountingEngine
from tests.support.damaged_files import DAMAGES, Damage, cut_off, zeroed
from tests.support.eventually import ended
from tests.support.model_on_paper import MODEL, question
from tests.support.worker_in_process import working
from workers.broker import keys, rq_names
from workers.jobs.kinds.visualization import VISUALIZATION, VisualizationJob, image_path
from workers.jobs.repository import Job, Jobs
from workers.storage.paths import result_path
from workers.storage.store import Store

pytestmark = pytest.mark.engine

#: What a reader refuses, though it is of the job: another version may have written it.
NEWER = "a newer version's"


def computed(redis: Redis, store: Store, jobs: Jobs, unit: int = 7) -> Job:
    """The job, once it has ended, whoever asked before."""
    job, _ = submit(jobs, question(unit), MODEL)
    with working(redis, store, CountingEngine()):
        return ended(jobs, job.id)


def picture_of(store: Store, job: Job) -> Path:
    return directory(store) / image_path(job.id, 0)


def record_of(store: Store, job: Job) -> Path:
    return directory(store) / result_path(job.id)


def forgotten(redis: Redis, job: Job) -> None:
    """As after a week."""
    redis.delete(keys.job_key(job.id), rq_names.entry_key(job.id))


def assert_whole(store: Store, jobs: Jobs, job: Job) -> None:
    """The answer is there, and the record describes the bytes."""
    assert job.state == "succeeded"
    png = picture_of(store, job).read_bytes()
    assert isinstance(job, VisualizationJob)
    (image,) = job.images
    assert (image.size_bytes, image.sha256) == (len(png), hashlib.sha256(png).hexdigest())
    assert read_whole(png)["id"] == job.id
    assert jobs.stored(job.id) == jobs.fetch(job.id) == job
    assert jobs.intact(job)
    assert names(store) >= {image_path(job.id, 0), result_path(job.id)}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_picture_without_a_record_is_replaced(
    redis: Redis, store: Store, jobs: Jobs, damage: Damage
) -> None:
    job = computed(redis, store, jobs)
    png = picture_of(store, job).read_bytes()
    assert jobs.forget(job.id)
    store.put(image_path(job.id, 0), damage(png))
    assert_whole(store, jobs, computed(redis, store, jobs))


@pytest.mark.parametrize("label", ["id", "image", "spec"])
def test_another_picture_without_a_record_is_replaced(
    redis: Redis, store: Store, jobs: Jobs, label: str
) -> None:
    from proxygrad.png import annotate_png

    job, other = computed(redis, store, jobs), computed(redis, store, jobs, unit=8)
    png, wrong = picture_of(store, job).read_bytes(), picture_of(store, other).read_bytes()
    said = read_whole(png) | {label: "1" if label == "image" else read_whole(wrong)[label]}
    assert jobs.forget(job.id)
    store.put(image_path(job.id, 0), annotate_png(wrong, said))
    assert_whole(store, jobs, computed(redis, store, jobs))
    assert picture_of(store, job).read_bytes() == png


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("remembered", [True, False])
def test_a_picture_that_does_not_fit_its_record_is_removed_and_computed_again(
    redis: Redis, store: Store, jobs: Jobs, damage: Damage, remembered: bool
) -> None:
    job = computed(redis, store, jobs)
    picture = picture_of(store, job)
    png = picture.read_bytes()
    picture.write_bytes(damage(png))
    if not remembered:
        forgotten(redis, job)
    assert jobs.pin(job.id), "somebody was promised the picture"
    assert jobs.artifact(VISUALIZATION, job.id, "0.png") is None
    assert not picture.exists()
    assert jobs.fetch(job.id) == job, "as where somebody has removed the picture by hand"
    again, created = submit(jobs, question(7), MODEL)
    assert (again.id, created) == (job.id, True)
    assert_whole(store, jobs, computed(redis, store, jobs))
    assert jobs.artifact(VISUALIZATION, job.id, "0.png") == png


def test_another_job_s_picture_beside_a_record_is_removed(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, other = computed(redis, store, jobs), computed(redis, store, jobs, unit=8)
    png = picture_of(store, other).read_bytes()
    picture_of(store, job).write_bytes(png)
    assert jobs.artifact(VISUALIZATION, job.id, "0.png") is None
    assert not picture_of(store, job).exists()
    assert jobs.artifact(VISUALIZATION, other.id, "0.png") == png


def test_a_picture_of_another_size_is_missed_when_its_question_is_asked(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    job = computed(redis, store, jobs)
    picture_of(store, job).write_bytes(cut_off(picture_of(store, job).read_bytes()))
    assert not jobs.intact(job)
    assert_whole(store, jobs, computed(redis, store, jobs))


def test_a_run_believes_no_record_whose_picture_is_damaged(redis: Redis, store: Store, jobs: Jobs) -> None:
    """The record was written, then the power failed: of the same size, yet not the same."""
    job = computed(redis, store, jobs)
    picture_of(store, job).write_bytes(zeroed(picture_of(store, job).read_bytes()))
    forgotten(redis, job)
    record = record_of(store, job).rename(directory(store) / "aside")
    submit(jobs, question(7), MODEL)
    record.rename(record_of(store, job))
    assert_whole(store, jobs, computed(redis, store, jobs))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_removed_and_computed_again(
    redis: Redis, store: Store, jobs: Jobs, damage: Damage
) -> None:
    job = computed(redis, store, jobs)
    record = record_of(store, job)
    record.write_bytes(damage(record.read_bytes()))
    forgotten(redis, job)
    assert jobs.fetch(job.id) is None
    assert not record.exists()
    _, created = submit(jobs, question(7), MODEL)
    assert created
    assert_whole(store, jobs, computed(redis, store, jobs))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_replaces_a_damaged_record(redis: Redis, store: Store, jobs: Jobs, damage: Damage) -> None:
    job = computed(redis, store, jobs)
    record = record_of(store, job).read_bytes()
    assert jobs.forget(job.id)
    submit(jobs, question(7), MODEL)
    store.put(result_path(job.id), damage(record))
    assert jobs.fetch(job.id) is not None
    assert jobs.stored(job.id) is None
    assert store.exists(result_path(job.id)), "its job waits: that is for the run to mend"
    assert_whole(store, jobs, computed(redis, store, jobs))


def test_another_job_s_record_is_none(redis: Redis, store: Store, jobs: Jobs) -> None:
    job, other = computed(redis, store, jobs), computed(redis, store, jobs, unit=8)
    record_of(store, job).write_bytes(record_of(store, other).read_bytes())
    assert jobs.stored(job.id) is None
    assert not record_of(store, job).exists()
    assert jobs.stored(other.id) == other


def test_what_another_version_wrote_is_replaced_by_a_run_alone(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    job = computed(redis, store, jobs)
    record = record_of(store, job)
    record.write_text(json.dumps(json.loads(record.read_bytes()) | {"state": NEWER}))
    forgotten(redis, job)
    assert jobs.fetch(job.id) is None
    assert record.exists()
    assert_whole(store, jobs, computed(redis, store, jobs))


class Stale(Store):
    """The first read of a picture sees what a run replaces in the same moment."""

    stale = True

    def get(self, path: str) -> bytes | None:
        data = super().get(path)
        if path.endswith(".png") and self.stale and data is not None:
            self.stale = False
            return zeroed(data)
        return data


def test_a_picture_that_was_replaced_meanwhile_is_not_removed(redis: Redis, store: Store, jobs: Jobs) -> None:
    job = computed(redis, store, jobs)
    late = Jobs(redis, Stale(store._objects, store.url, directory(store)))
    assert late.artifact(VISUALIZATION, job.id, "0.png") == picture_of(store, job).read_bytes()


def test_without_redis_nothing_is_removed_and_nothing_damaged_is_shown(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    job = computed(redis, store, jobs)
    nowhere = Redis(port=1)
    assert (
        Jobs(nowhere, store).artifact(VISUALIZATION, job.id, "0.png") == picture_of(store, job).read_bytes()
    )
    picture_of(store, job).write_bytes(b"")
    assert Jobs(nowhere, store).artifact(VISUALIZATION, job.id, "0.png") is None
    assert picture_of(store, job).exists()
