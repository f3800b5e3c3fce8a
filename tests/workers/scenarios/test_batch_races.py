"""Batches between two steps: what others do there counts once, and for those it is about."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from redis import Redis

from tests.support.job_calls import submit

pytest.importorskip("torch", reason="a worker computes with torch")

from tests.support.expanded_batches import ask, asked, counts, end_next, expanded, idle, now
from tests.support.model_on_paper import MODEL
from tests.support.slot_steps import pop
from workers.batches.expander import CHUNK, CLAIM_S, BatchExpander
from workers.batches.expansion_commands import MOST_COMPARED, PIN_EVERY_S
from workers.batches.repository import Batches, BatchRecord
from workers.broker.keys import RECEIVERS_KEY, batch_key, due_batches_key, job_key, pin_key, subscriptions_key
from workers.broker.rq_names import QUEUE_KEY
from workers.fleet.catalog import ServedModel
from workers.jobs.repository import Jobs
from workers.queue.leases import Leases, Run
from workers.storage.store import Store

pytestmark = pytest.mark.engine

LOOKED = "proxygrad:batches:running:looked"


def pairs(batch: BatchRecord, hand: list[int]) -> list[tuple[int, str]]:
    return [(unit, batch.request_of(unit, 0.0).spec.identity(MODEL)) for unit in hand]


def test_units_in_hand_when_the_deadline_passes_count_once(
    redis: Redis, store: Store, batches: Batches
) -> None:
    batch = ask(batches, asked([0, 1, 2, 3], deadline_s=5.0))
    scripts = idle(redis, store)._commands
    assert scripts.claim(batch.id, "one", CLAIM_S)
    hand = scripts.next(batch.id, "one", CLAIM_S, CHUNK)
    redis.hset(batch_key(batch.id), "deadline_at", 1)
    scripts.look(0.005)
    assert not scripts.link(batch.id, "one", pairs(batch, hand))
    assert counts(now(batches, batch)) == {"failed": 4}
    assert now(batches, batch).state == "failed"


def test_models_take_turns(redis: Redis, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches of one wait for room, those of another are gone on with."""
    names = ("first", "second")
    served = [ServedModel(name=name, info=MODEL.model_copy(update={"name": name})) for name in names]
    expansion, models = idle(redis, store), SimpleNamespace(served=served)
    monkeypatch.setattr(expansion, "_models", models)
    for name in names:
        redis.zadd(due_batches_key(name), {f"{name}-{number}": number for number in range(3)})
    for _ in range(2):
        assert expansion.expand_due()
        assert expansion.expand_due()
        assert len({redis.zcard(due_batches_key(name)) for name in names}) == 1


def test_a_cancellation_that_was_taken_back_cancels_nothing(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked([0, 1, 2]))
    expanded(expansion)
    assert batches._stop(batch.id)
    ask(batches, asked([0, 1, 2]))
    batches.withdraw(batch.id)
    assert counts(now(batches, batch)) == {"queued": 3}
    assert redis.llen(QUEUE_KEY) == 3


def test_a_job_that_another_caller_cancels_is_asked_all_the_same(
    redis: Redis, store: Store, batches: Batches, jobs: Jobs
) -> None:
    batch = ask(batches, asked([0]), caller="b")
    theirs, _ = submit(jobs, batch.request_of(0, 0.0), MODEL, caller="a")
    scripts = idle(redis, store)._commands
    assert scripts.claim(batch.id, "one", CLAIM_S)
    (pair,) = pairs(batch, scripts.next(batch.id, "one", CLAIM_S, CHUNK))
    assert pair == (0, theirs.id)
    assert scripts.link(batch.id, "one", [pair])
    jobs.cancel(theirs.id, caller="a")
    job, _ = submit(jobs, batch.request_of(0, time.time()), MODEL, caller="b", flow=batch.id)
    scripts.align(batch.id, "one", "b", [(*pair, job.state, "")], [])
    assert counts(now(batches, batch)) == {"queued": 1}
    end_next(redis)
    assert now(batches, batch).state == "succeeded"


def test_answers_are_promised_anew_while_the_last_units_wait(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked([0, 1, 2]))
    expanded(expansion)
    first = end_next(redis)
    redis.delete(pin_key(first), LOOKED)
    redis.hset(batch_key(batch.id), "pinned_at", time.time() - PIN_EVERY_S - 1)
    expanded(expansion)
    assert redis.ttl(pin_key(first)) > 0


def test_a_canceled_batch_ends_though_the_record_of_its_run_is_gone(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked([0, 1]))
    expanded(expansion)
    run = Run(pop(redis), "e1")
    assert Leases(redis).take(run, slot="s", worker="w") == "taken"
    batches.cancel(batch.id)
    assert now(batches, batch).state == "running"
    redis.delete(job_key(run.job_id), LOOKED)
    redis.hdel(batch_key(batch.id), "compared_at")
    expansion.look()
    assert counts(now(batches, batch)) == {"canceled": 2}
    assert now(batches, batch).state == "canceled"


def test_one_look_compares_a_few_batches_and_later_ones_the_others(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    asked_for = [ask(batches, asked([unit])) for unit in range(MOST_COMPARED + 3)]
    expanded(expansion)
    for batch in asked_for:
        redis.hdel(batch_key(batch.id), "compared_at")
    compared = []
    for _ in range(2):
        redis.delete(LOOKED)
        expansion.look()
        compared.append(sum(redis.hexists(batch_key(batch.id), "compared_at") for batch in asked_for))
    assert compared == [MOST_COMPARED, MOST_COMPARED + 3]


def test_a_batch_deleted_meanwhile_needs_no_promise(redis: Redis, store: Store) -> None:
    assert not idle(redis, store)._commands.pins_due("0" * 32, PIN_EVERY_S)


def test_whoever_deletes_a_batch_is_told_nothing(redis: Redis, batches: Batches) -> None:
    batch = ask(batches, asked([0, 1], webhook="https://hooks.example.org/x"))
    assert batches.forget(batch.id)
    assert redis.zcard(RECEIVERS_KEY) == 0
    assert redis.exists(subscriptions_key(batch.id)) == 0
