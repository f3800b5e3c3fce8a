"""What the query of every list may say: where a page begins, how long it is, what is on it.

A cursor names the last entry of the page before; it has no meaning for callers.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query

from proxygrad.protocol.pagination import MAX_LIMIT, PageLinks
from proxygrad.protocol.problems import FieldError
from service.problems import ProblemError
from workers.jobs.repository import IndexEntry

#: Values of one filter.
MAX_CHOICES = 50

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most of one page.")]
Cursor = Annotated[
    str | None, Query(max_length=200, description="From `links.next`; has no meaning of its own.")
]


def only(what: str, most: int = MAX_CHOICES) -> Any:
    """A filter: a query parameter of up to ``most`` values, any of which fits ``what`` is listed."""
    return Query(default_factory=list, max_length=most, description=f"Only {what}; repeatable.")


def page_links(
    path: str, query: Sequence[tuple[str, str]], cursor: str | None, next_cursor: str | None
) -> PageLinks:
    """The links of the page at ``cursor``; ``query``: its other parameters."""

    def at(start: str | None) -> str:
        return f"{path}?{urlencode(query if start is None else [*query, ('cursor', start)])}"

    return PageLinks(self=at(cursor), next=None if next_cursor is None else at(next_cursor))


def cursor_of(entry: IndexEntry) -> str:
    """The cursor of a page that goes on behind ``entry``."""
    text = json.dumps([entry.created_at, entry.job_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def entry_of(cursor: str) -> IndexEntry:
    """Where a page begins. Refuses what is no cursor of ours."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        created_at, job_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if isinstance(created_at, float) and math.isfinite(created_at) and isinstance(job_id, str):
            return IndexEntry(created_at, job_id)
    except (ValueError, binascii.Error, RecursionError):
        pass
    flaw = FieldError(location=["query", "cursor"], detail="not one of a `next` link", value=cursor)
    raise ProblemError(
        "invalid_request", f"query.cursor: {cursor!r} comes from no `next` link of a page", [flaw]
    )
