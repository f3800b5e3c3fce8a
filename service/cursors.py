"""Where a page of a list begins: cursors, which have no meaning for callers."""

from __future__ import annotations

import base64
import binascii
import json
import math

from service.problems import Flaw, Refusal
from workers.jobs import Entry


def cursor_of(entry: Entry) -> str:
    """The cursor of a page that goes on behind ``entry``."""
    text = json.dumps([entry.created_at, entry.job_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def entry_of(cursor: str) -> Entry:
    """Where a page begins. Refuses what is no cursor of ours."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        created_at, job_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if isinstance(created_at, float) and math.isfinite(created_at) and isinstance(job_id, str):
            return Entry(created_at, job_id)
    except (ValueError, binascii.Error, RecursionError):
        pass
    flaw = Flaw(location=["query", "cursor"], detail="not one of a `next` link", value=cursor)
    raise Refusal("invalid_request", f"query.cursor: {cursor!r} comes from no `next` link of a page", [flaw])
