"""Where callers see this service: behind a proxy that serves it below a prefix, under another name."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.middleware.base import HttpMiddleware
from service.web import links

#: Segments that need no quoting, so that a header can name nothing but a path of this host.
_PREFIX = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
#: As long as no path of this service.
_MOST_CHARACTERS = 200


class PublicAddress(HttpMiddleware):
    """ASGI middleware: lets links have the prefix under which a proxy serves this service.

    It is that of ``public_url``, or of the header `X-Forwarded-Prefix` without one. The proxy may leave it in
    the path or take it off.
    """

    def __init__(self, app: ASGIApp, public_url: str) -> None:
        super().__init__(app)
        parts = urlsplit(public_url)
        self._origin = f"{parts.scheme}://{parts.netloc}" if public_url else ""
        self._prefix = parts.path

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take the prefix off the path, and remember it for links."""
        if not scope["path"].startswith("/"):
            _resolve_absolute_form(scope)
        prefix = self._prefix if self._origin else _forwarded(scope)
        if not prefix and not self._origin:
            await self.app(scope, receive, send)
            return
        tokens = links.origin.set(self._origin), links.prefix.set(prefix)
        try:
            await self.app(_without(scope, prefix), receive, send)
        finally:
            links.origin.reset(tokens[0])
            links.prefix.reset(tokens[1])


def _forwarded(scope: Scope) -> str:
    """The prefix that a proxy names; empty for none, and for what is no plain path."""
    given = Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/")
    return given if len(given) <= _MOST_CHARACTERS and _PREFIX.fullmatch(given) else ""


def _without(scope: Scope, prefix: str) -> Scope:
    if not prefix or not f"{scope['path']}/".startswith(f"{prefix}/"):
        return scope
    return {**scope, "path": scope["path"][len(prefix) :] or "/"}


def _resolve_absolute_form(scope: Scope) -> None:
    """Take host and path from a target such as `http://host/path`, which proxies may send.

    Such a host counts before the header `Host` (RFC 9112, section 3.2.2).
    """
    scheme, separator, rest = scope["raw_path"].partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        host, slash, path = rest.partition(b"/")
        scope["raw_path"] = slash + path or b"/"
        scope["path"] = unquote(scope["raw_path"].decode("ascii"))
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [(b"host", host), *others]
