"""One entry that cannot be handled stops nobody else: it is set aside, and a janitor says so once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.support.expanded_batches import ask, asked, counts, end_next, expanded, idle, now
from tests.support.job_calls import submit
from tests.support.model_on_paper import MODEL, question
from tests.support.slot_steps import record, started
from tests.support.waiting_jobs import job_id
from workers.batches.repository import Batches
from workers.broker import keys, rq_names
from workers.fleet.statistics import FleetStatisticsReader
from workers.jobs.commands import DeliverNow
from workers.jobs.repository import Jobs
from workers.queue.fair_queue import FairQueue
from workers.queue.janitor import Janitor, Presence
from workers.queue.leases import Leases, Run
from workers.storage.collector import GarbageCollector, RetentionPolicy
from workers.storage.store import Store
from workers.webhooks import Deliveries

POISON = job_id(666)


def foreign(redis: Redis, key: str) -> None:
    """A key of ours that another program wrote, as another type."""
    redis.delete(key)
    redis.rpush(key, "theirs")


def lease_without_colon(redis: Redis) -> None:
    redis.zadd(rq_names.LEASES_KEY, {"poison": 1})


def lease_of_a_foreign_record(redis: Redis) -> None:
    foreign(redis, keys.job_key(POISON))
    redis.zadd(rq_names.LEASES_KEY, {f"{POISON}:e": 1})


def foreign_record_among_the_running(redis: Redis) -> None:
    foreign(redis, keys.job_key(POISON))
    redis.sadd(keys.RUNNING_KEY, POISON)


def foreign_record_among_the_popped(redis: Redis) -> None:
    foreign(redis, keys.job_key(POISON))
    redis.rpush(rq_names.INTERMEDIATE_KEY, POISON)
    redis.hset(keys.POPPED_SINCE_KEY, POISON, 1)


def foreign_record_in_the_list(redis: Redis) -> None:
    foreign(redis, keys.job_key(POISON))
    redis.rpush(rq_names.QUEUE_KEY, POISON)


def foreign_deadline(redis: Redis) -> None:
    foreign(redis, keys.job_key(POISON))
    redis.zadd(keys.DEADLINES_KEY, {POISON: 1})


POISONS = [
    lease_without_colon,
    lease_of_a_foreign_record,
    foreign_record_among_the_running,
    foreign_record_among_the_popped,
    foreign_record_in_the_list,
    foreign_deadline,
]


@pytest.mark.parametrize("poison", POISONS, ids=lambda poison: str(poison.__name__))
@pytest.mark.parametrize("presumed_dead", [False, True], ids=["expired", "presumed dead"])
def test_a_lost_job_is_found_all_the_same(
    redis: Redis,
    jobs: Jobs,
    leases: Leases,
    janitor: Janitor,
    caplog: pytest.LogCaptureFixture,
    poison: Callable[[Redis], None],
    presumed_dead: bool,
) -> None:
    run = started(redis, jobs, leases)
    if presumed_dead:
        redis.hset(keys.PRESENCE_KEY, "host", "1 100")
        redis.hset(run.key, "last_heartbeat", 1)
    else:
        redis.zadd(rq_names.LEASES_KEY, {run.member: 2})
    poison(redis)
    janitor.sweep()
    assert record(jobs, run).state == "queued"
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            janitor.sweep()
            janitor.tidy()
    said = [entry.message for entry in caplog.records if "set aside" in entry.message]
    assert len(said) == 1
    assert "poison" in said[0] or POISON in said[0]


def test_a_script_that_is_refused_stops_no_other(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    redis.zadd(rq_names.LEASES_KEY, {run.member: 2})
    foreign(redis, keys.POPPED_SINCE_KEY)
    redis.rpush(rq_names.INTERMEDIATE_KEY, POISON)
    with suppress(ResponseError):
        Janitor(redis).sweep()
    assert record(jobs, run).state == "queued"


@pytest.mark.parametrize("key", [keys.job_key, rq_names.entry_key], ids=["record", "entry"])
def test_a_foreign_key_at_the_head_does_not_stop_the_pop(
    redis: Redis, jobs: Jobs, janitor: Janitor, key: Callable[[str], str]
) -> None:
    first, second = (submit(jobs, question(unit), MODEL)[0].id for unit in (1, 2))
    foreign(redis, key(first))
    assert FairQueue(redis).pop(["tiny"], 5) == [second]
    janitor.sweep()
    janitor.tidy()
    third = submit(jobs, question(3), MODEL)[0].id
    assert FairQueue(redis).pop(["tiny"], 5) == [third]


def test_a_model_whose_index_is_foreign_does_not_stop_the_others(
    redis: Redis, jobs: Jobs, janitor: Janitor
) -> None:
    lost = submit(jobs, question(1), MODEL)[0].id
    foreign(redis, f"{keys.READY_PREFIX}interactive:tiny")
    redis.hset(f"{keys.OFFSETS_PREFIX}interactive", "other", "no number")
    assert FairQueue(redis).pop(["other", "tiny"], 5) == []
    janitor.sweep()
    assert FairQueue(redis).pop(["other", "tiny"], 5) == [lost]


def test_a_heartbeat_holds_the_other_leases(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    lease_of_a_foreign_record(redis)
    assert [beat.held for beat in leases.beat_all([Run(POISON, "e"), run])] == [False, True]


def test_a_process_that_is_heard_of_again_is_enlisted(redis: Redis) -> None:
    redis.sadd(f"{keys.MISSED_PREFIX}host", POISON)
    foreign(redis, keys.job_key(POISON))
    Presence(redis).enlist("host")
    foreign(redis, f"{keys.MISSED_PREFIX}host")
    Presence(redis).enlist("host")
    assert redis.hexists(keys.PRESENCE_KEY, "host")


def test_a_foreign_batch_stops_neither_others_nor_the_end_of_a_job(
    redis: Redis, store: Store, batches: Batches
) -> None:
    broken, whole = (ask(batches, asked({"start": start, "stop": 4})) for start in (0, 2))
    expansion = idle(redis, store)
    expanded(expansion)
    foreign(redis, keys.batch_key(broken.id))
    foreign(redis, keys.units_key(broken.id))
    redis.delete(keys.BATCHES_LOOKED_KEY)
    expanded(expansion)
    for _ in range(4):
        end_next(redis)
    assert counts(now(batches, whole)) == {"succeeded": 2}


def test_foreign_subscriptions_do_not_stop_the_end_of_a_job(redis: Redis, jobs: Jobs, leases: Leases) -> None:
    run = started(redis, jobs, leases)
    foreign(redis, keys.subscriptions_key(run.job_id))
    foreign(redis, f"{keys.BATCHES_OF_JOB_PREFIX}{run.job_id}")
    assert leases.close(run, "failed", slot="s") == "closed"
    assert record(jobs, run).state == "failed"


def test_a_foreign_delivery_does_not_stop_the_others(redis: Redis) -> None:
    for number, receiver in enumerate(("a", "a", "b", "c")):
        DeliverNow(redis)("visualization", job_id(number), "one", f"https://{receiver}.example/{number}", 1.0)
    (first,) = cast(list[bytes], redis.zrange(keys.due_deliveries_key("https://a.example"), 0, 0))
    foreign(redis, keys.delivery_key(first.decode()))
    foreign(redis, keys.due_deliveries_key("https://b.example"))
    claimed = Deliveries(redis).claim(10, 10, 60, {})
    assert sorted(each.receiver for each in claimed) == ["https://a.example", "https://c.example"]
    listed, _ = Deliveries(redis).recent(None, 10, 10, lambda _: True, caller=None)
    assert len(listed) == 3


def test_the_collector_goes_on(redis: Redis, store: Store) -> None:
    store.put(f"{job_id(1)}/0.png", b"left")
    store.put(f"{job_id(2)}/0.png", b"left")
    foreign(redis, keys.job_key(job_id(1)))
    collected = GarbageCollector(redis, store, RetentionPolicy(), grace_s=-1).collect()
    assert collected.orphans == 1


def test_jobs_to_be_forgotten_are(redis: Redis, jobs: Jobs) -> None:
    ids = [submit(jobs, question(unit), MODEL)[0].id for unit in (1, 2)]
    redis.sadd(keys.FORGOTTEN_KEY, *ids)
    foreign(redis, keys.requesters_key(ids[0]))
    foreign(redis, keys.job_key(ids[0]))
    jobs.forget_stopped()
    assert redis.scard(keys.FORGOTTEN_KEY) == 0
    assert not redis.exists(keys.job_key(ids[0]), keys.job_key(ids[1]))


def test_statistics_count_what_can_be_read(redis: Redis, jobs: Jobs) -> None:
    poisoned = submit(jobs, question(1), MODEL)[0].id
    submit(jobs, question(2), MODEL)
    foreign(redis, keys.job_key(poisoned))
    redis.zadd(keys.WORKERS_KEY, {"newer": 1e12, "foreign": 1e12})
    redis.set(keys.readiness_key("newer"), "[{", ex=60)
    foreign(redis, keys.readiness_key("foreign"))
    assert FleetStatisticsReader(redis).take().waiting == {("interactive", "visualization", "tiny"): 2}
