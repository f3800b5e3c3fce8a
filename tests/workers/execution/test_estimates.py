"""A worker says with its progress when a run should end."""

from __future__ import annotations

import time

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="the counting engine makes pictures with torch")

from tests.support.counting_engine import CountingEngine
from tests.support.eventually import until
from tests.support.model_on_paper import MODEL, question
from tests.support.worker_in_process import working
from workers.jobs.repository import Jobs
from workers.storage.store import Store

pytestmark = pytest.mark.engine


def test_a_worker_tells_it_with_its_progress(redis: Redis, store: Store, jobs: Jobs) -> None:
    with working(redis, store, CountingEngine(step_s=0.5)):
        job, _ = submit(jobs, question(5, steps=1200), MODEL)

        def left_s() -> float | None:
            seen = jobs.fetch(job.id)
            return None if seen is None else seen.eta_s(time.time())

        until(lambda: left_s() is not None)
        assert left_s() == pytest.approx(600, abs=100)
        jobs.cancel(job.id)
        until(lambda: left_s() is None)
