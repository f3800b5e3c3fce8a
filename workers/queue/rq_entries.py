"""RQ entries: the hash that RQ reads for each queued job.

Entries hold JSON, never pickle, and name one task only.
"""

from __future__ import annotations

import zlib
from functools import cache
from typing import Any

import redis
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from workers.broker import rq_names
from workers.broker.limits import FINISHED_TTL_S

#: The task that an entry names. `workers.process.rq_worker` compares the name and imports nothing by it.
TASK = "workers.render.render"
SERIALIZER = JSONSerializer

#: `rq info` puts expired runs back by itself, where retries are left, and fails them where not. This many
#: keeps such a job in the queue; losses are counted and bounded in our own record.
FOREIGN_RETRIES = 1000

_ANY_ID = "0" * 32
_NO_TIMEOUT = -1  # in RQ; the engine keeps deadlines


def entry_fields(job_id: str) -> dict[str, Any]:
    """The fields of RQ's entry of a queued job; writes nothing."""
    common, data, description = _template()
    now = rq_names.timestamp()
    return {
        **common,
        "data": zlib.compress(data.replace(_ANY_ID.encode(), job_id.encode())),
        "description": description.replace(_ANY_ID, job_id),
        "created_at": now,
        "enqueued_at": now,
    }


@cache
def _template() -> tuple[dict[str, Any], bytes, str]:
    """The fields that all entries share, and the call and its description for a job called `_ANY_ID`.

    RQ makes an entry in 25 µs; from the template it takes 6.
    """
    entry = RQJob.create(
        TASK,
        args=(_ANY_ID,),
        id=_ANY_ID,
        connection=redis.Redis(),  # never used
        origin=rq_names.QUEUE_NAME,
        status=JobStatus.QUEUED,
        timeout=_NO_TIMEOUT,
        result_ttl=FINISHED_TTL_S,
        failure_ttl=FINISHED_TTL_S,
        serializer=SERIALIZER,
    )
    entry.retries_left = FOREIGN_RETRIES
    fields = {name: value for name, value in entry.to_dict().items() if value is not None}
    return fields, zlib.decompress(fields["data"]), fields["description"]
