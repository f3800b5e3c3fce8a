"""Request ids: `X-Request-ID` of a request and its response, and in every log line between them."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable

from starlette.types import Message, Receive, Scope, Send

from service.middleware.base import HttpMiddleware
from workers.logs import RequestContext, request

#: As proxies make them: UUIDs, hex digits, `Root=1-67891233-abcdef012345678912345678`.
#: Keys of this service (`service.auth.keys`), sent in the wrong header, are none of them.
_SANE = re.compile(rb"(?!.*pg_[0-9a-f]{12}_)[A-Za-z0-9._:=+/-]{1,128}")
_HEADER = b"x-request-id"


class RequestId(HttpMiddleware):
    """ASGI middleware: gives each request an id, that of its header where it is sane, and sends it back.

    It goes around the whole application, so that the answer to an unexpected error has it too.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its id."""
        own = _given(scope) or secrets.token_hex(16).encode()

        def sending(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (_HEADER, own)]}
            return send(message)

        # Not reset: the server logs what the application raises after this has ended, in the same context.
        request.set(RequestContext(own.decode(), time.monotonic()))
        await self.app(scope, receive, sending)


def _given(scope: Scope) -> bytes | None:
    """The id that the caller or a proxy chose; None for none, and for what should not stand in a log."""
    given: list[bytes] = [value for name, value in scope["headers"] if name == _HEADER]
    return given[0] if len(given) == 1 and _SANE.fullmatch(given[0]) else None
