"""The one RQ queue: its keys, and what an entry in it looks like.

`rq info` and RQ's dashboards read these keys; their names and formats are RQ's, pinned to 2.12. The list says
what waits; in which order it starts is our own (`workers.broker.fairness`).
Entries hold JSON, never pickle, and name one task only.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from functools import cache
from typing import Any

import redis
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.utils import utcformat

QUEUE_NAME = "proxygrad"
TASK = "workers.render.render"
SERIALIZER = JSONSerializer

QUEUE_KEY = f"rq:queue:{QUEUE_NAME}"
POPPED_KEY = f"{QUEUE_KEY}:intermediate"  # taken off the queue, not yet started
LEASES_KEY = f"rq:wip:{QUEUE_NAME}"  # "job:execution", scored by when the lease ends
FINISHED_KEY = f"rq:finished:{QUEUE_NAME}"
FAILED_KEY = f"rq:failed:{QUEUE_NAME}"
CANCELED_KEY = f"rq:canceled:{QUEUE_NAME}"
QUEUES_KEY = "rq:queues"
WORKERS_KEYS = ("rq:workers", f"rq:workers:{QUEUE_NAME}")

#: Channels. Whoever makes a job ready names its model on the first; whoever wants a running job stopped gives
#: its id on the second. A message that is lost costs time only: pops and beats find the same.
WAKE_CHANNEL = "proxygrad:wake"
CANCEL_CHANNEL = "proxygrad:cancel"

#: Every job of which there is a record, scored by when that was created; expired ones are dropped in time.
JOBS_KEY = "proxygrad:jobs"
#: Prefix of the channels and streams of what happens to jobs (`workers.jobs.events`).
EVENTS_PREFIX = "proxygrad:events:"
#: Jobs that are to be forgotten as soon as they have stopped (`workers.jobs.forgetting`).
FORGOTTEN_KEY = "proxygrad:forgotten"

#: How long runs take, means over the latest: `ran_s` of all, and seconds for each unit of cost by model.
PACE_KEY = "proxygrad:pace"
#: How many jobs ended in each state, and under `lost` how many runs were: a hash, since Redis began.
ENDED_KEY = "proxygrad:ended"


#: Names of workers, scored by when their word ends (`workers.fleet.catalog`).
WORKERS_KEY = "proxygrad:workers"
WORKER_PREFIX = "proxygrad:worker:"
#: So many of the jobs that one caller asked for are listed to it, the newest.
MOST_ASKED = 10_000

#: Redis forgets a job that long after its end; the store answers for a succeeded one from then on. A week
#: covers "what did I run last week"; a finished job takes some 8 to 11 KB of Redis, RQ's part included.
FINISHED_TTL_S = 7 * 24 * 3600

#: `rq info` puts expired runs back by itself, where retries are left, and fails them where not. This many
#: keeps such a job in the queue; losses are counted and bounded in our own record.
FOREIGN_RETRIES = 1000

_ANY_ID = "0" * 32
_NO_TIMEOUT = -1  # RQ's word for it; the engine keeps deadlines


def job_key(job_id: str) -> str:
    """Our own record of a job, a hash."""
    return f"proxygrad:job:{job_id}"


def readiness_key(worker: str) -> str:
    """Which models a live worker takes questions about, as JSON (`workers.fleet.catalog`)."""
    return f"{WORKER_PREFIX}{worker}:readiness"


def askers_key(job_id: str) -> str:
    """Who asked for a job, a hash (`workers.jobs.askers`)."""
    return f"proxygrad:askers:{job_id}"


def asked_key(caller: str) -> str:
    """What a caller asked for, ids scored by when (`workers.jobs.askers`)."""
    return f"proxygrad:asked:{caller}"


def events_key(job_id: str) -> str:
    """What happened to a job, a stream; and the channel on which it is told."""
    return f"{EVENTS_PREFIX}{job_id}"


def watched_key(job_id: str) -> str:
    """There while somebody wants to see previews of a job."""
    return f"proxygrad:watched:{job_id}"


def entry_key(job_id: str) -> str:
    """RQ's record of a job, a hash."""
    return RQJob.key_for(job_id)


def entry_fields(job_id: str) -> dict[str, Any]:
    """What RQ stores for a queued job, as field and value; writes nothing."""
    common, data, description = _entry_of_any()
    now = utcformat(datetime.now(UTC))
    return {
        **common,
        "data": zlib.compress(data.replace(_ANY_ID.encode(), job_id.encode())),
        "description": description.replace(_ANY_ID, job_id),
        "created_at": now,
        "enqueued_at": now,
    }


@cache
def _entry_of_any() -> tuple[dict[str, Any], bytes, str]:
    """What all entries have in common, and the call and its description for a job called `_ANY_ID`.

    RQ makes one in 25 µs; here it takes 6.
    """
    entry = RQJob.create(
        TASK,
        args=(_ANY_ID,),
        id=_ANY_ID,
        connection=redis.Redis(),  # never used
        origin=QUEUE_NAME,
        status=JobStatus.QUEUED,
        timeout=_NO_TIMEOUT,
        result_ttl=FINISHED_TTL_S,
        failure_ttl=FINISHED_TTL_S,
        serializer=SERIALIZER,
    )
    entry.retries_left = FOREIGN_RETRIES
    fields = {name: value for name, value in entry.to_dict().items() if value is not None}
    return fields, zlib.decompress(fields["data"]), fields["description"]
