"""`/v1/webhooks/deliveries`: the deliveries of webhooks, and the outcome of their attempts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from service.api.dependencies import FilterId, PathId, SessionDep
from service.problems import problem_responses
from service.schemas.pagination import PageLinks
from service.web.pagination import DEFAULT_LIMIT, MOST_LOOKED_AT, Cursor, Limit, entry_of, only, page
from workers.queue import deliveries
from workers.queue.deliveries import DeliveryState

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
    def of(cls, delivery: deliveries.Delivery, base: str) -> Self:
        """The document of ``delivery``; ``base`` is the path of all deliveries."""
        kind = "batches" if delivery.kind == "batch" else "visualizations"
        path = f"{base}/{delivery.id}"
        return cls(
            id=delivery.id,
            type=delivery.type,
            url=delivery.url,
            state=delivery.state,
            created_at=datetime.fromtimestamp(delivery.created_at, UTC),
            attempts=delivery.attempts,
            last_attempt_at=_time(delivery.tried_at),
            last_status=delivery.status,
            last_error=delivery.error,
            next_attempt_at=_time(delivery.next_at),
            links=DeliveryLinks(self=path, subject=f"/v1/{kind}/{delivery.subject}", retry=f"{path}/retry"),
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
    session: SessionDep,
    response: Response,
    state: Annotated[list[DeliveryState], only("those in these states")],
    visualization: Annotated[list[FilterId], only("those about visualizations of these ids")],
    batch: Annotated[list[FilterId], only("those about batches of these ids")],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> DeliveryPage:
    """Of the last week, the caller's newest ten thousand; a key with the scope `admin` sees all."""
    subjects = {("visualization", each) for each in visualization} | {("batch", each) for each in batch}

    def fits(delivery: deliveries.Delivery) -> bool:
        return (not state or delivery.state in state) and (
            not subjects or (delivery.kind, delivery.subject) in subjects
        )

    listed, end = await session.list_deliveries(entry_of(cursor), limit, fits)
    links = page(
        response,
        router.prefix,
        {"state": state, "visualization": visualization, "batch": batch},
        limit=limit,
        cursor=cursor,
        end=end,
    )
    return DeliveryPage(deliveries=[Delivery.of(each, router.prefix) for each in listed], links=links)


_ONE = problem_responses("unknown_delivery", "invalid_request", "redis_unavailable")


@router.get("/{delivery_id}", summary="Read a delivery", responses=_ONE)
async def read_webhook_delivery(delivery_id: DeliveryId, session: SessionDep, response: Response) -> Delivery:
    """Its state, and the outcome of the last attempt."""
    response.headers["Cache-Control"] = "no-store"
    return Delivery.of(await session.delivery(delivery_id), router.prefix)


@router.post("/{delivery_id}/retry", summary="Deliver again", status_code=202, responses=_ONE)
async def retry_webhook_delivery(
    delivery_id: DeliveryId, session: SessionDep, response: Response
) -> Delivery:
    """Try again within a second or two, whatever the state; the intervals begin anew if that fails.

    The event is the same, with the same `webhook-id`. A delivery that is being tried is left to that attempt.
    """
    response.headers["Cache-Control"] = "no-store"
    return Delivery.of(await session.retry_delivery(delivery_id), router.prefix)


def _time(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)
