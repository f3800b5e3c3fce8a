"""A lock for periodic work that one process of all does at a time, and none again within an interval."""

from __future__ import annotations

import time
from contextlib import suppress

import redis
from redis.exceptions import LockError
from redis.lock import Lock

#: Seconds after which another process may begin when the holder dies.
HOLD_S = 120.0
_RENEW_S = HOLD_S / 4
#: The periodic threads of several processes drift: this part of an interval too early is still in time.
_EARLY = 0.1


class WorkStopped(Exception):
    """The work has to stop: the lock has expired, or the process ends."""


class PeriodicLock:
    """A Redis lock at ``key`` that stays taken for ``interval_s`` after the work began. For one thread."""

    def __init__(self, redis: redis.Redis, key: str, interval_s: float) -> None:
        self._redis = redis
        self._lock = Lock(redis, key, timeout=HOLD_S, thread_local=False)
        self._key = key
        self._interval_s = interval_s
        self._taken = False
        self._began_s = self._renewed_s = 0.0

    def take(self) -> bool:
        """Take the lock; False when another process has it, or had it less than an interval ago."""
        self._began_s = self._renewed_s = time.monotonic()
        self._taken = self._lock.acquire(blocking=False)
        if not self._taken:
            self._bound()
        return self._taken

    def _bound(self) -> None:
        """A lock that lasts longer than one can is of before Redis' clock was set back."""
        most_ms = round(max(HOLD_S, self._interval_s) * 1000)
        if self._redis.pttl(self._key) > most_ms:
            self._redis.pexpire(self._key, most_ms)

    def renew(self) -> None:
        """Renew the lock during the work; cheap to call often. Does nothing where it was not taken.

        Raises `WorkStopped` when it has expired.
        """
        now_s = time.monotonic()
        if not self._taken or now_s - self._renewed_s < _RENEW_S:
            return
        try:
            self._lock.extend(HOLD_S, replace_ttl=True)
        except LockError as error:
            raise WorkStopped(f"the lock {self._key} has expired") from error
        self._renewed_s = now_s

    def end(self) -> None:
        """End the work: the lock expires an interval after it began."""
        rest_s = self._interval_s * (1 - _EARLY) - (time.monotonic() - self._began_s)
        with suppress(LockError):
            self._lock.extend(max(0.001, rest_s), replace_ttl=True)
        self._taken = False
