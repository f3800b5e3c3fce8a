"""Authentication and rate limits: each request needs a key where keys are in force, before any route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth.callers import ANYBODY, STATE, Caller
from service.auth.key_ring import KeyRing
from service.auth.rate_limit import Allowance, RateLimiter
from service.auth.scopes import Scope as KeyScope
from service.middleware.base import HttpMiddleware
from service.problems import ProblemError
from service.web.exception_handlers import redis_problem, respond
from service.web.paths import OPEN_PATHS, READING, WITHOUT_REDIS
from workers.broker.pipeline import RedisCommand


class Authentication(HttpMiddleware):
    """ASGI middleware: gives each request its `Caller`, or answers it with 401, 403, 429 or 503.

    ``send_command`` sends a command to Redis.
    """

    def __init__(
        self,
        app: ASGIApp,
        ring: KeyRing,
        limiter: RateLimiter,
        send_command: Callable[[RedisCommand[Allowance]], Awaitable[Allowance]],
    ) -> None:
        super().__init__(app)
        self._ring = ring
        self._limiter = limiter
        self._send_command = send_command

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate the request, and answer it or pass it on."""
        if scope["path"] in OPEN_PATHS:
            scope.setdefault("state", {})[STATE] = ANYBODY
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            caller, allowance = await self._admitted(request)
        except ProblemError as error:
            await respond(error)(scope, receive, send)
            return
        except RedisError as error:
            await respond(redis_problem(request, error))(scope, receive, send)
            return
        scope.setdefault("state", {})[STATE] = caller
        await self.app(scope, receive, _with_headers(send, allowance) if allowance else send)

    async def _admitted(self, request: Request) -> tuple[Caller, Allowance | None]:
        authorization = request.headers.get("authorization")
        try:
            caller, allowance = await self._limited(authorization)
        except RedisError:
            if request.scope["path"] not in WITHOUT_REDIS:
                raise
            caller, allowance = self._ring.caller_without_redis(authorization), None
        _check_scope(caller, request.method)
        return caller, allowance

    async def _limited(self, authorization: str | None) -> tuple[Caller, Allowance | None]:
        caller, rate_per_min = await self._ring.caller(authorization)
        allowance = None
        if rate_per_min is not None:
            allowance = await self._send_command(self._limiter.take(caller.name, rate_per_min))
            if not allowance.granted:
                raise ProblemError(
                    "rate_limited",
                    f"this key may make {rate_per_min} requests a minute",
                    retry_after_s=allowance.retry_after_s,
                    headers=allowance.headers,
                )
        return caller, allowance


def _check_scope(caller: Caller, method: str) -> None:
    """Check that the caller's scopes allow the method. Raises `ProblemError` with `forbidden`."""
    needed: KeyScope = "read" if method in READING else "submit"
    if not caller.may(needed):
        scopes = ", ".join(sorted(caller.scopes))
        challenge = f'Bearer realm="proxygrad", error="insufficient_scope", scope="{needed}"'
        raise ProblemError(
            "forbidden",
            f"{method} needs a key with the scope {needed!r}; this one has: {scopes}",
            headers={"WWW-Authenticate": challenge},
        )


def _with_headers(send: Send, allowance: Allowance) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(allowance.headers)
        await send(message)

    return sending
