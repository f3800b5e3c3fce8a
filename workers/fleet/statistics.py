"""Fleet statistics, counted in one step: what waits, runs and has ended, and the workers.

Looks at no job but the first hundred that wait, and at one key for each model with jobs, worker, slot and
receiver of webhooks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, get_args

import redis
from pydantic import TypeAdapter, ValidationError

from proxygrad.protocol.jobs import State
from proxygrad.protocol.requests import Priority
from workers.broker.scripts import Script, pairs

#: The states in which jobs end.
ENDS: tuple[State, ...] = ("succeeded", "failed", "canceled")

_READINESS = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class FleetStatistics:
    """The counts of one moment.

    ``waiting``: jobs by priority and model, a zero for each served model without any. ``oldest_s``: how long
    ago the oldest of them was requested, 0 with none. ``ended`` and ``lost_runs`` count since Redis began.
    ``models``: those that live workers serve, and whether one of them could load it.
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
        ended = {name.decode(): int(count) for name, count in pairs(flat).items()}
        models = _models(words)
        counts = dict.fromkeys(((priority, name) for priority in get_args(Priority) for name in models), 0)
        for priority, capability, count in waiting:
            of = priority.decode(), _without_version(capability.decode())
            counts[of] = counts.get(of, 0) + count
        return cls(
            waiting=counts,
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


def _models(words: list[bytes]) -> dict[str, bool]:
    """Of what each worker says of its models, nothing or the problem, whether any has it ready."""
    found: dict[str, bool] = {}
    for word in words:
        try:
            readiness = _READINESS.validate_json(word)
        except ValidationError:
            continue
        for name, problem in readiness.items():
            if name == _without_version(name):
                found[name] = found.get(name, False) or problem is None
    return dict(sorted(found.items()))


def _without_version(capability: str) -> str:
    """As the function of that name in ``workers/lua/lib/keys.lua``."""
    return re.sub(r"@[0-9a-f]+\.[^@]*$", "", capability)


class FleetStatisticsReader:
    """Counts. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._count = Script(redis, "fleet/count")

    def take(self) -> FleetStatistics:
        """How it stands now. Raises `RedisError`."""
        return FleetStatistics.of(self._count())
