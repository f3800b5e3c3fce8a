"""`GET /v1/batches`, and the units of one batch: lists, a page at a time."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from proxygrad.protocol.addresses import BATCHES
from proxygrad.protocol.batches import BatchPage, BatchState, BatchUnitPage
from proxygrad.protocol.pagination import DEFAULT_LIMIT, MAX_SCANNED
from proxygrad.protocol.visualizations import State as JobState
from service.api.batches import BatchId, visible
from service.backend import documents
from service.backend.gateway import GatewayDep
from service.problems import problem_responses
from service.web.pagination import Cursor, Limit, cursor_of, entry_of, only, page_links
from workers.batches import repository as batches
from workers.batches.repository import Unit
from workers.jobs.repository import IndexEntry

DEFAULT_UNITS, MAX_UNITS = 100, 1000

router = APIRouter(prefix=BATCHES, tags=["batches"])

State = Annotated[
    list[Literal["waiting", JobState]],  # one list of values, so that a flaw names them all
    only("units in these states", most=10),
]


@router.get(
    "",
    summary="List batches, newest first",
    responses=problem_responses("invalid_request", "redis_unavailable"),
)
async def list_batches(
    gateway: GatewayDep,
    response: Response,
    model: Annotated[list[str], only("of these models")],
    layer: Annotated[list[str], only("of these layers")],
    state: Annotated[list[BatchState], only("in these states")],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> BatchPage:
    """The caller's batches, by when they were last asked for; each is kept for a week after its end."""
    last = None if cursor is None else entry_of(cursor)

    def fits(batch: batches.Batch) -> bool:
        template = batch.template
        wanted = ((model, template.model), (layer, template.layer), (state, batch.state))
        return all(not among or value in among for among, value in wanted)

    def look() -> tuple[list[batches.Batch], IndexEntry | None]:
        caller = None if gateway.caller.sees_all else gateway.caller.name
        return gateway.batches.recent(last, limit, MAX_SCANNED, fits, caller=caller)

    found, end = await gateway.call(look)
    asked = [("model", each) for each in model] + [("layer", each) for each in layer]
    query = [*asked, *(("state", each) for each in state), ("limit", str(limit))]
    response.headers["Cache-Control"] = "no-store"
    links = page_links(BATCHES, query, cursor, None if end is None else cursor_of(end))
    return BatchPage(batches=[documents.batch(each, brief=True) for each in found], links=links)


@router.get(
    "/{batch_id}/visualizations",
    summary="Its units, in their order",
    responses=problem_responses("unknown_batch", "invalid_request", "redis_unavailable"),
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
        visualizations=[documents.batch_unit(unit) for unit in found],
        links=page_links(
            f"{BATCHES}/{batch_id}/visualizations",
            here,
            str(cursor) if cursor else None,
            None if following is None else str(following),
        ),
    )
