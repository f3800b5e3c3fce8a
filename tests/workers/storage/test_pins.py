"""Of a promise and a removal that meet, one comes first."""

from __future__ import annotations

import threading

import pytest
from redis import Redis

from tests.support.artifacts import job_id, remember
from workers.broker import keys, rq_names
from workers.broker.keys import deletion_lock_key, pin_key
from workers.storage import pins as module
from workers.storage.pins import ArtifactPins, DeletionLock


@pytest.fixture
def pins(redis: Redis) -> ArtifactPins:
    return ArtifactPins(redis)


def test_what_was_promised_is_not_claimed(pins: ArtifactPins, redis: Redis) -> None:
    assert pins.pin("a")
    assert pins.lock_for_deletion("a") == "pinned"
    assert not pins.is_locked("a")
    assert 3595 <= redis.ttl(pin_key("a")) <= 3600


def test_what_is_claimed_is_not_promised(pins: ArtifactPins, redis: Redis) -> None:
    lock = pins.lock_for_deletion("a")
    assert isinstance(lock, DeletionLock)
    assert lock.usable
    assert pins.is_locked("a")
    assert not pins.pin("a")
    assert pins.lock_for_deletion("a") == "locked"
    assert 55 <= redis.ttl(deletion_lock_key("a")) <= 60
    pins.unlock(lock)
    assert not pins.is_locked("a")
    assert pins.pin("a")


def test_only_the_holder_ends_a_claim(pins: ArtifactPins, redis: Redis) -> None:
    lock = pins.lock_for_deletion("a")
    assert isinstance(lock, DeletionLock)
    redis.delete(deletion_lock_key("a"))  # it expired while its collector stood still, and another one came
    other = pins.lock_for_deletion("a")
    pins.unlock(lock)
    assert pins.is_locked("a")
    assert isinstance(other, DeletionLock)
    pins.unlock(other)
    assert not pins.is_locked("a")


def test_a_claim_is_of_use_for_a_part_of_its_life(
    pins: ArtifactPins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_USE_S", -1.0)
    lock = pins.lock_for_deletion("a")
    assert isinstance(lock, DeletionLock)
    assert not lock.usable


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_under_way_is_not_claimed(pins: ArtifactPins, redis: Redis, state: str) -> None:
    redis.hset(keys.job_key("a"), "state", state)
    assert pins.lock_for_deletion("a") == "underway"
    assert pins.underway("a")


@pytest.mark.parametrize("status", ["queued", "started"])
def test_nor_one_whose_entry_is(pins: ArtifactPins, redis: Redis, status: str) -> None:
    redis.hset(rq_names.entry_key("a"), "status", status)
    assert pins.lock_for_deletion("a") == "underway"
    assert pins.underway("a")


def test_the_record_of_an_answer_goes_with_the_claim(pins: ArtifactPins, redis: Redis) -> None:
    remember(redis, 1)
    assert not pins.underway(job_id(1))
    assert isinstance(pins.lock_for_deletion(job_id(1)), DeletionLock)
    assert redis.keys("*") == [deletion_lock_key(job_id(1)).encode()]


@pytest.mark.parametrize("state", ["failed", "canceled"])
def test_the_record_of_a_job_without_an_answer_stays(pins: ArtifactPins, redis: Redis, state: str) -> None:
    redis.hset(keys.job_key("a"), "state", state)
    redis.hset(rq_names.entry_key("a"), "status", "failed")
    assert isinstance(pins.lock_for_deletion("a"), DeletionLock)
    assert redis.hget(keys.job_key("a"), "state") == state.encode()
    assert redis.exists(rq_names.entry_key("a"))


def test_of_many_at_once_either_promises_or_one_claim_come_first(pins: ArtifactPins) -> None:
    for number in range(50):
        ready = threading.Barrier(6)
        pinned: list[bool] = []
        won: list[DeletionLock] = []

        def ask(
            name: str = str(number), ready: threading.Barrier = ready, pinned: list[bool] = pinned
        ) -> None:
            ready.wait()
            pinned.append(pins.pin(name))

        def collect(
            name: str = str(number), ready: threading.Barrier = ready, won: list[DeletionLock] = won
        ) -> None:
            ready.wait()
            lock = pins.lock_for_deletion(name)
            if isinstance(lock, DeletionLock):
                won.append(lock)

        threads = [threading.Thread(target=target) for target in (ask, collect) * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (pinned, len(won)) in (([True] * 3, 0), ([False] * 3, 1))


def test_no_promise_protects_what_is_damaged(pins: ArtifactPins, redis: Redis) -> None:
    remember(redis, 0)
    assert pins.pin(job_id(0))
    lock = pins.lock_for_deletion(job_id(0), damaged=True)
    assert isinstance(lock, DeletionLock)
    assert redis.hget(keys.job_key(job_id(0)), "state") == b"succeeded"
    assert not pins.pin(job_id(0))
    assert pins.lock_for_deletion(job_id(0), damaged=True) == "locked"
    pins.unlock(lock)
    assert pins.pin(job_id(0))


@pytest.mark.parametrize("state", ["queued", "running"])
def test_what_is_damaged_of_a_job_that_goes_on_is_for_its_run(
    pins: ArtifactPins, redis: Redis, state: str
) -> None:
    redis.hset(keys.job_key("a"), "state", state)
    assert pins.lock_for_deletion("a", damaged=True) == "underway"
