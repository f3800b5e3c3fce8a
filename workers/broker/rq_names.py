"""RQ's keys, channels and way to write a time: names and formats are RQ's, pinned to 2.12.

`rq info` and RQ's dashboards read these keys. Lua scripts read the constants as ``RQ.QUEUE`` for `QUEUE_KEY`
(`workers.broker.scripts`).
"""

from __future__ import annotations

from datetime import UTC, datetime

from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.utils import utcformat

QUEUE_NAME = "proxygrad"

#: Names of queues, a set.
QUEUES_KEY = "rq:queues"
#: Ids of waiting jobs, a list. In which order they start is decided by `workers.queue.fair_queue`.
QUEUE_KEY = f"rq:queue:{QUEUE_NAME}"
#: Ids of jobs that were popped and not yet started, a list.
INTERMEDIATE_KEY = f"{QUEUE_KEY}:intermediate"
#: Leases: "job:execution", scored by when the lease ends.
LEASES_KEY = f"rq:wip:{QUEUE_NAME}"
#: Registries of jobs that ended, scored by when their entry expires.
FINISHED_KEY = f"rq:finished:{QUEUE_NAME}"
FAILED_KEY = f"rq:failed:{QUEUE_NAME}"
CANCELED_KEY = f"rq:canceled:{QUEUE_NAME}"
#: Keys of workers, of RQ and of this queue: sets. Each slot of a process is one.
ALL_WORKERS_KEY = "rq:workers"
WORKERS_KEY = f"rq:workers:{QUEUE_NAME}"
#: Exists after `rq suspend`.
SUSPENDED_KEY = "rq:suspended"

#: RQ's record of a job, a hash.
ENTRY_PREFIX = "rq:job:"
#: RQ's record of one execution, a hash ``job:execution``; and the executions of a job, scored by their
#: expiry.
EXECUTION_PREFIX = "rq:execution:"
EXECUTIONS_PREFIX = "rq:executions:"
#: Results of a job, a stream.
RESULTS_PREFIX = "rq:results:"
#: RQ's record of a worker, a hash.
WORKER_PREFIX = "rq:worker:"
#: Channels on which RQ sends commands to a worker.
COMMAND_CHANNEL_PREFIX = PUBSUB_CHANNEL_TEMPLATE % ""


def entry_key(job_id: str) -> str:
    """RQ's record of a job."""
    return f"{ENTRY_PREFIX}{job_id}"


def timestamp() -> str:
    """The current time as RQ writes it."""
    return utcformat(datetime.now(UTC))
