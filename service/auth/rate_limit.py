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

from workers.broker.pipeline import LuaScript, RedisCommand

WINDOW_S = 60

# Allowed in a full Redis: whoever asks how a job stands there needs an answer.
_TAKE = """#!lua flags=allow-oom
local rate, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local gap = window / rate
local filled = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local taken = 0
if filled + gap - now <= window + gap / 1000 then
  taken, filled = 1, filled + gap
  redis.call('SET', KEYS[1], string.format('%.6f', filled), 'PX', math.ceil((filled - now) * 1000))
end
return {taken, string.format('%.6f', filled - now)}
"""


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
        self._take = LuaScript(redis, _TAKE)

    def take(self, key_id: str, rate_per_min: int) -> RedisCommand[Allowance]:
        """Take a token for one request, if there is one."""
        keys, args = [f"proxygrad:requests:{key_id}"], [rate_per_min, WINDOW_S]
        return RedisCommand(
            lambda client: self._take(keys, args, client),
            lambda reply: Allowance(bool(reply[0]), rate_per_min, float(reply[1])),
        )
