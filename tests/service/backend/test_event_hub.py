"""The one connection that hears of jobs: who comes and goes at the same moment misses nothing."""

from __future__ import annotations

import asyncio
from typing import cast

import redis as redis_client

from service.backend.event_hub import EventHub
from tests.support.eventually import until
from workers.jobs.repository import Event, events_channel

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
                    redis.publish(events_channel(JOB), f"{number}-1 state {{}}")
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
                await asyncio.to_thread(until, lambda: channels() == [events_channel(JOB).encode()])
                second.close()
                await asyncio.to_thread(until, lambda: channels() == [])
        finally:
            hub.close()

    asyncio.run(follow())
