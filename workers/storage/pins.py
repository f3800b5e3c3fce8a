"""Artifact pins and deletion locks: they keep the collector from deleting results that somebody was promised.

A request *pins* the stored result of its job for an hour. The collector (`workers.storage.collector`) takes a
*deletion lock* before it removes a result: not while it is pinned, nor while its job waits or runs. Both are
scripts in Redis, so that of a request and a collector that meet one comes first. A request that finds a lock
is not answered from the store; the job may be queued again at once, and its run waits until the lock has
ended.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Literal, cast

import redis

from workers.broker import keys, rq_names
from workers.broker.limits import DELETION_LOCK_S
from workers.broker.scripts import Script

#: A collector begins no removal later than this after it took the lock: the rest is for the removal itself,
#: of which obstore gives up a try after 30 s (object_store's `ClientOptions`).
LOCK_USE_S = 10.0

#: What PTTL says of a key that does not exist.
_NO_KEY = -2

Refusal = Literal["pinned", "underway", "locked"]


@dataclass(frozen=True)
class DeletionLock:
    """The right to remove what the store has of a job, from a moment on until ``use_until_s`` (monotonic)."""

    job_id: str
    token: str
    use_until_s: float

    @property
    def usable(self) -> bool:
        """Whether a removal may still begin."""
        return time.monotonic() < self.use_until_s


class ArtifactPins:
    """Pins and deletion locks. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._redis = redis
        self._pin = Script(redis, "storage/pin")
        self._lock = Script(redis, "storage/lock_for_deletion", decode="text")
        self._unlock = Script(redis, "storage/unlock")

    def pin(self, job_id: str, *, requested: bool = False) -> bool:
        """Pin the stored result for `limits.PIN_S` seconds; False when it is being removed.

        To be called before one looks into the store, which may turn out not to have it. ``requested``: the
        job was requested just now, so it is not to be forgotten any more.
        """
        return bool(self._pin(job_id, int(requested)))

    def is_locked(self, job_id: str) -> bool:
        """Whether the artifacts of that job are being removed."""
        key, most_ms = keys.deletion_lock_key(job_id), DELETION_LOCK_S * 1000
        left_ms = self._redis.pttl(key)
        if left_ms > most_ms:  # as `is_held` of ``workers/lua/lib/locks.lua``
            self._redis.pexpire(key, most_ms)
        return left_ms != _NO_KEY

    def underway(self, job_id: str) -> bool:
        """Whether the job waits or runs."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hget(keys.job_key(job_id), "state")
            pipe.hget(rq_names.entry_key(job_id), "status")
            state, status = pipe.execute()
        return state in (b"queued", b"running") or status in (b"queued", b"started")

    def lock_for_deletion(self, job_id: str, *, damaged: bool = False) -> DeletionLock | Refusal:
        """Lock the artifacts of a job, whose record goes where it succeeded; or the reason why not.

        ``damaged``: only files that cannot be read are removed. No pin protects those, and the record in
        Redis stays.

        ``pinned``: somebody was promised the result. ``underway``: the job waits or runs. ``locked``: another
        process removes it.
        """
        token, began_s = secrets.token_hex(8), time.monotonic()
        refusal = self._lock(job_id, token, int(damaged))
        if refusal:
            return cast(Refusal, refusal)
        return DeletionLock(job_id, token, began_s + LOCK_USE_S)

    def unlock(self, lock: DeletionLock) -> None:
        """Release a lock, if it is still there."""
        self._unlock(lock.job_id, lock.token)
