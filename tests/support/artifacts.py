"""Artifacts in a store as workers leave them, and as old as a test wants them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from redis import Redis

from proxygrad.protocol.visualizations import ImageInfo
from tests.support.model_on_paper import MODEL, outcome, question
from workers.broker import keys, limits, rq_names
from workers.jobs.kinds.visualization import VisualizationJob, image_path
from workers.queue import rq_entries
from workers.storage.paths import result_path
from workers.storage.store import Store

IMAGE = ImageInfo(sha256="0" * 64, size_bytes=1000, media_type="image/png", width_px=8, height_px=8)
HOUR_S = 3600.0


def job_id(unit: int) -> str:
    return question(unit).identity(MODEL)


def answered(unit: int) -> VisualizationJob:
    """A job that has succeeded."""
    spec = question(unit).resolve(MODEL)
    return VisualizationJob(
        id=job_id(unit),
        spec=spec,
        state="succeeded",
        created_at=1.0,
        started_at=2.0,
        finished_at=3.0,
        step=spec.steps,
        steps=spec.steps,
        result=outcome(spec),
        images=(IMAGE,),
    )


def keep_answer(store: Store, unit: int, age_s: float = 0.0) -> str:
    """Image and record, as a run leaves them; the job's id."""
    job = answered(unit)
    store.put(image_path(job.id, 0), bytes(IMAGE.size_bytes))
    store.put(result_path(job.id), job.model_dump_json().encode())
    age(store, job.id, age_s)
    return job.id


def remember(redis: Redis, unit: int) -> None:
    """The records in Redis of a job that has succeeded."""
    job = answered(unit)
    redis.hset(keys.job_key(job.id), mapping=job.to_fields())  # type: ignore[arg-type]
    redis.hset(rq_names.entry_key(job.id), mapping=rq_entries.entry_fields(job.id))  # type: ignore[arg-type]
    redis.hset(rq_names.entry_key(job.id), "status", "finished")
    redis.zadd(rq_names.FINISHED_KEY, {job.id: time.time() + limits.FINISHED_TTL_S})


def directory(store: Store) -> Path:
    return Path(store.url.removeprefix("file://"))


def age(store: Store, job: str, age_s: float) -> None:
    """Make everything in a job's folder look that old."""
    then_s = time.time() - age_s
    for file in (directory(store) / job).iterdir():
        os.utime(file, (then_s, then_s))


def names(store: Store) -> set[str]:
    """Every file in the store's directory, half-written ones too."""
    root = directory(store)
    return {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
