"""Allowed hosts and origins: which names this server answers to, and which sites' pages may send requests.

A page in somebody's browser can reach a server that listens on loopback: by a name of its own that it lets
point there (DNS rebinding), which the `Host` header shows, or by requests whose responses it cannot read,
which the `Origin` header shows.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from proxygrad.protocol.addresses import is_loopback
from proxygrad.protocol.problems import FieldError
from service.middleware.base import HttpMiddleware
from service.problems import ProblemError
from service.settings import ServiceSettings
from service.web.exception_handlers import respond
from service.web.paths import PROBES, READING, SCRAPED

#: What pages of `cors_origins` may send: keys, but no cookies, of which there are none.
CORS: dict[str, Any] = {
    "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
    "allow_headers": [
        *("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "If-Range", "Last-Event-ID"),
        *("Prefer", "Range", "X-Request-ID"),
    ],
    "expose_headers": [
        *("Content-Range", "ETag", "Location", "Preference-Applied", "RateLimit", "RateLimit-Policy"),
        *("Retry-After", "WWW-Authenticate", "X-Request-ID"),
    ],
    "max_age": 600,
}


class HostFilter(HttpMiddleware):
    """ASGI middleware: answers requests for other hosts with 421, those from other sites' pages with 403."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        super().__init__(app)
        self._allowed = settings.allowed_hosts
        self._loopback_only = not settings.allowed_hosts and not settings.keys_required
        self._origins = settings.cors_origins
        self._exempt = PROBES | SCRAPED if settings.keys_required else PROBES

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check `Host` and `Origin`, and answer the request or pass it on."""
        if scope["path"] not in self._exempt:
            try:
                self._check(Headers(scope=scope), scope["method"])
            except ProblemError as error:
                await respond(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, headers: Headers, method: str) -> None:
        host = headers.get("host", "")
        if not self._answers_to(hostname(host)):
            valid = ", ".join(self._allowed) or "localhost and loopback addresses"
            field_error = FieldError(location=["header", "host"], detail="another host", value=host[:200])
            detail = (
                f"this server does not answer for {host[:200]!r}; valid: {valid} (PROXYGRAD_ALLOWED_HOSTS)"
            )
            raise ProblemError("unknown_host", detail, [field_error])
        origin = headers.get("origin")
        if origin is not None and method not in READING and not self._may_come_from(origin, host):
            field_error = FieldError(location=["header", "origin"], detail="another site", value=origin[:200])
            detail = f"pages of {origin[:200]!r} may not ask this server (PROXYGRAD_CORS_ORIGINS)"
            raise ProblemError("forbidden", detail, [field_error])

    def _answers_to(self, name: str) -> bool:
        if self._loopback_only:
            return _is_loopback(name)
        return not self._allowed or is_among(name, self._allowed)

    def _may_come_from(self, origin: str, host: str) -> bool:
        return origin in self._origins or origin.partition("://")[2].lower() == host.lower()


#: Hosts come from callers, the same few again and again.
_is_loopback = lru_cache(256)(is_loopback)


@lru_cache(256)
def hostname(host: str) -> str:
    """The name in a `Host` header: no port, no brackets, lower case; empty for an invalid one."""
    try:
        parts = urlsplit(f"//{host}")
        return "" if parts.username or parts.path or parts.query else (parts.hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_among(name: str, patterns: Collection[str]) -> bool:
    """Whether ``name`` is one of the patterns, or a name below one that begins with ``*.``."""
    return any(name == each or (each[:2] == "*." and name.endswith(each[1:])) for each in patterns)
