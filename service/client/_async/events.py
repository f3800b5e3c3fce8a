"""What happens to a visualization, as events, from the server's stream of them.

A stream that breaks off is taken up again after the last event that came. Where none can be had, as behind a
proxy that holds it back, long polls tell of state and progress instead.
"""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import httpx
from pydantic import TypeAdapter, ValidationError

from proxygrad.protocol.problems import Problem
from proxygrad.protocol.visualizations import State, Visualization
from service.client._async.transport import Wire
from service.client.errors import ServiceUnreachable, unreadable
from service.client.retries import JITTER, Call
from service.client.sse import Decoder, Frame

BASE = "/v1/visualizations"

#: A stream without a sign for so long is dead: the service sends a comment every 15 s.
SILENCE_S = 40.0
#: The shortest time that a stream is listened to where there is a deadline; less is spent in one long poll.
SHORTEST_S = 1.0
#: Before another stream is opened; less a part by chance.
RECONNECT_S = 0.5
#: Streams in a row that bring nothing before long polls take over.
MOST_BARREN = 2
#: How long one of those waits, as it is what progress is seen by.
POLL_S = 1.0


@dataclass(frozen=True)
class StateEvent:
    """It is in another state; ``problem`` says why it failed or was canceled."""

    state: State
    problem: Problem | None

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self.state not in ("queued", "running")


@dataclass(frozen=True)
class ProgressEvent:
    """So many steps are done; ``activation``: the unit's when last seen."""

    step: int
    steps: int
    activation: float | None


@dataclass(frozen=True)
class PreviewEvent:
    """The image after ``step`` steps, as a PNG of 128 px at most."""

    step: int
    media_type: str
    data: bytes


Event = StateEvent | ProgressEvent | PreviewEvent

_STATE = TypeAdapter(StateEvent)
_PROGRESS = TypeAdapter(ProgressEvent)


def event_of(frame: Frame) -> Event | None:
    """The event; None for a kind that is newer than this client. Raises `ValueError`."""
    if frame.kind == "state":
        return _STATE.validate_json(frame.data)
    if frame.kind == "progress":
        return _PROGRESS.validate_json(frame.data)
    if frame.kind == "preview":
        found = json.loads(frame.data)
        return PreviewEvent(int(found["step"]), str(found["media_type"]), base64.b64decode(found["data"]))
    return None


async def followed(
    wire: Wire, visualization_id: str, until_s: float | None = None
) -> AsyncGenerator[Event | None, None]:
    """Every event until the end, or until `time.monotonic()` is ``until_s``; None for a sign of life alone.

    Raises `ServiceError` when the service refuses, or cannot be reached for as long as it is tried.
    """
    decoder, barren, state = Decoder(), 0, ""
    while barren < MOST_BARREN and _listen_s(until_s) >= SHORTEST_S:
        barren += 1
        stream = _streamed(wire, visualization_id, decoder, until_s)
        try:
            async for event in stream:
                barren = barren if event is None else 0
                state = event.state if isinstance(event, StateEvent) else state
                yield event
                if isinstance(event, StateEvent) and event.final:
                    return
        finally:
            await stream.aclose()
        # It broke off, or there was none. This look waits for the service to be back, and says why not.
        await wire.pause(RECONNECT_S * (1 - JITTER * wire.patience.chance()))
        seen = await wire.read(look(visualization_id, 0, until_s, patient=True), Visualization)
        if seen.ended:
            yield StateEvent(seen.state, seen.problem)
            return
    polled = _polled(wire, visualization_id, state, until_s)
    try:
        async for event in polled:
            yield event
    finally:
        await polled.aclose()


def _listen_s(until_s: float | None) -> float:
    """How long a stream may be silent: half of what is left at most, so that the deadline is kept."""
    return SILENCE_S if until_s is None else min(SILENCE_S, (until_s - time.monotonic()) / 2)


async def _streamed(
    wire: Wire, visualization_id: str, decoder: Decoder, until_s: float | None
) -> AsyncGenerator[Event | None, None]:
    """What one stream brings until it ends or breaks off; nothing where there can be none."""
    listen_s = _listen_s(until_s)
    headers = {"Accept": "text/event-stream"}
    if decoder.last_id is not None:
        headers["Last-Event-ID"] = decoder.last_id
    call = Call("GET", f"{BASE}/{visualization_id}/events", headers=headers, silence_s=listen_s)
    response = await _opened(wire, call)
    if response is None:
        return
    chunks = wire.chunks(response)
    try:
        async for chunk in chunks:
            frames = [*decoder.frames(chunk)]
            for frame in frames:
                event = _checked(frame, wire)
                if event is not None:
                    yield event
            if not frames:
                yield None
            if until_s is not None and until_s - time.monotonic() < listen_s:
                return
    except ServiceUnreachable:
        return
    finally:
        decoder.forget()
        await chunks.aclose()
        await wire.close(response)


async def _opened(wire: Wire, call: Call) -> httpx.Response | None:
    """A stream of events; None where something else came, or nothing."""
    try:
        response = await wire.send(call, stream=True)
    except ServiceUnreachable:
        return None
    kind = response.headers.get("content-type", "")
    if response.status_code == httpx.codes.OK and kind.startswith("text/event-stream"):
        return response
    await wire.close(response)
    return None


def _checked(frame: Frame, wire: Wire) -> Event | None:
    try:
        return event_of(frame)
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise unreadable(wire.address, httpx.codes.OK) from error


async def _polled(
    wire: Wire, visualization_id: str, state: str, until_s: float | None
) -> AsyncGenerator[Event, None]:
    """State and progress, whenever they have changed; ``state``: the one that is known."""
    progress = None
    while True:
        left_s = POLL_S if until_s is None else max(0.0, min(POLL_S, until_s - time.monotonic()))
        call = look(visualization_id, left_s, until_s, patient=True)
        seen = await wire.read(call, Visualization)
        now = ProgressEvent(seen.progress.step, seen.progress.steps, seen.progress.activation)
        if seen.state != state:
            state = seen.state
            yield StateEvent(seen.state, seen.problem)
        if seen.ended:
            return
        if now != progress and now.step:
            progress = now
            yield now
        if until_s is not None and time.monotonic() >= until_s:
            return


def look(
    visualization_id: str, wait_s: float = 0.0, until_s: float | None = None, *, patient: bool = False
) -> Call:
    """How it stands, at its end or after ``wait_s`` seconds, of which there may be 60."""
    return waiting(f"{BASE}/{visualization_id}", wait_s, until_s, patient=patient)


def waiting(path: str, wait_s: float, until_s: float | None, *, patient: bool) -> Call:
    """A long poll; tried until `time.monotonic()` is ``until_s`` at most."""
    params = {"wait": round(wait_s, 3)} if wait_s > 0 else {}
    within_s = math.inf if until_s is None else until_s - time.monotonic()
    return Call("GET", path, params, wait_s=max(0.0, wait_s), within_s=within_s, patient=patient)
