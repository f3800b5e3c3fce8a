"""The job repository: submits, looks up, cancels, retries and forgets jobs.

::

    queued ──► running ──► succeeded | failed | canceled
    queued ──► failed | canceled    its deadline passed; it was canceled
    running ──► queued               its worker died, or gave it back
    failed | canceled ──► queued    it was requested again

The record is a hash of our own beside RQ's; every change of state is one script in Redis, so that of two
processes that change it at once one comes first and the other sees it. Times are those of Redis' clock.
A job that succeeded is also kept in the store, which answers for it when Redis has forgotten it.

What a gateway does for each request is an `Operation` (`workers.broker.pipeline`); other methods block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import redis
from redis.exceptions import ResponseError

from workers.broker import keys
from workers.broker.limits import DEFAULT_KIND
from workers.broker.pipeline import Operation, RedisCommand, run_blocking
from workers.broker.time_index import IndexEntry
from workers.errors import StorageError, UnreadableRecord
from workers.jobs.commands import Cancel, DeliverNow, Forget, Mode, Submit
from workers.jobs.events import Event, Events, is_after, is_event_id, progress_event, state_event
from workers.jobs.job import CheckpointReference, Job
from workers.jobs.kinds.base import JobKind
from workers.jobs.kinds.registry import KINDS, job_from_fields, kind_named, kind_of, listed_fields
from workers.jobs.queries import REQUESTER_FIELD, JobIndex, Requester, Requesters, StatusQuery
from workers.jobs.requests import (
    Limits,
    Submission,
)
from workers.jobs.results import StoredResults
from workers.queue.fair_queue import FairQueue
from workers.storage.pins import ArtifactPins
from workers.storage.store import Store

__all__ = [
    "CheckpointReference",
    "Event",
    "IndexEntry",
    "Job",
    "Jobs",
    "Limits",
    "Requester",
    "Submission",
    "is_after",
    "is_event_id",
    "progress_event",
    "state_event",
]

DEFAULT_LIMITS = Limits()


class Jobs:
    """Submit, look up, cancel and retry. Safe to share between threads."""

    def __init__(self, redis: redis.Redis, store: Store) -> None:
        self._redis = redis
        self._results = StoredResults(redis, store)
        self._submit = Submit(redis)
        self._cancel = Cancel(redis)
        self._queue = FairQueue(redis)
        self._status = StatusQuery(redis)
        self._pins = ArtifactPins(redis)
        self._forget = Forget(redis, store)
        self._index = JobIndex(redis)
        self._events = Events(redis)
        self._requesters = Requesters(redis)
        self._deliver_now = DeliverNow(redis)

    def submit(self, submission: Submission, limits: Limits = DEFAULT_LIMITS) -> Operation[tuple[Job, bool]]:
        """Request a job: the job, and whether this call put it into the queue.

        The same request has the same id and is computed once: a job that waits or runs is joined, one that
        succeeded is returned as it is. One that failed or was canceled is queued again, and so is one whose
        stored result is gone. Who joins makes a waiting job interactive and its deadline later, where the
        submission says so, and takes back a cancellation.

        Raises `StorageError`, `TooManyWebhooks`, and, where a new job would be needed, `QueueLimitReached` or
        `QueueMemoryFull`.
        """
        # The pin comes before the look into the store: what the look finds after it stays.
        job, pinned = yield from self._look_and_pin(submission.job_id, submission.caller)
        succeeded = job is not None and job.state == "succeeded"
        if job is None or not (succeeded and pinned and (yield from self._results.is_complete(job))):
            return (yield from self._enqueue(submission, "recompute" if succeeded else "submit", limits))
        if submission.webhook is not None:
            delivery = (job.kind, job.id, submission.caller, submission.webhook, job.achieved)
            yield partial(self._deliver_now, *delivery)
        return job, False

    def retry(
        self, job_id: str, *, caller: str | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> tuple[Job, bool] | None:
        """Queue a failed or canceled job again, without its deadline; None when Redis knows no such job.

        The job, and whether this call queued it: any other state is left as it is. ``caller``: who retries,
        by default who requested it first. Raises `QueueLimitReached` or `QueueMemoryFull`.
        """
        job = self._recorded(job_id)
        if job is None:
            return None
        submission = Submission(
            job_id=job_id,
            kind=kind_named(job.kind),
            spec=job.spec,
            cost=job.cost,
            priority=job.priority,
            caller=caller or job.caller,
        )
        return run_blocking(self._enqueue(submission, "retry", limits), self._redis)

    def requester(self, job_id: str, caller: str) -> RedisCommand[Requester | None]:
        """Whether ``caller`` requested the job; None when it never did, or before records are kept."""
        return self._requesters.get(job_id, caller)

    def cancel(self, job_id: str, *, caller: str | None = None) -> Job | None:
        """Cancel the job; as it stands then, or None when there is none.

        With a ``caller``, that one withdraws: other requesters keep the job, and it is canceled with the
        last.

        One that waits is canceled at once. A run is notified to stop, and cancels it when it does; one that
        ends well first has succeeded. What has ended stays as it is.
        """
        fields = self._cancel(job_id, caller)
        return job_from_fields(job_id, fields) if fields else self.stored(job_id)

    def forget(self, job_id: str, *, caller: str | None = None) -> bool:
        """Remove everything of the job, for everybody; False when a run has to stop first; it is notified.

        With a ``caller``, for that one alone as long as others have requested it.

        Then a worker forgets it when it has stopped, unless it is requested again. Raises `StorageError`.
        """
        return self._forget(job_id, caller=caller)

    def forget_stopped(self) -> None:
        """Forget jobs that were to be forgotten and have stopped since. Raises `StorageError`."""
        trouble: Exception | None = None
        for job_id in self._forget.pending():
            try:
                self._forget(job_id, again=True)
            except (StorageError, ResponseError) as error:  # others may go
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    def recent(
        self,
        last: IndexEntry | None,
        most: int,
        looked_at: int,
        fits: Callable[[Job], bool],
        *,
        caller: str | None = None,
        unreadable: Callable[[JobKind, str], None] = lambda kind, job_id: None,
    ) -> tuple[list[Job], IndexEntry | None]:
        """Of the records older than ``last``, the newest first, ``most`` that fit; and where to go on.

        The jobs come without result and images. At most ``looked_at`` are looked at; None: there are no more.
        ``caller``: only what that one requested, by when it did, and as it sees it. ``unreadable`` is called
        with the kind and id of each record on the way that cannot be read.
        """
        jobs: list[Job] = []
        for entry, fields in self._index.before(last, looked_at, listed_fields(), caller):
            looked_at -= 1
            try:
                job = _listed(entry, fields, caller)
            except UnreadableRecord:
                unreadable(kind_of(fields), entry.job_id)
                job = None
            if job is not None and fits(job):
                jobs.append(job)
            if len(jobs) == most or not looked_at:
                return jobs, entry
        return jobs, None

    def _enqueue(self, submission: Submission, mode: Mode, limits: Limits) -> Operation[tuple[Job, bool]]:
        fields, created = yield from self._submit(submission, mode, limits)
        return job_from_fields(submission.job_id, fields), created

    def followed(self, job_id: str, after: str | None) -> tuple[Job | None, str, list[Event]]:
        """The job as it stands, the id of its last event, and what happened after the event ``after``.

        None: no earlier events. Raises `StorageError`.
        """
        fields, last, missed = self._events.read(job_id, after)
        job = job_from_fields(job_id, fields) if b"state" in fields else self.stored(job_id)
        return job, last, missed

    def watch(self, job_ids: Sequence[str]) -> None:
        """Publish previews of these jobs for the next ten seconds."""
        self._events.watch(job_ids)

    def fetch(self, job_id: str) -> Job | None:
        """The job of that id, whole, or None; pins nothing.

        Raises `StorageError` when the store cannot be read.
        """
        job = self._recorded(job_id)
        return self.stored(job_id) if job is None else self.whole(job)

    def whole(self, job: Job) -> Job:
        """The job with all of its result, of which Redis keeps a part; as it is where the store has no more.

        Raises `StorageError` when the store cannot be read.
        """
        return job if job.is_whole else job.completed(self.stored(job.id))

    def look(self, job_id: str) -> Operation[Job | None]:
        """The job of that id, with its place while it waits; a stored result is pinned for an hour.

        Its result may have to be made `whole`.
        """
        return (yield from self._look_and_pin(job_id, None))[0]

    def _look_and_pin(self, job_id: str, requester: str | None) -> Operation[tuple[Job | None, bool]]:
        """The job as it stands, and of one that succeeded whether its stored result is pinned.

        ``requester``: who requests it just now, so that it is not to be forgotten any more.
        """
        job, pinned = yield self._status(job_id, requester=requester)
        if job is None:
            job, pinned = yield partial(self._results.pin, job_id, requester)
        return job, pinned

    def _recorded(self, job_id: str) -> Job | None:
        fields = cast(dict[bytes, bytes], self._redis.hgetall(keys.job_key(job_id)))
        return job_from_fields(job_id, fields) if b"state" in fields else None

    def stored(self, job_id: str) -> Job | None:
        """The succeeded job as the store keeps it; None where its record is gone or damaged.

        Raises `StorageError` when the store cannot be read.
        """
        return self._results.stored(job_id)

    def artifact(self, kind: JobKind, job_id: str, name: str) -> bytes | None:
        """A stored artifact of a job of that kind; None where the artifact or the record is gone or damaged.

        Raises `StorageError`.
        """
        return self._results.artifact(kind, job_id, name)

    def intact(self, job: Job) -> bool:
        """Whether all artifacts of a succeeded job are there, by their digests. Raises `StorageError`."""
        return self._results.intact(job)

    def pin(self, job_id: str) -> bool:
        """Pin the stored result for an hour; False when it is being removed."""
        return self._pins.pin(job_id)

    def queue_position(self, job_id: str) -> int | None:
        """How many jobs are before this one, 0 for the next; None when it does not wait."""
        return self._queue.position(job_id)


def _listed(entry: IndexEntry, fields: Mapping[bytes, bytes], caller: str | None) -> Job | None:
    """The job of an entry as the caller sees it; None when there is none for it any more, or of a kind that
    only a newer version knows.
    """
    if b"state" not in fields or (caller is not None and REQUESTER_FIELD not in fields):
        return None
    if fields.get(b"kind", DEFAULT_KIND.encode()).decode(errors="replace") not in KINDS:
        return None
    job = job_from_fields(entry.job_id, fields)
    withdrawn = fields.get(REQUESTER_FIELD)
    return job.as_withdrawn(float(withdrawn)) if withdrawn else job
