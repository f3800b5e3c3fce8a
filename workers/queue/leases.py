"""Leases: which run of a job may speak for it.

A run is one execution of a job by one slot. It holds the job as long as its lease is in RQ's registry of
started jobs; the lease ends 6 s after its last beat, on Redis' clock, and whoever finds it ended may give the
job to somebody else. Everything a run writes about its job goes through here and is refused, in the same
step, once the lease is gone: a worker that was paused and comes back changes nothing.

All of it works in a full Redis too, so that what runs can end.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import redis

from workers.broker.scripts import MAX_LOSSES, Script, text
from workers.errors import LeaseLost
from workers.queue.closing import Close, Closing, Outcome

__all__ = ["BEAT_S", "LEASE_S", "MAX_LOSSES", "Beat", "Closing", "Leases", "Outcome", "Run", "Taking"]

#: Of a dead worker's job somebody else knows within a lease and a sweep of the janitor: 4 to 7 s. RQ's own
#: defaults take about 808 s.
LEASE_S = 6
#: Two beats may be late before a live worker loses its job.
BEAT_S = 2.0

Taking = Literal["taken", "elsewhere", "over"]

# Owning the entry in the list of popped ones is what decides between a slot and a janitor that returned it.
# A client whose connection broke sends its script again, which may have run: a lease of this run is its own.
_TAKE = """
local id, execution, slot, worker, lease_s = unpack(ARGV, 3)
local own, entry = own_key(id), entry_key(id)
local run, runs = 'rq:execution:' .. id .. ':' .. execution, 'rq:executions:' .. id
if redis.call('ZSCORE', LEASES, id .. ':' .. execution) then return 'taken' end
if redis.call('LREM', POPPED, 1, id) == 0 then return 'elsewhere' end
local state = redis.call('HGET', own, 'state')
if state == 'running' then return 'elsewhere' end
if state and state ~= 'queued' then
  redis.call('EXPIRE', entry, KEEP_S)
  return 'over'
end
redis.call('ZREM', DEADLINES, id)
if redis.call('HGET', entry, 'status') ~= 'queued' then
  remove(id) -- canceled or deleted with RQ since it was popped
  return 'over'
end
redis.call('ZADD', LEASES, NOW + lease_s, id .. ':' .. execution)
redis.call('HSET', run, 'id', execution, 'worker_name', slot)
redis.call('HSET', run, 'created_at', NOW_TEXT, 'last_heartbeat', NOW_TEXT)
redis.call('EXPIRE', run, KEEP_S)
redis.call('ZADD', runs, NOW + KEEP_S, execution)
redis.call('EXPIRE', runs, KEEP_S)
redis.call('HSET', entry, 'status', 'started', 'worker_name', slot)
redis.call('HSET', entry, 'started_at', STAMP, 'last_heartbeat', STAMP)
redis.call('PERSIST', entry)
if state then
  redis.call('SADD', RUNNING, id)
  redis.call('HSET', own, 'state', 'running', 'started_at', NOW_TEXT)
  redis.call('HSET', own, 'worker', worker, 'execution', execution)
  tell_state(id)
end
local register = 'rq:worker:' .. slot
if redis.call('EXISTS', register) == 1 then
  redis.call('HSET', register, 'state', 'busy', 'current_job', id)
