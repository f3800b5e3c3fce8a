"""Everything at once, from several threads: afterwards each job is in the one place that fits its state."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import pytest
from redis import Redis
from rq import Queue as RQQueue
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job as RQJob

from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import VisualizationRequest
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.queue_invariants import faults
from workers.broker import rq_names
from workers.broker.connection import connect
from workers.errors import LeaseLost, QueueLimitReached
from workers.jobs.repository import CheckpointReference, Jobs, Limits
from workers.queue import rq_entries
from workers.queue.fair_queue import FairQueue
from workers.queue.janitor import Janitor
from workers.queue.leases import Leases, Outcome, Run
from workers.storage.store import Store

THREADS, STEPS, UNITS = 5, 160, 12
#: Two of them among the other tests, the rest in `make soak`.
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 10))]
OTHER = MODEL.model_copy(update={"name": "other"})
#: What RQ's tools raise where a job changes between their look and their write.
RACES = (NoSuchJobError, InvalidJobOperation, ValueError)
ENDS: tuple[Outcome, ...] = ("succeeded", "failed", "canceled", "expired")


class Actor:
    """One thread of the storm: a caller, a worker, a janitor and somebody with RQ's tools."""

    def __init__(self, redis: Redis, store: Store, seed: int, *, foreign: bool) -> None:
        self._redis, self._chance, self._name = redis, random.Random(seed), f"actor-{seed}"
        self._jobs, self._leases = Jobs(redis, store), Leases(redis)
        self._ready, self._janitor = FairQueue(redis), Janitor(redis)
        self._queue = RQQueue(rq_names.QUEUE_NAME, connection=redis, serializer=rq_entries.SERIALIZER)
        self._runs: list[Run] = []
        self._acts: list[Callable[[], object]] = [
            *(self.ask, self.ask, self.ask, self.start, self.start, self.start, self.beat, self.checkpoint),
            *(self.close, self.close, self.give_back, self.die, self.cancel, self.retry, self.put_back),
            *(self.lose, self._janitor.sweep, self._janitor.tidy),
        ]
        if foreign:
            self._acts += [self.requeue, self.cancel_with_rq, self.delete, self.empty, self.look]

    def act(self, steps: int) -> None:
        for _ in range(steps):
            self._chance.choice(self._acts)()

    def ask(self) -> None:
        model = self._chance.choice([MODEL, OTHER])
        spec = question(self._chance.randrange(UNITS)).model_copy(update={"model": model.name})
        urgency = {
            "priority": self._chance.choice(["interactive", "batch"]),
            "deadline_s": self._chance.choice([None, None, 0.002, 60.0]),
        }
        with suppress(QueueLimitReached):
            submit(
                self._jobs,
                VisualizationRequest.of(spec).model_copy(update=urgency),
                model,
                caller=self._name,
                flow=self._chance.choice([None, "atlas"]),
                limits=Limits(queued=20, queued_per_caller=8),
            )

    def start(self) -> None:
        models = self._chance.choice([["tiny"], ["other"], ["tiny", "other"]])
        for number, job_id in enumerate(self._ready.pop(models, self._chance.randint(1, 3))):
            run = Run(job_id, f"{self._name}-{self._chance.random()}-{number}")
            lives = self._chance.random() < 0.9
            if lives and self._leases.take(run, slot="s", worker="w") == "taken":
                self._runs.append(run)

    def _run(self) -> Run | None:
        return self._chance.choice(self._runs) if self._runs else None

    def _drop(self) -> Run | None:
        run = self._run()
        if run is not None:
            self._runs.remove(run)
        return run

    def beat(self) -> None:
        self._leases.beat_all(self._runs)

    def checkpoint(self) -> None:
        run, kept = self._run(), CheckpointReference(step=self._chance.randint(1, 4), path="x")
        if run is not None:
            with suppress(LeaseLost):
                self._leases.write(run, {"checkpoint": kept.model_dump_json(), "step": kept.step})

    def close(self) -> None:
        run, end = self._drop(), self._chance.choice(ENDS)
        if run is not None:
            problem = Problem(code="lane_failed", detail="nan").model_dump_json()
            fields = {"problem": problem} if end == "failed" else {}
            self._leases.close(run, end, fields=fields, slot="s")

    def give_back(self) -> None:
        if run := self._drop():
            self._leases.give_back(run)

    def die(self) -> None:
        self._drop()

    def lose(self) -> None:
        """Let some lease end now."""
        members = _names(self._redis.zrange(rq_names.LEASES_KEY, 0, -1))
        if members:
            self._redis.zadd(rq_names.LEASES_KEY, {self._chance.choice(members): 1}, xx=True)

    def put_back(self) -> None:
        self._ready.put_back(_names(self._redis.lrange(rq_names.INTERMEDIATE_KEY, 0, 0)))

    def _any_job(self) -> str:
        model = self._chance.choice([MODEL, OTHER])
        spec = question(self._chance.randrange(UNITS)).model_copy(update={"model": model.name})
        return spec.identity(model)

    def cancel(self) -> None:
        self._jobs.cancel(self._any_job())

    def retry(self) -> None:
        with suppress(QueueLimitReached):
            self._jobs.retry(
                self._any_job(), caller=self._name, limits=Limits(queued=20, queued_per_caller=8)
            )

    def _entry(self) -> RQJob:
        return RQJob.fetch(self._any_job(), connection=self._redis, serializer=rq_entries.SERIALIZER)

    def requeue(self) -> None:
        with suppress(*RACES):
            self._entry().requeue()

    def cancel_with_rq(self) -> None:
        with suppress(*RACES):
            entry = self._entry()
            if entry.is_queued:
                entry.cancel()

    def delete(self) -> None:
        with suppress(*RACES):
            entry = self._entry()
            if entry.is_queued:
                entry.delete()

    def empty(self) -> None:
        if self._chance.random() < 0.1:
            self._queue.empty()  # type: ignore[no-untyped-call]

    def look(self) -> None:
        """What `rq info` does."""
        with suppress(*RACES):
            assert self._queue.started_job_registry.count >= 0


