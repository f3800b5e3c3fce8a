"""What a slot does with a job, step by step and by hand."""

from __future__ import annotations

from typing import cast

from redis import Redis

from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from workers.broker import rq_names
from workers.jobs.kinds.visualization import VisualizationJob
from workers.jobs.repository import Jobs
from workers.queue.fair_queue import FairQueue
from workers.queue.leases import Leases, Run, Taking

STAMP = "2026-01-01T00:00:00.000000Z"


def pop(redis: Redis, *models: str) -> str:
    """What a worker does to get work."""
    (job_id,) = FairQueue(redis).pop(models or ["tiny"], 1)
    return job_id


def take(leases: Leases, run: Run) -> Taking:
    return leases.take(run, slot="host.0", worker="host")


def started(redis: Redis, jobs: Jobs, leases: Leases, execution: str = "e1") -> Run:
    """A job in the hands of a run."""
    submit(jobs, question(), MODEL)
    run = Run(pop(redis), execution)
    assert take(leases, run) == "taken"
    return run


def record(jobs: Jobs, run: Run) -> VisualizationJob:
    job = jobs.fetch(run.job_id)
    assert isinstance(job, VisualizationJob)
    return job


def waiting(redis: Redis) -> list[str]:
    """Ids in the queue, the next one first."""
    return [job_id.decode() for job_id in cast(list[bytes], redis.lrange(rq_names.QUEUE_KEY, 0, -1))]
