"""Batches as they are asked for, listed, canceled and forgotten; nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from redis import Redis

from proxygrad.errors import UnitOutOfRange
from proxygrad.protocol.problems import Problem
from tests.support.expanded_batches import ask, asked, counts, end_next, now, queued
from tests.support.model_on_paper import MODEL
from tests.support.slot_steps import pop
from workers.batches.expander import BatchExpander
from workers.batches.repository import MOST_RUNNING, WINDOW, Batches, ResolvedBatch
from workers.broker.keys import (
    DELIVERIES_KEY,
    batch_key,
    batches_of_key,
    delivery_key,
    open_key,
    subscriptions_key,
    units_key,
)
from workers.broker.limits import FINISHED_TTL_S, MAX_WEBHOOKS
from workers.broker.time_index import IndexEntry
from workers.errors import TooManyBatches, TooManyWebhooks, UnknownKind
from workers.jobs.repository import Jobs, Limits
from workers.queue.leases import Leases, Run


def test_the_same_units_and_settings_are_the_same_batch_for_the_same_caller(batches: Batches) -> None:
    first = ask(batches, asked({"stop": 3}))
    assert ask(batches, asked([0, 1, 2])).id == first.id
    assert ask(batches, asked({"stop": 3}, priority="interactive", deadline_s=60)).id == first.id
    others = [
        ask(batches, asked({"stop": 3}), caller="other"),
        ask(batches, asked({"stop": 4})),
        ask(batches, asked({"stop": 3}, seed=1)),
        ask(batches, asked({"stop": 3}), model=MODEL.model_copy(update={"digest": "1" * 64})),
    ]
    assert len({first.id, *(each.id for each in others)}) == 5


def test_what_is_asked_of_every_unit_has_nothing_left_to_default(batches: Batches) -> None:
    batch = ask(batches, asked())
    assert (batch.template.objective, batch.template.size_px) == ("channel", 8)
    assert batch.units == range(10_000)
    assert (batch.state, counts(batch)) == ("running", {"waiting": 10_000})


def test_units_that_there_are_not_are_refused(batches: Batches) -> None:
    with pytest.raises(UnitOutOfRange):
        ask(batches, asked([1, 10_000]))


def test_a_batch_of_any_size_has_a_window_of_jobs(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked())
    before = redis.dbsize()
    while expansion.expand_due():
        pass
    assert queued(redis) == WINDOW
    assert counts(now(batches, batch)) == {"waiting": 10_000 - WINDOW, "queued": WINDOW}
    assert redis.dbsize() - before < 6 * WINDOW + 20
    for _ in range(WINDOW // 4 - 1):
        end_next(redis)
    assert not expansion.expand_due()
    end_next(redis)
    assert expansion.expand_due()
    assert queued(redis) == WINDOW


def test_counts_follow_every_change_and_the_end_says_how_it_was(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked({"stop": 3}))
    expansion.expand_due()
    run = Run(pop(redis), "e")
    leases = Leases(redis)
    leases.take(run, slot="s", worker="w")
    assert counts(now(batches, batch)) == {"queued": 2, "running": 1}
    leases.give_back(run)
    assert counts(now(batches, batch)) == {"queued": 3}
    ids = [end_next(redis), end_next(redis, "failed"), end_next(redis)]
    done = now(batches, batch)
    assert (done.state, counts(done)) == ("failed", {"succeeded": 2, "failed": 1})
    assert done.finished_at is not None
    assert done.finished_at >= done.created_at
    first, second, third = batches.units(done, done.units)
    assert [each.job_id for each in (first, second, third)] == ids
    assert (first.state, first.activation) == ("succeeded", 2.5)
    assert (second.state, second.problem) == (
        "failed",
        Problem(code="lane_failed", detail="the activation became infinite"),
    )


def test_a_batch_is_kept_as_long_as_its_jobs(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked([4]))
    assert redis.ttl(batch_key(batch.id)) == -1
    expansion.expand_due()
    end_next(redis)
    for key in (batch_key(batch.id), units_key(batch.id)):
        assert FINISHED_TTL_S - 60 < redis.ttl(key) <= FINISHED_TTL_S
    left = {key.decode() for key in cast(list[bytes], redis.keys("proxygrad:batch*"))}
    everybodys = {"proxygrad:batches", "proxygrad:batches:of:anonymous"}
    assert left == {batch_key(batch.id), units_key(batch.id), *everybodys}


def test_asked_again_what_failed_is_tried_again_and_nothing_else(
    redis: Redis, batches: Batches, expansion: BatchExpander, jobs: Jobs
) -> None:
    batch = ask(batches, asked({"stop": 4}))
    expansion.expand_due()
    ids = [end_next(redis), end_next(redis, "failed"), end_next(redis), end_next(redis, "failed")]
    assert now(batches, batch).state == "failed"
    again = ask(batches, asked({"stop": 4}))
    assert (again.id, again.state, counts(again)) == (batch.id, "running", {"succeeded": 2, "waiting": 2})
    assert redis.ttl(batch_key(batch.id)) == -1
    expansion.expand_due()
    assert [end_next(redis), end_next(redis)] == [ids[1], ids[3]]
    assert now(batches, batch).state == "succeeded"
    assert ask(batches, asked({"stop": 4})).state == "succeeded"
    assert not expansion.expand_due()


def test_batches_are_listed_newest_first_to_those_who_asked(batches: Batches, redis: Redis) -> None:
    mine = [ask(batches, asked([unit]), caller="me").id for unit in range(5)]
    other = ask(batches, asked([1]), caller="other").id

    def listed(
        last: IndexEntry | None,
        most: int,
        looked_at: int = 100,
        caller: str | None = "me",
        unit: int | None = None,
    ) -> tuple[list[str], IndexEntry | None]:
        found, end = batches.recent(
            last, most, looked_at, lambda batch: unit in (None, *batch.units), caller=caller
        )
        return [batch.id for batch in found], end

    assert listed(None, 10) == (mine[::-1], None)
    assert listed(None, 10, caller=None) == ([other, *mine[::-1]], None)
    assert listed(None, 1, unit=3)[0] == [mine[3]]
    found, end = listed(None, 10, looked_at=3, unit=0)
    assert found == []
    assert listed(end, 10, unit=0) == ([mine[0]], None)
    page, end = listed(None, 2)
    redis.delete(batch_key(mine[2]))  # expired
    rest, last = listed(end, 2)
    assert [*page, *rest] == [mine[4], mine[3], mine[1], mine[0]]
    ask(batches, asked([9]), caller="me")
    assert listed(last, 2) == ([], None)


def test_a_caller_has_so_many_batches_at_a_time(batches: Batches) -> None:
    for unit in range(MOST_RUNNING):
        ask(batches, asked([unit]), caller="me")
    with pytest.raises(TooManyBatches, match="100 batches of this caller run already"):
        ask(batches, asked([MOST_RUNNING]), caller="me")
    ask(batches, asked([0]), caller="me")  # there already
    ask(batches, asked([0]), caller="other")
    batches.cancel(ask(batches, asked([1]), caller="me").id)
    ask(batches, asked([MOST_RUNNING]), caller="me")


def test_units_are_found_by_state_a_page_at_a_time(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked({"stop": 3000}))
    expansion.expand_due()
    for _ in range(5):
        end_next(redis)
    waiting, following = batches.page(batch, 0, 10, lambda unit: unit.state == "waiting")
    assert ([each.number for each in waiting], following) == (list(range(WINDOW, WINDOW + 10)), WINDOW + 10)
    succeeded, following = batches.page(batch, 0, 10, lambda unit: unit.state == "succeeded")
    assert (len(succeeded), following) == (5, None)


def test_the_record_keeps_the_limits_of_its_caller(batches: Batches) -> None:
    limits = Limits(queued=50, queued_per_caller=20, in_flight=8)
    assert ask(batches, asked([1]), limits=limits).limits == limits


def test_what_is_open_is_forgotten_with_its_end(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked([1, 2]))
    expansion.expand_due()
    assert redis.hlen(open_key(batch.id)) == 2
    end_next(redis)
    assert redis.hlen(open_key(batch.id)) == 1
    end_next(redis)
    assert redis.exists(open_key(batch.id)) == 0


def test_a_question_is_checked_as_a_whole(batches: Batches) -> None:
    question_ = ResolvedBatch.of(asked([7, 3]), MODEL)
    assert (question_.first.unit, question_.first.objective) == (7, "channel")


def test_the_best_picture_is_the_one_that_counts(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    batch = ask(batches, asked([1], images=4))
    expansion.expand_due()
    end_next(redis, best=3)
    (unit,) = batches.units(now(batches, batch), [1])
    assert (unit.activation, unit.best) == (2.5, 3)


def test_whoever_wants_to_know_is_told_of_each_end_once(
    redis: Redis, batches: Batches, expansion: BatchExpander
) -> None:
    url = "https://hooks.example.org/ended"
    request = asked([1, 2], webhook=url)

    def told() -> list[dict[str, str]]:
        keys = cast(list[bytes], redis.zrange(DELIVERIES_KEY, 0, -1))
        records = [cast(dict[bytes, bytes], redis.hgetall(delivery_key(key.decode()))) for key in keys]
        return [{name.decode(): value.decode() for name, value in each.items()} for each in records]

    batch = ask(batches, request, caller="me")
    expansion.expand_due()
    end_next(redis)
    assert not told()
    end_next(redis, "failed")
    (first,) = told()
    wanted = {"kind": "batch", "subject": batch.id, "caller": "me", "url": url, "ended": "failed"}
    assert first.items() >= (wanted | {"total": "2", "succeeded": "1", "failed": "1"}).items()
    ask(batches, asked([1, 2]), caller="me")  # tried again: told again, of that end too
    expansion.expand_due()
    end_next(redis)
    assert [each["ended"] for each in told()] == ["failed", "succeeded"]
    for number in range(MAX_WEBHOOKS):
        ask(batches, asked([7], webhook=f"{url}/{number}"))
    with pytest.raises(TooManyWebhooks):
        ask(batches, asked([7], webhook=url))
    batches.forget(ask(batches, asked([7])).id)
    assert not redis.exists(subscriptions_key(ask(batches, asked([7])).id))


def test_a_batch_of_a_kind_that_a_newer_version_has_is_left_to_it(batches: Batches, redis: Redis) -> None:
    theirs, ours = ask(batches, asked()), ask(batches, asked([1]))
    redis.hset(batch_key(theirs.id), "kind", "novel")
    for _ in range(2):
        listed, _end = batches.recent(None, 10, 10, lambda _: True, caller=None)
        assert [each.id for each in listed] == [ours.id]
    with pytest.raises(UnknownKind, match="novel"):
        batches.fetch(theirs.id)
    redis.hset(batch_key(theirs.id), "kind", "visualization")
    assert len(batches.recent(None, 10, 10, lambda _: True, caller=None)[0]) == 2


def test_of_the_batches_of_a_caller_the_newest_are_kept(
    redis: Redis, set_limit: Callable[[str, int], None]
) -> None:
    set_limit("MAX_KEPT_UNITS", 60)  # two of ten units, with what a batch takes besides
    batches = Batches(redis)
    kept = [
        ask(batches, asked({"start": 10 * number, "stop": 10 * number + 10}), "me") for number in range(2)
    ]
    for batch in kept:
        batches.cancel(batch.id)
    theirs = ask(batches, asked({"stop": 10}), "you")
    running = ask(batches, asked({"start": 20, "stop": 30}), "me")
    assert [batches.fetch(each.id) is not None for each in (*kept, theirs, running)] == [
        *(False, True, True, True)
    ]
    ask(batches, asked({"start": 30, "stop": 95}), "me")
    assert [batches.fetch(each.id) is not None for each in (*kept, theirs, running)] == [
        *(False, False, True, True)
    ]
    assert redis.zcard(batches_of_key("me")) == 2
    ask(batches, asked({"start": 20, "stop": 30}), "me")
    assert batches.fetch(running.id) is not None
