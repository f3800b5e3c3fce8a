"""The events that webhooks deliver: about the end of a batch, or of a job of any kind."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from proxygrad.protocol.addresses import BATCHES
from workers.jobs.kinds.registry import KINDS
from workers.webhooks import BATCH, DeliveryRecord

#: Subjects that are no jobs, by the kind of their deliveries.
_SUBJECTS = {BATCH: BATCHES}


def subject_path(delivery: DeliveryRecord) -> str:
    """The path of the batch or job that has ended."""
    path = _SUBJECTS.get(delivery.kind) or KINDS[delivery.kind].path
    return f"{path}/{delivery.subject}"


def payload(delivery: DeliveryRecord, public_url: str = "") -> str:
    """The body: the same at every attempt. Its link is whole where ``public_url`` says where we are."""
    data: dict[str, Any] = {"id": delivery.subject, "state": delivery.ended}
    if (kind := KINDS.get(delivery.kind)) is not None:
        data.update(kind.event_data(delivery.ended, delivery.activation))
    else:
        data["counts"] = delivery.counts
    data["problem"] = None if delivery.problem is None else delivery.problem.model_dump()
    data["links"] = {"self": public_url + subject_path(delivery)}
    happened_at = datetime.fromtimestamp(delivery.created_at, UTC).isoformat(timespec="milliseconds")
    event = {"type": delivery.type, "timestamp": happened_at.replace("+00:00", "Z"), "data": data}
    return json.dumps(event, separators=(",", ":"))
