"""Of a promise and a removal that meet, one comes first."""

from __future__ import annotations

import threading

import pytest
from redis import Redis

from tests.support.artifacts import job_id, remember
from workers.broker import queue
from workers.storage import pins as module
from workers.storage.pins import ArtifactPins, DeletionLock, claim_key, pin_key


@pytest.fixture
def claims(redis: Redis) -> ArtifactPins:
    return ArtifactPins(redis)


def test_what_was_promised_is_not_claimed(claims: ArtifactPins, redis: Redis) -> None:
    assert claims.pin("a")
    assert claims.claim("a") == "asked"
    assert not claims.collecting("a")
    assert 3595 <= redis.ttl(pin_key("a")) <= 3600


def test_what_is_claimed_is_not_promised(claims: ArtifactPins, redis: Redis) -> None:
    claim = claims.claim("a")
    assert isinstance(claim, DeletionLock)
    assert claim.usable
    assert claims.collecting("a")
    assert not claims.pin("a")
    assert claims.claim("a") == "claimed"
    assert 55 <= redis.ttl(claim_key("a")) <= 60
    claims.release(claim)
    assert not claims.collecting("a")
    assert claims.pin("a")


def test_only_the_holder_ends_a_claim(claims: ArtifactPins, redis: Redis) -> None:
    claim = claims.claim("a")
    assert isinstance(claim, DeletionLock)
    redis.delete(claim_key("a"))  # it expired while its collector stood still, and another one came
    other = claims.claim("a")
    claims.release(claim)
    assert claims.collecting("a")
    assert isinstance(other, DeletionLock)
    claims.release(other)
    assert not claims.collecting("a")


def test_a_claim_is_of_use_for_a_part_of_its_life(
    claims: ArtifactPins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLAIM_USE_S", -1.0)
    claim = claims.claim("a")
    assert isinstance(claim, DeletionLock)
    assert not claim.usable


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_under_way_is_not_claimed(claims: ArtifactPins, redis: Redis, state: str) -> None:
    redis.hset(queue.job_key("a"), "state", state)
    assert claims.claim("a") == "underway"
    assert claims.underway("a")


@pytest.mark.parametrize("status", ["queued", "started"])
def test_nor_one_whose_entry_is(claims: ArtifactPins, redis: Redis, status: str) -> None:
    redis.hset(queue.entry_key("a"), "status", status)
    assert claims.claim("a") == "underway"
    assert claims.underway("a")


def test_the_record_of_an_answer_goes_with_the_claim(claims: ArtifactPins, redis: Redis) -> None:
    remember(redis, 1)
    assert not claims.underway(job_id(1))
    assert isinstance(claims.claim(job_id(1)), DeletionLock)
    assert redis.keys("*") == [claim_key(job_id(1)).encode()]


@pytest.mark.parametrize("state", ["failed", "canceled"])
def test_the_record_of_a_job_without_an_answer_stays(claims: ArtifactPins, redis: Redis, state: str) -> None:
    redis.hset(queue.job_key("a"), "state", state)
    redis.hset(queue.entry_key("a"), "status", "failed")
    assert isinstance(claims.claim("a"), DeletionLock)
    assert redis.hget(queue.job_key("a"), "state") == state.encode()
    assert redis.exists(queue.entry_key("a"))


def test_of_many_at_once_either_promises_or_one_claim_come_first(claims: ArtifactPins) -> None:
    for number in range(50):
        ready = threading.Barrier(6)
        pins: list[bool] = []
        won: list[DeletionLock] = []

        def ask(name: str = str(number), ready: threading.Barrier = ready, pins: list[bool] = pins) -> None:
            ready.wait()
            pins.append(claims.pin(name))

        def collect(
            name: str = str(number), ready: threading.Barrier = ready, won: list[DeletionLock] = won
        ) -> None:
            ready.wait()
            claim = claims.claim(name)
            if isinstance(claim, DeletionLock):
                won.append(claim)

        threads = [threading.Thread(target=target) for target in (ask, collect) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (pins, len(won)) in (([True] * 3, 0), ([False] * 3, 1))


def test_no_promise_protects_what_is_damaged(claims: ArtifactPins, redis: Redis) -> None:
    remember(redis, 0)
    assert claims.pin(job_id(0))
    claim = claims.claim(job_id(0), damaged=True)
    assert isinstance(claim, DeletionLock)
    assert redis.hget(queue.job_key(job_id(0)), "state") == b"succeeded"
    assert not claims.pin(job_id(0))
    assert claims.claim(job_id(0), damaged=True) == "claimed"
    claims.release(claim)
    assert claims.pin(job_id(0))


@pytest.mark.parametrize("state", ["queued", "running"])
def test_what_is_damaged_of_a_job_that_goes_on_is_for_its_run(
    claims: ArtifactPins, redis: Redis, state: str
) -> None:
    redis.hset(queue.job_key("a"), "state", state)
    assert claims.claim("a", damaged=True) == "underway"
