"""Redis keys and channels of this project: their one home. RQ's own are in `workers.broker.rq_names`.

Lua scripts read the same constants as ``KEY.JOBS`` for `JOBS_KEY` (`workers.broker.scripts`). A name that
ends in ``PREFIX`` is completed by an id, a caller, a model or a worker. Type, content and lifetime:
docs/redis.md.
"""

from __future__ import annotations

# -- jobs ------------------------------------------------------------------------------------------------

#: Records of jobs, a hash each.
JOB_PREFIX = "proxygrad:job:"
#: Every job that has a record, scored by when that was created; expired ones are dropped in time.
JOBS_KEY = "proxygrad:jobs"
#: Jobs that should have a lease, a set: what RQ does to its own registry is noticed by the difference.
RUNNING_KEY = "proxygrad:running"
#: Jobs to be forgotten as soon as they have stopped, a set.
FORGOTTEN_KEY = "proxygrad:forgotten"
#: Waiting jobs with a deadline, scored by it.
DEADLINES_KEY = "proxygrad:deadlines"
#: Callers with waiting jobs, a set; and the waiting jobs of each, a set.
CALLERS_KEY = "proxygrad:callers"
WAITING_PREFIX = "proxygrad:waiting:"
#: Requesters of a job, a hash: caller -> nothing, or when it withdrew.
REQUESTERS_PREFIX = "proxygrad:requesters:"
#: Jobs that a caller requested, scored by when.
REQUESTED_PREFIX = "proxygrad:requested:"
#: Events of a job, a stream; and the channel on which they are published.
EVENTS_PREFIX = "proxygrad:events:"
#: Exists while somebody watches the previews of a job.
WATCHED_PREFIX = "proxygrad:watched:"
#: How many jobs ended in each state, and under `lost` how many runs were lost: a hash, since Redis began.
ENDED_KEY = "proxygrad:ended"
#: Jobs that end per second, a hash: a mean over the last minute.
RATE_KEY = "proxygrad:rate"
#: How long runs take, a hash of means: `ran_s` of all, and seconds for each unit of cost by model.
PACE_KEY = "proxygrad:pace"

# -- fair queue: P is a priority, M a model --------------------------------------------------------------

#: Number of the last job that was queued.
ARRIVALS_KEY = "proxygrad:arrivals"
#: Virtual time, a hash: P -> clock.
CLOCK_KEY = "proxygrad:clock"
#: Waiting jobs, ``P:M``: "arrival:id" scored by start - offset.
READY_PREFIX = "proxygrad:ready:"
#: ``P``, a hash: M -> offset, for models with waiting jobs only.
OFFSETS_PREFIX = "proxygrad:offsets:"
#: ``P``, a hash: M -> the greatest score that has left or was given back, for the same models.
FRONTS_PREFIX = "proxygrad:fronts:"
#: ``P`` and ``P:M``, a hash: "f:" flow -> last finish, "s:" flow -> last finish of a job that started (not
#: within a model), "n:" flow -> number of waiting jobs.
FLOWS_PREFIX = "proxygrad:flows:"

# -- janitor ---------------------------------------------------------------------------------------------

#: Since when a janitor has seen each popped job, a hash.
POPPED_SINCE_KEY = "proxygrad:popped"
#: When the last sweep was, until when expired leases are tolerated, and the cursor of `tidy`: a hash.
SWEEPS_KEY = "proxygrad:sweeps"
#: Present worker processes, a hash: worker -> nothing, or since when its connection is absent, and how long.
PRESENCE_KEY = "proxygrad:presence"
#: Entries of shared lists that could not be handled, in words, until a janitor logs them: a list.
SET_ASIDE_KEY = "proxygrad:set-aside"
#: Jobs that a worker lost when it was presumed dead, a set.
MISSED_PREFIX = "proxygrad:missed:"

# -- batches ---------------------------------------------------------------------------------------------

#: Records of batches, a hash each; ``:units``, ``:open``, ``:again``, ``:now`` and ``:claim`` stand beside
#: it.
BATCH_PREFIX = "proxygrad:batch:"
#: Every batch, and those of one caller, scored by when they were requested.
BATCHES_KEY = "proxygrad:batches"
BATCHES_OF_PREFIX = "proxygrad:batches:of:"
#: Batches that have not ended, and those of one caller: sets.
RUNNING_BATCHES_KEY = "proxygrad:batches:running"
RUNNING_BATCHES_OF_PREFIX = "proxygrad:batches:running:of:"
#: Exists for a second after a worker has looked through the running batches.
BATCHES_LOOKED_KEY = "proxygrad:batches:running:looked"
#: Batches of a model that may be expanded further, scored by since when.
DUE_BATCHES_PREFIX = "proxygrad:batches:due:"
#: Batches that follow a job, a set.
BATCHES_OF_JOB_PREFIX = "proxygrad:batches-of:"

# -- webhooks --------------------------------------------------------------------------------------------

