"""The backend as one caller sees it: made for a request, immutable.

Callers see their own visualizations, batches and deliveries, and those of others as far as their scopes go.
What a caller may not see does not exist for it: `unknown_…`, as for an id that nobody has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from anyio import to_thread
from fastapi import Request

from proxygrad.errors import InvalidRequest, UnitOutOfRange
from proxygrad.protocol.pagination import MAX_SCANNED
from proxygrad.protocol.requests import BatchRequest, VisualizationRequest
from service.auth.callers import Caller
from service.backend import admission
from service.backend.backend import Backend
from service.backend.long_polling import Wake, until_ended
from service.problems import ProblemError
from service.web.exception_handlers import problem_of_error
from workers.batches.repository import Batch, ResolvedBatch, Unit
from workers.jobs.repository import Event, IndexEntry, Job, Limits, Requester
from workers.webhooks import Delivery


@dataclass(frozen=True, slots=True)
class CallerSession:
    """What ``caller`` can do. ``requester``: its interest in the job that the path of the request names.

    ``requester`` is None where the caller did not request that job, and for callers that see all jobs alike.
    """

    backend: Backend
    caller: Caller
    requester: Requester | None = None

    @classmethod
    async def about_job(cls, backend: Backend, caller: Caller, job_id: str) -> Self:
        """The session of a caller without the scope `admin`, for a request about one job.

        Raises `ProblemError` with `unknown_visualization`.
        """
        requester = await backend.send(backend.jobs.requester(job_id, caller.name))
        if requester is None and not caller.sees_all:
            raise unknown_visualization(job_id)
        return cls(backend, caller, requester)

    @property
    def limits(self) -> Limits:
        """How many jobs may wait, and how many of them may be this caller's."""
        return replace(self.backend.settings.limits, in_flight=self.caller.in_flight)

    # Visualizations

    async def submit(self, request: VisualizationRequest, idempotency_key: str | None = None) -> Job:
        """The job for a request, new or joined; with a key that was used before, the same job as then."""
        if idempotency_key is None:
            return await self._submit(request)
        backend, name = self.backend, self.caller.name
        earlier_id = await backend.call(backend.idempotency.begin, name, idempotency_key, request)
        if earlier_id is not None:
            earlier = await backend.call(self._find, earlier_id)
            if earlier is not None:
                return earlier
        job_id = None
        try:
            job = await self._submit(request)
            job_id = job.id
            return job
        finally:
            await backend.call(backend.idempotency.end, name, idempotency_key, request, job_id)

    async def _submit(self, request: VisualizationRequest) -> Job:
        backend = self.backend
        try:
            model = await backend.models.info(request.model)
            submission = backend.requests.submission(request, model, self.caller.name)
            admission.check_limits(submission.spec, model, backend.settings)
            return (await backend.run(backend.jobs.submit(submission, self.limits)))[0]
        except InvalidRequest as error:
            raise problem_of_error(error, "body", request.model_dump(mode="json")) from error

    async def job(self, job_id: str) -> Job:
        """The job of that id; raises `unknown_visualization`. Its stored result is kept for an hour."""
        return await self._job(job_id, self.requester)

    async def _job(self, job_id: str, requester: Requester | None) -> Job:
        job = await self.backend.run(self.backend.jobs.look(job_id))
        if job is None:
            raise unknown_visualization(job_id)
        return _as_seen(job, requester)

    async def record(self, job_id: str) -> Job | None:
        """The job as all callers together have it: also after this one has withdrawn; None without one."""
        return await self.backend.call(self.backend.jobs.fetch, job_id)

    def _find(self, job_id: str) -> Job | None:
        """The job as the caller sees it; None where it did not request it."""
        job = self.backend.jobs.fetch(job_id)
        if job is None or self.caller.operates:
            return job
        requester = self._requester(job_id)
        return None if requester is None else _as_seen(job, requester)

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
        return await until_ended(job, job_id, look, self.backend.events, wait_s, request, kinds=kinds)

    async def cancel(self, job_id: str) -> Job:
        """Cancel the job; where others requested it too, withdraw this caller alone.

        Raises `ProblemError` with `forbidden` or `unknown_visualization`.
        """
        self._check_owner(job_id, "cancel")
        job = await self.backend.call(self._cancel, job_id)
        if job is None:
            raise unknown_visualization(job_id)
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

    async def forget(self, job_id: str) -> bool:
        """Delete the job, for all or, where others requested it too, for this caller; False: it runs yet."""
        self._check_owner(job_id, "delete")
        return await self.backend.call(self._forget, job_id)

    def _forget(self, job_id: str) -> bool:
        return self.backend.jobs.forget(job_id, caller=None if self.caller.operates else self.caller.name)

    async def image(self, job_id: str, number: int) -> bytes | None:
        """The stored PNG, without a question to Redis; None until the job succeeded, and if it is gone."""
        withdrawn = self.requester is not None and self.requester.withdrawn_at is not None
        if withdrawn and (await self.job(job_id)).state != "succeeded":
            return None
        return await to_thread.run_sync(self.backend.jobs.image, job_id, number)

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
        self, after: IndexEntry | None, limit: int, fits: Callable[[Job], bool]
    ) -> tuple[list[Job], IndexEntry | None]:
        """A page of jobs, the newest first, and where the next one begins."""

        def read() -> tuple[list[Job], IndexEntry | None]:
            return self.backend.jobs.recent(after, limit, MAX_SCANNED, fits, caller=self._visible)

        return await self.backend.call(read)

    def _requester(self, job_id: str) -> Requester | None:
        return self.backend.jobs.requester(job_id, self.caller.name)(self.backend.redis)

    def _check_owner(self, job_id: str, verb: str) -> None:
        """Refuse to change a job that the caller sees only because it may see all."""
        if not self.caller.operates and self.requester is None:
            raise ProblemError(
                "forbidden",
                f"this caller has not requested the visualization: to {verb} it, use a key with the scope "
                "'admin', or request it too",
            )

    @property
    def _visible(self) -> str | None:
        """Whose jobs and batches are listed; None: those of all."""
        return None if self.caller.sees_all else self.caller.name

    # Batches

    async def submit_batch(self, request: BatchRequest) -> Batch:
        """The batch for a request, new or joined. Raises `ProblemError` and what `Batches.submit` raises."""
        backend = self.backend
        try:
            model = await backend.models.info(request.model)
            resolved = ResolvedBatch.of(request, model)
            admission.check_batch_size(len(resolved.units), backend.settings)
            admission.check_limits(resolved.first, model, backend.settings)
        except UnitOutOfRange as error:
            raise admission.units_out_of_range(error) from error
        except InvalidRequest as error:
            raise problem_of_error(error, "body", request.model_dump(mode="json")) from error
        return await backend.call(self._submit_batch, resolved, request)

    def _submit_batch(self, resolved: ResolvedBatch, request: BatchRequest) -> Batch:
        return self.backend.batches.submit(resolved, request, caller=self.caller.name, limits=self.limits)[0]

    async def batch(self, batch_id: str) -> Batch:
        """The batch of that id; raises `unknown_batch`, also for another caller's."""
        batch = await self.backend.call(self.backend.batches.fetch, batch_id)
        if batch is None or not (self.caller.sees_all or batch.caller == self.caller.name):
            raise ProblemError("unknown_batch", f"there is no batch {batch_id!r}")
        return batch

    async def wait_for_batch(self, batch: Batch, wait_s: float, request: Request) -> Batch:
        """The batch once it has ended, or as it is after ``wait_s`` or when the client disconnects."""

        async def look(_: Wake) -> Batch:
            return await self.batch(batch.id)

        return await until_ended(batch, batch.id, look, self.backend.events, wait_s, request)

    async def cancel_batch(self, batch_id: str) -> Batch:
        """Cancel what has not ended; the batch afterwards. Raises `forbidden` or `unknown_batch`."""
        batch = await self._own_batch(batch_id, "cancel")
        if batch.ended:
            return batch
        await self.backend.call(self.backend.batches.cancel, batch_id)
        return await self.batch(batch_id)

    async def forget_batch(self, batch_id: str) -> None:
        """Cancel and delete the batch; its visualizations stay. Raises `forbidden` or `unknown_batch`."""
        await self._own_batch(batch_id, "delete")
        await self.backend.call(self.backend.batches.forget, batch_id)

    async def units(self, batch: Batch, numbers: Sequence[int]) -> list[Unit]:
        """These units of the batch."""
        return await self.backend.call(self.backend.batches.units, batch, numbers)

    async def list_units(
        self, batch: Batch, start: int, limit: int, fits: Callable[[Unit], bool]
    ) -> tuple[list[Unit], int | None]:
        """A page of units from position ``start``, and the position where the next one begins."""
        return await self.backend.call(self.backend.batches.page, batch, start, limit, fits)

    async def list_batches(
        self, after: IndexEntry | None, limit: int, fits: Callable[[Batch], bool]
    ) -> tuple[list[Batch], IndexEntry | None]:
        """A page of batches, the newest first, and where the next one begins."""

        def read() -> tuple[list[Batch], IndexEntry | None]:
            return self.backend.batches.recent(after, limit, MAX_SCANNED, fits, caller=self._visible)

        return await self.backend.call(read)

    async def _own_batch(self, batch_id: str, verb: str) -> Batch:
        batch = await self.batch(batch_id)
        if not self.caller.operates and batch.caller != self.caller.name:
            raise ProblemError(
                "forbidden", f"to {verb} another caller's batch, use a key with the scope 'admin'"
            )
        return batch

    # Webhook deliveries

    async def delivery(self, delivery_id: str) -> Delivery:
        """The delivery of that id; raises `unknown_delivery`, also for another caller's."""
        delivery = await self.backend.call(self.backend.deliveries.fetch, delivery_id)
        if delivery is None or not (self.caller.operates or delivery.caller == self.caller.name):
            raise ProblemError("unknown_delivery", f"there is no delivery {delivery_id!r}")
        return delivery

    async def retry_delivery(self, delivery_id: str) -> Delivery:
        """Schedule the next attempt for now; the delivery afterwards. Raises `unknown_delivery`."""
        await self.delivery(delivery_id)
        await self.backend.call(self.backend.deliveries.retry, delivery_id)
        return await self.delivery(delivery_id)

    async def list_deliveries(
        self, after: IndexEntry | None, limit: int, fits: Callable[[Delivery], bool]
    ) -> tuple[list[Delivery], IndexEntry | None]:
        """A page of deliveries, the newest first, and where the next one begins."""

        def read() -> tuple[list[Delivery], IndexEntry | None]:
            own = None if self.caller.operates else self.caller.name
            return self.backend.deliveries.recent(after, limit, MAX_SCANNED, fits, caller=own)

        return await self.backend.call(read)


def unknown_visualization(job_id: str) -> ProblemError:
    """The problem of an id that does not exist for the caller."""
    return ProblemError("unknown_visualization", f"there is no visualization {job_id!r}")


def _as_seen(job: Job, requester: Requester | None) -> Job:
    """The job as the requester sees it: canceled once it has withdrawn."""
    withdrawn_at = None if requester is None else requester.withdrawn_at
    return job if withdrawn_at is None else job.as_withdrawn(withdrawn_at)
