"""Batches whose worker died: another goes on where it was, and no unit is lost or computed twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="a worker computes with torch")

from tests.support.eventually import until
from tests.support.expanded_batches import ask, asked, counts, ended, expanded, idle, now
from tests.support.model_on_paper import MODEL
from workers.batches.expander import CHUNK, CLAIM_S
from workers.batches.repository import Batches, BatchRecord
from workers.broker.keys import batch_key, due_batches_key, units_key
from workers.broker.rq_names import FAILED_KEY, FINISHED_KEY, INTERMEDIATE_KEY, QUEUE_KEY
from workers.jobs.repository import Jobs
from workers.storage.store import Store

pytestmark = pytest.mark.engine


REPOSITORY = Path(__file__).resolve().parents[3]


@contextmanager
def process(redis_url: str, store: Store) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process with the counting engine."""
    command = [sys.executable, "-m", "tests.support.counting_engine", redis_url, store.url, "4", "0.01"]
    worker: Any = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize("reached", ["claimed", "in hand", "linked", "half submitted", "submitted"])
def test_what_a_worker_left_when_it_died_is_gone_on_with(
    redis: Redis, store: Store, batches: Batches, jobs: Jobs, reached: str
) -> None:
    batch = ask(batches, asked({"stop": 3 * CHUNK}))
    redis.delete(due_batches_key("tiny"))  # it had been told
    scripts = idle(redis, store)._commands
    assert scripts.claim(batch.id, "dead", CLAIM_S)
    steps = ["claimed", "in hand", "linked", "half submitted", "submitted"]
    if steps.index(reached) >= 1:
        hand = scripts.next(batch.id, "dead", CLAIM_S, CHUNK)
        assert hand == list(range(CHUNK))
    if steps.index(reached) >= 2:
        pairs = [(unit, batch.request_of(unit, 0.0).spec.identity(MODEL)) for unit in hand]
        assert scripts.link(batch.id, "dead", pairs)
    submitted = {"half submitted": CHUNK // 2, "submitted": CHUNK}.get(reached, 0)
    for unit in range(submitted):
        submit(jobs, batch.request_of(unit, 0.0), MODEL, flow=batch.id)

    alive = idle(redis, store)
    alive.look()
    alive.expand_due()
    assert redis.llen(QUEUE_KEY) == submitted  # the claim holds
    redis.delete(batch_key(batch.id) + ":claim", "proxygrad:batches:running:looked")  # it ended
    expanded(alive)
    assert counts(now(batches, batch)) == {"queued": 3 * CHUNK}
    assert redis.llen(QUEUE_KEY) == 3 * CHUNK
    assert not scripts.link(batch.id, "dead", [(0, "0" * 32)])  # it comes back
    assert not scripts.next(batch.id, "dead", CLAIM_S, CHUNK)


def test_a_unit_that_ended_while_its_worker_was_dead_is_not_tried_again(
    redis: Redis, store: Store, batches: Batches, jobs: Jobs
) -> None:
    batch = ask(batches, asked([0, 1]))
    scripts = idle(redis, store)._commands
    scripts.claim(batch.id, "dead", CLAIM_S)
    hand = scripts.next(batch.id, "dead", CLAIM_S, CHUNK)
    scripts.link(
        batch.id, "dead", [(unit, batch.request_of(unit, 0.0).spec.identity(MODEL)) for unit in hand]
    )
    job, _ = submit(jobs, batch.request_of(0, 0.0), MODEL, flow=batch.id)
    jobs.cancel(job.id)
    redis.delete(batch_key(batch.id) + ":claim")
    alive = idle(redis, store)
    expanded(alive)
    assert counts(now(batches, batch)) == {"canceled": 1, "queued": 1}
    assert redis.llen(QUEUE_KEY) == 1


def test_a_worker_that_is_killed_costs_a_batch_nothing(
    redis: Redis, redis_url: str, store: Store, batches: Batches
) -> None:
    batch = ask(batches, asked({"stop": 300}))
    with process(redis_url, store) as doomed, process(redis_url, store):
        until(lambda: now(batches, batch).counts["succeeded"] >= 20, 60)
        doomed.send_signal(signal.SIGKILL)
        done = ended(batches, batch, 90)
    assert (done.state, counts(done)) == ("succeeded", {"succeeded": 300})
    assert redis.zcard(FINISHED_KEY) == 300
    assert [redis.llen(QUEUE_KEY), redis.llen(INTERMEDIATE_KEY), redis.zcard(FAILED_KEY)] == [0, 0, 0]
    assert _letters(redis, batch) == {"s"}


def _letters(redis: Redis, batch: BatchRecord) -> set[str]:
    return {mark[:1].decode() for mark in cast(list[bytes], redis.hvals(units_key(batch.id)))}
