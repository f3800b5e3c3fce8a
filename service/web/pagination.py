"""Pages of lists: the query parameters that every list has, cursors, and the links of a page.

A cursor names the last entry of the page before; it has no meaning for callers.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query, Response

from proxygrad.protocol.pagination import MAX_LIMIT, PageLinks
from proxygrad.protocol.problems import FieldError
from service.problems import ProblemError
from service.web.links import link
from workers.jobs.repository import IndexEntry

#: Most values of one filter.
MAX_CHOICES = 50

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Maximum number per page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="From `links.next`; opaque.")]


def only(what: str, most: int = MAX_CHOICES) -> Any:
    """A filter: a query parameter with up to ``most`` values, one of which an item must match."""
    return Query(default_factory=list, max_length=most, description=f"Only {what}; repeatable.")


def page(
    response: Response,
    path: str,
    filters: Mapping[str, Sequence[str]],
    *,
    limit: int,
    cursor: str | int | None,
    end: IndexEntry | int | None,
) -> PageLinks:
    """The links of a page of the list at ``path``; forbids caches to keep the response.

    ``cursor``: where the page begins, None at the beginning of the list. ``end``: where it ends; None: it is
    the last page.
    """
    response.headers["Cache-Control"] = "no-store"
    query = [(name, value) for name, values in filters.items() for value in values]
    query.append(("limit", str(limit)))

    def beginning(begin: str | int | None) -> str:
        return f"{link(path)}?{urlencode([*query, ('cursor', str(begin))] if begin else query)}"

    following = cursor_of(end) if isinstance(end, IndexEntry) else end
    return PageLinks(self=beginning(cursor), next=None if following is None else beginning(following))


def cursor_of(entry: IndexEntry) -> str:
    """The cursor of the page that begins after ``entry``."""
    text = json.dumps([entry.created_at, entry.job_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def entry_of(cursor: str | None) -> IndexEntry | None:
    """The entry after which a page begins; None without a cursor. Raises `ProblemError` for a bad one."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        match json.loads(base64.b64decode(padded, altchars=b"-_", validate=True)):
            case [float() as created_at, str() as job_id] if math.isfinite(created_at):
                return IndexEntry(created_at, job_id)
    except (ValueError, binascii.Error, RecursionError):
        pass
    field_error = FieldError(location=["query", "cursor"], detail="not from a `next` link", value=cursor)
    raise ProblemError(
        "invalid_request", f"query.cursor: {cursor!r} comes from no `next` link of a page", [field_error]
    )
