"""The models of live workers, as this gateway process sees them: the catalog, cached for a second.

Only what lets a request pass is taken from the cache. A request that would be refused reads the catalog
again, so that a worker that has just started is noticed by the next request.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis import Redis

from proxygrad.errors import UnknownModel
from proxygrad.spec import ModelInfo
from service.problems import ProblemError
from workers.fleet import catalog
from workers.fleet.catalog import ServedModel

#: Age at which the cache is read again. A request about a model that left within that time waits in the
#: queue and says why. Redis itself notices a killed worker after ten seconds.
MAX_AGE_S = 1.0


class ModelRegistry:
    """One process's view of the catalog. ``call`` runs a blocking function in a thread."""

    def __init__(self, redis: Redis, call: Callable[..., Awaitable[Any]]) -> None:
        self._redis = redis
        self._call = call
        self._ready: dict[str, ServedModel] = {}
        self._read_at_s = float("-inf")

    async def all(self) -> dict[str, ServedModel]:
        """All models as they are now, by name. Raises `no_worker` when no worker lives, and `RedisError`."""
        models = await self._read()
        if not models and not await self._call(catalog.live_workers, self._redis):
            raise ProblemError(
                "no_worker", "no worker is alive, so nothing is served; start one with `python -m workers`"
            )
        return models

    async def find(self, name: str) -> ServedModel:
        """The model of that name, ready or not. Raises `UnknownModel` with near names, and as `all`."""
        models = await self.all()
        if name not in models:
            raise UnknownModel(name, sorted(models))
        return models[name]

    async def info(self, name: str) -> ModelInfo:
        """Metadata of a ready model, at most `MAX_AGE_S` old. Raises `model_unavailable`, and as `find`."""
        model = await self._ready_model(name) or await self.find(name)
        if model.info is None:
            reason = model.problem.detail if model.problem else "its worker gave no reason"
            raise ProblemError("model_unavailable", f"model {name!r} could not be loaded: {reason}")
        return model.info

    async def _ready_model(self, name: str) -> ServedModel | None:
        if time.monotonic() - self._read_at_s > MAX_AGE_S:
            await self._read()
        return self._ready.get(name)

    async def _read(self) -> dict[str, ServedModel]:
        began_s = time.monotonic()
        models: dict[str, ServedModel] = await self._call(catalog.served, self._redis)
        self._ready = {name: model for name, model in models.items() if model.info is not None}
        self._read_at_s = began_s
        return models
