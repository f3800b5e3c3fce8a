"""`/v1/webhooks/deliveries`: what was sent to whom, and what came of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from service.api.ids import FilterId, PathId
from service.backend.gateway import Gateway, GatewayDep
from service.problems import ProblemError, problem_responses
from service.schemas.pagination import PageLinks
from service.web.pagination import DEFAULT_LIMIT, MOST_LOOKED_AT, Cursor, Limit, cursor_of, entry_of, only
from workers import webhooks
from workers.webhooks import DeliveryState

router = APIRouter(prefix="/v1/webhooks/deliveries", tags=["webhooks"])

DeliveryId = PathId


class DeliveryLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This delivery.")
    subject: str = Field(description="What it is about: a visualization or a batch.")
    retry: str = Field(description="POST there to have it tried again at once.")


class Delivery(BaseModel):
    """One event for one URL, and how far it came."""

    id: str = Field(description="32 hex digits: the `webhook-id`, the same at every attempt.")
    type: str = Field(description="Type of the event.", examples=["visualization.succeeded"])
    url: str = Field(description="Where it goes.")
    state: DeliveryState = Field(
        description="`pending`: to be tried, or tried again; `delivered`: answered with 2xx; `exhausted`: "
        "failed at every attempt; `gone`: the receiver answered 410 and wants no more."
    )
    created_at: datetime = Field(description="When the event happened, UTC.")
    attempts: int = Field(description="How many attempts were begun.")
    last_attempt_at: datetime | None = Field(
        description="When the last attempt ended, UTC; `null` before the first."
    )
    last_status: int | None = Field(
        description="HTTP status of the last answer; `null` where there was none."
    )
    last_error: str | None = Field(
        description="What was wrong with the last attempt, where it got no answer."
    )
    next_attempt_at: datetime | None = Field(
        description="When it is tried next, UTC; `null` while it is being tried, and when it will not be."
    )
    links: DeliveryLinks = Field(description="Where to go on.")

    @classmethod
    def of(cls, kept: webhooks.Delivery) -> Self:
        """As it is shown."""
        kind = "batches" if kept.kind == "batch" else "visualizations"
        path = f"{router.prefix}/{kept.id}"
        return cls(
            id=kept.id,
            type=kept.type,
            url=kept.url,
            state=kept.state,
            created_at=datetime.fromtimestamp(kept.created_at, UTC),
            attempts=kept.attempts,
            last_attempt_at=_time(kept.tried_at),
            last_status=kept.status,
            last_error=kept.error,
            next_attempt_at=_time(kept.next_at),
            links=DeliveryLinks(self=path, subject=f"/v1/{kind}/{kept.subject}", retry=f"{path}/retry"),
        )


class DeliveryPage(BaseModel):
    """Some deliveries, the newest first."""

    deliveries: list[Delivery] = Field(
        description=f"At most `limit`. A page looks at {MOST_LOOKED_AT} at most, so with filters it may be "
        "shorter, even empty, and still have a next one."
    )
    links: PageLinks = Field(description="Where to go on.")


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

    def fits(delivery: webhooks.Delivery) -> bool:
        return (not state or delivery.state in state) and (
            not subjects or (delivery.kind, delivery.subject) in subjects
        )

    def look() -> Any:
        own = None if gateway.caller.operates else gateway.caller.name
        return gateway.deliveries.recent(last, limit, MOST_LOOKED_AT, fits, caller=own)

    found, end = await gateway.call(look)
    query: list[tuple[str, str]] = [("state", each) for each in state]
    query += [("visualization", each) for each in visualization] + [("batch", each) for each in batch]
    query.append(("limit", str(limit)))
    response.headers["Cache-Control"] = "no-store"
    links = PageLinks.of(router.prefix, query, cursor, None if end is None else cursor_of(end))
    return DeliveryPage(deliveries=[Delivery.of(each) for each in found], links=links)


_ONE = problem_responses("unknown_delivery", "invalid_request", "redis_unavailable")


@router.get("/{delivery_id}", summary="One delivery", responses=_ONE)
async def read_webhook_delivery(delivery_id: DeliveryId, gateway: GatewayDep, response: Response) -> Delivery:
    """How far it came."""
    response.headers["Cache-Control"] = "no-store"
    return Delivery.of(await _own(delivery_id, gateway))


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
    return Delivery.of(await _own(delivery_id, gateway))


async def _own(delivery_id: str, gateway: Gateway) -> webhooks.Delivery:
    """The delivery of that id; refuses with `unknown_delivery`, also where it is another caller's."""
    found = await gateway.call(gateway.deliveries.fetch, delivery_id)
    if found is None or not (gateway.caller.operates or found.caller == gateway.caller.name):
        raise ProblemError("unknown_delivery", f"there is no delivery {delivery_id!r}")
    return found


def _time(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)