end
return 'taken'
"""

_BEAT = """
local lease_s, answers = ARGV[3], {}
for _, member in ipairs({unpack(ARGV, 4)}) do
  local held, cancel, deadline = 0, false, false
  if redis.call('ZSCORE', LEASES, member) then
    local id = string.match(member, '^(.*):[^:]+$')
    held = 1
    redis.call('ZADD', LEASES, NOW + lease_s, member)
    redis.call('HSET', 'rq:execution:' .. member, 'last_heartbeat', NOW_TEXT)
    redis.call('HSET', entry_key(id), 'last_heartbeat', STAMP)
    cancel, deadline = unpack(redis.call('HMGET', own_key(id), 'cancel_requested', 'deadline_at'))
  end
  answers[#answers + 1] = {held, cancel and 1 or 0, deadline or ''}
end
return answers
"""

_WRITE = """
local id, member, ttl_s, remaining_s = unpack(ARGV, 3, 6)
if not redis.call('ZSCORE', LEASES, member) then return 0 end
redis.call('HSET', own_key(id), unpack(ARGV, 7))
if ttl_s ~= '' then redis.call('EXPIRE', own_key(id), ttl_s) end
if remaining_s ~= '' then redis.call('HSET', own_key(id), 'expected_at', exact(NOW + remaining_s)) end
if ARGV[7] == 'step' then tell_progress(id) end
return 1 + redis.call('EXISTS', watched_key(id))
"""

_SHOW = """
local id, member, data = unpack(ARGV, 3, 5)
if not redis.call('ZSCORE', LEASES, member) then return 0 end
redis.call('PUBLISH', events_key(id), '- preview ' .. data)
return 1
"""

_GIVE_BACK = """
if not redis.call('ZSCORE', LEASES, ARGV[3]) then return 'stale' end
return release(ARGV[3], false)
"""


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
        return f"rq:execution:{self.member}"


@dataclass(frozen=True)
class Beat:
    """What a beat learned: whether the run still holds its job, and what is wanted of it now.

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
        self._take = Script(redis, _TAKE, "allow-oom")
        self._beat = Script(redis, _BEAT, "allow-oom")
        self._write = Script(redis, _WRITE, "allow-oom")
        self._show = Script(redis, _SHOW, "allow-oom")
        self._give_back = Script(redis, _GIVE_BACK, "allow-oom")
        self._close = Close(redis)

    def take(self, run: Run, *, slot: str, worker: str, stamp: str) -> Taking:
        """Start a popped job: ``elsewhere`` when it is somebody else's by now, ``over`` when it has ended.

        RQ's record of the worker ``slot`` says from then on that it is busy with it. ``stamp``: the time as
        RQ writes it.
        """
        answer = self._take(run.job_id, run.execution_id, slot, worker, LEASE_S, at=stamp)
        return cast(Taking, text(answer))

    def beat(self, run: Run, *, stamp: str) -> Beat:
        """Hold the job for another `LEASE_S` seconds; its `Beat.held` is False when it is lost."""
        (beat,) = self.beat_all([run], stamp=stamp)
        return beat

    def beat_all(self, runs: Sequence[Run], *, stamp: str) -> list[Beat]:
        """`beat` for many runs in one step, in their order."""
        if not runs:
            return []
        answers = self._beat(LEASE_S, *(run.member for run in runs), at=stamp)
        return [
            Beat(bool(held), bool(cancel), float(deadline) if deadline else None)
            for held, cancel, deadline in answers
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

        Fields that begin with ``step`` are told as progress. ``remaining_s``: to the end of the run, as it is
        expected. Raises `LeaseLost`.
        """
        flat = [part for pair in fields.items() for part in pair]
        times = ["" if time_s is None else time_s for time_s in (ttl_s, remaining_s)]
        held = int(self._write(run.job_id, run.member, *times, *flat))
        if not held:
            raise LeaseLost(f"job {run.job_id}: the lease of run {run.execution_id} has ended")
        return held > 1

    def show(self, run: Run, step: int, png: bytes) -> None:
        """Let those who watch the job see a preview; it is kept nowhere. Raises `LeaseLost`."""
        preview = {"step": step, "media_type": "image/png", "data": b64encode(png).decode()}
        if not self._show(run.job_id, run.member, json.dumps(preview, separators=(",", ":"))):
            raise LeaseLost(f"job {run.job_id}: the lease of run {run.execution_id} has ended")

    def give_back(self, run: Run) -> bool:
        """Let the job wait again in its old turn, no loss counted; False when it was lost before.

        It keeps its checkpoint. A job that is to be canceled is that instead.
        """
        return text(self._give_back(run.member)) in ("queued", "canceled")

    def close(
        self,
        run: Run,
        outcome: Outcome,
        *,
        fields: Mapping[str, str | int | float] | None = None,
        slot: str,
        stamp: str,
        ran_s: float = 0.0,
        exc_string: str = "",
    ) -> Closing:
        """End the run and its job, here and in RQ's books, in one step.

        ``fields`` of the record go with it. ``slot`` is the RQ worker, ``stamp`` the time as RQ writes it,
        ``ran_s`` what RQ counts as working time, ``exc_string`` what it keeps about a failure.

        ``closed``: so it is. ``lost``: the run did not hold the job any more; nothing was changed.
        ``queued``: the job was to be canceled, or its deadline had passed, but somebody has asked for it
        again since; it waits in its old turn.
        """
        return self._close(
            run.job_id,
            run.execution_id,
            outcome,
            fields or {},
            slot=slot,
            stamp=stamp,
            ran_s=ran_s,
            exc_string=exc_string,
        )
