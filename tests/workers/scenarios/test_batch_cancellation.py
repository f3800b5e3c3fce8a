"""Batches that are canceled or forgotten: what waits, what runs, what others want."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.support.expanded_batches import ask, asked, counts, end_next, now, queued
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop
from workers.batches.expander import BatchExpander
from workers.batches.repository import WINDOW, Batches
from workers.jobs.repository import Jobs
from workers.queue.leases import Leases, Run


def test_cancel_ends_what_waits_and_what_was_not_queued(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked({"stop": 1000}))
    expansion.expand_due()
    end_next(redis)
    run = Run(pop(redis), "e")
    leases = Leases(redis)
    leases.take(run, slot="s", worker="w")
    batches.cancel(batch.id)
    assert queued(redis) == 0
    stopping = now(batches, batch)
    assert (stopping.state, counts(stopping)) == ("running", {"succeeded": 1, "running": 1, "canceled": 998})
    assert leases.beat(run).cancel
    leases.close(run, "canceled", slot="s")
    done = now(batches, batch)
    assert (done.state, counts(done)) == ("canceled", {"succeeded": 1, "canceled": 999})
    assert [each.state for each in batches.units(done, [0, 1, 2, 999])] == ["succeeded"] + ["canceled"] * 3
    batches.cancel(batch.id)
    assert now(batches, batch) == done
    again = ask(batches, asked({"stop": 1000}))
    assert counts(again) == {"succeeded": 1, "waiting": 999}
    expansion.expand_due()
    assert queued(redis) == WINDOW


def test_what_runs_and_is_asked_for_again_before_it_stopped_goes_on(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked([1, 2]))
    expansion.expand_due()
    runs = [Run(pop(redis), "e1"), Run(pop(redis), "e2")]
    leases = Leases(redis)
    for run in runs:
        leases.take(run, slot="s", worker="w")
    batches.cancel(batch.id)
    ask(batches, asked([1, 2]))
    expansion.look()
    assert expansion.expand_due()
    assert not any(leases.beat(run).cancel for run in runs)
    for run in runs:
        leases.close(run, "succeeded", fields={"activation": 1.0}, slot="s")
    assert now(batches, batch).state == "succeeded"


@pytest.mark.parametrize(("mine", "theirs"), [("me", "me"), ("me", "other"), ("anonymous", "anonymous")])
def test_what_another_batch_wants_is_not_canceled(
    redis: Redis, batches: Batches, expansion: BatchExpander, jobs: Jobs, mine: str, theirs: str
) -> None:
    first = ask(batches, asked({"stop": 6}), caller=mine)
    second = ask(batches, asked({"start": 3, "stop": 9}), caller=theirs)
    while expansion.expand_due():
        pass
    assert queued(redis) == 9
    batches.cancel(first.id)
    assert queued(redis) == 6
    assert counts(now(batches, first)) == {"canceled": 6}
    assert counts(now(batches, second)) == {"queued": 6}
    for _ in range(6):
        end_next(redis)
    assert (now(batches, first).state, now(batches, second).state) == ("canceled", "succeeded")


def test_a_caller_that_withdraws_from_one_question_withdraws_it_from_its_batch(
    redis: Redis, batches: Batches, expansion: BatchExpander, jobs: Jobs
) -> None:
    batch = ask(batches, asked([0, 1]), caller="me")
    expansion.expand_due()
    shared, _ = submit(jobs, question(0), MODEL, caller="other")
    jobs.cancel(shared.id, caller="me")
    assert counts(now(batches, batch)) == {"canceled": 1, "queued": 1}
    assert queued(redis) == 2
    jobs.forget(batches.units(batch, [1])[0].job_id or "", caller="me")
    assert now(batches, batch).state == "canceled"


def test_a_cancellation_that_its_gateway_did_not_end_is_ended_by_a_worker(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked({"stop": 5}))
    expansion.expand_due()
    batches._stop(batch.id)  # and the gateway dies
    assert queued(redis) == 5
    expansion.look()
    assert queued(redis) == 0
    assert now(batches, batch).state == "canceled"


def test_a_batch_that_is_forgotten_leaves_its_answers_alone(
    redis: Redis, batches: Batches, expansion: BatchExpander, jobs: Jobs
) -> None:
    batch = ask(batches, asked({"stop": 300}))
    expansion.expand_due()
    job_id = end_next(redis)
    assert batches.forget(batch.id)
    assert not batches.forget(batch.id)
    assert batches.fetch(batch.id) is None
    assert not redis.keys("proxygrad:batch*")
    assert queued(redis) == 0
    job = jobs.fetch(job_id)
    assert job is not None
    assert job.state == "succeeded"
