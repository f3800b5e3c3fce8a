"""Asks every request for its key, before anything else of the service sees it.

Keys are in force where Redis holds one, and always where other machines can reach the server. Once a process
has seen them in force they stay so until it ends, whatever becomes of Redis' data; without Redis nobody is
let in, but to the metrics of this process. What Redis holds is looked at again every few seconds, so that is
how long a revoked key still opens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth import keys
from service.auth.callers import ANYBODY, STATE, Caller
from service.auth.keys import Key, Keys, KeySet
from service.auth.rate_limit import Allowance, RateLimiter
from service.backend.gateway import Gateway
from service.problems import ProblemError
from service.web.exception_handlers import redis_refusal, respond

#: A key that was revoked, and the first key, take effect within so many seconds.
LOOK_AGAIN_S = 3.0
#: A key that does not fit makes one look again sooner: it may be new. Not more often than this.
LOOK_FOR_NEW_S = 0.5

#: Probes of whoever runs the server, and what the server says about itself to all: nothing of anybody's.
OPEN_PATHS = frozenset({"/livez", "/readyz", "/startupz", "/openapi.json", "/docs"})
#: Answered without Redis too, since they tell that it is away: by the keys as they were last seen.
WITHOUT_REDIS = frozenset({"/metrics"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})

_NO_KEYS = "a key is needed, and none has been made; the operator makes one with `proxygrad keys create NAME`"


class KeyRing:
    """One process's view of the keys, at most `LOOK_AGAIN_S` old. Safe to share between threads and loops.

    ``fetch`` blocks; ``call`` runs it where it may. ``required``: keys are in force though there be none.
    """

    def __init__(
        self,
        fetch: Callable[[], KeySet],
        call: Callable[[Callable[[], KeySet]], Awaitable[KeySet]],
        *,
        required: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._call = call
        self._required = required
        self._clock = clock
        self._known = KeySet({}, in_force=required)
        self._seen_at_s = self._failed_at_s = float("-inf")
        self._failure: RedisError | None = None
        self._looking = threading.Lock()

    async def known(self, at_most_s: float | None = None) -> KeySet:
        """The keys as they were no longer ago than that, by default `LOOK_AGAIN_S`.

        Raises `RedisError`: what is older opens nothing.
        """
        at_most_s = LOOK_AGAIN_S if at_most_s is None else at_most_s
        now_s = self._clock()
        if now_s - self._seen_at_s <= at_most_s:
            return self._known
        return await self._call(lambda: self._look(now_s, at_most_s))

    def _look(self, asked_at_s: float, at_most_s: float) -> KeySet:
        """One looks for all who wait; what it finds, or its failure, is theirs too."""
        with self._looking:
            if asked_at_s - self._seen_at_s <= at_most_s:
                return self._known
            if self._failure is not None and self._failed_at_s >= asked_at_s:
                raise self._failure
            began_s = self._clock()
            try:
                found = self._fetch()
            except RedisError as error:
                self._failed_at_s, self._failure = self._clock(), error
                raise
            self._required = self._required or found.in_force
            self._known = KeySet(found.keys, in_force=self._required)
            self._seen_at_s = began_s
            return self._known

    async def caller(self, authorization: str | None) -> tuple[Caller, int | None]:
        """Who sends this `Authorization`, and how many requests a minute it may make; None: any number.

        Raises `ProblemError` with `unauthorized`, and `RedisError`.
        """
        known = await self.known()
        if not known.in_force:
            return ANYBODY, None
        token = _bearer(authorization, known)
        key = keys.opened(token, known.keys)
        if key is None:
            known = await self.known(LOOK_FOR_NEW_S)
            key = keys.opened(token, known.keys)
        key = _valid(key)
        return Caller.of(key), key.rate_per_min

    def remembered(self, authorization: str | None) -> Caller:
        """Who sends it, by the keys as they were last seen, however long ago that is.

        Raises `ProblemError` with `unauthorized`, and `RedisError` where they never were seen.
        """
        if self._seen_at_s == float("-inf"):
            raise self._failure or RedisConnectionError("the keys have not been seen yet")
        if not self._known.in_force:
            return ANYBODY
        return Caller.of(_valid(keys.opened(_bearer(authorization, self._known), self._known.keys)))


def _valid(key: Key | None) -> Key:
    if key is None:
        raise _unauthorized("no such key", "invalid_token")
    state = key.state(time.time())
    if state != "valid":
        raise _unauthorized(f"the key {key.id} is {state}", "invalid_token")
    return key


def _bearer(authorization: str | None, known: KeySet) -> str:
    if authorization is None:
        raise _unauthorized(
            "a key is needed: `Authorization: Bearer pg_…`" if known.keys else _NO_KEYS, error=None
        )
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthorized("the scheme of Authorization must be Bearer", "invalid_request")
    return token.strip()


def _unauthorized(detail: str, error: str | None) -> ProblemError:
    """With the challenge that RFC 6750 section 3 asks for."""
    challenge = 'Bearer realm="proxygrad"' + (f', error="{error}"' if error else "")
    return ProblemError("unauthorized", detail, headers={"WWW-Authenticate": challenge})


def _permitted(caller: Caller, method: str) -> None:
    """Hold the caller's scopes against what it is about to do; refuses with `forbidden`."""
    needed: keys.Scope = "read" if method in _READING else "submit"
    if not caller.may(needed):
        had = ", ".join(sorted(caller.scopes))
        challenge = f'Bearer realm="proxygrad", error="insufficient_scope", scope="{needed}"'
        raise ProblemError(
            "forbidden",
            f"{method} needs a key with the scope {needed!r}; this one has: {had}",
            headers={"WWW-Authenticate": challenge},
        )


class Authentication:
    """ASGI middleware: lets a request through with its `Caller`, or answers it."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        self._ring = KeyRing(Keys(gateway.redis).all, gateway.call, required=gateway.settings.keys_required)
        self._rates = RateLimiter(gateway.redis)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            scope.setdefault("state", {})[STATE] = ANYBODY
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            caller, allowance = await self._admitted(request)
        except ProblemError as refusal:
            await respond(refusal)(scope, receive, send)
            return
        except RedisError as error:
            await respond(redis_refusal(request, error))(scope, receive, send)
            return
        scope.setdefault("state", {})[STATE] = caller
        await self._app(scope, receive, _with_headers(send, allowance) if allowance else send)

    async def _admitted(self, request: Request) -> tuple[Caller, Allowance | None]:
        authorization = request.headers.get("authorization")
        try:
            caller, allowance = await self._allowed(authorization)
        except RedisError:
            if request.scope["path"] not in WITHOUT_REDIS:
                raise
            caller, allowance = self._ring.remembered(authorization), None
        _permitted(caller, request.method)
        return caller, allowance

    async def _allowed(self, authorization: str | None) -> tuple[Caller, Allowance | None]:
        caller, rate_per_min = await self._ring.caller(authorization)
        allowance = None
        if rate_per_min is not None:
            allowance = await self._gateway.send(self._rates.take(caller.name, rate_per_min))
            if not allowance.granted:
                raise ProblemError(
                    "rate_limited",
                    f"this key may make {rate_per_min} requests a minute",
                    retry_after_s=allowance.retry_after_s,
                    headers=allowance.headers,
                )
        return caller, allowance


def _with_headers(send: Send, allowance: Allowance) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(allowance.headers)
        await send(message)

    return sending
