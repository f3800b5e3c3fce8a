"""Documents about webhook deliveries."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from proxygrad.protocol.base import UtcTime
from proxygrad.protocol.pagination import MAX_SCANNED, PageLinks

DeliveryState = Literal["pending", "delivered", "exhausted", "gone"]


class DeliveryLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This delivery.")
    subject: str = Field(description="The visualization or batch that has ended.")
    retry: str = Field(description="POST there to try again now.")


class Delivery(BaseModel):
    """The delivery of one event to one URL."""

    id: str = Field(description="32 hex digits: the `webhook-id`, the same at every attempt.")
    type: str = Field(description="Type of the event.", examples=["visualization.succeeded"])
    url: str = Field(description="URL of the receiver.")
    state: DeliveryState = Field(
        description="`pending`: will be sent, or sent again; `delivered`: the receiver returned 2xx; "
        "`exhausted`: every attempt failed; `gone`: the receiver returned 410."
    )
    created_at: UtcTime = Field(description="When the event happened (UTC).")
    attempts: int = Field(description="Number of attempts begun.")
    last_attempt_at: UtcTime | None = Field(
        description="When the last attempt ended (UTC); `null` before the first."
    )
    last_status: int | None = Field(
        description="HTTP status of the last response; `null` where there was none."
    )
    last_error: str | None = Field(description="Why the last attempt got no response.")
    next_attempt_at: UtcTime | None = Field(
        description="When it is tried next (UTC); `null` during an attempt, and after the last one."
    )
    links: DeliveryLinks = Field(description="Related resources.")


class DeliveryPage(BaseModel):
    """A page of deliveries, newest first."""

    deliveries: list[Delivery] = Field(
        description=f"At most `limit`. A page scans {MAX_SCANNED} at most, so with filters it may be "
        "shorter, even empty, and still have a next one."
    )
    links: PageLinks = Field(description="Related resources.")
