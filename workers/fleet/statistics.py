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
from workers.broker.limits import DEFAULT_KIND
from workers.broker.scripts import Script, pairs

#: The states in which jobs end.
ENDS: tuple[State, ...] = ("succeeded", "failed", "canceled")

_READINESS = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class FleetStatistics:
    """The counts of one moment.

    ``waiting``: jobs by priority, kind and model, a zero for each kind and model that is served without any.
    ``oldest_s``: how long ago the oldest of them was requested, 0 with none. ``ended``, by kind and state,
    and ``lost_runs`` count since Redis began. ``models``: those that live workers serve, and whether one of
    them could load it.
    """

    waiting: Mapping[tuple[Priority, str, str], int]
    oldest_s: float
    running: int
    ended: Mapping[tuple[str, State], int]
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
        offers = {_kind_and_model(name): ready for name, ready in _offers(words).items()}
        models = dict[str, bool]()
        for (_, model), ready in offers.items():
            models[model] = models.get(model, False) or ready
        counts = dict.fromkeys(((priority, *of) for priority in get_args(Priority) for of in offers), 0)
        for priority, capability, count in waiting:
            of = priority.decode(), *_kind_and_model(_without_version(capability.decode()))
            counts[of] = counts.get(of, 0) + count
        return cls(
            waiting=counts,
            oldest_s=max(0.0, float(oldest)),
            running=running,
            ended=_by_kind(ended, {DEFAULT_KIND, *(kind for kind, _ in offers)}),
            lost_runs=ended.get("lost", 0),
            workers=len(words),
            slots=slots,
            models=models,
            batches=batches,
            deliveries=deliveries,
        )


def _by_kind(ended: Mapping[str, int], kinds: set[str]) -> dict[tuple[str, State], int]:
    """Of fields named by `ended_field` of ``workers/lua/lib/ending.lua``, zeros for ``kinds`` without any."""
    found = dict.fromkeys(((kind, state) for kind in sorted(kinds) for state in ENDS), 0)
    for field, count in ended.items():
        kind, _, state = field.rpartition("/")
        if state in ENDS:
            found[kind or DEFAULT_KIND, state] = count
    return found


def _kind_and_model(capability: str) -> tuple[str, str]:
    """As `workers.jobs.kinds.base.JobKind.capability` puts them together; names of models have no slash."""
    kind, _, model = capability.rpartition("/")
    return kind or DEFAULT_KIND, model


def _offers(words: list[bytes]) -> dict[str, bool]:
    """Of what each worker says of its capabilities, nothing or the problem, whether any has it ready."""
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
