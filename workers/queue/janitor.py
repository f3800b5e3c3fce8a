"""The janitor: takes jobs back from lost runs, and repairs RQ's list after RQ's tools changed it.

Every worker sweeps once a second. A sweep is a few scripts in Redis, so that of two janitors one finds a job
and the other finds nothing. A run is lost when its lease has expired, or when its process is presumed dead.

*Presence.* Each worker process is subscribed to a channel of its own as long as its listener is; the kernel
closes the connection of a process that dies, and Redis sees that. A process without its subscription is not
dead yet: its connection may have been cut alone, or Redis was restarted. It is presumed dead when

- it had no subscription in any sweep for `ABSENT_S`, of which a time in which nobody swept counts as one
  sweep,
- none of its leases was taken or renewed since that was first seen, and
- its last heartbeat is `SILENT_S` ago, so that the next one is overdue.

Its leases end then, before their time. A process that is not listed, that stands still, or whose machine is
gone without a word to Redis, is left to the leases (`workers.queue.leases`). One that was presumed dead
wrongly is refused like any other that lost its lease; when it is heard of again, the losses are not counted.

*Reconciliation.* `rq requeue`, `rq empty`, a job that was canceled or deleted with RQ, and RQ's own cleanup,
which `rq info` runs, know RQ's list alone, not the index of the fair queue. One script finds the difference
and repairs it, a bounded number of jobs at a time. Comparing 10,000 jobs that agree takes some 11 ms
(docs/queue.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import redis
from redis.exceptions import ResponseError

from workers.broker import keys
from workers.broker.scripts import Script
from workers.queue.leases import BEAT_S, LEASE_S

SWEEP_S = 1.0
#: A slot starts what it popped within milliseconds. Whatever waits this long belongs to a slot that died in
#: between; one that was only slow is refused when it comes (`Leases.take`).
STRANDED_S = 2.5
TIDY_S = 60.0  # nothing waits for it: expired entries of lists that people read

#: How long a process is seen without its subscription before it is presumed dead: with sweeps a second apart
#: that is in three of them. A listener that lives connects again within some 0.2 s.
ABSENT_S = 1.4
#: And for how long it has had no heartbeat: the next one is overdue by half a second.
SILENT_S = BEAT_S + 0.5
#: How long a process may take to be heard of again for its losses not to count.
REGRET_S = 600

_BATCH = 100  # jobs a sweep looks at; reclaiming so many held Redis up for 3 ms where it was measured

_log = logging.getLogger(__name__)


class Presence:
    """The list of present worker processes. Works in a full Redis too. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._redis = redis
        self._enlist = Script(redis, "janitor/enlist_process")

    def enlist(self, worker: str) -> None:
        """List the process; to be called whenever it has subscribed to `keys.presence_channel` of itself."""
        self._enlist(worker)

    def renew(self, worker: str) -> None:
        """List the process again where it is not, as after Redis was emptied; for every heartbeat."""
        if not self._redis.hexists(keys.PRESENCE_KEY, worker):
            self.enlist(worker)


class RQReconciler:
    """Reconciles RQ's list with the index of the fair queue. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._reconcile = Script(redis, "janitor/reconcile_rq", decode="pairs")

    def reconcile(self, limit: int, *, thoroughly: bool) -> dict[str, str]:
        """Repair at most ``limit`` jobs: what became of each, `queued`, `failed`, `canceled`, `dropped`.

        Only where list and index differ in length, unless ``thoroughly``.
        """
        moved: dict[str, str] = self._reconcile(limit, int(thoroughly))
        return moved


class Janitor:
    """Finds lost jobs. Works in a full Redis too."""

    def __init__(self, redis: redis.Redis) -> None:
        self._redis = redis
        self._reclaim = Script(redis, "janitor/reclaim_expired", decode="pairs")
        self._return = Script(redis, "janitor/return_stranded")
        self._fail_overdue = Script(redis, "janitor/fail_overdue")
        self._fail_unserved = Script(redis, "janitor/fail_unserved")
        self._tidy = Script(redis, "janitor/tidy")
        self._forget_flows = Script(redis, "janitor/forget_flows")
        self._reconciler = RQReconciler(redis)

    def sweep(self) -> dict[str, str]:
        """One round: the jobs that were found, and what became of each."""
        return self._do(
            self._log_set_aside,
            lambda: self._log_lost(dict.fromkeys(self.return_stranded(), "queued")),
            lambda: self._log_lost(self.reclaim_expired()),
            lambda: self._log_moved(self._reconciler.reconcile(_BATCH, thoroughly=False)),
            self._fail_waiting,
        )

    def tidy(self) -> None:
        """Drop expired entries of indexes and RQ's lists, and find differences that lengths do not show."""
        self._do(
            self._tidy,
            lambda: self._log_moved(self._reconciler.reconcile(_BATCH, thoroughly=True)),
            self._forget_flows,
        )

    @staticmethod
    def _do(*duties: Callable[[], dict[str, str] | None]) -> dict[str, str]:
        """Each of the duties, also where Redis refuses another. Raises its first refusal at the end."""
        done: dict[str, str] = {}
        refusal: ResponseError | None = None
        for duty in duties:
            try:
                done |= duty() or {}
            except ResponseError as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return done

    def _fail_waiting(self) -> dict[str, str]:
        unserved = self.fail_unserved()
        for job_id in unserved:
            _log.warning("job %s failed: no worker has the weights that it was requested of", job_id)
        return dict.fromkeys([*unserved, *self.fail_overdue()], "failed")

    def _log_lost(self, lost: dict[str, str]) -> dict[str, str]:
        for job_id, outcome in lost.items():
            if outcome in ("queued", "failed", "canceled"):
                _log.warning("job %s was lost by its worker and is now %s", job_id, outcome)
        return lost

    def reclaim_expired(self) -> dict[str, str]:
        """Take jobs from runs whose lease has expired or whose process is presumed dead.

        By job: `queued`, `failed`, `canceled`, `over` or `stale` (``workers/lua/lib/leases.lua``).
        """
        gap_s, patience_s = LEASE_S / 2, 2 * BEAT_S
        ended = self._reclaim(_BATCH, gap_s, patience_s, SWEEP_S, LEASE_S, ABSENT_S, SILENT_S, REGRET_S)
        return {member.rpartition(":")[0]: outcome for member, outcome in ended.items()}

    def return_stranded(self) -> list[str]:
        """Put popped jobs that no slot started back to their turn; their ids."""
        return [job_id.decode() for job_id in self._return(STRANDED_S, _BATCH)]

    def fail_overdue(self) -> list[str]:
        """Fail waiting jobs whose deadline has passed; their ids."""
        return [job_id.decode() for job_id in self._fail_overdue(_BATCH)]

    def fail_unserved(self) -> list[str]:
        """Fail waiting jobs whose model the live workers serve with other weights alone; their ids."""
        return [job_id.decode() for job_id in self._fail_unserved(_BATCH)]

    def _log_set_aside(self) -> None:
        """Log what scripts could not handle, each entry by one of all janitors."""
        while (entry := cast("bytes | None", self._redis.rpop(keys.SET_ASIDE_KEY))) is not None:
            _log.error("set aside, of the %s", entry.decode(errors="replace"))

    def _log_moved(self, moved: dict[str, str]) -> dict[str, str]:
        for job_id, outcome in moved.items():
            _log.info("job %s was moved by a tool of RQ and is now %s", job_id, outcome)
        return moved
