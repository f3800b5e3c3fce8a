"""An attribution takes turns with everything else, and may end between two of them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from redis import Redis

pytest.importorskip("torch", reason="networks are what is computed")

import numpy as np
import torch

import proxygrad as pg
from proxygrad.attribution import slices
from proxygrad.engine.engine import Engine
from proxygrad.networks.network import Network
from proxygrad.pictures import npy_file
from proxygrad.protocol.attributions import AttributionRequest, VisualizationImage
from proxygrad.spec.attribution import InputImage, ReferenceImages
from tests.support.engine_requests import ask
from tests.support.eventually import LIMIT_S, until
from tests.support.networks import small
from tests.support.slow_network import Pace, slow
from tests.support.worker_in_process import working
from workers.broker.pipeline import run_blocking
from workers.execution.context import WorkerContext
from workers.fleet.catalog import ServedModel
from workers.jobs.inputs import INPUT, REFERENCES, put_input
from workers.jobs.kinds.attribution import ATTRIBUTION, AttributionJob
from workers.jobs.repository import DEFAULT_LIMITS, Jobs
from workers.jobs.requests import Submission
from workers.storage.pins import ArtifactPins
from workers.storage.store import Store

pytestmark = pytest.mark.engine

SHAPE = (3, 16, 16)
#: 63 turns of 16 points at that size, and two more.
LONG: dict[str, Any] = {"method": "integrated_gradients", "points": 1000}


@dataclass(frozen=True)
class One:
    """Lends one network."""

    network: Network

    @property
    def served(self) -> tuple[ServedModel, ...]:
        return (ServedModel(name=self.network.name, info=self.network.info),)

    @contextmanager
    def lent(self, name: str) -> Iterator[Network]:
        yield self.network


def pixels(seed: int, *more: int) -> bytes:
    shape = (*more, *SHAPE)
    levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return npy_file(shape, levels.tobytes(), "|u1")


def asked(redis: Redis, store: Store, network: Network, sent: int = 0, **fields: Any) -> str:
    """The id of a job whose pictures are in the store; ``sent``: how many of them are references."""
    jobs, data, stack = Jobs(redis, store), pixels(0), pixels(1, sent) if sent else b""
    image = InputImage(sha256=hashlib.sha256(data).hexdigest(), channels=3, height_px=16, width_px=16)
    digest = hashlib.sha256(stack).hexdigest()
    references = ReferenceImages(sha256=digest, number=sent) if sent else None
    named = VisualizationImage(visualization="0" * 32)
    question = {"model": network.name, "layer": "fc", "unit": 1, "image": named}
    request = AttributionRequest.model_validate(question | fields).of(image, references)
    submission = Submission.of(ATTRIBUTION, request, network.info, "anonymous", None)
    job, _ = run_blocking(jobs.submit(submission, DEFAULT_LIMITS), redis)
    put_input(store, ArtifactPins(redis), job.id, data, image.sha256)
    if sent:
        put_input(store, ArtifactPins(redis), job.id, stack, digest, REFERENCES)
    return job.id


def found(jobs: Jobs, job_id: str) -> AttributionJob:
    job = jobs.fetch(job_id)
    assert isinstance(job, AttributionJob)
    return job


def ended(jobs: Jobs, job_id: str) -> AttributionJob:
    until(lambda: found(jobs, job_id).ended)
    return found(jobs, job_id)


@contextmanager
def at_work(redis: Redis, store: Store, network: Network) -> Iterator[tuple[WorkerContext, Engine]]:
    with Engine() as engine, working(redis, store, engine, models=One(network)) as runtime:
        yield runtime, engine


def begun(jobs: Jobs, job_id: str) -> None:
    until(lambda: found(jobs, job_id).step > 0)


def paced() -> tuple[Network, Pace]:
    """So slow that a long attribution takes two seconds."""
    return slow(pause_s=0.03)


@pytest.mark.parametrize(
    ("sent", "fields", "steps"),
    [
        (0, {}, 1),
        (3, {}, 3),
        (2, {"reference": ["zeros", "uploaded", 0.5]}, 4),
        (0, {"reference": "shuffled", "references": 4, "seed": 3}, 4),
        (1, {"reference": ["uploaded", "mean"], "method": "integrated_gradients", "points": 9}, 18),
    ],
)
def test_the_result_is_the_library_s(
    redis: Redis, store: Store, jobs: Jobs, sent: int, fields: dict[str, Any], steps: int
) -> None:
    network = small()
    job_id = asked(redis, store, network, sent, **fields)
    with at_work(redis, store, network):
        job = ended(jobs, job_id)
    assert job.state == "succeeded", job.problem
    assert (job.step, job.steps) == (steps, steps)
    from proxygrad.attribution.explanation import pixels_of

    own = {"uploaded": pixels_of(pixels(1, sent)).unsqueeze(0)} if sent else {}
    given = fields.get("reference", "uploaded" if sent else "zeros")
    given = given if isinstance(given, list) else [given]
    options = {name: value for name, value in fields.items() if name != "reference"}
    expected = pg.attribute(
        network, pixels_of(pixels(0)), "fc:1", reference=[own.get(each, each) for each in given], **options
    )
    stored = store.get(f"{job_id}/contributions.npy")
    assert stored is not None
    torch.testing.assert_close(pixels_of(stored), expected.contributions[0], rtol=1e-4, atol=1e-6)
    assert job.result is not None
    assert job.result.reference_value == pytest.approx(float(expected.reference_value[0]), rel=1e-4)


def test_progress_counts_points(redis: Redis, store: Store, jobs: Jobs) -> None:
    network, _ = paced()
    job_id, seen, remaining = asked(redis, store, network, **LONG), set[int](), list[float]()
    with at_work(redis, store, network):
        while not (job := found(jobs, job_id)).ended:
            seen.add(job.step)
            if job.step and (eta_s := job.eta_s(time.time())) is not None:
                remaining.append(eta_s)
            time.sleep(0.01)
    assert job.state == "succeeded", job.problem
    assert len(seen) >= 3
    assert all(step % 16 == 0 or step == 1000 for step in seen)
    assert remaining


def test_a_cancellation_ends_it_between_two_turns(redis: Redis, store: Store, jobs: Jobs) -> None:
    network, pace = paced()
    job_id = asked(redis, store, network, **LONG)
    with at_work(redis, store, network):
        begun(jobs, job_id)
        jobs.cancel(job_id)
        job = ended(jobs, job_id)
        passes = pace.passes
    assert job.state == "canceled"
    assert 0 < job.step < 1000
    assert passes < 63


def test_a_deadline_ends_it_and_says_how_far_it_came(redis: Redis, store: Store, jobs: Jobs) -> None:
    network, _ = paced()
    job_id = asked(redis, store, network, **LONG, deadline_s=1.0)
    with at_work(redis, store, network):
        job = ended(jobs, job_id)
    assert job.state == "failed"
    assert job.problem is not None
    assert job.problem.code == "deadline_exceeded"
    assert "of 1000" in job.problem.detail


def test_visualizations_go_on_beside_it(redis: Redis, store: Store, jobs: Jobs) -> None:
    network, _ = paced()
    job_id = asked(redis, store, network, **LONG)
    with at_work(redis, store, network) as (_, engine):
        begun(jobs, job_id)
        made = engine.submit(small(), ask(steps=8)).result(LIMIT_S)
        assert made.result.steps_done == 8
        assert not found(jobs, job_id).ended
        jobs.cancel(job_id)
        ended(jobs, job_id)


def test_two_take_turns(redis: Redis, store: Store, jobs: Jobs) -> None:
    network, _ = paced()
    first, second = (asked(redis, store, network, **LONG, unit=unit) for unit in (0, 1))
    with Engine() as engine, working(redis, store, engine, slots=2, models=One(network)):
        begun(jobs, first)
        begun(jobs, second)
        assert not found(jobs, first).ended
        for job_id in (first, second):
            jobs.cancel(job_id)
            ended(jobs, job_id)


def test_the_engine_s_clock_counts_each_turn_for_itself(redis: Redis, store: Store, jobs: Jobs) -> None:
    network, pace = paced()
    job_id, longest_s, began_s = asked(redis, store, network, **LONG), 0.0, time.monotonic()
    with at_work(redis, store, network) as (_, engine):
        while not found(jobs, job_id).ended:
            longest_s = max(longest_s, engine.stalled_s)
            time.sleep(0.002)
        assert found(jobs, job_id).state == "succeeded"
        assert longest_s < (time.monotonic() - began_s) / 2
        stuck = asked(redis, store, network, **LONG, unit=0)
        begun(jobs, stuck)
        pace.hold()
        until(lambda: engine.stalled_s > 2 * longest_s)  # one that hangs is seen
        jobs.cancel(stuck)
        pace.going.set()
        assert ended(jobs, stuck).state == "canceled"


def test_a_worker_that_ends_puts_it_back(redis: Redis, store: Store, jobs: Jobs) -> None:
    network, _ = slow(pause_s=0.1)  # more than the grace period takes
    job_id = asked(redis, store, network, **LONG)
    with at_work(redis, store, network):
        begun(jobs, job_id)
    job = found(jobs, job_id)
    assert (job.state, job.losses) == ("queued", 0)


def test_what_the_network_raises_midway_is_its_problem(
    redis: Redis, store: Store, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, job_id = small(), ""
    computed = slices.SlicedAttribution._computed

    def failing(self: Any, rows: range) -> Any:
        if rows.start:
            raise ZeroDivisionError("in the network")
        return computed(self, rows)

    monkeypatch.setattr(slices.SlicedAttribution, "_computed", failing)
    job_id = asked(redis, store, network, **LONG)
    with at_work(redis, store, network):
        job = ended(jobs, job_id)
    assert job.problem is not None
    assert job.problem.code == "lane_failed"
    assert "ZeroDivisionError: in the network" in job.problem.detail


@pytest.mark.parametrize("name", [INPUT, REFERENCES])
def test_a_picture_that_is_gone_is_named(
    redis: Redis, store: Store, jobs: Jobs, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.jobs.inputs.PATIENCE_S", 0.05)
    network = small()
    job_id = asked(redis, store, network, sent=2)
    store.delete(f"{job_id}/{name}")
    with at_work(redis, store, network):
        job = ended(jobs, job_id)
    assert job.problem is not None
    assert job.problem.code == "input_gone"
