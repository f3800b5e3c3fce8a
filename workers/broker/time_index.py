"""Time indexes: sorted sets of ids, scored by when something happened, read from the newest to the oldest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import redis

#: Entries read in one round trip.
PAGE = 100


class IndexEntry(NamedTuple):
    """One entry: its time, in seconds since 1970, and its id."""

    created_at: float
    job_id: str


def older(redis: redis.Redis, key: str, last: IndexEntry | None) -> Iterator[IndexEntry]:
    """Entries of the index at ``key`` older than ``last``, the newest first, read a page at a time.

    Entries that come or go meanwhile move no other: none is met twice or passed over.
    """
    while entries := page(redis, key, last, PAGE):
        yield from entries
        last = entries[-1]


def page(redis: redis.Redis, key: str, last: IndexEntry | None, most: int) -> list[IndexEntry]:
    """At most ``most`` entries older than ``last``, by time and, of the same time, by id, both descending."""
    start = "+inf" if last is None else repr(last.created_at)
    ties = 0 if last is None else redis.zcount(key, start, start)
    members = cast(
        list[tuple[bytes, float]],
        redis.zrevrangebyscore(key, start, "-inf", start=0, num=most + ties, withscores=True),
    )
    entries = [IndexEntry(created_at, member.decode()) for member, created_at in members]
    return [each for each in entries if last is None or each < last][:most]
