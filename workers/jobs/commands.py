"""Commands that change a job: submit, cancel and forget.

Each is one script, so that of two at once one comes first.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping
from typing import Any, Literal, cast

import redis
from redis.exceptions import OutOfMemoryError

from workers.broker import keys
from workers.broker.limits import MAX_WEBHOOKS
from workers.broker.pipeline import Operation
from workers.broker.scripts import Script, pairs
from workers.errors import QueueLimitReached, QueueMemoryFull, TooManyInFlight, TooManyWebhooks
from workers.jobs.job import spec_to_json
from workers.jobs.requests import Limits, Submission
from workers.queue.rq_entries import entry_fields
from workers.storage.paths import result_path
from workers.storage.pins import LOCK_USE_S, ArtifactPins, DeletionLock
from workers.storage.store import Store

#: `Retry-After` for a full queue where nothing has ended within the last minutes.
RETRY_UNKNOWN_S = 30
RETRY_MAX_S = 60

#: Seconds between two looks of a worker for jobs that have stopped and are to be forgotten.
FORGET_INTERVAL_S = 2.0
_FORGOTTEN_AT_ONCE = 100

#: How a request treats a job that exists; ``workers/lua/jobs/submit.lua`` has the rules.
Mode = Literal["submit", "recompute", "retry"]


class Submit:
    """Puts jobs into the queue. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._create = Script(redis, "jobs/submit")
        self._join = Script(redis, "jobs/submit", flags="allow-oom")

    def __call__(
        self, submission: Submission, mode: Mode, limits: Limits
    ) -> Operation[tuple[Mapping[bytes, bytes], bool]]:
        """The record's fields, and whether this created the job.

        Raises `QueueLimitReached`, or `QueueMemoryFull` where Redis takes nothing new; what waits or runs is
        joined all the same. `TooManyWebhooks` where the caller has as many webhooks for the job as it may.
        """
        try:
            reply = yield self._create.command(*_arguments(submission, mode, limits, create=True))
        except OutOfMemoryError as error:
            reply = yield self._join.command(*_arguments(submission, mode, limits, create=False))
            if reply[0] == b"refused":
                raise QueueMemoryFull("Redis has reached its maxmemory and takes no new job") from error
        word, *rest = reply
        if word == b"hooks":
            raise TooManyWebhooks(submission.job_id, MAX_WEBHOOKS)
        if word in (b"all", b"caller", b"in_flight"):
            raise _refusal(submission, limits, word, int(rest[0]), float(rest[1]))
        return pairs(cast(list[bytes], rest[0])), word == b"created"


def _arguments(
    submission: Submission, mode: Mode, limits: Limits, *, create: bool
) -> list[str | int | float]:
    kind, spec, flow = submission.kind, submission.spec, submission.caller
    if submission.flow is not None:
        flow = f"{submission.caller}/{submission.flow}"
    entry: list[Any] = [part for pair in entry_fields(submission.job_id).items() for part in pair]
    return [
        *(submission.job_id, mode, int(create), kind.name, spec_to_json(spec, kind.record), spec.steps),
        *(kind.capability(spec.model), submission.exact),
        *(submission.caller, flow, submission.priority, submission.cost),
        "" if submission.deadline_s is None else submission.deadline_s,
        *(limits.queued, limits.queued_per_caller),
        "" if limits.in_flight is None else limits.in_flight,
        submission.webhook or "",
        *entry,
    ]


def _refusal(
    submission: Submission, limits: Limits, whose: bytes, count: int, per_s: float
) -> QueueLimitReached:
    wait_s = RETRY_UNKNOWN_S
    if per_s > 1 / RETRY_MAX_S / 10:
        wait_s = max(1, min(RETRY_MAX_S, math.ceil(1 / per_s)))
    if whose == b"in_flight" and limits.in_flight is not None:
        return TooManyInFlight(count, limits.in_flight, submission.caller, wait_s)
    of_all = whose == b"all"
    limit = limits.queued if of_all else limits.queued_per_caller
    return QueueLimitReached(count, limit, None if of_all else submission.caller, wait_s)


class Cancel:
    """Cancels jobs, for everybody or for one caller. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._cancel = Script(redis, "jobs/cancel")

    def __call__(self, job_id: str, caller: str | None = None) -> Mapping[bytes, bytes]:
        """The record's fields as they are then; none when there is no record.

        ``caller``: who withdraws; the job goes on while others want it. None: for everybody.
        """
        return pairs(cast(list[bytes], self._cancel(job_id, caller or "")))


class DeliverNow:
    """Makes webhook deliveries for jobs that had succeeded before they were requested."""

    def __init__(self, redis: redis.Redis) -> None:
        self._deliver_now = Script(redis, "webhooks/deliver_now")

    def __call__(self, kind: str, job_id: str, caller: str, url: str, activation: float | None) -> None:
        """Make a delivery at once."""
        self._deliver_now(kind, job_id, caller, url, "" if activation is None else repr(activation))


class Forget:
    """Forgets jobs: record, RQ's entry, and whatever the store has. Safe to share between threads.

    A job that runs is stopped first, and forgotten when it has stopped: until then, and until its artifacts
    are gone, it stands in a set that workers look through. A new request for the job takes it out of there.
    The store is cleared under a deletion lock, so that no run and no collector is at it meanwhile.
    """

    def __init__(self, redis: redis.Redis, store: Store) -> None:
        self._redis = redis
        self._store = store
        self._pins = ArtifactPins(redis)
        self._forget = Script(redis, "jobs/forget", decode="text")

    def __call__(self, job_id: str, *, again: bool = False, caller: str | None = None) -> bool:
        """Forget the job; False when that is left to a worker, as the job has to stop first.

        ``again``: only if it is to be forgotten still. ``caller``: who has nothing to do with it any more;
        where others requested the job, it is forgotten for that one alone. Raises `StorageError`; then a
        worker tries again.
        """
        token, began_s = secrets.token_hex(8), time.monotonic()
        obstacle = self._forget(job_id, token, int(again), caller or "")
        if obstacle:
            return bool(obstacle == "shared")
        lock = DeletionLock(job_id, token, began_s + LOCK_USE_S)
        try:
            paths = [stored.path for stored in self._store.list(job_id)]
            record = result_path(job_id)
            for path in sorted(paths, key=lambda path: path != record):  # the record goes first
                if not lock.usable:
                    return False
                self._store.delete(path)
            self._redis.srem(keys.FORGOTTEN_KEY, job_id)
        finally:
            self._pins.unlock(lock)
        return True

    def pending(self) -> list[str]:
        """Some of those that are to be forgotten when they have stopped."""
        job_ids = cast(list[bytes], self._redis.srandmember(keys.FORGOTTEN_KEY, _FORGOTTEN_AT_ONCE))
        return [job_id.decode() for job_id in job_ids]
