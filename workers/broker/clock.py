"""Redis' clock, by which all moments of jobs are told, in a process whose own clock may be another."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from workers.broker.pipeline import RedisCommand

#: Redis is asked again after so many seconds: if its clock is set, this process follows within that time.
MAX_AGE_S = 5.0


def _seconds(reply: tuple[int, int]) -> float:
    return reply[0] + reply[1] / 1e6


#: The time on Redis' clock, in seconds since 1970.
READ_TIME: RedisCommand[float] = RedisCommand(lambda client: client.time(), _seconds)


class RedisClock:
    """Redis' clock, read now and then, and counted on by this process' monotonic clock.

    ``send`` sends a command to Redis.
    """

    def __init__(
        self,
        send: Callable[[RedisCommand[float]], Awaitable[float]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._monotonic = monotonic
        self._read_at_s = float("-inf")
        self._ahead_s = 0.0

    async def now_s(self) -> float:
        """Seconds since 1970. Raises `RedisError`."""
        asked_at_s = self._monotonic()
        if asked_at_s - self._read_at_s > MAX_AGE_S:
            time_s = await self._send(READ_TIME)
            self._read_at_s = self._monotonic()
            self._ahead_s = time_s - (asked_at_s + self._read_at_s) / 2
        return self._monotonic() + self._ahead_s
