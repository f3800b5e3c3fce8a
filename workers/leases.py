"""Leases: which run of a job may speak for it.

A run is one execution of a job by one slot. It holds the job as long as its lease is in RQ's registry of
started jobs; the lease ends 6 s after its last beat, on Redis' clock, and whoever finds it ended may give the
job to somebody else. Everything a run writes about its job goes through here and is refused, in the same
step, once the lease is gone: a worker that was paused and comes back changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import redis

from workers import queue
from workers.errors import LeaseLost

#: Of a dead worker's job somebody else knows within a lease and a sweep of the janitor: 4 to 7 s. RQ's own
#: defaults take about 808 s.
LEASE_S = 6
#: Two beats may be late before a live worker loses its job.
BEAT_S = 2.0
#: A job that was running on this many workers when they died is not given to another one.
MAX_LOSSES = 3

Taking = Literal["taken", "elsewhere", "over"]

_NOW = """
local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])
"""

# Owning the entry in the list of popped ones is what decides between a slot and a janitor that returned it.
_TAKE = f"""{_NOW}
local own, entry, popped, leases, run, runs = unpack(KEYS)
local id, execution, slot, worker, stamp, lease_s, keep_s = unpack(ARGV)
if redis.call('LREM', popped, 1, id) == 0 then return 'elsewhere' end
local state, holder = unpack(redis.call('HMGET', own, 'state', 'execution'))
if state == 'running' then
  if holder and redis.call('ZSCORE', leases, id .. ':' .. holder) then return 'elsewhere' end
  redis.call('HINCRBY', own, 'losses', 1) -- RQ's own cleanup gave it back, and does not count
elseif state and state ~= 'queued' then
  redis.call('EXPIRE', entry, keep_s)
  return 'over'
end
redis.call('ZADD', leases, now + lease_s, id .. ':' .. execution)
redis.call('HSET', run, 'id', execution, 'created_at', now, 'last_heartbeat', now, 'worker_name', slot)
redis.call('EXPIRE', run, keep_s)
redis.call('ZADD', runs, now + keep_s, execution)
redis.call('EXPIRE', runs, keep_s)
redis.call('HSET', entry, 'status', 'started', 'worker_name', slot)
redis.call('HSET', entry, 'started_at', stamp, 'last_heartbeat', stamp)
redis.call('PERSIST', entry)
if state then
  redis.call('HSET', own, 'state', 'running', 'started_at', now, 'worker', worker, 'execution', execution)
end
return 'taken'
"""

_BEAT = f"""{_NOW}
local entry, leases, run = unpack(KEYS)
local member, lease_s, stamp = unpack(ARGV)
if not redis.call('ZSCORE', leases, member) then return 0 end
redis.call('ZADD', leases, 'XX', now + lease_s, member)
redis.call('HSET', run, 'last_heartbeat', now)
redis.call('HSET', entry, 'last_heartbeat', stamp)
return 1
"""

_WRITE = """
local own, leases = unpack(KEYS)
if not redis.call('ZSCORE', leases, ARGV[1]) then return 0 end
redis.call('HSET', own, unpack(ARGV, 3))
if ARGV[2] ~= '' then redis.call('EXPIRE', own, ARGV[2]) end
return 1
"""

# Ends a lease. Says what became of the job: 'queued' again at the front, 'failed' for too many losses, 'over'
# when it had ended before, 'stale' when this run was not the job's last.
RELEASE = f"""{_NOW}
local leases, queue, failed = unpack(KEYS)
local max_losses, keep_s, problem = unpack(ARGV, 1, 3)
local function settle(own, entry, id, status)
  redis.call('HSET', entry, 'status', status)
  redis.call('EXPIRE', entry, keep_s)
  if status == 'failed' then redis.call('ZADD', failed, now + keep_s, id) end
