"""Webhooks: the outbox of deliveries that gateways send to the URLs that callers subscribed.

The scripts that end a job or batch make a delivery for each subscription in the same step (the transactional
outbox pattern; ``workers/lua/lib/webhooks.lua``). Gateways claim what is due and record the outcome. A claim
is a lease: of a gateway that dies, another takes over when it ends. So a delivery is made at least once, and
its id, which stays the same, lets the receiver recognize the second. The log is kept a week, and of each
caller the newest ten thousand.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

import redis
from pydantic import BaseModel, ConfigDict
from redis.exceptions import ResponseError

from proxygrad.protocol.base import EpochTime
from proxygrad.protocol.problems import Problem
from proxygrad.protocol.webhooks import DeliveryState
from workers.broker import keys
from workers.broker.scripts import Script, pairs
from workers.broker.time_index import IndexEntry, older
from workers.jobs.kinds.registry import KINDS

#: The kind of a delivery about a batch; one about a job has the kind of the job.
BATCH = "batch"
#: Types of events that do not say how the subject ended.
_TYPES = {BATCH: "batch.ended"}
_COUNTS = ("total", "succeeded", "failed", "canceled")

_log = logging.getLogger(__name__)


class DeliveryRecord(BaseModel):
    """One event for one URL, and how far it came. Times are seconds since 1970, UTC.

    ``ended`` is the state in which ``subject`` ended, at ``created_at``; ``counts`` are those of a batch.
    ``attempts`` were begun, ``tried`` of them since it was made or a retry was requested.
    ``status`` is what the receiver last answered, ``error`` what else was wrong with the last attempt.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    kind: str
    subject: str
    caller: str
    url: str
    receiver: str
    ended: str
    created_at: EpochTime
    state: DeliveryState
    attempts: int
    tried: int
    next_at: EpochTime | None = None
    tried_at: EpochTime | None = None
    status: int | None = None
    error: str | None = None
    activation: float | None = None
    problem: Problem | None = None
    counts: dict[str, int] | None = None
    claim: str = ""

    @property
    def type(self) -> str:
        """The type of the event."""
        return _TYPES.get(self.kind, f"{self.kind}.{self.ended}")

    @classmethod
    def from_fields(cls, delivery_id: str, fields: Mapping[bytes, bytes]) -> Self:
        """From its hash in Redis."""
        values: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
        values = {name: value for name, value in values.items() if value != ""}
        if "problem" in values:
            values["problem"] = json.loads(values["problem"])
        counts = {name: int(values[name]) for name in _COUNTS if name in values}
        return cls.model_validate({"id": delivery_id, **values, "counts": counts or None})


def _read(delivery_id: str, fields: Mapping[bytes, bytes]) -> DeliveryRecord | None:
    """None for none, and for what another version of this program may know how to read."""
    try:
        delivery = DeliveryRecord.from_fields(delivery_id, fields) if b"subject" in fields else None
    except (ValueError, RecursionError) as error:
        _log.warning("delivery %s cannot be read: %s", delivery_id, type(error).__name__)
        return None
    return delivery if delivery is None or delivery.kind in KINDS or delivery.kind in _TYPES else None


class Deliveries:
    """Claim, settle, list and retry. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._redis = redis
        self._claim = Script(redis, "webhooks/claim_due")
        self._settle = Script(redis, "webhooks/settle")
        self._retry = Script(redis, "webhooks/retry")

    def claim(
        self, most: int, most_each: int, lease_s: float, busy: Mapping[str, int]
    ) -> list[DeliveryRecord]:
        """Take deliveries that are due, for ``lease_s`` seconds, at most ``most``.

        ``busy``: how many are under way by receiver, which with these are to be at most ``most_each`` each.
        """
        flat = [part for pair in busy.items() for part in pair]
        token = secrets.token_hex(8)
        claimed = cast(list[tuple[bytes, list[bytes]]], self._claim(most, most_each, lease_s, token, *flat))
        read = (_read(delivery_id.decode(), pairs(fields)) for delivery_id, fields in claimed)
        return [delivery for delivery in read if delivery is not None]

    def settle(
        self,
        delivery: DeliveryRecord,
        state: DeliveryState,
        status: int | None,
        error: str | None,
        wait_s: float = 0,
    ) -> bool:
        """Record the outcome of an attempt; False when its lease had ended and another gateway has it."""
        outcome = (state, "" if status is None else status, error or "")
        return bool(self._settle(delivery.id, delivery.claim, *outcome, wait_s))

    def retry(self, delivery_id: str) -> bool:
        """Try it again at once, and from the first interval on; False where there is none."""
        return bool(self._retry(delivery_id))

    def fetch(self, delivery_id: str) -> DeliveryRecord | None:
        """The delivery of that id, or None."""
        try:
            fields = cast(dict[bytes, bytes], self._redis.hgetall(keys.delivery_key(delivery_id)))
        except ResponseError as error:  # a key of another type
            _log.warning("delivery %s cannot be read: %s", delivery_id, error)
            return None
        return _read(delivery_id, fields)

    def recent(
        self,
        last: IndexEntry | None,
        most: int,
        looked_at: int,
        fits: Callable[[DeliveryRecord], bool],
        *,
        caller: str | None,
    ) -> tuple[list[DeliveryRecord], IndexEntry | None]:
        """Of those older than ``last``, the newest first, ``most`` that fit; and where to go on.

        At most ``looked_at`` are looked at. ``caller``: whose; None: of all.
        """
        deliveries: list[DeliveryRecord] = []
        index = keys.DELIVERIES_KEY if caller is None else keys.deliveries_of_key(caller)
        for entry in older(self._redis, index, last):
            looked_at -= 1
            delivery = self.fetch(entry.job_id)
            if delivery is not None and fits(delivery):
                deliveries.append(delivery)
            if len(deliveries) == most or not looked_at:
                return deliveries, entry
        return deliveries, None
