"""Pages of lists: their links and their limits."""

from __future__ import annotations

from pydantic import BaseModel, Field

#: Items of one page.
DEFAULT_LIMIT, MAX_LIMIT = 50, 200
#: Records scanned for one page: with filters that match few of them, a page is shorter than its limit.
MAX_SCANNED = 1000


class PageLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This page.")
    next: str | None = Field(description="The next page; `null` on the last.")
