"""`GET /v1/visualizations`: what was asked lately, the newest first, a page at a time.

It lists what Redis remembers: what waits, what runs, and what ended within the last week. An older answer is
found by asking its question.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from service.backend.gateway import GatewayDep
from service.problems import problem_responses
from service.schemas.pagination import PageLinks
from service.schemas.visualizations import Summary
from service.web.pagination import DEFAULT_LIMIT, MOST_LOOKED_AT, Cursor, Limit, cursor_of, entry_of, only
from workers.jobs.repository import IndexEntry, Job, State

router = APIRouter(prefix="/v1/visualizations", tags=["visualizations"])


class VisualizationPage(BaseModel):
    """Some of what was asked, the newest first."""

    visualizations: list[Summary] = Field(
        description=f"At most `limit`. A page looks at {MOST_LOOKED_AT} records at most, so with filters it "
        "may be shorter, even empty, and still have a next one."
    )
    links: PageLinks = Field(description="Where to go on.")


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
        return gateway.jobs.recent(last, limit, MOST_LOOKED_AT, fits, caller=own)

    jobs, end = await gateway.call(look)
    asked = [("model", each) for each in model] + [("layer", each) for each in layer]
    query = [*asked, *(("state", each) for each in state), ("limit", str(limit))]
    response.headers["Cache-Control"] = "no-store"
    links = PageLinks.of(router.prefix, query, cursor, None if end is None else cursor_of(end))
    return VisualizationPage(visualizations=[Summary.of(job, router.prefix) for job in jobs], links=links)
