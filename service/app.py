"""The gateway: HTTP in front of the queue, the catalogue and the store. Needs no torch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from proxygrad.spec import Spec
from proxygrad.version import __version__
from service import events, health, images, lifecycle, listing, models, visualizations
from service.auth import Authentication
from service.bodies import Bounds
from service.gateway import Gateway
from service.hosts import CORS, Hosts
from service.problems import ProblemDetails
from service.security import describe_keys
from service.settings import Settings
from service.translation import install
from workers.errors import SettingsError
from workers.jobs import Request
from workers.settings import connect
from workers.storage import Store

DESCRIPTION = "Ask what a unit of a network responds to; get the picture and what it truly achieves."

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
    app = FastAPI(
        title="ProxyGrad Service",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        redirect_slashes=False,
        # One schema for a question, whether sent or repeated: the one that says what may be left out.
        separate_input_output_schemas=False,
    )
    app.state.gateway = gateway
    install(app)
    for resource in (visualizations, listing, lifecycle, images, events, models, health):
        app.include_router(resource.router)
    _document(app)
    _guard(app, gateway)
    return app


def _guard(app: FastAPI, gateway: Gateway) -> None:
    """What every request passes before any route; the last that is added comes first."""
    settings = gateway.settings
    app.add_middleware(Authentication, gateway=gateway)
    app.add_middleware(Bounds, max_body_bytes=settings.max_body_bytes)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **CORS)
    app.add_middleware(Hosts, settings=settings)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    gateway: Gateway = app.state.gateway
    gateway.close()
    gateway.redis.close()


def _document(app: FastAPI) -> None:
    """Make the OpenAPI document say what this gateway does where FastAPI guesses."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        for methods in document["paths"].values():
            for operation in methods.values():
                # Guessed for every route with a parameter; those that can fail name `ProblemDetails`.
                if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                    del operation["responses"]["422"]
        for guessed in ("HTTPValidationError", "ValidationError"):
            schemas.pop(guessed, None)
        for model in (Request, Spec, ProblemDetails):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[model.__name__] = schema
        describe_keys(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