end
local function release(member, lost)
  local id, execution = string.match(member, '^(.*):([^:]+)$')
  local own, entry = 'proxygrad:job:' .. id, 'rq:job:' .. id
  redis.call('ZREM', leases, member)
  redis.call('DEL', 'rq:execution:' .. member)
  redis.call('ZREM', 'rq:executions:' .. id, execution)
  local state, holder = unpack(redis.call('HMGET', own, 'state', 'execution'))
  if redis.call('HGET', entry, 'status') ~= 'started' then return 'stale' end
  if state and holder ~= execution then return 'stale' end
  if state ~= 'running' then
    settle(own, entry, id, state == 'succeeded' and 'finished' or 'failed')
    return 'over'
  end
  if lost and redis.call('HINCRBY', own, 'losses', 1) >= tonumber(max_losses) then
    redis.call('HSET', own, 'state', 'failed', 'finished_at', now, 'problem', problem)
    redis.call('EXPIRE', own, keep_s)
    settle(own, entry, id, 'failed')
    return 'failed'
  end
  redis.call('HSET', own, 'state', 'queued', 'step', 0)
  redis.call('HDEL', own, 'started_at', 'worker', 'execution', 'activation')
  redis.call('HSET', entry, 'status', 'queued', 'worker_name', '', 'started_at', '')
  redis.call('LPUSH', queue, id)
  return 'queued'
end
"""

_GIVE_BACK = f"""{RELEASE}
if not redis.call('ZSCORE', leases, ARGV[4]) then return 'stale' end
return release(ARGV[4], false)
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


def release_keys() -> list[str]:
    """Keys of a script that begins with `RELEASE`."""
    return [queue.LEASES_KEY, queue.QUEUE_KEY, queue.FAILED_KEY]


def release_args() -> list[str | int]:
    """First arguments of a script that begins with `RELEASE`."""
    detail = f"the job was running on {MAX_LOSSES} workers when they died, and is not given to another one"
    problem = f'{{"code": "worker_lost", "detail": "{detail}"}}'
    return [MAX_LOSSES, queue.FINISHED_TTL_S, problem]


class Leases:
    """Take, renew, use and give back leases. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._take = redis.register_script(_TAKE)
        self._beat = redis.register_script(_BEAT)
        self._write = redis.register_script(_WRITE)
        self._give_back = redis.register_script(_GIVE_BACK)

    def take(self, run: Run, *, slot: str, worker: str, stamp: str) -> Taking:
        """Start a popped job: ``elsewhere`` when it is somebody else's by now, ``over`` when it has ended.

        ``stamp``: the time as RQ writes it.
        """
        keys = [
            queue.job_key(run.job_id),
            queue.entry_key(run.job_id),
            queue.POPPED_KEY,
            queue.LEASES_KEY,
            run.key,
            f"rq:executions:{run.job_id}",
        ]
        words = [run.job_id, run.execution_id, slot, worker, stamp]
        return cast(
            Taking, cast(bytes, self._take(keys=keys, args=[*words, LEASE_S, queue.FINISHED_TTL_S])).decode()
        )

    def beat(self, run: Run, *, stamp: str) -> bool:
        """Hold the job for another `LEASE_S` seconds; False when it is lost."""
        keys = [queue.entry_key(run.job_id), queue.LEASES_KEY, run.key]
        return bool(self._beat(keys=keys, args=[run.member, LEASE_S, stamp]))

    def write(self, run: Run, fields: Mapping[str, str | int | float], *, ttl_s: int | None = None) -> None:
        """Set fields of the job's record, to be forgotten after ``ttl_s``. Raises `LeaseLost`."""
        flat = [part for pair in fields.items() for part in pair]
        args: list[str | int | float] = [run.member, "" if ttl_s is None else ttl_s, *flat]
        if not self._write(keys=[queue.job_key(run.job_id), queue.LEASES_KEY], args=args):
            raise LeaseLost(f"job {run.job_id}: the lease of run {run.execution_id} has ended")

    def give_back(self, run: Run) -> bool:
        """Put the job back to the front of the queue, no loss counted; False when it was lost before."""
        outcome = cast(bytes, self._give_back(keys=release_keys(), args=[*release_args(), run.member]))
        return outcome == b"queued"
