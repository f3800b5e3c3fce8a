"""What became of jobs whose worker is gone: every worker sweeps once a second, and no job is found twice.

A sweep is one script in Redis, so that of two janitors one finds a job and the other finds nothing.
"""

from __future__ import annotations

import logging

import redis

from workers.broker import queue
from workers.broker.scripts import Script
from workers.queue.attendance import VANISHING
from workers.queue.leases import BEAT_S, LEASE_S
from workers.queue.reconciliation import RQReconciler

SWEEP_S = 1.0
#: A slot starts what it popped within milliseconds. Whatever waits this long belongs to a slot that died in
#: between; one that was only slow is refused when it comes (`Leases.take`).
STRANDED_S = 2.5
TIDY_S = 60.0  # nothing waits for it: expired entries of lists that people read
_BATCH = 100  # jobs a sweep looks at; reclaiming so many held Redis up for 3 ms where it was measured

_LOOKED_AT = 1000  # entries of the index of jobs that one `tidy` looks at, in some 2 ms

_SEEN_KEY = "proxygrad:popped"  # since when a janitor has seen each popped job, by Redis' clock
_ROUNDS_KEY = "proxygrad:sweeps"  # when the last sweep was, and until when leases are not taken at their word

_log = logging.getLogger(__name__)

# After a gap without any sweep nobody could beat either: Redis was away, or stood still. Its clock went on,
# so that every lease looks ended; workers get the time for two beats before one counts as such.
_EXPIRED = f"""
{VANISHING}
local rounds = '{_ROUNDS_KEY}'
local batch, gap_s, patience_s, sweep_s = unpack(ARGV, 3, 6)
local swept, patient_until = unpack(redis.call('HMGET', rounds, 'swept', 'patient_until'))
local passed_s = swept and math.max(0, NOW - swept) or 0
redis.call('HSET', rounds, 'swept', NOW_TEXT)
if passed_s > tonumber(gap_s) then
  patient_until = NOW + patience_s
  redis.call('HSET', rounds, 'patient_until', exact(patient_until))
end
if patient_until and NOW < tonumber(patient_until) then
  presume_all_there()
  return {{}}
end
local found = end_vanished(math.min(passed_s, sweep_s), batch)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', NOW_TEXT, 'LIMIT', 0, batch)) do
  found[#found + 1] = member
  found[#found + 1] = release(member, true)
end
return found
"""

_STRANDED = f"""
local seen, limit_s, batch = '{_SEEN_KEY}', unpack(ARGV, 3, 4)
local here, returned = {{}}, {{}}
for _, id in ipairs(redis.call('LRANGE', POPPED, 0, batch - 1)) do
  here[id] = true
  local since = redis.call('HGET', seen, id)
  if not since then
    redis.call('HSET', seen, id, NOW_TEXT)
  elseif NOW - since >= tonumber(limit_s) then
    redis.call('LREM', POPPED, 1, id)
    here[id] = nil
    local turn = turn_of(id)
    if redis.call('HGET', entry_key(id), 'status') ~= 'queued' then
      remove(id)
    elseif turn and redis.call('HGET', own_key(id), 'state') == 'queued' then
      wait(id, turn, true)
      returned[#returned + 1] = id
    else
      settle(id, 'failed') -- none of ours
    end
  end
end
for _, id in ipairs(redis.call('HKEYS', seen)) do
  if not here[id] then redis.call('HDEL', seen, id) end
end
return returned
"""

# A popped job keeps its deadline until it is taken: should it come back, it is found here.
_OVERDUE = """
local failed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEADLINES, '-inf', NOW_TEXT, 'LIMIT', 0, ARGV[3])) do
  local turn = turn_of(id)
  if turn and redis.call('ZSCORE', ready_key(turn.priority, turn.model), turn.arrival .. ':' .. id) then
    leave(id)
    expire_waiting(id)
    failed[#failed + 1] = id
  elseif redis.call('HGET', own_key(id), 'state') ~= 'queued' then
    redis.call('ZREM', DEADLINES, id)
  end
end
return failed
"""

