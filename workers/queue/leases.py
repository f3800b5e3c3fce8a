"""Leases: which run of a job may speak for it.

A run is one execution of a job by one slot. It holds the job as long as its lease is in RQ's registry of
started jobs; the lease ends 6 s after its last heartbeat, on Redis' clock, and whoever finds it ended may
give the job to somebody else. Everything a run writes about its job goes through here and is refused, in the
same step, once the lease is gone: a worker that was paused and comes back changes nothing.

All of it works in a full Redis too, so that what runs can end.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import redis
from rq.results import Result as RQResult

from workers.broker.rq_names import EXECUTION_PREFIX
from workers.broker.scripts import Script
from workers.errors import LeaseLost

#: Of a dead worker's job somebody else knows within a lease and a sweep of the janitor: 4 to 7 s. RQ's own
#: defaults take about 808 s.
LEASE_S = 6
#: Two heartbeats may be late before a live worker loses its job.
BEAT_S = 2.0

Taking = Literal["taken", "elsewhere", "over"]
Outcome = Literal["succeeded", "failed", "canceled", "expired"]
Closing = Literal["closed", "queued", "lost"]

#: RQ has no kind of result for a canceled job; a stopped one comes nearest.
_RQ_RESULTS: Mapping[Outcome, RQResult.Type] = {
    "succeeded": RQResult.Type.SUCCESSFUL,
    "failed": RQResult.Type.FAILED,
    "canceled": RQResult.Type.STOPPED,
    "expired": RQResult.Type.FAILED,
}


@dataclass(frozen=True)
class Run:
    """One execution of a job by one slot."""

    job_id: str
    execution_id: str

    @property
    def member(self) -> str:
        """Its name among the leases."""
        return f"{self.job_id}:{self.execution_id}"

    @property
    def key(self) -> str:
        """RQ's record of it."""
        return f"{EXECUTION_PREFIX}{self.member}"


@dataclass(frozen=True)
class Beat:
    """The result of a heartbeat: whether the run still holds its job, and whether it is to stop.

    ``deadline_at`` is in seconds since 1970 on Redis' clock; it may move while the job runs.
    """

    held: bool
    cancel: bool = False
    deadline_at: float | None = None

    def __bool__(self) -> bool:
        return self.held


class Leases:
    """Take, renew, use, give back and close leases. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._take = Script(redis, "queue/take_lease", decode="text")
        self._renew = Script(redis, "queue/renew_leases")
        self._write = Script(redis, "queue/report_progress")
        self._show = Script(redis, "queue/show_preview")
        self._pass_on = Script(redis, "queue/pass_on", decode="text")
        self._give_back = Script(redis, "queue/give_back", decode="text")
        self._close = Script(redis, "queue/close_lease", decode="text")

    def take(self, run: Run, *, slot: str, worker: str) -> Taking:
        """Start a popped job: ``elsewhere`` when it is somebody else's by now, ``over`` when it has ended.

        RQ's record of the worker ``slot`` says from then on that it is busy with it.
        """
        return cast(Taking, self._take(run.job_id, run.execution_id, slot, worker, LEASE_S))

    def beat(self, run: Run) -> Beat:
        """Hold the job for another `LEASE_S` seconds; its `Beat.held` is False when it is lost."""
        (beat,) = self.beat_all([run])
        return beat

    def beat_all(self, runs: Sequence[Run]) -> list[Beat]:
        """`beat` for many runs in one step, in their order."""
        if not runs:
            return []
        replies = self._renew(LEASE_S, *(run.member for run in runs))
        return [
            Beat(bool(held), bool(cancel), float(deadline) if deadline else None)
            for held, cancel, deadline in replies
        ]

    def write(
        self,
        run: Run,
        fields: Mapping[str, str | int | float],
        *,
        ttl_s: int | None = None,
        remaining_s: float | None = None,
    ) -> bool:
        """Set fields of the job's record, to be forgotten after ``ttl_s``; whether somebody watches the job.

        Fields that begin with ``step`` are published as progress. ``remaining_s``: to the end of the run, as
        it is expected. Raises `LeaseLost`.
        """
        flat = [part for pair in fields.items() for part in pair]
        times = ["" if time_s is None else time_s for time_s in (ttl_s, remaining_s)]
        held = int(self._write(run.job_id, run.member, *times, *flat))
        if not held:
            raise LeaseLost(f"job {run.job_id}: the lease of run {run.execution_id} has ended")
        return held > 1

    def show(self, run: Run, step: int, png: bytes) -> None:
        """Publish a preview to those who watch the job; it is not stored. Raises `LeaseLost`."""
        preview = {"step": step, "media_type": "image/png", "data": b64encode(png).decode()}
        if not self._show(run.job_id, run.member, json.dumps(preview, separators=(",", ":"))):
            raise LeaseLost(f"job {run.job_id}: the lease of run {run.execution_id} has ended")

    def give_back(self, run: Run) -> bool:
        """Let the job wait again in its old turn, no loss counted; False when it was lost before.

        It keeps its checkpoint. A job that is to be canceled is that instead.
        """
        return self._give_back(run.member) in ("queued", "canceled")

    def pass_on(self, run: Run, worker: str) -> bool:
        """Leave the job to another worker that has the weights it was requested of; as `give_back`.

        False also where no live worker other than ``worker`` has: then the run goes on to hold the job.
        """
        return self._pass_on(run.job_id, run.member, worker) in ("queued", "canceled")

    def close(
        self,
        run: Run,
        outcome: Outcome,
        *,
        fields: Mapping[str, str | int | float] | None = None,
        slot: str,
        ran_s: float = 0.0,
        exc_string: str = "",
    ) -> Closing:
        """End the run and its job: our record, RQ's entry and the lease in one step.

        ``fields`` of the record go with it. ``slot`` is the RQ worker, ``ran_s`` what RQ counts as working
        time, ``exc_string`` what it keeps about a failure.

        ``closed``: done. ``lost``: the run did not hold the job any more; nothing was changed. ``queued``:
        the job was to be canceled, or its deadline had passed, but somebody has requested it again since; it
        waits in its old turn.
        """
        rq_field, rq_content = _rq_result(outcome, exc_string)
        flat = [part for pair in (fields or {}).items() for part in pair]
        closing = self._close(
            *(run.job_id, run.execution_id, outcome, slot, ran_s),
            *(_RQ_RESULTS[outcome].value, rq_field, rq_content),
            *flat,
        )
        return cast(Closing, closing)


def _rq_result(outcome: Outcome, exc_string: str) -> tuple[str, str]:
    """Name and value of the field that RQ's record of a result has, as `rq.results.Result` writes them."""
    if outcome == "succeeded":
        return "return_value", b64encode(json.dumps(outcome).encode()).decode()
    if exc_string:
        return "exc_string", b64encode(zlib.compress(exc_string.encode())).decode()
    return "", ""
