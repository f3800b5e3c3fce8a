"""How long one process uses the keys as it last read them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
import redis as redis_client
from redis.exceptions import ConnectionError as RedisGone

from service.auth import key_ring
from service.auth.callers import ANYBODY
from service.auth.key_ring import KeyRing
from service.auth.keys import Keys, KeySet
from service.problems import ProblemError
from workers.broker.keys import API_KEYS_KEY


@pytest.fixture(autouse=True)
def _read_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys made in a test count at once, where it does not say otherwise."""
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 0.0)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def in_a_thread(read: Callable[[], KeySet]) -> KeySet:
    return await asyncio.to_thread(read)


def ring(redis: redis_client.Redis, clock: Clock, fetch: Callable[[], KeySet] | None = None) -> KeyRing:
    call: Callable[[Callable[[], KeySet]], Awaitable[KeySet]] = in_a_thread
    return KeyRing(fetch or Keys(redis).all, call, required=False, clock=clock)


def caller(keyring: KeyRing, token: str | None = None) -> str:
    """The name of the caller, or the code of the refusal."""
    try:
        return asyncio.run(keyring.caller(None if token is None else f"Bearer {token}"))[0].name
    except ProblemError as refusal:
        return refusal.code


def test_the_first_key_and_a_revoked_one_count_within_seconds(
    redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 3.0)
    clock = Clock()
    keyring = ring(redis, clock)
    assert caller(keyring) == ANYBODY.name
    key, token = Keys(redis).create("a")
    clock.now_s += 3.1
    assert caller(keyring) == "unauthorized"
    assert caller(keyring, token) == key.id
    Keys(redis).revoke(key.id)
    assert caller(keyring, token) == key.id, "kept for three seconds"
    clock.now_s += 3.1
    assert caller(keyring, token) == "unauthorized"


def test_a_new_key_is_known_half_a_second_after_any_look(
    redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 3.0)
    clock = Clock()
    keyring = ring(redis, clock)
    Keys(redis).create("first")
    assert caller(keyring) == "unauthorized"
    key, token = Keys(redis).create("second")
    clock.now_s += 0.6
    assert caller(keyring, token) == key.id


def test_keys_once_in_force_stay_so_when_their_data_is_gone(redis: redis_client.Redis) -> None:
    clock = Clock()
    keyring = ring(redis, clock)
    Keys(redis).create("a")
    assert caller(keyring) == "unauthorized"
    redis.delete(API_KEYS_KEY)
    clock.now_s += 60
    assert caller(keyring) == "unauthorized"


def test_many_at_once_look_once_and_share_a_failure(redis: redis_client.Redis) -> None:
    looks, go_on = [0], threading.Event()

    def fetch() -> KeySet:
        looks[0] += 1
        go_on.wait(30)
        raise RedisGone("gone")

    async def many() -> list[object]:
        keyring = ring(redis, Clock(), fetch)
        waiting = [asyncio.ensure_future(keyring.key_set()) for _ in range(8)]
        await asyncio.sleep(0.2)
        go_on.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    found = asyncio.run(many())
    assert looks == [1]
    assert {type(each) for each in found} == {RedisGone}


def test_keys_expire_by_the_clock_of_redis(
    redis: redis_client.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine may be a day behind or ahead."""
    monkeypatch.setattr("time.time", lambda: 0.0)
    clock = Clock()
    keyring = ring(redis, clock)
    key, token = Keys(redis).create("a", expires_days=1)
    assert caller(keyring, token) == key.id
    monkeypatch.setattr("time.time", lambda: 1e11)
    assert caller(keyring, token) == key.id
    monkeypatch.setattr(key_ring, "MAX_AGE_S", 1e6)
    clock.now_s += 86_401
    assert caller(keyring, token) == "unauthorized"
