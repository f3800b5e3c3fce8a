"""The one RQ queue: its keys, and what an entry in it looks like.

`rq info` and RQ's dashboards read these keys; their names and formats are RQ's, pinned to 2.12.
Entries hold JSON, never pickle, and name one task only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import redis
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer

QUEUE_NAME = "proxygrad"
TASK = "workers.render.render"
SERIALIZER = JSONSerializer

QUEUE_KEY = f"rq:queue:{QUEUE_NAME}"
POPPED_KEY = f"{QUEUE_KEY}:intermediate"  # taken off the queue, not yet started
LEASES_KEY = f"rq:wip:{QUEUE_NAME}"  # "job:execution", scored by when the lease ends
FINISHED_KEY = f"rq:finished:{QUEUE_NAME}"
FAILED_KEY = f"rq:failed:{QUEUE_NAME}"
QUEUES_KEY = "rq:queues"
WORKERS_KEYS = ("rq:workers", f"rq:workers:{QUEUE_NAME}")

#: Redis forgets a job that long after its end; the store answers for a succeeded one from then on. A week
#: covers "what did I run last week"; a finished job takes some 8 to 11 KB of Redis, RQ's part included.
FINISHED_TTL_S = 7 * 24 * 3600

#: `rq info` puts expired runs back by itself, where retries are left, and fails them where not. This many
#: keeps such a job in the queue; losses are counted and bounded in our own record.
FOREIGN_RETRIES = 1000

_NO_TIMEOUT = -1  # RQ's word for it; the engine keeps deadlines


def job_key(job_id: str) -> str:
    """Our own record of a job, a hash."""
    return f"proxygrad:job:{job_id}"


def entry_key(job_id: str) -> str:
    """RQ's record of a job, a hash."""
    return RQJob.key_for(job_id)


def entry_fields(job_id: str, redis: redis.Redis) -> dict[str, Any]:
    """What RQ stores for a queued job, as field and value; writes nothing."""
    entry = RQJob.create(
        TASK,
        args=(job_id,),
        id=job_id,
        connection=redis,
        origin=QUEUE_NAME,
        status=JobStatus.QUEUED,
        timeout=_NO_TIMEOUT,
        result_ttl=FINISHED_TTL_S,
        failure_ttl=FINISHED_TTL_S,
        serializer=SERIALIZER,
    )
    entry.enqueued_at = datetime.now(UTC)
    entry.retries_left = FOREIGN_RETRIES
    return {name: value for name, value in entry.to_dict().items() if value is not None}
