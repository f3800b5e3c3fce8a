"""Waiting inside one request for the end of what it is about: how it is asked for, and how it is done.

`?wait=N` where something is read, `Prefer: wait=N` (RFC 7240) where it is asked for. A wait is a coroutine
that is woken by what happens (`service.backend.event_hub`) and holds no thread.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, Any, Literal, Protocol, TypeVar

from fastapi import Header, Query, Request

from service.backend.event_hub import EventHub
from workers.jobs.repository import Event

#: Longest wait inside one request, in seconds: below the 60 s after which common proxies give up.
MAX_WAIT_S = 60
#: Seconds after which a caller should look again: a small network answers in about one.
RETRY_AFTER_S = 1
#: Who waits is told of the end. This often it is looked at all the same, and whether the caller is there
#: still.
WAIT_LOOK_S = 5.0

Wait = Annotated[
    float,
    Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end; answers earlier when it comes."),
]
_PREFER = f"`wait=N`: seconds to wait for the end, up to {MAX_WAIT_S}."
Prefer = Annotated[str | None, Header(description=_PREFER)]


def header_parameter(name: str, description: str, **bounds: int) -> dict[str, Any]:
    """A header that a route reads itself, as OpenAPI has it. FastAPI takes 10 µs to read one."""
    schema = {"anyOf": [{"type": "string", **bounds}, {"type": "null"}], "description": description}
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


#: The header for a route that reads it itself.
PREFER = header_parameter("prefer", _PREFER)

#: Headers of answers, as OpenAPI has them.
RETRY_AFTER: dict[str, Any] = {
    "description": "Seconds after which to look again.",
    "schema": {"type": "integer"},
}
PREFERENCE_APPLIED: dict[str, Any] = {
    "description": "The wait that was honored (RFC 7240).",
    "schema": {"type": "string"},
}

#: What woke a wait: something that happened, perhaps something missed, or the time.
Heard = Event | Literal["gap"] | None


class _Ending(Protocol):
    @property
    def ended(self) -> bool: ...


T = TypeVar("T", bound=_Ending)


def preferred_wait_s(prefer: str | None) -> int | None:
    """The `wait` of a `Prefer` header (RFC 7240), at most `MAX_WAIT_S`; `None` when it has none."""
    for preference in (prefer or "").split(","):
        found = re.fullmatch(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*(;.*)?', preference, re.IGNORECASE)
        if found:
            return min(int(found[1]), MAX_WAIT_S)
    return None


async def until_ended(
    seen: T,
    name: str,
    look: Callable[[Heard], Awaitable[T]],
    live: EventHub,
    wait_s: float,
    request: Request,
    *,
    kinds: Collection[str] = frozenset({"state"}),
) -> T:
    """``seen``, or what ``look`` finds once it has ended, after ``wait_s`` or with the caller gone.

    ``name``: the id whose events of these ``kinds`` wake it; ``look`` is given what it was woken by.
    """
    if seen.ended or wait_s <= 0:
        return seen
    deadline_s = time.monotonic() + wait_s
    mailbox = await live.follow(name, kinds)
    try:
        seen = await look(None)  # it may have ended before we followed
        while not seen.ended and not live.closing:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or await request.is_disconnected():
                break
            seen = await look(await mailbox.next(min(left_s, WAIT_LOOK_S)))
    finally:
        mailbox.close()
    return seen
