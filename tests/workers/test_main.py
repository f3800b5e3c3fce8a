"""Worker processes as they are started, stopped and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

pytest.importorskip("torch", reason="a worker computes with torch")

from proxygrad.spec import Spec
from tests.workers.process import ended, until
from tests.workers.questions import MODEL, question
from tests.workers.runs import waiting
from workers import catalog, queue
from workers.jobs import Job, Jobs, image_path
from workers.storage import Store

pytestmark = pytest.mark.engine

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


def counting(redis_url: str, store: Store, slots: int = 4, step_s: float = 0.01) -> list[str]:
    """Command of a worker with the counting engine."""
    return ["-m", "tests.workers.counting", redis_url, store.url, str(slots), str(step_s)]


def is_running(jobs: Jobs, job_id: str) -> bool:
    job = jobs.fetch(job_id)
    return job is not None and job.state == "running"


def _now(jobs: Jobs, job: Job) -> Job:
    """The job as it stands."""
    return jobs.fetch(job.id) or job


def refused(environ: Mapping[str, str]) -> str:
    """What a worker that ends at once says."""
    with worker("-m", "workers", **environ) as process:
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 1
    return said


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "error: REDIS_URL is not set; valid: redis://host:port/0"),
        (
            {"REDIS_URL": "redis://me:secret@127.0.0.1:1"},
            "error: no Redis answers at redis://me:***@127.0.0.1:1: ",
        ),
        ({"REDIS_URL": "localhost"}, "error: REDIS_URL is 'localhost'; valid: "),
        ({"PROXYGRAD_SLOTS": "0"}, "error: PROXYGRAD_SLOTS is 0; valid: 1 to 256"),
    ],
)
def test_what_is_wrong_is_one_line(environ: dict[str, str], said: str) -> None:
    output = refused({"REDIS_URL": "", **environ})
    assert output.startswith(said)
    assert output.count("\n") == 1
    assert "secret" not in output


def test_a_store_that_cannot_be_written_and_a_bad_models_file_are_named(
    redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    said = refused({"REDIS_URL": redis_url, "PROXYGRAD_STORE": f"file://{tmp_path}/file/x"})
    assert said.startswith(f"error: cannot open the artefact store 'file://{tmp_path}/file/x': ")
    assert said.endswith(f"Not a directory: '{tmp_path}/file/x'\n")
    (tmp_path / "models.toml").write_text("models = [")
    said = refused({"REDIS_URL": redis_url, "PROXYGRAD_HOME": str(tmp_path), "PROXYGRAD_DEVICE": "cpu"})
    assert said.startswith(f"error: models file {tmp_path}/models.toml is not valid TOML: ")
    assert said.count("\n") == 1


def test_sigterm_puts_work_back_and_ends_cleanly(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    job, _ = jobs.submit(question(steps=10_000 // 4), MODEL)
    with worker(*counting(redis_url, store)) as process:
        until(lambda: is_running(jobs, job.id), 20)
        assert list(catalog.served(redis)) == ["tiny"]
        process.terminate()
        said, _ = process.communicate(timeout=10)
        assert process.returncode == 0
    assert "Traceback" not in said
    assert waiting(redis) == [job.id]
    assert _now(jobs, job).losses == 0
    assert catalog.live_workers(redis) == []
    assert redis.zcard(queue.LEASES_KEY) == 0


def test_jobs_survive_workers_that_are_killed(redis_url: str, redis: Redis, store: Store, jobs: Jobs) -> None:
    """Two workers; one is killed with all its slots busy, then so is the other; a third finishes the work."""
    ids = [jobs.submit(question(unit, steps=20), MODEL)[0].id for unit in range(40)]
    with worker(*counting(redis_url, store, step_s=0.05)) as first:
        until(lambda: redis.zcard(queue.LEASES_KEY) == 4, 20)
        with worker(*counting(redis_url, store, step_s=0.05)) as second:
            until(lambda: redis.zcard(queue.LEASES_KEY) == 8, 20)
            first.kill()
            time.sleep(0.5)
            second.kill()
    with worker(*counting(redis_url, store, slots=8)):
        done = [ended(jobs, job_id, 30) for job_id in ids]
        until(lambda: redis.zcard(queue.LEASES_KEY) == 0)
    assert {job.state for job in done} == {"succeeded"}
    assert max(job.losses for job in done) == 1
    assert sum(job.losses for job in done) == 8
    artefacts = [path for path in Path(store.url.removeprefix("file://")).rglob("*") if path.is_file()]
    assert sorted(path.relative_to(path.parents[1]).as_posix() for path in artefacts) == sorted(
        f"{job_id}/{name}" for job_id in ids for name in ("0.png", "result.json")
    )
    assert redis.llen(queue.QUEUE_KEY) == redis.llen(queue.POPPED_KEY) == 0


def test_a_paused_worker_that_comes_back_changes_nothing(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    job, _ = jobs.submit(question(5, steps=1000), MODEL)
    with worker(*counting(redis_url, store, slots=1, step_s=0.05)) as paused:
        until(lambda: is_running(jobs, job.id), 20)
        with worker(*counting(redis_url, store, slots=1, step_s=0.002)):
            until(lambda: len(catalog.live_workers(redis)) == 2, 20)
            paused.send_signal(signal.SIGSTOP)
            until(lambda: _now(jobs, job).losses == 1, 20)
            until(lambda: is_running(jobs, job.id))
            taken_by = _now(jobs, job).worker
            paused.send_signal(signal.SIGCONT)
            done = ended(jobs, job.id)
        paused.terminate()
        said, _ = paused.communicate(timeout=10)
    assert (done.state, done.worker, done.losses) == ("succeeded", taken_by, 1)
    assert f"job {job.id}: the lease of run" in said
    assert jobs.fetch(job.id) == jobs.stored(job.id)


# -- the real engine -----------------------------------------------------------------------------------------


@contextmanager
def digits_worker(redis_url: str, redis: Redis, home: Path) -> Iterator[subprocess.Popen[str]]:
    environ = {"REDIS_URL": redis_url, "PROXYGRAD_HOME": str(home), "PROXYGRAD_DEVICE": "cpu"}
    with worker("-m", "workers", **environ) as process:
        until(lambda: catalog.live_workers(redis) != [], 30)
        yield process


def test_a_killed_worker_loses_nothing_of_a_real_visualization(
    redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    """`kill -9` in mid job, a restart, one answer."""
    store = Store.from_url((tmp_path / "artefacts").as_uri())
    jobs = Jobs(redis, store)
    with digits_worker(redis_url, redis, tmp_path) as process:
        info = catalog.served(redis)["digits"].info
        assert info is not None
        asked = Spec(model="digits", layer=info.layers[-1].name, unit=3, steps=500)
        job, _ = jobs.submit(asked, info)
        until(lambda: _now(jobs, job).step > 0, 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    catalog.withdraw(redis, catalog.live_workers(redis)[0])  # its word lasts some seconds longer
    assert not _now(jobs, job).ended
    restarted_s = time.monotonic()
    with digits_worker(redis_url, redis, tmp_path):
        done = ended(jobs, job.id, 40)
        recovered_s = time.monotonic() - restarted_s - cast(float, done.ran_s)
        assert jobs.submit(asked, info) == (done, False)
    assert (done.state, done.losses) == ("succeeded", 1)
    assert recovered_s < 12
    assert done.result is not None
    assert done.result.achieved_activation > done.result.start_activation
    png = store.get(image_path(job.id, 0))
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "artefacts" / job.id).iterdir()) == [
        "0.png",
        "result.json",
    ]
