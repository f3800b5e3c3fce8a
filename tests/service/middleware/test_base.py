"""Middleware sees HTTP requests alone."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from service.middleware.base import HttpMiddleware


class Marking(HttpMiddleware):
    """Writes into the scope that it has seen it."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["seen"] = True
        await self.app(scope, receive, send)


@pytest.mark.parametrize(("kind", "seen"), [("http", True), ("lifespan", False), ("websocket", False)])
def test_http_is_handled_and_other_scopes_are_passed_on(kind: str, seen: bool) -> None:
    arrived: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.append(scope)

    async def unused(*_: object) -> dict[str, object]:
        raise AssertionError

    async def request() -> None:
        await Marking(app)({"type": kind}, unused, unused)  # type: ignore[arg-type]

    asyncio.run(request())
    assert [("seen" in scope) for scope in arrived] == [seen]
