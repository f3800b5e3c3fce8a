"""`/v1/visualizations/{id}/events`: server-sent events (WHATWG HTML, section 9.2) of one visualization."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.events import EVENTS
from proxygrad.protocol.problems import FieldError
from service.api.dependencies import SessionDep
from service.api.visualizations import JobId
from service.backend.event_hub import Subscription
from service.backend.event_stream import EventStream
from service.problems import ProblemError, problem_responses
from workers.jobs.repository import is_event_id

router = APIRouter(prefix=VISUALIZATIONS, tags=["visualizations"])

#: Kinds of events that end up in the stream.
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
_EVENT = {"oneOf": [_event(kind, data) for kind, data in EVENTS.items()]}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": _DESCRIPTION, "content": {"text/event-stream": {"itemSchema": _EVENT}}},
    204: {"description": "Ended, and every event was received: do not reconnect."},
    **problem_responses(
        "unknown_visualization", "invalid_request", "redis_unavailable", "storage_unavailable"
    ),
}


class _StreamingResponse(StreamingResponse):
    """A response that closes its subscription however it ends, also where it never began."""

    def __init__(self, content: AsyncIterator[str], subscription: Subscription) -> None:
        super().__init__(content, headers=_HEADERS, media_type="text/event-stream")
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._subscription.close()


@router.get(
    "/{job_id}/events", summary="Follow a visualization", response_class=Response, responses=_RESPONSES
)
async def follow_visualization(
    job_id: JobId,
    session: SessionDep,
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event received: those after it are sent.")
    ] = None,
    last_event: Annotated[
        str | None, Query(alias="last_event_id", description="The same, for clients that cannot set headers.")
    ] = None,
) -> Response:
    """Its state now, and events from then on until it ends.

    A slow reader misses progress, never a change of state.
    """
    after = last_event_id or last_event or None
    if after is not None and not is_event_id(after):
        where = ["header", "last-event-id"] if last_event_id else ["query", "last_event_id"]
        field_error = FieldError(location=[*where], detail="not the id of an event", value=after[:200])
        raise ProblemError("invalid_request", f"{'.'.join(where)}: not the id of an event", [field_error])
    await session.job(job_id)
    subscription = await session.backend.events.follow(job_id, KINDS)
    try:
        stream = EventStream(session, job_id, after)
        first = await stream.catch_up()
    except BaseException:
        subscription.close()
        raise
    if stream.over and after is not None and not first:
        subscription.close()
        return Response(status_code=204)
    return _StreamingResponse(stream.lines(first, subscription), subscription)
