"""Deliveries of what ended, to those who wanted to be told: claimed, tried, tried again, and kept as a log.

Gateways claim what is due and say what came of it. A claim is a lease: of a gateway that dies, another takes
over when it ends. So a delivery is made at least once, and its id, which stays the same, lets the receiver
know the second. The log is kept a week, and of each caller the newest ten thousand.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, cast

import redis
from pydantic import BaseModel, ConfigDict

from proxygrad.protocol.problems import Problem
from proxygrad.protocol.webhooks import DeliveryState
from workers.broker.scripts import Script
from workers.jobs.recent import IndexEntry, older
from workers.queue.hooks import LOG_KEY, delivery_key, log_key

_log = logging.getLogger(__name__)

#: Receivers that are looked at for one claim.
_RECEIVERS_LOOKED_AT = 256

_TELL = """
local id, caller, url, activation = unpack(ARGV, 3, 6)
local details = activation ~= '' and {'activation', activation} or {}
add_hook('visualization', id, caller, url, 'succeeded', details)
"""

# Of each receiver so many that no more than `most_each` are under way here; `busy` says how many are. Each
# gets one before any gets another, so that a few slow ones with much to come do not take all places.
_CLAIM = f"""
local most, most_each, lease_s, token = unpack(ARGV, 3, 6)
local busy, claimed = {{}}, {{}}
for i = 7, #ARGV, 2 do busy[ARGV[i]] = tonumber(ARGV[i + 1]) end
most = tonumber(most)
local function take(receiver, id)
  if redis.call('HGET', delivery_key(id), 'state') ~= 'pending' then
    redis.call('ZREM', due_deliveries(receiver), id)
    return
  end
  redis.call('ZADD', due_deliveries(receiver), exact(NOW + lease_s), id)
  redis.call('HSET', delivery_key(id), 'claim', token)
  redis.call('HINCRBY', delivery_key(id), 'attempts', 1)
  redis.call('HINCRBY', delivery_key(id), 'tried', 1)
  busy[receiver] = (busy[receiver] or 0) + 1
  claimed[#claimed + 1] = {{id, redis.call('HGETALL', delivery_key(id))}}
end
local receivers = redis.call('ZRANGEBYSCORE', RECEIVERS, '-inf', NOW_TEXT, 'LIMIT', 0, {_RECEIVERS_LOOKED_AT})
for _, share in ipairs({{1, tonumber(most_each)}}) do
  for _, receiver in ipairs(receivers) do
    local room = math.min(most - #claimed, share - (busy[receiver] or 0))
    if room > 0 then
      local due = redis.call('ZRANGEBYSCORE', due_deliveries(receiver), '-inf', NOW_TEXT, 'LIMIT', 0, room)
      for _, id in ipairs(due) do take(receiver, id) end
      plan_receiver(receiver)
    end
  end
end
return claimed
"""

# `wait_s`: until it is to be tried again; nothing where this was the last time.
_SETTLE = """
local id, token, state, status, problem, wait_s = unpack(ARGV, 3, 8)
local key = delivery_key(id)
local claim, receiver = unpack(redis.call('HMGET', key, 'claim', 'receiver'))
if claim ~= token then return 0 end
redis.call('HDEL', key, 'claim', 'next_at')
redis.call('HSET', key, 'state', state, 'tried_at', NOW_TEXT, 'status', status, 'error', problem)
redis.call('EXPIRE', key, KEEP_S)
if state == 'pending' then
  redis.call('HSET', key, 'next_at', exact(NOW + wait_s))
  redis.call('ZADD', due_deliveries(receiver), exact(NOW + wait_s), id)
else
  redis.call('ZREM', due_deliveries(receiver), id)
end
plan_receiver(receiver)
return 1
"""

_RETRY = """
local id = ARGV[3]
local key = delivery_key(id)
local receiver = redis.call('HGET', key, 'receiver')
if not receiver then return 0 end
if redis.call('HEXISTS', key, 'claim') == 1 then
  -- Under way, unless its gateway died: then the lease ends.
  return 1
end
redis.call('EXPIRE', key, KEEP_S)
redis.call('HSET', key, 'state', 'pending', 'tried', 0, 'next_at', NOW_TEXT)
redis.call('ZADD', due_deliveries(receiver), NOW_TEXT, id)
plan_receiver(receiver)
return 1
"""


class Delivery(BaseModel):
    """One event for one URL, and how far it came. Times are seconds since 1970, UTC.

    ``ended`` is the state in which ``subject`` ended, at ``created_at``; ``counts`` are those of a batch.
    ``attempts`` were begun, ``tried`` of them since it was made or somebody asked for another try.
    ``status`` is what the receiver last answered, ``error`` what else was wrong with the last attempt.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    kind: Literal["visualization", "batch"]
    subject: str
    caller: str
    url: str
    receiver: str
    ended: str
    created_at: float
    state: DeliveryState
    attempts: int
    tried: int
    next_at: float | None = None
    tried_at: float | None = None
    status: int | None = None
    error: str | None = None
    activation: float | None = None
    problem: Problem | None = None
    counts: dict[str, int] | None = None
    claim: str = ""

    @property
    def type(self) -> str:
        """The type of the event."""
        return "batch.ended" if self.kind == "batch" else f"visualization.{self.ended}"

    @classmethod
    def from_fields(cls, delivery_id: str, fields: Mapping[bytes, bytes]) -> Self:
        """From its hash in Redis."""
        known: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items()}
        known = {name: value for name, value in known.items() if value != ""}
        if "problem" in known:
            known["problem"] = json.loads(known["problem"])
        counts = {name: int(known[name]) for name in _COUNTS if name in known}
        return cls.model_validate({"id": delivery_id, **known, "counts": counts or None})


def _read(delivery_id: str, fields: Mapping[bytes, bytes]) -> Delivery | None:
    """None for none, and for what another version of this program may know how to read."""
    try:
        return Delivery.from_fields(delivery_id, fields) if b"subject" in fields else None
    except ValueError as error:
        _log.warning("delivery %s cannot be read: %s", delivery_id, type(error).__name__)
        return None


_COUNTS = ("total", "succeeded", "failed", "canceled")


class Deliveries:
    """Claim, settle, list and retry. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._redis = redis
        self._tell = Script(redis, _TELL, "allow-oom")
        self._claim = Script(redis, _CLAIM, "allow-oom")
        self._settle = Script(redis, _SETTLE, "allow-oom")
        self._retry = Script(redis, _RETRY, "allow-oom")

    def tell(self, job_id: str, caller: str, url: str, activation: float | None) -> None:
        """Make a delivery at once: the answer was there before it was asked for."""
        self._tell(job_id, caller, url, "" if activation is None else repr(activation))

    def claim(self, most: int, most_each: int, lease_s: float, busy: Mapping[str, int]) -> list[Delivery]:
        """Take deliveries that are due, for ``lease_s`` seconds, at most ``most``.

        ``busy``: how many are under way by receiver, which with these are to be at most ``most_each`` each.
        """
        flat = [part for pair in busy.items() for part in pair]
        token = secrets.token_hex(8)
        found = cast(
            list[tuple[bytes, list[bytes]]], self._claim(most, most_each, lease_s, token, *flat) or []
        )
        read = (_read(each.decode(), dict(zip(flat[::2], flat[1::2], strict=True))) for each, flat in found)
        return [delivery for delivery in read if delivery is not None]

    def settle(
        self,
        delivery: Delivery,
        state: DeliveryState,
        status: int | None,
        error: str | None,
        wait_s: float = 0,
    ) -> bool:
        """Say what came of an attempt; False when its lease had ended and another one has it."""
        said = ("" if status is None else status, error or "")
        return bool(self._settle(delivery.id, delivery.claim, state, *said, wait_s))

    def retry(self, delivery_id: str) -> bool:
        """Try it again at once, and from the first interval on; False where there is none."""
        return bool(self._retry(delivery_id))

    def fetch(self, delivery_id: str) -> Delivery | None:
        """The delivery of that id, or None."""
        fields = cast(dict[bytes, bytes], self._redis.hgetall(delivery_key(delivery_id)))
        return _read(delivery_id, fields)

    def recent(
        self,
        last: IndexEntry | None,
        most: int,
        looked_at: int,
        fits: Callable[[Delivery], bool],
        *,
        caller: str | None,
    ) -> tuple[list[Delivery], IndexEntry | None]:
        """Of those older than ``last``, the newest first, ``most`` that fit; and where to go on.

        At most ``looked_at`` are looked at. ``caller``: whose; None: of all.
        """
        found: list[Delivery] = []
        for entry in older(self._redis, LOG_KEY if caller is None else log_key(caller), last):
            looked_at -= 1
            delivery = self.fetch(entry.job_id)
            if delivery is not None and fits(delivery):
                found.append(delivery)
            if len(found) == most or not looked_at:
                return found, entry
        return found, None
