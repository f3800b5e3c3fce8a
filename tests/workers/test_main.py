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

import pytest
from redis import Redis

pytest.importorskip("torch", reason="a worker computes with torch")

import torch

from proxygrad.engine import Engine
from proxygrad.images import decode_png
from proxygrad.models import Catalogue
from proxygrad.network import Network
from proxygrad.spec import Spec
from tests.workers.counting import HANGING, POISON
from tests.workers.patience import ended, until
from tests.workers.process import working
from tests.workers.questions import MODEL, question
from tests.workers.runs import waiting
from workers import catalog, queue
from workers.jobs import Job, Jobs, image_path
from workers.recovery import Janitor
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


def counting(
    redis_url: str, store: Store, slots: int = 4, step_s: float = 0.01, grace_s: float = 1.0
) -> list[str]:
    """Command of a worker with the counting engine."""
    return ["-m", "tests.workers.counting", redis_url, store.url, str(slots), str(step_s), str(grace_s)]


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


def test_a_rolling_restart_loses_a_few_steps_at_most(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    """Of two jobs on the first worker one ends within its grace period; the other goes on on the second."""
    command = counting(redis_url, store, slots=2, step_s=0.005, grace_s=4.0)
    with worker(*command) as first:
        long, _ = jobs.submit(question(0, steps=4000), MODEL)
        until(lambda: is_running(jobs, long.id), 20)
        taken_by = _now(jobs, long).worker
        with worker(*command) as second:
            until(lambda: len(catalog.live_workers(redis)) == 2, 20)
            short, _ = jobs.submit(question(1, steps=300), MODEL)
            until(lambda: _now(jobs, short).step > 0)
            stopped_s, stopped_at = time.monotonic(), _now(jobs, long).step
            first.terminate()
            until(lambda: _now(jobs, long).worker not in (taken_by, None))
            assert time.monotonic() - stopped_s < 1.5
            assert _now(jobs, long).step >= stopped_at
            first.wait(8)
            assert first.returncode == 0
            assert time.monotonic() - stopped_s < 5
            done = ended(jobs, short.id)
            jobs.cancel(long.id)
            gone_on = ended(jobs, long.id)
        second.terminate()
    assert (done.state, done.losses) == ("succeeded", 0)
    assert (gone_on.state, gone_on.losses) == ("cancelled", 0)
    assert gone_on.step > stopped_at


def test_a_job_that_kills_its_workers_does_not_kill_them_all(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    command = counting(redis_url, store, slots=2)
    with worker(*command) as a, worker(*command) as b, worker(*command) as c:
        until(lambda: len(catalog.live_workers(redis)) == 3, 30)
        poison, _ = jobs.submit(question(POISON), MODEL)
        for process in (a, b, c):
            process.wait(25)
            assert process.returncode == -signal.SIGKILL
        until(lambda: Janitor(redis).sweep() != {})
        failed = _now(jobs, poison)
    assert failed.problem is not None
    assert (failed.state, failed.problem.code, failed.losses) == ("failed", "worker_lost", 3)
    assert waiting(redis) == []


def test_a_worker_whose_engine_hangs_ends_and_its_job_goes_on_elsewhere(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    job, _ = jobs.submit(question(HANGING, steps=2500), MODEL)
    with worker(*counting(redis_url, store, slots=1)) as process:
        until(lambda: is_running(jobs, job.id), 20)
        said, _ = process.communicate(timeout=15)
        assert process.returncode == 70
    assert "the engine has finished nothing for" in said
    assert catalog.live_workers(redis) == []
    until(lambda: bool(Janitor(redis).sweep()) or waiting(redis) == [job.id])
    assert _now(jobs, job).losses == 1


STUCK = """
import sys, time
from tests.workers import counting
counting.AnyModel.lent = lambda *_: time.sleep(1000)
sys.exit(counting.main(*sys.argv[1:]))
"""


def test_a_slot_that_hangs_does_not_hold_up_the_end(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    job, _ = jobs.submit(question(), MODEL)
    with worker("-c", STUCK, redis_url, store.url, "2", "0.01", "1") as process:
        until(lambda: is_running(jobs, job.id), 20)
        time.sleep(0.2)
        process.terminate()
        until(lambda: waiting(redis) == [job.id], 1)  # at once: nothing of it was done
        assert process.wait(4) == 0
    assert _now(jobs, job).losses == 0


def test_a_worker_that_is_stopped_while_it_starts_ends_at_once(redis_url: str, tmp_path: Path) -> None:
    with worker("-m", "workers", REDIS_URL=redis_url, PROXYGRAD_HOME=str(tmp_path)) as process:
        until((tmp_path / "artefacts").is_dir, 20)  # before torch is imported
        process.terminate()
        said, _ = process.communicate(timeout=5)
        assert process.returncode in (0, -signal.SIGTERM)
    assert said == ""


# -- the real engine -----------------------------------------------------------------------------------------

BRISK = """
import os, sys
from workers import leases, resumption
leases.LEASE_S, leases.BEAT_S, resumption.CHECKPOINT_S = 2, 0.5, 0.2
from workers.main import main
sys.exit(main([], os.environ))
"""


@contextmanager
def digits_worker(redis_url: str, redis: Redis, home: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker with the bundled network that keeps checkpoints often and loses leases soon."""
    environ = {
        "REDIS_URL": redis_url,
        "PROXYGRAD_HOME": str(home),
        "PROXYGRAD_DEVICE": "cpu",
        "PROXYGRAD_PRECISION": "float32",
    }
    with worker("-c", BRISK, **environ) as process:
        until(lambda: catalog.live_workers(redis) != [], 30)
        yield process


def test_a_killed_worker_loses_nothing_of_a_real_visualization(
    redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    """`kill -9` in mid job, a restart that goes on from a checkpoint, and what a run without a kill gives."""
    store = Store.from_url((tmp_path / "artefacts").as_uri())
    jobs = Jobs(redis, store)
    with digits_worker(redis_url, redis, tmp_path) as process:
        info = catalog.served(redis)["digits"].info
        assert info is not None
        asked = Spec(model="digits", layer=info.layers[-1].name, unit=3, steps=300)
        job, _ = jobs.submit(asked, info)
        until(lambda: _now(jobs, job).checkpoint is not None, 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
    catalog.withdraw(redis, catalog.live_workers(redis)[0])  # its word lasts some seconds longer
    kept = _now(jobs, job).checkpoint
    assert kept is not None
    assert 0 < kept.step < asked.steps
    with digits_worker(redis_url, redis, tmp_path) as process:
        while not (seen := _now(jobs, job)).ended:
            assert seen.step >= kept.step
            time.sleep(0.01)
        process.terminate()
        said, _ = process.communicate(timeout=30)
    assert (seen.state, seen.losses) == ("succeeded", 1)
    assert f"job {job.id} goes on from step {kept.step}" in said
    assert jobs.submit(asked, info) == (seen, False)
    assert sorted(path.name for path in (tmp_path / "artefacts" / job.id).iterdir()) == [
        "0.png",
        "result.json",
    ]
    with Engine() as engine:
        whole = engine.submit(Catalogue.from_file().load("digits"), asked).result()
    png = store.get(image_path(job.id, 0))
    assert png is not None
    assert seen.result is not None
    assert torch.equal(decode_png(png), decode_png(whole.png))
    assert seen.result.curve == whole.result.curve
    assert seen.result.achieved_activation == whole.result.achieved_activation


def test_a_real_job_stops_within_a_tenth_of_a_second(redis: Redis, store: Store, jobs: Jobs) -> None:
    """From the request to the record; the other lane is not disturbed."""
    network = Catalogue.from_file().load("digits")
    took: list[float] = []
    with Engine() as engine, working(redis, store, engine, slots=2, models=Lending(network)):
        other, _ = jobs.submit(Spec(model="digits", layer="layer1", unit=0, steps=2048), network.info)
        for unit in range(20):
            asked = Spec(model="digits", layer="layer3", unit=unit, steps=2048)
            job, _ = jobs.submit(asked, network.info)
            until(lambda job=job: _now(jobs, job).state == "running")  # type: ignore[misc]
            time.sleep(0.05)
            asked_s = time.time()
            jobs.cancel(job.id)
            stopped = ended(jobs, job.id)
            assert stopped.state == "cancelled"
            assert stopped.finished_at is not None
            took.append(stopped.finished_at - asked_s)
        assert _now(jobs, other).state in ("running", "succeeded")
        jobs.cancel(other.id)
    assert sorted(took)[18] < 0.1 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), took


class Lending:
    """One network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.served = (catalog.ServedModel(name=network.name, info=network.info),)

    @contextmanager
    def lent(self, name: str) -> Iterator[Network]:
        yield self._network