# Entries of the index whose record has expired: some of them each time, all in the end (`ZSCAN`).
_TIDY = f"""
local cursor = redis.call('HGET', '{_ROUNDS_KEY}', 'cursor') or '0'
local next_cursor, entries = unpack(redis.call('ZSCAN', JOBS, cursor, 'COUNT', {_LOOKED_AT}))
if next_cursor ~= '0' then
  redis.call('HSET', '{_ROUNDS_KEY}', 'cursor', next_cursor)
elseif cursor ~= '0' then
  redis.call('HDEL', '{_ROUNDS_KEY}', 'cursor')
end
for i = 1, #entries, 2 do
  if redis.call('EXISTS', own_key(entries[i])) == 0 then redis.call('ZREM', JOBS, entries[i]) end
end
for _, registry in ipairs({{FINISHED, FAILED, CANCELED}}) do
  redis.call('ZREMRANGEBYSCORE', registry, 0, time[1])
end
for _, worker in ipairs(redis.call('SMEMBERS', '{queue.WORKERS_KEYS[1]}')) do
  if redis.call('EXISTS', worker) == 0 then
    redis.call('SREM', '{queue.WORKERS_KEYS[0]}', worker)
    redis.call('SREM', '{queue.WORKERS_KEYS[1]}', worker)
  end
end
"""


class Janitor:
    """Finds lost jobs. What it does works in a full Redis too."""

    def __init__(self, redis: redis.Redis) -> None:
        self._expired = Script(redis, _EXPIRED, "allow-oom")
        self._stranded = Script(redis, _STRANDED, "allow-oom")
        self._overdue = Script(redis, _OVERDUE, "allow-oom")
        self._tidy = Script(redis, _TIDY, "allow-oom")
        self._reconciliation = RQReconciler(redis)

    def sweep(self) -> dict[str, str]:
        """One round: the jobs that were found, and what became of each."""
        found = dict.fromkeys(self.return_stranded(), "queued") | self.reclaim_expired()
        for job_id, outcome in found.items():
            if outcome in ("queued", "failed", "canceled"):
                _log.warning("job %s was lost by its worker and is now %s", job_id, outcome)
        moved = self._reconciliation.reconcile(_BATCH, thoroughly=False)
        self._tell(moved)
        return found | moved | dict.fromkeys(self.fail_overdue(), "failed")

    def tidy(self) -> None:
        """What nobody waits for: entries that expired in RQ's lists, differences that lengths do not show."""
        self._tidy()
        self._tell(self._reconciliation.reconcile(_BATCH, thoroughly=True))
        self._reconciliation.forget_flows()

    def reclaim_expired(self) -> dict[str, str]:
        """Take jobs from runs whose lease has ended, or whose process has vanished
        (`workers.queue.attendance`).

        By job: `queued`, `failed`, `canceled`, `over` or `stale` (`workers.broker.scripts`).
        """
        words = self._expired(_BATCH, LEASE_S / 2, 2 * BEAT_S, SWEEP_S)
        flat = [word.decode() for word in words]
        return {
            member.rpartition(":")[0]: outcome for member, outcome in zip(flat[::2], flat[1::2], strict=True)
        }

    def return_stranded(self) -> list[str]:
        """Let popped jobs that nobody started wait again in their turn; their ids."""
        return [job_id.decode() for job_id in self._stranded(STRANDED_S, _BATCH)]

    def fail_overdue(self) -> list[str]:
        """Fail waiting jobs whose deadline has passed; their ids."""
        return [job_id.decode() for job_id in self._overdue(_BATCH)]

    def _tell(self, moved: dict[str, str]) -> None:
        for job_id, outcome in moved.items():
            _log.info("job %s was moved by other hands and is now %s", job_id, outcome)
