"""HTTP transport of the asynchronous client: sends calls, repeats those that failed, parses documents."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from proxygrad.client import retries
from proxygrad.client.concurrency import AsyncSleep, LoopGuard, async_shield
from proxygrad.client.config import ClientConfig
from proxygrad.client.errors import ClientClosed, ServiceError, response_error, translated, unreadable
from proxygrad.client.retries import ApiCall

Document = TypeVar("Document", bound=BaseModel)

#: Connections at once: an event stream or a long poll holds one while it lasts. A process may commonly have
#: 1024 files open.
LIMITS = httpx.Limits(max_connections=500, max_keepalive_connections=100)


class AsyncTransport:
    """Connections to one server. ``sleep`` makes the pauses between tries."""

    def __init__(self, config: ClientConfig, sleep: AsyncSleep) -> None:
        self.address = config.address
        self.retry_policy = config.retry_policy
        self.sleep = sleep
        self._timeout_s = config.timeout_s
        self._loop = LoopGuard()  # async only
        self._http = httpx.AsyncClient(
            base_url=config.url, headers=config.headers, limits=LIMITS, trust_env=not config.local
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def send(self, call: ApiCall, *, stream: bool = False) -> httpx.Response:
        """Send a call once, whatever its status. ``stream``: without the body. Raises `ServiceError`."""
        if self._http.is_closed:
            raise ClientClosed("this client has been closed: make another one")
        self._loop.check()  # async only
        with translated(self.address):
            return await self._http.send(call.request(self._http, self._timeout_s), stream=stream)

    async def request(self, call: ApiCall) -> httpx.Response:
        """A successful response; failed tries are repeated by the `RetryPolicy`. Raises `ServiceError`."""
        began_s, healthy_s, paused_s, tries = time.monotonic(), 0.0, 0.0, 0
        while True:
            tries += 1
            try:
                return self._checked(call, await self.send(call))
            except ServiceError as error:
                if retries.deleted_before(call, error, tries):
                    return httpx.Response(httpx.codes.NO_CONTENT)
                elapsed_s = max(healthy_s + paused_s, time.monotonic() - began_s)
                healthy_s = elapsed_s if tries == 1 else healthy_s
                pause_s = self.retry_policy.pause_s(call, error, tries, elapsed_s, healthy_s)
                if pause_s is None:
                    raise
                retries.log_pause(error, pause_s)
            paused_s += pause_s
            await self.sleep(pause_s)

    async def read(self, call: ApiCall, kind: type[Document]) -> Document:
        """The document of a successful response. Raises `ServiceError`."""
        return self.parse(await self.request(call), kind)

    def parse(self, response: httpx.Response, kind: type[Document]) -> Document:
        """The body as a document. Raises `ServiceError` if it is none of that kind."""
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise unreadable(self.address, response.status_code) from error

    async def chunks(self, response: httpx.Response) -> AsyncGenerator[bytes]:
        """The body of a stream as it comes. Raises `ServiceUnreachable` when it breaks off."""
        with translated(self.address):
            async for chunk in response.aiter_bytes():
                yield chunk

    async def close_stream(self, response: httpx.Response) -> None:
        """Close a stream, also during a cancellation."""
        with async_shield():
            await response.aclose()

    def _checked(self, call: ApiCall, response: httpx.Response) -> httpx.Response:
        if not response.is_success:
            raise response_error(response, f"{self.address}{call.path}")
        return response
