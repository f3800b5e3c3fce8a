"""The garbage collector: removes from the store what is too old, too much, or left behind (docs/storage.md).

Every worker offers to do it; one at a time does. A result that is pinned stays, and so
does everything of a job that waits or runs (`workers.storage.pins`). A collector may be killed at any moment:
what it had begun to remove has no record any more, and a later round finds it as such.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import redis
from redis.exceptions import ResponseError

from workers.broker import keys
from workers.broker.lock import PeriodicLock, WorkStopped
from workers.storage.inventory import Inventory, JobArtifacts, artifacts_by_job
from workers.storage.paths import job_of
from workers.storage.pins import ArtifactPins, DeletionLock
from workers.storage.store import Store, Stored

#: Between rounds, over all workers. Each lists the whole store: of an object store 1000 artifacts a request.
ROUND_S = 600.0
#: Nothing goes before it is as old as this: its requester may not have fetched it yet, and what looks left
#: behind may be of a job that goes on.
GRACE_S = 3600.0
#: Most answers removed in one round; with the orphans and their paths, some 10 MB of memory.
MOST = 10_000

_DAY_S = 24 * 3600

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetentionPolicy:
    """How long results are kept, and how many gigabytes (10⁹ bytes) in all; None: no bound."""

    days: float | None = None
    gigabytes: float | None = None


@dataclass
class Collected:
    """What one round removed, by kind, and what is left."""

    answers: int = 0
    orphans: int = 0
    checkpoints: int = 0
    unfinished: int = 0
    removed_bytes: int = 0
    kept_answers: int = 0
    kept_bytes: int = 0

    def __str__(self) -> str:
        return (
            f"removed {self.answers} answers, {self.orphans} jobs' artifacts without an answer, "
            f"{self.checkpoints} checkpoints and {self.unfinished} unfinished writes, "
            f"{self.removed_bytes / 1e6:.1f} MB; {self.kept_answers} answers are kept, "
            f"{self.kept_bytes / 1e6:.1f} MB in all"
        )


class GarbageCollector:
    """Removes artifacts by a `RetentionPolicy`. ``grace_s``: nothing younger goes."""

    def __init__(
        self,
        redis: redis.Redis,
        store: Store,
        keep: RetentionPolicy,
        stopping: threading.Event | None = None,
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        self._store = store
        self._keep = keep
        self._stopping = stopping or threading.Event()
        self._grace_s = grace_s
        self._pins = ArtifactPins(redis)
        self._lock = PeriodicLock(redis, keys.COLLECTOR_KEY, ROUND_S)

    def round(self) -> None:
        """`collect`, unless another process is at it or was within `ROUND_S`. Raises `StorageError`."""
        if not self._lock.take():
            return
        try:
            collected = self.collect()
        except WorkStopped as stopped:
            _log.info("the collector stops: %s", stopped)
            return
        self._lock.end()
        _log.log(logging.INFO if collected.removed_bytes else logging.DEBUG, "the collector %s", collected)

    def collect(self) -> Collected:
        """One pass through the store, without the lock. Raises `StorageError`, or `WorkStopped` to stop."""
        now = time.time()
        before = now - self._grace_s
        inventory = Inventory.of(artifacts_by_job(self._store, self._go_on), before, MOST)
        done = Collected(kept_answers=inventory.answers, kept_bytes=inventory.size_bytes)
        self._remove_unfinished(before, done)
        self._remove_strays(inventory.strays, done)
        for orphan in inventory.orphans:
            done.orphans += self._remove(orphan, done)
        self._remove_oldest(inventory.oldest, now, done)
        return done

    def _remove_unfinished(self, before: float, done: Collected) -> None:
        for left in self._store.unfinished():
            self._go_on()
            if left.modified_at < before and job_of(left.path):
                self._delete(left, done)
                done.unfinished += 1

    def _remove_strays(self, checkpoints: Iterable[Stored], done: Collected) -> None:
        for checkpoint in checkpoints:
            self._go_on()
            if not self._pins.underway(job_of(checkpoint.path) or ""):
                self._delete(checkpoint, done)
                done.checkpoints += 1
                done.kept_bytes -= checkpoint.size_bytes

    def _remove_oldest(self, answers: Iterable[JobArtifacts], now: float, done: Collected) -> None:
        """While they are too old, or all there is is too much."""
        expired = 0.0 if self._keep.days is None else now - self._keep.days * _DAY_S
        most_bytes = float("inf") if self._keep.gigabytes is None else self._keep.gigabytes * 1e9
        for answer in answers:
            if (answer.answered_at or 0.0) >= expired and done.kept_bytes <= most_bytes:
                return
            removed = self._remove(answer, done)
            done.answers += removed
            done.kept_answers -= removed

    def _remove(self, artifacts: JobArtifacts, done: Collected) -> bool:
        """Everything there is of a job, if nothing has changed and nobody counts on it; whether it went."""
        self._go_on()
        try:
            lock = self._pins.lock_for_deletion(artifacts.job_id)
        except ResponseError as error:  # its record is a key of another type; others may go
            _log.warning("the artifacts of job %s stay: %s", artifacts.job_id, error)
            return False
        if not isinstance(lock, DeletionLock):
            return False
        try:
            # It was listed minutes ago, perhaps; under a lock no run writes any more.
            if JobArtifacts.of(artifacts.job_id, self._store.list(artifacts.job_id)) != artifacts:
                return False
            for artifact in artifacts.record_first:
                if not lock.usable:
                    return False
                self._delete(artifact, done)
                done.kept_bytes -= artifact.size_bytes
        finally:
            self._pins.unlock(lock)
        return True

    def _delete(self, artifact: Stored, done: Collected) -> None:
        self._store.delete(artifact.path)
        done.removed_bytes += artifact.size_bytes

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise WorkStopped("the worker stops")
        self._lock.renew()
