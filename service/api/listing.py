"""`GET /v1/visualizations`: what was asked lately, the newest first, a page at a time.

It lists what Redis remembers: what waits, what runs, and what ended within the last week. An older answer is
found by asking its question.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response

from proxygrad.protocol.addresses import VISUALIZATIONS
from proxygrad.protocol.pagination import DEFAULT_LIMIT, MAX_SCANNED
from proxygrad.protocol.visualizations import State, VisualizationPage
from service.backend.documents import visualization_summary
from service.backend.gateway import GatewayDep
from service.problems import problem_responses
from service.web.pagination import Cursor, Limit, cursor_of, entry_of, only, page_links
from workers.jobs.repository import IndexEntry, Job

router = APIRouter(prefix=VISUALIZATIONS, tags=["visualizations"])


@router.get(
    "",
    summary="List, newest first",
    responses=problem_responses("invalid_request", "redis_unavailable"),
)
async def list_visualizations(
    gateway: GatewayDep,
    response: Response,
    model: Annotated[list[str], only("of these models")],
    layer: Annotated[list[str], only("of these layers")],
    state: Annotated[list[State], only("of these states")],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> VisualizationPage:
    """What waits, what runs and what ended within a week, by when it was last asked for anew."""
    last = None if cursor is None else entry_of(cursor)

    def look() -> tuple[list[Job], IndexEntry | None]:
        def fits(job: Job) -> bool:
            asked = job.spec
            return (
                (not model or asked.model in model)
                and (not layer or asked.layer in layer)
                and (not state or job.state in state)
            )

        own = None if gateway.caller.sees_all else gateway.caller.name
        return gateway.jobs.recent(last, limit, MAX_SCANNED, fits, caller=own)

    jobs, end = await gateway.call(look)
    asked = [("model", each) for each in model] + [("layer", each) for each in layer]
    query = [*asked, *(("state", each) for each in state), ("limit", str(limit))]
    response.headers["Cache-Control"] = "no-store"
    links = page_links(VISUALIZATIONS, query, cursor, None if end is None else cursor_of(end))
    return VisualizationPage(visualizations=[visualization_summary(job) for job in jobs], links=links)
