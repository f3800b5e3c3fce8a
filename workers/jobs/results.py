"""Results in the store, which outlive the records in Redis: the artifacts, and the record of the job.

A power failure can leave files that are empty, cut off or full of zeros. A file that is damaged counts as
gone: it is removed under a deletion lock (`workers.storage.pins`), and the result is computed again when its
job is requested again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from weakref import ref

import redis
from pydantic import ValidationError

from proxygrad.protocol.jobs import ArtifactInfo
from proxygrad.protocol.requests import ANONYMOUS
from workers.broker.pipeline import Operation
from workers.cache import LRUCache
from workers.errors import StorageError, UnknownKind
from workers.jobs.job import Job
from workers.jobs.kinds.base import ArtifactIndex, JobKind
from workers.jobs.kinds.registry import job_from_json
from workers.jobs.queries import CACHED_JOBS, Requesters
from workers.storage.paths import artifact_path, result_path
from workers.storage.pins import ArtifactPins, DeletionLock
from workers.storage.store import Store

#: That files of a result were removed by hand is noticed within so many seconds.
COMPLETE_S = 5.0

_log = logging.getLogger(__name__)

_Read = TypeVar("_Read")
_Record = TypeVar("_Record", Job, ArtifactIndex)


class _Damaged(Exception):
    """The file at ``path`` is not what it should be. ``removable``: nobody else can read it either."""

    def __init__(self, path: str, removable: bool = True) -> None:
        super().__init__(path)
        self.path = path
        self.removable = removable


class StoredResults:
    """The results in ``store``. Safe to share between threads."""

    def __init__(self, redis: redis.Redis, store: Store) -> None:
        self._store = store
        self._pins = ArtifactPins(redis)
        self._requesters = Requesters(redis)
        self._seen_complete: LRUCache[str, tuple[ref[Job], float]] = LRUCache(CACHED_JOBS)

    def stored(self, job_id: str) -> Job | None:
        """The succeeded job as the store keeps it; None where its record is gone or damaged.

        Raises `StorageError` when the store cannot be read.
        """
        return self._unless_damaged(job_id, partial(self._record, job_id, job_from_json))

    def artifact(self, kind: JobKind, job_id: str, name: str) -> bytes | None:
        """An artifact whose size and digest are those of the record; None where either is gone or damaged.

        None also for a job of another kind. Redis is needed to remove what is damaged, and for nothing else.
        Raises `StorageError`.
        """
        return self._unless_damaged(job_id, partial(self._artifact, kind, job_id, name))

    def intact(self, job: Job) -> bool:
        """Whether all artifacts of a succeeded job are there, by their digests. Raises `StorageError`."""
        for name, info in job.artifacts.items():
            data = self._store.get(artifact_path(job.id, name))
            if data is None or not _fits(data, info):
                return False
        return True

    def is_complete(self, job: Job) -> Operation[bool]:
        """Whether the store has all of a succeeded job's result, by the sizes of its files.

        Not looked at again for the same result within `COMPLETE_S`. Raises `StorageError`.
        """
        seen, until_s = self._seen_complete.get(job.id) or (None, 0.0)
        if seen is None or seen() is not job or time.monotonic() >= until_s:
            if not (yield partial(self._has_all_files, job)):
                return False
            self._seen_complete.put(job.id, (ref(job), time.monotonic() + COMPLETE_S))
        return True

    def pin(self, job_id: str, requester: str | None) -> tuple[Job | None, bool]:
        """The stored job, and whether it is pinned.

        ``requester``: who requests the job just now, so that it is not to be forgotten any more. Raises
        `StorageError`.
        """
        job = self.stored(job_id)
        pinned = job is not None and self._pins.pin(job_id, requested=requester is not None)
        if pinned and requester not in (None, ANONYMOUS):
            self._requesters.add(job_id, requester)
        return job, pinned

    def _has_all_files(self, job: Job) -> bool:
        files = job.artifacts.items()
        fits = all(self._store.size(artifact_path(job.id, name)) == info.size_bytes for name, info in files)
        return fits and bool(self._store.size(result_path(job.id)))

    def _record(self, job_id: str, parse: Callable[[bytes], _Record]) -> _Record | None:
        """Raises `_Damaged`."""
        path = result_path(job_id)
        data = self._store.get(path)
        if data is None:
            return None
        try:
            record = parse(data)
        except (UnknownKind, ValidationError) as error:
            # Another version may read what this one cannot.
            raise _Damaged(path, removable=not _names(data, job_id)) from error
        if record.id != job_id:
            raise _Damaged(path)
        return record

    def _artifact(self, kind: JobKind, job_id: str, name: str) -> bytes | None:
        """Raises `_Damaged`."""
        index: type[ArtifactIndex] = kind.index or kind.record
        record, path = self._record(job_id, index.model_validate_json), artifact_path(job_id, name)
        if record is None or not kind.owns(record.kind) or name not in record.artifacts:
            return None
        data = self._store.get(path)
        if data is not None and not _fits(data, record.artifacts[name]):
            raise _Damaged(path)
        return data

    def _unless_damaged(self, job_id: str, read: Callable[[], _Read | None]) -> _Read | None:
        """What ``read`` gives; None for a damaged file, which is removed unless the job waits or runs."""
        try:
            return read()
        except _Damaged as damaged:
            _log.warning("%s in the store %s is damaged and counts as gone", damaged.path, self._store.url)
        try:
            lock = self._pins.lock_for_deletion(job_id, damaged=True)
            if not isinstance(lock, DeletionLock):
                return None
            try:
                return self._read_or_remove(lock, read)
            finally:
                self._pins.unlock(lock)
        except redis.RedisError as error:
            _log.warning("damaged files of job %s stay for now: %s", job_id, error)
            return None

    def _read_or_remove(self, lock: DeletionLock, read: Callable[[], _Read | None]) -> _Read | None:
        """A run may have replaced the file before the lock, so it is read again. Then nobody writes it."""
        try:
            return read()
        except _Damaged as damaged:
            self._seen_complete.drop(lock.job_id)
            if damaged.removable and lock.usable:
                self._remove(damaged.path)
            return None

    def _remove(self, path: str) -> None:
        try:
            self._store.delete(path)
        except StorageError as error:
            _log.warning("%s is damaged and stays for now: %s", path, error)


def _fits(data: bytes, info: ArtifactInfo) -> bool:
    return len(data) == info.size_bytes and hashlib.sha256(data).hexdigest() == info.sha256


def _names(record: bytes, job_id: str) -> bool:
    """Whether it is a JSON object with the id of that job."""
    try:
        document = json.loads(record)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("id") == job_id
