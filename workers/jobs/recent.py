"""Which jobs were asked for lately: an index of the records that Redis has, by when they were created.

The scripts enter a job as they create its record (`workers.broker.scripts`). A record that has expired leaves
its entry behind: whoever reads the index drops it, and so do janitors in their rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

import redis

from workers.broker import queue
from workers.broker.scripts import Script

#: Where a record read for a caller has what that one is to the job.
ASKED_FIELD = b"asker"

#: Records fetched in one round trip.
_AT_ONCE = 100


# Looked at again: one that was asked for anew in between has a record.
_DROP = """
local key = ARGV[3]
for _, id in ipairs({unpack(ARGV, 4)}) do
  if redis.call('EXISTS', own_key(id)) == 0 then redis.call('ZREM', key, id) end
end
"""


class IndexEntry(NamedTuple):
    """One entry of the index: when the job was created, in seconds since 1970, and its id."""

    created_at: float
    job_id: str


def older(redis: redis.Redis, key: str, last: IndexEntry | None) -> Iterator[IndexEntry]:
    """Entries of the index at ``key`` older than ``last``, the newest first, read some at a time.

    What comes or goes meanwhile moves no other: none is met twice or passed over.
    """
    while page := _page(redis, key, last, _AT_ONCE):
        yield from page
        last = page[-1]


def _page(redis: redis.Redis, key: str, last: IndexEntry | None, most: int) -> list[IndexEntry]:
    """In the order of Redis, backwards: by time, and of the same time by id."""
    start = "+inf" if last is None else repr(last.created_at)
    ties = 0 if last is None else redis.zcount(key, start, start)
    found = cast(
        list[tuple[bytes, float]],
        redis.zrevrangebyscore(key, start, "-inf", start=0, num=most + ties, withscores=True),
    )
    entries = [IndexEntry(created_at, member.decode()) for member, created_at in found]
    return [each for each in entries if last is None or each < last][:most]


class JobIndex:
    """Reads the index. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._redis = redis
        self._drop = Script(redis, _DROP, "allow-oom")

    def before(
        self, last: IndexEntry | None, most: int, names: tuple[str, ...], caller: str | None = None
    ) -> Iterator[tuple[IndexEntry, Mapping[bytes, bytes]]]:
        """Entries older than ``last``, the newest first, with the fields ``names`` of their records.

        At most ``most`` entries are looked at. What has no record any more comes without fields. ``caller``:
        of what that one asked for, with its mark (`workers.jobs.askers`) under `ASKED_FIELD`.
        """
        key = queue.JOBS_KEY if caller is None else queue.asked_key(caller)
        while most > 0:
            entries = _page(self._redis, key, last, min(most, _AT_ONCE))
            if not entries:
                return
            yield from zip(entries, self._records(key, entries, names, caller), strict=True)
            most -= len(entries)
            last = entries[-1]

    def _records(
        self, key: str, entries: list[IndexEntry], names: tuple[str, ...], caller: str | None
    ) -> list[dict[bytes, bytes]]:
        with self._redis.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.hmget(queue.job_key(entry.job_id), *names)
            answers = cast(list[list[bytes | None]], pipe.execute())
        records: list[dict[bytes, bytes]] = [
            {name.encode(): value for name, value in zip(names, values, strict=True) if value is not None}
            for values in answers
        ]
        if caller is not None:
            self._mark(entries, records, caller)
        gone = [entry.job_id for entry, fields in zip(entries, records, strict=True) if not fields]
        if gone:
            self._drop(key, *gone)
        return records

    def _mark(self, entries: list[IndexEntry], records: list[dict[bytes, bytes]], caller: str) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.hget(queue.askers_key(entry.job_id), caller)
            marks = cast(list[bytes | None], pipe.execute())
        for fields, mark in zip(records, marks, strict=True):
            if fields and mark is not None:
                fields[ASKED_FIELD] = mark
