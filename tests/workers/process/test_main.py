"""Worker processes as they are started, stopped and killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="a worker computes with torch")


from tests.support.counting_engine import HANGING, POISON
from tests.support.eventually import ended, until
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import waiting
from tests.support.worker_processes import as_it_stands, is_running, worker
from workers import logs
from workers.broker import rq_names
from workers.fleet import catalog
from workers.jobs.repository import Jobs
from workers.process import main as program
from workers.queue.janitor import Janitor
from workers.storage.store import Store

pytestmark = pytest.mark.engine


def counting(
    redis_url: str, store: Store, slots: int = 4, step_s: float = 0.01, grace_s: float = 1.0
) -> list[str]:
    """Command of a worker with the counting engine."""
    return [
        "-m",
        "tests.support.counting_engine",
        redis_url,
        store.url,
        str(slots),
        str(step_s),
        str(grace_s),
    ]


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
        ({"REDIS_URL": "localhost"}, "error: REDIS_URL is 'localhost'; valid: "),
        ({"PROXYGRAD_SLOTS": "0"}, "error: PROXYGRAD_SLOTS is 0; valid: 1 to 256"),
    ],
)
def test_what_is_wrong_is_one_line(
    environ: dict[str, str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "drain_on_signals", lambda drain: None)  # this process keeps its own
    monkeypatch.setattr(logs, "configure", lambda form: None)
    assert program.main([], environ) == 1
    output = capsys.readouterr().err
    assert output.startswith(said)
    assert output.count("\n") == 1


def test_a_redis_that_does_not_answer_is_one_line_without_its_password() -> None:
    output = refused({"REDIS_URL": "redis://me:secret@127.0.0.1:1"})
    assert output.startswith("error: no Redis answers at redis://me:***@127.0.0.1:1: ")
    assert output.count("\n") == 1
    assert "secret" not in output


def test_a_store_that_cannot_be_written_and_a_bad_models_file_are_named(
    redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    said = refused({"REDIS_URL": redis_url, "PROXYGRAD_STORE": f"file://{tmp_path}/file/x"})
    assert said.startswith(f"error: cannot open the artifact store 'file://{tmp_path}/file/x': ")
    assert said.endswith(f"Not a directory: '{tmp_path}/file/x'\n")
    (tmp_path / "models.toml").write_text("models = [")
    said = refused({"REDIS_URL": redis_url, "PROXYGRAD_HOME": str(tmp_path), "PROXYGRAD_DEVICE": "cpu"})
    assert said.startswith(f"error: models file {tmp_path}/models.toml is not valid TOML: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_work_back_and_ends_cleanly(
    number: signal.Signals, redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    job, _ = submit(jobs, question(steps=10_000 // 4), MODEL)
    with worker(*counting(redis_url, store)) as process:
        until(lambda: is_running(jobs, job.id), 60)
        assert list(catalog.served(redis)) == ["tiny"]
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    assert "Traceback" not in said
    assert waiting(redis) == [job.id]
    assert as_it_stands(jobs, job).losses == 0
    assert catalog.live_workers(redis) == []
    assert redis.zcard(rq_names.LEASES_KEY) == 0


def test_jobs_survive_workers_that_are_killed(redis_url: str, redis: Redis, store: Store, jobs: Jobs) -> None:
    """Two workers; one is killed with all its slots busy, then so is the other; a third finishes the work."""
    ids = [submit(jobs, question(unit, steps=20), MODEL)[0].id for unit in range(40)]
    with worker(*counting(redis_url, store, step_s=3.0)) as first:  # no job ends before the kill
        until(lambda: redis.zcard(rq_names.LEASES_KEY) == 4, 60)
        with worker(*counting(redis_url, store, step_s=3.0)) as second:
            until(lambda: redis.zcard(rq_names.LEASES_KEY) == 8, 60)
            first.kill()
            time.sleep(0.5)
            second.kill()
    with worker(*counting(redis_url, store, slots=8)):
        done = [ended(jobs, job_id, 30) for job_id in ids]
        until(lambda: redis.zcard(rq_names.LEASES_KEY) == 0)
    assert {job.state for job in done} == {"succeeded"}
    assert max(job.losses for job in done) == 1
    assert sum(job.losses for job in done) == 8
    artifacts = [path for path in Path(store.url.removeprefix("file://")).rglob("*") if path.is_file()]
    assert sorted(path.relative_to(path.parents[1]).as_posix() for path in artifacts) == sorted(
        f"{job_id}/{name}" for job_id in ids for name in ("0.png", "result.json")
    )
    assert redis.llen(rq_names.QUEUE_KEY) == redis.llen(rq_names.INTERMEDIATE_KEY) == 0


def test_a_paused_worker_that_comes_back_changes_nothing(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    job, _ = submit(jobs, question(5, steps=1000), MODEL)
    with worker(*counting(redis_url, store, slots=1, step_s=0.05)) as paused:
        until(lambda: is_running(jobs, job.id), 60)
        with worker(*counting(redis_url, store, slots=1, step_s=0.002)):
            until(lambda: len(catalog.live_workers(redis)) == 2, 60)
            paused.send_signal(signal.SIGSTOP)
            until(lambda: as_it_stands(jobs, job).losses == 1, 60)
            until(lambda: is_running(jobs, job.id))
            taken_by = as_it_stands(jobs, job).worker
            paused.send_signal(signal.SIGCONT)
            done = ended(jobs, job.id)
        paused.terminate()
        said, _ = paused.communicate(timeout=30)
    assert (done.state, done.worker, done.losses) == ("succeeded", taken_by, 1)
    assert f"job {job.id}: the lease of run" in said
    assert jobs.fetch(job.id) == jobs.stored(job.id)


def test_a_rolling_restart_loses_a_few_steps_at_most(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    """Of two jobs on the first worker one ends within its grace period; the other goes on on the second."""
    command = counting(redis_url, store, slots=2, step_s=0.02, grace_s=30.0)
    with worker(*command) as first:
        long, _ = submit(jobs, question(0, steps=4000), MODEL)
        until(lambda: is_running(jobs, long.id), 60)
        taken_by = as_it_stands(jobs, long).worker
        with worker(*command) as second:
            until(lambda: len(catalog.live_workers(redis)) == 2, 60)
            short, _ = submit(jobs, question(1, steps=100), MODEL)
            until(lambda: as_it_stands(jobs, short).step > 0)
            stopped_s, stopped_at = time.monotonic(), as_it_stands(jobs, long).step
            first.terminate()
            until(lambda: as_it_stands(jobs, long).worker not in (taken_by, None))
            assert time.monotonic() - stopped_s < 20  # long before the grace period ends
            assert as_it_stands(jobs, long).step >= stopped_at
            assert first.wait(30) == 0
            done = ended(jobs, short.id)
            jobs.cancel(long.id)
            gone_on = ended(jobs, long.id)
        second.terminate()
    assert (done.state, done.losses) == ("succeeded", 0)
    assert (gone_on.state, gone_on.losses) == ("canceled", 0)
    assert gone_on.step > stopped_at


def test_a_job_that_kills_its_workers_does_not_kill_them_all(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    command = counting(redis_url, store, slots=2)
    with worker(*command) as a, worker(*command) as b, worker(*command) as c:
        until(lambda: len(catalog.live_workers(redis)) == 3, 60)
        poison, _ = submit(jobs, question(POISON), MODEL)
        for process in (a, b, c):
            process.wait(40)
            assert process.returncode == -signal.SIGKILL
        until(lambda: Janitor(redis).sweep() != {})
        failed = as_it_stands(jobs, poison)
    assert failed.problem is not None
    assert (failed.state, failed.problem.code, failed.losses) == ("failed", "worker_lost", 3)
    assert waiting(redis) == []


def test_a_worker_whose_engine_hangs_ends_and_its_job_goes_on_elsewhere(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    job, _ = submit(jobs, question(HANGING, steps=2500), MODEL)
    with worker(*counting(redis_url, store, slots=1)) as process:
        until(lambda: is_running(jobs, job.id), 60)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 70
    assert "the engine has finished nothing for" in said
    assert catalog.live_workers(redis) == []
    until(lambda: bool(Janitor(redis).sweep()) or waiting(redis) == [job.id])
    assert as_it_stands(jobs, job).losses == 1


STUCK = """
import sys, time
from tests.support import counting_engine
counting_engine.AnyModel.lent = lambda *_: time.sleep(1000)
sys.exit(counting_engine.main(*sys.argv[1:]))
"""


def test_a_slot_that_hangs_does_not_hold_up_the_end(
    redis_url: str, redis: Redis, store: Store, jobs: Jobs
) -> None:
    job, _ = submit(jobs, question(), MODEL)
    with worker("-c", STUCK, redis_url, store.url, "2", "0.01", "40") as process:
        until(lambda: is_running(jobs, job.id), 60)
        time.sleep(0.2)
        process.terminate()
        until(lambda: waiting(redis) == [job.id], 20)  # at once: nothing of it was done
        process.terminate()
        assert process.wait(30) == 0
    assert as_it_stands(jobs, job).losses == 0


def test_a_worker_that_is_stopped_while_it_starts_ends_at_once(redis_url: str, tmp_path: Path) -> None:
    with worker("-m", "workers", REDIS_URL=redis_url, PROXYGRAD_HOME=str(tmp_path)) as process:
        until((tmp_path / "artifacts").is_dir, 20)  # before torch is imported
        process.terminate()
        said, _ = process.communicate(timeout=30)
        assert process.returncode in (0, -signal.SIGTERM)
    assert said == ""
