"""Work that one process of all does at a time, and none again before its interval is over."""

from __future__ import annotations

import secrets
import time

import redis

#: Another process may begin that long after the last word of one that died at it.
HOLD_S = 120.0
_RENEW_S = HOLD_S / 4
#: Rounds of several processes are never quite in step: this part of an interval too early is still in time.
_EARLY = 0.1

_EXPIRE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


class TurnOver(Exception):
    """The work has to stop where it is."""


class PeriodicLock:
    """One process's view of whose turn it is with the work that ``key`` names, every ``interval_s``."""

    def __init__(self, redis: redis.Redis, key: str, interval_s: float) -> None:
        self._redis = redis
        self._key = key
        self._interval_s = interval_s
        self._expire = redis.register_script(_EXPIRE)
        self._token = ""
        self._began_s = self._renewed_s = 0.0

    def take(self) -> bool:
        """Begin; False when somebody else is at it, or did it less than an interval ago."""
        self._token = secrets.token_hex(8)
        self._began_s = self._renewed_s = time.monotonic()
        return bool(self._redis.set(self._key, self._token, nx=True, px=round(HOLD_S * 1000)))

    def hold(self) -> None:
        """Say, while at work, that it goes on; often is fine.

        Raises `TurnOver` when Redis has forgotten whose turn it is. Without `take` there is nothing to say.
        """
        now_s = time.monotonic()
        if not self._token or now_s - self._renewed_s < _RENEW_S:
            return
        if not self._expire(keys=[self._key], args=[self._token, round(HOLD_S * 1000)]):
            raise TurnOver(f"{self._key} may be somebody else's by now")
        self._renewed_s = now_s

    def end(self) -> None:
        """Done: the next turn is an interval after this one began."""
        rest_s = self._interval_s * (1 - _EARLY) - (time.monotonic() - self._began_s)
        self._expire(keys=[self._key], args=[self._token, max(1, round(rest_s * 1000))])
