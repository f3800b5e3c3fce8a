"""What can be done alike to a visualization and to a batch, as coroutines."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from proxygrad.protocol.batches import Batch
from proxygrad.protocol.visualizations import Visualization
from service.client._async.events import waiting
from service.client._async.transport import Wire
from service.client.retries import Call

Answer = TypeVar("Answer", bound=Visualization | Batch)


class Resource(Generic[Answer]):
    """What the service knows by an id below ``base``, and the last that was heard of it."""

    base: ClassVar[str]

    def __init__(self, wire: Wire, answer: Answer) -> None:
        self.wire = wire
        self.answer = answer

    @property
    def path(self) -> str:
        """Where it stands on the server."""
        return f"{self.base}/{self.answer.id}"

    async def refresh(
        self, wait_s: float = 0.0, until_s: float | None = None, *, patient: bool = False
    ) -> None:
        """Look how it stands; with ``wait_s``, at its end or after so many seconds."""
        call = waiting(self.path, wait_s, until_s, patient=patient)
        self.answer = await self.wire.read(call, type(self.answer))

    async def cancel(self) -> None:
        """Stop what has not ended."""
        self.answer = await self.wire.read(Call("POST", f"{self.path}/cancel"), type(self.answer))

    async def delete(self) -> None:
        """Have it forgotten."""
        await self.wire.answered(Call("DELETE", self.path))
