"""The one connection that hears of jobs: who comes and goes at the same moment misses nothing."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
import redis as redis_client

from proxygrad.protocol.requests import ANONYMOUS
from service.backend.event_hub import EventHub, TooManyFollowers
from tests.support.eventually import until
from workers.broker.keys import events_key
from workers.jobs.repository import Event

JOB = "5f0c6a4b7d8e9f00112233445566778a"
OTHER = "0" * 32


async def nobody_watches(job_ids: list[str]) -> None:
    """No previews are wanted."""


def test_whoever_comes_as_the_last_one_leaves_hears_what_happens(
    redis_url: str, redis: redis_client.Redis
) -> None:
    async def follow() -> None:
        hub = EventHub(redis_url, nobody_watches)
        try:
            async with asyncio.timeout(60):
                subscription = await hub.follow(JOB, {"state"})
                for number in range(20):
                    subscription.close()  # nothing else runs before the next one follows
                    subscription = await hub.follow(JOB, {"state"})
                    redis.publish(events_key(JOB), f"{number}-1 state {{}}")
                    while not isinstance(event := await subscription.next(20), Event):
                        pass
                    assert event.event_id == f"{number}-1"
                subscription.close()
        finally:
            hub.close()

    asyncio.run(follow())


def test_a_channel_is_left_with_its_last_follower(redis_url: str, redis: redis_client.Redis) -> None:
    def channels() -> list[bytes]:
        return cast(list[bytes], redis.pubsub_channels("proxygrad:events:*"))

    async def follow() -> None:
        hub = EventHub(redis_url, nobody_watches)
        try:
            async with asyncio.timeout(20):
                first, second, other = [await hub.follow(each, {"state"}) for each in (JOB, JOB, OTHER)]
                first.close()
                other.close()
                await asyncio.to_thread(until, lambda: channels() == [events_key(JOB).encode()])
                second.close()
                await asyncio.to_thread(until, lambda: channels() == [])
        finally:
            hub.close()

    asyncio.run(follow())


def test_no_caller_keeps_out_others(redis_url: str, redis: redis_client.Redis) -> None:
    async def follow() -> None:
        hub = EventHub(redis_url, nobody_watches, most=8)
        try:
            async with asyncio.timeout(20):
                first = [await hub.follow(JOB, {"state"}, "a") for _ in range(2)]
                with pytest.raises(TooManyFollowers, match="this caller has 2 event streams"):
                    await hub.follow(JOB, {"state"}, "a")
                others = [await hub.follow(JOB, {"state"}) for _ in range(6)]
                for caller in ("b", ANONYMOUS):
                    with pytest.raises(TooManyFollowers, match="8 event streams and long waits are open"):
                        await hub.follow(JOB, {"state"}, caller)
                for each in (first[0], first[0], *others):  # one of them twice
                    each.close()
                assert hub.followers == 1
                (await hub.follow(JOB, {"state"}, "a")).close()
        finally:
            hub.close()

    asyncio.run(follow())


def test_what_is_no_event_stops_no_other(
    redis_url: str, redis: redis_client.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def follow() -> list[Any]:
        hub = EventHub(redis_url, nobody_watches)
        try:
            async with asyncio.timeout(20):
                subscription = await hub.follow(JOB, {"state"})
                for word in (b"\xff\xfe x y", b"x", b"1-x state {}", b"1-x state {}", b"2-1 state {}"):
                    redis.publish(events_key(JOB), word)
                return [await subscription.next(20)]
        finally:
            hub.close()

    assert asyncio.run(follow()) == [Event("2-1", "state", "{}")]
    assert len(caplog.records) == 3, "said once each"
