"""`/v1/webhooks/deliveries`: the deliveries of webhooks, and the outcome of their attempts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response

from proxygrad.protocol.addresses import DELIVERIES
from proxygrad.protocol.pagination import DEFAULT_LIMIT
from proxygrad.protocol.webhooks import Delivery, DeliveryPage, DeliveryState
from service.api.dependencies import ID, FilterId, SessionDep, known_form
from service.backend import documents
from service.problems import problem_responses
from service.web.pagination import Cursor, Limit, entry_of, only, page
from workers import webhooks
from workers.jobs.kinds.visualization import VISUALIZATION

router = APIRouter(prefix=DELIVERIES, tags=["webhooks"])

DeliveryId = Annotated[str, ID, known_form("unknown_delivery", "delivery")]


@router.get(
    "",
    summary="List deliveries, newest first",
    responses=problem_responses("invalid_request", "redis_unavailable"),
)
async def list_webhook_deliveries(
    session: SessionDep,
    response: Response,
    state: Annotated[list[DeliveryState], only("those in these states")],
    visualization: Annotated[list[FilterId], only("those about visualizations of these ids")],
    batch: Annotated[list[FilterId], only("those about batches of these ids")],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> DeliveryPage:
    """The caller's newest ten thousand deliveries of the last week. A key with the scope `admin` sees
    all.
    """
    subjects = {(VISUALIZATION.name, each) for each in visualization}
    subjects |= {(webhooks.BATCH, each) for each in batch}

    def fits(delivery: webhooks.DeliveryRecord) -> bool:
        return (not state or delivery.state in state) and (
            not subjects or (delivery.kind, delivery.subject) in subjects
        )

    listed, end = await session.list_deliveries(entry_of(cursor), limit, fits)
    links = page(
        response,
        DELIVERIES,
        {"state": state, "visualization": visualization, "batch": batch},
        limit=limit,
        cursor=cursor,
        end=end,
    )
    return DeliveryPage(deliveries=[documents.delivery(each) for each in listed], links=links)


_ONE = problem_responses("unknown_delivery", "invalid_request", "redis_unavailable")


@router.get("/{delivery_id}", summary="Read a delivery", responses=_ONE)
async def read_webhook_delivery(delivery_id: DeliveryId, session: SessionDep, response: Response) -> Delivery:
    """Its state, and the outcome of the last attempt."""
    response.headers["Cache-Control"] = "no-store"
    return documents.delivery(await session.delivery(delivery_id))


@router.post("/{delivery_id}/retry", summary="Retry a delivery", status_code=202, responses=_ONE)
async def retry_webhook_delivery(
    delivery_id: DeliveryId, session: SessionDep, response: Response
) -> Delivery:
    """Try again within a second or two, whatever the state; the intervals begin anew if that fails.

    The event is the same, with the same `webhook-id`. A delivery that is being tried is left to that attempt.
    """
    response.headers["Cache-Control"] = "no-store"
    return documents.delivery(await session.retry_delivery(delivery_id))
