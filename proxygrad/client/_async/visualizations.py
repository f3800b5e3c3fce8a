"""A visualization: its last known state, and what can be done with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Self

from proxygrad.client import polling
from proxygrad.client._async.events import follow
from proxygrad.client._async.resource import AsyncResource
from proxygrad.client._async.transport import AsyncTransport
from proxygrad.client.errors import Canceled, Failed, StillRunning
from proxygrad.client.files import ImageFormat, image_format, save
from proxygrad.client.polling import NEVER, Deadline
from proxygrad.client.progress import reporting
from proxygrad.client.retries import ApiCall
from proxygrad.protocol import visualizations as documents
from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.events import Event, ProgressEvent, StateEvent
from proxygrad.protocol.jobs import Progress, State
from proxygrad.spec import Result, Role, Spec


class AsyncVisualization(AsyncResource[documents.Visualization]):
    """A visualization. Not shared between threads.

    Every method raises `ServiceError`; `proxygrad.client.errors` lists its subclasses.
    """

    _base = VISUALIZATIONS

    def __init__(
        self, transport: AsyncTransport, snapshot: documents.Visualization, *, cached: bool = False
    ) -> None:
        super().__init__(transport, snapshot)
        self._cached = cached

    @property
    def state(self) -> State:
        """`queued`, `running`, `succeeded`, `failed` or `canceled`."""
        return self._snapshot.state

    @property
    def spec(self) -> Spec:
        """What is visualized, with every default that depends on the model."""
        return self._snapshot.spec

    @property
    def progress(self) -> Progress:
        """Gradient steps done so far."""
        return self._snapshot.progress

    @property
    def result(self) -> Result:
        """Measurements of the images.

        Raises `Failed` or `Canceled`, and `LookupError` before it has ended.
        """
        self._raise_for_state()
        if self._snapshot.result is None:
            raise LookupError(f"visualization {self.id} is {self.state}: wait for its result")
        return self._snapshot.result

    @property
    def cached(self) -> bool:
        """Whether the result was in the store when it was requested: nothing was computed."""
        return self._cached

    async def wait(
        self,
        progress: bool | Callable[[documents.Visualization], object] = False,
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
            raise StillRunning(f"visualization {self.id} is still {self.state} after {timeout_s:g} s")
        if check:
            self._raise_for_state()
        return self

    async def events(self) -> AsyncGenerator[Event]:
        """Events as they happen, until the end; resumed when a connection breaks off."""
        async with aclosing(follow(self._transport, self.id)) as events:
            async for event in events:
                await self._apply(event)
                if isinstance(event, StateEvent) and event.final:
                    await self.refresh()
                if event is not None:
                    yield event

    async def image(
        self, number: int | None = None, *, format: ImageFormat = "png", width: int | None = None
    ) -> bytes:
        """An image file; by default of the best image, whose measurements are those of `result`.

        ``width``: 32 to 512 px, of a smaller PNG or WebP.

        NPY is float32 (channels, rows, columns) in 0 to 1: ``numpy.load(io.BytesIO(...))``.
        """
        if number is None:
            number = 0 if self._snapshot.result is None else self._snapshot.result.best
        call = ApiCall("GET", f"{self._path}/images/{number}.{format}", {"width": width})
        return (await self._transport.request(call)).content

    async def images(
        self, *, role: Role | None = None, format: ImageFormat = "png", width: int | None = None
    ) -> list[bytes]:
        """All image files, by number; ``role``: only the `proxygrad` or the `baseline` images."""
        roles = [image.role for image in self._snapshot.images]
        numbers = [number for number, own in enumerate(roles) if role in (None, own)]
        return [await self.image(number, format=format, width=width) for number in numbers]

    async def save(self, path: str | Path, number: int | None = None, *, width: int | None = None) -> Path:
        """Write an image to a file, atomically; by default the best. The suffix .png, .webp or .npy decides.

        Raises `SaveError`.
        """
        path = Path(path)
        return save(path, await self.image(number, format=image_format(path), width=width))

    async def retry(self) -> Self:
        """Queue it again if it has failed or was canceled. Raises `Conflict` if it has succeeded."""
        # Not repeatable: if it has failed again meanwhile, that would start it again.
        call = ApiCall("POST", f"{self._path}/retry", repeatable=False)
        self._snapshot = await self._transport.read(call, self._kind)
        return self

    def _raise_for_state(self) -> None:
        errors = {"failed": Failed, "canceled": Canceled}
        if self.state in errors:
            raise errors[self.state](f"visualization {self.id}", self.state, self.problem)

    async def _wait(self, deadline: Deadline) -> None:
        """Wait by long polls alone: without listeners to its events, the worker makes no previews."""
        while not self.ended and deadline.left_s > 0:
            await self._read(polling.WAIT_S, deadline)

    async def _watch(self, deadline: Deadline, report: Callable[[documents.Visualization], object]) -> None:
        """Wait by events, with a report of every change."""
        report(self._snapshot)
        while not self.ended and deadline.left_s > 0:
            async with aclosing(follow(self._transport, self.id, deadline)) as events:
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
            self._snapshot = self._snapshot.model_copy(update={"progress": event})
        elif isinstance(event, StateEvent) and not event.final and event.state != self.state:
            left_queue = {"queue_position": None, "eta_s": None, "blocked": None}
            changes = {"state": event.state, "problem": event.problem, **left_queue}
            self._snapshot = self._snapshot.model_copy(update=changes)
