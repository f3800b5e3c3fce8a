"""One visualization as a client sees it: what it stands at, and what can be done, as coroutines."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from proxygrad.protocol.visualizations import Progress, Visualization
from proxygrad.spec import Role
from service.client import values
from service.client._async.events import BASE, Event, ProgressEvent, StateEvent, followed, look
from service.client._async.resource import Resource
from service.client._async.transport import Wire
from service.client.errors import Canceled, Failed, StillRunning
from service.client.files import ImageFormat, format_of, save
from service.client.progress import showing
from service.client.retries import Call

#: What `wait` takes: whether to show a bar, or what to call with the visualization as it stands.
Shown = bool | Callable[[Visualization], object]

#: One long poll; proxies commonly give up after 60 s.
POLL_S = 30.0


class Asked(Resource[Visualization]):
    """A question that the service knows, and the last that was heard of it."""

    base = BASE

    def __init__(self, wire: Wire, answer: Visualization, at_once: bool = False) -> None:
        super().__init__(wire, answer)
        self.at_once = at_once

    @classmethod
    async def ask(cls, wire: Wire, question: Mapping[str, Any], idempotency_key: str | None) -> Asked:
        """Submit it."""
        headers = (
            {} if idempotency_key is None else {"Idempotency-Key": values.idempotency_key(idempotency_key)}
        )
        call = Call("POST", BASE, json=values.document(question), headers=headers)
        response = await wire.answered(call)
        at_once = response.status_code == httpx.codes.OK
        return cls(wire, wire.document(response, Visualization), at_once)

    @classmethod
    async def get(cls, wire: Wire, visualization_id: str, wait_s: float) -> Asked:
        """One that was asked before."""
        call = look(values.segment("visualization_id", visualization_id), values.wait_s(wait_s))
        return cls(wire, await wire.read(call, Visualization))

    async def wait(self, progress: Shown, timeout_s: float | None, check: bool) -> None:
        """Until it has ended. Raises `StillRunning`, and with ``check`` what `check` raises."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        with showing(progress) as show:
            if show is None:
                await self._poll(until_s)
            else:
                await self._follow(until_s, show)
        if not self.answer.ended:
            raise StillRunning(
                f"visualization {self.answer.id} is still {self.answer.state} after {timeout_s:g} s"
            )
        if check:
            self.check()

    def check(self) -> None:
        """Raise `Failed` or `Canceled` where it has ended so."""
        kinds = {"failed": Failed, "canceled": Canceled}
        kind = kinds.get(self.answer.state)
        if kind is not None:
            raise kind(f"visualization {self.answer.id}", self.answer.state, self.answer.problem)

    async def _poll(self, until_s: float | None) -> None:
        """Nothing is shown, so nothing is asked for but the end: previews are not made for nobody."""
        while not self.answer.ended:
            left_s = POLL_S if until_s is None else min(POLL_S, until_s - time.monotonic())
            if left_s <= 0:
                return
            await self.refresh(left_s, until_s, patient=True)

    async def _follow(self, until_s: float | None, show: Callable[[Visualization], object]) -> None:
        show(self.answer)
        while not self.answer.ended and (until_s is None or time.monotonic() < until_s):
            events = followed(self.wire, self.answer.id, until_s)
            try:
                async for event in events:
                    await self._take(event, until_s)
                    show(self.answer)
            finally:
                await events.aclose()
            await self.refresh(until_s=until_s, patient=True)
            show(self.answer)

    async def _take(self, event: Event | None, until_s: float | None = None) -> None:
        """What an event changes; the end is read as a whole, with its result."""
        changes: dict[str, Any] = {}
        if event is None and self.answer.state == "queued":
            await self.refresh(
                until_s=until_s, patient=True
            )  # for its place in the queue, of which no event tells
        elif isinstance(event, ProgressEvent):
            changes = {"progress": Progress(step=event.step, steps=event.steps, activation=event.activation)}
        elif isinstance(event, StateEvent) and not event.final and event.state != self.answer.state:
            changes = {
                "state": event.state,
                "problem": event.problem,
                "queue_position": None,
                "eta_s": None,
                "blocked": None,
            }
        if changes:
            self.answer = self.answer.model_copy(update=changes)

    async def events(self) -> AsyncGenerator[Event, None]:
        """What happens, until it has ended; then `answer` is whole."""
        events = followed(self.wire, self.answer.id)
        try:
            async for event in events:
                await self._take(event)
                if isinstance(event, StateEvent) and event.final:
                    await self.refresh()
                if event is not None:
                    yield event
        finally:
            await events.aclose()

    async def image(self, number: int | None, form: ImageFormat, width_px: int | None) -> bytes:
        """A picture; None: the best, whose values the result tells."""
        if number is None:
            number = 0 if self.answer.result is None else self.answer.result.best
        call = Call("GET", f"{self.path}/images/{number}.{form}", {"width": width_px})
        return (await self.wire.answered(call)).content

    async def images(self, form: ImageFormat, width_px: int | None, role: Role | None) -> list[bytes]:
        """All pictures, or those of a role."""
        numbers = [
            number for number, image in enumerate(self.answer.images) if role is None or image.role == role
        ]
        return [await self.image(number, form, width_px) for number in numbers]

    async def save(self, path: str | Path, number: int | None, width_px: int | None) -> Path:
        """Write a picture to a file, in the form that its name says."""
        place = Path(path)
        return save(place, await self.image(number, format_of(place), width_px))

    async def retry(self) -> None:
        """Queue it again. Not repeated: what has failed once more meanwhile would be started once more."""
        call = Call("POST", f"{self.path}/retry", repeatable=False)
        self.answer = await self.wire.read(call, Visualization)
