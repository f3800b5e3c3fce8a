"""`/v1/visualizations/{id}/events`: server-sent events (WHATWG HTML, section 9.2) of one visualization.

The id of an event is its place in the job's stream, so that who was cut off goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.events import EVENTS
from proxygrad.protocol.problems import FieldError
from service.api.visualizations import JobId
from service.backend.event_hub import MISSED, RETRY_S, Subscription
from service.backend.gateway import Gateway, GatewayDep
from service.problems import ProblemError, problem_responses
from workers.jobs.repository import Event, Job, is_after, is_event_id, progress_event, state_event

router = APIRouter(prefix=VISUALIZATIONS, tags=["visualizations"])

#: A comment is sent after so many seconds without an event, so that proxies keep the connection.
HEARTBEAT_S = 15.0
#: What a browser waits before it connects again, in milliseconds.
RECONNECT_MS = 2000
KINDS = frozenset({"state", "progress", "preview", "withdrawn"})

_HEADERS = {"Cache-Control": "no-cache, no-store", "X-Accel-Buffering": "no"}
_SCHEMAS = "#/components/schemas/"
_DESCRIPTION = """\
Events until the end. `state` (`StateEvent`): the last one says `succeeded`, `failed` or `canceled`.
`progress` (`ProgressEvent`): at most four a second. `preview` (`PreviewEvent`): at most one a second, without
id."""


def _event(kind: str, data: type[BaseModel]) -> dict[str, Any]:
    content = {
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"{_SCHEMAS}{data.__name__}"},
    }
    fields = {"event": {"const": kind}, "data": {"type": "string", **content}, "id": {"type": "string"}}
    return {"type": "object", "required": ["event", "data"], "properties": fields}


#: As OpenAPI 3.2 has it, whose `itemSchema` is of one event; `schema` would be of them all.
_EVENT = {
    "oneOf": [_event(kind, data) for kind, data in EVENTS.items()],
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": _DESCRIPTION, "content": {"text/event-stream": {"itemSchema": _EVENT}}},
    204: {"description": "It has ended, and the caller knows: do not connect again."},
    **problem_responses(
        "unknown_visualization", "invalid_request", "redis_unavailable", "storage_unavailable"
    ),
}


class _Stream(StreamingResponse):
    """Closes its mailbox however it ends, also where it never began."""

    def __init__(self, content: AsyncIterator[str], mailbox: Subscription) -> None:
        super().__init__(content, headers=_HEADERS, media_type="text/event-stream")
        self._mailbox = mailbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._mailbox.close()


@router.get("/{job_id}/events", summary="Follow as it happens", response_class=Response, responses=_RESPONSES)
async def follow_visualization(
    job_id: JobId,
    gateway: GatewayDep,
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event that was seen: what came since is sent.")
    ] = None,
    last_event: Annotated[
        str | None, Query(alias="last_event_id", description="The same, where no header can be set.")
    ] = None,
) -> Response:
    """How it stands, and from then on what happens, until it ends.

    Whoever reads slowly misses progress, never a change of state.
    """
    after = last_event_id or last_event or None
    if after is not None and not is_event_id(after):
        where = ["header", "last-event-id"] if last_event_id else ["query", "last_event_id"]
        flaw = FieldError(location=[*where], detail="not the id of an event", value=after[:200])
        raise ProblemError("invalid_request", f"{'.'.join(where)}: not the id of an event", [flaw])
    await gateway.job(job_id)
    mailbox = await gateway.live.follow(job_id, KINDS)
    try:
        telling = _Telling(gateway, job_id, after)
        first = await telling.catch_up()
    except BaseException:
        mailbox.close()
        raise
    if telling.over and after is not None and not first:
        mailbox.close()
        return Response(status_code=204)
    return _Stream(_lines(telling, first, mailbox), mailbox)


class _Telling:
    """What has been told of a job, up to the event ``after``."""

    def __init__(self, gateway: Gateway, job_id: str, after: str | None) -> None:
        self.gateway = gateway
        self.over = False
        self._job_id = job_id
        self._after = after
        self._state = ""

    async def catch_up(self) -> list[Event]:
        """What is to be told now: to a beginner how the job stands, else what came since.

        Raises `RedisError`.
        """
        job, last, missed = await self.gateway.call(self.gateway.followed, self._job_id, self._after)
        if job is None:
            self.over = True
            return []
        known, self._after = self._after, last
        self.over = job.ended
        told = self._standing(job, last) if known is None else self._missed(job, missed, known != last)
        for event in told:
            self._remember(event)
        return told

    def _missed(self, job: Job, missed: list[Event], moved: bool) -> list[Event]:
        """Every change of state since, and the last progress; ``moved``: whether there is any event since."""
        now = state_event(job.state, _problem(job), None)
        progress = [event for event in missed if event.kind == "progress"][-1:]
        told = [event for event in missed if event.kind == "state" or event in progress]
        # The stream may have lost what lies far back, and a job may end as the caller sees it alone.
        if told and now.data != self._state and not any(event.kind == "state" for event in told):
            told.insert(0, now)
        if job.ended and (told or moved) and not (told and told[-1].final):
            told.append(state_event(job.state, _problem(job), self._after))
        return told

    def withdrawal(self, event: Event) -> Event | None:
        """The end of the stream where the caller itself has withdrawn: the job goes on for others."""
        if event.data != self.gateway.caller.name:
            return None
        self.over = True
        return state_event("canceled", None, self._after)

    def news(self, event: Event) -> bool:
        """Whether the event was not told yet; from now on it was."""
        if event.event_id is None:
            return True
        if self._after is not None and not is_after(event.event_id, self._after):
            return False
        self._after = event.event_id
        self.over = event.final
        self._remember(event)
        return True

    def _remember(self, event: Event) -> None:
        if event.kind == "state":
            self._state = event.data

    def _standing(self, job: Job, last: str) -> list[Event]:
        told = [state_event(job.state, _problem(job), last)]
        if job.state == "running" and job.step:
            told.append(progress_event(job.step, job.steps, job.activation, last))
        return told


async def _lines(telling: _Telling, first: list[Event], mailbox: Subscription) -> AsyncIterator[str]:
    yield f"retry: {RECONNECT_MS}\n\n"
    for event in first:
        yield _frame(event)
    while not telling.over and not telling.gateway.live.closing:
        item = await mailbox.next(HEARTBEAT_S)
        if item is None:
            yield ": nothing new\n\n"
        elif item == MISSED:
            try:
                missed = await telling.catch_up()
            except RedisError:
                await asyncio.sleep(RETRY_S)  # there is another gap as soon as Redis is back
                continue
            for event in missed:
                yield _frame(event)
        elif item.kind == "withdrawn":
            if (end := telling.withdrawal(item)) is not None:
                yield _frame(end)
        elif telling.news(item):
            yield _frame(item)


def _problem(job: Job) -> str | None:
    return None if job.problem is None else job.problem.model_dump_json()


def _frame(event: Event) -> str:
    head = "" if event.event_id is None else f"id: {event.event_id}\n"
    return f"{head}event: {event.kind}\ndata: {event.data}\n\n"
