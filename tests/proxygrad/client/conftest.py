"""Both kinds of client behind one interface, in front of a gateway behind a real server."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from proxygrad.client import AsyncAttribution, AsyncBatch, AsyncClient, AsyncVisualization, Client
from tests.service.conftest import Http, app, http, info, patience, player, served, settings
from tests.support.flaky_server import Flaky, flaky
from tests.support.http_server import serving

QUESTION: dict[str, Any] = {"model": "digits", "layer": "layer3", "unit": 7}


class Awaited:
    """What an asynchronous object offers, without the awaiting."""

    def __init__(self, portal: BlockingPortal, inner: Any) -> None:
        self._portal = portal
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not inspect.ismethod(value):
            return value

        async def awaited(args: Any, kwargs: Any) -> Any:
            args = [each._inner if isinstance(each, Awaited) else each for each in args]
            found = value(*args, **kwargs)
            return await found if inspect.isawaitable(found) else found

        return lambda *args, **kwargs: self._wrapped(self._portal.call(awaited, args, kwargs))

    def _wrapped(self, found: Any) -> Any:
        if isinstance(found, AsyncGenerator):
            return self._each(found)
        if found is self._inner:
            return self
        resources = AsyncVisualization | AsyncAttribution | AsyncBatch
        return Awaited(self._portal, found) if isinstance(found, resources) else found

    def _each(self, items: AsyncGenerator[Any, None]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(items, None)

        try:
            while (item := self._portal.call(following)) is not None:
                yield self._wrapped(item)
        finally:
            self._portal.call(items.aclose)


class Pauses(list[float]):
    """Keeps how long each pause would have been, and makes none."""

    def make(self, seconds: float) -> None:
        self.append(seconds)

    async def make_async(self, seconds: float) -> None:
        self.append(seconds)


Connect = Callable[..., Any]

#: Fixtures of a gateway, with which the client is tested.
__all__ = ["app", "http", "info", "patience", "player", "served", "settings"]


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture(params=["blocking", "asynchronous"])
def connect(request: pytest.FixtureRequest, pauses: Pauses) -> Iterator[Connect]:
    """Make a client of either kind that pauses for no time; arguments as of `Client`."""
    with ExitStack() as opened:
        portal = opened.enter_context(start_blocking_portal())

        def make(*args: Any, **kwargs: Any) -> Any:
            sleep: Any = pauses.make if request.param == "blocking" else pauses.make_async
            kwargs = {"environ": {}, "sleep": sleep} | kwargs
            if request.param == "blocking":
                return opened.enter_context(Client(*args, **kwargs))
            client = AsyncClient(*args, **kwargs)
            opened.callback(portal.call, client.close)
            return Awaited(portal, client)

        yield make


@pytest.fixture
def url(served: Http, app: FastAPI) -> Iterator[str]:
    """The gateway's."""
    with serving(app) as url:
        yield url


@pytest.fixture
def client(url: str, connect: Connect) -> Any:
    """A client of either kind."""
    return connect(url)


@pytest.fixture
def shaky(url: str) -> Iterator[Flaky]:
    """What may happen on the way to the gateway."""
    with flaky(url) as server:
        yield server
