"""The gateway application: HTTP in front of the queue, the catalog and the store. Needs no torch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from copy import copy
from typing import TypeGuard

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from redis.exceptions import RedisError
from starlette.routing import BaseRoute

from proxygrad.protocol.addresses import ATTRIBUTIONS
from service.addresses import networks
from service.api import (
    atlas,
    batches,
    events,
    health,
    images,
    jobs,
    metrics,
    models,
    visualizations,
    webhooks,
)
from service.api.attributions import ROUTES as attributions
from service.auth.key_ring import KeyRing
from service.auth.keys import Keys
from service.auth.rate_limit import RateLimiter
from service.backend.backend import Backend
from service.backend.circuit_breaker import STATES
from service.middleware.authentication import Authentication
from service.middleware.compression import Compression
from service.middleware.hosts import CORS, HostFilter
from service.middleware.instrumentation import Instrumentation
from service.middleware.limits import RequestLimits
from service.middleware.public_address import PublicAddress
from service.pages import index, reference
from service.settings import ServiceSettings
from service.telemetry.requests import RequestMetrics
from service.web import openapi
from service.web.exception_handlers import install
from service.webhooks.dispatcher import delivering
from service.webhooks.signing import Signer
from workers.broker.connection import connect
from workers.errors import SettingsError
from workers.storage.store import Store

#: Callers hear within a few seconds that Redis is away. No retries: each would multiply with those of
#: connecting (one made it 10 s), and a connection that Redis closed is noticed before use. Two seconds,
#: because a server that syncs its log to a slow disk may pause.
REDIS_RETRIES = 0
REDIS_TIMEOUT_S = 2.0


def create_app(settings: ServiceSettings) -> FastAPI:
    """The ASGI application. Opens the store; connects to Redis with the first request that needs it.

    Raises `SettingsError` when no Redis is named and `StorageError` when the store cannot be used.
    """
    if settings.redis_url is None:
        raise SettingsError("REDIS_URL is not set; name a server, or let `proxygrad serve` bring its own")
    redis = connect(settings.redis_url, retries=REDIS_RETRIES, timeout_s=REDIS_TIMEOUT_S)
    backend = Backend(settings, redis, Store.from_url(settings.store_url))
    app = routed()
    app.state.backend = backend
    app.state.metrics = RequestMetrics(
        lambda: backend.events.followers, lambda: backend.breaker.state, STATES
    )
    _add_middleware(app, backend)
    return app


def routed() -> FastAPI:
    """An application with every route and no backend: what it takes to describe them."""
    app = FastAPI(lifespan=_lifespan, redirect_slashes=False, **openapi.skeleton())
    install(app)
    resources = (
        visualizations,
        images,
        events,
        *attributions,
        batches,
        atlas,
        jobs,
        webhooks,
        models,
        health,
        metrics,
    )
    mount_flat(app, (resource.router for resource in (*resources, index, reference)))
    openapi.describe(app)
    app.router.routes += [_head_of(route) for route in app.routes if _reads(route)]
    return app


def mount_flat(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Add the routes of the routers to the application's own table.

    `FastAPI.include_router` would put a router in between, which takes 12 to 30 µs of each request. The
    prefix, tags and dependencies of a router are in its routes already; those that `include_router` takes are
    not needed here.
    """
    for router in routers:
        app.router.routes += router.routes


def _reads(route: BaseRoute) -> TypeGuard[APIRoute]:
    """Whether it answers GET; a server must answer HEAD there too (RFC 9110, section 9.1)."""
    return isinstance(route, APIRoute) and "GET" in (route.methods or ())


def _head_of(route: APIRoute) -> APIRoute:
    """The same for HEAD: the server sends the header of the response alone."""
    head = copy(route)
    head.methods, head.include_in_schema = {"HEAD"}, False
    return head


def _add_middleware(app: FastAPI, backend: Backend) -> None:
    """Add the layers around the routes; the last one that is added is the outermost."""
    settings = backend.settings
    app.add_middleware(
        Authentication,
        ring=KeyRing(Keys(backend.redis).all, backend.call, required=settings.keys_required),
        limiter=RateLimiter(backend.redis),
        send_command=backend.send,
    )
    app.add_middleware(
        RequestLimits,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        upload_path=ATTRIBUTIONS,
    )
    app.add_middleware(Compression)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **CORS)
    app.add_middleware(HostFilter, settings=settings)
    app.add_middleware(Instrumentation, metrics=app.state.metrics)
    app.add_middleware(PublicAddress, public_url=settings.public_url)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    backend: Backend = app.state.backend
    private, signer = networks(backend.settings.webhook_private), Signer(backend.settings.webhook_secret)
    with suppress(RedisError):  # it may come later
        await backend.start()
    public_url, now = backend.settings.public_url, backend.clock.now_s
    async with delivering(
        backend.deliveries, backend.allowed_hosts, private, signer, now, backend.call, public_url=public_url
    ):
        yield
        backend.close()
    backend.redis.close()
