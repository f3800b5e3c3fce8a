"""Batches of the model on paper, and a worker in this process that puts them into the queue."""

from __future__ import annotations

from typing import Any

from redis import Redis

from proxygrad.protocol.problems import Problem
from proxygrad.protocol.requests import ANONYMOUS, BatchRequest
from proxygrad.spec import ModelInfo
from tests.support.eventually import LIMIT_S, until
from tests.support.job_calls import expander
from tests.support.model_on_paper import MODEL
from tests.support.slot_steps import pop
from workers.batches.expander import BatchExpander
from workers.batches.repository import Batches, BatchRecord, ResolvedBatch
from workers.broker.rq_names import QUEUE_KEY
from workers.execution.context import WorkerContext
from workers.fleet.catalog import ServedModel
from workers.jobs.requests import Limits
from workers.queue.leases import Leases, Outcome, Run
from workers.storage.store import Store


def asked(units: Any = "all", **settings: Any) -> BatchRequest:
    """A batch about the one layer there is, of few steps."""
    return BatchRequest(model="tiny", layer="conv", units=units, **{"steps": 4, **settings})


def ask(
    batches: Batches,
    request: BatchRequest,
    caller: str = ANONYMOUS,
    limits: Limits | None = None,
    model: Any = MODEL,
) -> BatchRecord:
    """The batch."""
    question = ResolvedBatch.of(request, model)
    return batches.submit(question, request, caller=caller, limits=limits or Limits())[0]


def now(batches: Batches, batch: BatchRecord) -> BatchRecord:
    """The batch as it stands."""
    found = batches.fetch(batch.id)
    assert found is not None
    return found


def ended(batches: Batches, batch: BatchRecord, limit_s: float = 2 * LIMIT_S) -> BatchRecord:
    """The batch once it has ended."""
    until(lambda: now(batches, batch).ended, limit_s)
    return now(batches, batch)


def counts(batch: BatchRecord) -> dict[str, int]:
    """How many units are in each state that any are in."""
    every: dict[str, int] = {"waiting": batch.waiting}
    every.update({str(state): count for state, count in batch.counts.items()})
    return {state: count for state, count in every.items() if count}


class Paper:
    """A runtime's models: the one on paper, with weights that may change."""

    def __init__(self, info: ModelInfo = MODEL) -> None:
        self._info = info

    @property
    def served(self) -> Any:
        return (ServedModel(name=self._info.name, info=self._info),)


def idle(redis: Redis, store: Store, info: ModelInfo = MODEL) -> BatchExpander:
    """Puts batches into the queue; nothing is computed."""
    nothing: Any = None
    models: Any = Paper(info)
    return expander(WorkerContext("host", redis, store, nothing, models))


def drained(expansion: BatchExpander) -> None:
    """Put what is known to be due into the queue, as far as there is room."""
    while expansion.expand_due():
        pass


def expanded(expansion: BatchExpander) -> None:
    """The same after a look at what there is."""
    expansion.look()
    drained(expansion)


def end_next(redis: Redis, outcome: Outcome = "succeeded", best: int = 0) -> str:
    """Run the next job of the queue to its end; its id."""
    job_id, leases = pop(redis), Leases(redis)
    run = Run(job_id, "e-" + job_id)
    assert leases.take(run, slot="s", worker="w") == "taken"
    fields: dict[str, str | int | float] = {}
    if outcome == "succeeded":
        fields = {"activation": 2.5, "best": best}
    elif outcome == "failed":
        problem = Problem(code="lane_failed", detail="the activation became infinite")
        fields = {"problem": problem.model_dump_json()}
    assert leases.close(run, outcome, fields=fields, slot="s") == "closed"
    return job_id


def queued(redis: Redis) -> int:
    return redis.llen(QUEUE_KEY)
