"""`/v1/visualizations/{id}/events`: server-sent events (WHATWG HTML, section 9.2) of one visualization."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.events import EVENTS
from service.api import jobs
from service.api.visualizations import VisualizationId, VisualizationSession
from service.problems import problem_responses

router = APIRouter(prefix=VISUALIZATIONS, tags=["visualizations"])

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
STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": _DESCRIPTION, "content": {"text/event-stream": {"itemSchema": _EVENT}}},
    204: {"description": "Ended, and every event was received: do not reconnect."},
}
_RESPONSES = {
    **STREAM_RESPONSES,
    **problem_responses(
        *("unknown_visualization", "unreadable_record", "invalid_request", "too_many_streams"),
        *("redis_unavailable", "storage_unavailable"),
    ),
}

LastEventHeader = Annotated[
    str | None, Header(description="The id of the last event received: those after it are sent.")
]
LastEventQuery = Annotated[
    str | None, Query(alias="last_event_id", description="The same, for clients that cannot set headers.")
]


@router.get(
    "/{visualization_id}/events",
    summary="Follow a visualization",
    response_class=Response,
    responses=_RESPONSES,
)
async def follow_visualization(
    visualization_id: VisualizationId,
    session: VisualizationSession,
    last_event_id: LastEventHeader = None,
    last_event: LastEventQuery = None,
) -> Response:
    """Its state now, and events from then on until it ends.

    A slow reader misses progress, never a change of state.
    """
    return await jobs.follow(session, visualization_id, last_event_id, last_event)
