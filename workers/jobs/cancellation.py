"""How a job that nobody wants any more is stopped: at once while it waits, by a word to its run later."""

from __future__ import annotations

from collections.abc import Mapping

import redis

from workers.broker.scripts import Script

#: A function for Lua. Without a caller, for everybody. With one, that caller withdraws, and who is left keeps
#: the job. The message reaches the run's process within milliseconds; where it was lost, a beat finds the
#: request.
WITHDRAWING = """
local function withdraw(id, caller)
  local own, askers = own_key(id), askers_key(id)
  local state = redis.call('HGET', own, 'state')
  if caller ~= '' and (state == 'queued' or state == 'running') then
    if redis.call('HGET', askers, caller) == '' then redis.call('HSET', askers, caller, NOW_TEXT) end
    for _, mark in ipairs(redis.call('HVALS', askers)) do
      if mark == '' then
        leave_batches(id, caller)
        tell_hooks('visualization', id, 'canceled', caller)
        tell_withdrawal(id, caller)
        return
      end
    end
  end
  if state == 'queued' then
    leave(id)
    redis.call('LREM', POPPED, 0, id)
    conclude(id, 'canceled')
    settle(id, 'canceled')
  elseif state == 'running' then
    redis.call('HSETNX', own, 'cancel_requested', NOW_TEXT)
    redis.call('PUBLISH', CANCEL, id)
  end
end
"""

_CANCEL = """
withdraw(ARGV[3], ARGV[4])
return redis.call('HGETALL', own_key(ARGV[3]))
"""


class Cancel:
    """Cancels jobs. Safe to share between threads."""

    def __init__(self, redis: redis.Redis) -> None:
        self._cancel = Script(redis, WITHDRAWING + _CANCEL, "allow-oom")

    def __call__(self, job_id: str, caller: str | None = None) -> Mapping[bytes, bytes]:
        """The record's fields as they are then; none when there is no record.

        ``caller``: who does not want it any more; the job goes on while others do. None: for everybody.
        """
        flat = self._cancel(job_id, caller or "")
        return dict(zip(flat[::2], flat[1::2], strict=True))
