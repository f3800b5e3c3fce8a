"""The gateway: HTTP in front of the queue, the catalog and the store. Needs no torch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from service.api import (
    atlas,
    batch_lists,
    batches,
    events,
    health,
    images,
    lifecycle,
    listing,
    metrics,
    models,
    visualizations,
    webhooks,
)
from service.backend.gateway import Gateway
from service.middleware.authentication import Authentication
from service.middleware.hosts import CORS, HostFilter
from service.middleware.instrumentation import Instrumentation, Metrics
from service.middleware.limits import RequestLimits
from service.pages import reference
from service.settings import Settings
from service.web import openapi
from service.web.exception_handlers import install
from service.webhooks.dispatcher import delivering
from workers.errors import SettingsError
from workers.settings import connect
from workers.storage.store import Store

#: A caller is told within a few seconds that Redis is away. No retry: each would multiply with those of
#: connecting (one made it 10 s), and a connection that Redis closed is noticed before use. Two seconds,
#: because a server that syncs its log to a slow disk may pause.
REDIS_RETRIES = 0
REDIS_TIMEOUT_S = 2.0


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application. Opens the store; connects to Redis with the first request that needs it.

    Raises `SettingsError` when no Redis is named and `StorageError` when the store cannot be used.
    """
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL is not set; name a server, or let `proxygrad serve` bring its own")
    redis = connect(settings.redis_url, retries=REDIS_RETRIES, timeout_s=REDIS_TIMEOUT_S)
    gateway = Gateway(settings, redis, Store.from_url(settings.store_url))
    app = routed()
    app.state.gateway = gateway
    app.state.measures = Metrics(lambda: gateway.live.followers)
    _guard(app, gateway)
    return app


def routed() -> FastAPI:
    """Every route, with nothing behind: what it takes to describe them."""
    app = FastAPI(lifespan=_lifespan, redirect_slashes=False, **openapi.skeleton())
    install(app)
    for resource in (
        *(visualizations, listing, lifecycle, images, events),
        *(batches, batch_lists, atlas, webhooks, models, health, metrics, reference),
    ):
        # One flat table: `include_router` would put a router in between, 12 to 30 µs of each request.
        app.router.routes += resource.router.routes
    openapi.describe(app)
    return app


def _guard(app: FastAPI, gateway: Gateway) -> None:
    """What every request passes before any route; the last that is added comes first."""
    settings = gateway.settings
    app.add_middleware(Authentication, gateway=gateway)
    app.add_middleware(RequestLimits, max_body_bytes=settings.max_body_bytes)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **CORS)
    app.add_middleware(HostFilter, settings=settings)
    app.add_middleware(Instrumentation, measures=app.state.measures)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    gateway: Gateway = app.state.gateway
    async with delivering(gateway):
        yield
        gateway.close()
    gateway.redis.close()
