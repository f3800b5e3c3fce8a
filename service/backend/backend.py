"""What one gateway process shares among all requests: Redis, the store, caches, the event hub.

Redis and the store are reached by short blocking calls in a thread each, or by commands that are coalesced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, cast

from anyio import to_thread
from redis import Redis

from service import descriptors
from service.backend.caches import RequestCache, ResponseCache
from service.backend.circuit_breaker import CircuitBreaker
from service.backend.coalescing import Coalescer, one_by_one
from service.backend.event_hub import EventHub
from service.backend.idempotency import Idempotency
from service.backend.model_registry import ModelRegistry
from service.images.contact_sheet import ContactSheets
from service.images.conversion import Conversions
from service.images.pictures import PictureReader
from service.settings import ServiceSettings
from service.webhooks.urls import AllowedHosts
from workers.batches.repository import Batches
from workers.broker.clock import RedisClock
from workers.broker.pipeline import Operation, RedisCommand, execute_together, run_async
from workers.broker.safety import unsafe_settings
from workers.fleet.statistics import FleetStatisticsReader
from workers.jobs.kinds.visualization import VISUALIZATION, image_name
from workers.jobs.repository import Jobs
from workers.storage.store import Store
from workers.webhooks import Deliveries

_log = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Backend:
    """The resources of a gateway process, in ``app.state.backend``. Whatever blocks is run by `call`."""

    def __init__(self, settings: ServiceSettings, redis: Redis, store: Store) -> None:
        self.settings = settings
        self.redis = redis
        self.store = store
        self.jobs = Jobs(redis, store)
        self.batches = Batches(redis)
        self.deliveries = Deliveries(redis)
        self.statistics = FleetStatisticsReader(redis)
        self.models = ModelRegistry(redis, self.call)
        self.clock = RedisClock(self.send)
        self.allowed_hosts = AllowedHosts(settings.webhook_hosts)
        self.idempotency = Idempotency(redis, self.call)
        self.conversions = Conversions()
        self.pictures = PictureReader(settings.max_upload_pixels)
        self.sheets = ContactSheets(self._image)
        self.requests = RequestCache(settings)
        self.responses = ResponseCache()
        self.breaker = CircuitBreaker()
        self.events = EventHub(settings.redis_url or "", self._watch, descriptors.max_followers())
        self._commands = Coalescer[RedisCommand[Any]](self.call, partial(execute_together, redis))
        self._store_calls = Coalescer[Callable[[], Any]](self.call, one_by_one) if store.near else None
        self._started = False

    async def start(self) -> None:
        """Check that Redis answers, unless it has before, and log what is unsafe. Raises `RedisError`."""
        if not self._started:
            for warning in (await self.call(unsafe_settings, self.redis)).values():
                _log.warning("%s", warning)
            self._started = True

    def close(self) -> None:
        """Let every long wait return at once with what it has, so that the process can stop."""
        self.events.close()

    async def call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a short blocking function of Redis in a thread, behind the circuit breaker."""
        return await to_thread.run_sync(self.breaker.call, function, *args)

    async def send(self, command: RedisCommand[T]) -> T:
        """The reply to one command; the commands of concurrent requests share a round trip."""
        return cast(T, await self._commands(command))

    async def run(self, operation: Operation[T]) -> T:
        """The result of an operation; its commands are coalesced with those of other requests.

        Calls of a store that is near (a directory: a few µs each) are coalesced too.
        """
        return await run_async(operation, self._commands, self._store_calls or self.call)

    def _image(self, job_id: str, number: int) -> bytes | None:
        return self.jobs.artifact(VISUALIZATION, job_id, image_name(number))

    async def _watch(self, job_ids: list[str]) -> None:
        await self.call(self.jobs.watch, job_ids)
