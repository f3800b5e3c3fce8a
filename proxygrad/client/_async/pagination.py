"""Iterates over all pages of a list."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from proxygrad.client._async.transport import AsyncTransport
from proxygrad.client.errors import unreadable
from proxygrad.client.retries import ApiCall
from proxygrad.protocol.attributions import AttributionPage
from proxygrad.protocol.batches import BatchPage, BatchUnitPage
from proxygrad.protocol.visualizations import VisualizationPage

Item = TypeVar("Item")
Page = TypeVar("Page", VisualizationPage, AttributionPage, BatchPage, BatchUnitPage)


async def paginate(
    transport: AsyncTransport,
    path: str,
    params: Mapping[str, Any],
    kind: type[Page],
    items: Callable[[Page], Sequence[Item]],
) -> AsyncGenerator[Item]:
    """The items of all pages; each page is read when the iteration reaches it."""
    cursor: str | None = None
    while True:
        page = await transport.read(ApiCall("GET", path, {**params, "cursor": cursor}), kind)
        for item in items(page):
            yield item
        if page.links.next is None:
            return
        cursor = _next_cursor(page.links.next, cursor, transport)


def _next_cursor(link: str, last: str | None, transport: AsyncTransport) -> str:
    """The cursor of a link. Nothing else of it is used, so that a response cannot lead the key elsewhere."""
    cursors = parse_qs(urlsplit(link).query).get("cursor", [])
    if not cursors or cursors[0] == last:
        raise unreadable(transport.address, 200)
    return cursors[0]
