"""`/v1/webhooks/deliveries`: what was sent to whom, and what came of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response

from proxygrad.protocol.addresses import DELIVERIES
from proxygrad.protocol.pagination import DEFAULT_LIMIT, MAX_SCANNED
from proxygrad.protocol.webhooks import Delivery, DeliveryPage, DeliveryState
from service.api.ids import FilterId, PathId
from service.backend import documents
from service.backend.gateway import Gateway, GatewayDep
from service.problems import ProblemError, problem_responses
from service.web.pagination import Cursor, Limit, cursor_of, entry_of, only, page_links
from workers.queue import deliveries

router = APIRouter(prefix=DELIVERIES, tags=["webhooks"])

DeliveryId = PathId


@router.get(
    "",
    summary="List deliveries, newest first",
    responses=problem_responses("invalid_request", "redis_unavailable"),
)
async def list_webhook_deliveries(
    gateway: GatewayDep,
    response: Response,
    state: Annotated[list[DeliveryState], only("those in these states")],
    visualization: Annotated[list[FilterId], only("those about visualizations of these ids")],
    batch: Annotated[list[FilterId], only("those about batches of these ids")],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> DeliveryPage:
    """Of the last week, the caller's newest ten thousand; a key with the scope `admin` sees all."""
    last = None if cursor is None else entry_of(cursor)
    subjects = {("visualization", each) for each in visualization} | {("batch", each) for each in batch}

    def fits(delivery: deliveries.Delivery) -> bool:
        return (not state or delivery.state in state) and (
            not subjects or (delivery.kind, delivery.subject) in subjects
        )

    def look() -> Any:
        own = None if gateway.caller.operates else gateway.caller.name
        return gateway.deliveries.recent(last, limit, MAX_SCANNED, fits, caller=own)

    found, end = await gateway.call(look)
    query: list[tuple[str, str]] = [("state", each) for each in state]
    query += [("visualization", each) for each in visualization] + [("batch", each) for each in batch]
    query.append(("limit", str(limit)))
    response.headers["Cache-Control"] = "no-store"
    links = page_links(DELIVERIES, query, cursor, None if end is None else cursor_of(end))
    return DeliveryPage(deliveries=[documents.delivery(each) for each in found], links=links)


_ONE = problem_responses("unknown_delivery", "invalid_request", "redis_unavailable")


@router.get("/{delivery_id}", summary="One delivery", responses=_ONE)
async def read_webhook_delivery(delivery_id: DeliveryId, gateway: GatewayDep, response: Response) -> Delivery:
    """How far it came."""
    response.headers["Cache-Control"] = "no-store"
    return documents.delivery(await _own(delivery_id, gateway))


@router.post("/{delivery_id}/retry", summary="Deliver again", status_code=202, responses=_ONE)
async def retry_webhook_delivery(
    delivery_id: DeliveryId, gateway: GatewayDep, response: Response
) -> Delivery:
    """Have it tried within a second or two, whatever its state, and from the first interval on if that fails.

    The event is the same, with the same `webhook-id`. One that is being tried is left to that.
    """
    await _own(delivery_id, gateway)
    await gateway.call(gateway.deliveries.retry, delivery_id)
    response.headers["Cache-Control"] = "no-store"
    return documents.delivery(await _own(delivery_id, gateway))


async def _own(delivery_id: str, gateway: Gateway) -> deliveries.Delivery:
    """The delivery of that id; refuses with `unknown_delivery`, also where it is another caller's."""
    found = await gateway.call(gateway.deliveries.fetch, delivery_id)
    if found is None or not (gateway.caller.operates or found.caller == gateway.caller.name):
        raise ProblemError("unknown_delivery", f"there is no delivery {delivery_id!r}")
    return found
