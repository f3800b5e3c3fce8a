"""The rate limit of a key: a token bucket in Redis, on Redis' clock.

The bucket holds a minute's worth and is filled at an even pace. So a key that was quiet may make all requests
of a minute at once, no more than twice its rate fall into any minute, and over time the rate holds. One
number is kept per key: when everything that was taken will have been filled in again (the generic cell rate
algorithm, ITU-T I.371 annex A, says the same in other words).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from redis import Redis

from workers.broker.pipeline import RedisCommand
from workers.broker.scripts import Script

WINDOW_S = 60


@dataclass(frozen=True)
class Allowance:
    """The state of a bucket after a request. ``full_in_s``: seconds until it is full again."""

    granted: bool
    rate_per_min: int
    full_in_s: float

    @property
    def left(self) -> int:
        """Requests that may be made at once."""
        gap_s = WINDOW_S / self.rate_per_min
        return max(0, math.floor((WINDOW_S - self.full_in_s) / gap_s + 1e-3))

    @property
    def retry_after_s(self) -> int:
        """Seconds until the next request is granted, rounded up; at least 1."""
        return max(1, math.ceil(self.full_in_s + WINDOW_S / self.rate_per_min - WINDOW_S))

    @property
    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-10 has them."""
        return {
            "RateLimit-Policy": f'"requests";q={self.rate_per_min};w={WINDOW_S}',
            "RateLimit": f'"requests";r={self.left};t={math.ceil(self.full_in_s)}',
        }


class RateLimiter:
    """The buckets of all keys. Safe to share between threads."""

    def __init__(self, redis: Redis) -> None:
        self._take = Script(redis, "auth/take_token", package="service")

    def take(self, key_id: str, rate_per_min: int) -> RedisCommand[Allowance]:
        """Take a token for one request, if there is one."""
        return self._take.command(
            *(key_id, rate_per_min, WINDOW_S),
            read=lambda reply: Allowance(bool(reply[0]), rate_per_min, float(reply[1])),
        )
