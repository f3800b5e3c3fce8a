"""Lists that come a page at a time, as one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel

from proxygrad.protocol.pagination import PageLinks
from proxygrad.protocol.visualizations import VisualizationSummary
from service.client._async.transport import Wire
from service.client.errors import unreadable
from service.client.retries import Call

Item = TypeVar("Item")


class VisualizationPage(BaseModel):
    """Some of what was asked, the newest first; `service.api.listing` has the whole document."""

    visualizations: list[VisualizationSummary]
    links: PageLinks


P = TypeVar("P", bound=BaseModel)


async def paged(
    wire: Wire,
    path: str,
    params: Mapping[str, Any],
    kind: type[P],
    items: Callable[[P], tuple[Sequence[Item], PageLinks]],
) -> AsyncGenerator[Item, None]:
    """Every item of every page."""
    cursor: str | None = None
    while True:
        page = await wire.read(Call("GET", path, {**params, "cursor": cursor}), kind)
        found, links = items(page)
        for item in found:
            yield item
        if links.next is None:
            return
        cursor = _cursor(links.next, cursor, wire)


def _cursor(link: str, last: str | None, wire: Wire) -> str:
    """The cursor alone: the key goes to no address that an answer names."""
    found = parse_qs(urlsplit(link).query).get("cursor", [])
    if not found or found[0] == last:
        raise unreadable(wire.address, 200)
    return found[0]
