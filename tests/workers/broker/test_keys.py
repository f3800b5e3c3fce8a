"""Redis keys: a golden list. A key that changes its name is a choice, stated in the changelog."""

from __future__ import annotations

from types import ModuleType

import pytest

from workers.broker import keys, rq_names

#: Constants, then what a key function makes of a name.
OURS = """
API_KEYS_KEY proxygrad:keys
ARRIVALS_KEY proxygrad:arrivals
BATCHES_CHANNEL proxygrad:batches:wake
BATCHES_KEY proxygrad:batches
BATCHES_LOOKED_KEY proxygrad:batches:running:looked
BATCHES_OF_JOB_PREFIX proxygrad:batches-of:
BATCHES_OF_PREFIX proxygrad:batches:of:
BATCH_PREFIX proxygrad:batch:
CALLERS_KEY proxygrad:callers
CANCEL_CHANNEL proxygrad:cancel
CLOCK_KEY proxygrad:clock
COLLECTOR_KEY proxygrad:collector
DEADLINES_KEY proxygrad:deadlines
DELETION_LOCK_PREFIX proxygrad:deletion-lock:
DELIVERIES_KEY proxygrad:deliveries
DELIVERIES_OF_PREFIX proxygrad:deliveries:of:
DELIVERY_PREFIX proxygrad:delivery:
DUE_BATCHES_PREFIX proxygrad:batches:due:
DUE_DELIVERIES_PREFIX proxygrad:deliveries:due:
ENDED_KEY proxygrad:ended
EVENTS_PREFIX proxygrad:events:
FLOWS_PREFIX proxygrad:flows:
FORGOTTEN_KEY proxygrad:forgotten
FRONTS_PREFIX proxygrad:fronts:
IDEMPOTENCY_PREFIX proxygrad:idempotency:
JOBS_KEY proxygrad:jobs
JOB_PREFIX proxygrad:job:
MISSED_PREFIX proxygrad:missed:
OFFSETS_PREFIX proxygrad:offsets:
PACE_KEY proxygrad:pace
PIN_PREFIX proxygrad:pin:
POPPED_SINCE_KEY proxygrad:popped
PRESENCE_CHANNEL_PREFIX proxygrad:presence:
PRESENCE_KEY proxygrad:presence
RATE_KEY proxygrad:rate
READY_PREFIX proxygrad:ready:
RECEIVERS_KEY proxygrad:deliveries:receivers
REQUESTED_PREFIX proxygrad:requested:
REQUESTERS_PREFIX proxygrad:requesters:
REQUESTS_PREFIX proxygrad:requests:
RUNNING_BATCHES_KEY proxygrad:batches:running
RUNNING_BATCHES_OF_PREFIX proxygrad:batches:running:of:
RUNNING_KEY proxygrad:running
SET_ASIDE_KEY proxygrad:set-aside
SUBSCRIPTIONS_PREFIX proxygrad:webhooks:
SWEEPS_KEY proxygrad:sweeps
WAITING_PREFIX proxygrad:waiting:
WAKE_CHANNEL proxygrad:wake
WATCHED_PREFIX proxygrad:watched:
WEBHOOK_SENT_PREFIX proxygrad:webhook-sent:
WORKERS_KEY proxygrad:workers
WORKER_PREFIX proxygrad:worker:
batch_key proxygrad:batch:a
batches_of_key proxygrad:batches:of:a
deletion_lock_key proxygrad:deletion-lock:a
deliveries_of_key proxygrad:deliveries:of:a
delivery_key proxygrad:delivery:a
due_batches_key proxygrad:batches:due:a
due_deliveries_key proxygrad:deliveries:due:a
events_key proxygrad:events:a
idempotency_key proxygrad:idempotency:a:b
job_key proxygrad:job:a
models_key proxygrad:worker:a:models
open_key proxygrad:batch:a:open
pin_key proxygrad:pin:a
presence_channel proxygrad:presence:a
readiness_key proxygrad:worker:a:readiness
requested_key proxygrad:requested:a
requesters_key proxygrad:requesters:a
subscriptions_key proxygrad:webhooks:a
units_key proxygrad:batch:a:units
watched_key proxygrad:watched:a
"""

RQ = """
ALL_WORKERS_KEY rq:workers
CANCELED_KEY rq:canceled:proxygrad
COMMAND_CHANNEL_PREFIX rq:pubsub:
ENTRY_PREFIX rq:job:
EXECUTIONS_PREFIX rq:executions:
EXECUTION_PREFIX rq:execution:
FAILED_KEY rq:failed:proxygrad
FINISHED_KEY rq:finished:proxygrad
INTERMEDIATE_KEY rq:queue:proxygrad:intermediate
LEASES_KEY rq:wip:proxygrad
PUBSUB_CHANNEL_TEMPLATE rq:pubsub:%s
QUEUES_KEY rq:queues
QUEUE_KEY rq:queue:proxygrad
QUEUE_NAME proxygrad
RESULTS_PREFIX rq:results:
SUSPENDED_KEY rq:suspended
WORKERS_KEY rq:workers:proxygrad
WORKER_PREFIX rq:worker:
entry_key rq:job:a
"""


def names(module: ModuleType) -> list[str]:
    """Every constant of the module, and the key that each function makes of the names a, b."""
    found = [
        f"{name} {value}" for name, value in vars(module).items() if name.isupper() and isinstance(value, str)
    ]
    for name, function in vars(module).items():
        count = getattr(getattr(function, "__code__", None), "co_argcount", 0)
        if count and function.__module__ == module.__name__:
            found.append(f"{name} {function(*'ab'[:count])}")
    return sorted(found)


@pytest.mark.parametrize(("module", "golden"), [(keys, OURS), (rq_names, RQ)])
def test_names_are_these(module: ModuleType, golden: str) -> None:
    assert names(module) == golden.split("\n")[1:-1]


def test_no_two_names_are_one_key() -> None:
    values = [
        value
        for module in (keys, rq_names)
        for name, value in vars(module).items()
        if name.isupper() and name.endswith(("KEY", "PREFIX", "CHANNEL"))
    ]
    shared = {keys.PRESENCE_CHANNEL_PREFIX}
    assert len(values) == len(set(values) | shared)
