"""What live workers offer, as this process last saw it: read for all requests of a second at once.

Only what lets a question pass is taken from memory. Whatever would be refused is looked at again, so that a
worker that has just come is noticed by the next request.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis import Redis

from workers.fleet import catalog
from workers.fleet.catalog import ServedModel

#: That a worker stopped, or has other weights, is noticed within so many seconds: a question of that time
#: waits, and says why. Of a worker that was killed Redis itself knows no sooner than in ten.
LOOK_AGAIN_S = 1.0


class ModelRegistry:
    """One process's view of the catalog. ``call`` runs what blocks where it may."""

    def __init__(self, redis: Redis, call: Callable[..., Awaitable[Any]]) -> None:
        self._redis = redis
        self._call = call
        self._ready: dict[str, ServedModel] = {}
        self._seen_at_s = float("-inf")

    async def served(self) -> dict[str, ServedModel]:
        """All models, as they are now. Raises `RedisError`."""
        asked_at_s = time.monotonic()
        served: dict[str, ServedModel] = await self._call(catalog.served, self._redis)
        self._ready = {name: model for name, model in served.items() if model.info is not None}
        self._seen_at_s = asked_at_s
        return served

    async def ready(self, name: str) -> ServedModel | None:
        """The model of that name if it is ready, as it was at most `LOOK_AGAIN_S` ago; else None."""
        if time.monotonic() - self._seen_at_s > LOOK_AGAIN_S:
            await self.served()
        return self._ready.get(name)
