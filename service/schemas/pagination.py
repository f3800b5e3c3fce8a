"""Pages of lists, as documents: shared by the routes and the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self
from urllib.parse import urlencode

from pydantic import BaseModel, Field


class PageLinks(BaseModel):
    """References relative to this server."""

    self: str = Field(description="This page.")
    next: str | None = Field(description="The next page; `null` on the last.")

    @classmethod
    def of(
        cls, path: str, query: Sequence[tuple[str, str]], cursor: str | None, following: str | None
    ) -> Self:
        """Of a page that begins at ``cursor`` and is gone on with at ``following``; ``query``: the rest."""

        def at(start: str | None) -> str:
            return f"{path}?{urlencode(query if start is None else [*query, ('cursor', start)])}"

        return cls(self=at(cursor), next=None if following is None else at(following))
