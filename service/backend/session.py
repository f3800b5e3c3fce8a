"""The backend as one caller sees it: made for a request, immutable.

Callers see their own visualizations, batches and deliveries, and those of others as far as their scopes go.
What a caller may not see does not exist for it: `unknown_…`, as for an id that nobody has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fastapi import Request

from proxygrad.errors import InvalidRequest, UnitOutOfRange
from proxygrad.protocol.pagination import MAX_SCANNED
from proxygrad.protocol.requests import ANONYMOUS, BatchRequest
from service.auth.callers import Caller
from service.backend import admission
from service.backend.backend import Backend
from service.backend.long_polling import Wake, until_ended
from service.backend.resources.visualizations import check_limits
from service.problems import ProblemError
from service.web.exception_handlers import problem_of_error
from workers.batches.callers import CanceledWork, cancel_all
from workers.batches.repository import BatchRecord, ResolvedBatch, Unit
from workers.broker.keys import API_KEYS_KEY
from workers.errors import UnknownKind, UnreadableRecord
from workers.jobs.repository import IndexEntry, Limits
from workers.webhooks import DeliveryRecord


@dataclass(frozen=True, slots=True)
class CallerSession:
    """What ``caller`` can do; `service.backend.resources.session` adds the jobs of one kind."""

    backend: Backend
    caller: Caller

    @property
    def limits(self) -> Limits:
        """How many jobs may wait, and how many of them may be this caller's."""
        return replace(self.backend.settings.limits, in_flight=self.caller.in_flight)

    @property
    def visible(self) -> str | None:
        """Whose jobs and batches are listed; None: those of all."""
        return None if self.caller.sees_all else self.caller.name

    # Batches

    async def submit_batch(self, request: BatchRequest, idempotency_key: str | None = None) -> BatchRecord:
        """The batch for a request, new or joined; with a key that was used before, the same batch as then.

        Raises `ProblemError` and what `Batches.submit` raises.
        """

        async def submit() -> BatchRecord:
            return await self._submit_batch(request)

        once = self.backend.idempotency.once
        return await once(self.caller.name, idempotency_key, request, self._visible_batch, submit)

    async def _submit_batch(self, request: BatchRequest) -> BatchRecord:
        backend = self.backend
        try:
            model = await backend.models.info(request.model)
            resolved = ResolvedBatch.of(request, model)
            admission.check_batch_size(len(resolved.units), backend.settings)
            check_limits(resolved.first, model, backend.settings)
        except UnitOutOfRange as error:
            raise admission.units_out_of_range(error) from error
        except InvalidRequest as error:
            raise problem_of_error(error, "body", request.model_dump(mode="json")) from error

        def submit() -> BatchRecord:
            return backend.batches.submit(resolved, request, caller=self.caller.name, limits=self.limits)[0]

        return await backend.call(submit)

    async def batch(self, batch_id: str) -> BatchRecord:
        """The batch of that id; raises `unknown_batch`, also for another caller's."""
        batch = await self._visible_batch(batch_id)
        if batch is None:
            raise self._unknown_batch(batch_id)
        return batch

    async def _visible_batch(self, batch_id: str) -> BatchRecord | None:
        try:
            batch = await self.backend.call(self.backend.batches.fetch, batch_id)
        except UnknownKind:
            return None
        except UnreadableRecord:
            if not self.caller.sees_all:
                owner = await self.backend.call(self.backend.batches.owner, batch_id)
                if owner != self.caller.name:
                    return None
            raise
        if batch is None or not (self.caller.sees_all or batch.caller == self.caller.name):
            return None
        return batch

    @staticmethod
    def _unknown_batch(batch_id: str) -> ProblemError:
        return ProblemError("unknown_batch", f"there is no batch {batch_id!r}")

    async def wait_for_batch(self, batch: BatchRecord, wait_s: float, request: Request) -> BatchRecord:
        """The batch once it has ended, or as it is after ``wait_s`` or when the client disconnects."""

        async def look(_: Wake) -> BatchRecord:
            return await self.batch(batch.id)

        return await until_ended(
            batch, batch.id, look, self.backend.events, wait_s, request, self.caller.name
        )

    async def cancel_batch(self, batch_id: str) -> BatchRecord:
        """Cancel what has not ended; the batch afterwards. Raises `forbidden` or `unknown_batch`."""
        batch = await self._own_batch(batch_id, "cancel")
        if batch.ended:
            return batch
        await self.backend.call(self.backend.batches.cancel, batch_id)
        return await self.batch(batch_id)

    async def forget_batch(self, batch_id: str) -> None:
        """Cancel and delete the batch; its visualizations stay. Raises `forbidden` or `unknown_batch`."""
        try:
            await self._own_batch(batch_id, "delete")
        except UnreadableRecord:
            owner = await self.backend.call(self.backend.batches.owner, batch_id)
            if not self.caller.operates and owner != self.caller.name:
                raise self._unknown_batch(batch_id) from None
        await self.backend.call(self.backend.batches.forget, batch_id)

    async def units(self, batch: BatchRecord, numbers: Sequence[int]) -> list[Unit]:
        """These units of the batch."""
        return await self.backend.call(self.backend.batches.units, batch, numbers)

    async def list_units(
        self, batch: BatchRecord, start: int, limit: int, fits: Callable[[Unit], bool]
    ) -> tuple[list[Unit], int | None]:
        """A page of units from position ``start``, and the position where the next one begins."""
        return await self.backend.call(self.backend.batches.page, batch, start, limit, fits)

    async def list_batches(
        self, after: IndexEntry | None, limit: int, fits: Callable[[BatchRecord], bool]
    ) -> tuple[list[BatchRecord], IndexEntry | None, list[str]]:
        """A page of batches, the newest first, and where the next one begins.

        And the ids of those on the way whose records cannot be read.
        """
        unreadable: list[str] = []

        def read() -> tuple[list[BatchRecord], IndexEntry | None]:
            return self.backend.batches.recent(
                after, limit, MAX_SCANNED, fits, caller=self.visible, unreadable=unreadable.append
            )

        return *await self.backend.call(read), unreadable

    async def _own_batch(self, batch_id: str, verb: str) -> BatchRecord:
        batch = await self.batch(batch_id)
        if not self.caller.operates and batch.caller != self.caller.name:
            raise ProblemError(
                "forbidden", f"to {verb} another caller's batch, use a key with the scope 'admin'"
            )
        return batch

    async def cancel_caller(self, caller: str) -> CanceledWork:
        """Cancel all jobs and batches of a caller.

        Raises `forbidden` for another's without `admin`, and `unknown_caller` where there is no such key.
        """
        if not self.caller.operates and caller != self.caller.name:
            raise ProblemError(
                "forbidden", "to cancel what another caller requested, use a key with the scope 'admin'"
            )
        if caller != ANONYMOUS and not await self.backend.call(
            self.backend.redis.hexists, API_KEYS_KEY, caller
        ):
            raise ProblemError(
                "unknown_caller", f"there is no key {caller!r}; `proxygrad keys list` shows all"
            )
        return await self.backend.call(cancel_all, self.backend.redis, caller)

    # Webhook deliveries

    async def delivery(self, delivery_id: str) -> DeliveryRecord:
        """The delivery of that id; raises `unknown_delivery`, also for another caller's."""
        delivery = await self.backend.call(self.backend.deliveries.fetch, delivery_id)
        if delivery is None or not (self.caller.operates or delivery.caller == self.caller.name):
            raise ProblemError("unknown_delivery", f"there is no delivery {delivery_id!r}")
        return delivery

    async def retry_delivery(self, delivery_id: str) -> DeliveryRecord:
        """Schedule the next attempt for now; the delivery afterwards. Raises `unknown_delivery`."""
        await self.delivery(delivery_id)
        await self.backend.call(self.backend.deliveries.retry, delivery_id)
        return await self.delivery(delivery_id)

    async def list_deliveries(
        self, after: IndexEntry | None, limit: int, fits: Callable[[DeliveryRecord], bool]
    ) -> tuple[list[DeliveryRecord], IndexEntry | None]:
        """A page of deliveries, the newest first, and where the next one begins."""

        def read() -> tuple[list[DeliveryRecord], IndexEntry | None]:
            own = None if self.caller.operates else self.caller.name
            return self.backend.deliveries.recent(after, limit, MAX_SCANNED, fits, caller=own)

        return await self.backend.call(read)
