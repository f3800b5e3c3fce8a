"""`GET /v1/batches`, and the units of one batch: lists, a page at a time."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from service import visualizations
from service.batch_answers import Batch, BatchPage, BatchUnit, BatchUnitPage
from service.batches import PREFIX, BatchId, visible
from service.gateway import GatewayDep
from service.list_queries import DEFAULT_LIMIT, Cursor, Limit, cursor_of, entry_of, only
from service.pages import PageLinks
from service.problems import documented
from workers.batches import Unit
from workers.jobs import State as JobState

DEFAULT_UNITS, MAX_UNITS = 100, 1000

router = APIRouter(prefix=PREFIX, tags=["batches"])

State = Annotated[
    list[Literal["waiting", JobState]],  # one list of values, so that a flaw names them all
    only("units in these states", most=10),
]


@router.get(
    "",
    summary="List batches, newest first",
    responses=documented("invalid_request", "redis_unavailable"),
)
async def list_batches(
    gateway: GatewayDep,
    response: Response,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> BatchPage:
    """The caller's batches, by when they were last asked for; each is kept for a week after its end."""
    last = None if cursor is None else entry_of(cursor)
    caller = None if gateway.caller.sees_all else gateway.caller.name
    found = await gateway.call(lambda: gateway.batches.recent(last, limit, caller=caller))
    following = cursor_of(found[-1][0]) if len(found) == limit else None
    response.headers["Cache-Control"] = "no-store"
    return BatchPage(
        batches=[Batch.of(batch, PREFIX, briefly=True) for _, batch in found],
        links=PageLinks.of(PREFIX, [("limit", str(limit))], cursor, following),
    )


@router.get(
    "/{batch_id}/visualizations",
    summary="Its units, in their order",
    responses=documented("unknown_batch", "invalid_request", "redis_unavailable"),
)
async def list_batch_visualizations(
    batch_id: BatchId,
    gateway: GatewayDep,
    response: Response,
    state: State,
    limit: Annotated[int, Query(ge=1, le=MAX_UNITS, description="Most units of one page.")] = DEFAULT_UNITS,
    cursor: Annotated[
        int, Query(ge=0, lt=2**31, description="From `links.next`: how many units come before the page.")
    ] = 0,
) -> BatchUnitPage:
    """Where each unit stands, and the visualization that answers it."""
    batch = await visible(batch_id, gateway)

    def fits(unit: Unit) -> bool:
        return not state or unit.state in state

    found, following = await gateway.call(gateway.batches.page, batch, cursor, limit, fits)
    response.headers["Cache-Control"] = "no-store"
    here = [*(("state", each) for each in state), ("limit", str(limit))]
    return BatchUnitPage(
        visualizations=[BatchUnit.of(unit, visualizations.router.prefix) for unit in found],
        links=PageLinks.of(
            f"{PREFIX}/{batch_id}/visualizations",
            here,
            str(cursor) if cursor else None,
            None if following is None else str(following),
        ),
    )
