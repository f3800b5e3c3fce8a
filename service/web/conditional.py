"""Conditional and partial requests (RFC 9110, sections 8.8, 13 and 14): entity tags and byte ranges."""

from __future__ import annotations

import re

_ONE_RANGE = re.compile(r"bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.IGNORECASE)


class Unsatisfiable(Exception):
    """The range begins beyond the end."""


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names `etag` (weak comparison, or `*`)."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag in tags or "*" in tags


def requested_range(header: str | None, if_range: str | None, etag: str, size: int) -> range | None:
    """The bytes of a `Range` header within `size` bytes; None where all of them are to be sent.

    All are sent where there is no range, where it cannot be understood, where there are several (a server may
    do so), and where `If-Range` names anything but `etag`, which never changes. Raises `Unsatisfiable`.
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = match[1], match[2]
    if not first and not last:
        return None
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), size if not last else min(size, int(last) + 1)
        if last and int(last) < int(first):
            return None  # not a range at all
    if start >= stop:
        raise Unsatisfiable
    return range(start, stop)
