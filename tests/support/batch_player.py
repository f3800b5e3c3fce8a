"""A worker that is played: it puts batches into the queue and ends their jobs when it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis as redis_client

from proxygrad.protocol.jobs import State
from proxygrad.spec import ModelInfo
from tests.support.job_calls import expander
from workers.batches.repository import Batches
from workers.execution.context import WorkerContext
from workers.fleet.catalog import ServedModel
from workers.storage.store import Store

if TYPE_CHECKING:
    from tests.service.conftest import Player


class _Serving:
    def __init__(self, info: ModelInfo) -> None:
        self.served = (ServedModel(name=info.name, info=info),)


class BatchPlayer:
    """Moves the units of a batch on."""

    def __init__(self, redis: redis_client.Redis, store: Store, info: ModelInfo, player: Player) -> None:
        nothing: Any = None
        models: Any = _Serving(info)
        self._expansion = expander(WorkerContext("host", redis, store, nothing, models))
        self._batches = Batches(redis)
        self._player = player

    def expand(self) -> None:
        """Put into the queue what may go there."""
        while self._expansion.expand_due():
            pass

    def end(self, batch_id: str, state: State, *units: int) -> None:
        """End units; all that were queued, where none is named."""
        batch = self._batches.fetch(batch_id)
        assert batch is not None
        for unit in self._batches.units(batch, units or batch.units):
            if unit.job_id is not None and unit.state in ("queued", "running"):
                {"succeeded": self._player.succeed, "failed": self._player.fail}[state](unit.job_id)
