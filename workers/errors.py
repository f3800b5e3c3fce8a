"""What the queue's side raises on purpose, below `proxygrad.errors.ProxyGradError`.

::

    ProxyGradError
    ├── SettingsError        an environment variable, or what it points at, cannot be used
    ├── StorageError         the artifact store cannot be read or written
    │   └── StorageFull      it has no room for what was to be written
    ├── QueueUnavailable     Redis does not answer
    │   └── QueueMemoryFull  it answers, and has no memory for another job
    ├── QueueLimitReached    as many jobs wait as may
    │   ├── TooManyInFlight  as many jobs of the caller wait or run as may
    │   └── TooManyBatches   as many batches of the caller run as may
    ├── UnknownKind          a record of a kind of job that a newer version may know
    ├── UnreadableRecord     a record in Redis that is damaged, or that a newer version may read
    ├── TooManyWebhooks      as many URLs of the caller are told of a job's end as may
    ├── InputGone            what a job needs beside its spec is not in the store
    └── LeaseLost            this run of a job may no longer speak for it; somebody else does, or nobody
        └── GivenBack        its worker stops, and has put the job back into the queue
"""

from __future__ import annotations

from collections.abc import Iterable

from proxygrad.errors import ProxyGradError


class SettingsError(ProxyGradError):
    """An environment variable, or what it points at, cannot be used. Names the variable."""

    code = "settings_invalid"


class StorageError(ProxyGradError):
    """The artifact store cannot be read or written. Names the place."""

    code = "storage_unavailable"


class StorageFull(StorageError):
    """The artifact store has no room. Says how much was asked for; nothing of it was kept."""

    code = "storage_full"


class QueueUnavailable(ProxyGradError):
    """Redis does not answer. Names its URL, without the password."""

    code = "queue_unavailable"


class QueueMemoryFull(QueueUnavailable):
    """Redis has reached its `maxmemory`. Nothing of the job was written."""

    code = "queue_memory_full"


class QueueLimitReached(ProxyGradError):
    """As many jobs wait as may: ``count`` of at most ``limit``, in all, or of the caller ``whose``.

    ``retry_after_s``: when a place may be free, by the pace of the last minute.
    """

    code = "queue_full"

    def __init__(self, count: int, limit: int, whose: str | None, retry_after_s: int) -> None:
        self.count, self.limit, self.whose, self.retry_after_s = count, limit, whose, retry_after_s
        self.code = "queue_full" if whose is None else "caller_queue_full"
        jobs = "jobs" if whose is None else f"jobs of caller {whose!r}"
        super().__init__(f"{count} {jobs} wait already, and at most {limit} may")


class TooManyInFlight(QueueLimitReached):
    """As many jobs of the caller wait or run as may."""

    def __init__(self, count: int, limit: int, whose: str | None, retry_after_s: int) -> None:
        super().__init__(count, limit, whose, retry_after_s)
        self.code = "too_many_in_flight"
        self.args = (f"{count} jobs of this caller wait or run already, and at most {limit} may",)


class TooManyBatches(QueueLimitReached):
    """As many batches of the caller have not ended as may."""

    def __init__(self, limit: int, whose: str, retry_after_s: int = 30) -> None:
        super().__init__(limit, limit, whose, retry_after_s)
        self.code = "too_many_batches"
        self.args = (f"{limit} batches of this caller run already, and no more may",)


class TooManyWebhooks(ProxyGradError):
    """As many URLs of the caller are told of the end of one job or batch as may."""

    code = "too_many_webhooks"

    def __init__(self, subject: str, limit: int) -> None:
        super().__init__(f"{limit} URLs of this caller are told of the end of {subject}, and no more may")


class UnknownKind(ProxyGradError):
    """A record of a kind of job that this version does not have; a newer one may."""

    code = "unknown_kind"

    def __init__(self, kind: str, known: Iterable[str]) -> None:
        super().__init__(f"there is no kind of job {kind!r} here; valid: {', '.join(sorted(known))}")


class UnreadableRecord(ProxyGradError):
    """The record of a job or batch cannot be read: it is damaged, or a newer version wrote it."""

    code = "unreadable_record"

    def __init__(self, what: str, record_id: str, reason: Exception) -> None:
        self.record_id = record_id
        said = str(reason).partition("\n")[0]
        super().__init__(
            f"the record of {what} {record_id} cannot be read by this version "
            f"({type(reason).__name__}: {said:.200}); another may have written it, or it is damaged"
        )


class InputGone(ProxyGradError):
    """The picture of a job is not in the store; the same request brings it again."""

    code = "input_gone"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the picture of job {job_id} is gone from the store; send the request again")


class LeaseLost(ProxyGradError):
    """This run of a job may no longer speak for it: what it would record is dropped."""

    code = "lease_lost"


class GivenBack(LeaseLost):
    """The worker stops and has put the job back into the queue."""

    code = "given_back"
