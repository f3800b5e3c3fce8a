"""The common part of `AsyncVisualization` and `AsyncBatch`: identity, last known state, lifecycle."""

from __future__ import annotations

from typing import ClassVar, Generic, Self, TypeVar

from proxygrad.client._async.transport import AsyncTransport
from proxygrad.client.polling import NEVER, Deadline, long_poll
from proxygrad.client.retries import ApiCall
from proxygrad.protocol.attributions import Attribution
from proxygrad.protocol.batches import Batch
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.visualizations import Visualization

Document = TypeVar("Document", bound=Visualization | Attribution | Batch)


class AsyncResource(Generic[Document]):
    """A resource of the service, and its last known state. Not shared between threads."""

    _base: ClassVar[str]

    def __init__(self, transport: AsyncTransport, snapshot: Document) -> None:
        self._transport = transport
        self._snapshot = snapshot

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self._snapshot.state}>"

    @property
    def snapshot(self) -> Document:
        """The whole document, as of the last response or event."""
        return self._snapshot

    @property
    def id(self) -> str:
        """32 hex digits; the same request has the same id."""
        return self._snapshot.id

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self._snapshot.ended

    @property
    def problem(self) -> Problem | None:
        """Why it has failed or was canceled, where known."""
        return self._snapshot.problem

    async def refresh(self) -> Self:
        """Read the current state."""
        await self._read(0.0, patient=False)
        return self

    async def cancel(self) -> Self:
        """Cancel what has not ended. Raises `Conflict` if it has succeeded or failed."""
        self._snapshot = await self._transport.read(ApiCall("POST", f"{self._path}/cancel"), self._kind)
        return self

    async def delete(self) -> None:
        """Cancel and delete it. With a visualization go its images; of a batch, the visualizations stay."""
        await self._transport.request(ApiCall("DELETE", self._path))

    @property
    def _path(self) -> str:
        return f"{self._base}/{self.id}"

    @property
    def _kind(self) -> type[Document]:
        return type(self._snapshot)

    async def _read(self, wait_s: float, deadline: Deadline = NEVER, *, patient: bool = True) -> None:
        """Read the state once it has ended, or after ``wait_s`` seconds."""
        call = long_poll(self._path, wait_s, deadline, patient=patient)
        self._snapshot = await self._transport.read(call, self._kind)
