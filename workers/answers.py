"""Answers as the store keeps them, also when Redis has forgotten: the pictures, and the record of the job."""

from __future__ import annotations

import time
from functools import partial

import redis
from pydantic import ValidationError

from workers.askers import Askers
from workers.claims import Claims
from workers.errors import StorageError
from workers.latest import Latest
from workers.looks import MOST_KEPT
from workers.pipelining import Steps
from workers.queue import ANONYMOUS
from workers.records import Job
from workers.storage import Store

#: That files of an answer were removed by hand is noticed within so many seconds.
WHOLE_S = 5.0


def result_path(job_id: str) -> str:
    """Where the store keeps the record of a succeeded job: written last, so with it everything is there."""
    return f"{job_id}/result.json"


def image_path(job_id: str, number: int) -> str:
    """Where the store keeps an image, counted from 0."""
    return f"{job_id}/{number}.png"


class Answers:
    """The answers in ``store``. Safe to share between threads."""

    def __init__(self, redis: redis.Redis, store: Store) -> None:
        self._store = store
        self._claims = Claims(redis)
        self._askers = Askers(redis)
        self._seen_whole: Latest[str, tuple[Job, float]] = Latest(MOST_KEPT)

    def stored(self, job_id: str) -> Job | None:
        """The succeeded job as the store keeps it, or None. Raises `StorageError` for a damaged record."""
        record = self._store.get(result_path(job_id))
        try:
            return None if record is None else Job.model_validate_json(record)
        except ValidationError as exc:
            raise StorageError(
                f"{result_path(job_id)} in the store {self._store.url} is no job's record"
            ) from exc

    def whole(self, job: Job) -> bool:
        """Whether the store has all of a succeeded job's answer. Raises `StorageError`."""
        paths = [image_path(job.id, number) for number in range(len(job.images))]
        return all(self._store.exists(path) for path in [*paths, result_path(job.id)])

    def seems_whole(self, job: Job) -> Steps[bool]:
        """As `whole`, not looked at again of the same answer for `WHOLE_S`."""
        seen, until_s = self._seen_whole.get(job.id) or (None, 0.0)
        if seen is not job or time.monotonic() >= until_s:
            if not (yield partial(self.whole, job)):
                return False
            self._seen_whole.put(job.id, (job, time.monotonic() + WHOLE_S))
        return True

    def promised(self, job_id: str, asked_by: str | None) -> tuple[Job | None, bool]:
        """The stored job, and whether it stays for an hour.

        ``asked_by``: who asks its question, so that it is not to be forgotten any more.
        Raises `StorageError`.
        """
        job = self.stored(job_id)
        promised = job is not None and self._claims.pin(job_id, asked=asked_by is not None)
        if promised and asked_by not in (None, ANONYMOUS):
            self._askers.add(job_id, asked_by)
        return job, promised
