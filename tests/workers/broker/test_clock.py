"""Redis' clock, whatever this machine's says."""

from __future__ import annotations

import asyncio

from workers.broker.clock import MAX_AGE_S, READ_TIME, RedisClock
from workers.broker.pipeline import RedisCommand


class Clocks:
    """Redis' clock, and the monotonic one of this process."""

    def __init__(self) -> None:
        self.redis_s, self.own_s, self.asked = 1e9, 50.0, 0

    def pass_time(self, seconds: float) -> None:
        self.redis_s += seconds
        self.own_s += seconds

    async def send(self, command: RedisCommand[float]) -> float:
        assert command is READ_TIME
        self.asked += 1
        return self.redis_s


def test_it_is_asked_now_and_then_and_followed_where_it_is_set() -> None:
    clocks = Clocks()
    clock = RedisClock(clocks.send, lambda: clocks.own_s)
    assert asyncio.run(clock.now_s()) == 1e9
    clocks.pass_time(MAX_AGE_S)
    assert asyncio.run(clock.now_s()) == 1e9 + MAX_AGE_S
    assert clocks.asked == 1
    clocks.redis_s -= 86_400
    clocks.pass_time(1)
    assert asyncio.run(clock.now_s()) == clocks.redis_s
    assert clocks.asked == 2


def test_its_reply_has_microseconds() -> None:
    assert READ_TIME.read((7, 250_000)) == 7.25
