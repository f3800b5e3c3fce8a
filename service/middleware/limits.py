"""How much a request may bring, and how slowly: its header, its body, and how deep the JSON in it goes.

Nothing larger than the limit is ever held, whatever `Content-Length` says; a body has so many seconds from
when the service begins to read it. How long the header itself may take is for `service.server.protocol`.
"""

from __future__ import annotations

import asyncio
import re
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import ProblemError
from service.web.exception_handlers import respond

#: Of a body, from the first look at it to its end: 64 KiB in 10 s are 52 kbit/s, slower than any modem.
BODY_S = 10.0
#: As many headers as common servers take (Apache's LimitRequestFields), and as many bytes as h11 holds.
MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024
#: The deepest document of this interface has 6 levels.
MAX_DEPTH = 32

#: The rest of such a request is not read: the connection ends with the answer.
_CLOSE = {"Connection": "close"}
#: A JSON string, or one bracket. Possessive, so that it takes time in proportion to the text, whatever it is.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\(?:.|\Z))*+"?|[\[\]{}]', re.DOTALL)


class RequestLimits:
    """ASGI middleware: bounds header and body of each request."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            _check_header(scope)
            body = _Body(receive, self._max_body_bytes)
            body.check_announced(Headers(scope=scope))
        except ProblemError as refusal:
            await respond(refusal)(scope, receive, send)
            return
        await self._app(scope, body, send)


class _Body:
    """`receive` that raises `ProblemError` for a body that is too large or takes too long."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._size = 0
        self._until_s: float | None = None
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        if self._until_s is None:
            self._until_s = time.monotonic() + BODY_S
        try:
            async with asyncio.timeout(self._until_s - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            detail = f"of the body {self._size} bytes came within {BODY_S:g} s, and its end did not"
            raise ProblemError("request_timeout", detail, headers=_CLOSE) from None
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._size > self._max_bytes:
                raise self._too_large()
        return message

    def check_announced(self, headers: Headers) -> None:
        """Refuse a body that says itself that it is too large, before it is asked for."""
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._max_bytes:
            raise self._too_large()

    def _too_large(self) -> ProblemError:
        detail = f"the body is larger than {self._max_bytes} bytes (PROXYGRAD_MAX_BODY_BYTES)"
        return ProblemError("body_too_large", detail, headers=_CLOSE)


def _check_header(scope: Scope) -> None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    target = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
    size = target + sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        detail = (
            f"the header has {len(headers)} fields and, with the path, {size} bytes; "
            f"valid: at most {MAX_HEADERS} and {MAX_HEADER_BYTES}"
        )
        raise ProblemError("headers_too_large", detail, headers=_CLOSE)


def check_depth(body: bytes) -> None:
    """Refuse JSON nested deeper than `MAX_DEPTH` with `json_too_deep`, before anything recursive reads it."""
    depth = 0
    for found in _TOKENS.finditer(body):
        token = found[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise ProblemError("json_too_deep", f"the body is nested deeper than {MAX_DEPTH} levels")
        elif token in (b"]", b"}"):
            depth -= 1
