"""One process of all at a time, and none again before the interval is over."""

from __future__ import annotations

import pytest
from redis import Redis

from workers.broker import lock
from workers.broker.lock import PeriodicLock, WorkStopped

KEY = "proxygrad:work"


def test_one_at_a_time_and_then_a_pause(redis: Redis) -> None:
    first, second = PeriodicLock(redis, KEY, 600), PeriodicLock(redis, KEY, 600)
    assert first.take()
    assert not second.take()
    first.renew()
    first.end()
    assert not second.take()
    assert 535 < redis.ttl(KEY) <= 540


def test_after_the_interval_it_is_the_next_ones_turn(redis: Redis) -> None:
    first, second = PeriodicLock(redis, KEY, 0.0), PeriodicLock(redis, KEY, 0.0)
    assert first.take()
    first.end()
    redis.delete(KEY)  # a millisecond later
    assert second.take()


def test_who_dies_at_it_holds_it_for_two_minutes(redis: Redis) -> None:
    PeriodicLock(redis, KEY, 600).take()
    assert 115 < redis.ttl(KEY) <= 120


def test_the_word_is_renewed_on_the_way(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_RENEW_S", 0.0)
    mine = PeriodicLock(redis, KEY, 600)
    mine.take()
    redis.expire(KEY, 10)
    mine.renew()
    assert redis.ttl(KEY) > 115


def test_a_lost_turn_is_noticed_and_not_ended_for_another(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_RENEW_S", 0.0)
    mine, theirs = PeriodicLock(redis, KEY, 0.0), PeriodicLock(redis, KEY, 600)
    mine.take()
    redis.delete(KEY)
    assert theirs.take()
    with pytest.raises(WorkStopped):
        mine.renew()
    mine.end()
    theirs.renew()


def test_work_without_a_turn_goes_on(redis: Redis) -> None:
    PeriodicLock(redis, KEY, 600).renew()
