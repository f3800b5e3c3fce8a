"""Follows a job by its stream of server-sent events.

A stream that breaks off is resumed after the last event received. Where streams are unavailable, for example
behind a proxy that buffers them, long polls report state and progress instead.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

import httpx
from pydantic import ValidationError

from proxygrad.client import polling
from proxygrad.client._async.transport import AsyncTransport
from proxygrad.client.errors import ServiceUnreachable, unreadable
from proxygrad.client.polling import NEVER, Deadline, long_poll
from proxygrad.client.retries import ApiCall
from proxygrad.client.sse import Decoder, Frame
from proxygrad.protocol.attributions import Attribution
from proxygrad.protocol.events import Event, ProgressEvent, StateEvent
from proxygrad.protocol.visualizations import Visualization

#: The documents of jobs, of every kind.
Document = TypeVar("Document", bound=Visualization | Attribution)


async def follow(
    transport: AsyncTransport, path: str, document: type[Document], deadline: Deadline = NEVER
) -> AsyncGenerator[Event | None]:
    """Events of the job at ``path`` until its end or the deadline; None for a sign of life without an event.

    ``document``: the type of the job's document.

    Raises `ServiceError` if the service refuses, or stays unreachable for as long as calls are repeated.
    """
    decoder, empty, state = Decoder(), 0, ""
    while empty < polling.MAX_EMPTY_STREAMS and deadline.listen_s >= polling.SHORTEST_S:
        empty += 1
        async with aclosing(_stream(transport, path, decoder, deadline)) as stream:
            async for event in stream:
                empty = empty if event is None else 0
                state = event.state if isinstance(event, StateEvent) else state
                yield event
                if isinstance(event, StateEvent) and event.final:
                    return
        # The stream broke off, or there was none. This call waits until the service is back, or raises.
        await transport.sleep(transport.retry_policy.jittered(polling.RECONNECT_S))
        seen = await transport.read(long_poll(path, 0, deadline), document)
        if seen.ended:
            yield StateEvent(state=seen.state, problem=seen.problem)
            return
    async with aclosing(_poll(transport, path, document, state, deadline)) as polled:
        async for event in polled:
            yield event


async def _stream(
    transport: AsyncTransport, path: str, decoder: Decoder, deadline: Deadline
) -> AsyncGenerator[Event | None]:
    """The events of one stream, until it ends, breaks off or is silent for too long."""
    listen_s = deadline.listen_s
    headers = {"Accept": "text/event-stream"}
    if decoder.last_id is not None:
        headers["Last-Event-ID"] = decoder.last_id
    response = await _open(transport, ApiCall("GET", f"{path}/events", headers=headers, silence_s=listen_s))
    if response is None:
        return
    try:
        async with aclosing(transport.chunks(response)) as chunks:
            async for chunk in chunks:
                frames = [*decoder.frames(chunk)]
                for frame in frames:
                    event = _event(frame, transport)
                    if event is not None:
                        yield event
                if not frames:
                    yield None
                if deadline.left_s < listen_s:
                    return
    except ServiceUnreachable:
        return
    finally:
        decoder.reset()
        await transport.close_stream(response)


async def _open(transport: AsyncTransport, call: ApiCall) -> httpx.Response | None:
    """An open stream; None if the response is none, or there is no response."""
    try:
        response = await transport.send(call, stream=True)
    except ServiceUnreachable:
        return None
    media_type = response.headers.get("content-type", "")
    if response.status_code == httpx.codes.OK and media_type.startswith("text/event-stream"):
        return response
    await transport.close_stream(response)
    return None


def _event(frame: Frame, transport: AsyncTransport) -> Event | None:
    try:
        return frame.event()
    except ValidationError as error:
        raise unreadable(transport.address, httpx.codes.OK) from error


async def _poll(
    transport: AsyncTransport, path: str, document: type[Document], state: str, deadline: Deadline
) -> AsyncGenerator[Event]:
    """State and progress as events whenever a long poll shows a change; ``state``: the last one known."""
    progress = None
    while True:
        seen = await transport.read(long_poll(path, polling.WATCH_S, deadline), document)
        if seen.state != state:
            state = seen.state
            yield StateEvent(state=seen.state, problem=seen.problem)
        if seen.ended:
            return
        if seen.progress != progress and seen.progress.step:
            progress = seen.progress
            yield ProgressEvent(**progress.model_dump())
        if deadline.left_s <= 0:
            return
