"""Redis' clock is set forward and back: nothing waits for as long as it was wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from redis import Redis

from service.stack.valkey import EmbeddedValkey
from tests.support.expanded_batches import ask, asked, counts, expanded, idle, now
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import pop, started
from tests.support.stepped_clock import SteppedClock, stepped_valkey
from workers.batches.expansion_commands import ExpansionCommands
from workers.batches.repository import Batches
from workers.broker import keys
from workers.broker.connection import connect
from workers.broker.lock import PeriodicLock
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel
from workers.jobs.commands import DeliverNow
from workers.jobs.repository import Jobs
from workers.queue.janitor import Janitor, Presence
from workers.queue.leases import LEASE_S, Leases
from workers.storage.pins import ArtifactPins, DeletionLock
from workers.storage.store import Store
from workers.webhooks import Deliveries

HOUR_S = 3600.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedValkey, SteppedClock]]:
    with stepped_valkey(tmp_path_factory.mktemp("stepped")) as server:
        yield server


@pytest.fixture
def redis_url(server: tuple[EmbeddedValkey, SteppedClock]) -> str:
    with connect(server[0].url) as client:
        client.flushall()
    return server[0].url


@pytest.fixture
def clock(server: tuple[EmbeddedValkey, SteppedClock]) -> Iterator[SteppedClock]:
    yield server[1]
    server[1].set(0)


def sweeps(janitor: Janitor, clock: SteppedClock, until: Callable[[], bool], limit_s: float) -> None:
    """A sweep a second of Redis' clock until that holds."""
    for _ in range(round(limit_s)):
        janitor.sweep()
        if until():
            return
        clock.step(1)
    raise AssertionError(f"not within {limit_s:g} s")


def state(jobs: Jobs, job_id: str) -> str:
    job = jobs.fetch(job_id)
    return "" if job is None else job.state


@pytest.mark.parametrize("listed", [False, True], ids=["by its lease", "by its subscription"])
def test_a_worker_killed_while_the_clock_was_ahead_is_noticed(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor, clock: SteppedClock, listed: bool
) -> None:
    if listed:
        Presence(redis).enlist("host")
    run = started(redis, jobs, leases)
    janitor.sweep()
    clock.step(HOUR_S)
    janitor.sweep()
    assert leases.beat(run)
    clock.step(1)
    janitor.sweep()
    clock.step(-HOUR_S)
    sweeps(janitor, clock, lambda: state(jobs, run.job_id) == "queued", 4 if listed else LEASE_S + 3)


def test_a_worker_killed_before_the_clock_is_set_back_is_noticed(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor, clock: SteppedClock
) -> None:
    run = started(redis, jobs, leases)
    janitor.sweep()
    clock.step(-HOUR_S)
    sweeps(janitor, clock, lambda: state(jobs, run.job_id) == "queued", LEASE_S + 3)


def test_live_workers_keep_their_jobs_over_any_step(
    redis: Redis, jobs: Jobs, leases: Leases, janitor: Janitor, clock: SteppedClock
) -> None:
    run = started(redis, jobs, leases)
    janitor.sweep()
    for step_s in (HOUR_S, -HOUR_S, -HOUR_S, HOUR_S):
        clock.step(step_s)
        for _ in range(8):
            janitor.sweep()
            clock.step(1)
            assert leases.beat(run)
    assert state(jobs, run.job_id) == "running"


def test_a_job_that_was_popped_before_the_clock_was_set_back_is_returned(
    redis: Redis, jobs: Jobs, janitor: Janitor, clock: SteppedClock
) -> None:
    submit(jobs, question(), MODEL)
    job_id = pop(redis)
    janitor.sweep()
    clock.step(-HOUR_S)
    sweeps(janitor, clock, lambda: redis.llen("rq:queue:proxygrad") == 1, 6)
    assert state(jobs, job_id) == "queued"


def test_a_dead_workers_word_ends_soon(redis: Redis, clock: SteppedClock) -> None:
    catalog.publish(redis, "dead", [ServedModel(name="tiny", info=MODEL)])
    clock.step(-HOUR_S)
    for read in (catalog.live_workers, catalog.served):
        assert read(redis)
    clock.step(70)
    for read in (catalog.live_workers, catalog.served):
        assert not read(redis)


def test_a_batch_goes_on_after_its_worker_died(
    redis: Redis, store: Store, batches: Batches, clock: SteppedClock
) -> None:
    """Claim, the mark of a look, the rest after trouble: each would last as long as the step."""
    batch = ask(batches, asked({"stop": 4}))
    expansion, commands = idle(redis, store), ExpansionCommands(redis)
    expansion.look()
    redis.delete(keys.due_batches_key("tiny"))
    assert commands.claim(batch.id, "dead", 5)
    clock.step(-HOUR_S)
    expanded(expansion)
    assert counts(now(batches, batch)) == {"waiting": 4}
    for _ in range(7):  # a look a second
        clock.step(1)
        expanded(expansion)
    assert counts(now(batches, batch)) == {"queued": 4}


