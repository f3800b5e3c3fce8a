"""The backend as one caller sees the jobs of one kind: submit, read, wait, cancel, retry, delete, list."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from anyio import to_thread
from fastapi import Request

from proxygrad.errors import InvalidRequest
from proxygrad.protocol.pagination import MAX_SCANNED
from service.auth.callers import Caller
from service.backend.backend import Backend
from service.backend.long_polling import Wake, until_ended
from service.backend.resources.base import JobResource, RequestBody
from service.backend.session import CallerSession
from service.problems import ProblemError
from service.web.exception_handlers import problem_of_error
from workers.errors import StorageError, UnknownKind, UnreadableRecord
from workers.jobs.job import Job
from workers.jobs.kinds.base import JobKind
from workers.jobs.repository import Event, IndexEntry, Requester

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobSession(CallerSession):
    """What ``caller`` can do with jobs of one kind, that of ``resource``.

    ``requester``: its interest in the job that the path of the request names. None where the caller did not
    request that job, and for callers that see all jobs alike.
    """

    resource: JobResource
    requester: Requester | None = None

    @classmethod
    async def about_job(cls, backend: Backend, caller: Caller, resource: JobResource, job_id: str) -> Self:
        """The session of a caller without the scope `admin`, for a request about one job.

        Raises `ProblemError` with the problem `unknown` of the resource.
        """
        requester = await backend.send(backend.jobs.requester(job_id, caller.name))
        if requester is None and not caller.sees_all:
            raise resource.unknown_job(job_id)
        return cls(backend, caller, resource, requester)

    async def submit(self, request: RequestBody, idempotency_key: str | None = None) -> Job:
        """The job for a request, new or joined; with a key that was used before, the same job as then."""
        backend = self.backend

        async def find(job_id: str) -> Job | None:
            return await backend.call(self._find, job_id)

        async def submit() -> Job:
            return await self._submit(request)

        return await backend.idempotency.once(self.caller.name, idempotency_key, request, find, submit)

    async def _submit(self, request: RequestBody) -> Job:
        backend = self.backend
        try:
            model = await backend.models.info(request.model)
            submission = backend.requests.submission(self.resource, request, model, self.caller.name)
            self.resource.check_limits(submission.spec, model, backend.settings)
            return (await backend.run(backend.jobs.submit(submission, self.limits)))[0]
        except InvalidRequest as error:
            raise problem_of_error(error, "body", request.model_dump(mode="json")) from error

    async def job(self, job_id: str) -> Job:
        """The job of that id; raises the problem `unknown` of the resource.

        Its stored result is kept for an hour.
        """
        return await self._job(job_id, self.requester)

    async def _job(self, job_id: str, requester: Requester | None) -> Job:
        try:
            job = await self.backend.run(self.backend.jobs.look(job_id))
        except UnknownKind:
            job = None
        if job is None or not self._is_own_kind(job):
            raise self._unknown(job_id)
        return _as_seen(job, requester)

    def _is_own_kind(self, job: Job) -> bool:
        return isinstance(job, self.resource.kind.record)

    def _unknown(self, job_id: str) -> ProblemError:
        return self.resource.unknown_job(job_id)

    async def record(self, job_id: str) -> Job | None:
        """The job as all callers together have it: also after this one has withdrawn; None without one."""
        return await self.backend.call(self.backend.jobs.fetch, job_id)

    def _find(self, job_id: str) -> Job | None:
        """The job as the caller sees it; None where it did not request it."""
        try:
            job = self.backend.jobs.fetch(job_id)
        except UnknownKind:
            return None
        if job is None or not self._is_own_kind(job):
            return None
        if self.caller.operates:
            return job
        requester = self._requester(job_id)
        return None if requester is None else _as_seen(job, requester)

    async def whole(self, job: Job) -> Job:
        """The job with all of its result; with the part that Redis keeps while the store is away."""
        try:
            return await to_thread.run_sync(self.backend.jobs.whole, job)
        except StorageError as error:
            _log.warning("visualization %s is shown without its curves: %s", job.id, error)
            return job

    async def wait_for_job(self, job_id: str, wait_s: float, request: Request) -> Job:
        """The job once it has ended, or as it is after ``wait_s`` or when the client disconnects."""
        job = await self.job(job_id)
        if job.ended or wait_s <= 0:
            return job
        requester = self.requester

        async def look(wake: Wake) -> Job:
            nonlocal requester
            if isinstance(wake, Event) and wake.kind == "withdrawn" and wake.data == self.caller.name:
                requester = await self.backend.send(self.backend.jobs.requester(job_id, self.caller.name))
            return await self._job(job_id, requester)

        kinds = {"state", "withdrawn"}
        return await until_ended(
            job, job_id, look, self.backend.events, wait_s, request, self.caller.name, kinds=kinds
        )

    async def cancel(self, job_id: str) -> Job:
        """Cancel the job; where others requested it too, withdraw this caller alone.

        Raises `ProblemError` with `forbidden` or the problem `unknown` of the resource.
        """
        self._check_owner(job_id, "cancel")
        job = await self.backend.call(self._cancel, job_id)
        if job is None:
            raise self._unknown(job_id)
        return job

    def _cancel(self, job_id: str) -> Job | None:
        if self.caller.operates:
            return self.backend.jobs.cancel(job_id)
        job = self.backend.jobs.cancel(job_id, caller=self.caller.name)
        return None if job is None else _as_seen(job, self._requester(job_id))

    async def retry(self, job_id: str) -> Job | None:
        """Queue a failed or canceled job again; None when Redis has none. Raises `forbidden`."""
        self._check_owner(job_id, "retry")
        return await self.backend.call(self._retry, job_id)

    def _retry(self, job_id: str) -> Job | None:
        caller = None if self.caller.anonymous else self.caller.name
        retried = self.backend.jobs.retry(job_id, caller=caller, limits=self.limits)
        return None if retried is None else retried[0]

    async def check_exists(self, job_id: str) -> None:
        """Raise the problem `unknown` of the resource where `job` does; a record need not be readable."""
        with suppress(UnreadableRecord):
            await self.job(job_id)

    async def forget(self, job_id: str) -> bool:
        """Delete the job, for all or, where others requested it too, for this caller; False: it runs yet."""
        self._check_owner(job_id, "delete")
        return await self.backend.call(self._forget, job_id)

    def _forget(self, job_id: str) -> bool:
        return self.backend.jobs.forget(job_id, caller=None if self.caller.operates else self.caller.name)

    async def artifact(self, job_id: str, name: str) -> bytes | None:
        """A stored artifact, without a question to Redis; None until the job succeeded, and if it is gone."""
        withdrawn = self.requester is not None and self.requester.withdrawn_at is not None
        if withdrawn and (await self.job(job_id)).state != "succeeded":
            return None
        return await to_thread.run_sync(self.backend.jobs.artifact, self.resource.kind, job_id, name)

    async def events_since(self, job_id: str, event_id: str | None) -> tuple[Job | None, str, list[Event]]:
        """The job, the id of its last event, and its events after ``event_id``, as `Jobs.followed`.

        Requests previews of a job that has not ended.
        """
        return await self.backend.call(self._events_since, job_id, event_id)

    def _events_since(self, job_id: str, event_id: str | None) -> tuple[Job | None, str, list[Event]]:
        requester = None if self.requester is None else self._requester(job_id)
        job, last, events = self.backend.jobs.followed(job_id, event_id)
        if job is not None and not job.ended:
            self.backend.jobs.watch([job_id])
        return None if job is None else _as_seen(job, requester), last, events

    async def list_jobs(
        self, after: IndexEntry | None, limit: int, fits: Callable[[Any], bool]
    ) -> tuple[list[Job], IndexEntry | None, list[str]]:
        """A page of jobs of the kind, the newest first, and where the next one begins.

        And the ids of those on the way whose records cannot be read.
        """
        unreadable: list[str] = []

        def set_aside(kind: JobKind, job_id: str) -> None:
            if kind is self.resource.kind:
                unreadable.append(job_id)

        def own(job: Job) -> bool:
            return self._is_own_kind(job) and fits(job)

        def read() -> tuple[list[Job], IndexEntry | None]:
            return self.backend.jobs.recent(
                after, limit, MAX_SCANNED, own, caller=self.visible, unreadable=set_aside
            )

        return *await self.backend.call(read), unreadable

    def _requester(self, job_id: str) -> Requester | None:
        return self.backend.jobs.requester(job_id, self.caller.name)(self.backend.redis)

    def _check_owner(self, job_id: str, verb: str) -> None:
        """Refuse to change a job that the caller sees only because it may see all."""
        if not self.caller.operates and self.requester is None:
            raise ProblemError(
                "forbidden",
                f"this caller has not requested the {self.resource.kind.name}: to {verb} it, use a key with "
                "the scope 'admin', or request it too",
            )


def _as_seen(job: Job, requester: Requester | None) -> Job:
    """The job as the requester sees it: canceled once it has withdrawn."""
    withdrawn_at = None if requester is None else requester.withdrawn_at
    return job if withdrawn_at is None else job.as_withdrawn(withdrawn_at)
