"""What RQ keeps about entries of the queue."""

from __future__ import annotations

from typing import cast

from redis import Redis
from rq.job import Job as RQJob

from workers.broker import rq_names
from workers.queue import rq_entries


def entry(redis: Redis, job_id: str) -> RQJob:
    return RQJob.fetch(job_id, connection=redis, serializer=rq_entries.SERIALIZER)


def status(redis: Redis, job_id: str) -> bytes | None:
    return cast("bytes | None", redis.hget(rq_names.entry_key(job_id), "status"))


def why(redis: Redis, job_id: str) -> str:
    """What RQ keeps about a failure."""
    result = entry(redis, job_id).latest_result()
    assert result is not None
    return str(result.exc_string)


def nothing_left(redis: Redis) -> bool:
    lists = redis.llen(rq_names.QUEUE_KEY) + redis.llen(rq_names.INTERMEDIATE_KEY)
    return lists + redis.zcard(rq_names.LEASES_KEY) == 0 and not redis.keys("rq:execution*")
