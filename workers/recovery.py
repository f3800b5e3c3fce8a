"""What became of jobs whose worker is gone: every worker sweeps once a second, and no job is found twice.

A sweep is one script in Redis, so that of two janitors one finds a job and the other finds nothing.
"""

from __future__ import annotations

import logging
from typing import cast

import redis

from workers import queue
from workers.leases import BEAT_S, LEASE_S, RELEASE, release_args, release_keys

SWEEP_S = 1.0
#: A slot starts what it popped within milliseconds. Whatever waits this long belongs to a slot that died in
#: between; one that was only slow is refused when it comes (`Leases.take`).
STRANDED_S = 5.0
TIDY_S = 60.0  # nothing waits for it: expired entries of lists that people read
_BATCH = 100  # jobs a sweep looks at; reclaiming so many held Redis up for 3 ms where it was measured

_SEEN_KEY = "proxygrad:popped"  # since when a janitor has seen each popped job, by Redis' clock
_ROUNDS_KEY = "proxygrad:sweeps"  # when the last sweep was, and until when leases are not taken at their word

_log = logging.getLogger(__name__)

# After a gap without any sweep nobody could beat either: Redis was away, or stood still. Its clock went on,
# so that every lease looks ended; workers get the time for two beats before one counts as such.
_EXPIRED = f"""{RELEASE}
local rounds = KEYS[4]
local batch, gap_s, patience_s = unpack(ARGV, 4, 6)
local swept, patient_until = unpack(redis.call('HMGET', rounds, 'swept', 'patient_until'))
redis.call('HSET', rounds, 'swept', now)
if swept and now - swept > tonumber(gap_s) then
  patient_until = now + patience_s
  redis.call('HSET', rounds, 'patient_until', patient_until)
end
if patient_until and tonumber(now) < tonumber(patient_until) then return {{}} end
local found = {{}}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, batch)) do
  found[#found + 1] = member
  found[#found + 1] = release(member, true)
end
return found
"""

_STRANDED = """
local popped, seen, queue = unpack(KEYS)
local limit_s, batch = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local here, returned = {}, {}
for _, id in ipairs(redis.call('LRANGE', popped, 0, batch - 1)) do
  here[id] = true
  local since = redis.call('HGET', seen, id)
  if not since then
    redis.call('HSET', seen, id, now)
  elseif now - since >= tonumber(limit_s) then
    redis.call('LREM', popped, 1, id)
    here[id] = nil
    if redis.call('HGET', 'rq:job:' .. id, 'status') == 'queued' then
      redis.call('LPUSH', queue, id)
      returned[#returned + 1] = id
    end
  end
end
for _, id in ipairs(redis.call('HKEYS', seen)) do
  if not here[id] then redis.call('HDEL', seen, id) end
end
return returned
"""

_TIDY = """
local finished, failed, all_workers, our_workers = unpack(KEYS)
local now = redis.call('TIME')[1]
redis.call('ZREMRANGEBYSCORE', finished, 0, now)
redis.call('ZREMRANGEBYSCORE', failed, 0, now)
for _, worker in ipairs(redis.call('SMEMBERS', our_workers)) do
  if redis.call('EXISTS', worker) == 0 then
    redis.call('SREM', our_workers, worker)
    redis.call('SREM', all_workers, worker)
  end
end
"""


class Janitor:
    """Finds lost jobs."""

    def __init__(self, redis: redis.Redis) -> None:
        self._expired = redis.register_script(_EXPIRED)
        self._stranded = redis.register_script(_STRANDED)
        self._tidy = redis.register_script(_TIDY)

    def sweep(self) -> dict[str, str]:
        """One round: the jobs that were found, and what became of each."""
        found = dict.fromkeys(self.return_stranded(), "queued") | self.reclaim_expired()
        for job_id, outcome in found.items():
            if outcome in ("queued", "failed"):
                _log.warning("job %s was lost by its worker and is now %s", job_id, outcome)
        return found

    def tidy(self) -> None:
        """Take what has expired out of RQ's lists, as RQ's own maintenance would."""
        self._tidy(keys=[queue.FINISHED_KEY, queue.FAILED_KEY, *queue.WORKERS_KEYS])

    def reclaim_expired(self) -> dict[str, str]:
        """Take jobs from runs whose lease has ended; by job: `queued`, `failed`, `over` or `stale`."""
        args = [*release_args(), _BATCH, LEASE_S / 2, 2 * BEAT_S]
        flat = [
            word.decode()
            for word in cast(list[bytes], self._expired(keys=[*release_keys(), _ROUNDS_KEY], args=args))
        ]
        return {
            member.rpartition(":")[0]: outcome for member, outcome in zip(flat[::2], flat[1::2], strict=True)
        }

    def return_stranded(self) -> list[str]:
        """Put popped jobs that nobody started back to the front of the queue; their ids."""
        keys = [queue.POPPED_KEY, _SEEN_KEY, queue.QUEUE_KEY]
        ids = cast(list[bytes], self._stranded(keys=keys, args=[STRANDED_S, _BATCH]))
        return [job_id.decode() for job_id in ids]