def _names(found: object) -> list[str]:
    return [name.decode() for name in cast(list[bytes], found)]


def storm(redis_url: str, store: Store, seed: int, *, foreign: bool) -> None:
    clients = [connect(redis_url) for _ in range(THREADS)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            Actor(clients[number], store, 100 * seed + number, foreign=foreign).act(STEPS)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
    assert failures == []


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_storm_every_job_is_in_its_place(
    redis_url: str, redis: Redis, store: Store, seed: int
) -> None:
    for wave in range(3):
        storm(redis_url, store, 10 * seed + wave, foreign=False)
        assert faults(redis) == []
    drained(redis)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_storm_with_rqs_own_tools_a_tidy_puts_every_job_in_its_place(
    redis_url: str, redis: Redis, store: Store, seed: int
) -> None:
    storm(redis_url, store, 50 + seed, foreign=True)
    Janitor(redis).tidy()
    assert faults(redis, theirs=False) == []
    drained(redis, theirs=False)


def drained(redis: Redis, *, theirs: bool = True) -> None:
    """Whatever is left can be worked off, and nothing remains but records of what ended."""
    redis.delete("proxygrad:sweeps")
    for member in _names(redis.zrange(rq_names.LEASES_KEY, 0, -1)):
        redis.zadd(rq_names.LEASES_KEY, {member: 1})
    leases, ready, janitor = Leases(redis), FairQueue(redis), Janitor(redis)
    janitor.sweep()
    ready.put_back(_names(redis.lrange(rq_names.INTERMEDIATE_KEY, 0, -1)))
    while popped := ready.pop(["tiny", "other"], 4):
        for job_id in popped:
            run = Run(job_id, "last")
            assert leases.take(run, slot="s", worker="w") == "taken"
            assert leases.close(run, "succeeded", slot="s") == "closed"
    assert faults(redis, theirs=theirs) == []
    assert (
        redis.llen(rq_names.QUEUE_KEY)
        + redis.llen(rq_names.INTERMEDIATE_KEY)
        + redis.zcard(rq_names.LEASES_KEY)
        == 0
    )
    assert redis.keys("proxygrad:ready*") == redis.keys("proxygrad:waiting*") == []
    assert redis.exists("proxygrad:deadlines", "proxygrad:callers") == 0
