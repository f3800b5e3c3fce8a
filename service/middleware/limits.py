"""Limits on the header and body of a request: size, number of fields, and time to arrive.

Nothing larger than the limit is ever held in memory, whatever `Content-Length` says. The time of a body
begins when the service first reads it; the time of a header is limited by `service.server.protocol`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.middleware.base import HttpMiddleware
from service.problems import ProblemError
from service.web.exception_handlers import respond
from service.web.multipart import is_multipart

#: Time of a body, from its first read to its end: 64 KiB in 10 s are 52 kbit/s, slower than any modem.
BODY_S = 10.0
#: The same for a body with a picture: 8 MiB in 60 s are 1.1 Mbit/s.
UPLOAD_S = 60.0
#: As many headers as common servers take (Apache's LimitRequestFields), and as many bytes as h11 holds.
MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024

#: Of a body that is too large so much is read and dropped before the answer, in so many seconds: who is still
#: sending would see a connection that is reset, and nginx answer 502. It is nginx' own limit of a body.
MAX_DROPPED_BYTES = 1024 * 1024
DROPPING_S = 2.0

#: The rest of such a request is not read: the connection ends with the answer.
_CLOSE = {"Connection": "close"}


@dataclass(frozen=True)
class BodyLimit:
    """How large a body may be, and the variable that says so. ``uploads``: it holds a file."""

    max_bytes: int
    variable: str = "PROXYGRAD_MAX_BODY_BYTES"
    uploads: bool = False

    @property
    def arrives_s(self) -> float:
        """How long it may take to arrive."""
        return UPLOAD_S if self.uploads else BODY_S


class RequestLimits(HttpMiddleware):
    """ASGI middleware: answers requests beyond the limits with 408, 413 or 431.

    ``upload_path``: where a body of ``multipart/form-data`` may have ``max_upload_bytes``.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int, upload_path: str) -> None:
        super().__init__(app)
        self._limit = BodyLimit(max_body_bytes)
        self._upload_limit = BodyLimit(
            max(max_upload_bytes, max_body_bytes), "PROXYGRAD_MAX_UPLOAD_BYTES", uploads=True
        )
        self._upload_path = upload_path

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the header, and pass the request on with a limited body."""
        try:
            _check_header(scope)
            headers = Headers(scope=scope)
            body = _Body(receive, self._limit_of(scope, headers))
            await body.check_announced(headers)
        except ProblemError as error:
            await respond(error)(scope, receive, send)
            return
        await self.app(scope, body, send)

    def _limit_of(self, scope: Scope, headers: Headers) -> BodyLimit:
        uploads = scope.get("method") == "POST" and scope["path"] == self._upload_path
        return self._upload_limit if uploads and is_multipart(headers) else self._limit


class _Body:
    """`receive` that raises `ProblemError` for a body that is too large or takes too long."""

    def __init__(self, receive: Receive, limit: BodyLimit) -> None:
        self._receive = receive
        self._limit = limit
        self._max_bytes = limit.max_bytes
        self._size = 0
        self._deadline_s: float | None = None
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._deadline_s is None:
            self._deadline_s = time.monotonic() + self._limit.arrives_s
        try:
            async with asyncio.timeout(self._deadline_s - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            detail = f"only {self._size} bytes of the body arrived within {self._limit.arrives_s:g} s"
            raise ProblemError("request_timeout", detail, headers=_CLOSE) from None
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._size > self._max_bytes:
                await self._drop()
                raise self._too_large()
        return message

    async def check_announced(self, headers: Headers) -> None:
        """Refuse a body whose `Content-Length` is too large, without holding it."""
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._max_bytes:
            waits = "expect" in headers  # for leave to send it
            if int(length[:20]) <= MAX_DROPPED_BYTES and not waits:
                await self._drop()
            raise self._too_large()

    async def _drop(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DROPPING_S):
                while not self._complete and self._size <= MAX_DROPPED_BYTES:
                    message = await self._receive()
                    self._size += len(message.get("body", b""))
                    self._complete = not message.get("more_body", False)

    def _too_large(self) -> ProblemError:
        detail = f"the body is larger than {self._max_bytes} bytes ({self._limit.variable})"
        return ProblemError("body_too_large", detail, headers={} if self._complete else _CLOSE)


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
