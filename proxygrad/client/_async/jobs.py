"""The common part of the jobs of every kind: state, progress, waiting, events, retry."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import ClassVar, Self, cast

from proxygrad.client import polling
from proxygrad.client._async.events import Document, follow
from proxygrad.client._async.resource import AsyncResource
from proxygrad.client._async.transport import AsyncTransport
from proxygrad.client.errors import Canceled, Failed, StillRunning
from proxygrad.client.polling import NEVER, Deadline
from proxygrad.client.progress import reporting
from proxygrad.client.retries import ApiCall
from proxygrad.protocol.events import Event, ProgressEvent, StateEvent
from proxygrad.protocol.jobs import Progress, State


class AsyncJob(AsyncResource[Document]):
    """A job of any kind, and its last known state. Not shared between threads."""

    _noun: ClassVar[str]

    def __init__(self, transport: AsyncTransport, snapshot: Document, *, cached: bool = False) -> None:
        super().__init__(transport, snapshot)
        self._cached = cached

    @property
    def state(self) -> State:
        """`queued`, `running`, `succeeded`, `failed` or `canceled`."""
        return self._snapshot.state

    @property
    def progress(self) -> Progress:
        """Gradient steps done so far."""
        return self._snapshot.progress

    @property
    def cached(self) -> bool:
        """Whether the result was in the store when it was requested: nothing was computed."""
        return self._cached

    async def wait(
        self,
        progress: bool | Callable[[Document], object] = False,
        *,
        timeout_s: float | None = None,
        check: bool = True,
    ) -> Self:
        """Wait until it has ended; returns itself.

        ``progress``: True for a bar on standard error, or a function to call with `snapshot` at every change.
        Raises `Failed` or `Canceled`, unless ``check`` is False, and `StillRunning` after ``timeout_s``.
        """
        deadline = Deadline.after(timeout_s)
        with reporting(progress) as report:
            if report is None:
                await self._wait(deadline)
            else:
                await self._watch(deadline, report)
        if not self.ended:
            raise StillRunning(f"{self._noun} {self.id} is still {self.state} after {timeout_s:g} s")
        if check:
            self._raise_for_state()
        return self

    async def events(self) -> AsyncGenerator[Event]:
        """Events as they happen, until the end; resumed when a connection breaks off."""
        async with aclosing(follow(self._transport, self._path, self._kind)) as events:
            async for event in events:
                await self._apply(event)
                if isinstance(event, StateEvent) and event.final:
                    await self.refresh()
                if event is not None:
                    yield event

    async def retry(self) -> Self:
        """Queue it again if it has failed or was canceled. Raises `Conflict` if it has succeeded."""
        # Not repeatable: if it has failed again meanwhile, that would start it again.
        call = ApiCall("POST", f"{self._path}/retry", repeatable=False)
        self._snapshot = await self._transport.read(call, self._kind)
        return self

    def _raise_for_state(self) -> None:
        errors = {"failed": Failed, "canceled": Canceled}
        if self.state in errors:
            raise errors[self.state](f"{self._noun} {self.id}", self.state, self.problem)

    async def _wait(self, deadline: Deadline) -> None:
        """Wait by long polls alone: without listeners to its events, the worker makes no previews."""
        while not self.ended and deadline.left_s > 0:
            await self._read(polling.WAIT_S, deadline)

    async def _watch(self, deadline: Deadline, report: Callable[[Document], object]) -> None:
        """Wait by events, with a report of every change."""
        report(self._snapshot)
        while not self.ended and deadline.left_s > 0:
            async with aclosing(follow(self._transport, self._path, self._kind, deadline)) as events:
                async for event in events:
                    await self._apply(event, deadline)
                    report(self._snapshot)
            await self._read(0.0, deadline)
            report(self._snapshot)

    async def _apply(self, event: Event | None, deadline: Deadline = NEVER) -> None:
        """Update the snapshot by an event; the final state is read as a whole, with its result."""
        if event is None and self.state == "queued":
            await self._read(0.0, deadline)  # for the position in the queue, which has no event
        elif isinstance(event, ProgressEvent):
            self._snapshot = cast(Document, self._snapshot.model_copy(update={"progress": event}))
        elif isinstance(event, StateEvent) and not event.final and event.state != self.state:
            left_queue = {"queue_position": None, "eta_s": None, "blocked": None}
            changes = {"state": event.state, "problem": event.problem, **left_queue}
            self._snapshot = cast(Document, self._snapshot.model_copy(update=changes))
