"""Collectors and everybody else at once: what was promised is there, and a killed collector harms nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis import Redis

from tests.support.artifacts import HOUR_S, directory, keep_answer, names
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from workers.broker import limits
from workers.broker.keys import deletion_lock_key
from workers.jobs.kinds.visualization import image_path
from workers.jobs.repository import Jobs
from workers.storage.collector import GarbageCollector, RetentionPolicy
from workers.storage.paths import result_path
from workers.storage.pins import ArtifactPins, DeletionLock
from workers.storage.store import Store

REPOSITORY = Path(__file__).resolve().parents[3]
NOTHING = RetentionPolicy(gigabytes=0.0)


@dataclass
class Contest:
    """Callers and collectors at one store; what they did."""

    redis: Redis
    store: Store
    over: threading.Event = field(default_factory=threading.Event)
    promised: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    computed: list[str] = field(default_factory=list)
    collected: list[int] = field(default_factory=list)

    @property
    def was_one(self) -> bool:
        """Whether much was promised and removed, and some of it computed again."""
        again = len(self.computed) > len(set(self.computed))
        return len(self.promised) > 5 and sum(self.collected) > 2 and again

    def ask(self, seed: int) -> None:
        """Ask what was asked before; look at the image for up to half a second; then let the promise end."""
        jobs, choose = Jobs(self.redis, self.store), random.Random(seed)
        while not self.over.is_set():
            asked_s = time.monotonic()
            job, created = submit(jobs, question(choose.randrange(6)), MODEL)
            self.computed.extend([job.id] * created)
            if job.state == "succeeded":
                self.promised.append(job.id)
                self._look(job.id, choose.choice((0.0, 0.1, 0.5)), asked_s + limits.PIN_S)
                self.over.wait(choose.choice((0.0, 1.2)))
            else:
                self.over.wait(0.01)

    def _look(self, job_id: str, duration_s: float, promised_until_s: float) -> None:
        until_s = time.monotonic() + duration_s
        while True:
            gone = self.store.get(image_path(job_id, 0)) is None
            if gone and time.monotonic() < promised_until_s:
                self.missing.append(job_id)
            if time.monotonic() >= until_s:
                return
            time.sleep(0.02)

    def collect(self) -> None:
        collector = GarbageCollector(self.redis, self.store, NOTHING, grace_s=0.05)
        while not self.over.is_set():
            self.collected.append(collector.collect().answers)
            self.over.wait(0.005)


@pytest.mark.engine
def test_no_promised_image_is_missing(
    redis: Redis, store: Store, set_limit: Callable[[str, int], None]
) -> None:
    """Four callers, two slots and two collectors that keep nothing; a promise counts for a second here."""
    pytest.importorskip("torch", reason="a slot computes with torch")
    from tests.support.counting_engine import CountingEngine
    from tests.support.eventually import until
    from tests.support.worker_in_process import working

    set_limit("PIN_S", 1)
    contest = Contest(redis, store)
    with working(redis, store, CountingEngine(step_s=0.0005), slots=2):
        threads = [threading.Thread(target=contest.ask, args=(seed,)) for seed in range(4)]
        threads += [threading.Thread(target=contest.collect) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(3)
            until(lambda: contest.was_one, 60)
        finally:
            contest.over.set()
            for thread in threads:
                thread.join()
    assert contest.missing == []


_COLLECTOR = """
import sys, time
from workers.storage.collector import GarbageCollector, RetentionPolicy
from workers.broker.connection import connect
from workers.storage.store import Store
delete = Store.delete
def slow(store, path):
    delete(store, path)
    time.sleep(0.005)  # so that it is killed on the way, however late
Store.delete = slow
redis, store = connect(sys.argv[1]), Store.from_url(sys.argv[2])
print(GarbageCollector(redis, store, RetentionPolicy(gigabytes=0.0)).collect())
"""


def test_a_killed_collector_leaves_nothing_wrong(redis_url: str, redis: Redis, store: Store) -> None:
    ids = [keep_answer(store, unit, age_s=2 * HOUR_S) for unit in range(300)]
    command = [sys.executable, "-c", _COLLECTOR, redis_url, store.url]
    with subprocess.Popen(command, cwd=REPOSITORY) as collector:
        while len(list(directory(store).iterdir())) > 250:
            assert collector.poll() is None
            time.sleep(0.001)
        collector.send_signal(signal.SIGKILL)
    assert collector.returncode == -signal.SIGKILL
    left = names(store)
    assert left
    for job_id in ids:  # an answer is there with its image or not at all
        assert result_path(job_id) not in left or image_path(job_id, 0) in left
    redis.delete(
        *redis.keys("proxygrad:deletion-lock:*") or ["none"]
    )  # within a minute they end by themselves
    GarbageCollector(redis, store, NOTHING).collect()
    assert names(store) == set()


@pytest.mark.engine
def test_a_run_waits_until_its_artifacts_have_been_removed(redis: Redis, store: Store) -> None:
    """A collector that stands still in mid removal: the image it will remove is not the new one."""
    pytest.importorskip("torch", reason="a slot computes with torch")
    from tests.support.counting_engine import CountingEngine
    from tests.support.eventually import ended, until
    from tests.support.worker_in_process import working

    jobs, pins, engine = Jobs(redis, store), ArtifactPins(redis), CountingEngine()
    job_id = keep_answer(store, 0)
    lock = pins.lock_for_deletion(job_id)
    assert isinstance(lock, DeletionLock)
    with working(redis, store, engine):
        job, created = submit(jobs, question(0), MODEL)
        assert (job.id, created) == (job_id, True)
        until(lambda: (now := jobs.fetch(job_id)) is not None and now.state == "running")
        time.sleep(0.3)
        assert engine.tickets == []
        for path in (result_path(job_id), image_path(job_id, 0)):
            store.delete(path)
        pins.unlock(lock)
        assert ended(jobs, job_id).state == "succeeded"
    assert len(engine.tickets) == 1
    assert store.exists(image_path(job_id, 0))
    assert not redis.exists(deletion_lock_key(job_id))


@pytest.mark.engine
def test_an_answer_whose_image_is_gone_is_computed_again(redis: Redis, store: Store) -> None:
    pytest.importorskip("torch", reason="a slot computes with torch")
    from tests.support.counting_engine import CountingEngine
    from tests.support.eventually import ended
    from tests.support.worker_in_process import working

    jobs = Jobs(redis, store)
    job_id = keep_answer(store, 0)
    assert submit(jobs, question(0), MODEL)[1] is False
    store.delete(image_path(job_id, 0))
    with working(redis, store, CountingEngine()):
        job, created = submit(jobs, question(0), MODEL)
        assert created
        done = ended(jobs, job.id)
    assert done.images[0].size_bytes == len(store.get(image_path(job_id, 0)) or b"")
    assert jobs.stored(job_id) == done
