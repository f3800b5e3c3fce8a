"""How a job is forgotten: its record, RQ's entry of it, and whatever the store has, for everybody.

A job that runs is stopped first, and forgotten when it has stopped: until then, and until its artifacts are
gone, it stands in a set that workers look through. Who asks the question again takes it out of there.
The store is cleared under a claim (`workers.storage.pins`), so that no run and no collector is at it
meanwhile.
"""

from __future__ import annotations

import secrets
import time
from typing import cast

import redis

from workers.broker import queue
from workers.broker.scripts import Script, text
from workers.storage.pins import CLAIM_S, CLAIM_USE_S, ArtifactPins, DeletionLock, claim_key, pin_key
from workers.storage.store import Store

#: Between two looks of a worker for jobs that have stopped.
ROUND_S = 2.0
_BATCH = 100

_FORGET = f"""
local id, token, claim_s, again, caller = unpack(ARGV, 3, 7)
local own, entry = own_key(id), entry_key(id)
if caller ~= '' then
  redis.call('HDEL', askers_key(id), caller)
  redis.call('ZREM', asked_key(caller), id)
  drop_hooks(id, caller)
  for _, mark in ipairs(redis.call('HVALS', askers_key(id))) do
    if mark == '' then
      leave_batches(id, caller)
      return redis.call('HGET', own, 'state') == 'running' and 'stopping' or 'shared'
    end
  end
end
if again == '1' and redis.call('SISMEMBER', FORGOTTEN, id) == 0 then return 'wanted' end
redis.call('SADD', FORGOTTEN, id)
local state, status = redis.call('HGET', own, 'state'), redis.call('HGET', entry, 'status')
if state == 'running' or status == 'started' then
  if state then redis.call('HSETNX', own, 'cancel_requested', NOW_TEXT) end
  redis.call('PUBLISH', CANCEL, id)
  return 'stopping'
end
if not redis.call('SET', '{claim_key("")}' .. id, token, 'NX', 'EX', claim_s) then return 'claimed' end
leave(id)
redis.call('LREM', POPPED, 0, id)
if state == 'queued' then conclude(id, 'canceled') end
for _, registry in ipairs({{FINISHED, FAILED, CANCELED, JOBS}}) do redis.call('ZREM', registry, id) end
redis.call('DEL', own, entry, 'rq:results:' .. id, 'rq:executions:' .. id, '{pin_key("")}' .. id,
  askers_key(id), events_key(id), watched_key(id), hooks_key(id))
return ''
"""


class Forget:
    """Forgets jobs. Safe to share between threads."""

    def __init__(self, redis: redis.Redis, store: Store) -> None:
        self._redis = redis
        self._store = store
        self._claims = ArtifactPins(redis)
        self._forget = Script(redis, _FORGET, "allow-oom")

    def __call__(self, job_id: str, record: str, *, again: bool = False, caller: str | None = None) -> bool:
        """Forget the job; False when that is left to a worker's round, as the job has to stop first.

        ``record``: path of its record in the store, which goes first. ``again``: only if it is to be
        forgotten still. ``caller``: who has nothing to do with it any more; where others asked, it is
        forgotten for that one alone. Raises `StorageError`; then a round tries again.
        """
        token, asked_s = secrets.token_hex(8), time.monotonic()
        word = text(self._forget(job_id, token, CLAIM_S, int(again), caller or ""))
        if word:
            return word == "shared"
        claim = DeletionLock(job_id, token, asked_s + CLAIM_USE_S)
        try:
            paths = [stored.path for stored in self._store.list(job_id)]
            for path in sorted(paths, key=lambda path: path != record):
                if not claim.usable:
                    return False
                self._store.delete(path)
            self._redis.srem(queue.FORGOTTEN_KEY, job_id)
        finally:
            self._claims.release(claim)
        return True

    def pending(self) -> list[str]:
        """Some of those that are to be forgotten when they have stopped."""
        found = cast(list[bytes], self._redis.srandmember(queue.FORGOTTEN_KEY, _BATCH))
        return [job_id.decode() for job_id in found]
