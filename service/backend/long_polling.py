"""Long polling: waiting inside one request for the end of a job or batch.

`?wait=N` for reads, `Prefer: wait=N` (RFC 7240) for submissions. A wait is a coroutine that is woken by
events (`service.backend.event_hub`) and holds no thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, Any, Literal, Protocol, TypeVar

from fastapi import Header, Query, Request

from proxygrad.protocol.problems import FieldError
from service.backend.event_hub import EventHub, TooManyFollowers
from service.problems import ProblemError
from service.web.validation import shortened
from workers.jobs.repository import Event

#: Longest wait inside one request, in seconds: below the 60 s after which common proxies give up.
MAX_WAIT_S = 60
#: `Retry-After` of what has not ended, in seconds: a small network takes about one.
RETRY_AFTER_S = 1
#: A wait ends with an event. This often it also looks by itself, and whether the client is still connected.
WAIT_LOOK_S = 5.0

Wait = Annotated[
    float,
    Query(
        ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end; responds earlier if it ends earlier."
    ),
]
_PREFER = f"`wait=N`: seconds to wait for the end, up to {MAX_WAIT_S}."
Prefer = Annotated[str | None, Header(description=_PREFER)]


def header_parameter(name: str, description: str, **bounds: int) -> dict[str, Any]:
    """The OpenAPI parameter of a header that a route reads itself, which saves 10 µs in FastAPI."""
    schema = {"anyOf": [{"type": "string", **bounds}, {"type": "null"}], "description": description}
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


#: `Prefer` for a route that reads it itself.
PREFER = header_parameter("prefer", _PREFER)

#: Response headers, for OpenAPI.
RETRY_AFTER: dict[str, Any] = {
    "description": "Seconds after which to poll again.",
    "schema": {"type": "integer"},
}
PREFERENCE_APPLIED: dict[str, Any] = {
    "description": "The wait that was honored (RFC 7240).",
    "schema": {"type": "string"},
}

#: What woke a wait: an event, events that may have been missed, or a timeout.
Wake = Event | Literal["gap"] | None


class _Ending(Protocol):
    @property
    def ended(self) -> bool: ...


T = TypeVar("T", bound=_Ending)


def preferred_wait_s(prefer: str | None) -> int | None:
    """The `wait` of a `Prefer` header (RFC 7240), at most `MAX_WAIT_S`; `None` when it has none.

    Raises `ProblemError` with `invalid_request` for a `wait` that is no whole number of seconds.
    """
    for preference in (prefer or "").split(","):
        name, equals, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() != "wait":
            continue
        seconds = value.strip().strip('"')
        if seconds.isascii() and seconds.isdecimal():
            return MAX_WAIT_S if len(seconds) > 9 else min(int(seconds), MAX_WAIT_S)
        given = f"not {shortened(seconds)!r}" if equals else "and none was given"
        detail = f"wait should be a whole number of seconds, such as wait=10, {given}"
        field_error = FieldError(location=["header", "prefer"], detail=detail, value=shortened(prefer or ""))
        field_error.minimum, field_error.maximum = 0, MAX_WAIT_S
        raise ProblemError("invalid_request", f"header.prefer: {detail}", [field_error])
    return None


async def until_ended(
    current: T,
    subject_id: str,
    look: Callable[[Wake], Awaitable[T]],
    events: EventHub,
    wait_s: float,
    request: Request,
    caller: str,
    *,
    kinds: Collection[str] = frozenset({"state"}),
) -> T:
    """The job or batch once it has ended, or as it is after ``wait_s`` or when the client disconnects.

    ``current``: as it was just read. Events of ``subject_id`` of these ``kinds`` wake the wait; ``look`` is
    given what woke it, and reads anew. Where ``caller`` may follow no more, the wait is short.
    """
    if current.ended or wait_s <= 0:
        return current
    deadline_s = time.monotonic() + wait_s
    try:
        subscription = await events.follow(subject_id, kinds, caller)
    except TooManyFollowers:
        await asyncio.sleep(min(wait_s, RETRY_AFTER_S))
        return await look(None)
    try:
        current = await look(None)  # it may have ended before the subscription
        while not current.ended and not events.closing:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or await request.is_disconnected():
                break
            current = await look(await subscription.next(min(left_s, WAIT_LOOK_S)))
    finally:
        subscription.close()
    return current
