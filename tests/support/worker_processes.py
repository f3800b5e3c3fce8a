"""Worker processes, and their jobs as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.jobs.repository import Job, Jobs

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def worker(*command: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A worker process, killed at the end if it is still there."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PROXYGRAD_")}
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        env={**inherited, "OMP_NUM_THREADS": "1", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        process.wait()


def is_running(jobs: Jobs, job_id: str) -> bool:
    job = jobs.fetch(job_id)
    return job is not None and job.state == "running"


def as_it_stands(jobs: Jobs, job: Job) -> Job:
    """The job as it stands."""
    return jobs.fetch(job.id) or job
