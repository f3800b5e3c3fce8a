"""How the whole fleet stands, counted in one step: what waits, runs and has ended, and who works.

Looks at no job but the first hundred that wait, and at one key for each model with jobs, worker, slot and
receiver of webhooks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

import redis

from proxygrad.protocol.requests import Priority
from proxygrad.protocol.visualizations import State
from workers.broker import queue
from workers.broker.scripts import Script

#: The states in which jobs end.
ENDS: tuple[State, ...] = ("succeeded", "failed", "canceled")

#: What was put back stands before what is older than it; so many of the list are compared.
_LOOKED_AT = 100
#: Receivers of webhooks whose deliveries are counted, those first that are due first.
_RECEIVERS = 1000

_COUNT = f"""
local waiting = {{}}
for _, priority in ipairs(PRIORITIES) do
  for _, model in ipairs(redis.call('HKEYS', offsets_key(priority))) do
    waiting[#waiting + 1] = {{priority, model, redis.call('ZCARD', ready_key(priority, model))}}
  end
end

local oldest = NOW
for _, id in ipairs(redis.call('LRANGE', QUEUE, 0, {_LOOKED_AT} - 1)) do
  oldest = math.min(oldest, tonumber(redis.call('HGET', own_key(id), 'created_at') or NOW))
end

local words = {{}}
for _, worker in ipairs(redis.call('ZRANGE', '{queue.WORKERS_KEY}', 0, -1)) do
  local word = redis.call('GET', '{queue.WORKER_PREFIX}' .. worker .. ':readiness')
  if word then words[#words + 1] = word end
end

local slots = 0 -- RQ's list of them has those that were killed for a while
for _, slot in ipairs(redis.call('SMEMBERS', '{queue.WORKERS_KEYS[1]}')) do
  slots = slots + redis.call('EXISTS', slot)
end

local deliveries = 0
for _, receiver in ipairs(redis.call('ZRANGE', RECEIVERS, 0, {_RECEIVERS} - 1)) do
  deliveries = deliveries + redis.call('ZCARD', due_deliveries(receiver))
end

return {{waiting, exact(NOW - oldest), redis.call('SCARD', RUNNING), redis.call('HGETALL', ENDED), words,
  slots, redis.call('SCARD', RUNNING_BATCHES), deliveries}}
"""


@dataclass(frozen=True, kw_only=True)
class FleetStatistics:
    """The counts of one moment.

    ``waiting``: jobs by priority and model, a zero for each served model without any. ``oldest_s``: how long
    ago the oldest of them was asked for, 0 with none. ``ended`` and ``lost_runs`` count since Redis began.
    ``models``: those that live workers were told to serve, and whether one of them could load it.
    """

    waiting: Mapping[tuple[Priority, str], int]
    oldest_s: float
    running: int
    ended: Mapping[State, int]
    lost_runs: int
    workers: int
    slots: int
    models: Mapping[str, bool]
    batches: int
    deliveries: int

    @classmethod
    def of(cls, reply: list[Any]) -> Self:
        """From what the script returns."""
        waiting, oldest, running, flat, words, slots, batches, deliveries = reply
        ended = {name.decode(): int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}
        models = _models([json.loads(word) for word in words])
        return cls(
            waiting=dict.fromkeys(((priority, name) for priority in get_args(Priority) for name in models), 0)
            | {(priority.decode(), model.decode()): count for priority, model, count in waiting},
            oldest_s=max(0.0, float(oldest)),
            running=running,
            ended={state: ended.get(state, 0) for state in ENDS},
            lost_runs=ended.get("lost", 0),
            workers=len(words),
            slots=slots,
            models=models,
            batches=batches,
            deliveries=deliveries,
        )


def _models(words: list[dict[str, Any]]) -> dict[str, bool]:
    """Of what each worker says of its models, nothing or the problem, whether any has it ready."""
    found: dict[str, bool] = {}
    for word in words:
        for name, problem in word.items():
            found[name] = found.get(name, False) or problem is None
    return dict(sorted(found.items()))


class FleetStatisticsReader:
    """Counts. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._count = Script(redis, _COUNT, "no-writes")

    def take(self) -> FleetStatistics:
        """How it stands now. Raises `RedisError`."""
        return FleetStatistics.of(self._count())
