"""Workers with the real engine: what a kill and a cancellation do to a visualization."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="a worker computes with torch")

import torch

from proxygrad.engine.engine import Engine
from proxygrad.images import decode_png
from proxygrad.models import Catalog
from proxygrad.networks.network import Network
from proxygrad.spec import Spec
from tests.support.eventually import ended, until
from tests.support.worker_in_process import working
from tests.support.worker_processes import as_it_stands, worker
from workers.fleet import catalog
from workers.jobs.kinds.visualization import image_path
from workers.jobs.repository import Jobs
from workers.storage.store import Store

pytestmark = pytest.mark.engine


BRISK = """
import os, sys
from workers.queue import leases
from workers.execution import checkpoints as resumption
leases.LEASE_S, leases.BEAT_S, resumption.CHECKPOINT_S = 2, 0.5, 0.2
from workers.process.main import main
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
        until(lambda: catalog.live_workers(redis) != [], 60)
        yield process


def test_a_killed_worker_loses_nothing_of_a_real_visualization(
    redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    """`kill -9` in mid job, a restart that goes on from a checkpoint, and what a run without a kill gives."""
    store = Store.from_url((tmp_path / "artifacts").as_uri())
    jobs = Jobs(redis, store)
    with digits_worker(redis_url, redis, tmp_path) as process:
        info = catalog.served(redis)["digits"].info
        assert info is not None
        asked = Spec(model="digits", layer=info.layers[-1].name, unit=3, steps=300)
        job, _ = submit(jobs, asked, info)
        until(lambda: as_it_stands(jobs, job).checkpoint is not None, 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    catalog.withdraw(redis, catalog.live_workers(redis)[0])  # its word lasts some seconds longer
    kept = as_it_stands(jobs, job).checkpoint
    assert kept is not None
    assert 0 < kept.step < asked.steps
    with digits_worker(redis_url, redis, tmp_path) as process:
        while not (seen := as_it_stands(jobs, job)).ended:
            assert seen.step >= kept.step
            time.sleep(0.01)
        process.terminate()
        said, _ = process.communicate(timeout=30)
    assert (seen.state, seen.losses) == ("succeeded", 1)
    assert f"job {job.id} goes on from step {kept.step}" in said
    again, created = submit(jobs, asked, info)
    assert (jobs.whole(again), created) == (jobs.whole(seen), False)
    assert sorted(path.name for path in (tmp_path / "artifacts" / job.id).iterdir()) == [
        "0.png",
        "result.json",
    ]
    with Engine() as engine:
        whole = engine.submit(Catalog.from_file().load("digits"), asked).result()
    png = store.get(image_path(job.id, 0))
    assert png is not None
    assert seen.result is not None
    assert torch.equal(decode_png(png), decode_png(whole.png))
    assert seen.result.curve == whole.result.curve
    assert seen.result.achieved_activation == whole.result.achieved_activation


def test_a_real_job_stops_within_a_tenth_of_a_second(redis: Redis, store: Store, jobs: Jobs) -> None:
    """From the request to the record; the other lane is not disturbed."""
    network = Catalog.from_file().load("digits")
    took: list[float] = []
    with Engine() as engine, working(redis, store, engine, slots=2, models=Lending(network)):
        other, _ = submit(jobs, Spec(model="digits", layer="layer1", unit=0, steps=2048), network.info)
        for unit in range(20):
            asked = Spec(model="digits", layer="layer3", unit=unit, steps=2048)
            job, _ = submit(jobs, asked, network.info)
            until(lambda job=job: as_it_stands(jobs, job).state == "running")  # type: ignore[misc]
            time.sleep(0.05)
            asked_s = time.time()
            jobs.cancel(job.id)
            stopped = ended(jobs, job.id)
            assert stopped.state == "canceled"
            assert stopped.finished_at is not None
            took.append(stopped.finished_at - asked_s)
        assert as_it_stands(jobs, other).state in ("running", "succeeded")
        jobs.cancel(other.id)
    assert sorted(took)[10] < 0.1 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), took


def test_several_images_and_plain_ones_come_through_a_real_worker(
    redis: Redis, store: Store, jobs: Jobs
) -> None:
    """Each picture in the store is the one that its values are of; the engine has fewer lanes than images."""
    network = Catalog.from_file().load("digits")
    asked = Spec(model="digits", layer="layer3", unit=7, steps=12, images=2, diversity=0.5, compare=True)
    with Engine(max_lanes=2) as engine, working(redis, store, engine, models=Lending(network)):
        job, _ = submit(jobs, asked, network.info)
        done = ended(jobs, job.id)
    assert (done.state, done.problem) == ("succeeded", None)
    assert done.result is not None
    assert [image.role for image in done.result.images] == ["proxygrad"] * 2 + ["baseline"] * 2
    assert done.images[0].sha256 != done.images[1].sha256
    for number, image in enumerate(done.result.images):
        png = store.get(image_path(job.id, number))
        assert png is not None
        read = network.read(decode_png(png).unsqueeze(0), ["layer3"])["layer3"]
        assert float(read[0, 7].mean()) == pytest.approx(image.achieved_activation, rel=1e-6)
    assert done.result.baseline is not None
    plain = done.result.images[2:]
    assert done.result.baseline_activation == max(image.achieved_activation for image in plain)


class Lending:
    """One network."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.served = (catalog.ServedModel(name=network.name, info=network.info),)

    @contextmanager
    def lent(self, name: str) -> Iterator[Network]:
        yield self._network
