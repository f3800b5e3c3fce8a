"""How a job that nobody wants any more is stopped: at once while it waits, by a word to its run later."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from workers.scripts import Script

# Without a caller, for everybody. With one, that caller withdraws, and who is left keeps the job.
# The message reaches the run's process within milliseconds; where it was lost, a beat finds the request.
_CANCEL = """
local id = ARGV[3]
local own = own_key(id)
local state = redis.call('HGET', own, 'state')
local caller, askers = ARGV[4], askers_key(id)
if caller ~= '' and (state == 'queued' or state == 'running') then
  if redis.call('HGET', askers, caller) == '' then redis.call('HSET', askers, caller, NOW_TEXT) end
  for _, mark in ipairs(redis.call('HVALS', askers)) do
    if mark == '' then return redis.call('HGETALL', own) end
  end
end
if state == 'queued' then
  leave(id)
  redis.call('LREM', POPPED, 0, id)
  conclude(id, 'cancelled')
  settle(id, 'canceled')
elseif state == 'running' then
  redis.call('HSETNX', own, 'cancel_requested', NOW_TEXT)
  redis.call('PUBLISH', CANCEL, id)
end
return redis.call('HGETALL', own)
"""


class Cancel:
    """Cancels jobs. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._cancel = Script(redis, _CANCEL, "allow-oom")

    def __call__(self, job_id: str, caller: str | None = None) -> Mapping[bytes, bytes]:
        """The record's fields as they are then; none when there is no record.

        ``caller``: who does not want it any more; the job goes on while others do. None: for everybody.
        """
        flat = self._cancel(job_id, caller or "")
        return dict(zip(flat[::2], flat[1::2], strict=True))
