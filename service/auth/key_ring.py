"""The key ring: finds the caller of an `Authorization` header, by the keys in Redis, cached for seconds.

Keys are in force once Redis holds one, and always where other machines can reach the server. Once a process
has seen them in force they stay so until it ends, whatever happens to Redis' data. Without Redis no key opens
anything but the metrics of this process. A revoked key works until the keys are read again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from service.auth import keys
from service.auth.callers import ANYBODY, Caller
from service.auth.keys import Key, KeySet
from service.problems import ProblemError

#: A revoked key, and the first key, take effect within so many seconds.
MAX_AGE_S = 3.0
#: A key that is not found may be new: then the keys are read again when they are older than this.
MAX_AGE_OF_MISS_S = 0.5

_NO_KEYS = "a key is needed, and none has been made; the operator makes one with `proxygrad keys create NAME`"


class KeyRing:
    """One process's cached view of the keys. Safe to share between threads and event loops.

    ``fetch`` blocks; ``call`` runs it in a thread. ``required``: keys are in force even while there are none.
    """

    def __init__(
        self,
        fetch: Callable[[], KeySet],
        call: Callable[[Callable[[], KeySet]], Awaitable[KeySet]],
        *,
        required: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._call = call
        self._required = required
        self._clock = clock
        self._keys = KeySet({}, in_force=required)
        self._read_at_s = self._failed_at_s = float("-inf")
        self._failure: RedisError | None = None
        self._lock = threading.Lock()

    async def key_set(self, max_age_s: float | None = None) -> KeySet:
        """The keys, at most ``max_age_s`` old (default `MAX_AGE_S`).

        Raises `RedisError`: older ones open nothing.
        """
        max_age_s = MAX_AGE_S if max_age_s is None else max_age_s
        now_s = self._clock()
        if now_s - self._read_at_s <= max_age_s:
            return self._keys
        return await self._call(lambda: self._read(now_s, max_age_s))

    def _read(self, needed_at_s: float, max_age_s: float) -> KeySet:
        """One thread reads for all that wait, and shares its result or failure with them."""
        with self._lock:
            if needed_at_s - self._read_at_s <= max_age_s:
                return self._keys
            if self._failure is not None and self._failed_at_s >= needed_at_s:
                raise self._failure
            began_s = self._clock()
            try:
                key_set = self._fetch()
            except RedisError as error:
                self._failed_at_s, self._failure = self._clock(), error
                raise
            self._required = self._required or key_set.in_force
            self._keys = replace(key_set, in_force=self._required)
            self._read_at_s = began_s
            return self._keys

    async def caller(self, authorization: str | None) -> tuple[Caller, int | None]:
        """The caller of an `Authorization` header, and its rate limit per minute; None: no limit.

        Raises `ProblemError` with `unauthorized`, and `RedisError`.
        """
        key_set = await self.key_set()
        if not key_set.in_force:
            return ANYBODY, None
        token = _bearer(authorization, key_set)
        key = keys.opened(token, key_set.keys)
        if key is None:
            key_set = await self.key_set(MAX_AGE_OF_MISS_S)
            key = keys.opened(token, key_set.keys)
        key = self._valid(key)
        return Caller.of(key), key.rate_per_min

    def caller_without_redis(self, authorization: str | None) -> Caller:
        """The caller by the keys as they were last read, however long ago.

        Raises `ProblemError` with `unauthorized`, and `RedisError` if they were never read.
        """
        if self._read_at_s == float("-inf"):
            raise self._failure or RedisConnectionError("the keys have not been read yet")
        if not self._keys.in_force:
            return ANYBODY
        return Caller.of(self._valid(keys.opened(_bearer(authorization, self._keys), self._keys.keys)))

    def _valid(self, key: Key | None) -> Key:
        if key is None:
            raise _unauthorized("no such key", "invalid_token")
        state = key.state(self._keys.read_at_s + self._clock() - self._read_at_s)
        if state != "valid":
            raise _unauthorized(f"the key {key.id} is {state}", "invalid_token")
        return key


def _bearer(authorization: str | None, key_set: KeySet) -> str:
    if authorization is None:
        raise _unauthorized(
            "a key is needed: `Authorization: Bearer pg_…`" if key_set.keys else _NO_KEYS, error=None
        )
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthorized("the scheme of Authorization must be Bearer", "invalid_request")
    return token.strip()


def _unauthorized(detail: str, error: str | None) -> ProblemError:
    """With the challenge of RFC 6750, section 3."""
    challenge = 'Bearer realm="proxygrad"' + (f', error="{error}"' if error else "")
    return ProblemError("unauthorized", detail, headers={"WWW-Authenticate": challenge})
