"""A job's life as everybody sees it: its record, how it is submitted, how it is looked up.

::

    queued ──► running ──► succeeded | failed | canceled
    queued ──► failed | canceled    its deadline passed; nobody wants it any more
    running ──► queued               its worker died, or gave it back
    failed | canceled ──► queued    somebody asked again

The record is a hash of our own beside RQ's; every change of state is one script in Redis, so that of two
processes that change it at once one comes first and the other sees it. Times are those of Redis' clock.
A job that succeeded is also kept in the store, which answers for it when Redis has forgotten it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import redis

from proxygrad.protocol.requests import ANONYMOUS, VisualizationRequest
from proxygrad.spec import ModelInfo, Spec
from workers.broker import queue
from workers.broker.pipeline import Operation, RedisCommand, run_blocking
from workers.jobs.askers import Requester, Requesters
from workers.jobs.cancellation import Cancel
from workers.jobs.events import Event, Events, is_after, is_event_id, progress_event, state_event
from workers.jobs.forgetting import Forget
from workers.jobs.looks import StatusQuery
from workers.jobs.recent import ASKED_FIELD, IndexEntry, JobIndex
from workers.jobs.records import Checkpoint, Job
from workers.jobs.results import Answers, image_path, result_path
from workers.jobs.submission import Limits, Mode, Submission, Submit
from workers.queue.deliveries import Deliveries
from workers.queue.fair_queue import FairQueue
from workers.storage.pins import ArtifactPins
from workers.storage.store import Store

__all__ = [
    "Checkpoint",
    "Event",
    "IndexEntry",
    "Job",
    "Jobs",
    "Limits",
    "Requester",
    "Submission",
    "events_channel",
    "image_path",
    "is_after",
    "is_event_id",
    "progress_event",
    "result_path",
    "state_event",
]

DEFAULT_LIMITS = Limits()

#: What a list shows of a job: all but the answer, which is most of a record.
_LISTED_FIELDS = (
    *("spec", "state", "created_at", "started_at", "finished_at", "step", "steps", "activation"),
    *("problem", "priority", "best"),
)


#: The channel on which it is told what happens to a job.
events_channel = queue.events_key


class Jobs:
    """Submit, look up, cancel and retry. Safe to share between threads."""

    def __init__(self, redis: redis.Redis, store: Store) -> None:
        self._redis = redis
        self._answers = Answers(redis, store)
        self._submit = Submit(redis)
        self._cancel = Cancel(redis)
        self._ready = FairQueue(redis)
        self._look = StatusQuery(redis)
        self._claims = ArtifactPins(redis)
        self._forget = Forget(redis, store)
        self._recent = JobIndex(redis)
        self._events = Events(redis)
        self._askers = Requesters(redis)
        self._deliveries = Deliveries(redis)

    def submit(
        self,
        question: Spec,
        model: ModelInfo,
        *,
        caller: str = ANONYMOUS,
        flow: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> tuple[Job, bool]:
        """Ask ``question`` of ``model``: the job, and whether this call put it into the queue.

        The same question has the same id and is computed once: one that waits or runs is joined, one that
        succeeded is returned as it is. One that failed or was canceled is queued again, and so is one
        whose stored answer is gone. Who joins makes a waiting job interactive and its deadline later, where
        the `VisualizationRequest` says so, and takes back a cancellation.

        ``flow``: the batch of the caller that it belongs to; turns are shared among callers and batches.
        Raises what `Spec.resolve` raises, `StorageError`, `TooManyWebhooks`, and, where a new job would be
        needed, `QueueFull` or `QueueMemoryFull`.
        """
        request = (
            question if isinstance(question, VisualizationRequest) else VisualizationRequest.of(question)
        )
        return run_blocking(self.submitting(Submission.of(request, model, caller, flow), limits), self._redis)

    def submitting(self, submission: Submission, limits: Limits) -> Operation[tuple[Job, bool]]:
        """The same in steps."""
        # The promise comes before the look: what is seen after it stays.
        known, promised = yield from self._promised(submission.job_id, submission.caller)
        succeeded = known is not None and known.state == "succeeded"
        if known is None or not (succeeded and promised and (yield from self._answers.seems_whole(known))):
            return (yield from self._enqueue(submission, "recompute" if succeeded else "ask", limits))
        if submission.webhook is not None:
            activation = known.activation if known.result is None else known.result.achieved_activation
            told = (known.id, submission.caller, submission.webhook, activation)
            yield partial(self._deliveries.tell, *told)
        return known, False

    def retry(
        self, job_id: str, *, caller: str | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> tuple[Job, bool] | None:
        """Queue a failed or canceled job again, without its deadline; None when Redis knows no such job.

        The job, and whether this call queued it: any other state is left as it is. ``caller``: who asks, by
        default who asked first. Raises `QueueFull` or `QueueMemoryFull`.
        """
        known = self._recorded(job_id)
        if known is None:
            return None
        submission = Submission(
            job_id=job_id,
            spec=known.spec,
            cost=known.cost,
            priority=known.priority,
            caller=caller or known.caller,
        )
        return run_blocking(self._enqueue(submission, "retry", limits), self._redis)

    def asked(self, job_id: str, caller: str) -> Requester | None:
        """Whether ``caller`` asked for the job; None when it never did, or before records are kept."""
        return self.asking(job_id, caller)(self._redis)

    def asking(self, job_id: str, caller: str) -> RedisCommand[Requester | None]:
        """The same as a command."""
        return self._askers.asked(job_id, caller)

    def cancel(self, job_id: str, *, caller: str | None = None) -> Job | None:
        """Let nobody compute the job; as it stands then, or None when there is none.

        With a ``caller``, that one withdraws: others who asked keep it, and it is canceled with the last.

        One that waits is canceled at once. A run is asked to stop, and cancels it when it does; one that
        ends well first has succeeded. What has ended stays as it is.
        """
        fields = self._cancel(job_id, caller)
        return Job.from_fields(job_id, fields) if fields else self.stored(job_id)

    def forget(self, job_id: str, *, caller: str | None = None) -> bool:
        """Leave nothing of the job, for anybody; False when a run has to stop first, which is asked to.

        With a ``caller``, for that one alone as long as others have asked for it.

        Then it is forgotten by a worker's round, unless its question is asked again. Raises `StorageError`.
        """
        return self._forget(job_id, result_path(job_id), caller=caller)

    def forget_stopped(self) -> None:
        """Forget what was to be forgotten, and has stopped since. Raises `StorageError`."""
        for job_id in self._forget.pending():
            self._forget(job_id, result_path(job_id), again=True)

    def recent(
        self,
        last: IndexEntry | None,
        most: int,
        looked_at: int,
        fits: Callable[[Job], bool],
        *,
        caller: str | None = None,
    ) -> tuple[list[Job], IndexEntry | None]:
        """Of the records older than ``last``, the newest first, ``most`` that fit; and where to go on.

        The jobs come without result and images. At most ``looked_at`` are looked at; None: there are no more.
        ``caller``: only what that one asked for, by when it did, and as it sees it.
        """
        jobs: list[Job] = []
        for entry, fields in self._recent.before(last, looked_at, _LISTED_FIELDS, caller):
            looked_at -= 1
            job = _listed(entry, fields, caller)
            if job is not None and fits(job):
                jobs.append(job)
            if len(jobs) == most or not looked_at:
                return jobs, entry
        return jobs, None

    def _enqueue(self, submission: Submission, mode: Mode, limits: Limits) -> Operation[tuple[Job, bool]]:
        fields, created = yield from self._submit(submission, mode, limits)
        return Job.from_fields(submission.job_id, fields), created

    def followed(self, job_id: str, after: str | None) -> tuple[Job | None, str, list[Event]]:
        """The job as it stands, the id of its last event, and what happened after the event ``after``.

        None: whatever happened before is not wanted. Raises `StorageError`.
        """
        fields, last, missed = self._events.read(job_id, after)
        job = Job.from_fields(job_id, fields) if b"state" in fields else self.stored(job_id)
        return job, last, missed

    def watch(self, job_ids: Sequence[str]) -> None:
        """Somebody wants to see previews of these jobs, for the next ten seconds."""
        self._events.watch(job_ids)

    def fetch(self, job_id: str) -> Job | None:
        """The job of that id as it stands, or None. Raises `StorageError` when the store cannot be read."""
        return self._recorded(job_id) or self.stored(job_id)

    def looking(self, job_id: str) -> Operation[Job | None]:
        """As `fetch`, with what is known of one that waits; a stored answer is promised for an hour."""
        return (yield from self._promised(job_id, None))[0]

    def _promised(self, job_id: str, asked_by: str | None) -> Operation[tuple[Job | None, bool]]:
        """The job as it stands, and of one that succeeded whether its stored answer is promised for an hour.

        ``asked_by``: who asks its question, so that it is not to be forgotten any more.
        """
        job, promised = yield self._look(job_id, asked_by=asked_by)
        if job is None:
            job, promised = yield partial(self._answers.promised, job_id, asked_by)
        return job, promised

    def _recorded(self, job_id: str) -> Job | None:
        fields = cast(dict[bytes, bytes], self._redis.hgetall(queue.job_key(job_id)))
        return Job.from_fields(job_id, fields) if b"state" in fields else None

    def stored(self, job_id: str) -> Job | None:
        """The succeeded job as the store keeps it; None where its record is gone or damaged.

        Raises `StorageError` when the store cannot be read.
        """
        return self._answers.stored(job_id)

    def image(self, job_id: str, number: int) -> bytes | None:
        """A stored picture as the record describes it; None where either is gone or damaged.

        Raises `StorageError`.
        """
        return self._answers.image(job_id, number)

    def whole(self, job: Job) -> bool:
        """Whether the store has all of a succeeded job's answer, by the sizes of its files.

        Raises `StorageError`.
        """
        return self._answers.whole(job)

    def intact(self, job: Job) -> bool:
        """Whether all pictures of a succeeded job are there, by their digests. Raises `StorageError`."""
        return self._answers.intact(job)

    def pin(self, job_id: str) -> bool:
        """Promise the stored answer for an hour; False when a collector is removing it."""
        return self._claims.pin(job_id)

    def queue_position(self, job_id: str) -> int | None:
        """How many jobs are before this one, 0 for the next; None when it does not wait."""
        return self._ready.position(job_id)


def _listed(entry: IndexEntry, fields: Mapping[bytes, bytes], caller: str | None) -> Job | None:
    """The job of an entry as the caller sees it; None when there is none for it any more."""
    if b"state" not in fields or (caller is not None and ASKED_FIELD not in fields):
        return None
    job = Job.from_fields(entry.job_id, fields)
    withdrawn = fields.get(ASKED_FIELD)
    return job.as_withdrawn(float(withdrawn)) if withdrawn else job
