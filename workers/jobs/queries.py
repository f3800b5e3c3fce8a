"""Queries about jobs: status of one job, its requesters, and the index of recent jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import redis
from redis.exceptions import ResponseError

from workers.broker import keys
from workers.broker.pipeline import RedisCommand
from workers.broker.scripts import Script, pairs
from workers.broker.time_index import PAGE, IndexEntry, page
from workers.cache import LRUCache
from workers.jobs.job import Job
from workers.jobs.kinds.registry import job_from_fields

#: Succeeded jobs that are cached, those looked at last, and their records in all; in memory one takes some
#: five times as much as its record.
CACHED_JOBS = 256
CACHED_BYTES = 8_000_000

#: Where a record read for a caller has what that one is to the job.
REQUESTER_FIELD = b"requester"


class StatusQuery:
    """Reads the status of jobs: record, place in the queue and pin in one round trip.

    The record of a job that succeeded does not change until it is gone or replaced, and is most of what is
    read. So the last of them are cached, and Redis is asked whether the record still is the one that ended at
    that moment: it answers each time, and sends the record where it is another. Safe to share between
    threads.
    """

    def __init__(self, redis: redis.Redis) -> None:
        self._look = Script(redis, "jobs/look")
        self._cached: LRUCache[str, tuple[bytes, Job, int]] = LRUCache(
            CACHED_JOBS, lambda entry: entry[2], max_bytes=CACHED_BYTES
        )

    def __call__(self, job_id: str, *, requester: str | None = None) -> RedisCommand[tuple[Job | None, bool]]:
        """The job as it stands, None where it has no record; and whether its result is pinned for an hour.

        A result that is being removed is not pinned. ``requester``: who requests the job just now, so that it
        is not to be forgotten any more. An unchanged job that succeeded is the same object each time.
        """
        end, cached, _ = self._cached.get(job_id) or (b"", None, 0)

        def read(reply: tuple[int, list[bytes] | None]) -> tuple[Job | None, bool]:
            pinned, flat = reply
            return cached if flat is None else self._read(job_id, flat), bool(pinned)

        return self._look.command(job_id, end.decode(), requester or "", read=read)

    def _read(self, job_id: str, flat: list[bytes]) -> Job | None:
        if not flat:
            return None
        fields = pairs(flat)
        job = job_from_fields(job_id, fields)
        if job.state == "succeeded" and b"finished_at" in fields:
            self._cached.put(job_id, (fields[b"finished_at"], job, sum(map(len, flat))))
        return job


@dataclass(frozen=True)
class Requester:
    """A caller's interest in a job. ``withdrawn_at``: when it canceled, in seconds since 1970."""

    withdrawn_at: float | None = None


class Requesters:
    """The callers of a job: one request is one job, however many share it, and none learns of the others.

    A hash beside the job's record, and for each caller an index of what it requested lately. They are kept as
    long as the record is; the scripts that submit, cancel and forget write them. Where callers are not told
    apart, nobody is kept. Safe to share between threads.
    """

    def __init__(self, redis: redis.Redis) -> None:
        self._add = Script(redis, "jobs/add_requester")

    def add(self, job_id: str, caller: str) -> None:
        """Note, for as long as records are kept, that ``caller`` requested a job that the store answers."""
        self._add(job_id, caller)

    def get(self, job_id: str, caller: str) -> RedisCommand[Requester | None]:
        """Whether ``caller`` requested the job, and withdrew; None when it never did, or long ago."""
        return RedisCommand(lambda client: client.hget(keys.requesters_key(job_id), caller), _requester)


def _requester(mark: bytes | None) -> Requester | None:
    if mark is None:
        return None
    return Requester(float(mark) if mark else None)


class JobIndex:
    """Reads which jobs were requested lately: an index of records by when they were created.

    A record that has expired leaves its entry behind: whoever reads the index drops it, and so do janitors.
    Safe to share between threads.
    """

    def __init__(self, redis: redis.Redis) -> None:
        self._redis = redis
        self._drop = Script(redis, "jobs/drop_from_index")

    def before(
        self, last: IndexEntry | None, most: int, names: tuple[str, ...], caller: str | None = None
    ) -> Iterator[tuple[IndexEntry, Mapping[bytes, bytes]]]:
        """Entries older than ``last``, the newest first, with the fields ``names`` of their records.

        At most ``most`` entries are looked at. What has no record any more comes without fields. ``caller``:
        of what that one requested, with its field of `Requesters` under `REQUESTER_FIELD`.
        """
        key = keys.JOBS_KEY if caller is None else keys.requested_key(caller)
        while most > 0:
            entries = page(self._redis, key, last, min(most, PAGE))
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
                pipe.hmget(keys.job_key(entry.job_id), *names)
            replies = cast("list[list[bytes | None] | Exception]", pipe.execute(raise_on_error=False))
        records = [_fields(names, reply) for reply in replies]
        if caller is not None:
            self._mark(entries, records, caller)
        gone = [entry.job_id for entry, fields in zip(entries, records, strict=True) if not fields]
        if gone:
            self._drop(key, *gone)
        return records

    def _mark(self, entries: list[IndexEntry], records: list[dict[bytes, bytes]], caller: str) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.hget(keys.requesters_key(entry.job_id), caller)
            marks = cast(list[bytes | None], pipe.execute())
        for fields, mark in zip(records, marks, strict=True):
            if fields and mark is not None:
                fields[REQUESTER_FIELD] = mark


def _fields(names: tuple[str, ...], reply: list[bytes | None] | Exception) -> dict[bytes, bytes]:
    """The fields that are there. A key of another type is a record that cannot be read."""
    if isinstance(reply, ResponseError):
        return {b"state": b""}
    if isinstance(reply, Exception):
        raise reply
    return {name.encode(): value for name, value in zip(names, reply, strict=True) if value is not None}
