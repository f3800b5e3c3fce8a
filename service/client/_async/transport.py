"""The two ways to a server, blocking and not, behind one interface: all else is written once, as coroutines.

Against a `BlockingWire` a coroutine never suspends, so that `run` drives it to its end without an event loop,
inside one too, as in a notebook.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import anyio
import httpx
from anyio.lowlevel import RunVar
from pydantic import BaseModel, ValidationError

from proxygrad.version import __version__
from service.client import retries
from service.client.config import Account, check_times
from service.client.errors import ServiceError, Unusable, refusal, translated, unreadable
from service.client.retries import Call, Patience

T = TypeVar("T")
Answer = TypeVar("Answer", bound=BaseModel)

#: Connections at once: an event stream or a long poll holds one while it lasts. A process may commonly have
#: 1024 files open.
LIMITS = httpx.Limits(max_connections=500, max_keepalive_connections=100)

_LOOP: RunVar[object] = RunVar("service.client loop")


class Wire(ABC):
    """A way to a server. ``timeout_s``: for one request, beyond the wait that it asks for."""

    def __init__(self, account: Account, timeout_s: float, patience: Patience) -> None:
        check_times(timeout_s, patience.retries, patience.for_s)
        self.address = account.address
        self.timeout_s = timeout_s
        self.patience = patience

    @abstractmethod
    async def send(self, call: Call, *, stream: bool = False) -> httpx.Response:
        """Send it once, without looking at the answer; of a stream, its head. Raises `ServiceError`."""

    @abstractmethod
    def chunks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """The body of a stream as it comes. Raises `ServiceUnreachable` when it breaks off."""

    @abstractmethod
    async def close(self, response: httpx.Response) -> None:
        """Let go of a stream."""

    @abstractmethod
    async def pause(self, seconds: float) -> None:
        """Wait."""

    async def answered(self, call: Call) -> httpx.Response:
        """The answer to a call, which is repeated as `Patience` has it. Raises `ServiceError`."""
        began_s, sound_s, paused_s, tries = time.monotonic(), 0.0, 0.0, 0
        while True:
            tries += 1
            try:
                return self.accepted(call, await self.send(call))
            except ServiceError as error:
                if retries.was_gone(call, error, tries):
                    return httpx.Response(httpx.codes.NO_CONTENT)
                spent_s = max(sound_s + paused_s, time.monotonic() - began_s)
                sound_s = spent_s if tries == 1 else sound_s
                pause_s = self.patience.pause_s(call, error, tries, spent_s, sound_s)
                if pause_s is None:
                    raise
                retries.note(error, pause_s)
            paused_s += pause_s
            await self.pause(pause_s)

    async def read(self, call: Call, kind: type[Answer]) -> Answer:
        """The answer as a document."""
        return self.document(await self.answered(call), kind)

    def accepted(self, call: Call, response: httpx.Response) -> httpx.Response:
        """The answer, if it is one of success. Raises `ServiceError`."""
        if not response.is_success:
            raise refusal(response, f"{self.address}{call.path}")
        return response

    def document(self, response: httpx.Response, kind: type[Answer]) -> Answer:
        """The body as a document. Raises `ServiceError` when it is another one."""
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise unreadable(self.address, response.status_code) from error


class BlockingWire(Wire):
    """Every coroutine of it returns without having been suspended."""

    def __init__(
        self, account: Account, timeout_s: float, patience: Patience, sleep: Callable[[float], None]
    ) -> None:
        super().__init__(account, timeout_s, patience)
        self._sleep = sleep
        self.http = httpx.Client(
            base_url=account.url, headers=_headers(account), limits=LIMITS, trust_env=not account.local
        )

    async def send(self, call: Call, *, stream: bool = False) -> httpx.Response:
        """Send it, blocking."""
        _open(self.http)
        with translated(self.address):
            return self.http.send(call.request(self.http, self.timeout_s), stream=stream)

    async def chunks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Each when it comes, blocking."""
        with translated(self.address):
            for chunk in response.iter_bytes():
                yield chunk

    async def close(self, response: httpx.Response) -> None:
        """Let go of a stream."""
        response.close()

    async def pause(self, seconds: float) -> None:
        """Wait, blocking."""
        self._sleep(seconds)


class AsyncWire(Wire):
    """For event loops."""

    def __init__(
        self,
        account: Account,
        timeout_s: float,
        patience: Patience,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        super().__init__(account, timeout_s, patience)
        self._sleep = sleep
        self._loop: object = None
        self.http = httpx.AsyncClient(
            base_url=account.url, headers=_headers(account), limits=LIMITS, trust_env=not account.local
        )

    async def send(self, call: Call, *, stream: bool = False) -> httpx.Response:
        """Send it."""
        _open(self.http)
        self._stay()
        with translated(self.address):
            return await self.http.send(call.request(self.http, self.timeout_s), stream=stream)

    async def chunks(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """Each when it comes."""
        with translated(self.address):
            async for chunk in response.aiter_bytes():
                yield chunk

    async def close(self, response: httpx.Response) -> None:
        """Let go of a stream."""
        with anyio.CancelScope(shield=True):
            await response.aclose()

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await self._sleep(seconds)

    def _stay(self) -> None:
        """The connections belong to the loop that opened them."""
        loop = _loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise Unusable("this AsyncClient belongs to another event loop: make one for each loop")


def _open(http: httpx.Client | httpx.AsyncClient) -> None:
    if http.is_closed:
        raise Unusable("this client has been closed: make another one")


def _loop() -> object:
    """Something that there is once for each event loop, and never again."""
    try:
        return _LOOP.get()
    except LookupError:
        _LOOP.set(found := object())
        return found


def _headers(account: Account) -> dict[str, str]:
    return {"User-Agent": f"proxygrad-client/{__version__}", **account.headers}


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine against a `BlockingWire` returns."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    coroutine.close()
    raise RuntimeError("a coroutine against a blocking wire was suspended")


def each(items: AsyncGenerator[T, None]) -> Iterator[T]:
    """What an asynchronous generator against a `BlockingWire` yields."""
    try:
        while True:
            try:
                item = run(_next(items))
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(_close(items))


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)


async def _close(items: AsyncGenerator[T, None]) -> None:
    await items.aclose()
