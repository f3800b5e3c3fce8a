"""Batches on their way through the queue: every unit once, whoever is at it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis

from tests.support.job_calls import expander, requester, submit

pytest.importorskip("torch", reason="a worker computes with torch")

from proxygrad.errors import LaneError
from proxygrad.protocol.requests import VisualizationRequest
from tests.support.counting_engine import CountingEngine
from tests.support.eventually import until
from tests.support.expanded_batches import ask, asked, counts, drained, ended, expanded, idle, now
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop
from tests.support.worker_in_process import working
from workers.batches.expander import CHUNK, CLAIM_S, LOOK_S
from workers.batches.repository import WINDOW, Batches
from workers.broker.keys import batch_key, job_key, pin_key, units_key
from workers.broker.rq_names import FINISHED_KEY, QUEUE_KEY
from workers.execution.context import EngineProtocol, WorkerContext
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.jobs.repository import Jobs, Limits
from workers.process.periodic import PeriodicThread
from workers.storage.store import Store

pytestmark = pytest.mark.engine

OTHER_WEIGHTS = MODEL.model_copy(update={"digest": "1" * 64})


@contextmanager
def expanding(redis: Redis, store: Store, engine: EngineProtocol, slots: int = 4) -> Iterator[WorkerContext]:
    """A worker that computes and puts batches into the queue, until the block ends."""
    with working(redis, store, engine, slots) as runtime:
        rounds = PeriodicThread("batches", expander(runtime).round, LOOK_S, runtime.stopping)
        rounds.start()
        yield runtime
    rounds.join(30)
    assert not rounds.is_alive()


def computed(engine: CountingEngine) -> Counter[int]:
    return Counter(ticket.spec.unit for ticket in engine.tickets)


def test_every_unit_is_computed_once_though_many_workers_are_at_it(
    redis: Redis, store: Store, batches: Batches, jobs: Jobs
) -> None:
    engine = CountingEngine(0.0001)
    batch = ask(batches, asked({"stop": 400}))
    with expanding(redis, store, engine, slots=8) as runtime:
        more = [threading.Thread(target=expander(runtime).round) for _ in range(3)]
        for thread in more:
            thread.start()
        done = ended(batches, batch)
        for thread in more:
            thread.join()
    assert (done.state, counts(done)) == ("succeeded", {"succeeded": 400})
    assert computed(engine) == Counter(range(400))
    units = batches.units(done, done.units)
    assert [each.activation for each in units] == [float(unit) for unit in range(400)]
    assert jobs.fetch(units[7].job_id or "") is not None


def test_units_that_were_answered_before_cost_nothing(
    redis: Redis, store: Store, batches: Batches, jobs: Jobs
) -> None:
    engine = CountingEngine(0.0001)
    known = [submit(jobs, question(unit), MODEL)[0].id for unit in range(20)]
    with expanding(redis, store, engine):
        until(lambda: redis.zcard(FINISHED_KEY) == 20)
        redis.delete(job_key(known[3]))  # expired: the store alone knows it
        redis.delete(*(pin_key(job_id) for job_id in known))
        done = ended(batches, ask(batches, asked({"stop": 24}), caller="me"))
    assert counts(done) == {"succeeded": 24}
    assert computed(engine) == Counter(range(24))
    assert batches.units(done, [3])[0].activation == 3.0
    assert all(redis.ttl(pin_key(job_id)) > 3000 for job_id in known)
    assert all(requester(jobs, job_id, "me") is not None for job_id in known)


def test_a_unit_that_fails_says_why_and_is_tried_again_when_the_batch_is(
    redis: Redis, store: Store, batches: Batches
) -> None:
    errors = {2: LaneError("the activation became infinite at step 3")}
    engine = CountingEngine(0.0001, errors=errors)
    with expanding(redis, store, engine):
        failed = ended(batches, ask(batches, asked({"stop": 5})))
        assert (failed.state, counts(failed)) == ("failed", {"succeeded": 4, "failed": 1})
        problem = batches.units(failed, [2])[0].problem
        assert problem is not None
        assert (problem.code, problem.detail) == ("lane_failed", "the activation became infinite at step 3")
        engine.errors = {}
        again = ended(batches, ask(batches, asked({"stop": 5})))
    assert (again.state, counts(again)) == ("succeeded", {"succeeded": 5})
    assert computed(engine) == Counter([*range(5), 2])


def test_an_end_that_nobody_told_the_batch_is_noticed(redis: Redis, store: Store, batches: Batches) -> None:
    batch = ask(batches, asked([5, 6, 7]))
    expansion = idle(redis, store)
    drained(expansion)
    ids = [each.job_id or "" for each in batches.units(batch, [5, 6, 7])]
    redis.hset(job_key(ids[0]), mapping={"state": "succeeded", "activation": "1.5"})
    redis.delete(job_key(ids[1]))  # by other hands
    assert counts(now(batches, batch)) == {"queued": 3}
    redis.hset(batch_key(batch.id), "compared_at", 0)
    redis.delete("proxygrad:batches:running:looked")
    expanded(expansion)
    assert counts(now(batches, batch)) == {"succeeded": 1, "queued": 2}
    assert redis.exists(job_key(ids[1]))
    assert batches.units(batch, [5])[0].activation == 1.5


def test_changed_weights_end_what_was_not_answered_and_say_so(
    redis: Redis, store: Store, batches: Batches
) -> None:
    batch = ask(batches, asked({"stop": 1000}))
    drained(idle(redis, store))
    catalog.publish(redis, "old", [ServedModel(name="tiny", info=MODEL)])
    changed = idle(redis, store, OTHER_WEIGHTS)
    changed.expand(batch.id, OTHER_WEIGHTS)
    assert now(batches, batch).problem is None  # a worker has those weights still
    catalog.withdraw(redis, "old")
    changed.expand(batch.id, OTHER_WEIGHTS)
    after = now(batches, batch)
    assert counts(after) == {"queued": WINDOW, "failed": 1000 - WINDOW}
    assert after.problem is not None
    assert after.problem.code == "model_changed"
    assert (
        "'tiny' has other weights, or another method, than when the batch was asked" in after.problem.detail
    )
    last = batches.units(after, [999])[0]
    assert (last.state, last.problem, last.job_id) == ("failed", after.problem, None)


def test_a_batch_waits_where_the_queue_is_full_and_leaves_room_for_a_question(
    redis: Redis, store: Store, batches: Batches, jobs: Jobs
) -> None:
    limits = Limits(queued_per_caller=8)
    batch = ask(batches, asked({"stop": 60}), caller="me", limits=limits)
    expansion = idle(redis, store)
    drained(expansion)
    assert counts(now(batches, batch)) == {"queued": 6, "waiting": 54}
    assert submit(jobs, question(999), MODEL, caller="me", limits=limits)[1]
    engine = CountingEngine(0.0001)
    with expanding(redis, store, engine):
        done = ended(batches, batch)
    assert counts(done) == {"succeeded": 60}
    assert computed(engine) == Counter([*range(60), 999])


def test_a_question_goes_before_a_batch_and_two_batches_take_turns(
    redis: Redis, store: Store, batches: Batches, jobs: Jobs
) -> None:
    first = ask(batches, asked({"stop": 5000}), caller="me")
    second = ask(batches, asked({"start": 6000, "stop": 7000}), caller="me")
    drained(idle(redis, store))
    single, _ = submit(jobs, question(9999), MODEL, caller="other")
    assert jobs.queue_position(single.id) == 0
    assert pop(redis) == single.id
    order = [pop(redis) for _ in range(20)]
    of_first = {each.job_id for each in batches.units(first, range(20))}
    assert 9 <= sum(job_id in of_first for job_id in order) <= 11
    assert counts(now(batches, second))["queued"] == WINDOW


def test_the_deadline_counts_for_the_batch_as_a_whole(redis: Redis, store: Store, batches: Batches) -> None:
    batch = ask(batches, asked({"stop": 1000}, deadline_s=3600))
    expansion = idle(redis, store)
    drained(expansion)
    job = Jobs(redis, store).fetch(batches.units(batch, [0])[0].job_id or "")
    assert job is not None
    assert batch.deadline_at is not None
    assert job.deadline_at == pytest.approx(batch.deadline_at, abs=60)
    redis.hset(batch_key(batch.id), "deadline_at", batch.created_at)
    redis.delete("proxygrad:batches:running:looked")
    expansion.look()
    after = now(batches, batch)
    assert counts(after) == {"queued": WINDOW, "failed": 1000 - WINDOW}
    assert after.problem is not None
    assert after.problem.code == "deadline_exceeded"


def test_a_canceled_batch_lets_go_of_what_was_being_queued(
    redis: Redis, store: Store, batches: Batches, jobs: Jobs
) -> None:
    batch = ask(batches, asked({"stop": 40}), caller="me")
    scripts = idle(redis, store)._commands
    scripts.claim(batch.id, "slow", CLAIM_S)
    hand = scripts.next(batch.id, "slow", CLAIM_S, CHUNK)
    pairs = [(unit, batch.request_of(unit, 0.0).spec.identity(MODEL)) for unit in hand]
    scripts.link(batch.id, "slow", pairs)
    batches.cancel(batch.id)
    for unit in hand:
        submit(jobs, batch.request_of(unit, 0.0), MODEL, caller="me", flow=batch.id)
    scripts.align(batch.id, "slow", "me", [(*pair, "queued", "") for pair in pairs], [])
    assert redis.llen(QUEUE_KEY) == 0
    assert counts(now(batches, batch)) == {"canceled": 40}


def test_answers_of_a_long_batch_are_promised_anew(redis: Redis, store: Store, batches: Batches) -> None:
    batch = ask(batches, asked({"stop": 1000}))
    redis.hset(units_key(batch.id), "0", "s " + "a" * 32 + " 1.0")
    redis.hset(batch_key(batch.id), "pinned_at", batch.created_at - 3000)
    drained(idle(redis, store))
    assert redis.ttl(pin_key("a" * 32)) > 3000


def test_a_unit_of_a_batch_that_somebody_wants_at_once_goes_first(
    redis: Redis, store: Store, batches: Batches, jobs: Jobs
) -> None:
    batch = ask(batches, asked({"stop": 100}))
    drained(idle(redis, store))
    spec = batch.request_of(80, 0.0).spec
    job, created = submit(jobs, VisualizationRequest.of(spec), MODEL, caller="other")
    assert not created
    assert jobs.queue_position(job.id) == 0
