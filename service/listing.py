"""`GET /v1/visualizations`: what was asked lately, the newest first, a page at a time.

It lists what Redis remembers: what waits, what runs, and what ended within the last week. An older answer is
found by asking its question.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from service.answers import Summary
from service.cursors import cursor_of, entry_of
from service.gateway import GatewayDep
from service.problems import documented
from workers.jobs import Entry, Job, State

router = APIRouter(prefix="/v1/visualizations", tags=["visualizations"])

DEFAULT_LIMIT, MAX_LIMIT = 50, 200
#: Values of one filter.
MAX_CHOICES = 50
#: Records looked at for one page: with filters that fit few of them a page is shorter than asked for.
MOST_LOOKED_AT = 1000


class PageLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This page.")
    next: str | None = Field(description="The next page, of older ones; `null` on the last.")


class Page(BaseModel):
    """Some of what was asked, the newest first."""

    visualizations: list[Summary] = Field(
        description=f"At most `limit`. A page looks at {MOST_LOOKED_AT} records at most, so with filters it "
        "may be shorter, even empty, and still have a next one."
    )
    links: PageLinks = Field(description="Where to go on.")


def _filter(kind: str) -> Any:
    return Query(
        default_factory=list, max_length=MAX_CHOICES, description=f"Only of these {kind}; repeatable."
    )


@router.get(
    "",
    summary="List, newest first",
    responses=documented("invalid_request", "redis_unavailable"),
)
async def list_visualizations(
    gateway: GatewayDep,
    response: Response,
    model: Annotated[list[str], _filter("models")],
    layer: Annotated[list[str], _filter("layers")],
    state: Annotated[list[State], _filter("states")],
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most of one page.")] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(max_length=200, description="From `links.next`; has no meaning of its own.")
    ] = None,
) -> Page:
    """What waits, what runs and what ended within a week, by when it was last asked for anew."""
    last = None if cursor is None else entry_of(cursor)

    def look() -> tuple[list[Job], Entry | None]:
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
    links = PageLinks(
        self=_path([*query, ("cursor", cursor)] if cursor else query),
        next=None if end is None else _path([*query, ("cursor", cursor_of(end))]),
    )
    return Page(visualizations=[Summary.of(job, router.prefix) for job in jobs], links=links)


def _path(query: list[tuple[str, str]]) -> str:
    return f"{router.prefix}?{urlencode(query)}"