def test_a_batch_that_rested_before_the_clock_was_set_back_goes_on(
    redis: Redis, store: Store, batches: Batches, clock: SteppedClock
) -> None:
    batch, commands = ask(batches, asked({"stop": 4})), ExpansionCommands(redis)
    assert commands.claim(batch.id, "busy", 5)
    redis.delete(keys.due_batches_key("tiny"))
    commands.release(batch.id, "busy", 1.0)
    clock.step(-HOUR_S)
    expanded(idle(redis, store))
    assert counts(now(batches, batch)) == {"queued": 4}


def test_results_of_a_batch_are_pinned_anew(redis: Redis, batches: Batches, clock: SteppedClock) -> None:
    batch, commands = ask(batches, asked({"stop": 4})), ExpansionCommands(redis)
    assert not commands.pins_due(batch.id, 1200)
    clock.step(-HOUR_S)
    assert commands.pins_due(batch.id, 1200)
    assert not commands.pins_due(batch.id, 1200)


def test_units_are_compared_with_their_jobs(
    redis: Redis, store: Store, batches: Batches, clock: SteppedClock
) -> None:
    batch = ask(batches, asked({"stop": 2}))
    expansion = idle(redis, store)
    expanded(expansion)
    clock.step(40)
    expansion.look()  # compares
    clock.step(-HOUR_S)
    for key in redis.scan_iter("proxygrad:job:*"):
        redis.delete(key)
    expanded(expansion)
    clock.step(2)
    expanded(expansion)
    assert len([*redis.scan_iter("proxygrad:job:*")]) == 2
    assert counts(now(batches, batch)) == {"queued": 2}


def test_a_deletion_that_died_holds_up_nobody_for_long(redis: Redis, jobs: Jobs, clock: SteppedClock) -> None:
    pins = ArtifactPins(redis)
    assert isinstance(pins.lock_for_deletion("0" * 32), DeletionLock)
    clock.step(-HOUR_S)
    assert pins.is_locked("0" * 32)
    clock.step(61)
    assert not pins.is_locked("0" * 32)
    assert pins.pin("0" * 32)


def test_a_pin_lasts_an_hour_at_most(redis: Redis, clock: SteppedClock) -> None:
    pins = ArtifactPins(redis)
    assert pins.pin("0" * 32)
    clock.step(-HOUR_S)
    assert pins.lock_for_deletion("0" * 32) == "pinned"
    clock.step(HOUR_S + 1)
    assert isinstance(pins.lock_for_deletion("0" * 32), DeletionLock)


def test_the_collector_goes_on_after_its_round_was_cut_short(redis: Redis, clock: SteppedClock) -> None:
    assert PeriodicLock(redis, "a-lock", 600).take()
    clock.step(-HOUR_S)
    other = PeriodicLock(redis, "a-lock", 600)
    assert not other.take()
    clock.step(601)
    assert other.take()


def test_a_delivery_made_while_the_clock_was_ahead_is_claimed(redis: Redis, clock: SteppedClock) -> None:
    deliveries = Deliveries(redis)
    clock.step(HOUR_S)
    DeliverNow(redis)("visualization", "0" * 32, "one", "https://a.example/1", 1.0)
    clock.step(-HOUR_S)
    (claimed,) = deliveries.claim(10, 10, 60, {})
    clock.step(HOUR_S)
    assert deliveries.settle(claimed, "pending", 500, None, 5)
    clock.step(-HOUR_S)
    (again,) = deliveries.claim(10, 10, 60, {})
    clock.step(-HOUR_S)  # and the gateway died over it
    assert [each.id for each in deliveries.claim(10, 10, 60, {})] == [again.id]
    assert deliveries.claim(10, 10, 60, {}) == []


def test_a_watch_of_previews_ends(redis: Redis, jobs: Jobs, leases: Leases, clock: SteppedClock) -> None:
    run = started(redis, jobs, leases)
    jobs.watch([run.job_id])
    clock.step(-HOUR_S)
    assert leases.write(run, {"step": 1})
    clock.step(11)
    with suppress(AssertionError):
        leases.beat(run)
    assert not leases.write(run, {"step": 2})


def test_a_repeated_request_makes_a_delivery_again(redis: Redis, clock: SteppedClock) -> None:
    tell = DeliverNow(redis)
    tell("visualization", "0" * 32, "one", "https://a.example/1", 1.0)
    clock.step(-HOUR_S)
    tell("visualization", "0" * 32, "one", "https://a.example/1", 1.0)
    assert redis.zcard(keys.DELIVERIES_KEY) == 1
    clock.step(61)
    tell("visualization", "0" * 32, "one", "https://a.example/1", 1.0)
    assert redis.zcard(keys.DELIVERIES_KEY) == 2