#: Webhook subscriptions of a job or batch, a hash: "caller URL" -> nothing, or when the delivery was made.
SUBSCRIPTIONS_PREFIX = "proxygrad:webhooks:"
#: Exists for a minute after a delivery was made for a URL (by SHA-1), so that a repeated request makes none.
WEBHOOK_SENT_PREFIX = "proxygrad:webhook-sent:"
#: Deliveries, a hash each.
DELIVERY_PREFIX = "proxygrad:delivery:"
#: Every delivery of the last week, and those of one caller, scored by when the event happened.
DELIVERIES_KEY = "proxygrad:deliveries"
DELIVERIES_OF_PREFIX = "proxygrad:deliveries:of:"
#: Deliveries to a receiver (scheme, host and port), scored by when they are due.
DUE_DELIVERIES_PREFIX = "proxygrad:deliveries:due:"
#: Receivers, scored by when the first delivery to them is due.
RECEIVERS_KEY = "proxygrad:deliveries:receivers"

# -- fleet and storage -----------------------------------------------------------------------------------

#: Names of workers, scored by when they last published.
WORKERS_KEY = "proxygrad:workers"
#: What a live worker publishes, as JSON: ``:models`` and ``:readiness``.
WORKER_PREFIX = "proxygrad:worker:"
#: Exists while somebody may count on the stored result of a job.
PIN_PREFIX = "proxygrad:pin:"
#: Exists while the stored artifacts of a job are being removed; its value is the token of who does.
DELETION_LOCK_PREFIX = "proxygrad:deletion-lock:"
#: Lock of the garbage collector.
COLLECTOR_KEY = "proxygrad:collector"

# -- gateway ---------------------------------------------------------------------------------------------

#: Records of API keys as JSON, a hash by id.
API_KEYS_KEY = "proxygrad:keys"
#: Token bucket of an API key.
REQUESTS_PREFIX = "proxygrad:requests:"
#: What an idempotency key was used for, ``caller:SHA-256``.
IDEMPOTENCY_PREFIX = "proxygrad:idempotency:"

# -- channels --------------------------------------------------------------------------------------------

#: The model of a job that became ready. A lost message costs time only: dispatchers look again.
WAKE_CHANNEL = "proxygrad:wake"
#: The id of a running job that is to stop. A lost message costs time only: heartbeats find the same.
CANCEL_CHANNEL = "proxygrad:cancel"
#: The model of a batch that may be expanded further. A lost message costs a second.
BATCHES_CHANNEL = "proxygrad:batches:wake"
#: A worker process is subscribed to its own channel as long as it lives; nothing is published there.
PRESENCE_CHANNEL_PREFIX = "proxygrad:presence:"


def job_key(job_id: str) -> str:
    """The record of a job."""
    return f"{JOB_PREFIX}{job_id}"


def requesters_key(job_id: str) -> str:
    """The callers that requested a job."""
    return f"{REQUESTERS_PREFIX}{job_id}"


def requested_key(caller: str) -> str:
    """The jobs that a caller requested."""
    return f"{REQUESTED_PREFIX}{caller}"


def events_key(job_id: str) -> str:
    """The stream of a job's events, and the channel on which they are published."""
    return f"{EVENTS_PREFIX}{job_id}"


def watched_key(job_id: str) -> str:
    """Exists while somebody watches the previews of a job."""
    return f"{WATCHED_PREFIX}{job_id}"


def batch_key(batch_id: str) -> str:
    """The record of a batch."""
    return f"{BATCH_PREFIX}{batch_id}"


def units_key(batch_id: str) -> str:
    """The units of a batch that were queued, a hash: unit -> letter of the state, job id, detail."""
    return f"{batch_key(batch_id)}:units"


def open_key(batch_id: str) -> str:
    """The units of a batch that wait or run, a hash: job id -> unit."""
    return f"{batch_key(batch_id)}:open"


def batches_of_key(caller: str) -> str:
    """The batches of a caller."""
    return f"{BATCHES_OF_PREFIX}{caller}"


def due_batches_key(model: str) -> str:
    """The batches of a model that may be expanded further."""
    return f"{DUE_BATCHES_PREFIX}{model}"


def subscriptions_key(subject: str) -> str:
    """The webhook subscriptions of a job or a batch."""
    return f"{SUBSCRIPTIONS_PREFIX}{subject}"


def delivery_key(delivery_id: str) -> str:
    """A webhook delivery."""
    return f"{DELIVERY_PREFIX}{delivery_id}"


def deliveries_of_key(caller: str) -> str:
    """The deliveries of a caller."""
    return f"{DELIVERIES_OF_PREFIX}{caller}"


def due_deliveries_key(receiver: str) -> str:
    """The deliveries to a receiver (scheme, host and port)."""
    return f"{DUE_DELIVERIES_PREFIX}{receiver}"


def models_key(worker: str) -> str:
    """The models that a live worker serves, as JSON."""
    return f"{WORKER_PREFIX}{worker}:models"


def readiness_key(worker: str) -> str:
    """Whether each model of a live worker is ready, as JSON."""
    return f"{WORKER_PREFIX}{worker}:readiness"


def pin_key(job_id: str) -> str:
    """Exists while somebody may count on the stored result of that job."""
    return f"{PIN_PREFIX}{job_id}"


def deletion_lock_key(job_id: str) -> str:
    """Exists while the stored artifacts of that job are being removed."""
    return f"{DELETION_LOCK_PREFIX}{job_id}"


def presence_channel(worker: str) -> str:
    """The channel to which the process of that name is subscribed as long as it lives."""
    return f"{PRESENCE_CHANNEL_PREFIX}{worker}"


def idempotency_key(caller: str, digest: str) -> str:
    """What the idempotency key with that SHA-256 was used for by a caller."""
    return f"{IDEMPOTENCY_PREFIX}{caller}:{digest}"
